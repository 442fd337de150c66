//! What this process knows of trials and revocations (R19), and where it asks for more.
//!
//! Owns the order of what is known and what is durable: an application is answered only when it is
//! in the ledger, or in the bucket that all gates share. Must never count a trial by itself where
//! other gates give out trials too, nor forget what became durable because its client went away.

use crate::config::LicenceTerms;
use crate::ledger::{
    LedgerError, LicenceDay, LicenceEntry, LicenceTrial, ReadError, StoreError, TrialPlace,
};
use crate::licence::{LicenceFacts, LicenceKeys, SharedTrials, Unlicensed};
use crate::model::{AccountId, LicenceKind, Package, Utc};
use crate::portal::licence_counts::LicenceCounts;
use crate::proxy::policy::{KnownAccount, Policy};
use crate::proxy::{LicenceRefusal, Refusal, Shared};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// So many applications and revocations wait for a disk or a server at once. Others wait for them.
const CHANGES_AT_ONCE: usize = 8;

/// Where the places of trials are taken.
pub(crate) enum TrialPlaces {
    /// In the ledger of this process, which alone gives them out.
    Ledger,
    /// In a bucket that all gates share.
    Shared(Box<SharedTrials>),
    /// Nowhere: there are other gates, and nothing that they share.
    Nowhere,
}

/// Why nothing of the ledger could be read at the start.
#[derive(thiserror::Error, Debug)]
pub enum UnreadLicences {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] LedgerError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The thread that reads it ended.
    #[error(transparent)]
    System(#[from] tokio::task::JoinError),
}

/// Trials and revocations.
pub(crate) struct LicenceDesk {
    pub(super) shared: Arc<Shared>,
    pub(super) places: TrialPlaces,
    pub(super) known: Mutex<KnownLicences>,
    /// The keys of the generation with this number.
    keys: Mutex<Option<(u64, Arc<LicenceKeys>)>>,
    pub(super) counts: LicenceCounts,
    changes: Arc<Semaphore>,
    /// How long somebody waits for a change.
    patience: Duration,
    /// Why places cannot be asked for, and revocations not be heard.
    unknown: Trouble,
    pub(super) unheard: Trouble,
}

/// What is wrong, told once.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Whether this has not been told: another trouble, or its end.
    pub(super) fn is_news(&self, trouble: Option<&str>) -> bool {
        let mut told = self.0.lock();
        let is_news = told.as_deref() != trouble;
        *told = trouble.map(str::to_owned);
        is_news
    }
}

#[derive(Default)]
pub(super) struct KnownLicences {
    /// By account, in order of place.
    trials: HashMap<AccountId, Vec<LicenceTrial>>,
    revoked: HashMap<(AccountId, Package), (Utc, String)>,
}

/// What the facts about an app need beyond the files.
#[derive(Clone, Debug)]
pub(crate) struct KnownApp {
    /// The account's trials, by place.
    pub trials: Vec<LicenceTrial>,
    /// When the app's licences were revoked, and why.
    pub revoked: Option<(Utc, String)>,
    /// The account is in arrears by its balance.
    pub in_arrears: bool,
}

impl KnownApp {
    /// With the files: what the rules ask.
    pub(crate) fn facts<'f>(
        &self,
        account: &'f KnownAccount,
        package: &Package,
        terms: &LicenceTerms,
        zone: &'f TimeZone,
    ) -> LicenceFacts<'f> {
        let trial = self.trials.iter().find(|trial| trial.package == *package);
        LicenceFacts {
            account,
            in_arrears: self.in_arrears,
            trial: trial.map(|trial| trial.applied_at),
            has_trials: !self.trials.is_empty(),
            revoked: self.revoked.as_ref().map(|(at, _)| *at),
            trial_days: terms.trial_days,
            zone,
        }
    }
}

