//! Why a call is not let through. Each refusal has one row in the table. Metrics, both dialects and
//! `deploy/ERRORS.md` are made from it. No row may tell of another account or of the upstream.

use crate::model::{GroupId, Mode, Stop};
use crate::proxy::identity::CredentialFailure;
use crate::proxy::licence::LicenceRefusal;
use crate::proxy::policy::KeyBar;
use crate::proxy::progress::UploadFailure;
use crate::proxy::question::{BadQuestion, CursorText};
use crate::proxy::retry::Retry;
use crate::proxy::sentence::{Sentence, Value, sentence};
use http::{Method, StatusCode};
use std::borrow::Cow;
use std::time::Duration;

/// Why a call is answered here and not by the upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The head is larger than `limits.header_bytes`.
    HeadersTooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The upstream would get more fields than most servers take.
    TooManyFields {
        /// The most fields, those that the gate adds included.
        limit: usize,
    },
    /// The body is larger than `limits.body_bytes`.
    BodyTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The path exists, with other methods.
    Method {
        /// The methods of the path.
        allowed: Vec<Method>,
    },
    /// `Connection` names a field that decides about the call.
    ConnectionOption,
    /// The credential was not accepted.
    Credential(CredentialFailure),
    /// The credential was accepted, and its key does not hold now or from there.
    Key(KeyBar),
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
        /// The group that was called.
        group: GroupId,
        /// When the next purchase begins, if one is known.
        begins_in: Option<Duration>,
    },
    /// Over the cap.
    Throttled {
        /// The group that was called.
        group: GroupId,
        /// The cap, in calls per second.
        quota: u32,
        /// How the account is charged.
        mode: Mode,
        /// The time after which a client that calls alone is admitted.
        retry_after: Duration,
    },
    /// Memory for bodies is taken.
    BodyMemory,
    /// The account holds its part of the connections.
    AccountConnections,
    /// The shared store did not decide in time.
    StoreAway,
    /// Records cannot be committed now.
    LedgerTrouble,
    /// The body did not arrive whole.
    Upload(UploadFailure),
    /// The account asks too often about itself.
    TooManyQuestions,
    /// Another export of the account's records runs.
    ExportRuns,
    /// A question that cannot be answered.
    Question(BadQuestion),
    /// An app gets no grant, or no trial (R19).
    Licence(LicenceRefusal),
    /// The ledger cannot be asked now.
    CannotAnswer,
    /// A call, where only the own endpoints are.
    NoCallsHere,
    /// Admitted, and no connection to the upstream.
    UpstreamUnreachable,
    /// Admitted, and the upstream broke off before its answer.
    UpstreamCut,
    /// Admitted, and the upstream's answer makes no sense.
    UpstreamNonsense,
    /// The upstream has as many calls as it may; or the call was admitted, and it answered that it has
    /// too much to do (429).
    UpstreamBusy,
    /// Admitted, and the upstream did not answer in time.
    UpstreamTimeout,
    /// Admitted, and the record could not be made durable: the call is not billed.
    NotDurable,
}

impl From<LicenceRefusal> for Refusal {
    fn from(refusal: LicenceRefusal) -> Self {
        Self::Licence(refusal)
    }
}

/// The texts and codes of a refusal.
pub struct RefusalRow {
    /// The heading in `deploy/ERRORS.md`.
    pub section: &'static str,
    /// The reason label in metrics and logs. Stable: dashboards depend on it.
    pub reason: &'static str,
    /// The vendor's code (PROTOCOL §5).
    pub code: &'static str,
    /// The status in the plain dialect.
    pub status: StatusCode,
    /// The title in the plain dialect.
    pub title: &'static str,
    /// Whether it is a throttle (R7) rather than a refusal.
    pub is_throttle: bool,
    /// Whether the same call may be sent again.
    pub retry: Retry,
    /// One sentence for the client, with the remedy where there is one.
    pub sentence: Sentence,
}

