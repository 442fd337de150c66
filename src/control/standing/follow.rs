//! A gate hears from the collector who is stopped, and keeps what it heard.
//!
//! Must never let somebody go on because the collector is silent.

use crate::control::standing::file::StandingFileError;
use crate::control::standing::{Assembly, HEAD, KnownCollector, STANDING, StandingFile};
use crate::model::AccountId;
use crate::nats::{KeyValues, Nats, NatsError, Watched};
use crate::proxy::{CollectedStanding, Shared};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After so long a silence the gate does not hear the collector any more: it says something every
/// five seconds.
const SILENCE: Duration = Duration::from_secs(12);
/// How long the first start of a gate waits for what the collector has said last.
const FIRST: Duration = Duration::from_secs(3);
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
    /// on. To be called before the first call; takes at most three seconds, and where NATS is away no
    /// time.
    pub(in crate::control) async fn hear_first(&self) {
        if self.shared.heard().is_some() {
            return;
        }
        let heard = tokio::time::timeout(FIRST, async {
            let bucket = self.nats.bucket(STANDING, self.replicas).await?;
            if bucket.get(HEAD).await?.is_none() {
                // No collector has worked here.
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

/// What is in force when `heard` comes after `known`; `None`: what was. `is_later`: it is said now, and
/// was not there already.
///
/// NATS may have been put back to an older state: what it has then is not believed before the
/// collector says it again. And a collected ledger that lacks a month, since it is new or was put back
/// to a backup, does not know who is in arrears by it: whoever was stopped stays so until it has
/// debited that month, too, and that account.
fn in_force(
    known: Option<&CollectedStanding>,
    heard: CollectedStanding,
    is_later: bool,
) -> Option<CollectedStanding> {
    let Some(known) = known else {
        return Some(heard);
    };
    if !is_later && heard.as_of < known.as_of {
        return None;
    }
    let mut heard = heard;
    let lacks_month = heard.books.debited < known.books.debited;
    // A ledger that has never debited an account does not know what it owes.
    let stays = |id: &&AccountId| lacks_month || !heard.balances.contains_key(*id);
    let stays: Vec<AccountId> = known.stopped.iter().filter(stays).cloned().collect();
    heard.stopped.extend(stays);
    if lacks_month {
        heard.books.debited.clone_from(&known.books.debited);
    }
    Some(heard)
}

fn unread(key: &str, error: &dyn std::fmt::Display) -> NatsError {
    NatsError::Away(format!("what it says ({key}) cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Utc;
    use crate::proxy::CollectedBooks;

    fn said(as_of: i64, debited: Option<&str>, stopped: &[&str]) -> CollectedStanding {
        CollectedStanding {
            as_of: Utc(as_of),
            books: CollectedBooks {
                debited: debited.map(str::to_owned),
                ..CollectedBooks::default()
            },
            stopped: stopped.iter().filter_map(|id| AccountId::new(id)).collect(),
            balances: [("1", "-5")]
                .into_iter()
                .map(|(id, balance)| (AccountId::new(id).unwrap(), balance.into()))
                .collect(),
            ..CollectedStanding::default()
        }
    }

    #[test]
    fn an_older_standing_counts_only_when_it_is_said_again() {
        let known = said(9, None, &["1"]);
        assert_eq!(in_force(Some(&known), said(8, None, &[]), false), None);
        let again = in_force(Some(&known), said(8, None, &[]), true).unwrap();
        assert!(again.stopped.is_empty());
        assert!(in_force(Some(&known), said(9, None, &[]), false).is_some());
        assert!(in_force(None, said(8, None, &[]), false).is_some());
    }

    #[test]
    fn who_was_stopped_stays_so_until_the_month_is_debited_again() {
        let known = said(1, Some("2026-10"), &["1"]);
        let mut now = known.clone();
        for debited in [None, Some("2026-08"), Some("2026-09")] {
            now = in_force(Some(&now), said(2, debited, &["2"]), true).unwrap();
            assert_eq!(now.stopped.len(), 2);
        }
        now = in_force(Some(&now), said(3, Some("2026-10"), &["2"]), true).unwrap();
        assert_eq!(now.stopped.len(), 1);
    }

    #[test]
    fn who_was_stopped_stays_so_by_a_ledger_that_has_never_debited_the_account() {
        let known = said(1, Some("2026-10"), &["1", "2"]);
        let other = in_force(Some(&known), said(2, Some("2026-11"), &[]), true).unwrap();
        let stopped: Vec<&str> = other.stopped.iter().map(AccountId::as_str).collect();
        assert_eq!(stopped, ["2"], "account 1 has a balance there");
    }
}