impl LicenceDesk {
    /// With what the ledger has. Blocks. `patience`: how long somebody waits for a change.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) fn open(
        shared: Arc<Shared>,
        places: TrialPlaces,
        patience: Duration,
    ) -> Result<Self, UnreadLicences> {
        let reader = shared.ledger.reader()?;
        let mut known = KnownLicences::default();
        for trial in reader.licence_trials()? {
            known.add(trial);
        }
        for (account, package, at, why) in reader.licence_revocations()? {
            known.revoked.insert((account, package), (at, why));
        }
        Ok(Self {
            shared,
            places,
            known: Mutex::new(known),
            keys: Mutex::new(None),
            counts: LicenceCounts::default(),
            changes: Arc::new(Semaphore::new(CHANGES_AT_ONCE)),
            patience,
            unknown: Trouble::default(),
            unheard: Trouble::default(),
        })
    }

    /// The keys of this generation.
    pub(super) fn keys(
        &self,
        policy: &Policy,
        terms: &LicenceTerms,
    ) -> Result<Arc<LicenceKeys>, Refusal> {
        let mut kept = self.keys.lock();
        if let Some((generation, keys)) = &*kept
            && *generation == policy.generation
        {
            return Ok(keys.clone());
        }
        let made = LicenceKeys::new(terms).map_err(|why| {
            tracing::error!("the keys of licences cannot be used: {why}");
            Refusal::Licence(LicenceRefusal::NotSold)
        })?;
        let keys = Arc::new(made);
        *kept = Some((policy.generation, keys.clone()));
        Ok(keys)
    }

    /// What is known here of an app.
    pub(crate) fn known(&self, account: &AccountId, package: &Package) -> KnownApp {
        let known = self.known.lock();
        KnownApp {
            trials: known.trials.get(account).cloned().unwrap_or_default(),
            revoked: known
                .revoked
                .get(&(account.clone(), package.clone()))
                .cloned(),
            in_arrears: self.shared.limiters.is_in_arrears(account),
        }
    }

    /// The account's trials that are known here, and all that was revoked of it.
    pub(crate) fn of_account(
        &self,
        account: &AccountId,
    ) -> (Vec<LicenceTrial>, Vec<(Package, Utc, String)>) {
        let known = self.known.lock();
        let revoked = known.revoked.iter();
        let revoked = revoked.filter(|((of, _), _)| of == account);
        let mut revoked: Vec<_> = revoked
            .map(|((_, package), (at, why))| (package.clone(), *at, why.clone()))
            .collect();
        revoked.sort();
        let trials = known.trials.get(account).cloned().unwrap_or_default();
        (trials, revoked)
    }

    /// Asks the bucket for trials of the account that other gates gave out since. Where this gate
    /// is alone there are none.
    pub(crate) async fn look(&self, account: &AccountId, apps: u32) -> Result<(), Refusal> {
        let TrialPlaces::Shared(shared) = &self.places else {
            return Ok(());
        };
        let known = self.of_account(account).0;
        if known.len() >= apps as usize {
            return Ok(());
        }
        let found = shared.held_beside(account, &known, apps).await;
        self.remember(found.map_err(|error| self.away(&error))?)
            .await;
        self.unknown.is_news(None);
        Ok(())
    }

    /// Gives the app its place among the account's trials, or takes one. It is durable when this
    /// returns.
    ///
    /// # Errors
    /// There is none left, or it is not known now.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        account: &AccountId,
        package: &Package,
        apps: u32,
    ) -> Result<LicenceTrial, Refusal> {
        let (desk, account, package) = (self.clone(), account.clone(), package.clone());
        let applied = async move { desk.applied(&account, &package, apps).await };
        self.to_its_end(applied).await
    }

    async fn applied(
        self: &Arc<Self>,
        account: &AccountId,
        package: &Package,
        apps: u32,
    ) -> Result<LicenceTrial, Refusal> {
        let now = self.shared.clock.utc();
        let place = match &self.places {
            TrialPlaces::Nowhere => return Err(LicenceRefusal::NoTrialsHere.into()),
            TrialPlaces::Ledger => {
                let (desk, account, package) = (self.clone(), account.clone(), package.clone());
                let asked = tokio::task::spawn_blocking(move || {
                    let ledger = &desk.shared.ledger;
                    let place = ledger.apply_for_trial(&account, &package, apps, now)?;
                    // Here, because whoever waits may go away: what is durable is in force.
                    if let TrialPlace::Taken(trial) = &place {
                        desk.known.lock().add(trial.clone());
                    }
                    Ok::<_, StoreError>(place)
                });
                let asked = asked.await.map_err(|error| self.away(&error))?;
                asked.map_err(|error| self.away(&error))?
            }
            TrialPlaces::Shared(shared) => {
                let known = self.of_account(account).0;
                let applied = shared.apply((account, package), &known, apps, now).await;
                let (place, seen) = applied.map_err(|error| self.away(&error))?;
                self.remember(seen).await;
                place
            }
        };
        self.unknown.is_news(None);
        match place {
            TrialPlace::Taken(trial) => {
                self.shared.metrics.licence_trials.inc();
                Ok(trial)
            }
            TrialPlace::Full => Err(LicenceRefusal::TrialLimit.into()),
        }
    }

    /// Does a change that goes on to its end also when nobody waits for it any more: its client went
    /// away, or the disk or the server took longer than a client waits.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let waited = async {
            let place = self.changes.clone().acquire_owned().await;
            let place = place.map_err(|error| self.away(&error))?;
            let changed = tokio::spawn(async move {
                let changed = change.await;
                drop(place);
                changed
            });
            changed.await.map_err(|error| self.away(&error))?
        };
        let waited = tokio::time::timeout(self.patience, waited).await;
        waited.unwrap_or_else(|_| Err(self.away(&"the disk or the server does not answer")))
    }

    /// Why it is not known who has which trial: the operator is told once, each client.
    pub(super) fn away(&self, why: &dyn Display) -> Refusal {
        let why = why.to_string();
        if self.unknown.is_news(Some(&why)) {
            tracing::warn!("it cannot be said who has which trial: {why}");
        }
        LicenceRefusal::Away.into()
    }

    /// Keeps what the bucket says, so that it is known also while NATS is away. The bucket has it:
    /// an error of the ledger loses nothing.
    async fn remember(&self, trials: Vec<LicenceTrial>) {
        let mut new = Vec::new();
        {
            let mut known = self.known.lock();
            for trial in trials {
                if known.add(trial.clone()) {
                    new.push(LicenceEntry::Trial(trial));
                }
            }
        }
        self.keep(new).await;
    }

    pub(super) async fn keep(&self, entries: Vec<LicenceEntry>) {
        if entries.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let kept = tokio::task::spawn_blocking(move || shared.ledger.keep_licences(entries));
        if let Ok(Err(error)) = kept.await {
            tracing::warn!(%error, "what is known of licences was not kept in the ledger");
        }
    }

    /// Hears what other gates revoked, and tells the ledger of the grants since. To be called each
    /// few seconds.
    pub(crate) async fn settle(&self) {
        self.hear_revoked().await;
        let shared = self.shared.clone();
        let days = self.counts.take();
        let again = days.clone();
        if days.is_empty() {
            return;
        }
        let entries = days.into_iter().map(LicenceEntry::Grants).collect();
        let kept = tokio::task::spawn_blocking(move || shared.ledger.keep_licences(entries)).await;
        if !matches!(kept, Ok(Ok(()))) {
            self.counts.put_back(again);
        }
    }

    /// The grants of the account that the ledger has not been told of yet.
    pub(super) fn untold(&self, account: &AccountId) -> Vec<LicenceDay> {
        self.counts.of(account)
    }

    /// Counts a grant that was given out.
    pub(super) fn granted(&self, account: &AccountId, package: &Package, kind: LicenceKind) {
        let zone = self.shared.policy.load().catalog.time_zone.clone();
        let now = self.shared.clock.utc();
        self.counts.add(account, package, kind, now, &zone);
        self.shared.metrics.licence_grants(kind).inc();
    }
}

