//! The page of a statement as a browser shows and prints it.

use crate::bills::{into_last_month, last_month};
use crate::harness::*;
use crate::portal::{Customer, STUDIO, many_calls, own, settled_with};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tollgate::testing::config::Config;

/// A name that is markup when it is not escaped.
const NAME: &str = "Example <Studio> & \"Co\" 示例";

/// Runs the browser without a window, on a profile of its own.
fn chromium(dir: &Path, flags: &[&str], url: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "chromium", "--headless", "--no-sandbox"]);
    command.args(["--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args([
        "--disable-background-networking",
        "--disable-component-update",
    ]);
    command.args([
        "--disable-sync",
        "--enable-logging=stderr",
        "--no-proxy-server",
    ]);
    command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
    let output = command.args(flags).arg(url).output().unwrap();
    assert!(
        output.status.success(),
        "`make needs` installs chromium: {output:?}"
    );
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// Answers with the page as the gate did, headers included; at `/axe` without its policy, with the
/// checker in it.
async fn replayed(headers: HeaderMap, page: String) -> Upstream {
    Upstream::scripted(move |seen| {
        let (headers, page) = (headers.clone(), page.clone());
        async move {
            let html = |text: String| Response::new(Full::new(Bytes::from(text)));
            match seen.target.as_str() {
                "/" => {
                    let mut answer = html(page);
                    for name in ["content-type", "content-security-policy", "x-content-type-options"] {
                        answer.headers_mut().insert(name, headers[name].clone());
                    }
                    answer
                }
                "/axe" => {
                    let script = "<script src=\"/axe.min.js\"></script><script>axe.run().then(found => {\
                                  document.body.innerHTML = '<pre id=found></pre>';\
                                  document.getElementById('found').textContent = JSON.stringify(\
                                  {violations: found.violations.map(each => each.id), passes: found.passes.length});});</script>";
                    let mut answer = html(page.replace("</body>", &format!("{script}</body>")));
                    let kind = headers["content-type"].clone();
                    answer.headers_mut().insert("content-type", kind);
                    answer
                }
                "/axe.min.js" => html(std::fs::read_to_string(checker()).unwrap()),
                _ => {
                    let mut answer = html(String::new());
                    *answer.status_mut() = StatusCode::NOT_FOUND;
                    answer
                }
            }
        }
    })
    .await
}

/// The checker, which `make test` installs with the vendor's SDK.
fn checker() -> PathBuf {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/lib");
    let python =
        std::fs::read_dir(&lib).unwrap_or_else(|_| panic!("run `make test`, which makes {lib:?}"));
    let python = python.map(|entry| entry.unwrap().path()).next().unwrap();
    python.join("site-packages/axe_core_python/axe.min.js")
}

/// The texts of all cells of the tables.
fn cells(dom: &str) -> Vec<String> {
    let begins = dom.match_indices("<td").chain(dom.match_indices("<th"));
    let text = |(at, _): (usize, &str)| {
        let (_, rest) = dom[at..].split_once('>')?;
        let text = rest.split('<').next()?;
        Some(
            text.replace("&lt;", "<")
                .replace("&gt;", ">")
                .replace("&amp;", "&"),
        )
    };
    begins.filter_map(text).collect()
}

/// Every figure of a statement that its page must show.
fn figures(statement: &Value) -> Vec<String> {
    let mut figures = Vec::new();
    let plain = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let mut put = |of: &Value, names: &[&str]| {
        figures.extend(names.iter().map(|name| plain(&of[*name])));
    };
    for group in statement["groups"].as_array().unwrap() {
        for list in ["calls", "not_billable"] {
            for line in group[list].as_array().unwrap() {
                put(line, &["action", "calls"]);
            }
        }
        for line in group["lines"].as_array().unwrap() {
            put(line, &["what", "calls", "unit_price", "amount"]);
        }
        for line in group["paid"].as_array().unwrap() {
            put(line, &["order", "what", "at", "amount"]);
        }
        let per_call = &group["per_call"];
        if !per_call.is_null() {
            put(&per_call["free"], &["granted", "used", "left"]);
            put(&per_call["postpaid"], &["calls"]);
            for pack in per_call["packs"].as_array().unwrap() {
                put(pack, &["order", "used_before", "used", "left", "expires"]);
            }
        }
    }
    for total in ["due", "paid_when_ordered"] {
        figures.push(format!("{} CNY", plain(&statement[total])));
    }
    figures
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_statement_shows_the_figures_of_its_json_prints_on_one_a4_page_and_is_accessible()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let change = |config: &mut Config| {
        let account = &mut config.accounts[0];
        account.name = NAME.to_owned();
        account.services[0].packs[0].delivered = into_last_month(0);
    };
    let gate = settled_with(&upstream, many_calls(13_000), change).await;
    let path = format!("/v1/statements/{}", last_month());
    let customer: Customer = STUDIO;
    let (_, _, json) = own(&gate, customer, &path).await;
    let statement: Value = serde_json::from_slice(&json).unwrap();
    let figures = figures(&statement);
    assert!(figures.len() > 15, "{figures:?}");
    for language in ["en", "zh-CN"] {
        let mut request = plain("GET", &format!("{path}?format=html"), customer.key, "");
        request
            .headers_mut()
            .insert("accept-language", language.parse().unwrap());
        gate.mover.advance(Duration::from_millis(250));
        let (_, headers, page) = send(gate.public, request).await;
        let page = String::from_utf8(page.to_vec()).unwrap();
        let site = replayed(headers, page).await;
        let dir = tempfile::tempdir().unwrap();
        let url = format!("http://{}/", site.address);

        let shown = chromium(dir.path(), &["--dump-dom"], &url);
        assert!(!shown.err.contains("CONSOLE"), "{}", shown.err);
        assert!(shown.out.contains(&format!("<html lang=\"{language}\">")));
        assert!(
            shown.out.contains("&lt;Studio&gt; &amp; \"Co\" 示例"),
            "{}",
            shown.out
        );
        let cells = cells(&shown.out);
        for figure in &figures {
            assert!(cells.contains(figure), "{figure}: {cells:?}");
        }

        let pdf = dir.path().join("statement.pdf");
        let print = format!("--print-to-pdf={}", pdf.display());
        chromium(dir.path(), &["--no-pdf-header-footer", &print], &url);
        let pdf = String::from_utf8_lossy(&std::fs::read(pdf).unwrap()).into_owned();
        assert!(pdf.contains("/Count 1\n"), "one page");
        assert!(
            pdf.contains("/MediaBox [0 0 594.95996 841.91998]")
                || pdf.contains("/MediaBox [0 0 595"),
            "of A4"
        );

        // The pictures of deploy/CUSTOMERS.md are made by PICTURES=deploy/images.
        if let Some(pictures) = std::env::var_os("PICTURES") {
            let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join(pictures);
            let picture = picture.join(format!("statement-{language}.png"));
            let taken = format!("--screenshot={}", picture.display());
            chromium(dir.path(), &["--window-size=820,1160", &taken], &url);
            assert!(picture.exists(), "{}", picture.display());
        }

        let flags = ["--dump-dom", "--virtual-time-budget=10000"];
        let checked = chromium(dir.path(), &flags, &format!("{url}axe"));
        let found = checked.out.split("<pre id=\"found\">").nth(1);
        let found = found.unwrap_or_else(|| panic!("{} {}", checked.out, checked.err));
        let found: Value = serde_json::from_str(found.split('<').next().unwrap()).unwrap();
        assert_eq!(found["violations"], serde_json::json!([]), "{found}");
        assert!(found["passes"].as_u64().unwrap() > 10, "{found}");
    }
}
