//! A bucket: the last value of each of some keys.
//!
//! Must never give an older value after a newer one of the same bucket.

use crate::nats::connection::{ANSWER, Nats};
use crate::nats::error::{NatsError, request_error};
use crate::nats::fit;
use crate::nats::records::{WRONG_LAST, behind};
use async_nats::jetstream::kv::{Operation, Store, Watch};
use bytes::Bytes;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::timeout;

/// A watched key is asked for so often, though nothing seems to have changed.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before a watch is begun again.
const PAUSE: Duration = Duration::from_millis(500);

/// A bucket.
#[derive(Clone)]
pub struct KeyValues {
    nats: Nats,
    name: String,
    store: Store,
}

/// The last value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LastValue {
    /// It grows with each value of the bucket, as long as that is not deleted.
    pub revision: u64,
    /// The value.
    pub bytes: Bytes,
}

impl Nats {
    /// The bucket of this name: makes it where it is not there, else compares it.
    ///
    /// # Errors
    /// It is not what it must be, or there was no answer.
    pub async fn bucket(&self, name: &str, replicas: usize) -> Result<KeyValues, NatsError> {
        self.open_bucket(name, replicas, false).await
    }

    /// The same of a bucket whose values stand nowhere else: nobody is told to delete it.
    ///
    /// # Errors
    /// It is not what it must be, or there was no answer.
    pub async fn only_bucket(&self, name: &str, replicas: usize) -> Result<KeyValues, NatsError> {
        self.open_bucket(name, replicas, true).await
    }

    async fn open_bucket(
        &self,
        name: &str,
        replicas: usize,
        is_only_copy: bool,
    ) -> Result<KeyValues, NatsError> {
        let must_be = fit::bucket(name, replicas);
        self.fit_stream(must_be, is_only_copy).await?;
        let store = self.jetstream.get_key_value(name).await;
        Ok(KeyValues {
            nats: self.clone(),
            name: name.to_owned(),
            store: store.map_err(|error| request_error(name, &error))?,
        })
    }
}

impl KeyValues {
    /// Puts a value in place of the last one, and gives its revision.
    ///
    /// # Errors
    /// There was no answer that says whether it is stored.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<u64, NatsError> {
        let subject = format!("$KV.{}.{key}", self.name);
        self.nats.store(subject, None, value.into()).await
    }

    /// Puts the first value of a key; `false` where it has one already, which stays. The server
    /// compares before it stores, so of many at once one succeeds.
    ///
    /// # Errors
    /// There was no answer that says whether it is stored. To ask again is safe where the value
    /// tells who wrote it.
    pub async fn create(&self, key: &str, value: Vec<u8>) -> Result<bool, NatsError> {
        Ok(self.replace(key, 0, value).await?.is_some())
    }

    /// Puts a value in place of the one of this revision, 0 is none, and gives its own; `None` when
    /// another value is there. After an error it may have been stored.
    ///
    /// # Errors
    /// There was no answer that says whether it is stored.
    pub async fn replace(
        &self,
        key: &str,
        revision: u64,
        value: Vec<u8>,
    ) -> Result<Option<u64>, NatsError> {
        let subject = format!("$KV.{}.{key}", self.name);
        let stored = self
            .nats
            .store(subject, Some(behind(revision)), value.into());
        match stored.await {
            Ok(revision) => Ok(Some(revision)),
            Err(NatsError::Refused { code, .. }) if code == WRONG_LAST => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// The last value of the key.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn get(&self, key: &str) -> Result<Option<LastValue>, NatsError> {
        let (revision, value) = self.last(key).await?;
        Ok(value.map(|bytes| LastValue { revision, bytes }))
    }

    /// The revision of the key, 0 before its first value, and that value. A key that was deleted has a
    /// revision and no value.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn last(&self, key: &str) -> Result<(u64, Option<Bytes>), NatsError> {
        self.nats.check()?;
        let entry = timeout(ANSWER, self.store.entry(key)).await;
        let entry = entry.map_err(|_| NatsError::Away("no answer came in time".to_owned()))?;
        let entry = entry.map_err(|error| request_error(&self.name, &error))?;
        Ok(match entry {
            None => (0, None),
            Some(entry) => {
                let is_put = entry.operation == Operation::Put;
                (entry.revision, is_put.then_some(entry.value))
            }
        })
    }

    /// The keys that have a value.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn keys(&self) -> Result<Vec<String>, NatsError> {
        self.nats.check()?;
        let read = async {
            let mut keys = self
                .store
                .keys()
                .await
                .map_err(|error| request_error(&self.name, &error))?;
            let mut found = Vec::new();
            while let Some(key) = keys.next().await {
                found.push(key.map_err(|error| request_error(&self.name, &error))?);
            }
            Ok(found)
        };
        let read = timeout(ANSWER, read).await;
        read.map_err(|_| NatsError::Away("no answer came in time".to_owned()))?
    }

    /// The last value of each key that has one, as the bucket stands, over one consumer.
    ///
    /// # Errors
    /// There was no answer, or it broke off.
    pub async fn all(&self) -> Result<Vec<(String, LastValue)>, NatsError> {
        self.nats.check()?;
        let late = || NatsError::Away("no answer came in time".to_owned());
        let mut found = Vec::new();
        // As it was opened. No end is told of a bucket that has nothing.
        let status = timeout(ANSWER, self.store.status()).await;
        let status = status.map_err(|_| late())?;
        let status = status.map_err(|error| request_error(&self.name, &error))?;
        if status.values() == 0 {
            return Ok(found);
        }
        let begun = timeout(ANSWER, self.store.watch_with_history(">")).await;
        let begun = begun.map_err(|_| late())?;
        let mut entries = begun.map_err(|error| request_error(&self.name, &error))?;
        while let Some(entry) = timeout(ANSWER, entries.next()).await.map_err(|_| late())? {
            let entry = entry.map_err(|error| request_error(&self.name, &error))?;
            if entry.operation == Operation::Put {
                let (revision, bytes) = (entry.revision, entry.value);
                found.push((entry.key, LastValue { revision, bytes }));
            }
            if entry.delta == 0 {
                return Ok(found);
            }
        }
        Err(late())
    }

    /// The values of the key, from the last one on.
    pub fn watch(&self, key: &str) -> Watched {
        Watched {
            of: self.clone(),
            key: key.to_owned(),
            watch: None,
            seen: 0,
            older: 0,
        }
    }
}

