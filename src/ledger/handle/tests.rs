//! The ledger as its users see it, with the disk failing underneath.

use super::*;
use crate::ledger::RecordsOf;
use crate::ledger::job::Frozen;
use crate::ledger::queue::HEALTHY;
use crate::ledger::{
    CloseError, Commit, Committed, Entry, LedgerError, NotDurable, ReadError, Reader, Record, Seal,
    Slot, StatementsDigest, StoredRecord, Trouble, backup, billable, schema, seal,
};
use crate::model::{
    AccountId, Action, Bill, GroupId, KeyId, Mode, Mono, Outcome, Reason, RequestId,
};
use disk::{Disk, ENOSPC, Word};
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use tempfile::TempDir;

#[path = "../../../tests/disk/mod.rs"]
pub(in crate::ledger) mod disk;

pub(in crate::ledger) const HOUR_US: i64 = 3_600_000_000;
/// 2026-11-24 00:00 UTC.
pub(in crate::ledger) const DAY: Utc = Utc(1_795_478_400_000_000);
pub(in crate::ledger) const ALL: std::ops::RangeInclusive<u64> = 0..=u64::MAX;

/// A ledger in a directory of its own, with its reports. Where a [`Disk`] is under this process, on
/// that disk.
pub(in crate::ledger) struct Bench {
    pub(in crate::ledger) home: TempDir,
    pub(in crate::ledger) reports: Arc<Mutex<Vec<Committed>>>,
    pub(in crate::ledger) pace: Pace,
}

impl Bench {
    pub(in crate::ledger) fn new() -> Self {
        Self {
            home: match Disk::of_this_process() {
                Some(disk) => tempfile::tempdir_in(disk.root()).unwrap(),
                None => tempfile::tempdir().unwrap(),
            },
            reports: Arc::default(),
            pace: Pace {
                probe: Duration::from_millis(2),
                gather: Duration::from_millis(5),
                roll_up: 7,
            },
        }
    }

    pub(in crate::ledger) fn path(&self) -> PathBuf {
        self.home.path().join("ledger.db")
    }

    pub(in crate::ledger) fn options(&self) -> LedgerOptions {
        LedgerOptions {
            path: self.path(),
            durability: Durability::Strict,
            replica: "gate-1".into(),
            create: true,
            pending_limit: 100_000,
            // The records of these tests have starts of their own, of long ago.
            stall_after: Duration::from_secs(1 << 40),
        }
    }

    pub(in crate::ledger) fn open(&self) -> Ledger {
        self.open_with(self.options()).unwrap()
    }

    pub(in crate::ledger) fn open_with(
        &self,
        options: LedgerOptions,
    ) -> Result<Ledger, LedgerError> {
        let reports = self.reports.clone();
        Ledger::open_with(
            options,
            Clock::default(),
            move |committed| reports.lock().push(*committed),
            self.pace,
        )
    }

    /// The file alone, without a thread that writes: what happens, happens when it is called for.
    pub(in crate::ledger) fn store(&self) -> Store {
        if !self.path().exists() {
            fs::write(self.path(), "").unwrap();
        }
        Store::open(&self.path(), true).unwrap()
    }

    /// Seals a day the way [`Ledger::seal`] does, without a thread that writes.
    pub(in crate::ledger) fn seal(&self, store: &mut Store, day: &str, step: i64) -> Seal {
        match store.freeze(day, step).unwrap() {
            Frozen::Sealed(seal) => seal,
            Frozen::Rows { after, last_seq } => {
                let hours = seal::hours(&self.reader().connection, after, last_seq).unwrap();
                store.seal(day, last_seq, hours).unwrap()
            }
        }
    }

    pub(in crate::ledger) fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    pub(in crate::ledger) fn all(&self) -> Vec<StoredRecord> {
        self.reader().records(0, usize::MAX).unwrap()
    }

    pub(in crate::ledger) fn sql(&self) -> Connection {
        Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
    }

    /// How far the records are rolled up.
    pub(in crate::ledger) fn rolled_up(&self) -> i64 {
        self.sql()
            .query_row("SELECT rolled_up FROM bounds", [], |row| row.get(0))
            .unwrap()
    }

    /// Records that are committed in one go, each waited for.
    pub(in crate::ledger) fn commit_all(
        &self,
        ledger: &Ledger,
        records: impl Iterator<Item = Record>,
    ) {
        let commits: Vec<Commit> = records
            .map(|record| ledger.reserve().unwrap().commit(record))
            .collect();
        for commit in commits {
            wait(commit).unwrap();
        }
    }

    /// Seqs have no gap, no call is there twice, the rollup is what a recount gives, and the chain
    /// holds.
    pub(in crate::ledger) fn assert_consistent(&self) {
        assert_consistent(&self.path());
    }
}

pub(in crate::ledger) fn assert_consistent(path: &Path) {
    let records = Reader::open(path).unwrap().records(0, usize::MAX).unwrap();
    for (at, record) in records.iter().enumerate() {
        assert_eq!(record.seq, at as u64 + 1);
        assert_eq!(record.billable, record.reason == Reason::Billable);
    }
    let mut ids: Vec<_> = records.iter().map(|record| record.id.0).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), records.len());

    let sql = Connection::open(path).unwrap();
    // All of it in one state: the ledger may be open, and roll up meanwhile.
    sql.execute_batch("BEGIN").unwrap();
    let list = |query: &str| -> Vec<String> {
        let mut select = sql.prepare(query).unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let key = r#"account, "group", action, mode, outcome, billable, reason, key"#;
    let recount = list(&format!(
        "SELECT concat_ws(' ', {key}, admitted_at / {HOUR_US}, count(*), min(seq), max(seq)) AS line FROM records
         GROUP BY {key}, admitted_at / {HOUR_US} ORDER BY line"
    ));
    let rollup = list(&format!(
        "SELECT concat_ws(' ', {key}, hour, sum(calls), min(first_seq), max(last_seq)) AS line FROM rollup
         GROUP BY {key}, hour ORDER BY line"
    ));
    assert_eq!(rollup, recount);
    // What is rolled up is the recount up to there.
    let key = "series, admitted_at / 3600000000";
    assert_eq!(
        list(
            "SELECT concat_ws(' ', series, hour, sum(calls), min(first_seq), max(last_seq)) AS line FROM hours
             GROUP BY series, hour ORDER BY line"
        ),
        list(&format!(
            "SELECT concat_ws(' ', {key}, count(*), min(seq), max(seq)) AS line FROM raw
             WHERE seq <= (SELECT rolled_up FROM bounds) GROUP BY {key} ORDER BY line"
        ))
    );
    let verified = Reader::open(path).unwrap().verify(None).unwrap();
    assert_eq!(verified.first_seq, 1);
    assert_eq!(
        list("SELECT 'one' FROM bounds WHERE rolled_up = (SELECT max(last_seq) FROM links)").len(),
        1
    );
    assert_eq!(list("PRAGMA integrity_check"), ["ok"]);
}

pub(in crate::ledger) fn record(id: u128) -> Record {
    Record {
        id: RequestId(uuid::Uuid::from_u128(id)),
        account: AccountId::new("1250000001").unwrap(),
        key: KeyId::new("k").unwrap(),
        group: GroupId::new("portrait-segmentation").unwrap(),
        action: Action::new("SegmentPortraitPic").unwrap(),
        mode: Mode::PerCall,
        admitted_at: DAY,
        start: Mono(7_000_000_000),
        store_start: None,
        outcome: Outcome::Answered,
        status: Some(200),
        reason: Reason::Billable,
        duration: Duration::from_micros(1_234),
    }
}

/// A record whose every field follows from `id`.
pub(in crate::ledger) fn varied(id: u128) -> Record {
    // A multiplicative hash: neighbours differ in all fields.
    let mut dice = (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut roll = |sides: u64| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mode = Mode::ALL[roll(3) as usize];
    let outcome = Outcome::ALL[roll(5) as usize];
    let status = (outcome == Outcome::Answered).then(|| [200, 404, 500][roll(3) as usize]);
    Record {
        account: AccountId::new(&format!("a{}", roll(7))).unwrap(),
        action: Action::new(
            ["SegmentPortraitPic", "SegmentCustomizedPortraitPic"][roll(2) as usize],
        )
        .unwrap(),
        mode,
        admitted_at: Utc(DAY.0 + roll(30) as i64 * HOUR_US / 2 + roll(1_000_000) as i64),
        outcome,
        status,
        reason: billable(Bill::Served, mode, outcome, status, roll(5) == 0),
        ..record(id)
    }
}

pub(in crate::ledger) fn wait(commit: Commit) -> Result<(), NotDurable> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(commit)
}

pub(in crate::ledger) fn commit(ledger: &Ledger, record: Record) -> Result<(), NotDurable> {
    wait(ledger.reserve().unwrap().commit(record))
}

