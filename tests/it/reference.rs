//! The references in the pages are written from the program's own tables, and stay as those are.

use std::path::Path;
use tollgate::testing::http::h1::BadHead;
use tollgate::testing::metrics::FAMILIES;
use tollgate::testing::proxy::{REFUSALS, Retry};

/// What writes them anew.
const REMEDY: &str = "make reference";

/// Holds the block of `page` between the two comments of `name` against the table's; with
/// `UPDATE_PAGES=1` writes it.
fn check_block(page: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let begin = format!("<!-- {name}: written from the source by `{REMEDY}` -->\n");
    let end = format!("<!-- end of {name} -->");
    let blocks = text.split_once(&begin).and_then(|(before, rest)| {
        let (block, after) = rest.split_once(&end)?;
        Some((before, block, after))
    });
    let (before, block, after) =
        blocks.unwrap_or_else(|| panic!("{page} has no block between\n{begin}and\n{end}"));
    let fresh = format!("\n{}\n\n", table.trim());
    if block == fresh {
        return;
    }
    if std::env::var_os("UPDATE_PAGES").is_some_and(|value| value == "1") {
        std::fs::write(&path, [before, &begin, &fresh, &end, after].concat()).unwrap();
        return;
    }
    let is_new = |line: &&str| !block.lines().any(|old| old == *line);
    let line = fresh.lines().find(is_new);
    let line = line.unwrap_or("a line that is too many");
    panic!("{page}: {name} is stale: {line}\n`{REMEDY}` writes it anew");
}

#[test]
fn the_reference_of_the_metrics_is_the_table_of_the_families() {
    let (mut table, mut section) = (String::new(), "");
    for family in FAMILIES {
        if section != family.section {
            section = family.section;
            table += &format!("\n**{section}**\n\n");
            table += "| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n";
        }
        let name = family.name.trim_start_matches("tollgate_");
        let kind = family.kind.as_str();
        let labels: Vec<String> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        let labels = labels.join(", ");
        table += &format!("| `{name}` | {kind} | {labels} | {} |\n", family.help);
    }
    check_block("deploy/README.md", "metrics", &table);
}

/// Whether to send the call again, as the page says it.
fn again(retry: Retry) -> String {
    let twice = ", if it may act twice";
    match retry {
        Retry::Never => "no".to_owned(),
        Retry::Quota => "after `Retry-After`".to_owned(),
        Retry::Safe(0) => "yes".to_owned(),
        Retry::Safe(seconds) => format!("after {seconds} s"),
        Retry::Acted(0) => format!("yes{twice}"),
        Retry::Acted(seconds) => format!("after {seconds} s{twice}"),
    }
}

#[test]
fn the_reference_of_the_errors_is_the_table_of_the_refusals() {
    let (mut table, mut section) = (String::new(), "");
    for row in REFUSALS {
        if section != row.section {
            section = row.section;
            table += &format!("\n**{section}**\n\n");
            table +=
                "| Code | Status | Reason | Send it again | Sentence |\n|---|---|---|---|---|\n";
        }
        let (code, status, reason) = (row.code, row.status.as_str(), row.reason);
        let (again, sentence) = (again(row.retry), &row.sentence);
        table += &format!("| `{code}` | {status} | `{reason}` | {again} | {sentence} |\n");
    }
    check_block("deploy/ERRORS.md", "errors", &table);
}

#[test]
fn the_reference_of_what_is_no_request_is_the_list_of_bad_heads() {
    let mut table = "| Status | Reason | The likely cause |\n|---|---|---|\n".to_owned();
    for bad in BadHead::ALL {
        let (status, label, cause) = (bad.status(), bad.label(), bad.likely_cause());
        table += &format!("| {} | `{label}` | {cause} |\n", status.as_str());
    }
    check_block("deploy/ERRORS.md", "bad heads", &table);
}

#[test]
fn every_code_of_the_reference_stands_in_the_vendors_protocol() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/proxy/identity/PROTOCOL.md");
    let law = std::fs::read_to_string(path).unwrap();
    for row in REFUSALS {
        assert!(law.contains(row.code), "{}", row.code);
    }
}
