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
use crate::control::collector::intake::{cursors as cursors_of, heard_of};
use crate::control::outbox::{COLLECTED, CollectedValue, WATERMARKS};
use crate::ledger::{CollectedBy, Ledger, StoreError, is_ledger_id};
use crate::model::{Clock, Utc};
use crate::nats::{KeyValues, Nats, NatsError};
use crate::proxy::Shared;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
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
    #[serde(flatten)]
    reached: Reached,
    /// When it was put in the place of another, in microseconds; 0 where it never was.
    #[serde(default)]
    adopted_at: i64,
    /// Another one each time that a process starts.
    process: String,
    /// Where its ledger is, for whoever looks for it.
    place: String,
    /// Which file of which kernel its ledger is, where that can be told.
    file: Option<String>,
}

/// How far a ledger is: an older copy of it has less.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reached {
    /// Its newest record.
    seq: u64,
    /// See [`Reader::closings`](crate::ledger::Reader::closings).
    #[serde(default)]
    closings: u64,
}

impl Reached {
    /// Where this ledger is. Blocks.
    pub(super) fn of(ledger: &Ledger) -> Result<Self, ClaimError> {
        let closings = ledger.reader().map(|reader| reader.closings());
        let ledger_error = |error: &dyn std::fmt::Display| ClaimError::Ledger(error.to_string());
        Ok(Self {
            closings: closings
                .map_err(|error| ledger_error(&error))?
                .map_err(|error| ledger_error(&error))?,
            // Read later: it is not below what belongs to these closings.
            seq: ledger.last_seq(),
        })
    }

    /// The same on a thread that may block.
    async fn now(shared: &Arc<Shared>) -> Result<Self, ClaimError> {
        let shared = shared.clone();
        let read = tokio::task::spawn_blocking(move || Self::of(&shared.ledger)).await;
        read.map_err(|error| ClaimError::Ledger(error.to_string()))?
    }

    /// What both have together.
    fn or(self, other: Self) -> Self {
        Self {
            seq: self.seq.max(other.seq),
            closings: self.closings.max(other.closings),
        }
    }

    fn lacks(self, other: Self) -> bool {
        self.seq < other.seq || self.closings < other.closings
    }
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
        "this ledger was in use with record {} and {} closings of days and months, after restore {restore_count}, and the file at its path \
         has record {} and {} closings: an older copy was put in its place. Put back the newer one, or a backup with `tollgate \
         restore`. If this is the newest that there is: `tollgate collect adopt`",
        known.seq, known.closings, own.seq, own.closings
    )]
    Older {
        /// How far it was.
        known: Reached,
        /// The number of its newest restore.
        restore_count: u64,
        /// How far the file is.
        own: Reached,
    },
    /// Who collects is not known.
    #[error(
        "what NATS says of the collected ledger (key `collector` of the bucket {COLLECTED}) cannot be read: {0}. If this ledger is the one: \
         `tollgate collect adopt`"
    )]
    Unreadable(String),
    /// The ledger cannot be read or written.
    #[error("{0}")]
    Ledger(String),
    /// The ledger that is adopted cannot be written.
    #[error("the ledger cannot be written: {0}")]
    Store(#[from] StoreError),
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
    /// How far this ledger was seen in use, and after which restore: NATS may be put back to before.
    furthest: Mutex<(u64, Reached)>,
}

