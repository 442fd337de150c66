//! What of the upstreams is different between two configurations, in the words of the settings.

use crate::config::changed_orders::list;
use crate::config::reader::spelled;
use crate::config::{DEFAULT_UPSTREAM, Settings, UpstreamSettings};
use std::fmt::Display;

/// Every difference, a sentence each.
pub(in crate::config) fn upstreams(old: &Settings, new: &Settings) -> Vec<String> {
    let mut said = Vec::new();
    let (before, after) = (all(old), all(new));
    for (name, old) in &before {
        match after.iter().find(|(later, _)| later == name) {
            None => said.push(format!("upstream {name} removed")),
            Some((_, new)) => {
                if old.tls != new.tls {
                    let how = if new.tls.is_some() {
                        "TLS is spoken otherwise"
                    } else {
                        "plain HTTP"
                    };
                    said.push(format!("upstream {name}: {how} from now"));
                }
                let both = keys(old).into_iter().zip(keys(new));
                let changed = both.filter(|((_, old), (_, new))| old != new);
                said.extend(changed.map(|((key, old), (_, new))| {
                    format!("upstream {name}: {key} {old} → {new} from now")
                }));
            }
        }
    }
    for (name, new) in &after {
        if before.iter().all(|(earlier, _)| earlier != name) {
            said.push(format!("upstream {name} added: {}", list(&new.endpoints)));
        }
    }
    said
}

fn all(settings: &Settings) -> Vec<(&str, &UpstreamSettings)> {
    let named = settings.upstreams.iter().map(|(name, of)| (&**name, of));
    let default = [(DEFAULT_UPSTREAM, &settings.upstream)];
    default.into_iter().chain(named).collect()
}

/// Each key, as it is told.
fn keys(of: &UpstreamSettings) -> Vec<(&'static str, String)> {
    fn or_none(value: Option<impl Display>) -> String {
        value.map_or("none".to_owned(), |value| value.to_string())
    }
    let health = of.health.as_ref().map(|health| {
        format!(
            "{} every {} within {}, back after {} and out after {}",
            health.path,
            spelled(health.interval),
            spelled(health.timeout),
            health.healthy_after,
            health.unhealthy_after
        )
    });
    vec![
        ("endpoints", list(&of.endpoints)),
        ("connect_timeout", spelled(of.connect_timeout)),
        ("response_timeout", spelled(of.response_timeout)),
        ("idle_timeout", spelled(of.idle_timeout)),
        ("max_age", or_none(of.max_age.map(spelled))),
        ("max_in_flight", or_none(of.max_in_flight)),
        ("slow_start", spelled(of.slow_start)),
        ("health", or_none(health)),
    ]
}
