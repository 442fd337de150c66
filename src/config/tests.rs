//! The tests of the room. Good files with changes, and exactly what is said about them.

mod accounts;
mod bad;
mod catalog;
mod changes;
mod files;
mod load;
mod reference;
mod restart;
mod secrets;
mod settings;
mod text;
