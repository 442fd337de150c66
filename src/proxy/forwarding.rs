//! The head of a call as the upstream gets it, and the answer as the client gets it.
//!
//! Owns which fields end here and which only the gate may write. Must never forward a secret, nor
//! let a client speak in the gate's name.
//!
//! # Decided
//! - **Secrets stay at the gate.** API keys are not forwarded; a TC3 `Authorization` is, being no
//!   secret and verifiable by the upstream.
//! - **`traceparent` is forwarded as it came.** A parent id of our own would name a span that nobody
//!   can look up, since no span is exported: the trace would break in two there. One that is
//!   malformed is left out, and `tracestate` with it (W3C Trace Context §3.2.2).

use crate::http::h1::{Answer, ForwardHead, RequestHead};
use crate::http::names::{
    TRACEPARENT, TRACESTATE, X_BILLABLE, X_FORWARDED_FOR, X_REQUEST_ID, X_TC_TRACE_ID,
};
use crate::http::{Field, Fields, Trace, tokens};
use crate::model::RequestId;
use crate::proxy::body::Relay;
use crate::proxy::context::RequestContext;
use crate::proxy::dialect::{self, Dialect};
use crate::proxy::identity::must_stand_once;
use crate::proxy::permit::AdmittedCall;
use crate::proxy::refusal::Refusal;
use crate::proxy::state::Proxy;
use crate::proxy::upstream::{self};
use http::StatusCode;

/// The most fields of a request as the upstream gets it.
const FORWARDED_FIELDS: usize = 100;
/// The gate adds this many of them: account, group, action, request id, the hops, the framing of
/// the body; and a `Host` that is missing.
const ADDED_FIELDS: usize = 7;

impl Proxy {
    /// The head as the upstream gets it. Fields that end at this hop and secret credentials are
    /// left out. The identity is set here and nowhere else.
    pub(super) fn upstream_head(
        &self,
        context: &RequestContext<'_>,
        head: &RequestHead,
        call: &AdmittedCall,
    ) -> ForwardHead {
        let fields = &head.fields;
        let mut forward = ForwardHead::new(head.method.clone(), &head.target);
        let hop = head.hop_by_hop();
        let trace = Trace::of(fields);
        for field in fields.iter() {
            let is_passed_on = !hop.contains(field.name()) && !is_private_field(field);
            if is_passed_on && !is_bad_trace(trace, field.name()) {
                forward.field(field);
            }
        }
        // HTTP/1.0 may come without a Host; it leaves as HTTP/1.1, which must have one.
        if !head.has_host {
            let named = head.target.authority();
            forward.text("host", named.unwrap_or(&call.operation.upstream.host));
        }
        forward.text("x-tollgate-account", call.account.id.as_str());
        forward.text("x-tollgate-group", call.operation.group.as_str());
        forward.text("x-tollgate-action", call.operation.action.as_str());
        forward.text(X_REQUEST_ID, context.id_text);
        // A trusted proxy's list of hops is passed on, with the proxy's own address added. Nobody
        // else's list is believed.
        match context.client.is_trusted {
            true => forward.list(X_FORWARDED_FOR, fields, &context.client.text),
            false => forward.text(X_FORWARDED_FOR, &*context.client.text),
        }
        forward
    }

    /// Answer: the upstream's, under the request id of this call.
    pub(super) fn relay(
        &self,
        context: &RequestContext<'_>,
        answer: upstream::UpstreamAnswer,
    ) -> Answer<Relay> {
        let is_vendor = context.dialect == Dialect::Vendor;
        if is_vendor && answer.status != StatusCode::OK {
            // The SDKs lose the body of any other status (PROTOCOL §4).
            return dialect::vendor_failed(&context.id_text, answer.status);
        }
        let upstream::UpstreamAnswer {
            status,
            fields,
            body,
        } = answer;
        let cut = self.shared.metrics.answers_cut.clone();
        let idle_timeout = body.response_timeout();
        let relay = Relay::new(body, idle_timeout, cut);
        // With a charset the SDKs take an error for a success (PROTOCOL §4).
        let is_set_here = |name: &[u8]| {
            name == X_BILLABLE.as_bytes()
                || name == X_REQUEST_ID.as_bytes()
                || (is_vendor && (name == b"content-type" || name == X_TC_TRACE_ID.as_bytes()))
        };
        let mut answer = Answer::passing(status, &fields, |name| !is_set_here(name), relay);
        answer.lines().text(X_REQUEST_ID, context.id_text);
        if is_vendor {
            answer.lines().fixed("content-type: application/json\r\n");
        }
        answer
    }
}

