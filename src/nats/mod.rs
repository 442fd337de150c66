//! The way of records between gates and their collector: NATS JetStream.
//!
//! Owns the connection, the stream of records, the buckets of single values, and what of them must
//! be so for a gate to use them. Must never know what is in a message, take a message for sent that
//! the server has not acknowledged, or wait without an end.
//!
//! # Words
//! - **stream**: the messages in their order, each with a sequence. Those of one ledger have one
//!   subject, [`SUBJECTS`] and the id of the ledger.
//! - **bucket**: the last value of each of some keys, with a revision that grows.
//!
//! # Decided
//! - **A message is placed by the sequence of the last one of its subject** which the server
//!   compares before it stores: so a message that is sent twice is stored once, however long the
//!   server was away in between.
//! - **No message has a `Nats-Msg-Id`.** Within the window of duplicates (two minutes) a server
//!   acknowledges an id that it knows as stored, also when an operator has purged the message
//!   meanwhile (seen with 2.9.10 and 2.15.1): a record would be taken for sent that nobody has.
//! - **A request has its own answer and its own five seconds.** The client's collector of
//!   acknowledgements is not used.
//! - **Nothing is sent while there is no connection.** The client would keep it and send it later,
//!   when nobody waits for the answer any more.
//! - **Buckets are made as the streams that they are.** The client's own call asks 2.9.10 for its
//!   account in a form that this client cannot read.

mod bucket;
mod connection;
mod error;
mod feed;
mod fit;
mod options;
mod records;

pub use bucket::{KeyValues, LastValue, Watched};
pub use connection::{Nats, NatsStatus};
pub use error::{BadNatsOptions, NatsError};
pub use feed::{Feed, Fetched};
pub use fit::Difference;
pub use options::{NatsAddress, NatsCertificate, NatsLogin, NatsOptions, SUBJECTS, StreamOptions};
pub use records::{LastRange, Published, Records};
