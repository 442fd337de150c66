//! TLS as a client: towards the webhook, the store and NATS.
//!
//! Owns which versions and ciphers are spoken. Must never trust more than it is given.

use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// How TLS is spoken with servers whose certificate one of the `trusted` has signed.
pub(crate) fn tls_config(trusted: RootCertStore) -> ClientConfig {
    trusting(trusted).with_no_client_auth()
}

/// The same with servers that ask who we are: a certificate with those that signed it, and its key.
///
/// # Errors
/// The certificate and the key do not belong together, or cannot be used.
pub(crate) fn tls_config_of(
    trusted: RootCertStore,
    certificate: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, tokio_rustls::rustls::Error> {
    trusting(trusted).with_client_auth_cert(certificate, key)
}

fn trusting(trusted: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("the provider has what its own versions need")
        .with_root_certificates(trusted)
}

/// Opens TLS connections to servers whose certificate one of the `trusted` has signed.
pub(crate) fn tls_connector(trusted: RootCertStore) -> TlsConnector {
    TlsConnector::from(Arc::new(tls_config(trusted)))
}
