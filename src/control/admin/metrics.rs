//! The figures for Prometheus.

use crate::control::admin::app::App;
use crate::metrics::AccountFigures;
use crate::proxy::{Shared, counts};
use axum::extract::State as Extracted;
use axum::http::header;
use axum::response::{IntoResponse, Response};

pub(super) async fn metrics(Extracted(admin): App) -> Response {
    let shared = &admin.shared;
    let metrics = &shared.metrics;
    let ledger = shared.ledger.stats();
    let whole = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
    metrics
        .ledger_pending
        .set(i64::try_from(ledger.pending).unwrap_or(i64::MAX));
    metrics.ledger_bytes.set(whole(ledger.bytes));
    metrics.ledger_wal_bytes.set(whole(ledger.wal_bytes));
    metrics.ledger_free_bytes.set(whole(ledger.free_bytes));
    metrics
        .ledger_healthy
        .set(i64::from(shared.ledger.healthy()));
    metrics
        .body_memory_bytes
        .set(whole(admin.proxy.body_memory_held()));
    metrics
        .config_generation
        .set(whole(shared.policy.load().generation));
    if let Some(outbox) = &admin.outbox {
        let (records, waited) = outbox.progress.lag(ledger.last_seq);
        metrics.outbox_lag_records.set(whole(records));
        metrics.outbox_lag_seconds.set(whole(waited.as_secs()));
        let collected = outbox.progress.read().collected_seq;
        let uncollected = ledger.last_seq.saturating_sub(collected);
        metrics.outbox_uncollected_records.set(whole(uncollected));
    }
    let expiring = shared.policy.load().expiring(shared.clock.utc());
    metrics.keys_expiring.set(whole(expiring as u64));
    let text = metrics.expose(figures(shared));
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// The limiters' counts by account and group; the actions of a free group are added together.
///
/// One list and no second copy of it: at 100,000 accounts what it takes is most of what a scrape
/// adds to the process's memory, for good.
pub(super) fn figures(shared: &Shared) -> Vec<AccountFigures> {
    let now = shared.clock.utc();
    let policy = shared.policy.load_full();
    let mut figures = Vec::with_capacity(shared.limiters.len().max(policy.accounts().len()));
    shared.limiters.each(|key, limiter| {
        figures.push(AccountFigures {
            account: key.account.clone(),
            group: key.group.clone(),
            counts: counts(limiter),
            quota: limiter.admits(now),
        });
    });
    figures.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    figures.dedup_by(|next, sum| {
        let same = next.key() == sum.key();
        if same {
            for (sum, count) in sum.counts.iter_mut().zip(next.counts) {
                *sum += count;
            }
        }
        same
    });
    let called = figures.len();
    policy.each_idle(now, &shared.limiters, |account, group, quota| {
        let key = (account, group);
        // A limiter may be there that this generation was not asked for yet.
        let has_limiter = figures[..called].binary_search_by(|f| f.key().cmp(&key));
        if has_limiter.is_err() && figures.last().is_none_or(|f| f.key() != key) {
            figures.push(AccountFigures {
                account: account.clone(),
                group: group.clone(),
                counts: [0; 3],
                quota,
            });
        }
    });
    figures
}