/// A month that is settled with the records up to here, so that these may be pruned.
pub(in crate::ledger) fn settled(month: &str, through_seq: u64, head: [u8; 32]) -> [Entry; 3] {
    [
        Entry::Settlement {
            month: month.into(),
            through_seq,
            head,
            fixed_at: DAY,
        },
        Entry::Settled {
            month: month.into(),
            at: DAY,
            digest: StatementsDigest::default().end(),
        },
        Entry::Debited {
            month: month.into(),
            at: DAY,
        },
    ]
}

/// Waits for what another thread does. The limit is there to end a broken run, not to measure.
pub(in crate::ledger) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}

pub(in crate::ledger) fn close(ledger: &Ledger) {
    ledger.close(Duration::from_secs(30)).unwrap();
}

// Durability (P3).

#[test]
fn a_strict_commit_resolves_only_when_another_connection_can_read_the_record() {
    let bench = Bench::new();
    let ledger = bench.open();
    for id in 1..=50 {
        commit(&ledger, record(id)).unwrap();
        let last = bench.reader().records(id as u64 - 1, 10).unwrap();
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].id, record(id).id);
    }
}

#[test]
fn a_strict_commit_does_not_resolve_while_the_file_cannot_be_written() {
    let bench = Bench::new();
    let ledger = bench.open();
    let other = bench.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut pending = ledger.reserve().unwrap().commit(record(1));
    let waker = std::task::Waker::noop();
    let poll = |commit: &mut Commit| {
        std::pin::Pin::new(commit).poll(&mut std::task::Context::from_waker(waker))
    };
    for _ in 0..1_000 {
        assert!(poll(&mut pending).is_pending());
    }
    other.execute_batch("COMMIT").unwrap();
    wait(pending).unwrap();
    bench.assert_consistent();
}

#[test]
fn the_writer_syncs_every_commit() {
    let bench = Bench::new();
    assert_eq!(bench.store().synchronous(), 2);
    assert_eq!(bench.store().synchronous(), 2);
}

#[test]
fn records_that_come_together_are_committed_together() {
    let bench = Bench::new();
    let ledger = bench.open();
    // The file is held by another program, so that the records gather.
    let other = bench.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commits: Vec<Commit> = (0..1_000)
        .map(|id| ledger.reserve().unwrap().commit(record(id)))
        .collect();
    other.execute_batch("COMMIT").unwrap();
    for commit in commits {
        wait(commit).unwrap();
    }
    close(&ledger);
    let reports = bench.reports.lock();
    assert!(reports.len() <= 2, "{} commits", reports.len());
    let answered = reports.iter().map(|report| report.records[0]).sum::<u64>();
    assert_eq!(answered, 1_000);
    bench.assert_consistent();
}

#[test]
fn a_relaxed_commit_resolves_at_once_and_is_in_the_ledger_after_close() {
    let bench = Bench::new();
    let ledger = bench
        .open_with(LedgerOptions {
            durability: Durability::Relaxed,
            ..bench.options()
        })
        .unwrap();
    let other = bench.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for id in 1..=10 {
        commit(&ledger, record(id)).unwrap();
    }
    other.execute_batch("COMMIT").unwrap();
    close(&ledger);
    assert_eq!(bench.all().len(), 10);
    bench.assert_consistent();
}

#[test]
fn a_relaxed_ledger_does_not_refuse_calls_while_it_lets_records_gather() {
    let mut bench = Bench::new();
    // For ever: what happens earlier does not happen by the clock.
    bench.pace.gather = Duration::from_secs(1 << 30);
    let ledger = bench
        .open_with(LedgerOptions {
            durability: Durability::Relaxed,
            pending_limit: 4,
            ..bench.options()
        })
        .unwrap();
    for id in 1..=40 {
        eventually("room for one more", || match ledger.reserve() {
            Ok(slot) => wait(slot.commit(record(id))).is_ok(),
            Err(trouble) => {
                assert_eq!(trouble, Trouble::Full);
                false
            }
        });
    }
    close(&ledger);
    assert_eq!(bench.all().len(), 40);
    // Without the early flush each commit would wait for 100 ms and hold at most 4.
    assert!(
        bench
            .reports
            .lock()
            .iter()
            .all(|report| report.records[0] <= 4)
    );
}

// Every record exactly once.

#[test]
fn each_record_of_many_threads_is_there_once_and_the_rollup_agrees() {
    let bench = Bench::new();
    let ledger = bench.open();
    thread::scope(|scope| {
        for worker in 0..8 {
            let ledger = &ledger;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, async {
                    // Twenty connections of a worker, each with one call after the other.
                    let connections: Vec<_> = (0..20)
                        .map(|connection| {
                            let slots: Vec<(u128, Slot)> = (0..20)
                                .map(|call| {
                                    let id = worker * 10_000 + connection * 100 + call;
                                    (id, ledger.reserve().unwrap())
                                })
                                .collect();
                            tokio::task::spawn_local(async move {
                                for (id, slot) in slots {
                                    slot.commit(varied(id)).await.unwrap();
                                }
                            })
                        })
                        .collect();
                    for connection in connections {
                        connection.await.unwrap();
                    }
                });
            });
        }
    });
    assert_eq!(ledger.stats().pending, 0);
    assert_eq!(ledger.stats().last_seq, 3_200);
    let mut found: Vec<StoredRecord> = bench.all();
    assert_eq!(found.len(), 3_200);
    found.sort_by_key(|record| record.id.0);
    for stored in &found {
        let sent = varied(stored.id.0.as_u128());
        assert_eq!(stored.account, sent.account);
        assert_eq!(stored.action, sent.action);
        assert_eq!(stored.outcome, sent.outcome);
        assert_eq!(stored.reason, sent.reason);
        assert_eq!(stored.status, sent.status);
        assert_eq!(stored.admitted_at, sent.admitted_at);
    }
    bench.assert_consistent();
    close(&ledger);
    bench.assert_consistent();
}

/// Whatever fails and when: what was promised is what stands in the ledger, exactly once, and the
/// rollup agrees; also after a power cut.
#[test]
fn no_failure_of_the_disk_breaks_a_promise() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    for seed in 1..=24 {
        fastrand::seed(seed);
        no_failure_breaks_a_promise(&disk, seed);
    }
}

fn no_failure_breaks_a_promise(disk: &Disk, seed: u64) {
    let bench = Bench::new();
    let durability = match fastrand::u8(0..4) {
        0 => Durability::Relaxed,
        _ => Durability::Strict,
    };
    let ledger = bench
        .open_with(LedgerOptions {
            durability,
            ..bench.options()
        })
        .unwrap();
    disk.set(Word::Dice, fastrand::u32(1..));
    disk.set(Word::Evict, [0, 50, 100][fastrand::usize(0..3)]);
    let mut promised = HashMap::new();
    let mut id = 0;
    let mut seals = Vec::new();
    for round in 0..fastrand::u8(1..6) {
        eventually("healthy", || ledger.healthy());
        for word in [Word::FailWal, Word::FailDb, Word::FailWrite] {
            disk.set(word, fastrand::u32(0..6).saturating_sub(3));
        }
        disk.set(Word::WriteErrno, [disk::EIO, ENOSPC][fastrand::usize(0..2)]);
        disk.set(Word::LoseAfter, fastrand::u32(0..40).saturating_sub(20));
        let mut commits = Vec::new();
        for _ in 0..fastrand::u8(1..20) {
            id += 1;
            // The writer may have fallen into trouble meanwhile; then the call is refused.
            if let Ok(slot) = ledger.reserve() {
                commits.push((id, slot.commit(varied(id))));
            }
        }
        // While commits wait, fail and are looked into.
        seals.extend(ledger.seal(&format!("day {round}")));
        for (id, commit) in commits {
            promised.insert(id, wait(commit));
        }
    }
    for word in [
        Word::FailWal,
        Word::FailDb,
        Word::FailWrite,
        Word::LoseAfter,
    ] {
        disk.set(word, 0);
    }
    close(&ledger);
    let cut = disk.root().join(format!("cut-{seed}"));
    disk.power_cut(bench.home.path(), &cut, seed);
    for path in [bench.path(), cut.join("ledger.db")] {
        let reader = Reader::open(&path).unwrap();
        let days = reader.days().unwrap();
        assert!(seals.iter().all(|seal| days.contains(seal)), "{seed}");
        let found = reader.records(0, usize::MAX).unwrap();
        assert_eq!(found.len(), promised.len(), "{seed}");
        for stored in found {
            let id = stored.id.0.as_u128();
            let expected = match promised[&id] {
                Ok(()) => varied(id),
                Err(NotDurable) => varied(id).into_gate_failed(),
            };
            assert_eq!(stored.outcome, expected.outcome, "{seed}");
            assert_eq!(stored.reason, expected.reason, "{seed}");
            assert_eq!(stored.status, expected.status, "{seed}");
        }
        assert_consistent(&path);
    }
}

