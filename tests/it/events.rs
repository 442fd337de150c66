//! What happens is told to a webhook, signed, at least once and in order, and receivers that stand in
//! deploy/EVENTS.md verify it with the specification's own libraries.

use crate::bills::seed;
use crate::harness::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tollgate::testing::config::{self, Config};
use tollgate::testing::ledger::Record;
use tollgate::testing::model::{Clock, Month, *};

const PORTRAIT: &str = "portrait-segmentation";
const KEY_SHA256: &str = "57b552b937c96bc4f2ad78e065bd94c66b7bd1cfe138efe9c313f3de74d3575a";
const OTHER_SECRET: &str = "whsec_b3RoZXItc2VjcmV0LW9mLXRoZS1nYXRlLTMwYnl0ZXM=";
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn zone() -> jiff::tz::TimeZone {
    jiff::tz::TimeZone::get("Asia/Shanghai").unwrap()
}

fn last_month() -> Month {
    let an_hour = 3_600_000_000;
    Month::of(Utc(Clock::default().utc().0 - an_hour), &zone()).previous()
}

fn rfc3339(at: Utc) -> String {
    jiff::Timestamp::from_microsecond(at.0).unwrap().to_string()
}

/// An event, and the instant of its attempt in seconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrived {
    id: String,
    seconds: i64,
    event: Value,
}

/// Verifies it as the specification says, against this secret.
fn verified(seen: &Seen, secret: &str) -> Arrived {
    let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let body = std::str::from_utf8(&seen.body).unwrap();
    let expected = signature(secret, &id, &timestamp, body);
    let signatures = header("webhook-signature");
    assert!(signatures.split(' ').any(|one| one == expected), "{seen:?}");
    Arrived {
        id,
        seconds: timestamp.parse().unwrap(),
        event: serde_json::from_str(body).unwrap(),
    }
}