impl Claim {
    /// The claim of the ledger `by`, which this process has locked at `path`. `replica` is its own name.
    pub(super) fn new(
        nats: Nats,
        replicas: usize,
        clock: Clock,
        (by, adopted_at): (&CollectedBy, Utc),
        (replica, path): (&str, &Path),
    ) -> Self {
        Self {
            nats,
            replicas,
            clock,
            furthest: Mutex::default(),
            own: Holder {
                ledger_id: by.ledger_id.clone(),
                restore_count: by.restore_count,
                reached: Reached::default(),
                adopted_at: adopted_at.0,
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

    /// Whether this ledger, which is so far, may be the collected one, as far as NATS says now.
    pub(super) async fn look(&self, reached: Reached) -> Result<(), ClaimError> {
        let bucket = self.bucket().await?;
        let (found, _) = read(&bucket).await?;
        match found? {
            Some(found) => self.may_follow(&found, reached),
            None => self.is_named(&named(&bucket).await??),
        }
    }

    fn may_follow(&self, found: &Holder, reached: Reached) -> Result<(), ClaimError> {
        let own = &self.own;
        if found.ledger_id != own.ledger_id {
            return Err(self.another(found.ledger_id.clone(), found.place.clone()));
        }
        let (restore_count, known) = {
            let mut furthest = self.furthest.lock();
            match found.restore_count.cmp(&furthest.0) {
                Ordering::Less => {}
                Ordering::Equal => furthest.1 = furthest.1.or(found.reached),
                Ordering::Greater => *furthest = (found.restore_count, found.reached),
            }
            *furthest
        };
        let is_older = match restore_count.cmp(&own.restore_count) {
            Ordering::Less => false,
            Ordering::Equal => reached.lacks(known),
            Ordering::Greater => true,
        };
        match is_older {
            true => Err(ClaimError::Older {
                known,
                restore_count,
                own: reached,
            }),
            false => Ok(()),
        }
    }

    fn another(&self, ledger_id: String, place: String) -> ClaimError {
        ClaimError::Other {
            ledger_id,
            place,
            own: self.own.ledger_id.clone(),
        }
    }

    /// Whether no other ledger is named by what the gates read: the key may have been deleted.
    fn is_named(&self, named: &BTreeSet<String>) -> Result<(), ClaimError> {
        let mut others = named.iter().filter(|id| **id != self.own.ledger_id);
        match others.next() {
            Some(other) => Err(self.another(other.clone(), "its place is not known".to_owned())),
            None => Ok(()),
        }
    }

    /// Takes it, and gives the revision of its value. `None` when another process was faster.
    async fn take(&self, bucket: &KeyValues, reached: Reached) -> Result<Option<u64>, ClaimError> {
        let (found, revision) = read(bucket).await?;
        let found = found?;
        match &found {
            Some(found) => self.may_follow(found, reached)?,
            None => self.is_named(&named(bucket).await??)?,
        }
        if !self.is_own(found.as_ref()) {
            self.wait_for_silence(bucket, revision).await?;
        }
        let value = self.own.at(reached);
        Ok(bucket.replace(COLLECTOR, revision, value).await?)
    }

    /// Makes this ledger, which is so far, the collected one, whichever was it before. `note` is given
    /// the ids of the ledgers that are named as such, and the instant of this: it keeps them in the
    /// ledger before NATS is told, and gives how far that is then.
    pub(super) async fn adopt(
        &mut self,
        now: Utc,
        note: impl FnOnce(BTreeSet<String>, Utc) -> Result<Reached, ClaimError>,
    ) -> Result<(), ClaimError> {
        let bucket = self.bucket().await?;
        let (before, revision) = read(&bucket).await?;
        let before = before.ok().flatten();
        // Nothing is noted while another process works: what is refused must not count later.
        if !self.is_own(before.as_ref()) {
            self.wait_for_silence(&bucket, revision).await?;
        }
        let mut named = named(&bucket).await?.unwrap_or_default();
        let adopted_at = before.as_ref().map_or(0, |before| before.adopted_at);
        named.extend(before.map(|before| before.ledger_id));
        // After each adoption before: the clock may have gone back since.
        self.own.adopted_at = now.0.max(adopted_at.saturating_add(1));
        let reached = note(named, Utc(self.own.adopted_at))?;
        let value = self.own.at(reached);
        match bucket.replace(COLLECTOR, revision, value).await? {
            Some(_) => Ok(()),
            None => Err(ClaimError::Held("another one".to_owned())),
        }
    }

    /// Of the file that this process has locked there is no other holder.
    fn is_own(&self, found: Option<&Holder>) -> bool {
        let own = &self.own;
        found.is_some_and(|found| {
            found.process == own.process || found.file.is_some() && found.file == own.file
        })
    }

    async fn wait_for_silence(&self, bucket: &KeyValues, revision: u64) -> Result<(), ClaimError> {
        if revision == 0 {
            return Ok(());
        }
        self.clock.sleep(SILENCE).await;
        let (now, later) = read(bucket).await?;
        match later == revision {
            true => Ok(()),
            false => {
                let now = now.ok().flatten().map(|now| now.place);
                Err(ClaimError::Held(now.unwrap_or_default()))
            }
        }
    }
}

impl Holder {
    /// The value, when the ledger is so far.
    fn at(&self, reached: Reached) -> Vec<u8> {
        let value = Self {
            reached,
            ..self.clone()
        };
        // Texts and numbers can always be written to memory.
        serde_json::to_vec(&value).unwrap_or_default()
    }
}

/// The boot of the kernel, the device and the number of the file: what a lock of it is bound to.
fn file(path: &Path) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let file = std::fs::metadata(path).ok()?;
    Some(format!("{} {}:{}", boot.trim(), file.dev(), file.ino()))
}

/// The holder, when there is one, and the revision of the key.
async fn read(bucket: &KeyValues) -> Result<(Result<Option<Holder>, ClaimError>, u64), NatsError> {
    let (revision, value) = bucket.last(COLLECTOR).await?;
    let holder = value.map(|bytes| serde_json::from_slice(&bytes));
    let holder = holder
        .transpose()
        .map_err(|error| ClaimError::Unreadable(error.to_string()));
    Ok((holder, revision))
}

/// The ledgers that are named to gates as the one in which their records are. An error where one of
/// these values is none: it may have named another.
async fn named(bucket: &KeyValues) -> Result<Result<BTreeSet<String>, ClaimError>, NatsError> {
    let (mut named, mut unread) = (BTreeSet::new(), None);
    for key in bucket.keys().await? {
        if is_ledger_id(&key)
            && let Some(value) = bucket.get(&key).await?
        {
            match CollectedValue::decode(&value.bytes) {
                Ok(value) => drop(named.insert(value.by.ledger_id)),
                Err(error) => unread = Some(format!("key {key}: {error}")),
            }
        }
    }
    Ok(match unread {
        Some(why) if named.is_empty() => Err(ClaimError::Unreadable(why)),
        _ => Ok(named),
    })
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
        let reached = Reached::now(&self.shared).await?;
        let Some(mut revision) = self.claim.take(&bucket, reached).await? else {
            return Ok(());
        };
        self.tell_gates(&bucket).await?;
        self.progress.waits(None);
        self.held.send_replace(true);
        told.clear();
        for beat in 1_u32.. {
            self.claim.clock.sleep(HEARTBEAT).await;
            let own = &self.claim.own;
            let reached = Reached::now(&self.shared).await?;
            let replaced = bucket.replace(COLLECTOR, revision, own.at(reached)).await?;
            revision = match replaced {
                Some(revision) => revision,
                // The last one may have been stored though its answer did not come.
                None => match read(&bucket).await? {
                    (Ok(Some(found)), revision) if found.process == own.process => revision,
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
        let mut found: HashMap<String, (u64, Option<Bytes>)> = HashMap::new();
        let cursors = bucket.keys().await?;
        let watermarks = self
            .claim
            .nats
            .bucket(WATERMARKS, self.claim.replicas)
            .await?;
        let keys = cursors.into_iter().chain(watermarks.keys().await?);
        for key in keys.filter(|key| is_ledger_id(key)) {
            let last = bucket.last(&key).await?;
            found.insert(key, last);
        }
        // Read after them, so that nothing newer is written over.
        let shared = self.shared.clone();
        let ids: Vec<String> = found.keys().cloned().collect();
        let known = tokio::task::spawn_blocking(move || {
            heard_of(&shared.ledger, ids)?;
            cursors_of(&shared.ledger)
        });
        let known = known
            .await
            .map_err(|error| ClaimError::Unreadable(error.to_string()))?;
        let collected = known.map_err(|error| ClaimError::Ledger(error.to_string()))?;
        for (id, seq) in collected {
            let value = CollectedValue {
                seq,
                by: self.by.clone(),
            };
            let (revision, bytes) = match found.remove(&id) {
                Some(last) => last,
                None => bucket.last(&id).await?,
            };
            if bytes.as_deref() != Some(&*value.encode()) {
                // Where another value came meanwhile, that is a newer one.
                bucket.replace(&id, revision, value.encode()).await?;
            }
        }
        Ok(())
    }
}
