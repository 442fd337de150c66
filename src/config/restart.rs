//! The settings in which two configurations differ, for those who are told what waits for a restart.

use crate::config::Settings;
use secrecy::{ExposeSecret, SecretString};

/// Every setting in which the two differ: its key as written in the file, before, after. A secret is
/// not shown.
pub(in crate::config) fn changed(
    old: &Settings,
    new: &Settings,
) -> Vec<(&'static str, String, String)> {
    let shown = |s: &Settings| {
        let workers = s.workers.map_or("auto".to_owned(), |n| n.to_string());
        let proxies: Vec<String> = s.trusted_proxies.iter().map(ToString::to_string).collect();
        [
            ("listen", s.listen.to_string()),
            ("behind_tls", s.behind_tls.to_string()),
            ("workers", workers),
            ("admin.listen", s.admin.listen.to_string()),
            ("upstream.endpoints", s.upstream.endpoint.to_string()),
            (
                "upstream.connect_timeout",
                format!("{:?}", s.upstream.connect_timeout),
            ),
            (
                "upstream.response_timeout",
                format!("{:?}", s.upstream.response_timeout),
            ),
            (
                "upstream.idle_timeout",
                format!("{:?}", s.upstream.idle_timeout),
            ),
            (
                "upstream.max_age",
                s.upstream
                    .max_age
                    .map_or("none".to_owned(), |age| format!("{age:?}")),
            ),
            ("ledger.path", s.ledger.path.display().to_string()),
            ("ledger.durability", s.ledger.durability.to_string()),
            (
                "ledger.retain_records",
                format!("{:?}", s.ledger.retain_records),
            ),
            ("ledger.stall_after", format!("{:?}", s.ledger.stall_after)),
            (
                "ledger.when_missing",
                if s.ledger.create { "create" } else { "refuse" }.to_owned(),
            ),
            ("admission.max_delay", format!("{:?}", s.max_delay)),
            ("metrics.accounts", s.metric_accounts.to_string()),
            (
                "notices.webhook",
                s.notices
                    .as_ref()
                    .map_or("none".to_owned(), |n| n.webhook.to_string()),
            ),
            ("limits.connections", s.limits.connections.to_string()),
            (
                "limits.idle_timeout",
                format!("{:?}", s.limits.idle_timeout),
            ),
            (
                "limits.drain_notice",
                format!("{:?}", s.limits.drain_notice),
            ),
            ("limits.header_bytes", s.limits.header_bytes.to_string()),
            ("limits.body_bytes", s.limits.body_bytes.to_string()),
            ("limits.body_memory", s.limits.body_memory.to_string()),
            (
                "limits.request_timeout",
                format!("{:?}", s.limits.request_timeout),
            ),
            ("limits.drain", format!("{:?}", s.limits.drain)),
            ("trusted_proxies", format!("[{}]", proxies.join(", "))),
        ]
    };
    let both = shown(old).into_iter().zip(shown(new));
    let mut changed: Vec<_> = both
        .filter(|((_, before), (_, after))| before != after)
        .map(|((key, before), (_, after))| (key, before, after))
        .collect();
    let webhook = |s: &Settings| s.notices.as_ref().map(|n| n.webhook.clone());
    if webhook(old) != webhook(new) && changed.iter().all(|(key, ..)| *key != "notices.webhook") {
        let shown = |s| webhook(s).map_or(String::new(), |url| url.to_string());
        changed.push((
            "notices.webhook",
            format!("{} (and a path)", shown(old)),
            format!("{} (and another)", shown(new)),
        ));
    }
    let revealed = |token: Option<&SecretString>| token.map(|t| t.expose_secret().to_owned());
    let tokens = |s: &Settings| {
        [
            ("admin.token", revealed(s.admin.token.as_ref())),
            (
                "notices.token",
                revealed(s.notices.as_ref().and_then(|n| n.token.as_ref())),
            ),
        ]
    };
    for ((key, before), (_, after)) in tokens(old).into_iter().zip(tokens(new)) {
        if before != after {
            changed.push((key, "(a secret)".to_owned(), "(another)".to_owned()));
        }
    }
    changed
}