// Trouble.

#[test]
fn a_full_disk_fails_the_calls_that_wait_refuses_new_ones_and_recovers_by_itself() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, varied(1)).unwrap();
    disk.refuse_writes(ENOSPC);
    let mut promised = HashMap::from([(1, Ok(()))]);
    let late = ledger.reserve().unwrap();
    for id in 2.. {
        let fate = commit(&ledger, varied(id));
        promised.insert(id, fate);
        if fate.is_err() {
            break;
        }
    }
    assert!(!ledger.healthy());
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Failing);
    // A call that was admitted before the trouble and ends in it.
    let billable = record(0);
    assert!(billable.billable());
    assert_eq!(wait(late.commit(billable)), Err(NotDurable));
    promised.insert(0, Err(NotDurable));
    assert_eq!(ledger.stats().pending, 2);

    disk.refuse_writes(0);
    eventually("healthy", || ledger.healthy());
    assert_eq!(ledger.stats().pending, 0);
    commit(&ledger, varied(1_000_000)).unwrap();
    promised.insert(1_000_000, Ok(()));
    let found = bench.all();
    assert_eq!(found.len(), promised.len());
    for stored in found {
        let failed = promised[&stored.id.0.as_u128()].is_err();
        if failed {
            assert_eq!(stored.outcome, Outcome::GateFailed);
            assert_eq!(stored.reason, Reason::GateFailed);
            assert!(!stored.billable);
        } else {
            assert_eq!(stored.outcome, varied(stored.id.0.as_u128()).outcome);
        }
    }
    bench.assert_consistent();
}

/// The page cache shows its rows, and a power cut would take them.
#[test]
fn a_commit_whose_sync_failed_is_not_durable_whatever_the_file_shows() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    // The same series and hour hold calls that stay as they are.
    commit(&ledger, record(1)).unwrap();
    commit(&ledger, record(2)).unwrap();
    disk.set(Word::FailWal, 1);
    assert_eq!(commit(&ledger, record(3)), Err(NotDurable));
    eventually("healthy", || ledger.healthy());
    let found = bench.all();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].outcome, Outcome::Answered);
    assert_eq!(found[2].outcome, Outcome::GateFailed);
    assert_eq!(found[2].reason, Reason::GateFailed);
    assert_eq!(found[2].status, None);
    bench.assert_consistent();
    let until = Utc(DAY.0 + HOUR_US);
    let lines = bench.reader().usage(DAY, until, None, ALL).unwrap();
    let billed = lines.iter().find(|line| line.billable).unwrap();
    assert_eq!((billed.calls, billed.first_seq, billed.last_seq), (2, 1, 2));
    // The reports say what is in the ledger, not what was tried.
    let reports = bench.reports.lock();
    let sum = |at: usize| reports.iter().map(|report| report.records[at]).sum::<u64>();
    assert_eq!((sum(0), sum(4)), (2, 1));
}

#[test]
fn a_relaxed_record_that_was_answered_stays_what_it_is_through_trouble() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench
        .open_with(LedgerOptions {
            durability: Durability::Relaxed,
            ..bench.options()
        })
        .unwrap();
    disk.set(Word::FailWal, 3);
    commit(&ledger, record(1)).unwrap();
    eventually("three failures", || disk.get(Word::FailWal) == 0);
    eventually("healthy", || ledger.healthy());
    close(&ledger);
    assert_eq!(bench.all().len(), 1);
    assert_eq!(bench.all()[0].outcome, Outcome::Answered);
    bench.assert_consistent();
}

#[test]
fn closing_in_trouble_says_how_many_calls_are_not_in_the_ledger() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    disk.refuse_writes(disk::EIO);
    assert_eq!(commit(&ledger, record(1)), Err(NotDurable));
    assert_eq!(ledger.close(Duration::ZERO), Err(CloseError::Unrecorded(1)));
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Closed);
}

#[test]
fn a_writer_that_dies_leaves_nobody_waiting() {
    let bench = Bench::new();
    let ledger = Ledger::open(bench.options(), Clock::default(), |_| {
        panic!("injected by a test")
    })
    .unwrap();
    assert_eq!(commit(&ledger, record(1)), Err(NotDurable));
    eventually("closed", || ledger.reserve().is_err());
    assert_eq!(ledger.close(Duration::ZERO), Err(CloseError::WriterDied));
}

/// Records from a process that falls into trouble and is killed there: `id fate` lines in
/// `answers`, the fate after the call was told.
fn fail_until_killed(disk: &Disk, answers: &Path) {
    use std::io::Write;
    let seed: u64 = std::env::var("DISK_SEED").unwrap().parse().unwrap();
    fastrand::seed(seed);
    let mut bench = Bench::new();
    bench.home = TempDir::with_prefix_in("ledger-", disk.root()).unwrap();
    bench.pace.probe = Duration::from_millis(20);
    let ledger = bench.open();
    let answers = Mutex::new(fs::File::create(answers).unwrap());
    disk.set(Word::Dice, fastrand::u32(1..));
    disk.set(Word::Evict, [0, 50, 100][fastrand::usize(0..3)]);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (ledger, answers) = (&ledger, &answers);
            scope.spawn(move || {
                for call in 0.. {
                    let id = worker * 1_000_000 + call;
                    let Ok(slot) = ledger.reserve() else {
                        thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    let fate = wait(slot.commit(record(id)));
                    let mut answers = answers.lock();
                    // One system call: whole or not at all when the process is killed.
                    let line = format!("{id} {}\n", if fate.is_ok() { "ok" } else { "failed" });
                    answers.write_all(line.as_bytes()).unwrap();
                }
            });
        }
        // One failure, two in a row, a while of failures, of the WAL, the database or both, or the
        // kernel's own writing back.
        loop {
            thread::sleep(Duration::from_millis(fastrand::u64(0..60)));
            let count = [1, 2, disk::ALL][fastrand::usize(0..3)];
            match fastrand::u8(0..4) {
                0 => disk.set(Word::FailWal, count),
                1 => disk.set(Word::FailDb, count),
                2 => {
                    disk.set(Word::FailWal, count);
                    disk.set(Word::FailDb, count);
                }
                _ => disk.set(Word::LoseAfter, fastrand::u32(1..30)),
            }
            let longest = if fastrand::u8(0..8) == 0 { 3_500 } else { 150 };
            thread::sleep(Duration::from_millis(fastrand::u64(0..longest)));
            disk.set(Word::FailWal, 0);
            disk.set(Word::FailDb, 0);
        }
    });
}

/// Errors of the disk, kill -9 at any moment of them, at times a start on the same disk that is
/// killed as well, then a power cut. Whoever was answered is in the ledger, and whoever was told an
/// error is not billed.
#[test]
fn after_failed_syncs_kill_9_and_a_power_cut_every_answered_call_is_there() {
    if let Some(disk) = Disk::of_this_process() {
        let answers = PathBuf::from(std::env::var_os("DISK_ANSWERS").unwrap());
        return fail_until_killed(&disk, &answers);
    }
    let rounds: u64 = match std::env::var("TORTURE_DISK_ROUNDS") {
        Ok(rounds) => rounds.parse().unwrap(),
        Err(_) => 8,
    };
    let name = disk::test_name(&|| ());
    let (mut answered, mut failed) = (0, 0);
    for seed in 1..=rounds {
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::new(home.path());
        let answers = home.path().join("answers");
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .envs(disk.environment())
            .env("DISK_SEED", seed.to_string())
            .env("DISK_ANSWERS", &answers)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("answers", || {
            fs::metadata(&answers).is_ok_and(|answers| answers.len() > 0)
        });
        fastrand::seed(seed);
        let found = fs::read_dir(disk.root()).unwrap();
        let directory = found.map(|entry| entry.unwrap().path()).next().unwrap();
        // Somebody looks into the ledger meanwhile, and holds a repair up.
        let other = (seed % 4 == 0).then(|| {
            std::process::Command::new("sqlite3")
                .arg("-readonly")
                .arg(directory.join("ledger.db"))
                .args(["BEGIN; SELECT count(*) FROM runs;", ".shell sleep 0.4"])
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap()
        });
        let longest = if rounds > 100 { 5_000 } else { 1_000 };
        thread::sleep(Duration::from_millis(fastrand::u64(100..longest)));
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "seed {seed}: it ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(mut other) = other {
            other.wait().unwrap();
        }
        let fates: Vec<(u128, bool)> = fs::read_to_string(&answers)
            .unwrap()
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(id, fate)| (id.parse().unwrap(), fate == "ok"))
            .collect();
        // What the next process finds when the machine goes on.
        let kept = home.path().join("kept");
        fs::create_dir(&kept).unwrap();
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, kept.join(path.file_name().unwrap())).unwrap();
        }
        let billable = billable_after_a_start(&kept, seed);
        for (id, was_answered) in &fates {
            let stored = billable.get(id);
            assert_eq!(
                stored == Some(&true),
                *was_answered,
                "seed {seed}: call {id}"
            );
        }
        // And after a power cut.
        let cut = home.path().join("cut");
        disk.power_cut(&directory, &cut, seed);
        let billable = billable_after_a_start(&cut, seed);
        for (id, was_answered) in &fates {
            if *was_answered {
                let stored = billable.get(id);
                assert_eq!(stored, Some(&true), "seed {seed}: call {id} was answered");
                answered += 1;
            } else {
                // Its row may be on the disk, and the note of it not.
                failed += 1;
            }
        }
    }
    eprintln!("{rounds} rounds: {answered} answered, {failed} told an error");
    assert!(answered > 0 && failed > 0);
}

