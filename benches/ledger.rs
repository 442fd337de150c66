//! What the ledger costs: processor time of its threads for each commit and each record, at 1 and
//! at 1,000 active accounts; how long one account's month takes to count, and a whole ledger to
//! verify, with how much memory.
//!
//! `cargo bench --bench ledger` (`-- 20` for twenty seconds a line). Clients and ledger share one
//! core, as a worker and the ledger do under load: a round hands over a number of records, waits
//! until they are durable, and the next begins 1 ms after it. It is measured in slices, and the
//! figures are those of the lower quartile, because whatever else runs on the machine only makes
//! them worse. `TMPDIR` chooses the disk. `-- verify` or `-- month` does that part alone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports by panicking or printing"
)]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate::testing::ledger::{Committed, Ledger, LedgerOptions, Reader, Record};
use tollgate::testing::model::{
    AccountId, Action, Clock, Durability, GroupId, KeyId, Mode, Outcome, Reason, RequestId, Utc,
};

/// From the start of a round to the start of the next: what the ledger keeps between commits under
/// load.
const ROUND: Duration = Duration::from_millis(1);
/// Long enough for some roll-ups.
const SLICE: Duration = Duration::from_millis(500);
/// Rounds before the measured ones, so that the WAL has its size and every account is known.
const WARM_UP: Duration = Duration::from_secs(2);

fn main() {
    // `cargo test --all-targets` runs this too, without the flag: then it need only compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let asked = |part: &str| std::env::args().any(|argument| argument == part);
    if asked("verify") || asked("month") {
        if asked("month") {
            count_a_month();
        }
        if asked("verify") {
            verify_ledgers();
        }
        return;
    }
    let seconds = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let mut one_core = rustix::thread::CpuSet::new();
    one_core.set(0);
    rustix::thread::sched_setaffinity(None, &one_core).unwrap();
    println!("accounts  records a round  a commit   CPU us a commit   a record   wall us a round");
    for accounts in [1, 1_000] {
        for records in [1, 32, 64, 1_000] {
            measure(accounts, records, Duration::from_secs(seconds.unwrap_or(5)));
        }
    }
    count_a_month();
    verify_ledgers();
}

