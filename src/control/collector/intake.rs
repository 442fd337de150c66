//! Takes what the gates have sent into the ledger.
//!
//! Owns the order: a message is let go of only after its records are durable, and a gate is told only
//! then that it may delete them. Whatever ends in between, the message comes again, and the ledger
//! takes no record twice.
//!
//! The messages are read from the first at each start, which costs little: those that are collected
//! are deleted. Records may be missing in between all the same: a stream was deleted, or the collected
//! ledger was put back to a backup. They are gone from NATS when the messages were read from the
//! first. Then the rest of that ledger's messages is deleted too, and its gate begins again after what
//! is collected.

use crate::control::collector::progress::Progress;
use crate::control::outbox::{COLLECTED, CollectedValue};
use crate::ledger::{
    Collected, CollectedBy, Ledger, LedgerError, Range, ReadError, StoreError, Watermark,
    is_ledger_id,
};
use crate::nats::{Feed, Fetched, KeyValues, Nats, NatsError, Records, StreamOptions};
use crate::proxy::Shared;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The reader's name at NATS.
const READER: &str = "tollgate-collector";
/// Messages that are taken in one transaction, at most, and their bytes.
const MESSAGES: usize = 64;
const BYTES: usize = 16 << 20;
/// How long it is waited for a message.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// Collected messages are deleted so often.
const FORGET_EVERY: Duration = Duration::from_secs(5);
/// A gate is asked again for what is missing after this time, and so often.
const ASK_AGAIN: Duration = Duration::from_secs(10);
const ASKED_AT_MOST: u32 = 6;
/// A gate that does not have it any more is asked again after this time.
const ASK_LATE: Duration = Duration::from_secs(600);
/// A gate is told at most so often what is collected: it writes that down each time.
const TOLD_EVERY: Duration = Duration::from_secs(1);
/// How often the log says how many records came.
const TELL_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Intake {
    pub shared: Arc<Shared>,
    pub nats: Nats,
    pub stream: StreamOptions,
    pub progress: Arc<Progress>,
    /// This ledger, as the gates are told of it.
    pub by: CollectedBy,
    /// Whether this process is the one that collects.
    pub held: watch::Receiver<bool>,
    /// Whether all messages that were there were read once since then: each ledger that they are of is
    /// known.
    pub read_once: watch::Sender<bool>,
}

/// The way to the messages, as long as it holds.
struct Open {
    records: Records,
    cursors: KeyValues,
    feed: Feed,
    /// Whether the messages are read that were there when this was opened, the first of them first.
    is_first_pass: bool,
}

/// What became of some messages.
#[derive(Default)]
struct Done {
    /// The newest collected record by ledger.
    cursors: BTreeMap<String, u64>,
    /// The ledgers of which records are missing, or came damaged, and the newest record that is there.
    gaps: BTreeMap<String, u64>,
    /// The ledgers of which new records were taken.
    healed: BTreeSet<String>,
    records: u64,
}

/// What goes on from one batch to the next.
struct Pace {
    /// When a gate was last asked for what is missing, and how often.
    asked: HashMap<String, (Instant, u32)>,
    forgotten_at: Instant,
    /// The last message that is done with.
    done: u64,
    /// What is collected and was not told yet, by ledger.
    untold: BTreeMap<String, u64>,
    cursors_told_at: Instant,
    told_at: Instant,
    taken: u64,
}

