//! Text and numbers of the tree -> numbers, durations, sizes, money, instants.
//!
//! Owns their spellings, and the wording of one that is wrong or out of its bounds.

use crate::config::reader::{Item, quoted};
use crate::config::yaml::Value;
use crate::model::Utc;
use bytesize::ByteSize;
use jiff::Timestamp;
use rust_decimal::Decimal;
use std::ops::RangeInclusive;
use std::time::Duration;

impl Item<'_> {
    /// A whole number in `range`.
    pub(in crate::config) fn whole(self, range: RangeInclusive<u64>) -> Option<u64> {
        let what = format_args!("a whole number from {} to {}", range.start(), range.end());
        match &self.node.value {
            // YAML's versions do not agree on any other spelling.
            Value::Number(n)
                if n.starts_with('+')
                    || (n.starts_with('0') && n.len() > 1 && !n.contains('.')) =>
            {
                self.refuse(format!(
                    "expected {what}, found {n}: write decimal digits alone"
                ))
            }
            Value::Number(n) => match n.parse() {
                Ok(n) if range.contains(&n) => Some(n),
                _ => self.expected(what),
            },
            Value::Text(t) if t.parse::<u64>().is_ok() => self.refuse(format!(
                "expected {what}: remove the quotes and leading zeros"
            )),
            _ => self.expected(what),
        }
    }

    /// As [`Self::whole`], for ranges that a `u32` holds.
    pub(in crate::config) fn whole32(self, range: RangeInclusive<u32>) -> Option<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.whole(wide).and_then(|n| u32::try_from(n).ok())
    }

    /// Digits and a unit: `50ms`, `60s`, `5m`, `2h`, `100d`.
    pub(in crate::config) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const WHAT: &str = "a duration such as 50ms, 60s, 5m, 2h or 100d";
        let text = match &self.node.value {
            Value::Text(t) if !t.is_empty() => t,
            Value::Number(n) if !n.starts_with('-') => {
                return self.refuse(format!(
                    "{n} has no unit: write {n}ms, {n}s, {n}m, {n}h or {n}d"
                ));
            }
            _ => return self.expected(WHAT),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return self.expected(WHAT),
        };
        let duration = match count.parse::<u64>() {
            Ok(count) => Duration::from_millis(count.saturating_mul(millis)),
            Err(_) => return self.expected(WHAT),
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (from, to) = (spelled(*range.start()), spelled(*range.end()));
        self.expected(format!("a duration from {from} to {to}"))
    }

    /// Digits and a unit: `32KiB`, `10MiB`.
    pub(in crate::config) fn size(self, range: RangeInclusive<u64>) -> Option<u64> {
        const WHAT: &str = "a size such as 32KiB or 10MiB";
        let text = match &self.node.value {
            Value::Text(t) => t,
            Value::Number(n) if !n.starts_with('-') => {
                return self.refuse(format!("{n} has no unit: write {n}B, {n}KiB or {n}MiB"));
            }
            _ => return self.expected(WHAT),
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1_u64 << 30),
            // `1KB` would be 1,000 bytes to some and 1,024 to others.
            _ => None,
        };
        let (Ok(count), Some(unit)) = (digits.parse::<u64>(), unit) else {
            return self.expected(WHAT);
        };
        let bytes = count.saturating_mul(unit);
        if range.contains(&bytes) {
            return Some(bytes);
        }
        let (from, to) = (ByteSize(*range.start()), ByteSize(*range.end()));
        self.expected(format!("a size from {from} to {to}"))
    }

    /// An amount of money, zero allowed. Quoted text: a YAML number would pass through a float.
    pub(in crate::config) fn amount(self) -> Option<Decimal> {
        if let Value::Number(n) = &self.node.value {
            return self.refuse(format!(
                "an amount is text, so that no digit is lost: write it in quotes, \"{n}\""
            ));
        }
        // Bounded so that calls times price can never leave Decimal's 28 digits.
        let most = Decimal::from(1_000_000_000);
        let what = "an amount such as \"0.01\", at most 1000000000 and 6 decimals";
        self.parsed(what, |text| {
            decimal(text).filter(|d| d.scale() <= 6 && *d <= most)
        })
    }

    /// An amount of money above zero, or below with a minus; not zero.
    pub(in crate::config) fn signed_amount(self) -> Option<Decimal> {
        if let Value::Number(n) = &self.node.value {
            return self.refuse(format!(
                "an amount is text, so that no digit is lost: write it in quotes, \"{n}\""
            ));
        }
        let most = Decimal::from(1_000_000_000);
        let what = "an amount such as \"-12.50\", at most 1000000000 and 6 decimals";
        let amount = self.parsed(what, |text| {
            let unsigned = text.strip_prefix('-');
            let amount = decimal(unsigned.unwrap_or(text))?;
            let fits = amount.scale() <= 6 && amount <= most;
            fits.then(|| unsigned.map_or(amount, |_| -amount))
        })?;
        if amount.is_zero() {
            return self.refuse("must not be zero");
        }
        Some(amount)
    }

    /// An amount of money above zero.
    pub(in crate::config) fn price(self) -> Option<Decimal> {
        let price = self.amount()?;
        if price.is_zero() {
            return self.refuse("must be more than zero");
        }
        Some(price)
    }

    /// An amount as it is received or written off, with at most two decimals: a balance has no more.
    pub(in crate::config) fn whole_fen(self, amount: Decimal) -> Option<Decimal> {
        if amount.normalize().scale() > 2 {
            return self.refuse(
                "has more than two decimals: a balance is told in two, so write it in these",
            );
        }
        Some(amount)
    }

    /// `15%` -> 0.15; above zero, below one.
    pub(in crate::config) fn percent(self) -> Option<Decimal> {
        if let Value::Number(n) = &self.node.value {
            return self.refuse(match decimal(n) {
                Some(part) if part < Decimal::ONE => {
                    let percent = (part * Decimal::ONE_HUNDRED).normalize();
                    format!("{n} has no percent sign: write {percent}%")
                }
                _ => format!("{n} has no percent sign: write {n}%"),
            });
        }
        self.parsed("a percentage between 0% and 100%, such as 15%", |text| {
            let share = decimal(text.strip_suffix('%')?)?.checked_div(Decimal::ONE_HUNDRED)?;
            (share > Decimal::ZERO && share < Decimal::ONE).then(|| share.normalize())
        })
    }

    /// RFC 3339 with an offset, from 2000 to 2100.
    pub(in crate::config) fn instant(self) -> Option<Utc> {
        const WHAT: &str = "an instant such as 2026-11-01T00:00:00+08:00";
        let text = self.text()?;
        let Ok(instant) = text.parse::<Timestamp>() else {
            if text.parse::<jiff::civil::DateTime>().is_ok() {
                return self.refuse(format!("{} has no offset: write {WHAT}", quoted(text)));
            }
            return self.expected(WHAT);
        };
        // A mistyped year would otherwise be a purchase that never runs.
        const YEAR_2000: i64 = 946_684_800;
        const YEAR_2101: i64 = 4_133_980_800;
        if !(YEAR_2000..YEAR_2101).contains(&instant.as_second()) {
            return self.expected("an instant in the years 2000 to 2100");
        }
        Some(Utc(instant.as_microsecond()))
    }
}

/// Digits with at most one point between them: no sign, exponent or grouping.
fn decimal(text: &str) -> Option<Decimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if digits(whole) && digits(fraction) {
        Decimal::from_str_exact(text).ok()
    } else {
        None
    }
}

/// As the file would spell it.
pub(in crate::config) fn spelled(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    match units
        .iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// As the file would spell it.
pub(in crate::config) fn spelled_size(bytes: u64) -> String {
    let units = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}
