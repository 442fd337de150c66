//! Sends the records of the ledger, range after range.
//!
//! Owns from where on. Nothing of that is kept: NATS knows the last message of this ledger, and the
//! collector says what it has. So a process that is killed between an answer of NATS and the next
//! message goes on with that next message. Must never send a range behind one that it does not know,
//! nor leave out a record.
//!
//! # Decided
//! - **One range is on its way at a time**: each names the one before, and 4,000 records a round trip
//!   are more than a gate records.
//! - **The stream may lose messages.** What is sent again is what the collector lacks: from the last
//!   message on when the collector has all before it, else from what it has.

use crate::control::outbox::gate::GateOutbox;
use crate::control::outbox::values::{COLLECTED, CollectedValue};
use crate::ledger::{Range, RangeReader, ReadError};
use crate::model::Mono;
use crate::nats::{KeyValues, NatsError, Published, Records};
use std::time::Duration;

/// The most records of a message, and its most bytes.
const RECORDS: usize = 4_000;
const BYTES: usize = 256 << 10;
/// Records are gathered so long: each message costs a wake-up of some threads, and nobody waits for it.
const GATHER: Duration = Duration::from_millis(500);
/// The pause after something that did not work.
const PAUSE: Duration = Duration::from_secs(1);
/// So often it is looked whether the stream still has what was sent last.
const LOOK: Duration = Duration::from_secs(5);

/// Why sending stopped.
pub(super) enum Stopped {
    /// From where on is to be asked again.
    Lost,
    /// It cannot go on for this reason.
    Trouble(String),
}

impl From<NatsError> for Stopped {
    fn from(error: NatsError) -> Self {
        match error {
            NatsError::Gone(what) => Self::Trouble(format!("{what} is not there")),
            other => Self::Trouble(other.to_string()),
        }
    }
}

/// The way to the stream, as long as it holds.
struct Way {
    records: Records,
    cursors: KeyValues,
}

/// Behind which record, and behind which message, the next range is placed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub after: u64,
    pub behind: u64,
}

/// Sends the records of a gate.
pub(super) struct RecordSender<'a> {
    of: &'a GateOutbox,
    way: Option<Way>,
    position: Option<Position>,
    reader: Option<RangeReader>,
    looked_at: Mono,
}

impl<'a> RecordSender<'a> {
    pub(super) fn new(of: &'a GateOutbox) -> Self {
        Self {
            of,
            way: None,
            position: None,
            reader: None,
            looked_at: Mono(0),
        }
    }