/// Makes [`REFUSALS`] and the texts of [`Refusal`] from the rows: a pattern, the reason, the
/// vendor's code, status and title, whether to try again, the sentence.
macro_rules! refusals {
    ($($section:literal, is_throttle: $is_throttle:literal { $(
        $pattern:pat => $reason:expr, $code:literal, $status:ident $title:literal, $retry:expr, $sentence:tt;
    )+ })+) => {
        /// Every row, in the order of the page.
        pub const REFUSALS: &[RefusalRow] = &[$($(
            refusals!(@row $section, $is_throttle, $reason, $code, $status $title, $retry, $sentence)
        ),+),+];

        impl Refusal {
            /// Its row of the table.
            #[allow(unused_variables, reason = "the sentence uses what the patterns name")]
            pub(crate) fn row(&self) -> &'static RefusalRow {
                match self {
                    $($($pattern => const {
                        &refusals!(@row $section, $is_throttle, $reason, $code, $status $title, $retry, $sentence)
                    })+)+
                }
            }

            /// Its sentence, with the numbers of this call.
            pub(crate) fn detail(&self) -> Cow<'static, str> {
                match self {
                    $($($pattern => refusals!(@say $sentence),)+)+
                }
            }
        }
    };
    (@row $section:literal, $is_throttle:literal, $reason:expr, $code:literal, $status:ident $title:literal, $retry:expr,
     $sentence:tt) => {
        RefusalRow {
            section: $section,
            reason: $reason,
            code: $code,
            status: StatusCode::$status,
            title: $title,
            is_throttle: $is_throttle,
            retry: $retry,
            sentence: refusals!(@sentence $sentence),
        }
    };
    (@sentence ($text:literal)) => { Sentence::Fixed($text) };
    (@sentence ($before:literal $value:ident $after:literal)) => {
        Sentence::Filled([$before, stringify!($value), $after])
    };
    (@sentence ($failure:ident as $one:expr)) => { Sentence::Said(&$one) };
    (@say ($text:literal)) => { Cow::Borrowed($text) };
    (@say ($before:literal $value:ident $after:literal)) => { $value.between($before, $after).into() };
    (@say ($failure:ident as $one:expr)) => { sentence($failure).into() };
}

