//! Which ledger the records of this stream are collected in: one at a time.
//!
//! Owns the key `collector` of the bucket in which gates read what is collected, and what they read
//! there. Must never let two processes work at once for longer than one of them needs to notice:
//! an empty ledger would let everybody go on who is in arrears.
//!
//! # Decided
//! - **The holder writes its key each second, and each time behind its own last value.** Who finds
//!   another value there has lost it. So no clock of two machines is compared: a process that wants
//!   to take over looks for some seconds whether the value changes.
//! - **Another ledger does not take over by itself**, nor an older copy of the same one: what it
//!   lacks would be billed again or not at all. `tollgate collect adopt` says that this is wanted.

use crate::control::collector::Progress;
use crate::control::collector::intake::cursors;
use crate::control::outbox::{COLLECTED, CollectedValue};
use crate::ledger::{CollectedBy, is_ledger_id};
use crate::model::Clock;
use crate::nats::{KeyValues, Nats, NatsError};
use crate::proxy::Shared;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The key. No ledger has such an id.
const COLLECTOR: &str = "collector";
/// How often the holder writes it.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A value that does not change for so long has no holder any more.
const SILENCE: Duration = Duration::from_millis(2_500);
/// After so many heartbeats the gates' values are compared with what is collected.
const COMPARED_EVERY: u32 = 30;
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The value of the key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Holder {
    ledger_id: String,
    restore_count: u64,
    /// Another one each time that a process starts.
    process: String,
    /// Where its ledger is, for whoever looks for it.
    place: String,
    /// Which file of which kernel its ledger is, where that can be told.
    file: Option<String>,
}

/// Why a process must not collect.
#[derive(thiserror::Error, Debug)]
pub enum ClaimError {
    /// Another ledger is the collected one.
    #[error(
        "the records of these gates are collected in another ledger, {ledger_id} ({place}); this one is {own}. Two collected ledgers \
         would each have a part. If the other one is lost for good, `tollgate collect adopt` puts this one in its place: its gates send \
         again what they still have"
    )]
    Other {
        /// The id of the other.
        ledger_id: String,
        /// Where it is or was.
        place: String,
        /// The id of this one.
        own: String,
    },
    /// A newer state of the same ledger was in use.
    #[error(
        "this ledger was in use after restore {known}, and the file at its path is from before: an older copy was put in its place. \
         Put back the newer one; `tollgate restore` puts a backup in its place safely, and `tollgate collect adopt` says that this one \
         is to be used all the same"
    )]
    Older {
        /// The number of its newest restore.
        known: u64,
    },
    /// Another process works.
    #[error("another process collects these records now ({0}): stop it first")]
    Held(String),
    /// NATS does not answer.
    #[error("NATS: {0}")]
    Nats(#[from] NatsError),
}

/// The claim of this process.
pub(super) struct Claim {
    nats: Nats,
    replicas: usize,
    clock: Clock,
    own: Holder,
}

impl Claim {
    /// The claim of the ledger `by`, which this process has locked at `path`. `replica` is its own name.
    pub(super) fn new(
        nats: Nats,
        replicas: usize,
        clock: Clock,
        by: &CollectedBy,
        (replica, path): (&str, &Path),
    ) -> Self {
        Self {
            nats,
            replicas,
            clock,
            own: Holder {
                ledger_id: by.ledger_id.clone(),
                restore_count: by.restore_count,
                process: uuid::Uuid::now_v7().to_string(),
                place: format!("{replica}:{}", path.display()),
                file: file(path),
            },
        }
    }

    pub(super) fn nats(&self) -> Nats {
        self.nats.clone()
    }

    async fn bucket(&self) -> Result<KeyValues, NatsError> {
        self.nats.bucket(COLLECTED, self.replicas).await
    }

    /// Whether this ledger may be the collected one, as far as NATS says now.
    pub(super) async fn look(&self) -> Result<(), ClaimError> {
        let (found, _) = read(&self.bucket().await?).await?;
        found.map_or(Ok(()), |found| self.may_follow(&found))
    }

    fn may_follow(&self, found: &Holder) -> Result<(), ClaimError> {
        if found.ledger_id != self.own.ledger_id {
            return Err(ClaimError::Other {
                ledger_id: found.ledger_id.clone(),
                place: found.place.clone(),
                own: self.own.ledger_id.clone(),
            });
        }
        match found.restore_count > self.own.restore_count {
            true => Err(ClaimError::Older {
                known: found.restore_count,
            }),
            false => Ok(()),
        }
    }