/// One account's month of 50 million calls beside 300 other accounts, from a rollup that is written
/// by hand: whole, parted by what a settlement has seen, and by a pack that begins in the middle of
/// an hour of 69,000 calls.
fn count_a_month() {
    const HOURS: i64 = 720;
    const CALLS: i64 = 50_000_000;
    const EACH: i64 = CALLS / HOURS / 12;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("ledger.db");
    let options = options(&path);
    drop(Ledger::open(options, Clock::default(), |_| ()).unwrap());
    let begin = 1_793_462_400_000_000; // 2026-10-31 16:00 UTC: November in Shanghai
    let first_hour = begin / 3_600_000_000;
    let sql = rusqlite::Connection::open(&path).unwrap();
    // Twelve kinds of calls of the one account, four of each of the others. Its calls of the hour
    // in the middle stand there one by one, in turn.
    let middle = HOURS / 2;
    sql.execute_batch(&format!(
        "BEGIN;
         WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 1211)
         INSERT INTO series SELECT n + 1, iif(n < 12, 'big', 'other' || (n / 4)), 'portrait-segmentation', 'Action' || (n % 4),
             'per_call', iif(n / 4 % 3 = 2, 'upstream_failed', 'answered'), n / 4 % 3 = 0,
             CASE n / 4 % 3 WHEN 0 THEN '' WHEN 1 THEN 'vetoed' ELSE 'upstream_failed' END, 'key' FROM n;
         WITH RECURSIVE h(h) AS (SELECT 0 UNION ALL SELECT h + 1 FROM h WHERE h < {HOURS} - 1)
         INSERT INTO hours SELECT {first_hour} + h, id, {EACH}, h * 12 * {EACH} + 1, (h + 1) * 12 * {EACH} FROM h, series;
         WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 12 * {EACH} - 1)
         INSERT INTO raw (seq, id, series, admitted_at, start_ns, run, status, duration_us) SELECT {middle} * 12 * {EACH} + n + 1, randomblob(16), 1 + n % 12,
             {begin} + {middle} * 3600000000 + n * 3600000000 / (12 * {EACH}), n, 1, 200, 5 FROM n;
         UPDATE bounds SET rolled_up = {HOURS} * 12 * {EACH};
         COMMIT; ANALYZE;"
    ))
    .unwrap();
    drop(sql);
    let account = AccountId::new("big").unwrap();
    let (from, until) = (Utc(begin), Utc(begin + HOURS * 3_600_000_000));
    let half_past = Utc(begin + middle * 3_600_000_000 + 1_800_000_000);
    let clock = Clock::default();
    let time = |what: &str, parts: &[(Utc, Utc)], through: u64| {
        let mut millis = Vec::new();
        let mut calls = 0;
        for _ in 0..20 {
            let began = clock.mono();
            // As a command or a question finds it: opened for this alone.
            let reader = Reader::open(&path).unwrap();
            let lines = parts.iter().map(|(from, until)| {
                let lines = reader.usage(*from, *until, Some(&account), 0..=through);
                lines.unwrap().iter().map(|line| line.calls).sum::<u64>()
            });
            calls = lines.sum();
            millis.push(clock.mono().since(began).as_secs_f64() * 1_000.0);
        }
        millis.sort_by(f64::total_cmp);
        println!(
            "{what:<44} {calls:>10} calls  {:>7.1} ms (median of 20, most {:.1})",
            millis[10], millis[19]
        );
    };
    println!();
    time("a month, one account", &[(from, until)], u64::MAX);
    time(
        "as far as a settlement has seen",
        &[(from, until)],
        49_000_000 / 12 / EACH as u64 * 12 * EACH as u64,
    );
    time(
        "with a pack that begins at half past",
        &[(from, half_past), (half_past, until)],
        u64::MAX,
    );
}

/// Ledgers of two sizes are verified: the time grows with them, and the memory does not.
fn verify_ledgers() {
    println!("\nrecords     verified in   a record   memory at most   growth");
    for records in [250_000, 1_000_000, 4_000_000] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ledger.db");
        let clock = Clock::default();
        let ledger = Ledger::open(options(&path), clock.clone(), |_| ()).unwrap();
        let mut callers = Callers::new(1_000);
        while callers.made < records {
            match ledger.reserve() {
                Ok(slot) => drop(slot.commit(callers.call(&clock))),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        ledger.close(Duration::from_secs(60)).unwrap();
        drop(ledger);
        let began = clock.mono();
        // Makes the kernel forget what was used at most until now.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status_kib("VmRSS:");
        let verified = Reader::open(&path).unwrap().verify(None).unwrap();
        assert_eq!(verified.records, records as u64);
        let most = status_kib("VmHWM:");
        let seconds = clock.mono().since(began).as_secs_f64();
        println!(
            "{records:>9}  {seconds:>10.2} s   {:>5.2} us   {:>10.1} MiB   {:>4.1} MiB",
            seconds * 1e6 / records as f64,
            most / 1_024.0,
            (most - before) / 1_024.0,
        );
    }
}

fn status_kib(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse().unwrap()
}

fn options(path: &Path) -> LedgerOptions {
    LedgerOptions {
        path: path.to_owned(),
        durability: Durability::Strict,
        replica: String::new(),
        create: true,
        pending_limit: 100_000,
        stall_after: Duration::from_secs(1 << 40),
    }
}

/// What the ledger reported.
#[derive(Default)]
struct Totals {
    commits: AtomicU64,
    records: AtomicU64,
}

impl Totals {
    fn add(&self, committed: &Committed) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.records
            .fetch_add(committed.records.iter().sum(), Ordering::Relaxed);
    }

    fn take(&self) -> (f64, f64) {
        let take = |figure: &AtomicU64| figure.swap(0, Ordering::Relaxed) as f64;
        (take(&self.commits), take(&self.records))
    }
}

