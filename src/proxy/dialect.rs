//! Answer: the refusal of a call, in the dialect that the call speaks.
//!
//! Owns the form of both dialects; the table of refusals has their texts. Must never tell a client
//! anything of another account or of the upstream.
//!
//! # Decided
//! - **A vendor call whose upstream answers anything but 200 gets the envelope**
//!   `FailedOperation.ServerError` (of a 429 `ServiceUnavailable`): its SDKs lose code and message
//!   of any other status. The record keeps the upstream's status.

use crate::http::h1::{Answer, RequestHead};
use crate::http::names::{X_REQUEST_ID, X_TC_ACTION};
use crate::model::RequestIdText;
use crate::proxy::body::Relay;
use crate::proxy::identity::{CredentialFailure, tc3};
use crate::proxy::refusal::Refusal;
use crate::proxy::sentence::ceil_seconds;
use http::{Method, StatusCode};
use std::borrow::Cow;

/// The form of an answer. It follows from the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// The vendor's envelope, always HTTP 200 (PROTOCOL §4).
    Vendor,
    /// Real statuses and problem details (RFC 9457).
    Plain,
}

impl Dialect {
    /// Vendor if `X-TC-Action` is present, `Authorization` begins `TC3` or is `SKIP`, or the call
    /// has the marks of the vendor's older methods. Those SDKs read nothing but the envelope. Never
    /// for CONNECT, to which a 200 would mean that a tunnel is open.
    pub(crate) fn of(head: &RequestHead) -> Self {
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

/// draft-ietf-httpapi-ratelimit-headers-10 §6: all clients have less, none has spent its quota.
const REDUCED_CAPACITY: &str =
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// draft-ietf-httpapi-ratelimit-headers-10 §6
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

impl Refusal {
    /// The answer, without connection handling.
    pub(crate) fn answer(&self, dialect: Dialect, id: &RequestIdText) -> Answer<Relay> {
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
            self.row().code,
            r#"","Message":""#,
            &self.detail(),
            r#""},"RequestId":""#,
            id,
            r#""}}"#,
        ]
        .concat()
    }

    /// Problem details (RFC 9457), with the fields that go with the status.
    fn plain(&self, id: &str) -> Answer<Relay> {
        let row = self.row();
        let mut answer = Answer::own(row.status, self.plain_body(id).into_bytes());
        let lines = answer.lines();
        lines.fixed("content-type: application/problem+json\r\ncache-control: no-store\r\n");
        lines.text(X_REQUEST_ID, id);
        if let Some(wait) = self.retry_after() {
            lines.number("retry-after", ceil_seconds(wait));
        }
        match self {
            Self::Method { allowed } => {
                let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
                lines.text("allow", names.join(", "));
            }
            Self::Credential(_) | Self::Key(_) if row.status == StatusCode::UNAUTHORIZED => {
                lines.fixed("www-authenticate: Bearer\r\n");
            }
            _ => {}
        }
        answer
    }

    /// As [`Self::detail`], but a client of plain HTTP most likely has an API key.
    fn plain_detail(&self) -> Cow<'static, str> {
        match self {
            Self::Credential(CredentialFailure::Missing) => "Send the key as X-Api-Key: KEY or as Authorization: Bearer KEY, or sign the call with TC3-HMAC-SHA256.".into(),
            _ => self.detail(),
        }
    }

