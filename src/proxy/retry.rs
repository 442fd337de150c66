//! What a refusal tells a client of another try.
//!
//! Must never say that the service did nothing where that is not known.

/// Whether the same call may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// Not until the cause in the sentence has changed.
    Never,
    /// When the quota allows it: `Retry-After` says when, if that is known.
    Quota,
    /// The service did not act on the call. After so many seconds, which stand in `Retry-After`; 0
    /// is at once, without the field.
    Safe(u64),
    /// The service may have acted on the call. The seconds are those of [`Safe`](Self::Safe).
    Acted(u64),
}
