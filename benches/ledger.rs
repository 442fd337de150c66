//! What the ledger costs: processor time of its threads for each commit and each record, at 1 and at
//! 1,000 active accounts.
//!
//! `cargo bench --bench ledger` (`-- 20` for twenty seconds a line). Callers and ledger share one core, as a worker and
//! the ledger do under load: a round hands over a number of records, waits until they are durable, and
//! the next begins 1 ms after it. It is measured in slices, and the figures are those of the lower quartile, because
//! whatever else runs on the machine only makes them worse. `TMPDIR` chooses the disk.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark reports by panicking or printing"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate::clock::Clock;
use tollgate::usage::{Committed, Ledger, LedgerOptions, Record};
use tollgate::words::{AccountId, Action, Durability, GroupId, Mode, Outcome, Reason, RequestId};

/// From the start of a round to the start of the next: what the ledger keeps between commits under load.
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
    let options = LedgerOptions {
        path: home.path().join("ledger.db"),
        durability: Durability::Strict,
        replica: String::new(),
        pending_limit: 100_000,
    };
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
            group: self.group.clone(),
            action: self.action.clone(),
            mode: Mode::PerCall,
            admitted_at: clock.utc(),
            start: clock.mono(),
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