/// The values of one key as they come.
pub struct Watched {
    of: KeyValues,
    key: String,
    watch: Option<Watch>,
    /// The revision that was given last.
    seen: u64,
    /// How often in a row a look has found an older one.
    older: u32,
}

impl Watched {
    /// Whether a value is another one than that which was given last. A bucket that was made again
    /// counts from one. A look may be answered by a server that is behind: it is believed at its
    /// second time.
    fn is_new(&mut self, revision: u64, is_looked: bool) -> bool {
        let is_older = revision < self.seen && is_looked;
        self.older = if is_older { self.older + 1 } else { 0 };
        match is_older {
            true => self.older > 1,
            false => revision != self.seen,
        }
    }

    /// Waits for the next value. A value that was replaced meanwhile is left out. It can be dropped
    /// and called again.
    ///
    /// # Errors
    /// The bucket is gone: it must be opened again. Without a connection it waits.
    pub async fn next(&mut self) -> Result<LastValue, NatsError> {
        loop {
            if self.watch.is_none() {
                match timeout(ANSWER, self.of.store.watch_with_history(&self.key)).await {
                    Ok(Ok(watch)) => self.watch = Some(watch),
                    Ok(Err(error)) => match request_error(&self.of.name, &error) {
                        NatsError::Gone(what) => return Err(NatsError::Gone(what)),
                        _ => tokio::time::sleep(PAUSE).await,
                    },
                    Err(_) => {}
                }
            }
            // The client begins a watch again by itself. Not trusted with that: it is looked, too.
            let told = match &mut self.watch {
                Some(watch) => timeout(LOOK, watch.next()).await,
                None => Ok(None),
            };
            let is_looked = told.is_err();
            let value = match told {
                Ok(Some(Ok(entry))) if entry.operation == Operation::Put => Some(LastValue {
                    revision: entry.revision,
                    bytes: entry.value,
                }),
                Ok(Some(Ok(_))) => None,
                Ok(Some(Err(_)) | None) => {
                    self.watch = None;
                    tokio::time::sleep(PAUSE).await;
                    None
                }
                Err(_) => match self.of.get(&self.key).await {
                    Ok(value) => value,
                    Err(NatsError::Gone(what)) => return Err(NatsError::Gone(what)),
                    Err(_) => None,
                },
            };
            if let Some(value) = value
                && self.is_new(value.revision, is_looked)
            {
                self.seen = value.revision;
                return Ok(value);
            }
        }
    }
}