impl Intake {
    /// Takes what comes. Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let now = Instant::now();
        let mut pace = Pace {
            asked: HashMap::new(),
            forgotten_at: now,
            done: 0,
            untold: BTreeMap::new(),
            cursors_told_at: now,
            told_at: now,
            taken: 0,
        };
        let (mut open, mut told) = (None, String::new());
        loop {
            if !*self.held.borrow() {
                open = None;
                self.read_once.send_replace(false);
                if self.held.wait_for(|held| *held).await.is_err() {
                    return;
                }
            }
            let taken = self.take(&mut open, &mut pace).await;
            if self.shared.ledger.is_closed() {
                return;
            }
            let failure = taken.err().unwrap_or_default();
            if failure.is_empty() {
                told = failure;
                continue;
            }
            open = None;
            if failure != told {
                tracing::warn!("records are not collected: {failure}; trying again");
                told = failure;
            }
            self.shared.clock.sleep(PAUSE).await;
        }
    }

    async fn open(&self) -> Result<Open, NatsError> {
        let records = self.nats.records(&self.stream).await?;
        let cursors = self.nats.bucket(COLLECTED, self.stream.replicas).await?;
        let feed = records.feed(READER).await?;
        Ok(Open {
            records,
            cursors,
            feed,
            is_first_pass: true,
        })
    }

    async fn take(&self, open: &mut Option<Open>, pace: &mut Pace) -> Result<(), String> {
        let of_nats = |error: NatsError| error.to_string();
        let way = match open {
            Some(way) => way,
            None => open.insert(self.open().await.map_err(of_nats)?),
        };
        let fetched = way
            .feed
            .fetch(MESSAGES, BYTES, PATIENCE)
            .await
            .map_err(of_nats)?;
        let Some(last) = fetched.last() else {
            way.is_first_pass = false;
            self.read_once.send_replace(true);
            self.progress.took(0, 0);
            return self.tell_all(way, pace).await.map_err(of_nats);
        };
        let (sequence, pending) = (last.sequence, last.pending);
        let done = self.collect(&fetched).await?;
        self.progress.took(done.records, pending);
        pace.tell(done.records);
        pace.asked.retain(|ledger, _| !done.healed.contains(ledger));
        pace.untold.extend(done.cursors);
        if pace.cursors_told_at.elapsed() >= TOLD_EVERY {
            self.tell_all(way, pace).await.map_err(of_nats)?;
        }
        for (ledger_id, have) in &done.gaps {
            if pace.asks(ledger_id) && !way.is_first_pass {
                // Read out of order, perhaps: what was not acknowledged in time comes later.
                *open = None;
                return Ok(());
            }
            self.heal(way, pace, ledger_id, *have)
                .await
                .map_err(of_nats)?;
        }
        last.done().await.map_err(of_nats)?;
        pace.done = sequence;
        way.is_first_pass &= pending > 0;
        if !way.is_first_pass {
            self.read_once.send_replace(true);
        }
        if pace.forgotten_at.elapsed() >= FORGET_EVERY {
            pace.forgotten_at = Instant::now();
            way.records
                .forget_before(pace.done)
                .await
                .map_err(of_nats)?;
        }
        Ok(())
    }

    /// Writes the ranges of these messages.
    async fn collect(&self, fetched: &[Fetched]) -> Result<Done, String> {
        let (ranges, unread) = decoded(fetched);
        let strange = unread.iter().map(|(ledger, _)| ledger.clone());
        let strange: Vec<String> = strange.collect();
        let shared = self.shared.clone();
        let collected = tokio::task::spawn_blocking(move || {
            let mut named: BTreeSet<String> = strange.into_iter().collect();
            let collected = shared.ledger.collect(ranges)?;
            named.extend(collected.iter().filter_map(|outcome| match outcome {
                Collected::Taken { .. } => None,
                Collected::Gap { ledger_id, .. } | Collected::Broken { ledger_id, .. } => {
                    Some(ledger_id.clone())
                }
            }));
            // Days and months wait for them, though nothing of them was taken.
            heard_of(&shared.ledger, named)?;
            let have: HashMap<String, u64> = match unread.is_empty() {
                true => HashMap::new(),
                false => cursors(&shared.ledger)?,
            };
            Ok::<_, CollectError>((collected, unread, have))
        });
        let collected = collected.await.map_err(|error| error.to_string())?;
        let (collected, unread, have) = collected.map_err(|error| error.to_string())?;
        let mut done = Done::default();
        let broken: BTreeSet<String> = unread.iter().map(|(ledger, _)| ledger.clone()).collect();
        for (ledger, why) in unread {
            match have.get(&ledger) {
                Some(have) => {
                    let why = format!("{why}; or a message was damaged");
                    self.progress.came_damaged(&ledger, &why);
                    done.gaps.insert(ledger, *have);
                }
                None => self.progress.came_damaged(&ledger, &why),
            }
        }
        for outcome in collected {
            match outcome {
                Collected::Taken {
                    ledger_id,
                    seq,
                    records,
                } => {
                    done.records += records;
                    if records > 0 && !broken.contains(&ledger_id) {
                        self.progress.healed(&ledger_id);
                        done.healed.insert(ledger_id.clone());
                    }
                    done.gaps.remove(&ledger_id);
                    done.cursors.insert(ledger_id, seq);
                }
                Collected::Gap { ledger_id, have } => drop(done.gaps.insert(ledger_id, have)),
                // Perhaps it was damaged on its way: its gate is asked for it again.
                Collected::Broken {
                    ledger_id,
                    have,
                    why,
                } => {
                    self.progress.broke(&ledger_id, &why);
                    done.gaps.insert(ledger_id, have);
                }
            }
        }
        Ok(done)
    }

    /// Records of this ledger are missing, and not at NATS.
    async fn heal(
        &self,
        way: &Open,
        pace: &mut Pace,
        ledger_id: &str,
        have: u64,
    ) -> Result<(), NatsError> {
        if !pace.asks(ledger_id) {
            return Ok(());
        }
        let (at, times) = pace
            .asked
            .entry(ledger_id.to_owned())
            .or_insert((Instant::now(), 0));
        (*at, *times) = (Instant::now(), *times + 1);
        if *times >= ASKED_AT_MOST {
            let why = format!(
                "those after {have} do not come whole: the log of its gate and `outbox` in the gate's /status say why"
            );
            self.progress.broke(ledger_id, &why);
        }
        tracing::warn!(
            ledger = ledger_id,
            have,
            "records of a ledger are missing on the way: its gate is to send again what follows"
        );
        self.shared.metrics.collector_gaps.inc();
        pace.untold.remove(ledger_id);
        self.tell(way, ledger_id, have).await?;
        way.records.forget_ledger(ledger_id).await
    }

    /// Tells the gates what they were not told yet.
    async fn tell_all(&self, way: &Open, pace: &mut Pace) -> Result<(), NatsError> {
        while let Some((ledger_id, seq)) = pace.untold.first_key_value() {
            self.tell(way, ledger_id, *seq).await?;
            pace.untold.pop_first();
        }
        pace.cursors_told_at = Instant::now();
        Ok(())
    }

    /// Tells a gate what is collected of its ledger.
    async fn tell(&self, way: &Open, ledger_id: &str, seq: u64) -> Result<(), NatsError> {
        let value = CollectedValue {
            seq,
            by: self.by.clone(),
        };
        way.cursors.put(ledger_id, value.encode()).await.map(drop)
    }
}

