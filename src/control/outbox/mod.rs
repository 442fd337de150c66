//! The outbox: the records of this gate's ledger go to the collector, by NATS.
//!
//! Owns from where on they are sent, and what the gate says of its own ledger each second.
//! Must never be on the way of a call, take a record for sent that NATS has not acknowledged, or let one
//! be deleted that the collector has not.

mod collected;
mod gate;
mod options;
mod sender;
mod start;
mod status;
mod values;
mod watermarks;
mod work;

pub(in crate::control) use gate::GateOutbox;
pub(in crate::control) use start::{UnfitOutbox, connected, outbox};
pub(in crate::control) use values::{COLLECTED, CollectedValue, WATERMARKS, WatermarkValue};
pub(in crate::control) use work::Sending;
