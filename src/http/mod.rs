//! HTTP for both sides, client and upstream: fields, targets, the ends of bodies, sockets, look-ups
//! of names.
//!
//! Owns the framing of bodies and the way of a large body past this process's memory; [`h1`] has
//! the messages of HTTP/1.1. Must never guess where a message ends: what is ambiguous is malformed,
//! and what follows a message is left alone.

mod fields;
mod framing;
mod host;
mod proxy_protocol;
mod sockets;
mod splice;
mod target;
mod tls;
mod traceparent;

pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod names;

pub(crate) use fields::{Field, FieldSpan, Fields, HeadWriter};
pub(crate) use framing::{BULK_BYTES, Framing, Malformed, length_of, tokens};
pub(crate) use host::is_host;
pub(crate) use proxy_protocol::{NoHeader, read_proxy_header};
pub(crate) use sockets::{SocketRef, cut, ends_before, is_quiet, is_reset, reset};
pub(crate) use splice::{ByteReader, ByteWriter, PIPES, Pipe, read_now};
pub(crate) use target::Target;
pub(crate) use tls::{HTTP_1_1, HTTP_2, TlsConnection};
pub(crate) use traceparent::{Trace, TraceParent};
