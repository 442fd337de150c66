//! What is to be delivered, as the delivery sees it.
//!
//! Owns the words between the delivery and whoever keeps the events.

use crate::model::{AccountId, Utc};
use std::fmt::Display;

/// An event that was raised, and neither delivered nor passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unsent {
    /// Stable: by it the receiver knows an event that comes again. Visible ASCII.
    pub id: String,
    /// The account that it is about.
    pub account: AccountId,
    /// What happened, as in `pack.low`.
    pub r#type: String,
    /// The JSON text to post.
    pub body: String,
    /// Its first failed attempt, by a clock that was trusted. `None` before one.
    pub failing_since: Option<Utc>,
}

/// An event that was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotTaken {
    /// The event.
    pub event: Unsent,
    /// How often in a row it was not taken by this process.
    pub failed: u32,
}

/// The keeper of events. Everything here may block.
pub(crate) trait Outbox: Send + Sync + 'static {
    /// Why it cannot be read or written.
    type Error: Display + Send + 'static;

    /// The events to send, in the order in which they were raised; of a long list the first few
    /// thousand will do.
    fn unsent(&self) -> Result<Vec<Unsent>, Self::Error>;

    /// Marks events as sent. It is stored when this returns.
    fn sent(&self, ids: &[String]) -> Result<(), Self::Error>;

    /// Takes in what was not taken. Gives the ids of those that are given up: they are not
    /// [`Self::unsent`] any more.
    fn failed(&self, events: &[NotTaken]) -> Result<Vec<String>, Self::Error>;
}
