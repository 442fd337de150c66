//! Answer: what is said to a call that is not let through, in the dialect that it speaks.
//!
//! Owns the codes, statuses and sentences. Must never tell a caller anything of another account,
//! nor of what stands behind the gate.

use crate::http::HeadWriter;
use crate::http::h1::{Answer, RequestHead};
use crate::http::names::{X_REQUEST_ID, X_TC_ACTION};
use crate::model::{GroupId, Mode, RequestIdText, Stop};
use crate::proxy::body::{Relay, UploadFailure};
use crate::proxy::identity::{Failure, tc3};
use http::{Method, StatusCode};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Which tongue the answer is in. It follows the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// The vendor's envelope, always HTTP 200 (PROTOCOL §4).
    Vendor,
    /// Real statuses and problem details (RFC 9457).
    Plain,
}

impl Dialect {
    /// Vendor if `X-TC-Action` is present, `Authorization` begins `TC3` or is `SKIP`, or the call has
    /// the marks of the vendor's older methods, whose SDKs read nothing but the envelope. Never for
    /// CONNECT, to which a 200 would mean that a tunnel is open.
    pub fn of(head: &RequestHead) -> Self {
        if head.method == Method::CONNECT {
            return Self::Plain;
        }
        let authorization = head.fields.get("authorization");
        let vendor = head.fields.contains(X_TC_ACTION)
            || authorization.is_some_and(|value| value.starts_with(b"TC3") || value == b"SKIP")
            || tc3::is_older_method(head);
        if vendor { Self::Vendor } else { Self::Plain }
    }
}

/// Why a call gets the gate's own words instead of the upstream's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The head is larger than `limits.header_bytes`.
    HeadersTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The upstream would get more fields than most servers take.
    TooManyFields {
        /// The most, those of the gate among them.
        limit: usize,
    },
    /// The body is larger than `limits.body_bytes`.
    BodyTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The path exists, with other methods.
    Method {
        /// Those it has.
        allowed: Vec<Method>,
    },
    /// `Connection` names a field that decides about the call.
    ConnectionOption,
    /// The credential was not accepted.
    Credential(Failure),
    /// No action is named, neither by header nor by route.
    ActionMissing,
    /// The action does not exist.
    ActionUnknown,
    /// No action has this path.
    PathUnknown,
    /// `X-TC-Action` names one action and the path another.
    ActionMismatch,
    /// No `X-TC-Version`.
    VersionMissing,
    /// A version that is not served.
    VersionUnknown,
    /// No `X-TC-Region`.
    RegionMissing,
    /// An empty `X-TC-Region`.
    RegionEmpty,
    /// A region in which the action is not served.
    RegionUnsupported,
    /// The account never opened the service (R9).
    NotOpened,
    /// The service is stopped (R9).
    Stopped(Stop),
    /// Qps mode and no purchase in force.
    NoQuota {
        /// The group.
        group: GroupId,
        /// When the next purchase begins, if one is known.
        begins_in: Option<Duration>,
    },
    /// Over the cap.
    Throttled {
        /// The group.
        group: GroupId,
        /// The cap, in calls per second.
        quota: u32,
        /// How the account is charged.
        mode: Mode,
        /// When a lone caller is admitted.
        retry_after: Duration,
    },
    /// Memory for bodies is taken.
    BodyMemory,
    /// The account holds its part of the connections.
    AccountConnections,
    /// Records cannot be committed now.
    LedgerTrouble,
    /// The body did not arrive whole.
    Upload(UploadFailure),
    /// Admitted, and no connection to the upstream.
    UpstreamUnreachable,
    /// Admitted, and the upstream broke off before its answer.
    UpstreamCut,
    /// Admitted, and the upstream's answer makes no sense.
    UpstreamNonsense,
    /// Admitted, and the upstream answered that it has too much to do (429).
    UpstreamBusy,
    /// Admitted, and the upstream did not answer in time.
    UpstreamTimeout,
    /// Admitted, and the record could not be made durable: the call is not billed.
    NotDurable,
}

