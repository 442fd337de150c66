//! The messages of the stream in their order, from the first: a reader that comes again reads again what
//! it has not deleted.
//!
//! Must never forget a message that its reader has not acknowledged.

use crate::nats::error::{NatsError, refused, request_error};
use crate::nats::options::SUBJECTS;
use async_nats::jetstream::consumer::pull::{Batch, Config};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use async_nats::jetstream::{ErrorCode, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

/// A message that is not acknowledged within this time is given again.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// So many messages may wait for it.
const MOST_UNACKED: i64 = 20_000;
/// How much longer than it was told the server may take to say that there is nothing.
const GRACE: Duration = Duration::from_secs(2);

/// A reader of the stream.
pub struct Feed {
    consumer: PullConsumer,
    name: String,
}

/// A message.
pub struct Fetched {
    /// The ledger whose it is, by its subject.
    pub ledger_id: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// How often it was given, this time included.
    pub delivered: u64,
    /// The messages behind it that wait.
    pub pending: u64,
    /// What it carries.
    pub bytes: Bytes,
    message: Message,
}

impl Feed {
    pub(in crate::nats) async fn open(
        stream: &Stream,
        name: &str,
        reader: &str,
    ) -> Result<Self, NatsError> {
        let config = Config {
            durable_name: Some(reader.to_owned()),
            // One acknowledgement is for all messages before, too.
            ack_policy: AckPolicy::All,
            ack_wait: ACK_WAIT,
            max_ack_pending: MOST_UNACKED,
            ..Config::default()
        };
        // Where it was does not count: what it has not acknowledged would come after newer messages.
        match timeout(ACK_WAIT, stream.delete_consumer(reader)).await {
            Err(_) => return Err(NatsError::Away("no answer came in time".to_owned())),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => match error.kind() {
                ConsumerErrorKind::JetStream(fault)
                    if fault.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {}
                ConsumerErrorKind::JetStream(fault) => return Err(refused(&fault)),
                _ => return Err(request_error(name, &error)),
            },
        }
        let opened = timeout(ACK_WAIT, stream.get_or_create_consumer(reader, config)).await;
        let opened = opened.map_err(|_| NatsError::Away("no answer came in time".to_owned()))?;
        let consumer = opened.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(fault) => refused(&fault),
            _ => request_error(name, &error),
        })?;
        Ok(Self {
            consumer,
            name: name.to_owned(),
        })
    }

    /// The next messages, at most so many and of so many bytes together. When there is none it
    /// waits so long for one.
    ///
    /// # Errors
    /// There was no answer, or the stream is gone.
    pub async fn fetch(
        &mut self,
        most: usize,
        most_bytes: usize,
        patience: Duration,
    ) -> Result<Vec<Fetched>, NatsError> {
        let asked = self
            .consumer
            .fetch()
            .max_messages(most)
            .max_bytes(most_bytes);
        // First what is there, without waiting; then the first that comes.
        let mut found = self.gather(asked.messages(), GRACE).await?;
        if found.is_empty() && !patience.is_zero() {
            let asked = self.consumer.batch().max_messages(1).expires(patience);
            found = self.gather(asked.messages(), patience + GRACE).await?;
        }
        Ok(found)
    }

    async fn gather<E: std::error::Error + 'static>(
        &self,
        asked: impl Future<Output = Result<Batch, E>>,
        patience: Duration,
    ) -> Result<Vec<Fetched>, NatsError> {
        let mut batch = asked
            .await
            .map_err(|error| request_error(&self.name, &error))?;
        let mut found = Vec::new();
        loop {
            match timeout(patience, batch.next()).await {
                Ok(Some(Ok(message))) => found.push(fetched(message)?),
                Ok(Some(Err(error))) => return Err(request_error(&self.name, &*error)),
                Ok(None) => return Ok(found),
                // What came is there; what did not come is given again.
                Err(_) if !found.is_empty() => return Ok(found),
                Err(_) => return Err(NatsError::Away("no answer came in time".to_owned())),
            }
        }
    }
}

fn fetched(message: Message) -> Result<Fetched, NatsError> {
    let info = message.info();
    let info =
        info.map_err(|error| NatsError::Away(format!("a message without its place: {error}")))?;
    let (sequence, pending) = (info.stream_sequence, info.pending);
    let delivered = u64::try_from(info.delivered).unwrap_or_default();
    let ledger_id = message.subject.strip_prefix(SUBJECTS);
    let ledger_id = ledger_id.and_then(|rest| rest.strip_prefix('.'));
    Ok(Fetched {
        ledger_id: ledger_id.unwrap_or_default().to_owned(),
        sequence,
        delivered,
        pending,
        bytes: message.payload.clone(),
        message,
    })
}

impl Fetched {
    /// This message and all before it are done with. Returns when the server has written that down.
    ///
    /// # Errors
    /// There was no answer: they may come again.
    pub async fn done(&self) -> Result<(), NatsError> {
        let acknowledged = timeout(ACK_WAIT, self.message.double_ack()).await;
        let acknowledged =
            acknowledged.map_err(|_| NatsError::Away("no answer came in time".to_owned()))?;
        acknowledged.map_err(|error| NatsError::Away(error.to_string()))
    }
}
