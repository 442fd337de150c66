//! The fields that end at a hop (RFC 9110 §7.6.1).

use crate::http::{Fields, tokens};

/// The fields that end at this hop (RFC 9110 §7.6.1): the usual ones, and those that `Connection`
/// of this head names.
#[derive(Default)]
pub(crate) struct HopByHop<'h> {
    pub(super) named: Vec<&'h [u8]>,
}

impl<'h> HopByHop<'h> {
    /// Reads what `Connection` names.
    pub(crate) fn of(fields: &'h Fields) -> Self {
        let mut named = Vec::new();
        for line in fields.get_all("connection") {
            for token in tokens(line) {
                if names_a_field(token) {
                    named.push(token);
                }
            }
        }
        Self { named }
    }

    /// The names in `Connection`, as they stand there, without `close`, `keep-alive` and `host`.
    pub(crate) fn named(&self) -> impl Iterator<Item = &'h [u8]> {
        self.named.iter().copied()
    }

    /// Whether the field must not be passed on. `Content-Length` is one of them: the framing of the
    /// next hop follows from its body.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        let is_named = |named: &&[u8]| named.eq_ignore_ascii_case(name);
        is_of_one_hop(name) || self.named.iter().any(is_named)
    }
}

pub(super) fn is_of_one_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"content-length"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Whether a token of `Connection` names a field that ends here. The usual tokens cost no memory,
/// and a `Host` must not be lost.
pub(super) fn names_a_field(token: &[u8]) -> bool {
    !["", "keep-alive", "close", "host"]
        .iter()
        .any(|usual| token.eq_ignore_ascii_case(usual.as_bytes()))
}
