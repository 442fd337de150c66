//! The rule of the store, run as the store runs it, and many replicas that use it.

mod asks;
mod clock;
mod process;
mod rule;
mod simulation;
mod world;

pub(crate) use process::{Machine, StoreProcess};
