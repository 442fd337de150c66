//! What customers and operators are told by one of several replicas, whose ledger has a part of the
//! calls.
//!
//! Owns these sentences. Must never say where the other replicas are.

/// The begin of the warning that NATS keeps the records on one disk.
pub(crate) const ONE_NATS_SERVER: &str = "one server of NATS keeps each message";
/// Of counts and records.
pub(crate) const ONE_REPLICAS_PART: &str =
    "one of several gates: these are the calls that this one admitted";
/// Of the money, which this process does not compute.
pub(crate) const BILLS_ELSEWHERE: &str = "the bills, the balance and what is left of packs are kept elsewhere, from the calls of all gates; ask the provider";
/// Of a ledger that a replica wrote, and that a gate without a store must not go on with.
pub(crate) const PART_WITHOUT_STORE: &str = "its newest calls were admitted with a shared store by one of several replicas, or are sent to a \
     collector, and the settings have neither `admission.store` nor `outbox`: a gate that decides alone would bill this part of the calls \
     as if it were all of them. Put the section `admission.store` back (or `outbox`), or give this gate a ledger of its own: a new path as `ledger.path`";
