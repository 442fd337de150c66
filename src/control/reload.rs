//! Reload: files -> load -> build -> swap -> report, by a signal, a request or a changed file.
//!
//! Owns the order of these steps and the configuration in force. Must never put half a
//! configuration in force, and never touch a window.
//!
//! # Decided
//! - **An account is held once, in the policy.** A reload compares the new files with what is in
//!   force. No second copy of the old ones is kept for it.

use crate::billing::books::Books;
use crate::billing::{SettleError, conflicts};
use crate::config::{self, Config, Mistake, Mistakes, Sources, Written};
use crate::control::Settler;
use crate::control::certificates::ListenerTls;
use crate::control::reload_notes::{ReloadNote, ReloadNotes};
use crate::model::{AccountId, Clock, Utc, run_low_priority};
use crate::proxy::Shared;
use crate::proxy::policy::Policy;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinError;

/// How often the files are looked at. A file is read when two looks in a row are the same. So a
/// change is in force two looks after the last byte was written, and the time to read it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A warning says that files take longer than this to read.
const SLOW: Duration = Duration::from_secs(10);
/// A reload that removes more than this part of the accounts, and more than a few, is likelier a
/// broken export than an intention.
const MOST_REMOVED_PERCENT: usize = 10;
const FEW_ACCOUNTS: usize = 5;
/// Changes that are logged one by one.
const LOGGED_CHANGES: usize = 50;

/// The outcome of a reload.
#[derive(Debug)]
pub enum Outcome {
    /// The files are in force.
    Reloaded {
        /// The new generation.
        generation: u64,
        /// The changes, a sentence each.
        changes: Vec<String>,
        /// Settings that take effect at the next start: `file:line:column: key: before → after ..`.
        pending: Vec<String>,
        /// Orders of changed accounts that do not count, or contradict what was fixed.
        warnings: Vec<String>,
    },
    /// A dry run: what would be different.
    Planned {
        /// A sentence each.
        changes: Vec<String>,
        /// As [`Self::Reloaded`] has them.
        pending: Vec<String>,
        /// As [`Self::Reloaded`] has them.
        warnings: Vec<String>,
    },
    /// The files say what is in force already.
    Unchanged,
    /// Nothing was changed; every mistake with its place.
    Refused(Mistakes),
}

/// How a reload is meant.
#[derive(Clone, Copy, Default, Debug)]
pub struct ReloadOptions {
    /// Even if it removes more than 10 % of the accounts.
    pub force: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// The one way to another generation.
pub(crate) struct Reloader {
    shared: Arc<Shared>,
    /// Told of the accounts whose entries are others.
    settler: Arc<Settler>,
    /// Told of certificates.
    tls: ListenerTls,
    in_force: Mutex<FilesInForce>,
    /// What came of the last ones.
    pub(crate) notes: ReloadNotes,
    /// Told of each generation that is put in force.
    reloaded: watch::Sender<()>,
}

/// Catalogue and accounts stand in the policy in force: nothing of them is kept twice.
struct FilesInForce {
    written: Written,
    /// The files as the last load read them, whatever came of it.
    sources: Sources,
}

impl Reloader {
    /// The text of the files that are in force in `shared`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        settler: Arc<Settler>,
        tls: ListenerTls,
        written: Written,
    ) -> Self {
        let sources = written.sources.clone();
        Self {
            shared,
            settler,
            tls,
            in_force: Mutex::new(FilesInForce { written, sources }),
            notes: ReloadNotes::default(),
            reloaded: watch::Sender::new(()),
        }
    }

    /// Tells of each generation that is put in force from now on.
    pub(in crate::control) fn reloaded(&self) -> watch::Receiver<()> {
        self.reloaded.subscribe()
    }

    /// Reads the files and puts catalogue and accounts in force, whole or not at all. Settings that
    /// differ wait for a restart, and are told. Calls go on meanwhile, and go first. One at a time:
    /// a second one waits for the first. Goes on when nobody waits for it any more.
    ///
    /// # Errors
    /// When it panicked, which it never should; what was in force stays.
    pub(crate) async fn reload(self: Arc<Self>, wish: ReloadOptions) -> Result<Outcome, JoinError> {
        let clock = self.shared.clock.clone();
        let reload = move || run_low_priority(|| self.reload_now(wish));
        read_files(&clock, reload).await
    }

