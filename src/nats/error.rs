//! What can be wrong between this process and NATS.
//!
//! Must never say that something was done that may not have been.

use crate::nats::fit::Difference;
use std::fmt::Write;

/// Why an answer of NATS is missing.
#[derive(thiserror::Error, Debug)]
pub enum NatsError {
    /// There is no connection, or no answer came in time. What was asked may have been done.
    #[error("{0}")]
    Away(String),
    /// The stream or the bucket is not there, or the server has no JetStream.
    #[error(
        "{0} is not there: it was deleted, or the server runs without JetStream (`nats-server -js`)"
    )]
    Gone(String),
    /// The stream is not what it must be.
    #[error(
        "the stream {stream} is not as the settings say: {}; {}",
        listed(differences),
        remedy(stream, *is_only_copy)
    )]
    Unfit {
        /// Its name.
        stream: String,
        /// At least one.
        differences: Vec<Difference>,
        /// What it has stands nowhere else, so nobody sends it again.
        is_only_copy: bool,
    },
    /// The server refuses.
    #[error("NATS refuses: {why} ({code})")]
    Refused {
        /// JetStream's code of the error.
        code: u64,
        /// In the server's words.
        why: String,
    },
}

/// The options of the connection cannot be used.
#[derive(thiserror::Error, Debug)]
#[error("{0}")]
pub struct BadNatsOptions(pub(in crate::nats) String);

/// What may be done about a connection that is refused: the client says little more than the kind.
/// What TLS fails of is told as an error of input and output.
pub(in crate::nats) fn with_remedy(why: String, is_tls: bool) -> String {
    let said = why.to_ascii_lowercase();
    let is_refused = said.contains("tls error") || said.contains("io error");
    let remedy = if said.contains("authorization violation") {
        "NATS does not know us: compare `username` and `password`, `credentials` or `nkey` with its users"
    } else if said.contains("signing nonce") {
        "`nkey`, or the seed in `credentials`, is no seed of a user's key"
    } else if is_refused && is_tls {
        "is a server there that speaks TLS? Then `ca` must have signed its certificate, which must name the host in `servers`; a \
         server that wants a certificate takes only a `certificate` whose authority it knows"
    } else if is_refused {
        "is a server there? One that speaks TLS needs `tls: true`"
    } else {
        return why;
    };
    format!("{why}: {remedy}")
}

fn listed(differences: &[Difference]) -> String {
    let mut text = String::new();
    for (n, difference) in differences.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // A String takes all.
        let _ = write!(text, "{comma}{difference}");
    }
    text
}

fn remedy(stream: &str, is_only_copy: bool) -> String {
    if is_only_copy {
        return format!(
            "change it (`nats stream edit {stream}`) or the settings; do not delete it, for nobody has the whole of it: where it cannot be \
             changed, put its messages into another that is so (`nats stream backup`, `restore`)"
        );
    }
    format!(
        "change it (`nats stream edit {stream}`) or the settings, or delete it: it is made again, and \
         what was not collected is sent again"
    )
}

pub(in crate::nats) fn refused(fault: &async_nats::jetstream::Error) -> NatsError {
    NatsError::Refused {
        code: fault.error_code().0,
        why: fault.to_string(),
    }
}

/// An error of which nothing is known but its text.
pub(in crate::nats) fn request_error(name: &str, error: &dyn std::error::Error) -> NatsError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    match text.contains("no responders") || text.contains("stream not found") {
        true => NatsError::Gone(format!("the stream {name}")),
        false => NatsError::Away(text),
    }
}
