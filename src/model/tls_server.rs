//! TLS as a server: the certificates that a listener shows, and how it speaks.
//!
//! Owns which certificate a client sees, and the change of certificates while connections are open.
//! Must never take early data (RFC 8446 §8): a replayed call would be a second call on the bill.
//!
//! # Decided
//! - **Sessions are resumed by tickets that the process alone can read.** A table of sessions would
//!   grow with the clients. The keys of tickets live in memory and change every six hours, so a
//!   ticket of an earlier process, or of another replica, costs one full handshake.

use crate::model::Utc;
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::client::verify_server_name;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::{
    ClientHello, ParsedCertificate, ResolvesServerCert, ServerConfig,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys};

/// Why a certificate cannot be shown.
#[derive(thiserror::Error, Debug)]
pub(crate) enum BadCertificate {
    /// The file of the certificate.
    #[error("`cert` holds no certificate in PEM")]
    NoCertificate,
    /// The same, broken.
    #[error("`cert` is no certificate that TLS can show: {0}")]
    Unreadable(String),
    /// The key.
    #[error("`key` holds no private key in PEM")]
    NoKey,
    /// The same, of an unknown kind.
    #[error("`key` cannot be used: {0}")]
    UnusableKey(rustls::Error),
    /// The two are not a pair.
    #[error("`key` is not the key of the first certificate in `cert`")]
    NotAPair,
}

/// A certificate with those that signed it, and its key.
#[derive(Clone)]
pub(crate) struct ServerCertificate(Arc<CertifiedKey>);

impl ServerCertificate {
    /// Reads both from PEM, the listener's own certificate first.
    ///
    /// # Errors
    /// When they cannot be used, or do not belong together.
    pub(crate) fn read(chain: &[u8], key: &[u8]) -> Result<Self, BadCertificate> {
        let unreadable = |why: &dyn fmt::Display| BadCertificate::Unreadable(why.to_string());
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| unreadable(&error))?;
        let Some(own) = chain.first() else {
            return Err(BadCertificate::NoCertificate);
        };
        ParsedCertificate::try_from(own).map_err(|error| unreadable(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadCertificate::NoKey)?;
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(BadCertificate::UnusableKey)?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
                Ok(Self(Arc::new(pair)))
            }
            Err(_) => Err(BadCertificate::NotAPair),
        }
    }

    /// Whether it is a certificate of this name.
    fn is_of(&self, name: &ServerName<'_>) -> bool {
        let own = self.0.cert.first().map(ParsedCertificate::try_from);
        own.is_some_and(|own| own.is_ok_and(|own| verify_server_name(&own, name).is_ok()))
    }

    /// The certificate itself, without those that signed it.
    pub(crate) fn own(&self) -> Option<&CertificateDer<'static>> {
        self.0.cert.first()
    }

    /// The instant at which it ends; `None` when it cannot be read.
    pub(crate) fn ends(&self) -> Option<Utc> {
        not_after(self.0.cert.first()?)
    }
}

// By hand, so that nothing of a key can get into a log.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificate")
    }
}

/// How a listener speaks TLS. Its clones show the same certificates.
#[derive(Clone)]
pub(crate) struct ServerTls {
    shown: Arc<ShownCertificates>,
    config: Arc<ServerConfig>,
}

/// The certificates that are shown from now on; the first one to whoever names none of them.
struct ShownCertificates(ArcSwap<Vec<ServerCertificate>>);

impl ServerTls {
    /// With these certificates, of which there is at least one. `protocols` are offered by ALPN
    /// (RFC 7301), the best one first.
    pub(crate) fn new(certificates: Vec<ServerCertificate>, protocols: &[&[u8]]) -> Self {
        let shown = Arc::new(ShownCertificates(ArcSwap::from_pointee(certificates)));
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider has what its own versions need")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        config.ignore_client_order = true;
        // Without a ticketer a client that comes again pays for a whole handshake.
        if let Ok(ticketer) = aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        Self {
            shown,
            config: Arc::new(config),
        }
    }

