//! What metrics and the status page say of the link.
//!
//! Owns the counters of questions, and which connections are up. Must never be waited for: a lock
//! here is held for an assignment.

use crate::model::{Clock, Mono, Utc};
use crate::store::bucket::Bucket;
use crate::store::clock_watch::ClockWatch;
use crate::store::options::NodeAddress;
use crate::store::question::{QuestionTerms, Said};
use crate::store::unanswered::Unanswered;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A connection has so many lines in the log in that time: one that it is away, one that it answers.
const LINES: u32 = 2;
const LOGGED_IN: Duration = Duration::from_secs(10);

/// The words of the function, in the order of [`Counts::said`].
pub const SAID: [&str; 5] = ["granted", "hold", "epoch", "late", "newer"];

/// What the link tells while it works. Called on the thread of the question: it must not block.
pub trait StoreListener: Send + Sync + 'static {
    /// A question of calls took so long, with an answer or without. Those that were not sent are
    /// not told.
    fn asked(&self, _took: Duration) {}

    /// The terms under which a bucket's next heartbeat asks.
    fn terms(&self, _bucket: Bucket) -> QuestionTerms {
        QuestionTerms {
            epoch: 0,
            deadline: Utc(0),
        }
    }

    /// A heartbeat, sent and answered at these instants, was answered in time.
    fn heard(&self, _bucket: Bucket, _sent: Mono, _received: Mono, _said: &Said) {}
}

/// How often what happened, since the start of the process.
#[derive(Default)]
pub(crate) struct Counters {
    said: [AtomicU64; SAID.len()],
    unanswered: [AtomicU64; Unanswered::ALL.len()],
    heartbeats: AtomicU64,
}

/// A reading of the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Answers to the questions of calls by what they said: [`SAID`].
    pub said: [u64; SAID.len()],
    /// Questions of calls without an answer, by [`Unanswered::ALL`].
    pub unanswered: [u64; Unanswered::ALL.len()],
    /// Heartbeats that were sent, touches of buckets among them.
    pub heartbeats: u64,
}

impl Counters {
    pub(crate) fn count(&self, result: &Result<Said, Unanswered>) {
        let counter = match result {
            Ok(said) => self.said.get(match said {
                Said::Granted { .. } => 0,
                Said::Hold { .. } => 1,
                Said::Epoch { .. } => 2,
                Said::Late { .. } => 3,
                Said::Newer => 4,
            }),
            Err(reason) => self.unanswered.get(reason.index()),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            said: self.said.each_ref().map(read),
            unanswered: self.unanswered.each_ref().map(read),
            heartbeats: read(&self.heartbeats),
        }
    }
}

/// Whether the store answers.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// Each connection of each runtime answers.
    pub up: bool,
    /// Since when it is so.
    pub since: Utc,
    /// The nodes to which there are connections, or should be: the primaries.
    pub nodes: Vec<NodeStatus>,
}

/// What is known of one node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Where it is.
    pub node: NodeAddress,
    /// The connections that there should be, one of each runtime.
    pub connections: usize,
    /// Those that answer.
    pub up: usize,
    /// The last change of one of them.
    pub since: Utc,
    /// What is wrong with one of those that do not answer.
    pub trouble: Option<String>,
    /// By how many seconds its clock is ahead of this machine's; `None` before its first answer.
    pub clock_ahead: Option<f64>,
}

struct Place {
    node: NodeAddress,
    since: Utc,
    /// `None` when it answers.
    trouble: Option<String>,
    log: PlaceLog,
}

/// What the log has of a connection.
struct PlaceLog {
    /// The last line said that it answers.
    said_up: bool,
    /// The begin of the time of which `lines` are counted.
    from: Mono,
    lines: u32,
    /// Changes since the last line.
    changes: u32,
}

impl PlaceLog {
    /// The number of changes to tell with a line that it is `up` or not; `None` when no line is
    /// due. On a machine that stalls again and again each heartbeat may turn it: then the state is
    /// told when the time is over.
    fn line(&mut self, up: bool, now: Mono) -> Option<u32> {
        if up == self.said_up {
            return None;
        }
        if now.since(self.from) >= LOGGED_IN {
            (self.from, self.lines) = (now, 0);
        }
        if self.lines >= LINES {
            return None;
        }
        self.lines += 1;
        self.said_up = up;
        Some(std::mem::take(&mut self.changes))
    }
}

impl Place {
    /// Says the state in the log when a line of it is due.
    fn say(&mut self, now: Mono) {
        let Some(changes) = self.log.line(self.trouble.is_none(), now) else {
            return;
        };
        let node = &self.node;
        match &self.trouble {
            None => tracing::info!(%node, changes, "the store answers"),
            Some(why) => tracing::warn!(%node, changes, "the store is away: {why}"),
        }
    }
}

struct Places {
    next: u64,
    all: BTreeMap<u64, Place>,
    clocks: BTreeMap<NodeAddress, ClockWatch>,
    up: bool,
    since: Utc,
}