impl KnownLicences {
    /// Whether it is new.
    fn add(&mut self, trial: LicenceTrial) -> bool {
        let trials = self.trials.entry(trial.account.clone()).or_default();
        match trials.binary_search_by_key(&trial.place, |of| of.place) {
            Ok(_) => false,
            Err(at) => {
                trials.insert(at, trial);
                true
            }
        }
    }

    /// Whether it is new.
    pub(super) fn revoke(
        &mut self,
        account: &AccountId,
        package: &Package,
        at: Utc,
        why: &str,
    ) -> bool {
        let key = (account.clone(), package.clone());
        let before = self.revoked.get(&key);
        if before.is_some_and(|(before, _)| *before >= at) {
            return false;
        }
        self.revoked.insert(key, (at, why.to_owned()));
        true
    }
}

/// Why the rules refuse, as a client is told.
pub(super) fn refusal(unlicensed: Unlicensed) -> Refusal {
    match unlicensed {
        Unlicensed::Stopped(stop) => Refusal::Stopped(stop),
        Unlicensed::Revoked => LicenceRefusal::Revoked.into(),
        Unlicensed::Expired => LicenceRefusal::Expired.into(),
        Unlicensed::NotBegun => LicenceRefusal::NotBegun.into(),
        Unlicensed::OtherPackage => LicenceRefusal::OtherPackage.into(),
        Unlicensed::None => LicenceRefusal::None.into(),
    }
}
