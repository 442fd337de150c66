//! The words of licences for client apps (R19).

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// The package name of a client app, as its system knows it: `com.example.camera`. It is a part of
/// keys at NATS, so no part between two dots is empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Package(Arc<str>);

impl Package {
    /// The most bytes of a name.
    const BYTES: usize = 128;

    /// `None` unless the text is 1 to 128 of `[0-9A-Za-z_-]` in parts between single dots.
    pub fn new(text: &str) -> Option<Self> {
        let is_part = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            !part.is_empty() && part.bytes().all(fits)
        };
        let fits = text.len() <= Self::BYTES && text.split('.').all(is_part);
        fits.then(|| Self(text.into()))
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Package {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Package {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).ok_or_else(|| serde::de::Error::custom("no name of a package"))
    }
}

/// How an app came by its licence (R19).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum LicenceKind {
    /// Applied for, once and for some days.
    Trial,
    /// Bought for a year.
    Formal,
}

impl LicenceKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Trial, Self::Formal];

    /// The one spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Formal => "formal",
        }
    }

    /// The kind so spelled.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_no_empty_part_and_no_other_characters_than_its_system_takes() {
        for good in ["a", "com.example.camera", "com.Example-2.x_y", "9"] {
            assert!(Package::new(good).is_some(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "", ".", "a.", ".a", "a..b", "a b", "a/b", "a*", "a>", "ä", &long,
        ] {
            assert!(Package::new(bad).is_none(), "{bad}");
        }
    }
}