/// Which calls are in the ledger in `directory`, and whether they are billed, once a process was
/// started on it.
fn billable_after_a_start(directory: &Path, seed: u64) -> HashMap<u128, bool> {
    let mut restored = Bench::new();
    restored.home = tempfile::tempdir_in(directory).unwrap();
    let path = directory.join("ledger.db");
    let options = LedgerOptions {
        path: path.clone(),
        ..restored.options()
    };
    let ledger = restored
        .open_with(options)
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    close(&ledger);
    assert_consistent(&path);
    let records = Reader::open(&path).unwrap().records(0, usize::MAX).unwrap();
    let billable = |record: StoredRecord| (record.id.0.as_u128(), record.billable);
    records.into_iter().map(billable).collect()
}

/// A call that waits is told an error, new ones are refused, and what the disk takes in the end
/// says what its calls were told.
#[test]
fn a_disk_that_does_not_answer_is_trouble_and_the_late_commit_is_not_billed() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let clock = Clock::default();
    let now = || Record {
        start: clock.mono(),
        duration: Duration::ZERO,
        ..record(fastrand::u128(..))
    };
    for durability in [Durability::Strict, Durability::Relaxed] {
        let options = LedgerOptions {
            stall_after: Duration::from_millis(100),
            durability,
            ..bench.options()
        };
        let ledger = bench.open_with(options).unwrap();
        let before = bench.all().len();
        commit(&ledger, now()).unwrap();
        let in_flight = ledger.reserve().unwrap();
        disk.set(Word::Hang, 1);
        let first = ledger.reserve().unwrap().commit(now());
        eventually("it hangs", || disk.get(Word::Hanging) == 1);
        let second = ledger.reserve().unwrap().commit(now());
        eventually("trouble", || !ledger.healthy());
        let told = match durability {
            Durability::Strict => Err(NotDurable),
            Durability::Relaxed => Ok(()),
        };
        assert_eq!((wait(first), wait(second)), (told, told));
        assert_eq!(ledger.reserve().unwrap_err(), Trouble::Failing);
        // A call that was admitted before, and is answered by the upstream now.
        assert_eq!(wait(in_flight.commit(now())), Err(NotDurable));
        disk.set(Word::Hang, 0);
        eventually("healthy", || ledger.healthy());
        commit(&ledger, now()).unwrap();
        close(&ledger);
        let outcomes: Vec<Outcome> = bench.all()[before..]
            .iter()
            .map(|record| record.outcome)
            .collect();
        let (late, failed) = match durability {
            Durability::Strict => (Outcome::GateFailed, Outcome::GateFailed),
            Durability::Relaxed => (Outcome::Answered, Outcome::GateFailed),
        };
        assert_eq!(
            outcomes,
            [Outcome::Answered, late, late, failed, Outcome::Answered]
        );
        bench.assert_consistent();
    }
}

#[test]
fn a_reader_of_this_process_shows_no_record_before_it_is_known_to_be_durable() {
    let bench = Bench::new();
    let ledger = bench.open();
    let reader = bench.reader();
    commit(&ledger, record(1)).unwrap();
    let shown = || {
        let records = reader.records(0, 10).unwrap();
        let lines = reader.usage(Utc(0), Utc(i64::MAX), None, 0..=u64::MAX);
        let counted: u64 = lines.unwrap().iter().map(|line| line.calls).sum();
        assert_eq!(counted, records.len() as u64);
        assert_eq!(reader.last_seq().unwrap(), records.len() as u64);
        let account = record(1).account;
        let own = RecordsOf {
            account: &account,
            from: Utc(0),
            until: Utc(i64::MAX),
            through: u64::MAX,
            records: 10,
            rows: 100,
        };
        assert_eq!(reader.records_of(&own, 0).unwrap().records, records);
        let outcomes = records.into_iter().map(|record| record.outcome);
        outcomes.collect::<Vec<_>>()
    };
    assert_eq!(shown(), [Outcome::Answered]);
    // A commit that comes late: its call was told an error, and the file has it as answered.
    let mut late = bench.store();
    late.commit(1, &[record(2)]).unwrap();
    assert_eq!(shown(), [Outcome::Answered]);
    assert_eq!(reader.records(2, 10).unwrap(), []);
    // The writer corrects it, and only then takes it for durable.
    late.correct(2, &[record(2).into_gate_failed()]).unwrap();
    assert_eq!(shown(), [Outcome::Answered]);
    ledger.shared.last_seq.store(2, SeqCst);
    assert_eq!(shown(), [Outcome::Answered, Outcome::GateFailed]);
}

#[test]
fn closing_does_not_wait_for_a_disk_that_never_answers() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let options = LedgerOptions {
        stall_after: Duration::from_millis(50),
        ..bench.options()
    };
    let ledger = bench.open_with(options).unwrap();
    disk.set(Word::Hang, 1);
    let clock = Clock::default();
    let record = Record {
        start: clock.mono(),
        ..record(1)
    };
    assert_eq!(commit(&ledger, record), Err(NotDurable));
    assert_eq!(
        ledger.close(Duration::from_millis(10)),
        Err(CloseError::DiskHangs(1))
    );
    // Its writer may still write: nobody else may.
    assert!(matches!(
        bench.open_with(bench.options()),
        Err(LedgerError::Locked(_))
    ));
    disk.set(Word::Hang, 0);
}

/// Else the commit after it would look as old as they are, and be a stall at once.
#[test]
fn calls_that_were_told_an_error_do_not_count_as_waiting_for_the_disk() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let options = LedgerOptions {
        stall_after: Duration::from_millis(50),
        ..bench.options()
    };
    let ledger = bench.open_with(options).unwrap();
    let clock = Clock::default();
    let call = || {
        ledger.reserve().unwrap().commit(Record {
            start: clock.mono(),
            duration: Duration::ZERO,
            ..record(fastrand::u128(..))
        })
    };
    disk.set(Word::Hang, 1);
    let first = call();
    eventually("it hangs", || disk.get(Word::Hanging) == 1);
    let second = call();
    assert_eq!(wait(first), Err(NotDurable));
    assert_eq!(wait(second), Err(NotDurable));
    assert_eq!(ledger.shared.queue.lock().oldest, None);
    // As if the disk had answered: the record of the second call is still queued when the third one
    // comes.
    ledger.shared.queue.lock().writing = None;
    ledger.shared.health.store(HEALTHY, SeqCst);
    let third = call();
    eventually("it is noticed again", || !ledger.healthy());
    assert_eq!(wait(third), Err(NotDurable));
    disk.set(Word::Hang, 0);
    close(&ledger);
    let outcomes = bench.all().into_iter().map(|record| record.outcome);
    assert!(outcomes.eq([Outcome::GateFailed; 3]));
}

#[test]
fn a_relaxed_ledger_that_gathers_records_is_no_disk_that_does_not_answer() {
    let mut bench = Bench::new();
    // Longer than a stall, which itself is longer than a busy machine takes to write.
    bench.pace.gather = Duration::from_millis(1_500);
    let options = LedgerOptions {
        stall_after: Duration::from_millis(700),
        durability: Durability::Relaxed,
        ..bench.options()
    };
    let ledger = bench.open_with(options).unwrap();
    let start = Clock::default().mono();
    for id in [1, 2] {
        commit(
            &ledger,
            Record {
                start,
                ..record(id)
            },
        )
        .unwrap();
        eventually("the first, at once", || !bench.all().is_empty());
    }
    while bench.all().len() < 2 {
        assert!(ledger.healthy());
        thread::sleep(Duration::from_millis(1));
    }
    close(&ledger);
}