fn measure(accounts: u32, records: usize, measured: Duration) {
    let home = tempfile::tempdir().unwrap();
    let clock = Clock::default();
    let totals = Arc::new(Totals::default());
    let reported = totals.clone();
    let options = options(&home.path().join("ledger.db"));
    let ledger = Ledger::open(options, clock.clone(), move |c| reported.add(c)).unwrap();
    let mut callers = Callers::new(accounts);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let mut rounds = |span: Duration| {
        let mut durations = Vec::new();
        let until = clock.mono().plus(span);
        runtime.block_on(async {
            loop {
                let began = clock.mono();
                if began >= until {
                    break;
                }
                let commits: Vec<_> = (0..records)
                    .map(|_| ledger.reserve().unwrap().commit(callers.call(&clock)))
                    .collect();
                for commit in commits {
                    commit.await.unwrap();
                }
                durations.push(clock.mono().since(began).as_nanos() as f64 / 1_000.0);
                clock.sleep_until(began.plus(ROUND)).await;
            }
        });
        lower_quartile(durations)
    };
    rounds(WARM_UP);
    let end = clock.mono().plus(measured);
    let (mut walls, mut by_commit, mut by_record, mut batches) = (vec![], vec![], vec![], vec![]);
    while clock.mono() < end {
        totals.take();
        let before = ledger_cpu();
        walls.push(rounds(SLICE));
        let cpu = (ledger_cpu() - before).as_nanos() as f64 / 1_000.0;
        let (commits, recorded) = totals.take();
        by_commit.push(cpu / commits);
        by_record.push(cpu / recorded);
        batches.push(recorded / commits);
    }
    println!(
        "{accounts:>8}  {records:>15}  {:>8.0}   {:>15.1}   {:>8.2}   {:>15.0}",
        lower_quartile(batches),
        lower_quartile(by_commit),
        lower_quartile(by_record),
        lower_quartile(walls),
    );
    ledger.close(Duration::from_secs(10)).unwrap();
}

fn lower_quartile(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 4]
}

/// Calls of the accounts in turn.
struct Callers {
    accounts: Vec<AccountId>,
    group: GroupId,
    action: Action,
    made: usize,
}

impl Callers {
    fn new(accounts: u32) -> Self {
        Self {
            accounts: (0..accounts)
                .map(|n| AccountId::new(&format!("12500{n:05}")).unwrap())
                .collect(),
            group: GroupId::new("portrait-segmentation").unwrap(),
            action: Action::new("SegmentPortraitPic").unwrap(),
            made: 0,
        }
    }

    fn call(&mut self, clock: &Clock) -> Record {
        self.made += 1;
        Record {
            id: RequestId(uuid::Uuid::now_v7()),
            account: self.accounts[self.made % self.accounts.len()].clone(),
            key: KeyId::new("k").unwrap(),
            group: self.group.clone(),
            action: self.action.clone(),
            mode: Mode::PerCall,
            admitted_at: clock.utc(),
            start: clock.mono(),
            store_start: None,
            outcome: Outcome::Answered,
            status: Some(200),
            reason: Reason::Billable,
            duration: Duration::from_micros(1_234),
        }
    }
}

/// Time on the processor of the ledger's threads, user and system.
fn ledger_cpu() -> Duration {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let name = fs::read_to_string(task.join("comm")).unwrap();
        if name.starts_with("ledger") {
            let schedstat = fs::read_to_string(task.join("schedstat")).unwrap();
            let on_cpu = schedstat.split_whitespace().next().unwrap();
            nanoseconds += on_cpu.parse::<u64>().unwrap();
        }
    }
    Duration::from_nanos(nanoseconds)
}
