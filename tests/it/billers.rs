//! The biller's side of the ledger: reading records with a cursor, and sealing and settling until
//! somebody pulls the plug.

use crate::harness::*;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tollgate::testing::ledger::{Entry, Ledger, LedgerOptions, Reader, Record};
use tollgate::testing::model::{
    AccountId, Action, Clock, Durability, GroupId, KeyId, Mode, Outcome, Reason, RequestId, Utc,
};

/// What a biller knows: how far it has read, and the calls by account, action, mode, outcome and
/// billable.
#[derive(Clone, Default, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
struct Counted {
    cursor: u64,
    calls: BTreeMap<String, u64>,
}

impl Counted {
    fn add(&mut self, page: &[u8]) {
        for line in page.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let record: Value = serde_json::from_slice(line).unwrap();
            let word = |name: &str| record[name].as_str().unwrap().to_owned();
            let key = [
                word("account"),
                word("action"),
                word("mode"),
                word("outcome"),
                record["billable"].to_string(),
            ];
            *self.calls.entry(key.join(" ")).or_default() += 1;
            self.cursor = record["seq"].as_u64().unwrap();
        }
    }
}

async fn page(admin: std::net::SocketAddr, counted: &Counted, limit: usize) -> Vec<u8> {
    let path = format!("/v1/records?after={}&limit={limit}", counted.cursor);
    let (status, _, body) = get(admin, &path).await;
    assert_eq!(status, http::StatusCode::OK);
    body.to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_billers_with_cursors_one_of_which_crashes_and_resumes_end_with_the_counts_of_the_ledger()
 {
    const CALLS: usize = 400;
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, retail_unlimited).await;
    let (admin, public) = (gate.admin, gate.public);
    let calling = tokio::spawn(async move {
        let mut client = Client::connect(public).await.unwrap();
        for call in 0..CALLS {
            // Some in another series.
            let request = match call % 5 {
                0 => plain("POST", "/v1/portrait/segment-custom", RETAIL_KEY, "{}"),
                _ => segment(RETAIL_KEY),
            };
            client.send(request).await.unwrap();
        }
    });

    // This one keeps what it has counted in memory and never stops.
    let steady = async {
        let mut counted = Counted::default();
        while counted.cursor < CALLS as u64 {
            let page = page(admin, &counted, 7).await;
            counted.add(&page);
        }
        counted
    };
    // This one writes down cursor and counts together, and loses its memory at any moment.
    let file = gate.dir.path().join("biller.json");
    let crashing = async {
        let mut random = fastrand::Rng::with_seed(7);
        let mut crashes = 0;
        let written = || -> Counted {
            std::fs::read(&file).map_or_else(
                |_| Counted::default(),
                |text| serde_json::from_slice(&text).unwrap(),
            )
        };
        let mut counted = written();
        while written().cursor < CALLS as u64 {
            let page = page(admin, &counted, random.usize(1..30)).await;
            counted.add(&page);
            if random.u8(0..4) > 0 {
                let new = file.with_extension("new");
                std::fs::write(&new, serde_json::to_vec(&counted).unwrap()).unwrap();
                std::fs::rename(&new, &file).unwrap();
            }
            if random.u8(0..4) == 0 {
                counted = written();
                crashes += 1;
            }
        }
        assert!(crashes > 3);
        written()
    };
    let both = async { tokio::join!(steady, crashing) };
    let (steady, crashing) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .unwrap();
    calling.await.unwrap();

    let from = Utc(0);
    let lines = Reader::open(&gate.ledger())
        .unwrap()
        .usage(from, Utc(i64::MAX), None, 0..=u64::MAX)
        .unwrap();
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for l in lines {
        let key = format!(
            "{} {} {} {} {}",
            l.account, l.action, l.mode, l.outcome, l.billable
        );
        *calls.entry(key).or_default() += l.calls;
    }
    assert_eq!(calls.values().sum::<u64>(), CALLS as u64);
    assert_eq!(calls.len(), 2);
    let expected = Counted {
        cursor: CALLS as u64,
        calls,
    };
    assert_eq!(steady, expected);
    assert_eq!(crashing, expected);
}

const LEDGER_OF_THE_OTHER_PROCESS: &str = "TOLLGATE_TEST_LEDGER_TO_SEAL";

fn open(path: &Path) -> Ledger {
    let options = LedgerOptions {
        path: path.to_owned(),
        durability: Durability::Strict,
        replica: String::new(),
        create: true,
        pending_limit: 1_000,
        stall_after: Duration::from_secs(1 << 40),
    };
    Ledger::open(options, Clock::default(), |_| ()).unwrap()
}