/// Customers who ask for their quota all the time.
#[test]
fn queries_of_this_process_do_not_hold_a_repair_up() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=1_000).map(varied));
    let ended = std::sync::atomic::AtomicBool::new(false);
    let healthy = thread::scope(|scope| {
        for thread in 0..8 {
            let (ledger, ended) = (&ledger, &ended);
            // By any of its names.
            let path = match thread % 2 {
                0 => ledger.path().to_owned(),
                _ => ledger
                    .path()
                    .parent()
                    .unwrap()
                    .join("..")
                    .join(ledger.path().parent().unwrap().file_name().unwrap())
                    .join("ledger.db"),
            };
            scope.spawn(move || {
                while !ended.load(SeqCst) {
                    if let Ok(reader) = Reader::open(&path) {
                        let _ = reader.records(0, usize::MAX);
                    }
                }
            });
        }
        disk.set(Word::FailWal, 1);
        let told = commit(&ledger, varied(0));
        let mut healthy = false;
        for _ in 0..5_000 {
            healthy |= ledger.healthy();
            thread::sleep(Duration::from_millis(u64::from(!healthy)));
        }
        ended.store(true, SeqCst);
        told.is_err() && healthy
    });
    assert!(healthy);
    close(&ledger);
    assert_eq!(bench.all().len(), 1_001);
}

/// The error was told while the frames of its record were in the page cache, which outlives the
/// process.
#[test]
fn a_call_that_was_told_an_error_is_not_billed_after_an_end_in_trouble() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    disk.set(Word::FailWal, disk::ALL);
    assert_eq!(commit(&ledger, record(2)), Err(NotDurable));
    assert_eq!(ledger.close(Duration::ZERO), Err(CloseError::Unrecorded(1)));
    disk.set(Word::FailWal, 0);
    close(&bench.open());
    let outcomes = bench.all().into_iter().map(|record| record.outcome);
    assert!(outcomes.eq([Outcome::Answered, Outcome::GateFailed]));
    bench.assert_consistent();
}

/// What it held is in no other file, and its last connection still has it.
#[test]
fn a_wal_that_was_deleted_is_copied_by_the_connection_that_still_has_it() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=5).map(varied));
    fs::remove_file(suffixed(&bench.path(), "-wal")).unwrap();
    assert_eq!(commit(&ledger, varied(6)), Err(NotDurable));
    eventually("healthy", || ledger.healthy());
    commit(&ledger, varied(7)).unwrap();
    assert_eq!(bench.all().len(), 7);
    bench.assert_consistent();
}

#[test]
fn a_wal_that_was_deleted_while_somebody_read_is_copied_when_that_has_ended() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=5).map(varied));
    let other = bench.sql();
    other
        .execute_batch("BEGIN; SELECT count(*) FROM raw")
        .unwrap();
    bench.commit_all(&ledger, (6..=10).map(varied));
    fs::remove_file(suffixed(&bench.path(), "-wal")).unwrap();
    assert_eq!(commit(&ledger, varied(11)), Err(NotDurable));
    // Some tries.
    thread::sleep(Duration::from_millis(50));
    assert!(!ledger.healthy());
    drop(other);
    eventually("healthy", || ledger.healthy());
    commit(&ledger, varied(12)).unwrap();
    assert_eq!(bench.all().len(), 12);
    bench.assert_consistent();
}

#[test]
fn a_wal_that_was_deleted_is_kept_until_the_disk_takes_what_it_holds() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=5).map(varied));
    // As somebody does to whom the disk seems too full.
    fs::remove_file(suffixed(&bench.path(), "-wal")).unwrap();
    disk.refuse_writes(ENOSPC);
    assert_eq!(commit(&ledger, varied(6)), Err(NotDurable));
    // Some tries.
    thread::sleep(Duration::from_millis(50));
    assert!(!ledger.healthy());
    disk.refuse_writes(0);
    eventually("healthy", || ledger.healthy());
    commit(&ledger, varied(7)).unwrap();
    assert_eq!(bench.all().len(), 7);
    bench.assert_consistent();
}

#[test]
fn a_wal_is_not_taken_for_copied_while_another_connection_copies() {
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    let (reader, copier) = (bench.sql(), bench.sql());
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM raw")
        .unwrap();
    store.commit(run, &[record(1)]).unwrap();
    // It holds the lock of a checkpoint until the reader has ended.
    copier.busy_timeout(Duration::from_secs(60)).unwrap();
    let copying = thread::spawn(move || {
        copier
            .query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))
            .unwrap();
    });
    // Whoever asks before it begins is answered by the reader: not all, either.
    for _ in 0..20 {
        assert!(!store.copies_all().unwrap());
        thread::sleep(Duration::from_millis(5));
    }
    drop(reader);
    copying.join().unwrap();
    assert!(store.copies_all().unwrap());
}

/// One that another program holds off at rest is made all the same, though no call comes.
#[test]
fn a_roll_up_that_was_put_off_is_made_without_another_call() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=3).map(varied));
    let other = bench.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // A rest, and the second for which a write waits.
    thread::sleep(Duration::from_millis(2_300));
    drop(other);
    let rolled_up = || -> i64 {
        let sql = "SELECT rolled_up FROM bounds";
        bench.sql().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(rolled_up(), 0);
    eventually("it is rolled up", || rolled_up() == 3);
}

// The bound.

#[test]
fn a_slot_can_be_had_up_to_the_limit_and_not_one_past_it() {
    let bench = Bench::new();
    let ledger = bench
        .open_with(LedgerOptions {
            pending_limit: 3,
            ..bench.options()
        })
        .unwrap();
    let mut slots: Vec<Slot> = (0..3).map(|_| ledger.reserve().unwrap()).collect();
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Full);
    assert!(ledger.healthy());
    drop(slots.pop());
    slots.push(ledger.reserve().unwrap());
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Full);
    // A record gives its slot back when it is durable.
    wait(slots.pop().unwrap().commit(record(1))).unwrap();
    slots.push(ledger.reserve().unwrap());
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Full);
}

#[test]
fn in_trouble_a_record_keeps_its_slot_until_it_is_written() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let bench = Bench::new();
    let ledger = bench
        .open_with(LedgerOptions {
            pending_limit: 2,
            ..bench.options()
        })
        .unwrap();
    disk.refuse_writes(disk::EIO);
    let slots = [ledger.reserve().unwrap(), ledger.reserve().unwrap()];
    for (id, slot) in (1..).zip(slots) {
        assert_eq!(wait(slot.commit(record(id))), Err(NotDurable));
    }
    assert_eq!(ledger.stats().pending, 2);
    disk.refuse_writes(0);
    // The second record may come while the first is written, and is then in the batch after it.
    eventually("written", || ledger.stats().pending == 0);
    assert!(ledger.healthy());
    assert_eq!(bench.all().len(), 2);
}

// The lock.

#[test]
fn a_second_ledger_on_the_same_file_is_refused_under_any_of_its_names() {
    let bench = Bench::new();
    let ledger = bench.open();
    let alias = bench.home.path().join("alias.db");
    std::os::unix::fs::symlink(bench.path(), &alias).unwrap();
    let indirect = bench.home.path().join("new/../ledger.db");
    for path in [bench.path(), alias, indirect] {
        let refused = bench.open_with(LedgerOptions {
            path,
            ..bench.options()
        });
        assert!(
            matches!(refused, Err(LedgerError::Locked(_))),
            "{refused:?}"
        );
    }
    // The refused ones did not disturb the one that runs.
    commit(&ledger, record(1)).unwrap();
    close(&ledger);
    drop(bench.open());
}

#[test]
fn a_name_that_points_to_a_ledger_still_to_be_made_meets_it_too() {
    let bench = Bench::new();
    let alias = bench.home.path().join("alias.db");
    std::os::unix::fs::symlink(bench.path(), &alias).unwrap();
    let _ledger = bench
        .open_with(LedgerOptions {
            path: alias,
            ..bench.options()
        })
        .unwrap();
    let refused = bench.open_with(bench.options());
    assert!(matches!(refused, Err(LedgerError::Locked(_))));
}

const PATH_FOR_SECOND_PROCESS: &str = "LEDGER_OF_ANOTHER_PROCESS";

