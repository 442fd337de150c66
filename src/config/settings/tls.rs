//! The sections `tls` and `admin.tls`: the certificates that a listener shows.
//!
//! Owns that each certificate has its own key. Must never hold a key in a form that can be printed.

use crate::config::reader::Item;
use crate::config::settings::section::Section;
use crate::config::settings::store::certificates;
use crate::model::{BadCertificate, Clock, Local, ServerCertificate};
use jiff::tz::TimeZone;
use secrecy::ExposeSecret;

/// The most certificates of a listener: each handshake may look at all of them.
const MOST: usize = 64;

pub(in crate::config) fn tls(item: Item<'_>) -> Option<Vec<ServerCertificate>> {
    let mut fields = Section::open(item)?;
    let at = fields.written("certificates").unwrap_or(item);
    let read = fields.value("certificates", |item| item.each(certificate));
    fields.close();
    match read? {
        read if read.is_empty() => {
            at.refuse("is empty: name one, such as {cert: tls/gate.pem, key: {file: tls/gate.key}}")
        }
        read if read.len() > MOST => at.refuse(format!("has more than {MOST} certificates")),
        read => Some(read),
    }
}

fn certificate(item: Item<'_>) -> Option<ServerCertificate> {
    let mut fields = item.fields()?;
    let (cert_at, key_at) = (fields.get("cert"), fields.get("key"));
    let chain = fields.required("cert", "tls/gate.pem", certificates);
    let key = fields.required("key", "{file: tls/gate.key}", Item::private_key);
    fields.close();
    let (chain, key) = (chain?, key?);
    match ServerCertificate::read(&chain, key.expose_secret().as_bytes()) {
        Ok(read) => {
            let now = Clock::default().utc();
            if let Some(ends) = read.ends().filter(|ends| *ends <= now) {
                let ended = Local::new(ends, &TimeZone::UTC);
                let at = cert_at.unwrap_or(item);
                at.warn(format!(
                    "this certificate ended at {ended}: no client takes it"
                ));
            }
            Some(read)
        }
        Err(
            bad @ (BadCertificate::NoKey
            | BadCertificate::UnusableKey(_)
            | BadCertificate::NotAPair),
        ) => key_at.unwrap_or(item).refuse(bad),
        Err(bad) => cert_at.unwrap_or(item).refuse(bad),
    }
}