    /// Takes it, and gives the revision of its value. `None` when another process was faster.
    async fn take(&self, bucket: &KeyValues, adopts: bool) -> Result<Option<u64>, ClaimError> {
        let (found, revision) = read(bucket).await?;
        if let Some(found) = found.filter(|found| found.process != self.own.process) {
            if !adopts {
                self.may_follow(&found)?;
            }
            // Of the file that this process has locked there is no other holder.
            if found.file.is_none() || found.file != self.own.file {
                self.clock.sleep(SILENCE).await;
                let (now, later) = read(bucket).await?;
                if later != revision {
                    return Err(ClaimError::Held(now.unwrap_or(found).place));
                }
            }
        }
        Ok(bucket
            .replace(COLLECTOR, revision, self.own.encode())
            .await?)
    }

    /// Makes this ledger the collected one, whichever was it before. Says which.
    pub(super) async fn adopt(&self) -> Result<Option<String>, ClaimError> {
        let bucket = self.bucket().await?;
        let (before, _) = read(&bucket).await?;
        match self.take(&bucket, true).await? {
            Some(_) => Ok(before.map(|before| format!("{} ({})", before.ledger_id, before.place))),
            None => Err(ClaimError::Held("another one".to_owned())),
        }
    }
}

impl Holder {
    fn encode(&self) -> Vec<u8> {
        // Texts and a number can always be written to memory.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The boot of the kernel, the device and the number of the file: what a lock of it is bound to.
fn file(path: &Path) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let file = std::fs::metadata(path).ok()?;
    Some(format!("{} {}:{}", boot.trim(), file.dev(), file.ino()))
}

/// The holder, when there is one whose value can be read, and the revision of the value.
async fn read(bucket: &KeyValues) -> Result<(Option<Holder>, u64), NatsError> {
    let Some(value) = bucket.get(COLLECTOR).await? else {
        return Ok((None, 0));
    };
    let holder = serde_json::from_slice(&value.bytes);
    let holder = holder.inspect_err(|error| {
        tracing::warn!("who collects cannot be read at NATS, and is written anew: {error}");
    });
    Ok((holder.ok(), value.revision))
}

/// Holds the claim, and tells the rest of the process whether it does.
pub(super) struct Holding {
    pub claim: Claim,
    pub shared: Arc<Shared>,
    pub by: CollectedBy,
    pub progress: Arc<Progress>,
    pub held: watch::Sender<bool>,
}

impl Holding {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut told = String::new();
        loop {
            let why = match self.hold(&mut told).await {
                Ok(()) => "another process took over".to_owned(),
                Err(error) => error.to_string(),
            };
            self.held.send_replace(false);
            self.progress.waits(Some(why.clone()));
            if why != told {
                tracing::error!("nothing is collected here: {why}");
                told = why;
            }
            self.claim.clock.sleep(PAUSE).await;
        }
    }

    /// Ends when another process has it.
    async fn hold(&self, told: &mut String) -> Result<(), ClaimError> {
        let bucket = self.claim.bucket().await?;
        let Some(mut revision) = self.claim.take(&bucket, false).await? else {
            return Ok(());
        };
        self.tell_gates(&bucket).await?;
        self.progress.waits(None);
        self.held.send_replace(true);
        told.clear();
        for beat in 1_u32.. {
            self.claim.clock.sleep(HEARTBEAT).await;
            let own = &self.claim.own;
            let replaced = bucket.replace(COLLECTOR, revision, own.encode()).await?;
            revision = match replaced {
                Some(revision) => revision,
                // The last one may have been stored though its answer did not come.
                None => match read(&bucket).await? {
                    (Some(found), revision) if found == *own => revision,
                    _ => return Ok(()),
                },
            };
            if beat.is_multiple_of(COMPARED_EVERY) {
                self.tell_gates(&bucket).await?;
            }
        }
        Ok(())
    }

    /// Corrects what the gates read of what is collected, where it is not so: an older state of this
    /// ledger had more, another ledger had it, or somebody else wrote there.
    async fn tell_gates(&self, bucket: &KeyValues) -> Result<(), ClaimError> {
        let mut found = HashMap::new();
        for key in bucket.keys().await? {
            if is_ledger_id(&key)
                && let Some(value) = bucket.get(&key).await?
            {
                found.insert(key, value);
            }
        }
        // Read after them, so that nothing newer is written over.
        let shared = self.shared.clone();
        let sources = tokio::task::spawn_blocking(move || cursors(&shared.ledger));
        let Ok(Ok(sources)) = sources.await else {
            // A ledger in trouble: its writer tells it, and they are compared again.
            return Ok(());
        };
        let mut collected: HashMap<String, u64> = found.keys().map(|id| (id.clone(), 0)).collect();
        collected.extend(sources);
        for (id, seq) in collected {
            let value = CollectedValue {
                seq,
                by: self.by.clone(),
            };
            let (bytes, revision) = match found.get(&id) {
                Some(last) => (&last.bytes[..], last.revision),
                None => (&[][..], 0),
            };
            if bytes != value.encode() {
                // Where another value came meanwhile, that is a newer one.
                bucket.replace(&id, revision, value.encode()).await?;
            }
        }
        Ok(())
    }
}
