//! Tells the gates the standing of the accounts, at each change and every few seconds.
//!
//! Must never tell a standing that the settler has not decided.

use crate::control::Settler;
use crate::control::collector::WrongLedger;
use crate::control::standing::{
    AccountStanding, Assembly, HEAD, STANDING, StandingMessage, Standings, carried_into, messages,
};
use crate::ledger::CollectedBy;
use crate::model::{Clock, Utc};
use crate::nats::{KeyValues, Nats, NatsError};
use crate::proxy::{CollectedBooks, CollectedStanding, Shared};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The head is told so often though nothing has changed: a gate knows by it that it hears the
/// collector.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Publisher {
    pub settler: Arc<Settler>,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub nats: Nats,
    pub replicas: usize,
    /// This ledger, as the gates are told of it.
    pub by: CollectedBy,
    /// Whether this process is the one that collects.
    pub held: watch::Receiver<bool>,
}

/// The parts are compared with those that are there after so many times.
const COMPARED_EVERY: u32 = 4;

/// What was told last.
struct Said {
    generation: u64,
    /// The revision of the head.
    revision: u64,
    /// The values beside the head, by key.
    values: HashMap<String, SaidPart>,
    /// What was in force before this ledger began, as long as it knows less.
    carried: Option<CollectedStanding>,
    /// How often it was told since the parts were compared with those that are there.
    times: u32,
}

/// A value beside the head.
struct SaidPart {
    /// The hash of its accounts.
    hash: u64,
    generation: u64,
    revision: u64,
}

impl Publisher {
    /// Tells it for ever. Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let mut standings = self.settler.standings();
        let (mut said, mut told) = (None, false);
        loop {
            if !*self.held.borrow() {
                said = None;
                if self.held.wait_for(|held| *held).await.is_err() {
                    return;
                }
            }
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

    async fn tell(&self, said: &mut Option<Said>, standings: &Standings) -> Result<(), NatsError> {
        let bucket = self.nats.bucket(STANDING, self.replicas).await?;
        let mut before = match said.take() {
            Some(before) => before,
            None => {
                let (generation, revision) = last_told(&bucket).await?;
                Said {
                    generation,
                    revision,
                    values: HashMap::new(),
                    carried: told_before(&bucket).await?,
                    times: 0,
                }
            }
        };
        if !*self.held.borrow() {
            return Ok(());
        }
        let (replaces, adopted_at) = self.adopted().await?;
        let books = CollectedBooks {
            collected_in: self.by.ledger_id.clone(),
            replaces,
            adopted_at: adopted_at.0,
            held: BTreeSet::new(),
            debited: standings.debited.clone(),
        };
        let now = self.clock.utc();
        let mut accounts = Cow::Borrowed(&*standings.accounts);
        let books = carry(&mut before, &mut accounts, books);
        *said = Some(tell_changed(&bucket, before, (&accounts, &books), now).await?);
        Ok(())
    }

    /// The ledgers in whose place this one was put, and when that was last.
    async fn adopted(&self) -> Result<(Vec<String>, Utc), NatsError> {
        let shared = self.shared.clone();
        let read = move || Ok::<_, WrongLedger>(shared.ledger.reader()?.adopted()?);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(adopted)) => Ok(adopted),
            Ok(Err(error)) => Err(NatsError::Away(error.to_string())),
            Err(error) => Err(NatsError::Away(error.to_string())),
        }
    }
}

/// The generation that was told last, perhaps by an earlier process, and the revision of its head.
async fn last_told(bucket: &KeyValues) -> Result<(u64, u64), NatsError> {
    let (revision, last) = bucket.last(HEAD).await?;
    let message = last.and_then(|bytes| StandingMessage::decode(&bytes).ok());
    Ok((message.map_or(0, |message| message.generation), revision))
}

