//! HTTP requests of commands, by the gate's own client.
//!
//! Owns connections and deadlines. Must never interpret an answer.

use crate::http::Target;
use crate::http::h1::ForwardHead;
use crate::proxy::upstream::{Dialer, Keep, NotAnswered, Upstream, UpstreamRequest};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Connections to an HTTP server, made when they are needed.
pub(super) fn connections_to(to: SocketAddr) -> Arc<Upstream> {
    let timeout = Duration::from_secs(2);
    let dialer = Dialer::new(to.ip().to_string(), to.port(), timeout, |_| ());
    let keep = Keep {
        idle_timeout: Duration::from_secs(30),
        max_age: None,
    };
    Arc::new(Upstream::new(Arc::new(dialer), keep))
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When the server cannot be reached or its answer cannot be read.
pub(super) async fn fetch(
    connections: &Arc<Upstream>,
    request: Request<Bytes>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (parts, body) = request.into_parts();
    let target = Target::read(&parts.uri.to_string().into()).context("a target that is none")?;
    let mut head = ForwardHead::new(parts.method, &target);
    for field in &parts.headers {
        head.field(field.into());
    }
    let mut outgoing = UpstreamRequest::new(head, body);
    loop {
        match connections.connection().await?.send(outgoing).await {
            Ok(mut answer) => {
                let mut read = BytesMut::new();
                while let Some(data) = poll_fn(|cx| answer.body.poll_data(cx)).await? {
                    read.extend_from_slice(&data);
                }
                return Ok((answer.status, read.freeze()));
            }
            // A kept connection was closed meanwhile: the request goes on another one.
            Err(NotAnswered::Unsent(back)) => outgoing = back,
            Err(NotAnswered::Failed(failure)) => return Err(failure.into()),
        }
    }
}
