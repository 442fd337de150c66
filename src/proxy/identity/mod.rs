//! Identify: from a request's head, its body's hash and `now` to a proven credential, or to a
//! [`CredentialFailure`].
//!
//! Owns the shape of the two credentials ([`tc3`], [`api_key`](mod@api_key)), the proof of a
//! signature, and the holding down of peers whose credentials fail ([`hold_down`]). Must never know
//! an account, spend a quota, read a clock or speak HTTP: tables of accounts belong to the policy,
//! codes and statuses to the dialects.
//!
//! A call carries one credential. Ask [`api_key::api_key`] first; when it finds none,
//! [`tc3::claim`] judges the rest, the call without any credential included.
#![doc = ""]
#![doc = include_str!("PROTOCOL.md")]

pub(crate) mod api_key;
mod failure;
pub(crate) mod hold_down;
pub(crate) mod tc3;

pub(crate) use failure::{CredentialFailure, must_stand_once};
