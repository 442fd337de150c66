//! HTTP/2 as a client speaks it (RFC 9113): each stream is a request and its answer.
//!
//! Owns the heads of requests and answers in HTTP/2, and the bounds of a connection. Must never let
//! one stream hold up another, nor read on while a peer makes work and asks for nothing.
//!
//! # Decided
//! - **The crate `h2` itself, without hyper's server around it.** hyper drops a request whose
//!   stream is reset, and offers no way to reset one. Here a call goes on once the upstream has
//!   been asked (R8), and a reader that takes nothing loses its stream, not its connection.
//! - **Only under TLS** (ALPN `h2`). Without it a client would have to know beforehand, and the
//!   proxies that do so can speak HTTP/1.1.

mod body;
mod head;
mod meter;
mod server;
mod stream;

pub(crate) use body::StreamBody;
pub(crate) use server::{Arrived, StreamConnection};
pub(crate) use stream::ClientStream;
