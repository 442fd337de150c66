//! What can go wrong on the way to the upstream and back.

use crate::http::h1::Nonsense;
use std::io;

/// Why no answer came.
#[derive(thiserror::Error, Debug)]
pub(crate) enum UpstreamFailure {
    /// No connection. Nothing was sent.
    #[error("cannot connect to the upstream {endpoint}: {cause}")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
        /// The system's error.
        cause: io::Error,
    },
    /// Every endpoint of it is out. Nothing was sent.
    #[error("every endpoint of the upstream {0} is out")]
    AllOut(Box<str>),
    /// The body of the request broke off.
    #[error("the request broke off: {0}")]
    Incomplete(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke before the head of the answer.
    #[error("the upstream closed the connection before it answered: {0}")]
    Cut(io::Error),
    /// The bytes that came are no HTTP response.
    #[error(transparent)]
    Nonsense(#[from] Nonsense),
}
