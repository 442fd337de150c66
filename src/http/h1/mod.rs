//! The messages of HTTP/1.1 (RFC 9112): heads read and written, and a client's connection with its
//! requests one after another.
//!
//! Owns the messages read from and written to either side, and how long a client is waited for.
//! Must never read a request before the one ahead of it has been read and answered whole, nor say
//! `100 Continue` for a body that nobody wants.

mod answer;
mod hop;
mod outgoing;
mod reader;
mod request;
mod response;
mod server;
mod writer;

pub use outgoing::Outbox;
pub use request::{BadHead, RequestHead, request_head};
pub use server::FIRST_HEAD;
pub use writer::{READER_BYTES_PER_SECOND, READER_WINDOW};

pub(crate) use answer::{Answer, AnswerBody};
pub(crate) use outgoing::{Body, Coding, NotSent, Outgoing, Piece};
pub(crate) use reader::{Broken, RequestBody};
pub(crate) use request::HEAD_BYTES;
pub(crate) use response::{AnswerHead, ForwardHead, Nonsense, answer_head};
pub(crate) use server::{ClientConnection, Next, RequestTerms};
pub(crate) use writer::{ReaderPace, date};
