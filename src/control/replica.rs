//! The name of this gate among others.
//!
//! Owns what it is called when the settings do not say. Must never fail: a name is a convenience.

use crate::config::Settings;

/// The setting `replica`, or the machine's host name; empty when the machine has none.
pub(super) fn replica_name(settings: &Settings) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let written = settings.replica.clone();
    written.unwrap_or_else(|| host().trim().to_owned())
}
