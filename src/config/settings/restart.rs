//! The settings in which two configurations differ, for those who are told what waits for a
//! restart.
//!
//! Must never show a secret.

use crate::config::Settings;
use crate::config::settings::setting::Setting;
use crate::config::settings::table::TABLE;

/// Every setting in which the two differ, in the order of the table: its key as written in the
/// file, before, after. A secret is not shown.
pub(in crate::config) fn changed(
    old: &Settings,
    new: &Settings,
) -> Vec<(&'static str, String, String)> {
    let told = |setting: &'static Setting| {
        let (before, after) = setting.change.between(old, new)?;
        Some((setting.key, before, after))
    };
    TABLE.iter().filter_map(told).collect()
}
