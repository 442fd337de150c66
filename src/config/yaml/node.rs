//! A tree of values, each with its place.
//!
//! Must never be printed: it may hold a secret.

use crate::config::yaml::Place;

/// A value and where it stands. A list or map that is a value stands at its key, one that is an
/// element stands at its first scalar.
///
/// No `Debug`: it may hold a secret.
pub(in crate::config) struct Node {
    pub place: Place,
    pub value: Value,
}

/// What YAML makes of a value.
pub(in crate::config) enum Value {
    Null,
    Bool(bool),
    /// What some version of YAML takes for a number, as it is written. Also `0x1F`, `+5`, and
    /// `007`, which one version reads as 7, another as octal and a third as text.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, repeated keys included.
    Map(Vec<(Node, Node)>),
    /// `!tag` and whatever follows it; of `!!map` and `!!seq` what follows it.
    Tagged,
}
