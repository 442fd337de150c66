//! Instants as text, as people of one time zone read them.

use crate::model::Utc;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::fmt;

/// An instant as a person of the provider's zone reads it: RFC 3339 with the zone's offset (R16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Local(String);

impl Local {
    /// Nothing of `at` is rounded.
    pub fn new(at: Utc, zone: &TimeZone) -> Self {
        let outside = if at.0 < 0 {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        };
        let timestamp = Timestamp::from_microsecond(at.0).unwrap_or(outside);
        let offset = zone.to_offset(timestamp);
        Self(timestamp.display_with_offset(offset).to_string())
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