/// The connections of all runtimes.
pub(crate) struct Board {
    clock: Clock,
    places: Mutex<Places>,
}

impl Board {
    pub(crate) fn new(clock: Clock) -> Self {
        let places = Places {
            next: 0,
            all: BTreeMap::new(),
            clocks: BTreeMap::new(),
            up: false,
            since: clock.utc(),
        };
        Self {
            clock,
            places: Mutex::new(places),
        }
    }

    /// A connection is to be opened. Gives its place here.
    pub(crate) fn enter(&self, node: &NodeAddress) -> u64 {
        self.change(|places, now| {
            let number = places.next;
            places.next += 1;
            let place = Place {
                node: node.clone(),
                since: now,
                trouble: Some("not connected yet".to_owned()),
                log: PlaceLog {
                    said_up: false,
                    from: self.clock.mono(),
                    lines: 0,
                    changes: 0,
                },
            };
            places.all.insert(number, place);
            number
        })
    }

    /// The connection is not wanted any more.
    pub(crate) fn leave(&self, number: u64) {
        self.change(|places, _| {
            let Some(gone) = places.all.remove(&number) else {
                return;
            };
            if !places.all.values().any(|place| place.node == gone.node) {
                places.clocks.remove(&gone.node);
            }
        });
    }

    /// The connection answers, or why it does not. A change is a line in the log, unless there were
    /// many.
    pub(crate) fn tell(&self, number: u64, trouble: Option<String>) {
        self.change(|places, now| {
            let Some(place) = places.all.get_mut(&number) else {
                return;
            };
            if let Some(why) = &trouble {
                tracing::debug!(node = %place.node, "{why}");
            }
            if trouble.is_some() != place.trouble.is_some() {
                place.since = now;
                place.log.changes += 1;
            }
            place.trouble = trouble;
            place.say(self.clock.mono());
        });
    }

    /// To be called now and then: a state that was not told for all the changes before it is told.
    pub(crate) fn look(&self, number: u64) {
        if let Some(place) = self.places.lock().all.get_mut(&number) {
            place.say(self.clock.mono());
        }
    }

    /// The node of a connection has answered that its machine has this instant.
    pub(crate) fn compare_clocks(&self, number: u64, at: Utc) {
        let ahead_us = at.0.saturating_sub(self.clock.utc().0);
        let places = &mut *self.places.lock();
        let Some(place) = places.all.get(&number) else {
            return;
        };
        let node = &place.node;
        let watch = match places.clocks.get_mut(node) {
            Some(watch) => watch,
            None => places.clocks.entry(node.clone()).or_default(),
        };
        if watch.see(self.clock.mono(), ahead_us) {
            let ahead = watch.ahead_seconds();
            tracing::warn!(
                %node,
                "the store's clock is {ahead:.3} s ahead of this machine's (negative: behind): \
                 quotas, days and months go by the store's"
            );
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Places, Utc) -> T) -> T {
        let now = self.clock.utc();
        let places = &mut *self.places.lock();
        let changed = change(places, now);
        let all = &places.all;
        let up = !all.is_empty() && all.values().all(|place| place.trouble.is_none());
        if up != places.up {
            (places.up, places.since) = (up, now);
        }
        changed
    }

    pub(crate) fn read(&self) -> StoreStatus {
        let places = self.places.lock();
        let mut nodes: BTreeMap<&NodeAddress, NodeStatus> = BTreeMap::new();
        for place in places.all.values() {
            let node = nodes.entry(&place.node).or_insert_with(|| NodeStatus {
                node: place.node.clone(),
                connections: 0,
                up: 0,
                since: place.since,
                trouble: None,
                clock_ahead: places
                    .clocks
                    .get(&place.node)
                    .map(ClockWatch::ahead_seconds),
            });
            node.connections += 1;
            node.up += usize::from(place.trouble.is_none());
            node.since = node.since.max(place.since);
            node.trouble = node.trouble.take().or_else(|| place.trouble.clone());
        }
        StoreStatus {
            up: places.up,
            since: places.since,
            nodes: nodes.into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_turns_again_and_again_has_two_lines_in_ten_seconds_and_its_last_state_is_told()
    {
        let mut log = PlaceLog {
            said_up: false,
            from: Mono::default(),
            lines: 0,
            changes: 0,
        };
        let mut turn = |up: bool, ms: u64| {
            log.changes += 1;
            log.line(up, Mono::default().plus(Duration::from_millis(ms)))
        };
        assert_eq!(turn(true, 11_000), Some(1));
        assert_eq!(turn(false, 11_100), Some(1));
        assert_eq!(turn(true, 11_200), None);
        assert_eq!(turn(false, 11_300), None);
        assert_eq!(turn(true, 11_400), None);
        // It stays so, and a heartbeat looks.
        let mut look = |ms: u64| log.line(true, Mono::default().plus(Duration::from_millis(ms)));
        assert_eq!(look(20_999), None);
        assert_eq!(look(21_000), Some(3));
        assert_eq!(look(21_100), None);
    }
}