    /// Sends for ever.
    pub(super) async fn run(&mut self) {
        loop {
            let pause = match self.send_all().await {
                Ok(()) => {
                    self.of.progress.tell(None);
                    GATHER
                }
                Err(Stopped::Lost) => GATHER,
                Err(Stopped::Trouble(why)) => {
                    self.of.progress.tell(Some(why));
                    PAUSE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends what there is now.
    pub(super) async fn send_all(&mut self) -> Result<(), Stopped> {
        let done = self.send_what_is_there().await;
        match &done {
            Ok(()) => {}
            Err(Stopped::Lost) => self.position = None,
            // Another connection, another stream: nothing is taken for granted.
            Err(Stopped::Trouble(_)) => (self.position, self.way) = (None, None),
        }
        done
    }

    async fn send_what_is_there(&mut self) -> Result<(), Stopped> {
        let mut position = match self.position {
            Some(position) => position,
            None => self.find_position().await?,
        };
        self.position = Some(position);
        loop {
            let now = self.of.shared.clock.mono();
            let newest = self.of.shared.ledger.last_seq();
            if newest <= position.after {
                self.of.progress.sent(position.after, Some(now));
                return self.look(position, now).await;
            }
            let Some((range, bytes)) = self.read(position.after).await? else {
                return self.look(position, now).await;
            };
            let is_last = range.last_seq >= newest;
            position = Position {
                behind: self.publish(position.behind, bytes).await?,
                after: range.last_seq,
            };
            self.position = Some(position);
            self.looked_at = now;
            self.of
                .progress
                .sent(position.after, is_last.then_some(now));
            self.of.progress.tell(None);
            if is_last {
                return Ok(());
            }
        }
    }

    async fn publish(&mut self, behind: u64, bytes: Vec<u8>) -> Result<u64, Stopped> {
        let Some(way) = &self.way else {
            return Err(Stopped::Lost);
        };
        let published = way
            .records
            .publish(&self.of.ledger_id, behind, bytes)
            .await?;
        match published {
            Published::Stored(sequence) => Ok(sequence),
            Published::WrongLast => Err(Stopped::Lost),
            Published::Full(why) => Err(Stopped::Trouble(format!(
                "the stream {} is full ({why}): is the collector running? Else give it more `max_bytes`",
                self.of.stream.stream
            ))),
        }
    }

    /// Whether the stream still has what was sent last: it may have been deleted while nobody calls.
    async fn look(&mut self, position: Position, now: Mono) -> Result<(), Stopped> {
        if now.since(self.looked_at) < LOOK {
            return Ok(());
        }
        self.looked_at = now;
        let found = self.find_position().await?;
        // The collector may have been put back to a backup, and say that it has less.
        let is_asked = found.after < position.after;
        match found.behind == position.behind && !is_asked {
            true => Ok(()),
            false => Err(Stopped::Lost),
        }
    }

    /// From where on the records are to be sent.
    async fn find_position(&mut self) -> Result<Position, Stopped> {
        let id = self.of.ledger_id.clone();
        let way = match &self.way {
            Some(way) => way,
            None => self.way.insert(Way {
                records: self.of.nats.records(&self.of.stream).await?,
                cursors: self
                    .of
                    .nats
                    .bucket(COLLECTED, self.of.stream.replicas)
                    .await?,
            }),
        };
        let told = way.cursors.get(&id).await?;
        let told = told.and_then(|value| CollectedValue::decode(&value.bytes).ok());
        let told = told.filter(|told| self.of.known.is(&told.by.ledger_id));
        let kept = self.of.progress.read().collected_seq;
        let last = match way.records.last(&id).await? {
            None => None,
            Some(last) => match Range::decode(&last.bytes) {
                Ok(range) => Some((range.last_seq, last.sequence)),
                // Not of this program, or damaged: what the collector lacks is sent behind it.
                Err(error) => {
                    tracing::warn!("the last message of this ledger cannot be read: {error}");
                    Some((0, last.sequence))
                }
            },
        };
        let mut position = position(last, told.map(|told| told.seq), kept);
        position.after = position.after.max(self.of.billed_seq);
        if position.after > self.of.shared.ledger.last_seq() {
            return Err(Stopped::Trouble(format!(
                "NATS has record {} of this ledger, which itself ends at {}: another gate runs with a copy of it, or an older \
                 copy was put in its place by hand (`tollgate restore` does that safely)",
                position.after,
                self.of.shared.ledger.last_seq()
            )));
        }
        Ok(position)
    }

    /// The next range, in the bytes of a message.
    async fn read(&mut self, after: u64) -> Result<Option<(Range, Vec<u8>)>, Stopped> {
        let (path, reader) = (self.of.shared.ledger.path().to_owned(), self.reader.take());
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = match reader {
                Some(reader) => reader,
                None => {
                    RangeReader::open(&path).map_err(|error| NotRead::Other(error.to_string()))?
                }
            };
            let mut limit = RECORDS;
            loop {
                let range = match reader.next(after, limit) {
                    Ok(range) => range,
                    Err(ReadError::CursorTooOld { first_kept, .. }) => {
                        return Err(NotRead::Deleted { first: first_kept });
                    }
                    Err(error) => return Err(NotRead::Other(error.to_string())),
                };
                let Some(range) = range else {
                    return Ok((reader, None));
                };
                let bytes = range.encode();
                if bytes.len() <= BYTES || limit == 1 {
                    return Ok((reader, Some((range, bytes))));
                }
                limit = (limit / 2).max(1);
            }
        });
        match read.await {
            Ok(Ok((reader, read))) => {
                self.reader = Some(reader);
                Ok(read)
            }
            // What follows would not be taken either.
            Ok(Err(NotRead::Deleted { first })) => Err(Stopped::Trouble(format!(
                "the collector lacks the records {} to {}, which this ledger has deleted: put a newer backup of the collected ledger \
                 back, or give this ledger up (`tollgate collect retire {}`) and let this gate begin a new one",
                after + 1,
                first.saturating_sub(1),
                self.of.ledger_id
            ))),
            Ok(Err(NotRead::Other(why))) => Err(Stopped::Trouble(format!("the ledger: {why}"))),
            Err(error) => Err(Stopped::Trouble(error.to_string())),
        }
    }
}

/// Why a range was not read.
enum NotRead {
    /// The ledger has deleted it; the first that it has.
    Deleted {
        first: u64,
    },
    Other(String),
}

/// From where on to send. `last` is the last record of the last message and the sequence of that,
/// `told` what the collector says that it has, `kept` what this ledger remembers of that.
pub(super) fn position(last: Option<(u64, u64)>, told: Option<u64>, kept: u64) -> Position {
    // What the collector says now counts more: it may have been put back to a backup.
    let collected = told.unwrap_or(kept);
    match last {
        Some((seq, sequence)) => Position {
            after: seq.max(collected),
            behind: sequence,
        },
        None => Position {
            after: collected,
            behind: 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_stream_and_the_collector_have_is_not_sent_and_all_else_is() {
        let at = |after, behind| Position { after, behind };
        // (last message, told, kept)
        assert_eq!(position(None, None, 0), at(0, 0), "a new gate");
        assert_eq!(position(None, None, 40), at(40, 0), "the store is deleted");
        assert_eq!(position(Some((90, 7)), Some(40), 40), at(90, 7));
        assert_eq!(position(Some((90, 7)), None, 0), at(90, 7));
        // The stream lost its tail after that was collected.
        assert_eq!(position(Some((30, 3)), Some(40), 40), at(40, 3));
        // The collector was put back to a backup, and has the messages purged that it cannot use.
        assert_eq!(position(None, Some(20), 40), at(20, 0));
    }
}