refusals! {
    "The call", is_throttle: false {
        Self::HeadersTooLarge { limit } =>
            "headers_too_large", "RequestSizeLimitExceeded", REQUEST_HEADER_FIELDS_TOO_LARGE "Request head too large", Retry::Never,
            ("The request line and headers are over " limit " bytes.");
        Self::TooManyFields { limit } =>
            "too_many_fields", "RequestSizeLimitExceeded", REQUEST_HEADER_FIELDS_TOO_LARGE "Request head too large", Retry::Never,
            ("The request has more header fields than the " limit " that are passed on, those of the gate among them.");
        Self::BodyTooLarge { limit } =>
            "body_too_large", "RequestSizeLimitExceeded", PAYLOAD_TOO_LARGE "Request body too large", Retry::Never,
            ("The request body is over " limit " bytes.");
        Self::Upload(failure @ UploadFailure::TooLarge) =>
            "body_too_large", "RequestSizeLimitExceeded", PAYLOAD_TOO_LARGE "Request body too large", Retry::Never,
            (failure as UploadFailure::TooLarge);
        Self::Upload(failure @ UploadFailure::Incomplete) =>
            "client_incomplete", "InvalidParameter", BAD_REQUEST "Request body incomplete", Retry::Safe(0),
            (failure as UploadFailure::Incomplete);
        Self::Upload(failure @ UploadFailure::TooSlow) =>
            "upload_too_slow", "FailedOperation.RequestTimeout", REQUEST_TIMEOUT "Request body too slow", Retry::Safe(0),
            (failure as UploadFailure::TooSlow);
        Self::Method { allowed } =>
            "method", "UnsupportedProtocol", METHOD_NOT_ALLOWED "Method not allowed", Retry::Never,
            ("Use " allowed ".");
        Self::ConnectionOption =>
            "connection_option", "InvalidParameter", BAD_REQUEST "Connection names what it must not", Retry::Never,
            ("Connection names a field that decides about the call; leave it out there.");
        Self::ActionMissing =>
            "action_missing", "MissingParameter", NOT_FOUND "No such action", Retry::Never,
            ("This path names no action; call one of the documented paths, or name the action in X-TC-Action.");
        Self::ActionUnknown =>
            "action_unknown", "InvalidAction", NOT_FOUND "No such action", Retry::Never,
            ("The action in X-TC-Action does not exist.");
        Self::PathUnknown =>
            "action_unknown", "InvalidAction", NOT_FOUND "No such action", Retry::Never,
            ("No action has this path; call one of the documented paths.");
        Self::ActionMismatch =>
            "action_mismatch", "InvalidParameter", BAD_REQUEST "Two different actions", Retry::Never,
            ("X-TC-Action and the path name different actions; send one of them.");
        Self::VersionMissing =>
            "version_missing", "MissingParameter", BAD_REQUEST "Version missing", Retry::Never,
            ("The header X-TC-Version is missing.");
        Self::VersionUnknown =>
            "version_unknown", "NoSuchVersion", BAD_REQUEST "No such version", Retry::Never,
            ("The version in X-TC-Version is not served.");
        Self::RegionMissing =>
            "region_missing", "MissingParameter", BAD_REQUEST "Region missing", Retry::Never,
            ("The header X-TC-Region is missing.");
        Self::RegionEmpty =>
            "region_empty", "InvalidParameterValue", BAD_REQUEST "Region empty", Retry::Never,
            ("The header X-TC-Region is empty.");
        Self::RegionUnsupported =>
            "region_unsupported", "UnsupportedRegion", BAD_REQUEST "Region not served", Retry::Never,
            ("The action is not served in the region of X-TC-Region.");
    }
    "The credential", is_throttle: false {
        Self::Credential(failure @ CredentialFailure::Missing) =>
            CredentialFailure::Missing.label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::Missing);
        Self::Credential(failure @ CredentialFailure::Malformed(_)) =>
            CredentialFailure::Malformed("the API key is empty").label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::Malformed("the API key is empty"));
        Self::Credential(failure @ CredentialFailure::Skip) =>
            CredentialFailure::Skip.label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::Skip);
        Self::Credential(failure @ CredentialFailure::OlderMethod) =>
            CredentialFailure::OlderMethod.label(), "AuthFailure.SignatureFailure", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::OlderMethod);
        Self::Credential(failure @ CredentialFailure::Token) =>
            CredentialFailure::Token.label(), "AuthFailure.TokenFailure", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::Token);
        Self::Credential(failure @ CredentialFailure::Expired { .. }) =>
            CredentialFailure::Expired { skew_seconds: 301 }.label(), "AuthFailure.SignatureExpire", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::Expired { skew_seconds: 301 });
        Self::Credential(failure @ CredentialFailure::WrongDate) =>
            CredentialFailure::WrongDate.label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::WrongDate);
        Self::Credential(failure @ CredentialFailure::WrongService) =>
            CredentialFailure::WrongService.label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::WrongService);
        Self::Credential(failure @ CredentialFailure::UnknownId) =>
            CredentialFailure::UnknownId.label(), "AuthFailure.SecretIdNotFound", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::UnknownId);
        Self::Credential(failure @ CredentialFailure::UnknownKey) =>
            CredentialFailure::UnknownKey.label(), "AuthFailure.InvalidAuthorization", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::UnknownKey);
        Self::Credential(failure @ CredentialFailure::BadSignature) =>
            CredentialFailure::BadSignature.label(), "AuthFailure.SignatureFailure", UNAUTHORIZED "Not identified", Retry::Never,
            (failure as CredentialFailure::BadSignature);
        Self::Credential(failure @ CredentialFailure::RepeatedHeader("authorization")) =>
            CredentialFailure::RepeatedHeader("authorization").label(), "AuthFailure.InvalidAuthorization", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::RepeatedHeader("authorization"));
        Self::Credential(failure @ CredentialFailure::RepeatedHeader("host" | "content-type")) =>
            CredentialFailure::RepeatedHeader("host").label(), "AuthFailure.SignatureFailure", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::RepeatedHeader("host"));
        Self::Credential(failure @ CredentialFailure::RepeatedHeader(_)) =>
            CredentialFailure::RepeatedHeader("x-tc-action").label(), "InvalidParameter", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::RepeatedHeader("x-tc-action"));
        Self::Credential(failure @ CredentialFailure::MissingHeader("host" | "content-type")) =>
            CredentialFailure::MissingHeader("host").label(), "AuthFailure.SignatureFailure", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::MissingHeader("host"));
        Self::Credential(failure @ CredentialFailure::MissingHeader(_)) =>
            CredentialFailure::MissingHeader("x-tc-timestamp").label(), "MissingParameter", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::MissingHeader("x-tc-timestamp"));
        Self::Credential(failure @ CredentialFailure::BadHeader(_)) =>
            CredentialFailure::BadHeader("x-tc-timestamp").label(), "InvalidParameter", BAD_REQUEST "Malformed request", Retry::Never,
            (failure as CredentialFailure::BadHeader("x-tc-timestamp"));
        // Said to whoever has proven the key, and to nobody else.
        Self::Key(KeyBar::Expired) =>
            "key_expired", "AuthFailure.SecretIdNotFound", UNAUTHORIZED "Key expired", Retry::Never,
            ("The key has expired; use the one that took its place, or ask the provider for another.");
        Self::Key(KeyBar::Address) =>
            "address_not_allowed", "UnauthorizedOperation", FORBIDDEN "Address not allowed", Retry::Never,
            ("The key may not be used from this address; call from one that is allowed for it, or ask the provider.");
    }
    "The account", is_throttle: false {
        Self::NotOpened =>
            "not_opened", "ResourceUnavailable.NotExist", FORBIDDEN "Service not opened", Retry::Never,
            ("The service is not opened for this account; open it first.");
        Self::Stopped(Stop::Arrears) =>
            Stop::Arrears.as_str(), "ResourceUnavailable.InArrears", PAYMENT_REQUIRED "Account in arrears", Retry::Never,
            ("The service is stopped because the account is in arrears; it resumes when the balance is paid.");
        Self::Stopped(Stop::Violation) =>
            Stop::Violation.as_str(), "ResourceUnavailable.StopUsing", FORBIDDEN "Service stopped", Retry::Never,
            ("The service is stopped because of a violation of its terms; ask the provider.");
        Self::AccountConnections =>
            "account_connections", "ServiceUnavailable", SERVICE_UNAVAILABLE "Too many connections", Retry::Safe(1),
            ("The account has too many connections open, or calls at once; close some that are idle, or try again later.");
    }
    "The quota", is_throttle: true {
        Self::Throttled { mode: Mode::Qps, quota, .. } =>
            "over_quota", "RequestLimitExceeded", TOO_MANY_REQUESTS "Quota exceeded", Retry::Quota,
            ("More than the purchased " quota " calls per second; this call is not billed.");
        Self::Throttled { quota, .. } =>
            "over_quota", "RequestLimitExceeded", TOO_MANY_REQUESTS "Quota exceeded", Retry::Quota,
            ("More than " quota " calls per second; this call is not billed.");
        Self::NoQuota { begins_in: Some(seconds), .. } =>
            "no_quota", "RequestLimitExceeded", TOO_MANY_REQUESTS "Quota exceeded", Retry::Quota,
            ("No purchased quota is in force; the next one begins in " seconds " s.");
        Self::NoQuota { begins_in: None, .. } =>
            "no_quota", "RequestLimitExceeded", TOO_MANY_REQUESTS "Quota exceeded", Retry::Quota,
            ("The account is charged by QPS and no purchased quota is in force; buy quota.");
    }
    "Questions to the own endpoints", is_throttle: false {
        Self::TooManyQuestions =>
            "too_many_questions", "RequestLimitExceeded", TOO_MANY_REQUESTS "Too many questions", Retry::Safe(1),
            ("More than 5 questions a second about the account; calls are not held up by that.");
        Self::ExportRuns =>
            "export_runs", "RequestLimitExceeded", TOO_MANY_REQUESTS "Too many questions", Retry::Safe(1),
            ("Another export of the account's records runs; end it, or wait until it has ended.");
        Self::Question(failure @ BadQuestion::Unreadable) =>
            "bad_parameter", "InvalidParameter", BAD_REQUEST "Parameter not understood", Retry::Never,
            (failure as BadQuestion::Unreadable);
        Self::Question(failure @ BadQuestion::Unknown(_)) =>
            "bad_parameter", "UnknownParameter", BAD_REQUEST "Parameter not understood", Retry::Never,
            (failure as BadQuestion::Unknown("month and by"));
        Self::Question(failure @ BadQuestion::Missing(..)) =>
            "bad_parameter", "MissingParameter", BAD_REQUEST "Parameter missing", Retry::Never,
            (failure as BadQuestion::Missing("device", "package, device and sdk"));
        Self::Question(failure @ BadQuestion::Twice(_)) =>
            "bad_parameter", "InvalidParameter", BAD_REQUEST "Parameter not understood", Retry::Never,
            (failure as BadQuestion::Twice("month"));
        Self::Question(failure @ BadQuestion::Month) =>
            "bad_parameter", "InvalidParameterValue", BAD_REQUEST "Parameter not understood", Retry::Never,
            (failure as BadQuestion::Month);
        Self::Question(failure @ BadQuestion::Value(..)) =>
            "bad_parameter", "InvalidParameterValue", BAD_REQUEST "Parameter not understood", Retry::Never,
            (failure as BadQuestion::Value("by", "day, hour, action, key"));
        Self::Question(failure @ BadQuestion::Cursor) =>
            "bad_cursor", "InvalidParameterValue", BAD_REQUEST "Cursor not understood", Retry::Never,
            (failure as BadQuestion::Cursor);
        Self::Question(failure @ BadQuestion::CursorOfAnother) =>
            "bad_cursor", "InvalidParameterValue", BAD_REQUEST "Cursor not understood", Retry::Never,
            (failure as BadQuestion::CursorOfAnother);
        Self::Question(failure @ BadQuestion::CursorForeign) =>
            "bad_cursor", "InvalidParameterValue", BAD_REQUEST "Cursor not understood", Retry::Never,
            (failure as BadQuestion::CursorForeign);
        Self::Question(failure @ BadQuestion::CursorRestored(_)) =>
            "cursor_restored", "InvalidParameterValue", CONFLICT "Records were put back", Retry::Never,
            (failure as BadQuestion::CursorRestored(CursorText { account: None, restore_count: 1, seq: 1_234 }));
        Self::Question(failure @ BadQuestion::RecordsGone) =>
            "records_gone", "ResourceNotFound", GONE "Records deleted", Retry::Never,
            (failure as BadQuestion::RecordsGone);
        Self::Question(failure @ BadQuestion::NoStatement) =>
            "no_statement", "ResourceNotFound", NOT_FOUND "No such statement", Retry::Never,
            (failure as BadQuestion::NoStatement);
        Self::Question(failure @ BadQuestion::NoDecision) =>
            "no_decision", "ResourceNotFound", NOT_FOUND "No such refusal", Retry::Never,
            (failure as BadQuestion::NoDecision);
        Self::CannotAnswer =>
            "cannot_answer", "ServiceUnavailable", SERVICE_UNAVAILABLE "Service unavailable", Retry::Safe(1),
            ("The question cannot be answered now; ask again. Calls are not held up by that.");
        Self::NoCallsHere =>
            "no_calls_here", "UnsupportedOperation", NOT_FOUND "No calls here", Retry::Never,
            ("No calls are taken at this address; send them to a gate. Here are /v1/quota, /v1/usage, /v1/statements and /v1/records.");
        // Not 404: of a month it says that nothing was called in it. Not 5xx: it would be asked again.
        Self::Question(failure @ BadQuestion::BillsElsewhere) =>
            "bills_elsewhere", "UnsupportedOperation", CONFLICT "Bills are made elsewhere", Retry::Never,
            (failure as BadQuestion::BillsElsewhere);
    }
    "Licences for apps", is_throttle: false {
        Self::Licence(failure @ LicenceRefusal::None) =>
            "not_licensed", "UnauthorizedOperation.NotLicensed", FORBIDDEN "App not licensed", Retry::Never,
            (failure as LicenceRefusal::None);
        Self::Licence(failure @ LicenceRefusal::Expired) =>
            "licence_expired", "UnauthorizedOperation.LicenceExpired", FORBIDDEN "Licence ended", Retry::Never,
            (failure as LicenceRefusal::Expired);
        Self::Licence(failure @ LicenceRefusal::NotBegun) =>
            "licence_not_begun", "UnauthorizedOperation.LicenceNotBegun", FORBIDDEN "Licence not begun", Retry::Never,
            (failure as LicenceRefusal::NotBegun);
        Self::Licence(failure @ LicenceRefusal::OtherPackage) =>
            "other_package", "UnauthorizedOperation.OtherPackage", FORBIDDEN "Licence of another app", Retry::Never,
            (failure as LicenceRefusal::OtherPackage);
        Self::Licence(failure @ LicenceRefusal::Revoked) =>
            "licence_revoked", "UnauthorizedOperation.LicenceRevoked", FORBIDDEN "Licence revoked", Retry::Never,
            (failure as LicenceRefusal::Revoked);
        Self::Licence(failure @ LicenceRefusal::TrialLimit) =>
            "trial_limit", "LimitExceeded.TrialApps", FORBIDDEN "No trial left", Retry::Never,
            (failure as LicenceRefusal::TrialLimit);
        Self::Licence(failure @ LicenceRefusal::NeedsAccount) =>
            "trial_needs_account", "UnauthorizedOperation", FORBIDDEN "Credential of the account needed", Retry::Never,
            (failure as LicenceRefusal::NeedsAccount);
        Self::Licence(failure @ LicenceRefusal::NoTrialsHere) =>
            "no_trials_here", "UnsupportedOperation", CONFLICT "No trials here", Retry::Never,
            (failure as LicenceRefusal::NoTrialsHere);
        Self::Licence(failure @ LicenceRefusal::NotSold) =>
            "licences_not_sold", "UnsupportedOperation", NOT_FOUND "No licences here", Retry::Never,
            (failure as LicenceRefusal::NotSold);
        Self::Licence(failure @ LicenceRefusal::Away) =>
            "licences_away", "ServiceUnavailable", SERVICE_UNAVAILABLE "Service unavailable", Retry::Safe(1),
            (failure as LicenceRefusal::Away);
        Self::Licence(failure @ LicenceRefusal::TooMany) =>
            "too_many_grants", "RequestLimitExceeded", TOO_MANY_REQUESTS "Too many requests", Retry::Safe(1),
            (failure as LicenceRefusal::TooMany);
    }
    "The gate", is_throttle: false {
        Self::BodyMemory =>
            "body_memory", "ServiceUnavailable", SERVICE_UNAVAILABLE "Too many large uploads", Retry::Safe(1),
            ("Too many large request bodies at once; try again.");
        Self::StoreAway =>
            "store_away", "ServiceUnavailable", SERVICE_UNAVAILABLE "Temporarily reduced capacity", Retry::Safe(1),
            ("The call cannot be admitted now and is not billed; try again.");
        Self::LedgerTrouble =>
            "ledger_trouble", "ServiceUnavailable", SERVICE_UNAVAILABLE "Service unavailable", Retry::Safe(1),
            ("The call cannot be counted now and is not billed; try again.");
        Self::NotDurable =>
            "not_durable", "InternalError", SERVICE_UNAVAILABLE "Service unavailable", Retry::Acted(1),
            ("The call cannot be counted now and is not billed; try again.");
    }
    // Their sentences do not say whether the call is billed: that depends on the upstream's status,
    // its veto and `bill`.
    "The service behind the gate", is_throttle: false {
        Self::UpstreamUnreachable =>
            "upstream_unreachable", "FailedOperation.RpcFail", BAD_GATEWAY "Service did not answer", Retry::Safe(0),
            ("The service behind the gate did not answer.");
        Self::UpstreamCut =>
            "upstream_cut", "FailedOperation.RpcFail", BAD_GATEWAY "Service did not answer", Retry::Acted(0),
            ("The service behind the gate did not answer.");
        Self::UpstreamNonsense =>
            "upstream_nonsense", "FailedOperation.ServerError", BAD_GATEWAY "Service answered wrongly", Retry::Acted(0),
            ("The service behind the gate failed.");
        Self::UpstreamBusy =>
            "upstream_busy", "ServiceUnavailable", SERVICE_UNAVAILABLE "Service busy", Retry::Safe(1),
            ("The service behind the gate is busy; send the call again in a moment.");
        Self::UpstreamTimeout =>
            "upstream_timeout", "FailedOperation.RequestTimeout", GATEWAY_TIMEOUT "Service did not answer in time", Retry::Acted(0),
            ("The service behind the gate did not answer in time.");
    }
}

impl Refusal {
    /// The reason label in metrics and logs.
    pub(crate) fn reason(&self) -> &'static str {
        self.row().reason
    }

    /// Whether it is a throttle (R7) rather than a refusal.
    pub(crate) fn is_throttle(&self) -> bool {
        self.row().is_throttle
    }

    /// After how long another try makes sense, where that is told.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match (self.row().retry, self) {
            (_, Self::Throttled { retry_after, .. }) => Some(*retry_after),
            (_, Self::NoQuota { begins_in, .. }) => *begins_in,
            (Retry::Safe(seconds @ 1..) | Retry::Acted(seconds @ 1..), _) => {
                Some(Duration::from_secs(seconds))
            }
            _ => None,
        }
    }
}
