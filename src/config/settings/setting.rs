//! What is told of one key of `tollgate.yaml`.
//!
//! Must never show a secret.

use crate::config::Settings;
use crate::config::reader::{spelled, spelled_size};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// One key.
pub(in crate::config) struct Setting {
    /// With its section before a dot.
    pub key: &'static str,
    pub unwritten: Unwritten,
    pub bounds: Bounds,
    pub change: Change,
    /// A sentence for the reference.
    pub does: &'static str,
}

/// What a file without the key means.
#[derive(Clone, Copy)]
pub(in crate::config) enum Unwritten {
    /// A mistake. Its remedy shows this value.
    Refused(&'static str),
    /// As if this were written.
    Is(&'static str),
    /// There is none.
    Nothing,
}

/// The values that are accepted. Those of text are checked by the reader alone.
pub(in crate::config) enum Bounds {
    Time(RangeInclusive<Duration>),
    Size(RangeInclusive<u64>),
    Count(RangeInclusive<u32>),
    Text(&'static str),
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = match self {
            Self::Time(range) => (spelled(*range.start()), spelled(*range.end())),
            Self::Size(range) => (spelled_size(*range.start()), spelled_size(*range.end())),
            Self::Count(range) => (range.start().to_string(), range.end().to_string()),
            Self::Text(text) => return f.write_str(text),
        };
        write!(f, "{from} to {to}")
    }
}

/// When a change takes effect, and how it is seen and told.
pub(in crate::config) enum Change {
    /// At a reload.
    AtReload,
    /// At a reload, of values in a section that is there or not: that itself waits for the next
    /// start. Gives whether it is there, as it is told.
    AtReloadOf(fn(&Settings) -> String),
    /// At the next start. Gives the value as it is told.
    AtRestart(fn(&Settings) -> String),
    /// As [`Self::AtRestart`], of a value that is told in part: what is told, and the whole.
    PartlyTold(fn(&Settings) -> String, fn(&Settings) -> String),
    /// As [`Self::AtRestart`], of a secret, which is never told.
    Secret(fn(&Settings) -> Vec<&[u8]>),
}

impl Change {
    pub(in crate::config) fn needs_restart(&self) -> bool {
        !matches!(self, Self::AtReload | Self::AtReloadOf(_))
    }

    /// What is told before and after when the two differ.
    pub(in crate::config) fn between(
        &self,
        old: &Settings,
        new: &Settings,
    ) -> Option<(String, String)> {
        let (before, after) = match self {
            Self::AtReload => return None,
            Self::AtReloadOf(told) | Self::AtRestart(told) => (told(old), told(new)),
            Self::PartlyTold(told, whole) => match (told(old), told(new)) {
                (before, after) if before == after && whole(old) != whole(new) => (
                    format!("{before} (and a path)"),
                    format!("{after} (and another)"),
                ),
                both => both,
            },
            Self::Secret(secret) => {
                if secret(old) == secret(new) {
                    return None;
                }
                ("(a secret)".to_owned(), "(another)".to_owned())
            }
        };
        (before != after).then_some((before, after))
    }
}

/// The values of a secret.
pub(in crate::config) const SECRET: Bounds = Bounds::Text("text, `{file: PATH}` or `{env: NAME}`");

/// A secret as [`Change::Secret`] compares it.
pub(in crate::config) fn secret(secret: Option<&SecretString>) -> Vec<&[u8]> {
    secret
        .map(|s| s.expose_secret().as_bytes())
        .into_iter()
        .collect()
}