fn record(at: Utc) -> Record {
    Record {
        id: RequestId(uuid::Uuid::now_v7()),
        account: AccountId::new("1250000001").unwrap(),
        key: KeyId::new("k").unwrap(),
        group: GroupId::new("portrait-segmentation").unwrap(),
        action: Action::new("SegmentPortraitPic").unwrap(),
        mode: Mode::PerCall,
        admitted_at: at,
        start: Clock::default().mono(),
        store_start: None,
        outcome: Outcome::Answered,
        status: Some(200),
        reason: Reason::Billable,
        duration: Duration::from_millis(1),
    }
}

/// The other process: records calls, seals days, settles months and prunes, and says what it was
/// told is durable, until it is killed.
fn seal_and_settle_for_ever(path: &Path) {
    let ledger = open(path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut out = std::io::stdout();
    let reader = Reader::open(path).unwrap();
    for day in reader.days().unwrap().len().. {
        let at = Utc(1_795_478_400_000_000 + i64::try_from(day).unwrap() * 86_400_000_000);
        let commits: Vec<_> = (0..20)
            .map(|_| ledger.reserve().unwrap().commit(record(at)))
            .collect();
        for commit in commits {
            runtime.block_on(commit).unwrap();
        }
        let month = format!("month {day:06}");
        let seal = ledger.seal(&format!("day {day:06}")).unwrap();
        writeln!(out, "sealed {} {}", seal.day, hex::encode(seal.head)).unwrap();
        ledger
            .keep(vec![Entry::Settlement {
                month: month.clone(),
                through_seq: seal.last_seq,
                head: seal.head,
                fixed_at: at,
            }])
            .unwrap();
        let statement = |account| Entry::Statement {
            month: month.clone(),
            account: AccountId::new(account).unwrap(),
            due: "1.00".into(),
            inputs: "{}".into(),
            statement: "x".repeat(6_000),
        };
        ledger.keep(vec![statement("a"), statement("b")]).unwrap();
        let settled = Entry::Settled {
            month: month.clone(),
            at,
            digest: Reader::open(path)
                .unwrap()
                .statements_digest(&month)
                .unwrap(),
        };
        ledger.keep(vec![settled]).unwrap();
        let debited = Entry::Debited {
            month: month.clone(),
            at,
        };
        ledger.keep(vec![debited]).unwrap();
        writeln!(out, "settled {month}").unwrap();
        ledger.prune(Utc(at.0 - 10 * 86_400_000_000));
    }
}

#[test]
fn after_kill_9_while_days_are_sealed_and_months_settled_the_ledger_has_what_was_told_and_verifies()
{
    if let Some(path) = std::env::var_os(LEDGER_OF_THE_OTHER_PROCESS) {
        return seal_and_settle_for_ever(&PathBuf::from(path));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.db");
    let mut random = fastrand::Rng::new();
    let mut sealed: HashMap<String, String> = HashMap::new();
    let mut settled: Vec<String> = Vec::new();
    for _ in 0..12 {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("billers::after_kill_9_while_days_are_sealed_and_months_settled_the_ledger_has_what_was_told_and_verifies")
            .env(LEDGER_OF_THE_OTHER_PROCESS, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // After so many of its words, and a moment more: in the midst of whatever it does then.
        let mut words = random.usize(1..12);
        for line in lines.map_while(Result::ok) {
            if let Some(("sealed", told)) = line.split_once(' ') {
                let (day, head) = told.rsplit_once(' ').unwrap();
                sealed.insert(day.to_owned(), head.to_owned());
            } else if let Some(("settled", month)) = line.split_once(' ') {
                settled.push(month.to_owned());
            } else {
                continue;
            }
            words -= 1;
            if words == 0 {
                std::thread::sleep(Duration::from_micros(random.u64(0..8_000)));
                process.kill().unwrap();
                break;
            }
        }
        process.wait().unwrap();

        // As it was left, and after it was opened again.
        let reader = Reader::open(&path).unwrap();
        reader.verify(None).unwrap();
        drop(open(&path));
        let days = reader.days().unwrap();
        let last = days.last().unwrap();
        assert!(reader.verify(Some(last.head)).unwrap().days > 0);
        let heads: HashMap<String, String> = days
            .iter()
            .map(|seal| (seal.day.clone(), hex::encode(seal.head)))
            .collect();
        for (day, head) in &sealed {
            assert_eq!(heads.get(day), Some(head), "{day} was published so");
        }
        for month in &settled {
            let settlement = reader.settlement(month).unwrap().unwrap();
            assert!(settlement.settled_at.is_some());
            for account in ["a", "b"] {
                let account = AccountId::new(account).unwrap();
                let statement = reader.stored_statement(month, &account).unwrap();
                assert_eq!(statement.unwrap().statement.len(), 6_000);
            }
        }
        // Statements come together or not at all, whatever was told.
        let debits = reader.debits(None).unwrap();
        assert_eq!(debits.len() % 2, 0);
    }
    assert!(settled.len() > 10, "{} settled", settled.len());
    let reader = Reader::open(&path).unwrap();
    assert!(reader.first_kept_seq().unwrap() > 1, "something was pruned");
}
