//! Tells the gates the standing of the accounts, at each change and every few seconds.
//!
//! Must never tell a standing that the settler has not decided.

use crate::control::Settler;
use crate::control::standing::{AccountStanding, HEAD, STANDING, StandingMessage, messages};
use crate::model::{Clock, Utc};
use crate::nats::{KeyValues, Nats, NatsError};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The head is told so often though nothing has changed: a gate knows by it that it hears the
/// collector.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Publisher {
    pub settler: Arc<Settler>,
    pub clock: Clock,
    pub nats: Nats,
    pub replicas: usize,
}

/// What was told last.
#[derive(Default)]
struct Said {
    generation: u64,
    /// Of each value beside the head the hash of its accounts and its generation, by key.
    values: HashMap<String, (u64, u64)>,
}

impl Publisher {
    /// Tells it for ever. Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut standings = self.settler.standings();
        let (mut said, mut told) = (None, false);
        loop {
            let now = standings.borrow_and_update().clone();
            match self.tell(&mut said, &now).await {
                Ok(()) => {
                    told = false;
                    tokio::select! {
                        _ = standings.changed() => {}
                        () = self.clock.sleep(HEARTBEAT) => {}
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            "the gates are not told who is stopped: {error}; trying again"
                        );
                    }
                    // The bucket may be another one.
                    said = None;
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    async fn tell(
        &self,
        said: &mut Option<Said>,
        standings: &[AccountStanding],
    ) -> Result<(), NatsError> {
        let bucket = self.nats.bucket(STANDING, self.replicas).await?;
        let before = match said.take() {
            Some(before) => before,
            None => Said {
                generation: generation(&bucket).await?,
                values: HashMap::new(),
            },
        };
        *said = Some(tell_changed(&bucket, before, standings, self.clock.utc()).await?);
        Ok(())
    }
}

/// The generation that was told last, perhaps by an earlier process.
async fn generation(bucket: &KeyValues) -> Result<u64, NatsError> {
    let last = bucket.get(HEAD).await?;
    let last = last.and_then(|value| StandingMessage::decode(&value.bytes).ok());
    Ok(last.map_or(0, |message| message.generation))
}

async fn tell_changed(
    bucket: &KeyValues,
    before: Said,
    standings: &[AccountStanding],
    now: Utc,
) -> Result<Said, NatsError> {
    let generation = before.generation + 1;
    let mut said = Said {
        generation,
        values: HashMap::new(),
    };
    let mut others = Vec::new();
    for (key, accounts) in messages(standings) {
        if key == HEAD {
            let head = StandingMessage::new(generation, now, std::mem::take(&mut others), accounts);
            bucket.put(&key, head.encode()).await?;
            continue;
        }
        let mut hasher = DefaultHasher::new();
        accounts.hash(&mut hasher);
        let hash = hasher.finish();
        let written = match before.values.get(&key) {
            Some((known, written)) if *known == hash => *written,
            _ => {
                let value = StandingMessage::new(generation, now, Vec::new(), accounts);
                bucket.put(&key, value.encode()).await?;
                generation
            }
        };
        others.push(written);
        said.values.insert(key, (hash, written));
    }
    Ok(said)
}
