//! Tree -> typed values: one small reader per kind of value, and the keys of a map.
//!
//! Owns the wording of mistakes that any value may have (wrong kind, missing unit, unknown key).
//! Must never know a particular file's keys. Every reader gives `None` after it has reported.

mod fields;
mod item;
mod source;
mod values;
mod wording;

pub(in crate::config) use fields::Fields;
pub(in crate::config) use item::{Entry, Item, all};
pub(in crate::config) use source::{SeenFile, Source};
pub(in crate::config) use values::{spelled, spelled_size};
pub(in crate::config) use wording::{nearest, point, quoted};
