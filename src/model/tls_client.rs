//! TLS as a client that may have to say who it is: towards the upstreams.
//!
//! Owns whom it trusts: the given certificates, or else those that the machine trusts. Must never
//! trust more than that.

use crate::model::{ServerCertificate, tls_config, tls_config_of};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// The one protocol that is asked for (RFC 7301 §6).
const HTTP_1_1: &[u8] = b"http/1.1";

/// How TLS is spoken with a server, under which name.
#[derive(Clone)]
pub(crate) struct ClientTls {
    config: Arc<ClientConfig>,
    /// The name that the server's certificate must have, when it is not the host's.
    server_name: Option<ServerName<'static>>,
    /// Of all that it was made from.
    digest: [u8; 32],
}

/// Why TLS cannot be spoken so.
#[derive(thiserror::Error, Debug)]
pub(crate) enum BadClientTls {
    /// Of the trusted certificates.
    #[error("holds no certificate that can be used")]
    NoTrusted,
    /// The machine trusts none.
    #[error("the machine trusts no certificate: write `ca`")]
    NoneOfTheMachine,
    /// The own certificate.
    #[error("its certificate cannot be used: {0}")]
    Certificate(String),
    /// The own key.
    #[error("its key cannot be used: {0}")]
    Key(String),
}

impl ClientTls {
    /// Trusts the certificates of `ca` (PEM), and shows `own`, a certificate and its key (PEM), when
    /// it is asked who it is.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn new(
        ca: Option<&[u8]>,
        own: Option<(&[u8], &[u8])>,
        server_name: Option<ServerName<'static>>,
    ) -> Result<Self, BadClientTls> {
        let mut digest = Sha256::new();
        let name = server_name.as_ref().map(ServerName::to_str);
        let (chain, key) = own.unwrap_or_default();
        for part in [
            ca.unwrap_or_default(),
            chain,
            key,
            name.unwrap_or_default().as_bytes(),
        ] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let trusted = trusted(ca)?;
        let mut config = match own {
            None => tls_config(trusted),
            Some((chain, key)) => {
                let unusable =
                    |error: &dyn fmt::Display| BadClientTls::Certificate(error.to_string());
                let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(|error| unusable(&error))?;
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|error| BadClientTls::Key(error.to_string()))?;
                tls_config_of(trusted, chain, key).map_err(|error| unusable(&error))?
            }
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            server_name,
            digest: digest.finalize().into(),
        })
    }

    /// Trusts a server that shows one of these certificates, whoever signed it and whatever its
    /// name: for a command, which reads the files of the process that it asks.
    pub(crate) fn to_own(shown: &[ServerCertificate]) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let known = shown.iter().filter_map(ServerCertificate::own).cloned();
        let known: Vec<_> = known.collect();
        let mut digest = Sha256::new();
        known
            .iter()
            .for_each(|certificate| digest.update(certificate));
        let verifier = OneOfThese {
            known,
            signatures: provider.signature_verification_algorithms,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what its own versions need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Self {
            config: Arc::new(config),
            server_name: None,
            digest: digest.finalize().into(),
        }
    }

    /// What opens a connection.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.config.clone())
    }

    /// The name that the certificate of a server of this host must have; `None` when it can have none.
    pub(crate) fn name_of(&self, host: &str) -> Option<ServerName<'static>> {
        let own = || ServerName::try_from(host.to_owned()).ok();
        self.server_name.clone().or_else(own)
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for ClientTls {
    /// Nothing of its key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

/// Takes the certificates that it knows, and no others.
#[derive(Debug)]
struct OneOfThese {
    known: Vec<CertificateDer<'static>>,
    signatures: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneOfThese {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.known.iter().any(|known| known == shown) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, shown, signed, &self.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, shown, signed, &self.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}

/// A name that a certificate can have.
pub(crate) fn certificate_name(text: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(text.to_owned()).ok()
}

fn trusted(ca: Option<&[u8]>) -> Result<RootCertStore, BadClientTls> {
    let mut trusted = RootCertStore::empty();
    match ca {
        None => {
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            match trusted.is_empty() {
                true => Err(BadClientTls::NoneOfTheMachine),
                false => Ok(trusted),
            }
        }
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| BadClientTls::NoTrusted)?;
                let added = trusted.add(certificate);
                added.map_err(|_| BadClientTls::NoTrusted)?;
            }
            Ok(trusted)
        }
    }
}