#[test]
fn a_second_process_is_refused() {
    let bench = Bench::new();
    if let Some(path) = std::env::var_os(PATH_FOR_SECOND_PROCESS) {
        // This is the second process.
        let refused = bench.open_with(LedgerOptions {
            path: path.into(),
            ..bench.options()
        });
        assert!(
            matches!(refused, Err(LedgerError::Locked(_))),
            "{refused:?}"
        );
        return;
    }
    let _ledger = bench.open();
    let second = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "ledger::handle::tests::a_second_process_is_refused",
        ])
        .env(PATH_FOR_SECOND_PROCESS, bench.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn missing_directories_are_created() {
    let bench = Bench::new();
    let path = bench.home.path().join("var/lib/ledger.db");
    let ledger = bench
        .open_with(LedgerOptions {
            path: path.clone(),
            ..bench.options()
        })
        .unwrap();
    commit(&ledger, record(1)).unwrap();
    assert_consistent(&path);
}

// Files that are not what they should be.

#[test]
fn a_file_that_is_no_ledger_is_refused_and_left_as_it_is() {
    let text = b"Dear diary, today I was nearly overwritten.".repeat(100);
    for content in [&text[..], b"short", &[0; 5_000]] {
        let bench = Bench::new();
        fs::write(bench.path(), content).unwrap();
        let refused = bench.open_with(bench.options());
        assert!(
            matches!(refused, Err(LedgerError::NotALedger)),
            "{refused:?}"
        );
        let refused = Reader::open(&bench.path());
        assert!(
            matches!(refused, Err(LedgerError::NotALedger)),
            "{refused:?}"
        );
        assert_eq!(fs::read(bench.path()).unwrap(), content);
    }
}

#[test]
fn a_database_of_another_program_is_refused_and_left_as_it_is() {
    let bench = Bench::new();
    let other = Connection::open(bench.path()).unwrap();
    other
        .execute_batch("CREATE TABLE raw (diary TEXT); INSERT INTO raw VALUES ('dear');")
        .unwrap();
    other.close().unwrap();
    let before = fs::read(bench.path()).unwrap();
    let refused = bench.open_with(bench.options());
    assert!(
        matches!(refused, Err(LedgerError::NotALedger)),
        "{refused:?}"
    );
    assert!(matches!(
        Reader::open(&bench.path()),
        Err(LedgerError::NotALedger)
    ));
    assert_eq!(fs::read(bench.path()).unwrap(), before);
}

/// A start copies the WAL of a ledger, and of nothing else.
#[test]
fn the_wal_of_another_programs_database_is_left_as_it_is() {
    let bench = Bench::new();
    let theirs = bench.home.path().join("theirs.db");
    let other = Connection::open(&theirs).unwrap();
    other
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE raw (diary TEXT); INSERT INTO raw VALUES ('dear');",
        )
        .unwrap();
    let files = [bench.path(), suffixed(&bench.path(), "-wal")];
    fs::copy(&theirs, &files[0]).unwrap();
    fs::copy(suffixed(&theirs, "-wal"), &files[1]).unwrap();
    let content = || files.each_ref().map(|path| fs::read(path).unwrap());
    let before = content();
    assert!(!before[1].is_empty());
    let refused = bench.open_with(bench.options());
    assert!(
        matches!(refused, Err(LedgerError::NotALedger)),
        "{refused:?}"
    );
    assert!(content() == before);
}

#[test]
fn a_newer_schema_is_refused_by_writer_and_reader_and_left_as_it_is() {
    let bench = Bench::new();
    close(&bench.open());
    bench
        .sql()
        .pragma_update(None, "user_version", schema::VERSION + 1)
        .unwrap();
    let before = fs::read(bench.path()).unwrap();
    let refused = bench.open_with(bench.options());
    assert!(
        matches!(
            refused,
            Err(LedgerError::OtherVersion { found: 7, known: 6 })
        ),
        "{refused:?}"
    );
    assert!(matches!(
        Reader::open(&bench.path()),
        Err(LedgerError::OtherVersion { .. })
    ));
    assert_eq!(fs::read(bench.path()).unwrap(), before);
}

#[test]
fn a_missing_ledger_is_an_error_for_a_reader_and_is_not_created() {
    let bench = Bench::new();
    assert!(matches!(
        Reader::open(&bench.path()),
        Err(LedgerError::Missing(_))
    ));
    assert!(!bench.path().exists());
}

/// Also between a commit and the roll-up of its records, and between the frames of either.
#[test]
fn a_wal_cut_off_anywhere_leaves_whole_commits_and_an_exact_rollup() {
    let bench = Bench::new();
    let ledger = bench.open();
    for id in 1..=20 {
        commit(&ledger, varied(id)).unwrap();
    }
    eventually("two steps of the roll-up", || bench.rolled_up() == 14);
    // As a crash leaves them: the files of a ledger that is still open.
    let file = fs::read(bench.path()).unwrap();
    let wal = fs::read(suffixed(&bench.path(), "-wal")).unwrap();
    let (head, frame) = (32, 24 + 4_096);
    let mut seen = Vec::new();
    for whole in std::iter::once(0).chain((head..=wal.len()).step_by(frame)) {
        for cut in [whole, (whole + frame / 2).min(wal.len())] {
            let crashed = Bench::new();
            fs::write(crashed.path(), &file).unwrap();
            let mut left = wal[..cut].to_vec();
            if cut != whole {
                left.resize(wal.len(), 0xa5);
            }
            fs::write(suffixed(&crashed.path(), "-wal"), left).unwrap();
            // The schema itself may be what was cut off: then it is an empty file, and a ledger is
            // made.
            let store = crashed.store();
            seen.push((store.next_seq() - 1, crashed.rolled_up()));
            drop(store);
            crashed.assert_consistent();
            let ledger = crashed.open();
            // It goes on where it was.
            commit(&ledger, varied(1_000)).unwrap();
            crashed.assert_consistent();
        }
    }
    assert!(seen.is_sorted());
    for expected in [(0, 0), (6, 0), (7, 0), (7, 7), (14, 7), (14, 14), (20, 14)] {
        assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
    }
}

// The roll-up.

#[test]
fn whoever_reads_at_any_time_finds_every_record_counted_once() {
    let bench = Bench::new();
    let ledger = bench.open();
    let sql = bench.sql();
    let sum = |query: &str| -> (i64, i64) {
        sql.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
    };
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for id in 0..400 {
                commit(&ledger, varied(id)).unwrap();
            }
        });
        let mut counted = 0;
        while counted < 400 {
            for last in ["max(last_seq)", "(SELECT max(seq) FROM records)"] {
                let last_seq;
                (counted, last_seq) = sum(&format!(
                    "SELECT coalesce(sum(calls), 0), coalesce({last}, 0) FROM rollup"
                ));
                assert_eq!(counted, last_seq);
            }
        }
        writer.join().unwrap();
    });
    bench.assert_consistent();
}

#[test]
fn records_are_rolled_up_when_there_are_enough_of_them_and_when_the_ledger_rests_or_ends() {
    let bench = Bench::new();
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=16).map(varied));
    eventually("rolled up at rest", || bench.rolled_up() == 16);
    bench.assert_consistent();
    bench.commit_all(&ledger, (17..=20).map(varied));
    close(&ledger);
    assert_eq!(bench.rolled_up(), 20);
    bench.assert_consistent();

    let mut rest = Bench::new();
    rest.pace.roll_up = 1_000;
    let ledger = rest.open();
    rest.commit_all(&ledger, (1..=20).map(varied));
    assert_eq!(rest.rolled_up(), 0);
    rest.assert_consistent();
    eventually("rolled up at rest", || rest.rolled_up() == 20);
    rest.assert_consistent();
}

/// Their records are durable, and counted from the tail: refusing calls would help nobody.
#[test]
fn a_roll_up_that_finds_the_disk_full_fails_no_call_and_changes_no_count() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let mut bench = Bench::new();
    bench.pace.roll_up = 1_000;
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=100).map(varied));
    disk.set(Word::WriteErrno, ENOSPC);
    // Not those of a checkpoint.
    disk.set(Word::FailWriteWalOnly, 1);
    disk.set(Word::FailWrite, 1);
    eventually("a roll-up fails", || disk.get(Word::FailWrite) == 0);
    assert!(ledger.healthy());
    assert_eq!(bench.rolled_up(), 0);
    bench.assert_consistent();
    commit(&ledger, varied(121)).unwrap();
    eventually("rolled up", || bench.rolled_up() == 101);
    bench.assert_consistent();
}

#[test]
fn a_roll_up_whose_sync_failed_stops_the_writer_until_the_ledger_is_sound_and_is_not_made_twice() {
    let Some(disk) = disk::under_this_test(&|| ()) else {
        return;
    };
    let mut bench = Bench::new();
    bench.pace.probe = Duration::from_millis(200);
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=6).map(varied));
    disk.set(Word::FailWal, 1);
    eventually("the roll-up at rest fails", || !ledger.healthy());
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Failing);
    eventually("healthy", || ledger.healthy());
    bench.assert_consistent();
    commit(&ledger, varied(7)).unwrap();
    eventually("rolled up", || bench.rolled_up() == 7);
    bench.assert_consistent();
}

