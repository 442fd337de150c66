//! The figures of the process itself, under the names that each Prometheus client gives them.
//!
//! Reads `/proc`. What cannot be read stays as it was.

use crate::control::open_files::file_limit;
use crate::metrics::Metrics;
use crate::model::{Clock, Utc};

/// Reads them anew.
pub(super) fn read(metrics: &Metrics, started_at: Utc) {
    let cpu = Clock::cpu().as_secs_f64();
    let counted = metrics.process_cpu_seconds.get();
    metrics.process_cpu_seconds.inc_by((cpu - counted).max(0.0));
    metrics.process_start_time.set(started_at.seconds());
    let whole = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
    metrics.process_max_fds.set(whole(file_limit()));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // One of them reads the directory.
        let open = open.count().saturating_sub(1) as u64;
        metrics.process_open_fds.set(whole(open));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let figure = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    for (name, gauge, unit) in [
        ("VmRSS:", &metrics.process_resident_bytes, 1_024),
        ("VmSize:", &metrics.process_virtual_bytes, 1_024),
        ("Threads:", &metrics.process_threads, 1),
    ] {
        if let Some(figure) = figure(name) {
            gauge.set(whole(figure.saturating_mul(unit)));
        }
    }
}
