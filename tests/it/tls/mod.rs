//! TLS and HTTP/2 on the listeners: with real clients, on real sockets.

mod certificates;
pub mod client;
mod http2;
mod listeners;

use crate::harness::*;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A gate whose public listener speaks TLS with a certificate that it made itself.
pub struct TlsGate {
    pub house: Sandbox,
    pub process: Process,
    /// The certificate, which is its own root.
    pub cert: PathBuf,
}

/// Makes a certificate of these names in `directory`, by the gate's own command.
pub fn certificate(directory: &Path, names: &[&str]) -> (PathBuf, PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["key", "new", "--tls"]).arg(directory);
    for name in names {
        command.args(["--host", name]);
    }
    let told = said(&mut command);
    assert_eq!(told.code, Some(0), "{}", told.err);
    assert!(told.out.contains("tls: {certificates:"), "{}", told.out);
    (directory.join("gate.pem"), directory.join("gate.key"))
}

/// The section for these directories of certificates.
pub fn section(directories: &[&str]) -> String {
    let each = directories
        .iter()
        .map(|of| format!("{{cert: {of}/gate.pem, key: {{file: {of}/gate.key}}}}"));
    let each: Vec<String> = each.collect();
    format!("{{certificates: [{}]}}", each.join(", "))
}

impl TlsGate {
    pub async fn start(upstream: &Upstream) -> Self {
        Self::start_with(upstream, &[]).await
    }

    /// `edits` as [`Sandbox::new`] has them.
    pub async fn start_with(upstream: &Upstream, edits: &[(&str, &str)]) -> Self {
        Self::start_to(upstream.address, edits).await
    }

    /// The same before any upstream.
    pub async fn start_to(upstream: SocketAddr, edits: &[(&str, &str)]) -> Self {
        let tls = format!("behind_tls: false\ntls: {}", section(&["tls"]));
        let mut all = vec![("behind_tls: false", tls.as_str())];
        all.extend(edits);
        let house = Sandbox::new(upstream, &all);
        let (cert, _) = certificate(&house.file("tls"), &[]);
        let process = house.start().await;
        Self {
            house,
            process,
            cert,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.house.public.port())
    }

    /// curl with this certificate as its root, and what it printed.
    pub fn curl(&self, args: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "30", "--cacert"]);
        command.arg(&self.cert).args(args);
        said(&mut command)
    }
}