    /// Shows these certificates from the next handshake on. Open connections go on. Gives whether
    /// they are others than before.
    pub(crate) fn show(&self, certificates: Vec<ServerCertificate>) -> bool {
        let shown = self.shown.0.load();
        let is_same =
            |(one, other): (&ServerCertificate, &ServerCertificate)| one.0.cert == other.0.cert;
        let is_other = certificates.len() != shown.len()
            || !certificates.iter().zip(shown.iter()).all(is_same);
        if is_other && !certificates.is_empty() {
            self.shown.0.store(Arc::new(certificates));
        }
        is_other
    }

    /// The instant at which the first of its certificates ends.
    pub(crate) fn ends(&self) -> Option<Utc> {
        let shown = self.shown.0.load();
        shown.iter().filter_map(ServerCertificate::ends).min()
    }

    /// Takes connections of clients.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.clone())
    }
}

impl ResolvesServerCert for ShownCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.0.load();
        let name = hello.server_name();
        let name = name.and_then(|name| ServerName::try_from(name).ok());
        let is_named = |shown: &&ServerCertificate| {
            let name = name.as_ref();
            name.is_some_and(|name| shown.is_of(name))
        };
        // One name may have a certificate of each kind of key.
        let fits = |shown: &&ServerCertificate| {
            let schemes = hello.signature_schemes();
            shown.0.key.choose_scheme(schemes).is_some()
        };
        let best = shown.iter().find(|shown| is_named(shown) && fits(shown));
        // When none fits, the handshake fails by it, with the alert that says so.
        let any = || shown.iter().find(fits).or_else(|| shown.first());
        best.or_else(any).map(|shown| shown.0.clone())
    }
}

impl fmt::Debug for ShownCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} certificates", self.0.load().len())
    }
}

/// The end of the validity of a certificate (RFC 5280 §4.1.2.5), read out of its DER.
fn not_after(certificate: &[u8]) -> Option<Utc> {
    let (_, certificate, _) = value(certificate)?;
    let (_, mut fields, _) = value(certificate)?;
    // An explicit version may come first; then serial number, algorithm, issuer, validity.
    if fields.first() == Some(&0xa0) {
        (_, _, fields) = value(fields)?;
    }
    for _ in 0..3 {
        (_, _, fields) = value(fields)?;
    }
    let (_, validity, _) = value(fields)?;
    let (_, _, end) = value(validity)?;
    let (kind, text, _) = value(end)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match kind {
        // UTCTime: years from 50 on are of the last century.
        0x17 if text.get(..2)? >= "50" => format!("19{text}"),
        0x17 => format!("20{text}"),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &text).ok()?;
    let at = jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?;
    Some(Utc(at.as_microsecond()))
}

/// The tag and the content of the first value, and what follows it (X.690 §8.1).
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x84 => {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(names: &[&str], year: i32) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 5, 17);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_either_form_of_its_time() {
        for (year, instant) in [
            (2031, "2031-05-17T00:00:00Z"),
            (2049, "2049-05-17T00:00:00Z"),
            // From 2050 on the year has four digits (RFC 5280 §4.1.2.5).
            (2077, "2077-05-17T00:00:00Z"),
            (1999, "1999-05-17T00:00:00Z"),
        ] {
            let (chain, key) = made(&["a.test"], year);
            let shown = ServerCertificate::read(chain.as_bytes(), key.as_bytes()).unwrap();
            let at: jiff::Timestamp = instant.parse().unwrap();
            assert_eq!(shown.ends(), Some(Utc(at.as_microsecond())), "{year}");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_end() {
        let (chain, _) = made(&["a.test"], 2031);
        let whole = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        for length in 0..whole.len().min(300) {
            let _ = not_after(&whole[..length]);
        }
        for at in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 0xff;
            let _ = not_after(&bytes);
        }
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_certificate_needs_its_own_key() {
        let (chain, key) = made(&["a.test"], 2031);
        let (_, other) = made(&["b.test"], 2031);
        let why = |chain: &str, key: &str| {
            let read = ServerCertificate::read(chain.as_bytes(), key.as_bytes());
            read.err().map(|bad| bad.to_string())
        };
        assert_eq!(why(&chain, &key), None);
        let both = [
            (&*chain, &*other, "not the key"),
            ("", &*key, "no certificate"),
        ];
        for (chain, key, expected) in both.into_iter().chain([(&*chain, "", "no private key")]) {
            let told = why(chain, key).unwrap();
            assert!(told.contains(expected), "{told}");
        }
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(why(broken, &key).unwrap().contains("no certificate that"));
    }
}
