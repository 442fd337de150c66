//! The parameters of a query of the admin listener, and what is wrong with them, in words of our
//! own.
//!
//! Owns the reading of parameters that several paths have. Must never answer: the paths do.

use crate::model::{Month, Utc};
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use jiff::tz::TimeZone;

/// The parameters of a query as they came.
pub(super) type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The values of the parameters `names`, each given once at most, and no other.
pub(super) fn parameters<const N: usize>(
    query: Parameters,
    names: [&str; N],
) -> Result<[Option<String>; N], String> {
    let Ok(Query(pairs)) = query else {
        return Err("the query cannot be read: write it as NAME=VALUE&NAME=VALUE".to_owned());
    };
    let mut values = [const { None }; N];
    for (name, value) in pairs {
        let place = names.iter().position(|known| *known == name);
        let Some(slot) = place.and_then(|place| values.get_mut(place)) else {
            let known = names.join(" and ");
            return Err(format!(
                "no parameter {name:?} is known here: there is {known}"
            ));
        };
        if slot.replace(value).is_some() {
            return Err(format!("{name} is given twice: give it once"));
        }
    }
    Ok(values)
}

pub(super) fn flag(name: &str, value: Option<String>) -> Result<bool, String> {
    match value.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(format!("{name}: write true or false")),
    }
}

/// The running month when none is named.
pub(super) fn month(value: Option<String>, now: Utc, zone: &TimeZone) -> Result<Month, String> {
    match value.as_deref().map(Month::parse) {
        None => Ok(Month::of(now, zone)),
        Some(Ok(month)) => Ok(month),
        Some(Err(why)) => Err(format!("month: {why}")),
    }
}
