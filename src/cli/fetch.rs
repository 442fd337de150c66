//! HTTP requests of commands, by the gate's own client.
//!
//! Owns connections and deadlines. Must never interpret an answer.

use crate::http::Target;
use crate::http::h1::ForwardHead;
use crate::model::ClientTls;
use crate::proxy::upstream::{Sending, Upstream, UpstreamRequest};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections to an HTTP server, made when they are needed.
pub(in crate::cli) fn connections_to(to: SocketAddr, tls: Option<ClientTls>) -> Arc<Upstream> {
    Upstream::to(to, tls, Duration::from_secs(2), Duration::from_secs(30))
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When the server cannot be reached or its answer cannot be read.
pub(in crate::cli) async fn fetch(
    connections: &Arc<Upstream>,
    request: Request<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (parts, body) = request.into_parts();
    let target = Target::read(&parts.uri.to_string().into()).context("a target that is none")?;
    let mut head = ForwardHead::new(parts.method, &target);
    for field in &parts.headers {
        head.field(field.into());
    }
    let outgoing = UpstreamRequest::new(head, body);
    let in_flight = connections.enter().context("too many requests at once")?;
    let mut sending = Sending::new(in_flight, 0);
    let sent = sending.send(outgoing, || ()).await?;
    let (mut answer, mut read) = (sending.held(sent), BytesMut::new());
    while let Some(data) = poll_fn(|cx| answer.body.poll_data(cx)).await? {
        read.extend_from_slice(&data);
    }
    Ok((answer.status, read.freeze()))
}
