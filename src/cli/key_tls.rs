//! `tollgate key new --tls DIR`: a certificate for trials, signed by itself.
//!
//! Must never print the private key, nor write over a file.

use crate::cli::output::print;
use crate::model::Clock;
use anyhow::Context;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The names of a certificate that is made for none.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// So long it holds; browsers take none that holds much longer.
const DAYS: i64 = 397;

/// Writes a certificate and its key into a directory, and prints where they go.
///
/// # Errors
/// When a file of that name is there already.
pub(super) fn new_tls_key(directory: &Path, hosts: &[String]) -> anyhow::Result<()> {
    let hosts = match hosts {
        [] => LOCAL.map(str::to_owned).to_vec(),
        hosts => hosts.to_vec(),
    };
    let named = hosts.join(", ");
    let mut parameters = rcgen::CertificateParams::new(hosts.clone())
        .with_context(|| format!("{named}: no names or addresses of a host"))?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let own = "tollgate, signed by itself";
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, own);
    let today = Clock::default().utc().seconds() / 86_400;
    // A clock that is a day behind takes it too.
    let date = |days: i64| {
        let at = jiff::Timestamp::from_second((today + days) * 86_400)?;
        let date = jiff::tz::TimeZone::UTC.to_datetime(at).date();
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        anyhow::Ok((date, rcgen::date_time_ymd(date.year().into(), month, day)))
    };
    parameters.not_before = date(-1)?.1;
    let (ends, not_after) = date(DAYS)?;
    parameters.not_after = not_after;
    let key = rcgen::KeyPair::generate().context("no key can be made")?;
    let certificate = parameters
        .self_signed(&key)
        .context("no certificate can be made")?;

    fs::create_dir_all(directory)
        .with_context(|| format!("{} cannot be made", directory.display()))?;
    let (cert, key_file) = (directory.join("gate.pem"), directory.join("gate.key"));
    // The key first: without it the certificate is of no use.
    write_new(&key_file, 0o600, &key.serialize_pem())?;
    write_new(&cert, 0o644, &certificate.pem())?;
    let (cert, key_file) = (cert.display(), key_file.display());
    print(|out| {
        writeln!(
            out,
            "# {cert} is a certificate of {named}, until {ends}. Nobody has signed it but itself:\n\
             # for trials, and for clients that are given it (curl --cacert {cert}).\n\
             # {key_file} holds its private key. Only its owner can read it.\n\
             # In tollgate.yaml (paths are relative to that file):\n\
             tls: {{certificates: [{{cert: {cert}, key: {{file: {key_file}}}}}]}}"
        )
    })
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("{shown} cannot be made"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{shown} cannot be written"))
}
