//! TLS as a client: towards the webhook, the store and NATS.
//!
//! Owns which versions and ciphers are spoken. Must never trust more than it is given.

use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How TLS is spoken with servers whose certificate one of the `trusted` has signed.
pub(crate) fn tls_config(trusted: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has what its own versions need")
        .with_root_certificates(trusted)
        .with_no_client_auth()
}

/// Opens TLS connections to servers whose certificate one of the `trusted` has signed.
pub(crate) fn tls_connector(trusted: RootCertStore) -> TlsConnector {
    TlsConnector::from(Arc::new(tls_config(trusted)))
}
