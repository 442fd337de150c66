//! The places of `limits.connections`, and the rule by which a connection gives way when all are
//! taken.
//!
//! Owns the rule. A connection is *proven* once a call on it has proven a credential. A proven
//! connection keeps its place. Of the others, the one that has been waited for longest gives way to
//! a newcomer.
//!
//! - The wait begins when the connection comes, and again when its first head is whole. Bytes of a
//!   head do not shorten it, for they cost nothing.
//! - An upload that is ahead of the minimum pace is not waited for.
//! - A peer has at most an eighth of the places with unproven connections.
//! - An account has at most half of the places. A connection that a trusted proxy shares among many
//!   clients is an account's only while a call lasts.
//! - Calls that run side by side on a connection of HTTP/2 count for their account like connections,
//!   all but one of them.
//! - A connection whose client a trusted proxy names by the PROXY protocol is that client's as soon
//!   as it is named, and the proxy's before.
//!
//! So a client without a key keeps no one out, and a client with one keeps no other account out
//! (P6, P7). Must never take a lock that other connections take, while a connection's calls are of
//! one account.

mod place;
mod rule;

pub(crate) use place::{CallShare, Place, Places};
pub(super) use rule::Sign;
