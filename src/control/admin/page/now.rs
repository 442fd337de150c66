//! What the page is told each second: one object, of a size that does not grow with the accounts.

use crate::control::admin::app::Admin;
use crate::control::admin::process::state_of;
use crate::ledger::LedgerStats;
use crate::model::Local;
use serde_json::{Value, json};

/// The figures of now.
pub(super) fn figures(admin: &Admin, stats: &LedgerStats) -> Value {
    let shared = &admin.shared;
    let (metrics, now) = (&shared.metrics, shared.clock.utc());
    let (glance, history) = (metrics.glance(), admin.page.history.lock());
    let [overhead, upstream] = history.minute();
    let newest = history.newest();
    let (rates, days) = (history.rates(), history.days_until(stats.free_bytes));
    drop(history);
    let commit_age = stats.last_commit_at.map(|at| now.since(at).as_secs_f64());
    let policy = shared.policy.load();
    json!({
        "at": Local::new(now, &policy.catalog.time_zone),
        "unix": now.seconds(),
        "process": state_of(admin, stats),
        "rates": rates,
        "totals": {"received": metrics.received.get(), "decided": glance.decided},
        "overhead": overhead,
        "upstream": upstream,
        "upstream_up": policy.upstreams.iter().all(|upstream| upstream.is_up()),
        "connections_limit": metrics.connections_limit.get(),
        "commit_age_seconds": commit_age,
        "disk_days_left": days,
        "accounts_in_arrears": metrics.accounts_in_arrears.get(),
        "clock_trusted": metrics.clock_trusted.get() == 1,
        "events_pending": metrics.events_pending.get(),
        "reloads": admin.reloader.notes.count(),
        "point": newest.map(|(number, point)| json!({"number": number, "point": point})),
    })
}
