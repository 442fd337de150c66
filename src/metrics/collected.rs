//! The figures of the collector: a series for each ledger that it collects, which are as many as the
//! gates that ever ran and were not given up.

use crate::metrics::Metrics;

/// What is shown of a ledger that is collected.
pub struct SourceFigures {
    /// Its id.
    pub ledger: String,
    /// The name of its replica.
    pub replica: String,
    /// Records that it has told of and that are not collected.
    pub lag_records: u64,
    /// The age of the instant before which all of it is collected.
    pub lag_seconds: f64,
}

impl Metrics {
    /// Replaces what is shown of the ledgers that are collected.
    pub fn set_sources(&self, sources: Vec<SourceFigures>, broken: usize) {
        self.collector_lag_records.reset();
        self.collector_lag_seconds.reset();
        for source in sources {
            let labels = [source.ledger.as_str(), source.replica.as_str()];
            let lag = self.collector_lag_records.with_label_values(&labels);
            lag.set(source.lag_records as f64);
            let lag = self.collector_lag_seconds.with_label_values(&labels);
            lag.set(source.lag_seconds);
        }
        let gauge = self.collector_broken.with_label_values(&["ledger"]);
        gauge.set(broken as f64);
    }

    /// Shows whether the collector has a connection.
    pub fn set_collector_up(&self, is_up: bool) {
        let gauge = self.collector_up.with_label_values(&["nats"]);
        gauge.set(f64::from(u8::from(is_up)));
    }

    /// Shows whether the gate hears the standing of the accounts.
    pub fn set_standing_current(&self, is_current: bool) {
        let gauge = self.standing_current.with_label_values(&["collector"]);
        gauge.set(f64::from(u8::from(is_current)));
    }
}
