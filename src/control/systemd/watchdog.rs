//! The watchdog: systemd ends a process that stops to say that it lives.
//!
//! Owns how often that is said. Must never be said for a part of the process that hangs, nor left
//! unsaid for a disk, a store or an upstream that does: another process would not be better off.

use crate::control::systemd::Systemd;
use crate::model::Clock;
use std::time::Duration;

/// Threads that are asked beat once a second: two beats may be missed on a busy machine.
const LEAST_PATIENCE: Duration = Duration::from_secs(3);

/// Tells systemd that the process lives, unless `hangs` names a part that did nothing for the given
/// time. Runs until it is dropped; ends at once where the unit has no watchdog.
pub(in crate::control) async fn keep_alive(
    systemd: Systemd,
    clock: Clock,
    hangs: impl Fn(Duration) -> Option<String>,
) {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return;
    };
    let (every, patience) = (deadline / 4, (deadline / 2).max(LEAST_PATIENCE));
    let mut is_told = false;
    loop {
        match hangs(patience) {
            None => {
                systemd.lives();
                is_told = false;
            }
            Some(what) => {
                if !is_told {
                    tracing::error!(
                        "{what}: systemd's watchdog is not answered, and ends the process within {deadline:?}"
                    );
                    systemd.hangs(what);
                }
                is_told = true;
            }
        }
        clock.sleep(every).await;
    }
}