    fn plain_body(&self, id: &str) -> String {
        let row = self.row();
        let [namespace, kind] = match self {
            _ if row.is_throttle => [QUOTA_EXCEEDED, ""],
            Self::StoreAway => [REDUCED_CAPACITY, ""],
            _ => ["urn:tollgate:problem:", row.reason],
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
            row.title,
            r#"","status":"#,
            row.status.as_str(),
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

/// The answer in place of an upstream's that the vendor's SDKs could not read: another status than
/// 200 (PROTOCOL §5).
pub(super) fn vendor_failed(id: &RequestIdText, status: StatusCode) -> Answer<Relay> {
    let refusal = match status {
        StatusCode::TOO_MANY_REQUESTS => Refusal::UpstreamBusy,
        _ => Refusal::UpstreamNonsense,
    };
    refusal.vendor(id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AccountId, GroupId, Mode, Stop};
    use crate::proxy::licence::LicenceRefusal;
    use crate::proxy::policy::KeyBar;
    use crate::proxy::progress::UploadFailure;
    use crate::proxy::question::{BadQuestion, CursorText};
    use crate::proxy::refusal::{REFUSALS, RefusalRow};
    use crate::proxy::retry::Retry;
    use crate::proxy::sentence::Sentence;
    use std::collections::BTreeSet;
    use std::time::Duration;

    /// One of each kind of credential that is not accepted, and of each code that a header can get.
    const FAILURES: &[CredentialFailure] = &[
        CredentialFailure::Missing,
        CredentialFailure::Malformed("an API key beside another credential"),
        CredentialFailure::Skip,
        CredentialFailure::OlderMethod,
        CredentialFailure::Token,
        CredentialFailure::Expired { skew_seconds: -301 },
        CredentialFailure::WrongDate,
        CredentialFailure::WrongService,
        CredentialFailure::UnknownId,
        CredentialFailure::UnknownKey,
        CredentialFailure::BadSignature,
        CredentialFailure::RepeatedHeader("authorization"),
        CredentialFailure::RepeatedHeader("host"),
        CredentialFailure::RepeatedHeader("x-tc-version"),
        CredentialFailure::MissingHeader("host"),
        CredentialFailure::MissingHeader("x-tc-timestamp"),
        CredentialFailure::BadHeader("x-tc-timestamp"),
    ];

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
            Refusal::Key(KeyBar::Expired),
            Refusal::Key(KeyBar::Address),
            Refusal::BodyMemory,
            Refusal::AccountConnections,
            Refusal::StoreAway,
            Refusal::LedgerTrouble,
            Refusal::UpstreamUnreachable,
            Refusal::UpstreamCut,
            Refusal::UpstreamNonsense,
            Refusal::UpstreamBusy,
            Refusal::UpstreamTimeout,
            Refusal::NotDurable,
        ];
        refusals.extend(FAILURES.iter().copied().map(Refusal::Credential));
        refusals.extend(uploads.map(Refusal::Upload));
        let cursor = CursorText {
            account: AccountId::new("1250000001"),
            restore_count: 1,
            seq: 7,
        };
        let questions = [
            BadQuestion::Unreadable,
            BadQuestion::Unknown("month"),
            BadQuestion::Twice("month"),
            BadQuestion::Missing("device", "package, device and sdk"),
            BadQuestion::Month,
            BadQuestion::Value("by", "day"),
            BadQuestion::Cursor,
            BadQuestion::CursorOfAnother,
            BadQuestion::CursorForeign,
            BadQuestion::CursorRestored(cursor),
            BadQuestion::RecordsGone,
            BadQuestion::NoStatement,
            BadQuestion::NoDecision,
            BadQuestion::BillsElsewhere,
        ];
        refusals.extend(questions.map(Refusal::Question));
        refusals.extend(LicenceRefusal::ALL.map(Refusal::Licence));
        refusals.extend([
            Refusal::TooManyQuestions,
            Refusal::ExportRuns,
            Refusal::CannotAnswer,
            Refusal::NoCallsHere,
        ]);
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
            assert_eq!(error["Code"], refusal.row().code);
            assert_eq!(vendor["Response"]["RequestId"], "an-id");
            let plain: serde_json::Value = refusal.plain_body("an-id").parse().unwrap();
            assert_eq!(plain["detail"], *refusal.plain_detail());
            assert_eq!(plain["status"], refusal.row().status.as_u16());
            assert_eq!(plain["instance"], "an-id");
            let policies = plain.get("violated-policies");
            let expected = serde_json::json!(["portrait-pic"]);
            assert_eq!(policies, refusal.is_throttle().then_some(&expected));
        }
    }

    #[test]
    fn every_row_is_of_some_refusal_and_its_sentence_is_the_one_that_is_said() {
        let name = |row: &RefusalRow| (row.reason, row.code, row.sentence.to_string());
        let mut reached = BTreeSet::new();
        for refusal in refusals() {
            let (row, said) = (refusal.row(), refusal.detail());
            match row.sentence {
                Sentence::Fixed(text) => assert_eq!(said, text),
                Sentence::Filled([before, _, after]) => {
                    let filled = said.strip_prefix(before).unwrap();
                    let filled = filled.strip_suffix(after).unwrap();
                    assert!(!filled.is_empty() && filled != "0", "{said}");
                }
                Sentence::Said(_) => assert!(row.sentence.to_string().ends_with('.')),
            }
            reached.insert(name(row));
        }
        assert_eq!(reached, REFUSALS.iter().map(name).collect());
        assert_eq!(reached.len(), REFUSALS.len(), "no row stands twice");
    }

    #[test]
    fn retry_after_stands_on_an_answer_exactly_when_the_row_says_so() {
        for refusal in refusals() {
            let seconds = refusal.retry_after().map(ceil_seconds);
            match refusal.row().retry {
                Retry::Quota => assert!(refusal.is_throttle()),
                Retry::Never | Retry::Safe(0) | Retry::Acted(0) => assert_eq!(seconds, None),
                Retry::Safe(told) | Retry::Acted(told) => assert_eq!(seconds, Some(told)),
            }
            assert_eq!(refusal.is_throttle(), refusal.row().retry == Retry::Quota);
        }
    }
}