#[test]
fn nothing_is_pruned_that_is_not_rolled_up() {
    let bench = Bench::new();
    let mut store = bench.store();
    let run = store.begin_run("", DAY).unwrap();
    let records: Vec<Record> = (1..=10).map(record).collect();
    store.commit(run, &records).unwrap();
    let calls = || {
        let until = Utc(DAY.0 + HOUR_US);
        bench.reader().usage(DAY, until, None, ALL).unwrap()[0].calls
    };
    store.keep(&settled("2026-11", 10, [0; 32])).unwrap();
    let all = Utc(i64::MAX);
    assert!(store.prune(all).unwrap(), "there is more, later");
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 1);
    store.roll_up(4).unwrap();
    assert!(store.prune(all).unwrap());
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 5);
    assert_eq!(calls(), 10);
    // Opened again, it goes on from the same place.
    drop(store);
    let mut store = bench.store();
    assert_eq!((store.next_seq(), store.tail()), (11, 6));
    store.roll_up(100).unwrap();
    assert!(!store.prune(all).unwrap());
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 11);
    assert_eq!(calls(), 10);
    assert_eq!(bench.reader().last_seq().unwrap(), 10);
}

// Reading.

#[test]
fn a_reader_beside_the_writer_sees_whole_commits_and_no_gap() {
    let bench = Bench::new();
    let ledger = bench.open();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for id in 0..400 {
                commit(&ledger, varied(id)).unwrap();
            }
        });
        let mut after = 0;
        while after < 400 {
            let page = bench.reader().records(after, 17).unwrap();
            assert!(page.len() <= 17);
            for record in page {
                assert_eq!(record.seq, after + 1);
                after = record.seq;
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_record_is_read_as_it_was_written_and_its_json_has_the_names_of_the_design() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(0x0197_0000_0000_7000_8000_0000_0000_00ff)).unwrap();
    let json = serde_json::to_string(&bench.all()[0]).unwrap();
    assert_eq!(
        json,
        r#"{"seq":1,"id":"01970000-0000-7000-8000-0000000000ff","account":"1250000001","group":"portrait-segmentation","#
            .to_owned()
            + r#""action":"SegmentPortraitPic","mode":"per_call","admitted_at":1795478400000000,"start_ns":7000000000,"run":1,"#
            + r#""outcome":"answered","status":200,"billable":true,"reason":"","duration_us":1234,"replica":"gate-1","key":"k","store_epoch":null,"store_start_us":null}"#
    );
}

#[test]
fn usage_is_summed_over_the_hours_asked_for_and_by_account() {
    let bench = Bench::new();
    let ledger = bench.open();
    let at = |id, us: i64, account: &str| Record {
        admitted_at: Utc(DAY.0 + us),
        account: AccountId::new(account).unwrap(),
        ..record(id)
    };
    for record in [
        at(1, -1, "a"),
        at(2, 0, "a"),
        at(3, HOUR_US, "a"),
        at(4, HOUR_US, "b"),
        at(5, 2 * HOUR_US - 1, "a"),
        at(6, 2 * HOUR_US, "a"),
    ] {
        commit(&ledger, record).unwrap();
    }
    let until = Utc(DAY.0 + 2 * HOUR_US);
    let reader = bench.reader();
    let lines = reader.usage(DAY, until, None, ALL).unwrap();
    let figures: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line.account.as_str(),
                line.calls,
                line.first_seq,
                line.last_seq,
            )
        })
        .collect();
    assert_eq!(figures, [("a", 3, 2, 5), ("b", 1, 4, 4)]);
    let b = AccountId::new("b").unwrap();
    assert_eq!(reader.usage(DAY, until, Some(&b), ALL).unwrap(), lines[1..]);
}

#[test]
fn a_cursor_past_the_newest_record_is_an_error() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    assert_eq!(bench.reader().records(1, 10).unwrap(), []);
    for after in [2, u64::MAX] {
        assert!(matches!(
            bench.reader().records(after, 10),
            Err(ReadError::CursorAhead { last: 1, .. })
        ));
    }
}

#[test]
fn each_start_of_the_process_is_a_run_of_its_own() {
    let bench = Bench::new();
    for run in 1..=3 {
        let ledger = bench.open();
        commit(&ledger, record(run)).unwrap();
        close(&ledger);
    }
    let runs: Vec<u64> = bench.all().iter().map(|record| record.run).collect();
    assert_eq!(runs, [1, 2, 3]);
    bench.assert_consistent();
}

// Pruning.

#[test]
fn pruning_deletes_from_the_front_keeps_the_rollup_and_never_gives_a_seq_again() {
    let bench = Bench::new();
    let ledger = bench.open();
    let at = |id: u128, day: i64| Record {
        admitted_at: Utc(DAY.0 + day * 24 * HOUR_US),
        ..record(id)
    };
    // Two days, more than one step; one late record of the first day among those of the second.
    let mut commits = Vec::new();
    for id in 1..=1_200 {
        commits.push(ledger.reserve().unwrap().commit(at(id, 0)));
    }
    for id in 1_201..=1_210 {
        let day = i64::from(id != 1_205);
        commits.push(ledger.reserve().unwrap().commit(at(id, day)));
    }
    for commit in commits {
        wait(commit).unwrap();
    }
    // Nothing goes before its month is settled.
    ledger.prune(Utc(DAY.0 + 1_000 * HOUR_US));
    eventually("it was tried", || {
        ledger.shared.queue.lock().keep_from.is_none()
    });
    assert_eq!(bench.reader().first_kept_seq().unwrap(), 1);
    let through = settled("2026-11", 1_210, [0; 32]);
    ledger.keep(through.to_vec()).unwrap();
    ledger.prune(Utc(DAY.0 + 24 * HOUR_US));
    // Whole steps of the roll-up go, and the last of the first day holds one of the second.
    let step = u64::try_from(bench.pace.roll_up).unwrap();
    eventually("the first day is gone", || {
        bench.reader().first_kept_seq().unwrap() > 1_201 - step
    });
    let first_kept = bench.reader().first_kept_seq().unwrap();
    assert!(first_kept <= 1_201);
    let after = first_kept - 1;
    let kept = bench.reader().records(after, 100).unwrap();
    assert_eq!(kept.len() as u64, 1_210 - after);
    assert!(matches!(
        bench.reader().records(after - 1, 100),
        Err(ReadError::CursorTooOld { after: asked, first_kept: told }) if asked == after - 1 && told == first_kept
    ));
    assert!(bench.reader().records(0, 1).is_err());
    eventually("what lies before it is deleted bit by bit", || {
        let oldest = bench
            .sql()
            .query_row("SELECT min(seq) FROM raw", [], |row| row.get::<_, i64>(0));
        oldest.unwrap() == i64::try_from(first_kept).unwrap()
    });
    let until = Utc(DAY.0 + 48 * HOUR_US);
    let lines = bench.reader().usage(DAY, until, None, ALL).unwrap();
    assert_eq!(lines[0].calls, 1_210);

    ledger.prune(Utc(DAY.0 + 1_000 * HOUR_US));
    eventually("all is gone", || {
        bench.reader().first_kept_seq().unwrap() == 1_211
    });
    close(&ledger);
    drop(ledger);
    let ledger = bench.open();
    commit(&ledger, record(2_000)).unwrap();
    let kept = bench.reader().records(1_210, 10).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].seq, 1_211);
    assert_eq!(bench.reader().last_seq().unwrap(), 1_211);
}

#[test]
fn one_accounts_month_is_what_it_has_in_everybodys() {
    let mut bench = Bench::new();
    bench.pace.roll_up = 60;
    let ledger = bench.open();
    let accounts = ["a", "b", "c"].map(|id| AccountId::new(id).unwrap());
    let records = (0..90_u64).map(|id| Record {
        account: accounts[usize::try_from(id % 3).unwrap()].clone(),
        admitted_at: Utc(DAY.0 + i64::try_from(90 - id).unwrap() * HOUR_US / 2),
        ..record(id.into())
    });
    bench.commit_all(&ledger, records);
    eventually("one part is rolled up", || bench.rolled_up() > 0);
    assert!(bench.rolled_up() < 90, "and one is not");
    let reader = bench.reader();
    let hours = |n: i64| Utc(DAY.0 + n * HOUR_US);
    // Looked up, looked up beyond what there is, and scanned.
    for (from, until) in [(3, 11), (-5, 9_000), (-5, 9_700), (7, 7)] {
        let all = reader.usage(hours(from), hours(until), None, ALL).unwrap();
        for account in &accounts {
            let own = reader
                .usage(hours(from), hours(until), Some(account), ALL)
                .unwrap();
            let expected: Vec<_> = all
                .iter()
                .filter(|l| l.account == *account)
                .cloned()
                .collect();
            assert_eq!(own, expected, "{from}..{until}");
        }
    }
}

