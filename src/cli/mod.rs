//! What people ask for on the command line, a file each.
//!
//! Owns what is printed and in which form. Must never compute what it prints, nor write to a ledger that a process serves.

mod usage_text;

pub mod commands;
pub mod demo;
pub mod key;

pub use usage_text::usage_table;
