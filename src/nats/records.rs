//! The stream of records.
//!
//! Owns the subject of a ledger, and what an answer to a message means. Must never place a message
//! behind one that its sender does not know.

use crate::nats::connection::Nats;
use crate::nats::error::{NatsError, refused, request_error};
use crate::nats::feed::Feed;
use crate::nats::fit;
use crate::nats::options::{SUBJECTS, StreamOptions};
use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, Stream};
use bytes::Bytes;

/// JetStream's codes for a stream that has no room, for whichever reason.
const NO_ROOM: [u64; 4] = [10_023, 10_047, 10_077, 10_122];
pub(in crate::nats) const WRONG_LAST: u64 = 10_071;

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Published {
    /// It is stored under this sequence of the stream.
    Stored(u64),
    /// Another message of its subject is the last one than the sender thought. It was not stored by
    /// this attempt.
    WrongLast,
    /// There is no room. It was not stored.
    Full(String),
}

/// The last message of a ledger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastRange {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// What it carries.
    pub bytes: Bytes,
}

/// The stream of records.
#[derive(Clone)]
pub struct Records {
    nats: Nats,
    stream: Stream,
    name: String,
}

impl Nats {
    /// The stream of records: makes it where it is not there, else compares it.
    ///
    /// # Errors
    /// It is not what it must be, or there was no answer.
    pub async fn records(&self, options: &StreamOptions) -> Result<Records, NatsError> {
        let stream = self.fit_stream(fit::records(options), false).await?;
        Ok(Records {
            nats: self.clone(),
            stream,
            name: options.stream.clone(),
        })
    }

    /// A stream that is exactly so, as far as it matters.
    pub(in crate::nats) async fn fit_stream(
        &self,
        must_be: Config,
        is_only_copy: bool,
    ) -> Result<Stream, NatsError> {
        self.check()?;
        let name = must_be.name.clone();
        let found = match self.jetstream.get_stream(&name).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(fault)
                    if fault.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    // Two gates may make it at once: an equal one is no error.
                    let made = self.jetstream.create_stream(must_be.clone()).await;
                    let made = made.map_err(|error| create_error(&error.kind(), &error));
                    made.inspect(|_| tracing::info!(stream = name, "made at NATS"))?
                }
                GetStreamErrorKind::JetStream(fault) => return Err(refused(&fault)),
                _ => return Err(request_error(&name, &error)),
            },
        };
        let differences = fit::differences(&found.cached_info().config, &must_be);
        match differences.is_empty() {
            true => Ok(found),
            false => Err(NatsError::Unfit {
                stream: name,
                differences,
                is_only_copy,
            }),
        }
    }
}

impl Records {
    /// Has the server store a message of the ledger behind the one with the sequence `after`; 0 is
    /// behind none.
    ///
    /// # Errors
    /// There was no answer that says whether it is stored.
    pub async fn publish(
        &self,
        ledger_id: &str,
        after: u64,
        bytes: Vec<u8>,
    ) -> Result<Published, NatsError> {
        let mut headers = behind(after);
        headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
        let subject = format!("{SUBJECTS}.{ledger_id}");
        match self.nats.store(subject, Some(headers), bytes.into()).await {
            Ok(sequence) => Ok(Published::Stored(sequence)),
            Err(NatsError::Refused { code, .. }) if code == WRONG_LAST => Ok(Published::WrongLast),
            Err(NatsError::Refused { code, why }) if NO_ROOM.contains(&code) => {
                Ok(Published::Full(why))
            }
            Err(other) => Err(other),
        }
    }

    /// The last message of the ledger. Asks the leader of the stream, which knows it.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn last(&self, ledger_id: &str) -> Result<Option<LastRange>, NatsError> {
        self.nats.check()?;
        let subject = format!("{SUBJECTS}.{ledger_id}");
        match self.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(LastRange {
                sequence: message.sequence,
                bytes: message.payload,
            })),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                LastRawMessageErrorKind::JetStream(fault) => {
                    Err(gone_or_refused(&self.name, &fault))
                }
                _ => Err(request_error(&self.name, &error)),
            },
        }
    }

    /// Deletes the messages before this sequence: all of them were collected.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn forget_before(&self, sequence: u64) -> Result<(), NatsError> {
        self.nats.check()?;
        let purged = self.stream.purge().sequence(sequence).await;
        purged
            .map(drop)
            .map_err(|error| request_error(&self.name, &error))
    }

    /// Deletes the messages of this ledger.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn forget_ledger(&self, ledger_id: &str) -> Result<(), NatsError> {
        self.nats.check()?;
        let subject = format!("{SUBJECTS}.{ledger_id}");
        let purged = self.stream.purge().filter(subject).await;
        purged
            .map(drop)
            .map_err(|error| request_error(&self.name, &error))
    }

    /// The messages of all ledgers in their order, from the first, for the reader of this name.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn feed(&self, reader: &str) -> Result<Feed, NatsError> {
        self.nats.check()?;
        Feed::open(&self.stream, &self.name, reader).await
    }
}

/// Has the server store a message only as the next of its subject after that sequence.
pub(in crate::nats) fn behind(sequence: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string());
    headers
}

fn create_error(kind: &CreateStreamErrorKind, error: &dyn std::fmt::Display) -> NatsError {
    match kind {
        CreateStreamErrorKind::JetStream(fault) => refused(fault),
        CreateStreamErrorKind::JetStreamUnavailable => NatsError::Gone("JetStream".to_owned()),
        _ => NatsError::Away(error.to_string()),
    }
}

fn gone_or_refused(name: &str, fault: &async_nats::jetstream::Error) -> NatsError {
    match fault.error_code() == ErrorCode::STREAM_NOT_FOUND {
        true => NatsError::Gone(format!("the stream {name}")),
        false => refused(fault),
    }
}
