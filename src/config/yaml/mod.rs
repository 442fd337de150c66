//! YAML text -> a tree in which every node knows its place.
//!
//! Owns the only use of `serde_yaml`. Must never judge what a value means, and never put a value
//! into a message: it may be a secret.
//!
//! A place costs several times what a scalar does, and the parser holds every event of a document
//! at once, which takes twenty times the text. So a large file is read without places and in pieces
//! first, and once more as a whole and with places when there is something to say about it.

mod node;
mod pieces;
mod place;
mod spelling;
mod tree;

#[cfg(test)]
mod tests;

pub(in crate::config) use node::{Node, Value};
pub(in crate::config) use pieces::pieces;
pub(in crate::config) use place::{Place, Walk, is_break};
pub(in crate::config) use tree::{Places, parse};
