//! HTTP for both sides, client and upstream: fields, targets, the ends of bodies, sockets, look-ups
//! of names.
//!
//! Owns the framing of bodies and the way of a large body past this process's memory; [`h1`] has
//! the messages of HTTP/1.1. Must never guess where a message ends: what is ambiguous is malformed,
//! and what follows a message is left alone.

mod fields;
mod framing;
mod host;
mod sockets;
mod splice;
mod target;

pub mod h1;
pub mod lookup;
pub mod names;

pub use fields::{Field, Fields, HeadWriter};
pub use framing::{Chunked, Framing, Malformed, length_of, tokens};
pub use sockets::{cut, ends_before, is_quiet, is_reset, reset};
pub use splice::{ByteReader, ByteWriter, PIPES, Pipe, read_now, write_now};
pub use target::Target;

pub(crate) use fields::FieldSpan;
pub(crate) use framing::BULK_BYTES;