/// Makes all of these ledgers known: days and months wait for each.
pub(super) fn heard_of(
    ledger: &Ledger,
    ids: impl IntoIterator<Item = String>,
) -> Result<(), StoreError> {
    let marks = ids.into_iter().map(|ledger_id| Watermark {
        ledger_id,
        replica: "unknown".to_owned(),
        at: None,
        seq: 0,
        billed_seq: 0,
    });
    let marks: Vec<Watermark> = marks.collect();
    match marks.is_empty() {
        true => Ok(()),
        false => ledger.watermark_of(marks),
    }
}

/// The ranges of these messages, and those that are none, by ledger.
fn decoded(fetched: &[Fetched]) -> (Vec<Range>, Vec<(String, String)>) {
    let (mut ranges, mut unread) = (Vec::new(), Vec::new());
    for message in fetched {
        match Range::decode(&message.bytes) {
            Ok(range) if range.ledger_id == message.ledger_id => ranges.push(range),
            _ if !is_ledger_id(&message.ledger_id) => tracing::warn!(
                "a message of the subject {:?} is no ledger's, and is left out",
                message.ledger_id
            ),
            Ok(range) => unread.push((
                message.ledger_id.clone(),
                format!(
                    "a message of its subject is of the ledger {}",
                    range.ledger_id
                ),
            )),
            Err(error) => unread.push((message.ledger_id.clone(), error.to_string())),
        }
    }
    (ranges, unread)
}

/// How far each ledger is collected.
pub(super) fn cursors(ledger: &Ledger) -> Result<HashMap<String, u64>, CollectError> {
    let sources = ledger.reader()?.sources()?.into_iter();
    Ok(sources.map(|of| (of.ledger_id, of.seq)).collect())
}

/// Why nothing of some messages is done.
#[derive(thiserror::Error, Debug)]
pub(super) enum CollectError {
    #[error(transparent)]
    Open(#[from] LedgerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Pace {
    /// Whether it is time to ask the gate for what is missing.
    fn asks(&self, ledger_id: &str) -> bool {
        self.asked.get(ledger_id).is_none_or(|(at, times)| {
            let pause = if *times < ASKED_AT_MOST {
                ASK_AGAIN
            } else {
                ASK_LATE
            };
            at.elapsed() >= pause
        })
    }

    fn tell(&mut self, records: u64) {
        self.taken += records;
        if self.told_at.elapsed() >= TELL_EVERY && self.taken > 0 {
            tracing::info!(records = self.taken, "collected");
            (self.told_at, self.taken) = (Instant::now(), 0);
        }
    }
}
