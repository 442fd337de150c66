//! The customer's own endpoints on the public listener. The customer's credential opens them.
//!
//! Owns which paths and actions are answered here and not by the upstream, and what they say.
//! Must never take quota or make a record, show another account, or keep a worker waiting for the disk.
//!
//! # Decided
//! - **Every answer is of the account that the credential proves.** No parameter names an account,
//!   so none can name another one's. A cursor has its account in it, only to tell a mix-up.

mod decisions;
mod form;
mod front;
mod html;
mod licence_counts;
mod licence_desk;
mod licence_revoking;
mod licences;
mod limits;
mod page;
mod parameters;
mod quota;
mod records;
mod statements;
mod usage;
mod words;

pub(crate) use front::Portal;
pub(crate) use licence_desk::{LicenceDesk, TrialPlaces, UnreadLicences};
pub(crate) use licence_revoking::{NotRevoked, revoke};
pub(crate) use licences::{described, licence_of, sold};
