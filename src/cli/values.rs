//! The values of flags: text to what it stands for, or what to write instead.

use crate::ledger::EventState;
use crate::model::{AccountId, GroupId, KeyId, Month, Package};
use clap::builder::{PossibleValuesParser, RangedI64ValueParser, TypedValueParser};
use std::time::Duration;

/// From 1 on: the bounds of the accounts file, into which the order would go.
pub(crate) fn up_to(most: u32) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(most))
}

pub(crate) fn group_id(text: &str) -> Result<GroupId, String> {
    GroupId::new(text).ok_or_else(|| "a group is 1 to 64 of a-z, 0-9 and -".into())
}

pub(crate) fn account_id(text: &str) -> Result<AccountId, String> {
    AccountId::new(text).ok_or_else(|| "an id is 1 to 32 letters, digits, `_` or `-`".into())
}

pub(crate) fn package(text: &str) -> Result<Package, String> {
    let wrong = "a package is up to 128 letters, digits, `_` and `-` in parts between dots";
    Package::new(text).ok_or_else(|| wrong.into())
}

pub(crate) fn key_name(text: &str) -> Result<KeyId, String> {
    let name = KeyId::new(text).filter(|name| !name.is_none());
    name.ok_or_else(|| "a name is 1 to 32 letters, digits, `_`, `.` or `-`".into())
}

pub(crate) fn overlap(text: &str) -> Result<Duration, String> {
    let wrong = "write a number and d, h or m, at most 365d, as in 7d";
    let seconds = match text.char_indices().next_back() {
        Some((_, 'd')) => 86_400,
        Some((_, 'h')) => 3_600,
        Some((_, 'm')) => 60,
        _ => return Err(wrong.into()),
    };
    let digits = &text[..text.len() - 1];
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    let overlap = number.and_then(|number| number.checked_mul(seconds));
    let overlap = overlap.filter(|seconds| *seconds <= 365 * 86_400);
    overlap.map(Duration::from_secs).ok_or(wrong.into())
}

pub(crate) fn head(text: &str) -> Result<[u8; 32], String> {
    let mut head = [0; 32];
    hex::decode_to_slice(text, &mut head)
        .map_err(|_| "a head is 64 hex digits, as the log and statements have them")?;
    Ok(head)
}

pub(crate) fn month_digest(text: &str) -> Result<(Month, [u8; 32]), String> {
    let (month, digest) = text
        .split_once('=')
        .ok_or("write YYYY-MM=HEX, as in 2026-11=0123..ef")?;
    Ok((Month::parse(month)?, head(digest)?))
}

/// The state of an event.
pub(crate) fn event_state() -> impl TypedValueParser<Value = EventState> {
    let known = |text: String| EventState::ALL.into_iter().find(|s| s.as_str() == text);
    PossibleValuesParser::new(EventState::ALL.map(EventState::as_str))
        .try_map(move |text| known(text).ok_or("no state"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_a_number_with_its_unit_up_to_a_year() {
        for (text, seconds) in [
            ("7d", 604_800),
            ("24h", 86_400),
            ("90m", 5_400),
            ("0d", 0),
            ("365d", 31_536_000),
        ] {
            assert_eq!(overlap(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "7",
            "7 d",
            "+7d",
            "-7d",
            "7w",
            "366d",
            "99999999999999999999d",
            "7日",
        ] {
            assert!(overlap(text).is_err(), "{text}");
        }
    }
}