fn signature(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let key = STANDARD
        .decode(secret.strip_prefix("whsec_").unwrap())
        .unwrap();
    let mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let mac = mac.chain_update(format!("{id}.{timestamp}.{body}"));
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A receiver that is down as long as it is told to be.
pub struct Webhook {
    upstream: Upstream,
    pub is_down: Arc<AtomicBool>,
    taken: Arc<Mutex<Vec<Arrived>>>,
}

impl Webhook {
    pub async fn start() -> Self {
        let is_down = Arc::new(AtomicBool::new(false));
        let taken: Arc<Mutex<Vec<Arrived>>> = Arc::default();
        let (down, noted) = (is_down.clone(), taken.clone());
        let upstream = Upstream::scripted(move |seen| {
            let (down, noted) = (down.clone(), noted.clone());
            async move {
                let arrived = verified(&seen, EVENTS_SECRET);
                if down.load(Ordering::SeqCst) {
                    return json(StatusCode::SERVICE_UNAVAILABLE, "{}");
                }
                noted.lock().push(arrived);
                Response::new(Default::default())
            }
        })
        .await;
        Self {
            upstream,
            is_down,
            taken,
        }
    }

    fn taken(&self) -> Vec<Arrived> {
        self.taken.lock().clone()
    }

    fn types(&self) -> Vec<String> {
        let text = |arrived: &Arrived| arrived.event["type"].as_str().unwrap().to_owned();
        self.taken().iter().map(text).collect()
    }

    /// Has a gate in this process post here.
    pub fn posted_to(&self) -> impl FnOnce(&mut Config) + use<> {
        let section = self.section("");
        let catalog = ("catalog: catalog.yaml", section.as_str());
        let house = Sandbox::new(self.upstream.address, &[catalog]);
        let settings = config::load(&house.settings).unwrap().settings;
        move |config| config.settings.events = settings.events
    }

    /// The `events` section that leads here, before `catalog:`.
    fn section(&self, more: &str) -> String {
        let address = self.upstream.address;
        format!(
            "events: {{webhook: \"http://{address}/events\", secret: {EVENTS_SECRET}{more}}}\ncatalog: catalog.yaml"
        )
    }
}

fn call(account: &str, at: Utc) -> Record {
    Record {
        id: RequestId(uuid::Uuid::now_v7()),
        account: AccountId::new(account).unwrap(),
        key: KeyId::new("k").unwrap(),
        group: GroupId::new(PORTRAIT).unwrap(),
        action: Action::new("SegmentPortraitPic").unwrap(),
        mode: Mode::PerCall,
        admitted_at: at,
        start: Mono(1),
        store_start: None,
        outcome: Outcome::Answered,
        status: Some(200),
        reason: Reason::Billable,
        duration: Duration::from_millis(30),
    }
}

/// Raises events in a ledger that no gate has, in this order: `account/n`.
pub fn raise(ledger: &Path, events: &[(&str, u32)]) {
    let open = rusqlite::Connection::open(ledger).unwrap();
    for (account, n) in events {
        let body = json!({"type": "pack.low", "data": {"account": account, "n": n}});
        let values = rusqlite::params![format!("evt_{account}{n}"), account, body.to_string()];
        let sql = "INSERT INTO events (id, account, type, raised_at, body) VALUES (?1, ?2, 'pack.low', 1, ?3)";
        assert_eq!(open.execute(sql, values).unwrap(), 1);
    }
}

/// A gate in this process with a trusted clock that can be moved, and these events to deliver.
async fn gate_with(webhook: &Webhook, events: &[(&str, u32)]) -> Gate {
    let upstream = Upstream::after(Duration::ZERO).await;
    Gate::start_with(upstream.address, |config| {
        webhook.posted_to()(config);
        seed(&config.settings.ledger.path, []);
        raise(&config.settings.ledger.path, events);
    })
    .await
}

/// Lets so much time pass by both clocks, with an attempt at each event that fails at least every
/// step.
pub async fn pass(gate: &Gate, time: Duration, step: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let next = left.min(step);
        left -= next;
        gate.mover.advance(next);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    for _ in 0..1_200 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come: {what}");
}

fn ids_of<'a>(arrived: &'a [Arrived], account: &str) -> Vec<&'a str> {
    let own = arrived
        .iter()
        .filter(|a| a.event["data"]["account"] == account);
    own.map(|arrived| arrived.id.as_str()).collect()
}

