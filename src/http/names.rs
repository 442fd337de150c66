//! The names of fields that several rooms read or write (in lowercase).

/// The name of a call, in its answer and towards the upstream.
pub(crate) const X_REQUEST_ID: &str = "x-request-id";
/// The action that a client of the vendor's protocol calls.
pub(crate) const X_TC_ACTION: &str = "x-tc-action";
/// A client's own name for a call, sent back with the answer.
pub(crate) const X_TC_TRACE_ID: &str = "x-tc-traceid";
/// The hops that a request came through.
pub(crate) const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// By this field an upstream says whether its answer is billable.
pub(crate) const X_BILLABLE: &str = "x-tollgate-billable";
/// The trace that a call belongs to (W3C Trace Context).
pub(crate) const TRACEPARENT: &str = "traceparent";
/// What the systems of that trace say to each other.
pub(crate) const TRACESTATE: &str = "tracestate";
