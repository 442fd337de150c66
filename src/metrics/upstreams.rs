//! The figures of the upstreams and their endpoints.
//!
//! Owns their labels: what the settings name, never an address that a name server chose.

use crate::metrics::Metrics;

/// What is known of an endpoint of an upstream.
pub(crate) struct EndpointFigures {
    /// As the settings name it.
    pub endpoint: String,
    /// A server of it can be reached and is not out.
    pub is_up: bool,
    /// The calls that are there.
    pub in_flight: u32,
    /// How often one of its servers was taken out.
    pub ejections: u64,
}

impl Metrics {
    /// Replaces what is known of the upstreams: whether each can be reached, and of its endpoints. To be
    /// called one at a time.
    pub(crate) fn set_upstreams<'u>(
        &self,
        upstreams: impl Iterator<Item = (&'u str, bool, Vec<EndpointFigures>)>,
    ) {
        self.upstream_up.reset();
        self.upstream_endpoint_up.reset();
        self.upstream_endpoint_in_flight.reset();
        self.upstream_ejections.reset();
        for (name, is_up, endpoints) in upstreams {
            let up = self.upstream_up.with_label_values(&[name]);
            up.set(f64::from(u8::from(is_up)));
            for of in endpoints {
                let labels = [name, &*of.endpoint];
                let up = self.upstream_endpoint_up.with_label_values(&labels);
                up.set(f64::from(u8::from(of.is_up)));
                let gauge = self.upstream_endpoint_in_flight.with_label_values(&labels);
                gauge.set(of.in_flight.into());
                let ejections = self.upstream_ejections.with_label_values(&labels);
                ejections.inc_by(of.ejections);
            }
        }
    }
}
