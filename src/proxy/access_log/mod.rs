//! The access log: a line of JSON of each call, as far as the settings want it.
//!
//! Owns what a line says, and the way of lines to their file. Must never hold up a call: what cannot
//! be written is counted. Must never write a secret: of what a client sent, a line has the address,
//! the trace and what was found in the files.

mod entry;
mod log;
mod output;
mod passing;

pub(crate) use log::AccessLog;

pub(super) use entry::AccessEntry;
pub(super) use passing::LogEntry;