/// A field that was judged must reach the upstream as it was. If `Connection` took it away, the
/// upstream would do what the gate has not judged. (RFC 9110 §7.6.1 has it that such fields are not
/// named there.)
pub(super) fn check_connection(
    head: &RequestHead,
    is_judged: impl Fn(&[u8]) -> bool,
) -> Result<(), Refusal> {
    let hop = head.hop_by_hop();
    match hop
        .named()
        .any(|name| is_judged(&name.to_ascii_lowercase()))
    {
        true => Err(Refusal::ConnectionOption),
        false => Ok(()),
    }
}

/// Many servers take no more than [`FORWARDED_FIELDS`], and a call that the upstream would refuse
/// is not worth its place in the window.
pub(super) fn check_count(head: &RequestHead) -> Result<(), Refusal> {
    // Nearly every call ends here.
    if head.fields.count() + ADDED_FIELDS <= FORWARDED_FIELDS {
        return Ok(());
    }
    let hop = head.hop_by_hop();
    let passes = |field: &Field<'_>| !hop.contains(field.name()) && !is_private_field(*field);
    let has_host = usize::from(head.has_host);
    match head.fields.iter().filter(passes).count() + ADDED_FIELDS - has_host <= FORWARDED_FIELDS {
        true => Ok(()),
        false => Err(Refusal::TooManyFields {
            limit: FORWARDED_FIELDS,
        }),
    }
}

/// Whether a field was meant for the gate, or is one that the gate writes itself. A TC3 signature
/// is no secret, and the upstream may want to verify it; a bearer key is one.
pub(super) fn is_private_field(field: Field<'_>) -> bool {
    match field.name() {
        b"authorization" => !field.value().starts_with(b"TC3"),
        b"expect" | b"x-api-key" | b"x-forwarded-for" | b"x-request-id" => true,
        name => is_reserved_field(name),
    }
}

/// A trace that is none ends here. So does what the systems of that trace say to each other.
fn is_bad_trace(trace: Trace, name: &[u8]) -> bool {
    trace == Trace::Malformed && (name == TRACEPARENT.as_bytes() || name == TRACESTATE.as_bytes())
}

/// True for each byte that is neither letter, digit nor hyphen.
const ODD: [bool; 256] = {
    let mut odd = [true; 256];
    let mut byte = 0;
    while byte < 128 {
        odd[byte] = !(byte as u8).is_ascii_alphanumeric() && byte as u8 != b'-';
        byte += 1;
    }
    odd
};

/// Names that only the gate may use, and other spellings of those that it sets or has judged. An
/// upstream that hands fields on as variables (CGI, WSGI, PHP) makes one sign of whatever is no
/// letter and no digit. It would obey either.
pub(super) fn is_reserved_field(name: &[u8]) -> bool {
    if name.starts_with(b"x-tollgate-") {
        return true;
    }
    let is_odd = |byte: &u8| ODD[usize::from(*byte)];
    name.iter().any(is_odd) && {
        let mut dashed = name.to_vec();
        for byte in dashed.iter_mut().filter(|byte| is_odd(byte)) {
            *byte = b'-';
        }
        dashed.starts_with(b"x-tollgate-")
            || matches!(
                &*dashed,
                b"x-request-id" | b"x-forwarded-for" | b"content-length" | b"transfer-encoding"
            )
            || must_stand_once(&dashed)
    }
}

/// Whether the upstream says that a call shall not be billed: any `false` does, also beside a
/// `true`. Another word is logged: its sender meant something by it.
pub(super) fn is_vetoed(id: RequestId, fields: &Fields) -> bool {
    let mut is_vetoed = false;
    for word in fields.get_all(X_BILLABLE).flat_map(tokens) {
        if word.eq_ignore_ascii_case(b"false") {
            is_vetoed = true;
        } else if !word.eq_ignore_ascii_case(b"true") {
            let word = String::from_utf8_lossy(word);
            tracing::warn!(request_id = %id, ?word, "the upstream's x-tollgate-billable is neither true nor false");
        }
    }
    is_vetoed
}