#[test]
fn a_gate_that_never_rests_is_pruned_as_well() {
    let bench = Bench::new();
    let old = |id| Record {
        admitted_at: Utc(DAY.0 - 1),
        ..record(id)
    };
    let ledger = bench.open();
    for id in 1..=10 {
        commit(&ledger, old(id)).unwrap();
    }
    close(&ledger);
    // The next record is queued before the writer is done with the last one.
    let busy = Arc::new(Mutex::new(None::<Arc<Ledger>>));
    let again = busy.clone();
    let ids = std::sync::atomic::AtomicU64::new(100);
    let call_again = move |_: &Committed| {
        if let Some(ledger) = &*again.lock() {
            let slot = ledger.reserve().unwrap();
            drop(slot.commit(record(ids.fetch_add(1, SeqCst).into())));
        }
    };
    let ledger = Arc::new(
        Ledger::open_with(bench.options(), Clock::default(), call_again, bench.pace).unwrap(),
    );
    *busy.lock() = Some(ledger.clone());
    commit(&ledger, record(11)).unwrap();
    ledger
        .keep(settled("2026-11", 10, [0; 32]).to_vec())
        .unwrap();
    ledger.prune(DAY);
    eventually("the old are gone", || {
        bench.reader().first_kept_seq().unwrap() == 11
    });
    *busy.lock() = None;
}

// Copying and closing.

#[test]
fn a_backup_taken_while_calls_are_recorded_is_one_consistent_state() {
    let bench = Bench::new();
    let ledger = bench.open();
    let copies: Vec<PathBuf> = (0..5)
        .map(|copy| bench.home.path().join(format!("copy-{copy}.db")))
        .collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for id in 0..300 {
                commit(&ledger, varied(id)).unwrap();
            }
        });
        for copy in &copies {
            backup(&bench.path(), copy).unwrap();
        }
        writer.join().unwrap();
    });
    for copy in &copies {
        // One file, nothing beside it.
        assert!(!suffixed(copy, "-wal").exists());
        assert!(!suffixed(copy, ".partial").exists());
        assert_consistent(copy);
    }
    // A backup is a ledger: it can be put back.
    let restored = bench
        .open_with(LedgerOptions {
            path: copies[0].clone(),
            ..bench.options()
        })
        .unwrap();
    commit(&restored, record(u128::MAX)).unwrap();
    assert_consistent(&copies[0]);
}

#[test]
fn a_backup_never_overwrites_a_file_and_needs_a_ledger() {
    let bench = Bench::new();
    let copy = bench.home.path().join("copy.db");
    assert!(matches!(
        backup(&bench.path(), &copy),
        Err(LedgerError::Missing(_))
    ));
    close(&bench.open());
    fs::write(&copy, "precious").unwrap();
    assert!(matches!(
        backup(&bench.path(), &copy),
        Err(LedgerError::Exists(_))
    ));
    assert_eq!(fs::read(&copy).unwrap(), b"precious");
    let nowhere = bench.home.path().join("nowhere/copy.db");
    let told = backup(&bench.path(), &nowhere).unwrap_err().to_string();
    assert!(
        told.starts_with(&format!("{}: ", nowhere.display())),
        "the path that was given: {told}"
    );
    let begun = bench.home.path().join("begun.db");
    fs::write(suffixed(&begun, ".partial"), "half").unwrap();
    let told = backup(&bench.path(), &begun).unwrap_err().to_string();
    assert!(
        told.starts_with(&format!("cannot copy to {}: ", begun.display())),
        "{told}"
    );
    assert!(matches!(
        backup(&bench.path(), &bench.path()),
        Err(LedgerError::Exists(_))
    ));
}

#[test]
fn closing_writes_what_is_queued_and_leaves_one_file_without_a_wal() {
    let bench = Bench::new();
    let ledger = bench.open();
    for id in 1..=100 {
        // Nobody waits for these: their clients are gone.
        drop(ledger.reserve().unwrap().commit(record(id)));
    }
    close(&ledger);
    assert!(!suffixed(&bench.path(), "-wal").exists());
    assert_eq!(bench.all().len(), 100);
    bench.assert_consistent();
    assert_eq!(ledger.reserve().unwrap_err(), Trouble::Closed);
    assert_eq!(ledger.close(Duration::ZERO), Ok(()));
}

#[test]
fn closing_waits_for_the_slots_that_are_out() {
    let bench = Bench::new();
    let ledger = bench.open();
    let slot = ledger.reserve().unwrap();
    thread::scope(|scope| {
        let closing = scope.spawn(|| ledger.close(Duration::from_secs(30)));
        eventually("closing", || ledger.shared.queue.lock().closing.is_some());
        assert_eq!(wait(slot.commit(record(1))), Ok(()));
        assert_eq!(closing.join().unwrap(), Ok(()));
    });
    assert_eq!(bench.all().len(), 1);
}

#[test]
fn a_slot_that_never_comes_back_holds_the_close_up_only_for_its_patience() {
    let bench = Bench::new();
    let ledger = bench.open();
    let slot = ledger.reserve().unwrap();
    assert_eq!(
        ledger.close(Duration::from_millis(1)),
        Err(CloseError::Unrecorded(1))
    );
    assert_eq!(wait(slot.commit(record(1))), Err(NotDurable));
    assert_eq!(bench.all(), []);
}

// The ledger's own identity.

#[test]
fn a_wal_without_its_ledger_is_no_place_for_a_new_one() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let wal = suffixed(&bench.path(), "-wal");
    let left = Bench::new();
    fs::copy(&wal, suffixed(&left.path(), "-wal")).unwrap();
    assert!(fs::metadata(&wal).unwrap().len() > 0);
    for create in [true, false] {
        let refused = left.open_with(LedgerOptions {
            create,
            ..left.options()
        });
        assert!(
            matches!(refused, Err(LedgerError::LoneWal(_))),
            "{refused:?}"
        );
        assert!(!left.path().exists());
    }
}

#[test]
fn a_start_beside_a_program_that_reads_the_ledger_is_not_held_up_by_it() {
    let bench = Bench::new();
    let ledger = bench.open();
    commit(&ledger, record(1)).unwrap();
    let killed = Bench::new();
    for end in ["", "-wal"] {
        fs::copy(suffixed(&bench.path(), end), suffixed(&killed.path(), end)).unwrap();
    }
    let reader = killed.sql();
    reader.execute_batch("BEGIN; SELECT * FROM bounds").unwrap();
    let began = Clock::default().mono();
    let started = killed.open();
    let took = Clock::default().mono().since(began);
    assert!(took < Duration::from_secs(20), "{took:?}");
    commit(&started, record(2)).unwrap();
    assert_eq!(killed.all().len(), 2);
}

#[test]
fn a_ledger_is_known_again_by_its_id_its_newest_record_and_its_newest_link() {
    let (bench, other) = (Bench::new(), Bench::new());
    let filled = |bench: &Bench, ids: std::ops::Range<u128>| {
        let mut store = bench.store();
        let run = store.begin_run("", DAY).unwrap();
        let records: Vec<Record> = ids.map(record).collect();
        store.commit(run, &records).unwrap();
        store
    };
    let mut store = filled(&bench, 0..10);
    store.roll_up(7).unwrap();
    let known = store.known().unwrap();
    assert_eq!((known.linked.0, known.last.unwrap().0), (7, 10));
    let check = |store: &Store| store.is_known(&known, &bench.path());
    check(&store).unwrap();
    // More of it is still the same ledger.
    let run = store.begin_run("", DAY).unwrap();
    store.commit(run, &[record(10)]).unwrap();
    store.roll_up(100).unwrap();
    check(&store).unwrap();

    let why = |store: &Store| match check(store) {
        Err(LedgerError::Another { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let mut longer = filled(&other, 0..20);
    longer.roll_up(7).unwrap();
    assert!(why(&longer).starts_with("it is ledger "));
    drop((store, longer));
    // All of it into the one file that is copied.
    bench
        .sql()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    for (change, said) in [
        (
            "UPDATE raw SET id = zeroblob(16) WHERE seq = 10",
            "record 10",
        ),
        ("DELETE FROM raw WHERE seq >= 10", "record 10"),
        (
            "UPDATE links SET link = zeroblob(32) WHERE last_seq = 7",
            "its link after record 7",
        ),
        (
            "DELETE FROM links WHERE last_seq = 7",
            "its link after record 7",
        ),
        (
            "UPDATE identity SET restore_count = 1",
            "it was restored 1 times",
        ),
    ] {
        let changed = Bench::new();
        fs::copy(bench.path(), changed.path()).unwrap();
        changed.sql().execute_batch(change).unwrap();
        assert!(why(&changed.store()).starts_with(said), "{change}");
    }
    // Deleted in good order, its link alone tells.
    bench
        .sql()
        .execute_batch("DELETE FROM raw; UPDATE bounds SET first_kept = 12")
        .unwrap();
    check(&bench.store()).unwrap();
}