async fn tell_changed(
    bucket: &KeyValues,
    mut before: Said,
    (standings, books): (&[AccountStanding], &CollectedBooks),
    now: Utc,
) -> Result<Said, NatsError> {
    // Someone else may have written a last number there. Gates take a lower one for a new beginning.
    let generation = before.generation.checked_add(1).unwrap_or(1);
    if before.times >= COMPARED_EVERY {
        before.times = 0;
        forget_lost(bucket, &mut before.values).await?;
    }
    let mut said = Said {
        generation,
        revision: before.revision,
        values: HashMap::new(),
        carried: before.carried,
        times: before.times + 1,
    };
    let mut others = Vec::new();
    for (key, accounts) in messages(standings) {
        if key == HEAD {
            let head = StandingMessage::new(generation, now, std::mem::take(&mut others), accounts);
            let head = head.of(books.clone());
            said.revision = put_behind(bucket, &key, said.revision, &head).await?;
            continue;
        }
        let mut hasher = DefaultHasher::new();
        accounts.hash(&mut hasher);
        let hash = hasher.finish();
        let part = match before.values.remove(&key) {
            Some(known) if known.hash == hash => known,
            known => {
                let value = StandingMessage::new(generation, now, Vec::new(), accounts);
                let revision = match known {
                    Some(known) => known.revision,
                    None => bucket.last(&key).await?.0,
                };
                SaidPart {
                    hash,
                    generation,
                    revision: put_behind(bucket, &key, revision, &value).await?,
                }
            }
        };
        others.push(part.generation);
        said.values.insert(key, part);
    }
    Ok(said)
}

/// Forgets the parts that are not there any more as they were written: they are written again.
async fn forget_lost(
    bucket: &KeyValues,
    values: &mut HashMap<String, SaidPart>,
) -> Result<(), NatsError> {
    let mut lost = Vec::new();
    for (key, part) in &*values {
        if bucket.last(key).await?.0 != part.revision {
            lost.push(key.clone());
        }
    }
    for key in lost {
        values.remove(&key);
    }
    Ok(())
}

/// The standing that was told last, perhaps by another ledger. `None` where a part of it is missing.
async fn told_before(bucket: &KeyValues) -> Result<Option<CollectedStanding>, NatsError> {
    let mut assembly = Assembly::default();
    let Some(head) = bucket.last(HEAD).await?.1 else {
        return Ok(None);
    };
    for key in assembly.take_head(&head).unwrap_or_default() {
        if let Some(part) = bucket.last(&key).await?.1 {
            // One that cannot be read is missing.
            let _ = assembly.take_part(key, &part);
        }
    }
    Ok(assembly.whole())
}

/// Adds to what this ledger knows whom the one before it has stopped, as long as it knows less.
fn carry(
    said: &mut Said,
    accounts: &mut Cow<'_, [AccountStanding]>,
    books: CollectedBooks,
) -> CollectedBooks {
    let Some(carried) = said.carried.take() else {
        return books;
    };
    let knows_less = carried.books.debited > books.debited;
    if !knows_less
        && carried.books.held.is_empty()
        && carried.books.collected_in == books.collected_in
    {
        return books;
    }
    let own = CollectedStanding {
        books,
        stopped: accounts
            .iter()
            .filter(|of| of.in_arrears)
            .map(|of| of.account.clone())
            .collect(),
        balances: accounts
            .iter()
            .map(|of| (of.account.clone(), of.balance.clone()))
            .collect(),
        ..CollectedStanding::default()
    };
    let mut merged = carried_into(&carried, own);
    for of in accounts.to_mut() {
        of.in_arrears |= merged.stopped.contains(&of.account);
    }
    for account in merged.stopped.iter() {
        if !merged.balances.contains_key(account) {
            let balance = carried.balances.get(account).cloned();
            accounts.to_mut().push(AccountStanding {
                account: account.clone(),
                balance: balance.unwrap_or_else(|| "0".into()),
                in_arrears: true,
            });
        }
    }
    let books = merged.books.clone();
    // For the text of the balance the next time.
    for (account, balance) in carried.balances {
        merged.balances.entry(account).or_insert(balance);
    }
    said.carried = Some(merged);
    books
}

/// Only behind the value that is known: a process that has lost the claim and does not know it yet
/// must not say who goes on.
async fn put_behind(
    bucket: &KeyValues,
    key: &str,
    revision: u64,
    value: &StandingMessage,
) -> Result<u64, NatsError> {
    let written = bucket.replace(key, revision, value.encode()).await?;
    written.ok_or_else(|| NatsError::Away("another process tells the standing as well".to_owned()))
}
