//! Licences for client apps (R19): who has one, and the grants that an offline device verifies.
//!
//! Owns the rules (pure, of an instant that is told), the form of a grant, and the places of trials
//! that several gates share. Must never sign a grant that a licence does not cover, say that an app
//! is the one that it names, or keep a device.
//!
//! # Decided
//! - **A grant is computed and not stored.** Its times follow from the period that now lies in, and
//!   Ed25519 signs the same text the same way: so each replica gives the same grant, and one that
//!   was lost is asked for again.
//! - **Two grants overlap by half of their time.** A device has half of `grant` left whenever it
//!   asks, so it may ask late.
//! - **The id of a key is its thumbprint** (RFC 7638): no name that two keys could share.

mod grant;
mod keys;
mod places;
mod terms;

pub(crate) use grant::{Grant, GrantFor, Ungranted};
pub(crate) use keys::{LicenceKeys, fresh_key};
pub(crate) use places::SharedTrials;
pub(crate) use terms::{Licence, LicenceFacts, Unlicensed, licensed};