    fn reload_now(&self, wish: ReloadOptions) -> Outcome {
        let mut in_force = self.in_force.lock();
        let (loaded, sources) = config::load_watched(in_force.written.path());
        if !wish.dry_run {
            in_force.sources = sources;
            let warnings = loaded.as_ref().map_or(&[][..], |config| &config.warnings);
            for warning in config::told(warnings) {
                tracing::warn!("{warning}");
            }
        }
        let outcome = self.decide(&mut in_force, loaded, wish);
        drop(in_force);
        if !wish.dry_run {
            self.report(&outcome);
        }
        outcome
    }

    fn decide(
        &self,
        in_force: &mut FilesInForce,
        loaded: Result<Config, Mistakes>,
        wish: ReloadOptions,
    ) -> Outcome {
        let new = match loaded {
            Ok(new) => new,
            Err(mistakes) => return Outcome::Refused(mistakes),
        };
        let written = &in_force.written;
        if new.written.digest == written.digest {
            return Outcome::Unchanged;
        }
        let shared = &self.shared;
        let old = shared.policy.load_full();
        let pending = waits_for_restart(written, &new.written);
        let mut mistakes = Vec::new();
        let zone = |catalog: &config::Catalog| catalog.time_zone.iana_name().map(str::to_owned);
        if zone(&old.catalog) != zone(&new.catalog) {
            // A month would begin before the one that was settled has ended, or after.
            let message =
                "catalog: months are settled by its time_zone, which stays as it is: set it back";
            mistakes.push(new.written.mistake_at("catalog", message.to_owned()));
        }
        if !wish.force {
            mistakes.extend(removes_too_many(&old, &new));
        }
        if !mistakes.is_empty() {
            return Outcome::Refused(Mistakes(mistakes));
        }
        let sold = old.accounts().map(|account| &***account);
        let mut changes = written.changed_upstreams(&new.written);
        changes.extend(config::changes(
            &old.catalog,
            sold,
            &new,
            shared.clock.utc(),
        ));
        let entered = entered(&old, &new);
        let warnings = self.conflicts(&entered, &new);
        if wish.dry_run {
            return Outcome::Planned {
                changes,
                pending,
                warnings,
            };
        }
        changes.extend(self.tls.show(&new.settings, &shared.metrics));
        let entered: Vec<AccountId> = entered.iter().map(|of| of.id.clone()).collect();
        let generation = old.generation + 1;
        let sold = (new.catalog, new.accounts);
        self.put_in_force(&old, generation, sold, (&new.settings, &new.written));
        self.settler.look_at(entered);
        // Calls keep what they use, so the retired generation is dropped here, off the workers.
        drop(old);
        in_force.written.follow(new.written);
        Outcome::Reloaded {
            generation,
            changes,
            pending,
            warnings,
        }
    }

    /// Catalogue, accounts and upstreams take the place of the old ones, as one.
    fn put_in_force(
        &self,
        old: &Policy,
        generation: u64,
        (catalog, accounts): (config::Catalog, Vec<config::Account>),
        (settings, written): (&config::Settings, &Written),
    ) {
        let (catalog, upstreams) = (Arc::new(catalog), old.upstreams.follow(settings));
        let (shared, metrics) = (&self.shared, &self.shared.metrics);
        let mut policy = Policy::build(generation, catalog, accounts, upstreams, metrics);
        policy.digest.clone_from(&written.sold_digest);
        metrics.set_config_digest(&policy.digest);
        policy.apply(&shared.limiters);
        policy.inherit(old);
        let policy = Arc::new(policy);
        shared.policy.store(policy.clone());
        policy.upstreams.retire(&old.upstreams);
        self.reloaded.send_replace(());
    }

    /// What is odd about the entries of these accounts (R16, R18).
    fn conflicts(&self, entered: &[&config::Account], new: &Config) -> Vec<String> {
        if entered.is_empty() {
            return Vec::new();
        }
        let asked = || {
            let reader = &self.shared.ledger.reader().map_err(SettleError::from)?;
            let books = Books {
                catalog: &new.catalog,
                reader,
                now: self.shared.clock.utc(),
            };
            conflicts(&books, entered.iter().copied()).map_err(SettleError::from)
        };
        asked().unwrap_or_else(|error| {
            vec![format!("orders are not compared with the ledger: {error}")]
        })
    }

