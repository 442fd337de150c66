//! TLS as a client: towards the webhook, and towards the store.
//!
//! Owns which versions and ciphers are spoken. Must never trust more than it is given.

use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Opens TLS connections to servers whose certificate one of the `trusted` has signed.
pub(crate) fn tls_connector(trusted: RootCertStore) -> TlsConnector {
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has what its own versions need")
        .with_root_certificates(trusted)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
