//! What customers and operators are told by one of several replicas, whose ledger has a part of the
//! calls.
//!
//! Owns these sentences. Must never say where the other replicas are.

/// The begin of the warning that nobody collects the records.
pub(crate) const NO_OUTBOX: &str = "a store without an outbox";
/// Of counts and records.
pub(crate) const ONE_REPLICAS_PART: &str =
    "one of several gates: these are the calls that this one admitted";
/// Of the money, which this process does not compute.
pub(crate) const BILLS_ELSEWHERE: &str = "the bills, the balance and what is left of packs are kept elsewhere, from the calls of all gates; ask the provider";