    fn report(&self, outcome: &Outcome) {
        let metrics = &self.shared.metrics;
        self.notes.take(note(outcome, self.shared.clock.utc()));
        match outcome {
            Outcome::Reloaded {
                generation,
                changes,
                pending,
                warnings,
            } => {
                for change in changes.iter().take(LOGGED_CHANGES) {
                    tracing::info!("{change}");
                }
                tracing::info!(generation, changes = changes.len(), "reloaded");
                for warning in pending.iter().chain(warnings) {
                    tracing::warn!("{warning}");
                }
                metrics
                    .config_restart_pending
                    .set(i64::from(!pending.is_empty()));
            }
            Outcome::Unchanged | Outcome::Planned { .. } => {
                tracing::info!("reload: nothing is different")
            }
            Outcome::Refused(mistakes) => {
                for mistake in config::told(&mistakes.0) {
                    tracing::error!("{mistake}");
                }
                tracing::error!(
                    mistakes = mistakes.0.len(),
                    "reload refused; what was in force stays in force"
                );
                metrics.config_reload_failures.inc();
            }
        }
        metrics
            .config_last_reload_success
            .set(i64::from(!matches!(outcome, Outcome::Refused(_))));
    }

    /// Reloads when the files have changed and are quiet again. Runs until it is dropped. It looks
    /// at files and asks no notification service: those miss the swapped links of a Kubernetes
    /// volume.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut before: Option<Sources> = None;
        loop {
            self.shared.clock.sleep(LOOK_EVERY).await;
            let reloader = self.clone();
            let look = move || {
                let known = reloader.in_force.lock().sources.clone();
                let look = known.again();
                (look != known).then_some(look)
            };
            let seen = before.take();
            let done = match read_files(&self.shared.clock, look).await {
                Ok(Some(look)) if seen.as_ref() == Some(&look) => self
                    .clone()
                    .reload(ReloadOptions::default())
                    .await
                    .map(drop),
                Ok(look) => {
                    before = look;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::error!(%error, "a reload failed in a way it never should; what was in force stays")
            }
        }
    }
}

/// What is kept of a reload.
fn note(outcome: &Outcome, at: Utc) -> ReloadNote {
    match outcome {
        Outcome::Reloaded {
            generation,
            changes,
            pending,
            warnings,
        } => {
            let lines = warnings.iter().chain(pending).chain(changes);
            ReloadNote::new(at, "reloaded", Some(*generation), lines.cloned())
        }
        Outcome::Unchanged | Outcome::Planned { .. } => {
            ReloadNote::new(at, "unchanged", None, std::iter::empty())
        }
        Outcome::Refused(mistakes) => {
            ReloadNote::new(at, "refused", None, config::told(&mistakes.0))
        }
    }
}

/// Runs `read`, which reads files, on a thread of its own. A file system may not answer, for ever
/// (NFS, a hung disk): after 10 s a warning says so, and the process goes on to hear signals.
///
/// # Errors
/// When `read` panicked.
pub(crate) async fn read_files<T: Send + 'static>(
    clock: &Clock,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let mut done = tokio::task::spawn_blocking(read);
    tokio::select! {
        done = &mut done => return done,
        () = clock.sleep(SLOW) => {}
    }
    tracing::warn!(
        "the files of the configuration take longer than {SLOW:?} to read: when their file system does not answer, no \
         change of them takes effect until it does"
    );
    done.await
}

/// The accounts that have other orders, payments or manual adjustments now.
fn entered<'n>(old: &Policy, new: &'n Config) -> Vec<&'n config::Account> {
    let has_changed = |account: &&config::Account| {
        let before = old.account(&account.id);
        before.is_none_or(|before| !before.has_same_entries(account))
    };
    new.accounts.iter().filter(has_changed).collect()
}

/// Settings that are read at the start only, and are not what this process was started with. They
/// hold nothing back: a customer's order must not wait for a restart that somebody planned for the
/// night.
fn waits_for_restart(started_with: &Written, new: &Written) -> Vec<String> {
    let changed = started_with.changed_settings(new);
    changed
        .into_iter()
        .map(|(key, before, after)| {
            let message = format!("{key}: {before} → {after} takes effect at the next restart");
            new.mistake_at(key, message).to_string()
        })
        .collect()
}

fn removes_too_many(old: &Policy, new: &Config) -> Option<Mistake> {
    let stay: HashSet<&str> = new
        .accounts
        .iter()
        .map(|account| account.id.as_str())
        .collect();
    let gone: Vec<&str> = old
        .accounts()
        .map(|account| account.id.as_str())
        .filter(|id| !stay.contains(id))
        .collect();
    if gone.len() <= FEW_ACCOUNTS || gone.len() * 100 <= old.accounts().len() * MOST_REMOVED_PERCENT
    {
        return None;
    }
    let named = gone.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let message = format!(
        "accounts: {} of {} accounts are gone ({named}, ..); if that is meant, POST /v1/reload?force=true",
        gone.len(),
        old.accounts().len()
    );
    Some(new.written.mistake_at("accounts", message))
}
