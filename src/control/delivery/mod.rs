//! Events to the webhook (R14, R16, R17): at least once each, and for each account in the order
//! they were raised.
//!
//! Owns the client of the webhook, the signature, and the rule by which an event is tried again.
//! Must never mark an event that was not taken, and never show the webhook's path or a secret.

mod client;
mod outbox;
mod pace;
mod post;
mod signature;
#[cfg(test)]
mod tests;

pub(crate) use client::Webhook;
pub(crate) use outbox::{NotTaken, Outbox, Unsent};
pub(crate) use post::deliver;
