//! Requests of commands to the operators' listener of the process that runs.
//!
//! Owns where it is reached, and the token. Must never interpret an answer.

use crate::cli::fetch::{connections_to, fetch};
use crate::config::AdminSettings;
use crate::model::ClientTls;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use secrecy::ExposeSecret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Sends a request to the admin listener of these settings and reads the whole answer.
///
/// # Errors
/// When nothing answers there.
pub(in crate::cli) async fn ask_operators(
    admin: &AdminSettings,
    method: &Method,
    target: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let to = reachable(admin.listen);
    let mut request = Request::builder().method(method).uri(target);
    request = request.header(header::HOST, to.to_string());
    if let Some(token) = &admin.token {
        let token = format!("Bearer {}", token.expose_secret());
        request = request.header(header::AUTHORIZATION, token);
    }
    // The process shows what stands in these files, or did so a moment ago.
    let tls = admin.tls.as_deref().map(ClientTls::to_own);
    fetch(&connections_to(to, tls), request.body(Bytes::new())?).await
}

/// The address of an admin path as it is told.
pub(in crate::cli) fn place(admin: &AdminSettings, path: &str) -> String {
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{path}", reachable(admin.listen))
}

/// A listener on all addresses is asked on this machine's own.
pub(in crate::cli) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}
