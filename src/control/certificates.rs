//! The certificates of both listeners, and their change while the process runs.
//!
//! Must never close a connection because of it.

use crate::config::Settings;
use crate::http::{HTTP_1_1, HTTP_2};
use crate::metrics::Metrics;
use crate::model::{ServerCertificate, ServerTls};

/// How the listeners speak TLS, when they do.
pub(crate) struct ListenerTls {
    /// The public listener.
    pub(in crate::control) calls: Option<ServerTls>,
    /// The operators'.
    pub(in crate::control) admin: Option<ServerTls>,
}

impl ListenerTls {
    /// As the settings have it.
    pub(in crate::control) fn of(settings: &Settings, metrics: &Metrics) -> Self {
        let of = |shown: &Option<Vec<ServerCertificate>>, protocols: &[&[u8]]| {
            let shown = shown.clone()?;
            Some(ServerTls::new(shown, protocols))
        };
        let own = Self {
            calls: of(&settings.tls, &[HTTP_2, HTTP_1_1]),
            admin: of(&settings.admin.tls, &[HTTP_1_1]),
        };
        own.tell(metrics);
        own
    }

    /// Shows the certificates of these settings from now on, and says which listeners show others
    /// than before.
    pub(in crate::control) fn show(&self, settings: &Settings, metrics: &Metrics) -> Vec<String> {
        let both = [
            ("tls", &self.calls, &settings.tls),
            ("admin.tls", &self.admin, &settings.admin.tls),
        ];
        let shown = both.into_iter().filter_map(|(key, listener, new)| {
            let is_other = listener.as_ref()?.show(new.clone()?);
            is_other.then(|| format!("{key}: other certificates are shown from now on"))
        });
        let told = shown.collect();
        self.tell(metrics);
        told
    }

    fn tell(&self, metrics: &Metrics) {
        for (listener, tls) in [("calls", &self.calls), ("admin", &self.admin)] {
            if let Some(ends) = tls.as_ref().and_then(ServerTls::ends) {
                metrics.set_certificate_ends(listener, ends);
            }
        }
    }
}
