//! The figures of licences for apps (R19).

use crate::metrics::{IntCounter, Metrics};
use crate::model::LicenceKind;

impl Metrics {
    /// The counter of grants by licences of one kind.
    pub(crate) fn licence_grants(&self, kind: LicenceKind) -> IntCounter {
        self.licence_grants.with_label_values(&[kind.as_str()])
    }

    /// Counts a request that got no grant.
    pub(crate) fn licence_refused(&self, reason: &str) {
        self.licence_refusals.with_label_values(&[reason]).inc();
    }
}
