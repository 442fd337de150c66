//! The library of the store.