const EVENTS: [(&str, u32); 6] = [("a", 1), ("b", 1), ("a", 2), ("a", 3), ("b", 2), ("c", 1)];

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_of_six_days_every_event_arrives_in_order_signed_anew() {
    let webhook = Webhook::start().await;
    webhook.is_down.store(true, Ordering::SeqCst);
    let gate = gate_with(&webhook, &EVENTS).await;
    pass(&gate, 6 * DAY, 4 * HOUR).await;
    let seen = webhook.upstream.seen();
    assert!(seen.len() > 40, "{} attempts", seen.len());
    assert_eq!(webhook.taken(), []);
    webhook.is_down.store(false, Ordering::SeqCst);
    pass(&gate, HOUR / 2, HOUR / 4).await;
    until("all six", || webhook.taken().len() == 6).await;
    let taken = webhook.taken();
    assert_eq!(ids_of(&taken, "a"), ["evt_a1", "evt_a2", "evt_a3"]);
    assert_eq!(ids_of(&taken, "b"), ["evt_b1", "evt_b2"]);
    assert_eq!(ids_of(&taken, "c"), ["evt_c1"]);
    // By the clock of the attempt, not of the event.
    let now = gate.clock.utc().seconds();
    for arrived in &taken {
        assert!(
            (now - 3_600..=now).contains(&arrived.seconds),
            "{arrived:?}"
        );
    }
    let samples = gate.metrics().await;
    assert_eq!(
        samples.sum("tollgate_events_total", &["outcome=\"passed\""]),
        0
    );
    let delivered = ["outcome=\"delivered\"", "type=\"pack.low\""];
    assert_eq!(samples.sum("tollgate_events_total", &delivered), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_failed_for_seven_days_is_passed_over_and_listed_and_the_later_ones_arrive() {
    let webhook = Webhook::start().await;
    webhook.is_down.store(true, Ordering::SeqCst);
    let gate = gate_with(&webhook, &EVENTS).await;
    pass(&gate, 8 * DAY, 4 * HOUR).await;
    webhook.is_down.store(false, Ordering::SeqCst);
    pass(&gate, HOUR / 2, HOUR / 4).await;
    until("the later three", || webhook.taken().len() == 3).await;
    let taken = webhook.taken();
    assert_eq!(ids_of(&taken, "a"), ["evt_a2", "evt_a3"]);
    assert_eq!(ids_of(&taken, "b"), ["evt_b2"]);
    let passed = ["outcome=\"passed\"", "type=\"pack.low\""];
    assert_eq!(
        gate.metrics().await.sum("tollgate_events_total", &passed),
        3
    );
    let states = |state: &str| {
        let open = rusqlite::Connection::open(gate.ledger()).unwrap();
        let sql = format!("SELECT count(*) FROM events WHERE {state}");
        open.query_row(&sql, [], |row| row.get::<_, u32>(0))
            .unwrap()
    };
    assert_eq!(states("passed_at IS NOT NULL AND sent_at IS NULL"), 3);
    assert_eq!(states("sent_at IS NOT NULL AND passed_at IS NULL"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_a_year_passes_no_event_over() {
    let webhook = Webhook::start().await;
    webhook.is_down.store(true, Ordering::SeqCst);
    let gate = gate_with(&webhook, &EVENTS).await;
    pass(&gate, DAY, 4 * HOUR).await;
    gate.mover.step_utc(365 * 24 * 3_600_000_000);
    // It is trusted again after an hour, and is wrong all the same.
    pass(&gate, 3 * DAY, 4 * HOUR).await;
    assert_eq!(gate.metrics().await.sum("tollgate_clock_trusted", &[]), 1);
    webhook.is_down.store(false, Ordering::SeqCst);
    pass(&gate, HOUR / 2, HOUR / 4).await;
    until("all six", || webhook.taken().len() == 6).await;
}

/// Accounts as the files have them; `payments` is a YAML list.
fn accounts(payments: &str) -> String {
    let now = Clock::default().utc();
    let ago = |days: u32| rfc3339(Utc(now.0 - (days * DAY).as_micros() as i64));
    // Both orders are older than last month, on whatever day the test runs: they are on no statement of it.
    let (delivered, began) = (ago(345), ago(87));
    format!(
        "accounts:\n  \"1\":\n    name: One\n    keys: [{{api_key_sha256: {KEY_SHA256}}}]\n    \
         payments: {payments}\n    services:\n      {PORTRAIT}:\n        opened: 2024-01-01T00:00:00+08:00\n        \
         mode: per_call\n  \
         \"2\":\n    name: Two\n    keys: []\n    services:\n      {PORTRAIT}:\n        opened: 2024-01-01T00:00:00+08:00\n        \
         mode: qps\n        packs: [{{order: P-2, calls: 10000, delivered: {delivered}, paid: {{cash: \"88\"}}}}]\n        \
         qps_purchases: [{{order: Q-2, qps: 10, from: {began}, days: 90, paid: {{cash: \"36000\"}}}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_an_account_is_told_once_across_restarts_and_each_turn_of_it_anew() {
    let webhook = Webhook::start().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let more = ", balance_below: \"100\", pack_expiring: 30d";
    let house = Sandbox::new(
        upstream.address,
        &[("catalog: catalog.yaml", &webhook.section(more))],
    );
    let paid = |amounts: &[(&str, &str)]| {
        let now = rfc3339(Clock::default().utc());
        let payments = amounts
            .iter()
            .map(|(order, amount)| format!("{{order: {order}, at: {now}, amount: \"{amount}\"}}"));
        let payments = payments.collect::<Vec<_>>().join(", ");
        std::fs::write(
            house.file("accounts.yaml"),
            accounts(&format!("[{payments}]")),
        )
        .unwrap();
    };
    let (from, _) = last_month().bounds(&zone());
    let old = format!("[{{order: T-1, at: {}, amount: \"110\"}}]", rfc3339(from));
    std::fs::write(house.file("accounts.yaml"), accounts(&old)).unwrap();
    // 1,000 are free; 13,000 at 0.009 are 117.00.
    seed(
        &house.ledger(),
        (0..14_000).map(|n| call("1", Utc(from.0 + n * 1_000_000))),
    );

    let process = house.start().await;
    for _ in 0..600 {
        if webhook.taken().len() >= 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        webhook.types().len(),
        5,
        "{:?}\n{}",
        webhook.types(),
        house.log()
    );
    let of = |account: &str| {
        let taken = webhook.taken();
        let own = taken.into_iter().map(|arrived| arrived.event);
        own.filter(|event| event["data"]["account"] == account)
            .collect::<Vec<_>>()
    };
    let types = |events: &[Value]| {
        let text = |event: &Value| event["type"].as_str().unwrap().to_owned();
        let mut types: Vec<_> = events.iter().map(text).collect();
        types.sort();
        types
    };
    let one = of("1");
    assert_eq!(
        types(&one),
        ["account.in_arrears", "balance.low", "statement.fixed"],
        "{}",
        house.log()
    );
    let place = |r#type: &str| one.iter().position(|e| e["type"] == r#type).unwrap();
    assert!(place("balance.low") < place("account.in_arrears"));
    let month = last_month().to_string();
    let statement = &one[place("statement.fixed")]["data"];
    assert_eq!(statement["month"], month);
    assert_eq!(
        (&statement["due"], &statement["currency"]),
        (&json!("117.00"), &json!("CNY"))
    );
    assert_eq!(statement["path"], format!("/v1/statements/{month}"));
    let digest = format!("{month}={}", statement["digest"].as_str().unwrap());
    let verified = house.run(&["verify", "--digest", &digest]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    let arrears = &one[place("account.in_arrears")]["data"];
    assert_eq!(
        (&arrears["balance"], &arrears["name"]),
        (&json!("-7.00"), &json!("One"))
    );
    assert_eq!(one[place("balance.low")]["data"]["below"], "100");
    let two = of("2");
    assert_eq!(types(&two), ["pack.expiring", "quota.ending"]);
    let find = |r#type: &str| &two.iter().find(|e| e["type"] == r#type).unwrap()["data"];
    assert_eq!(find("pack.expiring")["left"], 10_000);
    let quota = find("quota.ending");
    assert_eq!(
        (&quota["quota"], &quota["quota_after"]),
        (&json!(10), &json!(0))
    );

    // A restart tells nothing again.
    drop(process);
    let _process = house.start().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(webhook.taken().len(), 5, "{:?}", webhook.types());

    // Paid, taken back, and paid again: each turn is told; the balance is low again only after it
    // was not.
    for (payments, more) in [
        (
            &[("T-1", "110"), ("T-2", "7")][..],
            &["account.resumed"][..],
        ),
        (&[("T-1", "110")], &["account.in_arrears"]),
        (&[("T-1", "110"), ("T-3", "300")], &["account.resumed"]),
    ] {
        let before = webhook.types().len();
        paid(payments);
        let (status, told) = post_reload(house.admin, "").await;
        assert_eq!(status, StatusCode::OK, "{told}");
        until("the turn", || webhook.types().len() > before).await;
        assert_eq!(webhook.types()[before..], *more);
    }
    let mut ids: Vec<_> = webhook.taken().into_iter().map(|a| a.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 8, "each has an id of its own");

    let listed = house.run(&["events", "--account", "1", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    let listed = listed["events"].as_array().unwrap();
    assert_eq!(listed.len(), 6);
    assert!(
        listed
            .iter()
            .all(|e| e["state"] == "sent" && e["sent_at"].is_string())
    );
    assert_eq!(listed[0]["body"], one[0]);
    let none = house.run(&["events", "--state", "passed"]);
    assert_eq!(
        (none.code, none.out.lines().count()),
        (Some(0), 1),
        "{none:?}"
    );
    let all = house.run(&["events", "--state", "sent"]);
    assert_eq!(all.out.lines().count(), 9, "{}", all.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_webhook_nothing_is_raised_and_one_that_is_connected_later_is_told_of_what_holds()
{
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[]);
    let (from, _) = last_month().bounds(&zone());
    let old = format!("[{{order: T-1, at: {}, amount: \"110\"}}]", rfc3339(from));
    std::fs::write(house.file("accounts.yaml"), accounts(&old)).unwrap();
    seed(
        &house.ledger(),
        (0..14_000).map(|n| call("1", Utc(from.0 + n * 1_000_000))),
    );
    let process = house.start().await;
    until("the settlement", || {
        house.log().contains("settled the month")
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(process);
    let listed = house.run(&["events"]);
    assert_eq!(
        (listed.code, listed.out.lines().count()),
        (Some(0), 1),
        "{listed:?}"
    );
    let listed = house.run(&["events", "--format", "json"]);
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed, json!({"events": []}));

    let webhook = Webhook::start().await;
    let more = ", balance_below: \"100\", pack_expiring: 30d";
    house.edit(
        "tollgate.yaml",
        "catalog: catalog.yaml",
        &webhook.section(more),
    );
    let _process = house.start().await;
    until("five events", || webhook.taken().len() >= 5).await;
    let mut types = webhook.types();
    types.sort();
    let expected = [
        "account.in_arrears",
        "balance.low",
        "pack.expiring",
        "quota.ending",
        "statement.fixed",
    ];
    assert_eq!(types, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_used_up_from_its_entry_is_told_though_its_account_does_not_call() {
    let webhook = Webhook::start().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(
        upstream.address,
        &[("catalog: catalog.yaml", &webhook.section(""))],
    );
    let (from, _) = last_month().bounds(&zone());
    let sold = accounts("[]");
    std::fs::write(house.file("accounts.yaml"), &sold).unwrap();
    seed(
        &house.ledger(),
        (0..14_000).map(|n| call("1", Utc(from.0 + n * 1_000_000))),
    );
    let _process = house.start().await;
    until("the settlement", || {
        house.log().contains("settled the month")
    })
    .await;
    let delivered = rfc3339(from);
    let pack = format!(
        "mode: per_call\n        packs: [{{order: P-1, calls: 10000, delivered: {delivered}, paid: {{cash: \"88\"}}}}]"
    );
    let sold = sold.replacen("mode: per_call", &pack, 1);
    std::fs::write(house.file("accounts.yaml"), sold).unwrap();
    let (status, told) = post_reload(house.admin, "").await;
    assert_eq!(status, StatusCode::OK, "{told}");
    until("the pack is told to be used up", || {
        webhook.types().contains(&"pack.exhausted".to_owned())
    })
    .await;
    assert!(webhook.types().contains(&"pack.low".to_owned()));
}

#[test]
fn the_page_tells_every_type_of_event_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/EVENTS.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let types = rows.filter_map(|row| Some(row.split_once('`')?.0));
    let types: Vec<_> = types.filter(|name| name.contains('.')).collect();
    let all: Vec<_> = EventType::ALL.iter().map(|t| t.as_str()).collect();
    assert_eq!(types, all);
}

/// A receiver of deploy/EVENTS.md in its own process. Ends with the test.
struct Example {
    child: Child,
    address: SocketAddr,
    printed: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Example {
    /// `language`: as the page's code block has it.
    async fn start(language: &str, secret: &str, dir: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join("deploy/EVENTS.md")).unwrap();
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        let (code, _) = rest.split_once("```").unwrap();
        let (program, script): (PathBuf, PathBuf) = match language {
            "python" => (root.join("target/venv/bin/python"), dir.join("receiver.py")),
            _ => {
                // Node looks for libraries beside the script.
                let libraries = root.join("target/node/node_modules");
                assert!(
                    libraries.exists(),
                    "run `make test`, which makes {libraries:?}"
                );
                std::os::unix::fs::symlink(libraries, dir.join("node_modules")).unwrap();
                ("node".into(), dir.join("receiver.mjs"))
            }
        };
        std::fs::write(&script, code).unwrap();
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let mut child = Command::new(&program)
            .arg(script)
            .arg(address.port().to_string())
            .env("EVENTS_SECRET", secret)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{program:?}: {e}; run `make test`, which makes it"));
        let printed: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (out, noted) = (child.stdout.take().unwrap(), printed.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                noted.lock().push(serde_json::from_str(&line).unwrap());
            }
        });
        until(language, || std::net::TcpStream::connect(address).is_ok()).await;
        Self {
            child,
            address,
            printed,
        }
    }

    async fn post(&self, id: &str, seconds: i64, signature: &str, body: &str) -> StatusCode {
        let request = Request::post("/events")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("content-length", body.len())
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(body.to_owned().into())
            .unwrap();
        send(self.address, request).await.0
    }
}

/// The receiver knows the old secret or the new one, and the gate signs with both.
async fn takes_what_is_genuine_and_nothing_else(language: &str, secret: &str) {
    let upstream = Upstream::after(Duration::ZERO).await;
    let dir = tempfile::tempdir().unwrap();
    let example = Example::start(language, secret, dir.path()).await;
    let section = format!(
        "events: {{webhook: \"http://{}/events\", secret: [{EVENTS_SECRET}, {OTHER_SECRET}]}}\ncatalog: catalog.yaml",
        example.address
    );
    let house = Sandbox::new(upstream.address, &[("catalog: catalog.yaml", &section)]);
    seed(&house.ledger(), []);
    raise(&house.ledger(), &EVENTS);
    let _process = house.start().await;
    until("all six", || example.printed.lock().len() == 6).await;
    let of = |account: &str| {
        let printed = example.printed.lock();
        let own = printed.iter().filter(|e| e["data"]["account"] == account);
        own.map(|event| event["data"]["n"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (of("a"), of("b"), of("c")),
        (vec![1, 2, 3], vec![1, 2], vec![1])
    );
    let sent = house.run(&["events", "--state", "sent", "--format", "json"]);
    let sent: Value = serde_json::from_str(&sent.out).unwrap();
    assert_eq!(sent["events"].as_array().unwrap().len(), 6);

    let now = Clock::default().utc().seconds();
    let body = r#"{"type":"pack.low","data":{"account":"d","n":1}}"#;
    let signed =
        |secret: &str, id: &str, seconds: i64| signature(secret, id, &seconds.to_string(), body);
    let forged_secret = "whsec_Zm9yZ2VkLXNlY3JldC1vZi1ub2JvZHktYXQtYWxs";
    let right = signed(secret, "evt_d", now);
    let old = now - 301;
    for (what, seconds, signature, body) in [
        ("forged", now, signed(forged_secret, "evt_d", now), body),
        ("of another id", now, signed(secret, "evt_e", now), body),
        (
            "of another body",
            now,
            right.clone(),
            r#"{"type":"pack.low"}"#,
        ),
        ("of another instant", now + 1, right.clone(), body),
        (
            "a copy that is sent again later",
            old,
            signed(secret, "evt_d", old),
            body,
        ),
        ("no signature", now, "nonsense".to_owned(), body),
    ] {
        let status = example.post("evt_d", seconds, &signature, body).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
    }
    assert!(of("d").is_empty());
    // Genuine, and a copy at once: it is handled once.
    for _ in 0..2 {
        let status = example.post("evt_d", now, &right, body).await;
        assert_eq!(status, StatusCode::OK);
    }
    until("the genuine one", || !of("d").is_empty()).await;
    assert_eq!(of("d"), [1_u64]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_in_python_takes_genuine_events_and_refuses_forged_and_replayed_ones() {
    takes_what_is_genuine_and_nothing_else("python", EVENTS_SECRET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_receiver_in_node_takes_genuine_events_and_refuses_forged_and_replayed_ones() {
    takes_what_is_genuine_and_nothing_else("javascript", OTHER_SECRET).await;
}
