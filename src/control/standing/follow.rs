//! A gate hears from the collector who is stopped, and keeps what it heard.
//!
//! Must never let somebody go on because the collector is silent.

use crate::control::standing::file::StandingFileError;
use crate::control::standing::{Assembly, HEAD, KnownCollector, STANDING, StandingFile, in_force};
use crate::nats::{KeyValues, Nats, NatsError, Watched};
use crate::proxy::{CollectedStanding, Shared};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After so long a silence the gate does not hear the collector any more: it says something every
/// five seconds.
const SILENCE: Duration = Duration::from_secs(12);
/// How long the first start of a gate waits for what the collector has said last.
const FIRST: Duration = Duration::from_secs(5);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What was heard last cannot be known.
#[derive(thiserror::Error, Debug)]
#[error(
    "{} cannot be read: {cause}. It says who is stopped for arrears, and a start without it would let them go on. Delete it when the \
     collector is heard: it says so again within seconds",
    path.display()
)]
pub struct UnreadStanding {
    path: PathBuf,
    cause: StandingFileError,
}

/// Puts in force what was heard last, by an earlier process too. Blocks.
pub(in crate::control) fn hear_kept(shared: &Shared, ledger: &Path) -> Result<(), UnreadStanding> {
    let file = StandingFile::beside(ledger);
    match file.read() {
        Ok(Some(kept)) => {
            tracing::info!(
                generation = kept.generation,
                stopped = kept.stopped.len(),
                "who is stopped is known from before, until the collector is heard"
            );
            shared.hear(Arc::new(kept));
        }
        Ok(None) => {}
        Err(cause) => {
            return Err(UnreadStanding {
                path: file.path().to_owned(),
                cause,
            });
        }
    }
    shared.set_hears_standing(false);
    Ok(())
}

/// Hears the collector.
pub(in crate::control) struct Follower {
    pub shared: Arc<Shared>,
    pub nats: Nats,
    pub replicas: usize,
    /// Whom this gate believes.
    pub known: Arc<KnownCollector>,
}

impl Follower {
    /// Hears what it has said last, where this gate has never heard it: a new one would let everybody go
    /// on. To be called before the first call; takes at most five seconds, and where NATS is away no
    /// time.
    pub(in crate::control) async fn hear_first(&self) {
        if self.shared.heard().is_some() {
            return;
        }
        let heard = tokio::time::timeout(FIRST, async {
            let bucket = self.nats.bucket(STANDING, self.replicas).await?;
            if bucket.get(HEAD).await?.is_none() {
                tracing::info!("no collector has said yet who is stopped for arrears: nobody is");
                return Ok(());
            }
            let (mut watched, mut assembly) = (bucket.watch(HEAD), Assembly::default());
            let heard = self.next(&mut watched, &bucket, &mut assembly).await?;
            self.known.believe(&heard.books).map_err(NatsError::Away)?;
            let file = StandingFile::beside(self.shared.ledger.path());
            self.hear(heard, false, &file).await;
            Ok::<_, NatsError>(())
        });
        let failure = match heard.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it says nothing".to_owned(),
        };
        tracing::warn!(
            "this gate has never heard the collector, and does not hear it now: {failure}. Nobody is stopped for arrears until it does"
        );
    }

    /// Hears it for ever. Runs until it is dropped.
    pub(in crate::control) async fn run(self) {
        let file = StandingFile::beside(self.shared.ledger.path());
        let mut told = String::new();
        loop {
            let failure = match self.follow(&file).await {
                NatsError::Away(why) => why,
                other => other.to_string(),
            };
            self.shared.set_hears_standing(false);
            if failure != told {
                tracing::warn!("the collector is not heard: {failure}. Who was stopped stays so");
                told = failure;
            }
            self.shared.clock.sleep(PAUSE).await;
        }
    }

    /// Ends with an error alone.
    async fn follow(&self, file: &StandingFile) -> NatsError {
        let bucket = match self.nats.bucket(STANDING, self.replicas).await {
            Ok(bucket) => bucket,
            Err(error) => return error,
        };
        let (mut watched, mut assembly) = (bucket.watch(HEAD), Assembly::default());
        let mut before = None;
        loop {
            let next =
                tokio::time::timeout(SILENCE, self.next(&mut watched, &bucket, &mut assembly));
            match next.await {
                Ok(Ok(heard)) => {
                    if let Err(why) = self.known.believe(&heard.books) {
                        return NatsError::Away(why);
                    }
                    // The first was perhaps said long ago: the next ones are said now.
                    let is_later = before.is_some_and(|before| heard.generation > before);
                    before = Some(heard.generation);
                    let known = self.shared.heard();
                    if let Some(heard) = in_force(known.as_deref(), heard, is_later) {
                        self.hear(heard, is_later, file).await;
                    }
                }
                Ok(Err(error)) => return error,
                // The bucket may be another one, whose revisions began anew.
                Err(_) => return NatsError::Away("it says nothing".to_owned()),
            }
        }
    }

    /// The next standing that is there whole.
    async fn next(
        &self,
        watched: &mut Watched,
        bucket: &KeyValues,
        assembly: &mut Assembly,
    ) -> Result<CollectedStanding, NatsError> {
        loop {
            let head = watched.next().await?;
            let wanted = match assembly.take_head(&head.bytes) {
                Ok(wanted) => wanted,
                Err(error) => return Err(unread(HEAD, &error)),
            };
            for key in wanted {
                if let Some(part) = bucket.get(&key).await? {
                    let taken = assembly.take_part(key.clone(), &part.bytes);
                    taken.map_err(|error| unread(&key, &error))?;
                }
            }
            if let Some(whole) = assembly.whole() {
                return Ok(whole);
            }
        }
    }

    async fn hear(&self, heard: CollectedStanding, is_later: bool, file: &StandingFile) {
        if is_later && !self.shared.hears_standing() {
            tracing::info!(stopped = heard.stopped.len(), "the collector is heard");
        }
        let known = self.shared.heard();
        let is_same = known.is_some_and(|known| {
            known.stopped == heard.stopped
                && known.balances == heard.balances
                && known.books == heard.books
        });
        let heard = Arc::new(heard);
        let (shared, file) = (self.shared.clone(), file.clone());
        let kept = tokio::task::spawn_blocking(move || {
            // In force first: the disk may be slow.
            shared.hear(heard.clone());
            if is_later {
                shared.set_hears_standing(true);
            }
            match is_same && file.path().exists() {
                true => Ok(()),
                false => file.write(&heard),
            }
        });
        let failure = match kept.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!("who is stopped cannot be kept beside the ledger: {failure}");
    }
}

fn unread(key: &str, error: &dyn std::fmt::Display) -> NatsError {
    NatsError::Away(format!("what it says ({key}) cannot be read: {error}"))
}