/// draft-ietf-httpapi-ratelimit-headers-10 §6
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

/// What a refusal looks like from outside.
struct ErrorShape {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
}

fn face(code: &'static str, status: StatusCode, title: &'static str) -> ErrorShape {
    ErrorShape {
        code,
        status,
        title,
    }
}

impl Refusal {
    /// The reason label in metrics and logs. Stable: dashboards depend on it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::HeadersTooLarge { .. } => "headers_too_large",
            Self::TooManyFields { .. } => "too_many_fields",
            Self::BodyTooLarge { .. } | Self::Upload(UploadFailure::TooLarge) => "body_too_large",
            Self::Method { .. } => "method",
            Self::ConnectionOption => "connection_option",
            Self::Credential(failure) => failure.label(),
            Self::ActionMissing => "action_missing",
            Self::ActionUnknown | Self::PathUnknown => "action_unknown",
            Self::ActionMismatch => "action_mismatch",
            Self::VersionMissing => "version_missing",
            Self::VersionUnknown => "version_unknown",
            Self::RegionMissing => "region_missing",
            Self::RegionEmpty => "region_empty",
            Self::RegionUnsupported => "region_unsupported",
            Self::NotOpened => "not_opened",
            Self::Stopped(stop) => stop.as_str(),
            Self::NoQuota { .. } => "no_quota",
            Self::Throttled { .. } => "over_quota",
            Self::BodyMemory => "body_memory",
            Self::AccountConnections => "account_connections",
            Self::LedgerTrouble => "ledger_trouble",
            Self::Upload(UploadFailure::Incomplete) => "client_incomplete",
            Self::Upload(UploadFailure::TooSlow) => "upload_too_slow",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamCut => "upstream_cut",
            Self::UpstreamNonsense => "upstream_nonsense",
            Self::UpstreamBusy => "upstream_busy",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::NotDurable => "not_durable",
        }
    }

    /// Whether it is a throttle (R7) rather than a refusal.
    pub fn is_throttle(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::NoQuota { .. })
    }

    /// Vendor code (PROTOCOL §5), plain status and title.
    fn face(&self) -> ErrorShape {
        use StatusCode as S;
        match self {
            Self::HeadersTooLarge { .. } | Self::TooManyFields { .. } => face(
                "RequestSizeLimitExceeded",
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Request head too large",
            ),
            Self::BodyTooLarge { .. } | Self::Upload(UploadFailure::TooLarge) => face(
                "RequestSizeLimitExceeded",
                S::PAYLOAD_TOO_LARGE,
                "Request body too large",
            ),
            Self::Method { .. } => face(
                "UnsupportedProtocol",
                S::METHOD_NOT_ALLOWED,
                "Method not allowed",
            ),
            Self::ConnectionOption => face(
                "InvalidParameter",
                S::BAD_REQUEST,
                "Connection names what it must not",
            ),
            Self::Credential(failure) => credential_face(failure),
            Self::ActionMissing => face("MissingParameter", S::NOT_FOUND, "No such action"),
            Self::ActionUnknown | Self::PathUnknown => {
                face("InvalidAction", S::NOT_FOUND, "No such action")
            }
            Self::ActionMismatch => {
                face("InvalidParameter", S::BAD_REQUEST, "Two different actions")
            }
            Self::VersionMissing => face("MissingParameter", S::BAD_REQUEST, "Version missing"),
            Self::VersionUnknown => face("NoSuchVersion", S::BAD_REQUEST, "No such version"),
            Self::RegionMissing => face("MissingParameter", S::BAD_REQUEST, "Region missing"),
            Self::RegionEmpty => face("InvalidParameterValue", S::BAD_REQUEST, "Region empty"),
            Self::RegionUnsupported => {
                face("UnsupportedRegion", S::BAD_REQUEST, "Region not served")
            }
            Self::NotOpened => face(
                "ResourceUnavailable.NotExist",
                S::FORBIDDEN,
                "Service not opened",
            ),
            Self::Stopped(Stop::Arrears) => face(
                "ResourceUnavailable.InArrears",
                S::PAYMENT_REQUIRED,
                "Account in arrears",
            ),
            Self::Stopped(Stop::Violation) => face(
                "ResourceUnavailable.StopUsing",
                S::FORBIDDEN,
                "Service stopped",
            ),
            Self::NoQuota { .. } | Self::Throttled { .. } => face(
                "RequestLimitExceeded",
                S::TOO_MANY_REQUESTS,
                "Quota exceeded",
            ),
            Self::BodyMemory => face(
                "ServiceUnavailable",
                S::SERVICE_UNAVAILABLE,
                "Too many large uploads",
            ),
            Self::AccountConnections => face(
                "ServiceUnavailable",
                S::SERVICE_UNAVAILABLE,
                "Too many connections",
            ),
            Self::LedgerTrouble => face(
                "ServiceUnavailable",
                S::SERVICE_UNAVAILABLE,
                "Service unavailable",
            ),
            Self::Upload(UploadFailure::Incomplete) => face(
                "InvalidParameter",
                S::BAD_REQUEST,
                "Request body incomplete",
            ),
            Self::Upload(UploadFailure::TooSlow) => face(
                "FailedOperation.RequestTimeout",
                S::REQUEST_TIMEOUT,
                "Request body too slow",
            ),
            Self::UpstreamUnreachable | Self::UpstreamCut => face(
                "FailedOperation.RpcFail",
                S::BAD_GATEWAY,
                "Service did not answer",
            ),
            Self::UpstreamNonsense => face(
                "FailedOperation.ServerError",
                S::BAD_GATEWAY,
                "Service answered wrongly",
            ),
            Self::UpstreamBusy => {
                face("ServiceUnavailable", S::SERVICE_UNAVAILABLE, "Service busy")
            }
            Self::UpstreamTimeout => face(
                "FailedOperation.RequestTimeout",
                S::GATEWAY_TIMEOUT,
                "Service did not answer in time",
            ),
            Self::NotDurable => face(
                "InternalError",
                S::SERVICE_UNAVAILABLE,
                "Service unavailable",
            ),
        }
    }

    /// One sentence for the caller, with the remedy where there is one. Our own words and numbers, none of which needs an
    /// escape in JSON; nothing that the caller sent.
    fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::TooManyFields { limit } => {
                format!("The request has more header fields than the {limit} that are passed on, those of the gate among them.").into()
            }
            Self::HeadersTooLarge { limit } => format!("The request line and headers are over {limit} bytes.").into(),
            Self::BodyTooLarge { limit } => format!("The request body is over {limit} bytes.").into(),
            Self::Upload(failure) => sentence(failure).into(),
            Self::Method { allowed } => {
                let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                format!("Use {}.", names.join(" or ")).into()
            }
            Self::ConnectionOption => {
                "Connection names a field that decides about the call; leave it out there.".into()
            }
            Self::Credential(failure) => sentence(failure).into(),
            Self::ActionMissing => {
                "This path names no action; call one of the documented paths, or name the action in X-TC-Action.".into()
            }
            Self::ActionUnknown => "The action in X-TC-Action does not exist.".into(),
            Self::PathUnknown => "No action has this path; call one of the documented paths.".into(),
            Self::ActionMismatch => "X-TC-Action and the path name different actions; send one of them.".into(),
            Self::VersionMissing => "The header X-TC-Version is missing.".into(),
            Self::VersionUnknown => "The version in X-TC-Version is not served.".into(),
            Self::RegionMissing => "The header X-TC-Region is missing.".into(),
            Self::RegionEmpty => "The header X-TC-Region is empty.".into(),
            Self::RegionUnsupported => "The action is not served in the region of X-TC-Region.".into(),
            Self::NotOpened => "The service is not opened for this account; open it first.".into(),
            Self::Stopped(Stop::Arrears) => {
                "The service is stopped because the account is in arrears; it resumes when the balance is paid."
                    .into()
            }
            Self::Stopped(Stop::Violation) => {
                "The service is stopped because of a violation of its terms; ask the provider.".into()
            }
            Self::NoQuota { begins_in: None, .. } => {
                "The account is charged by QPS and no purchased quota is in force; buy quota.".into()
            }
            Self::NoQuota { begins_in: Some(wait), .. } => {
                format!("No purchased quota is in force; the next one begins in {} s.", ceil_seconds(*wait)).into()
            }
            Self::Throttled { quota, mode, .. } => {
                let purchased = match mode {
                    Mode::Qps => "the purchased ",
                    _ => "",
                };
                let mut number = itoa::Buffer::new();
                [
                    "More than ",
                    purchased,
                    number.format(*quota),
                    " calls per second; this call is not billed.",
                ]
                .concat()
                .into()
            }
            Self::BodyMemory => "Too many large request bodies at once; try again.".into(),
            Self::AccountConnections => {
                "The account has too many connections open; close some that are idle, or try again later.".into()
            }
            Self::LedgerTrouble | Self::NotDurable => {
                "The call cannot be counted now and is not billed; try again.".into()
            }
            // Whether these are billed is for the record to say: it depends on the upstream's status,
            // its veto and `bill`.
            Self::UpstreamUnreachable | Self::UpstreamCut => {
                "The service behind the gate did not answer.".into()
            }
            Self::UpstreamNonsense => "The service behind the gate failed.".into(),
            Self::UpstreamBusy => "The service behind the gate is busy; send the call again in a moment.".into(),
            Self::UpstreamTimeout => "The service behind the gate did not answer in time.".into(),
        }
    }

    /// After how long another try makes sense.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } => Some(*retry_after),
            Self::NoQuota { begins_in, .. } => *begins_in,
            Self::BodyMemory
            | Self::AccountConnections
            | Self::LedgerTrouble
            | Self::NotDurable => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// The answer, without connection handling.
    pub fn answer(&self, dialect: Dialect, id: &RequestIdText) -> Answer<Relay> {
        match dialect {
            Dialect::Vendor => self.vendor(id.as_str()),
            Dialect::Plain => self.plain(id.as_str()),
        }
    }

    /// HTTP 200, content type exactly `application/json`, Code, Message and RequestId always:
    /// anything else the SDKs take for success or lose (PROTOCOL §4).
    fn vendor(&self, id: &str) -> Answer<Relay> {
        let mut answer = Answer::own(StatusCode::OK, self.vendor_body(id).into_bytes());
        let lines = answer.lines();
        lines.fixed("content-type: application/json\r\ncache-control: no-store\r\n");
        lines.text(X_REQUEST_ID, id);
        answer
    }

    fn vendor_body(&self, id: &str) -> String {
        [
            r#"{"Response":{"Error":{"Code":""#,
            self.face().code,
            r#"","Message":""#,
            &self.detail(),
            r#""},"RequestId":""#,
            id,
            r#""}}"#,
        ]
        .concat()
    }

    /// Problem details (RFC 9457), and what the fields of HTTP say besides.
    fn plain(&self, id: &str) -> Answer<Relay> {
        let face = self.face();
        let mut answer = Answer::own(face.status, self.plain_body(id).into_bytes());
        let lines = answer.lines();
        lines.fixed("content-type: application/problem+json\r\ncache-control: no-store\r\n");
        lines.text(X_REQUEST_ID, id);
        if let Some(wait) = self.retry_after() {
            lines.number("retry-after", ceil_seconds(wait));
        }
        match self {
            Self::Throttled {
                group,
                quota,
                retry_after,
                ..
            } => {
                rate_limit(lines, group.as_str(), *quota, Some(*retry_after));
            }
            Self::NoQuota { group, begins_in } => rate_limit(lines, group.as_str(), 0, *begins_in),
            Self::Method { allowed } => {
                let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                lines.text("allow", names.join(", "));
            }
            Self::Credential(_) if face.status == StatusCode::UNAUTHORIZED => {
                lines.fixed("www-authenticate: Bearer\r\n");
            }
            _ => {}
        }
        answer
    }

    /// As [`Self::detail`]; who speaks plain HTTP most likely has an API key.
    fn plain_detail(&self) -> Cow<'static, str> {
        match self {
            Self::Credential(Failure::Missing) => "Send the key as X-Api-Key: KEY or as Authorization: Bearer KEY, or sign the call with TC3-HMAC-SHA256.".into(),
            _ => self.detail(),
        }
    }

    fn plain_body(&self, id: &str) -> String {
        let face = self.face();
        let [namespace, kind] = match self.is_throttle() {
            true => [QUOTA_EXCEEDED, ""],
            false => ["urn:tollgate:problem:", self.reason()],
        };
        let [policies, policy, end] = match self {
            Self::Throttled { group, .. } | Self::NoQuota { group, .. } => {
                [r#","violated-policies":[""#, group.as_str(), r#""]}"#]
            }
            _ => ["", "", "}"],
        };
        [
            r#"{"type":""#,
            namespace,
            kind,
            r#"","title":""#,
            face.title,
            r#"","status":"#,
            face.status.as_str(),
            r#","detail":""#,
            &self.plain_detail(),
            r#"","instance":""#,
            id,
            "\"",
            policies,
            policy,
            end,
        ]
        .concat()
    }
}

