//! The rows of the section `access_log` in the table of settings.

use crate::config::Settings;
use crate::config::settings::setting::{Bounds, Change, Setting, Unwritten};
use crate::config::settings::{AccessLogSettings, AccessLogTo, LoggedCalls};

/// How a setting of the access log is told; "none" without one.
fn of_log(settings: &Settings, told: fn(&AccessLogSettings) -> String) -> String {
    settings.access_log.as_ref().map_or("none".to_owned(), told)
}

pub(super) const TO: Setting = Setting {
    key: "access_log.to",
    unwritten: Unwritten::Refused("stdout"),
    bounds: Bounds::Text("a path, or `stdout`"),
    change: Change::AtRestart(|s| {
        of_log(s, |log| match &log.to {
            AccessLogTo::Stdout => "stdout".to_owned(),
            AccessLogTo::File(path) => path.display().to_string(),
        })
    }),
    does: "Where a JSON line of each call goes. SIGUSR1 opens the file again. Without the section `access_log` there is none.",
};

pub(super) const OF: Setting = Setting {
    key: "access_log.of",
    unwritten: Unwritten::Is("both"),
    bounds: Bounds::Text("`admitted`, `refused`, `both`"),
    change: Change::AtRestart(|s| {
        of_log(s, |log| match log.of {
            LoggedCalls::Admitted => "admitted".to_owned(),
            LoggedCalls::Refused => "refused".to_owned(),
            LoggedCalls::Both => "both".to_owned(),
        })
    }),
    does: "The calls that have a line: the admitted ones, those that were throttled or refused, or both.",
};

pub(super) const SAMPLE: Setting = Setting {
    key: "access_log.sample",
    unwritten: Unwritten::Is("1"),
    bounds: Bounds::Text("0 to 1"),
    change: Change::AtRestart(|s| of_log(s, |log| log.sample.to_string())),
    does: "The part of these calls that has a line; which ones is decided by their request ids.",
};
