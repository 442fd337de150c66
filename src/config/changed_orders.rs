//! What of the orders is different between two configurations, and the words that all differences
//! are told in.
//!
//! Must never show a secret.

use crate::config::Paid;
use crate::model::Utc;
use jiff::tz::TimeZone;
use std::fmt::Display;

pub(in crate::config) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

/// By which funds an order was paid.
pub(in crate::config) fn paid(paid: &Paid) -> String {
    let used: Vec<String> = paid
        .funds()
        .map(|(fund, amount)| format!("{amount} {fund}"))
        .collect();
    match used.is_empty() {
        true => "paid nothing".to_owned(),
        false => format!("paid {}", used.join(" + ")),
    }
}

/// Why an order was not paid at its list price.
pub(in crate::config) fn discount(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(", discount: {reason}"))
}

/// What was ordered, by order id: added, removed, changed. `describe` tells all that an order has.
pub(in crate::config) fn orders<T>(
    said: &mut Vec<String>,
    whose: impl Display,
    kind: &str,
    old: &[T],
    new: &[T],
    order: impl Fn(&T) -> &str,
    describe: impl Fn(&T) -> String,
) {
    for item in old {
        let id = order(item);
        match new.iter().find(|later| order(later) == id) {
            None => said.push(format!("{whose}: {kind} {id} removed ({})", describe(item))),
            Some(later) => {
                let (before, after) = (describe(item), describe(later));
                if before != after {
                    said.push(format!("{whose}: {kind} {id} changed ({before} → {after})"));
                }
            }
        }
    }
    for item in new
        .iter()
        .filter(|item| old.iter().all(|earlier| order(earlier) != order(item)))
    {
        said.push(format!(
            "{whose}: {kind} {} added ({})",
            order(item),
            describe(item)
        ));
    }
}

/// RFC 3339 in the catalogue's zone, as the files have it.
pub(in crate::config) fn time(at: Utc, zone: &TimeZone) -> String {
    let Ok(timestamp) = jiff::Timestamp::from_microsecond(at.0) else {
        return String::new();
    };
    let offset = zone.to_offset(timestamp);
    timestamp.display_with_offset(offset).to_string()
}
