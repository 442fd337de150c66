//! The figures for Prometheus.

use crate::control::admin::app::App;
use crate::control::admin::own_figures;
use crate::metrics::{AccountFigures, EndpointFigures, Exposition};
use crate::proxy::upstream::ToldUpstream;
use crate::proxy::{Shared, counts};
use axum::extract::State as Extracted;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

pub(super) async fn metrics(Extracted(admin): App, fields: HeaderMap) -> Response {
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
    let upstreams = shared.policy.load().upstreams.told();
    metrics.set_upstreams(upstreams.iter().map(endpoint_figures));
    own_figures::read(metrics, admin.started_at);
    let form = wanted(&fields);
    let text = metrics.expose_as(form, figures(shared));
    let content_type = match form {
        Exposition::Text => "text/plain; version=0.0.4; charset=utf-8",
        Exposition::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

fn endpoint_figures(upstream: &ToldUpstream) -> (&str, bool, Vec<EndpointFigures>) {
    let endpoints = upstream.endpoints.iter().map(|of| EndpointFigures {
        endpoint: of.endpoint.clone(),
        is_up: of.is_up(),
        in_flight: of.in_flight(),
        ejections: of.ejections,
    });
    (&upstream.name, upstream.up, endpoints.collect())
}

/// The form that `Accept` wants most (RFC 9110 §12.5.1); the older one unless the other is wanted more.
fn wanted(fields: &HeaderMap) -> Exposition {
    let (mut open, mut text) = (0.0, 0.0);
    for value in fields.get_all(header::ACCEPT) {
        let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
        for range in value.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight: f32 = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            match kind {
                "application/openmetrics-text" => open = weight.max(open),
                "text/plain" => text = weight.max(text),
                _ => {}
            }
        }
    }
    match open > text {
        true => Exposition::OpenMetrics,
        false => Exposition::Text,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_comes_when_it_is_wanted_more_than_the_older_form() {
        for (accept, expected) in [
            ("", Exposition::Text),
            ("*/*", Exposition::Text),
            ("text/plain", Exposition::Text),
            ("application/openmetrics-text", Exposition::OpenMetrics),
            ("application/openmetrics-text;q=0", Exposition::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.9",
                Exposition::Text,
            ),
            // As Prometheus sends it.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Exposition::OpenMetrics,
            ),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(wanted(&fields), expected, "{accept}");
        }
    }
}
