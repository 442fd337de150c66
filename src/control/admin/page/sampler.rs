//! The figures of the page, sampled each second.
//!
//! Owns when. Must never wait for a disk: what the file system says is asked on another thread, and the
//! last answer is shown until the next.

use crate::control::admin::app::Admin;
use crate::control::admin::page::history::Sample;
use crate::control::admin::page::hours;
use crate::control::admin::page::now::figures;
use crate::ledger::LedgerStats;
use crate::model::{Mono, run_low_priority};
use crate::proxy::counts;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_secs(1);

/// Samples until the listener is gone.
pub(in crate::control::admin) async fn sample_for_ever(admin: Weak<Admin>) {
    let (mut disk, mut steps) = (Disk::default(), Steps::default());
    loop {
        let Some(of) = admin.upgrade() else {
            return;
        };
        disk.look(&of).await;
        let stats = *of.page.disk.lock();
        if let Some(stats) = stats {
            sample(&of, &stats);
        }
        steps.end_if_due(&of);
        let clock = of.shared.clock.clone();
        // Not held over the second: its end is that of the page.
        drop(of);
        clock.sleep(EVERY).await;
    }
}

fn sample(admin: &Admin, stats: &LedgerStats) {
    let (mono, utc) = admin.shared.clock.both();
    admin.page.history.lock().take(Sample {
        mono,
        utc,
        glance: admin.shared.metrics.glance(),
        ledger_bytes: stats.bytes,
    });
    admin.page.tally.forget(mono);
    if admin.page.told.receiver_count() > 0 {
        let told = figures(admin, stats).to_string();
        admin.page.told.send_replace(Arc::from(told));
    }
}

/// The question that the file system has not answered yet.
#[derive(Default)]
struct Disk(Option<JoinHandle<LedgerStats>>);

impl Disk {
    /// Takes the answer in, if it is there, and asks again.
    async fn look(&mut self, admin: &Arc<Admin>) {
        if let Some(answered) = self.0.take_if(|asked| asked.is_finished())
            && let Ok(stats) = answered.await
        {
            *admin.page.disk.lock() = Some(stats);
        }
        if self.0.is_none() {
            let shared = admin.shared.clone();
            self.0 = Some(tokio::task::spawn_blocking(move || shared.ledger.stats()));
        }
    }
}

/// The steps of the accounts' hours.
#[derive(Default)]
struct Steps {
    ended: Option<Mono>,
    ending: Option<JoinHandle<()>>,
}

impl Steps {
    fn end_if_due(&mut self, admin: &Arc<Admin>) {
        let now = admin.shared.clock.mono();
        let is_due = self.ended.is_none_or(|at| now.since(at) >= hours::STEP);
        if !is_due || self.ending.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        self.ended = Some(now);
        let of = admin.clone();
        // At a hundred thousand accounts it takes some milliseconds.
        self.ending = Some(tokio::task::spawn_blocking(move || {
            run_low_priority(|| {
                of.page.hours.lock().end_step(|each| {
                    let limiters = &of.shared.limiters;
                    limiters.each(|key, limiter| each(&key.account, counts(limiter)));
                });
            });
        }));
    }
}