/// The answer in place of an upstream's that the vendor's SDKs could not read: another status than 200 (PROTOCOL §5).
pub fn vendor_failed(id: &RequestIdText, status: StatusCode) -> Answer<Relay> {
    let refusal = match status {
        StatusCode::TOO_MANY_REQUESTS => Refusal::UpstreamBusy,
        _ => Refusal::UpstreamNonsense,
    };
    refusal.vendor(id.as_str())
}

fn credential_face(failure: &Failure) -> ErrorShape {
    const UNAUTHORIZED: StatusCode = StatusCode::UNAUTHORIZED;
    const BAD_REQUEST: StatusCode = StatusCode::BAD_REQUEST;
    let (code, status) = match failure {
        Failure::Missing
        | Failure::Malformed(_)
        | Failure::Skip
        | Failure::WrongDate
        | Failure::WrongService
        | Failure::UnknownKey => ("AuthFailure.InvalidAuthorization", UNAUTHORIZED),
        Failure::OlderMethod | Failure::BadSignature => {
            ("AuthFailure.SignatureFailure", UNAUTHORIZED)
        }
        Failure::Token => ("AuthFailure.TokenFailure", UNAUTHORIZED),
        Failure::Expired { .. } => ("AuthFailure.SignatureExpire", UNAUTHORIZED),
        Failure::UnknownId => ("AuthFailure.SecretIdNotFound", UNAUTHORIZED),
        Failure::RepeatedHeader("authorization") => {
            ("AuthFailure.InvalidAuthorization", BAD_REQUEST)
        }
        Failure::RepeatedHeader("host" | "content-type") => {
            ("AuthFailure.SignatureFailure", BAD_REQUEST)
        }
        Failure::RepeatedHeader(_) | Failure::BadHeader(_) => ("InvalidParameter", BAD_REQUEST),
        Failure::MissingHeader("host" | "content-type") => {
            ("AuthFailure.SignatureFailure", BAD_REQUEST)
        }
        Failure::MissingHeader(_) => ("MissingParameter", BAD_REQUEST),
    };
    let title = if status == UNAUTHORIZED {
        "Not identified"
    } else {
        "Malformed request"
    };
    face(code, status, title)
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10: the policy's name is the group.
fn rate_limit(lines: &mut HeadWriter, group: &str, quota: u32, reset: Option<Duration>) {
    let mut number = itoa::Buffer::new();
    let quota = number.format(quota);
    lines.texts("ratelimit-policy", ["\"", group, "\";q=", quota, ";w=1"]);
    match reset {
        Some(wait) => {
            let seconds = number.format(ceil_seconds(wait));
            lines.texts("ratelimit", ["\"", group, "\";r=0;t=", seconds]);
        }
        None => lines.texts("ratelimit", ["\"", group, "\";r=0"]),
    }
}

/// Rounded up, at least 1: who comes back then finds the window open.
fn ceil_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn sentence(text: impl fmt::Display) -> String {
    let mut text = format!("{text}.");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some of each kind, and every text that stands for itself.
    fn refusals() -> Vec<Refusal> {
        let group = || GroupId::new("portrait-pic").unwrap();
        let throttled = |mode, quota| Refusal::Throttled {
            group: group(),
            quota,
            mode,
            retry_after: Duration::from_millis(1),
        };
        let no_quota = |begins_in| Refusal::NoQuota {
            group: group(),
            begins_in,
        };
        let allowed = vec![
            Method::POST,
            Method::from_bytes(b"!#$%&'*+-.^_`|~").unwrap(),
        ];
        let failures = [
            Failure::Missing,
            Failure::Malformed("an API key beside another credential"),
            Failure::Skip,
            Failure::OlderMethod,
            Failure::Token,
            Failure::Expired { skew_seconds: -301 },
            Failure::WrongDate,
            Failure::WrongService,
            Failure::UnknownId,
            Failure::UnknownKey,
            Failure::BadSignature,
            Failure::RepeatedHeader("host"),
            Failure::MissingHeader("host"),
            Failure::BadHeader("x-tc-timestamp"),
        ];
        let uploads = [
            UploadFailure::Incomplete,
            UploadFailure::TooLarge,
            UploadFailure::TooSlow,
        ];
        let mut refusals = vec![
            Refusal::HeadersTooLarge { limit: 1 },
            Refusal::TooManyFields { limit: 1 },
            Refusal::BodyTooLarge { limit: 1 },
            Refusal::Method { allowed },
            Refusal::ConnectionOption,
            Refusal::ActionMissing,
            Refusal::ActionUnknown,
            Refusal::PathUnknown,
            Refusal::ActionMismatch,
            Refusal::VersionMissing,
            Refusal::VersionUnknown,
            Refusal::RegionMissing,
            Refusal::RegionEmpty,
            Refusal::RegionUnsupported,
            Refusal::NotOpened,
            Refusal::Stopped(Stop::Arrears),
            Refusal::Stopped(Stop::Violation),
            no_quota(None),
            no_quota(Some(Duration::from_secs(5))),
            throttled(Mode::PerCall, 20),
            throttled(Mode::Qps, u32::MAX),
            Refusal::BodyMemory,
            Refusal::AccountConnections,
            Refusal::LedgerTrouble,
            Refusal::UpstreamUnreachable,
            Refusal::UpstreamCut,
            Refusal::UpstreamNonsense,
            Refusal::UpstreamBusy,
            Refusal::UpstreamTimeout,
            Refusal::NotDurable,
        ];
        refusals.extend(failures.map(Refusal::Credential));
        refusals.extend(uploads.map(Refusal::Upload));
        refusals
    }

    #[test]
    fn every_refusal_is_json_in_both_dialects_and_says_its_sentence() {
        for refusal in refusals() {
            let sentence = refusal.detail();
            assert!(sentence.ends_with('.') && !sentence.starts_with(char::is_lowercase));
            let vendor: serde_json::Value = refusal.vendor_body("an-id").parse().unwrap();
            let error = &vendor["Response"]["Error"];
            assert_eq!(error["Message"], *sentence);
            assert_eq!(error["Code"], refusal.face().code);
            assert_eq!(vendor["Response"]["RequestId"], "an-id");
            let plain: serde_json::Value = refusal.plain_body("an-id").parse().unwrap();
            assert_eq!(plain["detail"], *refusal.plain_detail());
            assert_eq!(plain["status"], refusal.face().status.as_u16());
            assert_eq!(plain["instance"], "an-id");
            let policies = plain.get("violated-policies");
            let expected = serde_json::json!(["portrait-pic"]);
            assert_eq!(policies, refusal.is_throttle().then_some(&expected));
        }
    }
}
