//! What clients are told, in both dialects (PROTOCOL §4, §5): every field that a client or an SDK
//! reads.

use crate::harness::*;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use std::time::Duration;
use tollgate::testing::config::{Account, Config, Credential};
use tollgate::testing::model::{AccountId, Mode, Outcome, Reason, Stop, Utc};
use tollgate::testing::proxy::identity::api_key::ApiKeyDigest;

const BODY: &str = "{\"Image\":\"iVBORw0KGgo=\"}";
const VIOLATION_KEY: &str = "violation-key";
const NO_QUOTA_KEY: &str = "no-quota-key";
const LATER_KEY: &str = "later-key";
const UNOPENED_KEY: &str = "unopened-key";

/// Accounts for the refusals that the sample accounts do not get.
fn more_accounts(config: &mut Config) {
    let mut add = |key: &str, change: &dyn Fn(&mut Account)| {
        let mut account = config.accounts[1].clone();
        account.id = AccountId::new(key).unwrap();
        let sha256 = ApiKeyDigest::of(key.as_bytes()).0;
        account.keys = Box::new([Credential::ApiKey { sha256 }.into()]);
        change(&mut account);
        config.accounts.push(account);
    };
    add(VIOLATION_KEY, &|account| {
        account.services[0].stopped = Some(Stop::Violation)
    });
    add(NO_QUOTA_KEY, &|account| {
        account.services[0].qps_purchases = Box::default()
    });
    add(LATER_KEY, &|account| {
        let mut purchase = account.services[0].qps_purchases[0].clone();
        purchase.from = Utc(later().0 + 3_600_000_000);
        account.services[0].qps_purchases = Box::new([purchase]);
    });
    add(UNOPENED_KEY, &|account| {
        account.services[0].opened = Utc(later().0 + 3_600_000_000)
    });
    config.settings.limits.body_bytes = 1_000;
    config.settings.limits.header_bytes = 8 * 1024;
}

fn later() -> Utc {
    tollgate::testing::model::Clock::default().utc()
}

/// A change of a request that was sound.
type Change = Box<dyn Fn(&mut Request<Full<Bytes>>)>;

fn with(name: &'static str, value: &'static str) -> Change {
    Box::new(move |request| {
        let name = HeaderName::from_static(name);
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    })
}

fn again(name: &'static str, value: &'static str) -> Change {
    Box::new(move |request| {
        let name = HeaderName::from_static(name);
        request
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    })
}

fn without(name: &'static str) -> Change {
    Box::new(move |request| {
        request.headers_mut().remove(name).expect("it was there");
    })
}

fn with_method(method: Method) -> Change {
    Box::new(move |request| *request.method_mut() = method.clone())
}

fn with_path(path: &'static str) -> Change {
    Box::new(move |request| *request.uri_mut() = path.parse().unwrap())
}

fn with_body(bytes: usize) -> Change {
    Box::new(move |request| *request.body_mut() = Full::new(Bytes::from(vec![b'x'; bytes])))
}

fn long_header() -> Change {
    Box::new(|request| {
        let value = HeaderValue::from_bytes(&[b'x'; 9_000]).unwrap();
        request.headers_mut().insert("x-long", value);
    })
}

fn nothing() -> Change {
    Box::new(|_| ())
}

/// Key, change, status, reason, title, fields.
type PlainCase = (
    &'static str,
    Change,
    u16,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_plain_http_is_told_of_keys_first_and_of_a_path_that_is_no_action() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for (change, told) in [
        (
            without("x-api-key"),
            "Send the key as X-Api-Key: KEY or as Authorization: Bearer KEY, or sign the call with TC3-HMAC-SHA256.",
        ),
        (
            with("authorization", "Basic eA=="),
            "The credential is malformed: an API key beside another credential.",
        ),
        (
            with_path("/v1/nothing"),
            "No action has this path; call one of the documented paths.",
        ),
        (
            with_path("/"),
            "This path names no action; call one of the documented paths, or name the action in X-TC-Action.",
        ),
    ] {
        let mut request = segment(STUDIO_KEY);
        change(&mut request);
        let (_, _, body) = send(gate.public, request).await;
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["detail"], told);
    }
    // Alone, a scheme that is none of ours: the key is named first here too.
    let mut request = segment(STUDIO_KEY);
    without("x-api-key")(&mut request);
    with("authorization", "Basic eA==")(&mut request);
    let (status, _, body) = send(gate.public, request).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body["detail"],
        "The credential is malformed: send a key as X-Api-Key: KEY or as Authorization: Bearer KEY; anything else in Authorization must be a TC3-HMAC-SHA256 signature."
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_plain_refusal_is_a_problem_with_its_status_its_reason_and_its_remedy() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, more_accounts).await;
    let quota = "https://iana.org/assignments/http-problem-types#quota-exceeded";
    let none: &[(&str, &str)] = &[];
    let bearer: &[(&str, &str)] = &[("www-authenticate", "Bearer")];
    // Of an account that is identified, in a group that is known.
    let stopped: &[(&str, &str)] = &[
        ("ratelimit", "\"portrait-segmentation\";r=0"),
        ("ratelimit-policy", "\"portrait-segmentation\";q=0;w=1"),
    ];
    #[rustfmt::skip]
    let cases: Vec<PlainCase> = vec![
        (STUDIO_KEY, without("x-api-key"), 401, "missing", "Not identified", bearer),
        ("nobodys", nothing(), 401, "unknown_key", "Not identified", bearer),
        ("", nothing(), 401, "malformed", "Not identified", bearer),
        (STUDIO_KEY, with("authorization", "Bearer other"), 401, "malformed", "Not identified", bearer),
        (STUDIO_KEY, with("authorization", "Basic eA=="), 401, "malformed", "Not identified", bearer),
        (STUDIO_KEY, again("x-api-key", STUDIO_KEY), 400, "repeated_header", "Malformed request", none),
        (STUDIO_KEY, again("host", "gate.test"), 400, "repeated_header", "Malformed request", none),
        (STUDIO_KEY, without("host"), 400, "missing_header", "Malformed request", none),
        (STUDIO_KEY, with_method(Method::GET), 405, "method", "Method not allowed", &[("allow", "POST")]),
        (STUDIO_KEY, with_path("/v1/nothing"), 404, "action_unknown", "No such action", none),
        (STUDIO_KEY, with_path("/v1/portrait/segment/"), 404, "action_unknown", "No such action", none),
        (STUDIO_KEY, with_path("/"), 404, "action_missing", "No such action", none),
        (STUDIO_KEY, with_body(1_001), 413, "body_too_large", "Request body too large", none),
        (STUDIO_KEY, long_header(), 431, "headers_too_large", "Request head too large", none),
        (ARREARS_KEY, nothing(), 402, "arrears", "Account in arrears", stopped),
        (VIOLATION_KEY, nothing(), 403, "violation", "Service stopped", stopped),
        (VIDEO_KEY, nothing(), 403, "not_opened", "Service not opened", stopped),
        (UNOPENED_KEY, nothing(), 403, "not_opened", "Service not opened", stopped),
        (NO_QUOTA_KEY, nothing(), 429, quota, "Quota exceeded", &[
            ("ratelimit", "\"portrait-segmentation\";r=0"),
            ("ratelimit-policy", "\"portrait-segmentation\";q=0;w=1"),
        ]),
        (LATER_KEY, nothing(), 429, quota, "Quota exceeded", &[
            ("ratelimit-policy", "\"portrait-segmentation\";q=0;w=1"),
        ]),
    ];
    let sent = cases.len() as u64;
    for (key, change, status, reason, title, fields) in cases {
        let mut request = segment(key);
        change(&mut request);
        let what = format!("{key} {reason}");
        let (got, headers, body) = send(gate.public, request).await;
        assert_eq!(got.as_u16(), status, "{what}");
        assert_eq!(
            headers["content-type"], "application/problem+json",
            "{what}"
        );
        assert_eq!(headers["cache-control"], "no-store", "{what}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let kind = match reason.starts_with("https:") {
            true => reason.to_owned(),
            false => format!("urn:tollgate:problem:{reason}"),
        };
        assert_eq!(body["type"], kind, "{what}");
        assert_eq!(body["title"], title, "{what}");
        assert_eq!(body["status"], status, "{what}");
        assert!(
            body["detail"].as_str().unwrap().ends_with('.'),
            "{what}: {body}"
        );
        assert_eq!(
            body["instance"],
            headers["x-request-id"].to_str().unwrap(),
            "{what}"
        );
        for (name, value) in fields {
            assert_eq!(headers[*name], value, "{what}");
        }
        for name in [
            "www-authenticate",
            "allow",
            "ratelimit-policy",
            "x-tc-traceid",
        ] {
            let named = fields.iter().any(|(known, _)| *known == name);
            assert_eq!(headers.contains_key(name), named, "{what}: {name}");
        }
        let retry_after = headers
            .get("retry-after")
            .map(|v| v.to_str().unwrap().parse::<u32>());
        match key {
            LATER_KEY => {
                let wait = retry_after.unwrap().unwrap();
                assert!((3_500..=3_600).contains(&wait), "{wait}");
                let limit = headers["ratelimit"].to_str().unwrap();
                assert_eq!(limit, format!("\"portrait-segmentation\";r=0;t={wait}"));
            }
            _ => assert_eq!(retry_after, None, "{what}"),
        }
    }
    assert!(gate.records().is_empty());
    assert!(upstream.seen().is_empty());
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.decided("throttled"), 2);
    let no_quota = [
        "decision=\"throttled\"",
        "mode=\"qps\"",
        "reason=\"no_quota\"",
    ];
    assert_eq!(metrics.sum("tollgate_requests_total", &no_quota), 2);
    assert_eq!(metrics.decided("refused"), sent - 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vendor_refusal_is_an_envelope_on_http_200_with_its_code_and_request_id() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, more_accounts).await;
    let by_signature = || signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", BODY);
    let older_form = |media_type: &'static str| {
        let mut request = plain("POST", "/", "", "Action=SegmentPortraitPic&Signature=x");
        without("x-api-key")(&mut request);
        with("content-type", media_type)(&mut request);
        request
    };
    let by_key = |key: &str| {
        let mut request = plain("POST", "/", key, BODY);
        for (name, value) in [
            ("x-tc-action", "SegmentPortraitPic"),
            ("x-tc-version", "2020-03-24"),
            ("x-tc-region", "ap-beijing"),
        ] {
            with(name, value)(&mut request);
        }
        request
    };
    #[rustfmt::skip]
    let cases: Vec<(Request<Full<Bytes>>, Change, &str)> = vec![
        (by_signature(), with_body(5), "AuthFailure.SignatureFailure"),
        (by_signature(), with("authorization", "SKIP"), "AuthFailure.InvalidAuthorization"),
        (by_signature(), without("authorization"), "AuthFailure.InvalidAuthorization"),
        (by_signature(), with("authorization", "TC3"), "AuthFailure.InvalidAuthorization"),
        (signed("AKIDNOBODY", "x", "SegmentPortraitPic", BODY), nothing(), "AuthFailure.SecretIdNotFound"),
        (by_signature(), with("x-tc-timestamp", "1764590400"), "AuthFailure.SignatureExpire"),
        (by_signature(), with("x-tc-timestamp", "soon"), "InvalidParameter"),
        (by_signature(), without("x-tc-timestamp"), "MissingParameter"),
        (by_signature(), with("x-tc-token", "t"), "AuthFailure.TokenFailure"),
        (by_signature(), again("x-tc-action", "SegmentPortraitPic"), "InvalidParameter"),
        (by_signature(), again("authorization", "SKIP"), "AuthFailure.InvalidAuthorization"),
        (by_signature(), without("x-tc-action"), "MissingParameter"),
        (by_signature(), with("x-tc-action", "SegmentPortraitPics"), "InvalidAction"),
        (by_signature(), without("x-tc-version"), "MissingParameter"),
        (by_signature(), with("x-tc-version", "2020-03-25"), "NoSuchVersion"),
        (by_signature(), without("x-tc-region"), "MissingParameter"),
        (by_signature(), with("x-tc-region", ""), "InvalidParameterValue"),
        (by_signature(), with("x-tc-region", "eu-frankfurt"), "UnsupportedRegion"),
        (by_signature(), with_method(Method::PUT), "UnsupportedProtocol"),
        (by_signature(), with_body(1_001), "RequestSizeLimitExceeded"),
        (by_signature(), long_header(), "RequestSizeLimitExceeded"),
        (by_key("nobodys"), nothing(), "AuthFailure.InvalidAuthorization"),
        (by_key(STUDIO_KEY), without("x-tc-version"), "MissingParameter"),
        (by_key(STUDIO_KEY), with_path("/v1/nothing"), "InvalidAction"),
        (by_key(VIDEO_KEY), nothing(), "ResourceUnavailable.NotExist"),
        (by_key(UNOPENED_KEY), nothing(), "ResourceUnavailable.NotExist"),
        (by_key(ARREARS_KEY), nothing(), "ResourceUnavailable.InArrears"),
        (by_key(VIOLATION_KEY), nothing(), "ResourceUnavailable.StopUsing"),
        (by_key(NO_QUOTA_KEY), nothing(), "RequestLimitExceeded"),
        (by_key(LATER_KEY), nothing(), "RequestLimitExceeded"),
        (plain("POST", "/?SignatureMethod=HmacSHA256", "", BODY), without("x-api-key"), "AuthFailure.SignatureFailure"),
        (plain("GET", "/?Action=SegmentPortraitPic&Signature=x", "", ""), without("x-api-key"), "AuthFailure.SignatureFailure"),
        (older_form("Application/X-WWW-Form-Urlencoded"), nothing(), "AuthFailure.SignatureFailure"),
        (older_form("application/x-www-form-urlencoded;charset=utf-8"), nothing(), "AuthFailure.SignatureFailure"),
        (older_form("application/x-www-form-urlencoded"), with("authorization", ""), "AuthFailure.SignatureFailure"),
    ];
    for (mut request, change, code) in cases {
        change(&mut request);
        with("x-tc-traceid", "trace-7")(&mut request);
        let (status, headers, body) = send(gate.public, request).await;
        assert_eq!(status, StatusCode::OK, "{code}");
        assert_eq!(headers["content-type"], "application/json", "{code}");
        assert_eq!(headers["x-tc-traceid"], "trace-7", "{code}");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let response = body["Response"].as_object().unwrap();
        assert_eq!(response.len(), 2, "{body}");
        assert_eq!(response["Error"]["Code"], code, "{body}");
        let message = response["Error"]["Message"].as_str().unwrap();
        assert!(message.ends_with('.') || message.ends_with(". "), "{body}");
        assert_eq!(
            response["RequestId"],
            headers["x-request-id"].to_str().unwrap()
        );
        for name in ["retry-after", "ratelimit", "www-authenticate", "allow"] {
            assert!(!headers.contains_key(name), "{code}: {name}");
        }
    }
    assert!(gate.records().is_empty());
    assert!(upstream.seen().is_empty());
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_obeys_retry_after_is_admitted_and_the_throttled_calls_made_no_record() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let mut admitted = 0;
    // A slow machine may need more than 21 calls to be over 20 a second.
    let (headers, body) = loop {
        match client.send(segment(STUDIO_KEY)).await.unwrap() {
            (StatusCode::OK, _, _) => admitted += 1,
            (status, headers, body) => {
                assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                break (headers, body);
            }
        }
        assert!(admitted < 2_000, "the cap is never reached");
    };
    assert!(admitted >= 20);
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["cache-control"], "no-store");
    let group = "\"portrait-segmentation\"";
    assert_eq!(headers["ratelimit-policy"], format!("{group};q=20;w=1"));
    assert_eq!(headers["ratelimit"], format!("{group};r=0;t=1"));
    assert_eq!(headers["retry-after"], "1");
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        body["violated-policies"],
        serde_json::json!(["portrait-segmentation"])
    );
    assert_eq!(body["status"], 429);
    assert_eq!(body["instance"], headers["x-request-id"].to_str().unwrap());

    tokio::time::sleep(Duration::from_secs(1)).await;
    let (status, _, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(gate.records().len(), admitted + 1);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.decided("throttled"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_actions_name_does_not_open_a_paid_actions_path() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    for action in ["DescribeSegmentationTask", "SegmentCustomizedPortraitPic"] {
        let mut request = segment(STUDIO_KEY);
        request
            .headers_mut()
            .insert("x-tc-action", HeaderValue::from_static(action));
        with("x-tc-version", "2020-03-24")(&mut request);
        with("x-tc-region", "ap-guangzhou")(&mut request);
        let (status, headers, body) = send(gate.public, request).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(headers["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["Response"]["Error"]["Code"], "InvalidParameter");
    }
    let mut agreeing = segment(STUDIO_KEY);
    with("x-tc-action", "SegmentPortraitPic")(&mut agreeing);
    with("x-tc-version", "2020-03-24")(&mut agreeing);
    with("x-tc-region", "ap-guangzhou")(&mut agreeing);
    send(gate.public, agreeing).await;
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(gate.records().len(), 1);
    let refused = ["decision=\"refused\"", "reason=\"action_mismatch\""];
    let metrics = gate.at_rest().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &refused), 2);
}

/// Answers with the status that the body names, and with fields of every kind.
async fn talkative() -> Upstream {
    Upstream::scripted(|seen| async move {
        let text = String::from_utf8(seen.body.to_vec()).unwrap();
        let (status, veto) = match text.strip_suffix(" veto") {
            Some(status) => (status.to_owned(), true),
            None => (text, false),
        };
        let mut response = Response::builder()
            .status(status.parse::<u16>().unwrap())
            .header("content-type", "application/json; charset=utf-8")
            .header("x-thing", "kept")
            .header("set-cookie", "a=1")
            .header("set-cookie", "b=2")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("x-request-id", "the-upstreams-own");
        if veto {
            response = response.header("x-tollgate-billable", "False");
        }
        let body = match status.as_str() {
            "204" => "",
            _ => "{\"Response\":{\"RequestId\":\"from-upstream\"}}",
        };
        response
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plain_dialect_passes_the_upstreams_answer_through_but_for_the_hop() {
    let upstream = talkative().await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    for (body, status, reason) in [
        ("200", 200, Reason::Billable),
        ("404", 404, Reason::Billable),
        ("200 veto", 200, Reason::Vetoed),
        ("500", 500, Reason::ServerError),
        ("503 veto", 503, Reason::ServerError),
        ("408", 408, Reason::NotServed),
        ("421", 421, Reason::NotServed),
        ("425", 425, Reason::NotServed),
        ("429 veto", 429, Reason::NotServed),
        ("204", 204, Reason::Billable),
        ("302", 302, Reason::Billable),
    ] {
        wire.write(format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
             X-TC-TraceId: not-this-dialect\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, status, "{body}");
        let headers = &reply.headers;
        assert_eq!(headers["content-type"], "application/json; charset=utf-8");
        assert_eq!(headers["x-thing"], "kept");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
        for name in [
            "x-hop",
            "connection",
            "keep-alive",
            "proxy-authenticate",
            "upgrade",
            "x-tollgate-billable",
            "x-tc-traceid",
        ] {
            assert!(!headers.contains_key(name), "{body}: {name}");
        }
        if status != 204 {
            assert_eq!(
                reply.body,
                b"{\"Response\":{\"RequestId\":\"from-upstream\"}}"
            );
        }
        let record = gate.records().pop().unwrap();
        let ids: Vec<_> = headers.get_all("x-request-id").iter().collect();
        assert_eq!(ids, [&record.id.to_string()[..]], "{body}");
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(
            (record.status, record.reason),
            (Some(status), reason),
            "{body}"
        );
        assert_eq!(record.billable, reason == Reason::Billable, "{body}");
    }
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendor_dialect_gives_the_sdks_only_what_they_can_read() {
    let upstream = talkative().await;
    let gate = Gate::start(upstream.address).await;
    for (body, status, code, reason) in [
        ("200", 200, "", Reason::Billable),
        ("200 veto", 200, "", Reason::Vetoed),
        ("404", 404, "FailedOperation.ServerError", Reason::Billable),
        (
            "500",
            500,
            "FailedOperation.ServerError",
            Reason::ServerError,
        ),
        ("204", 204, "FailedOperation.ServerError", Reason::Billable),
        ("408", 408, "FailedOperation.ServerError", Reason::NotServed),
        ("429", 429, "ServiceUnavailable", Reason::NotServed),
        (
            "302 veto",
            302,
            "FailedOperation.ServerError",
            Reason::Vetoed,
        ),
    ] {
        let mut request = signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", body);
        with("x-tc-traceid", "trace-8")(&mut request);
        let (http, headers, answer) = send(gate.public, request).await;
        assert_eq!(http, StatusCode::OK, "{body}");
        assert_eq!(
            headers["content-type"], "application/json",
            "{body}: no charset"
        );
        assert_eq!(headers["x-tc-traceid"], "trace-8");
        assert!(!headers.contains_key("x-tollgate-billable"));
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let record = gate.records().pop().unwrap();
        assert_eq!(headers["x-request-id"], record.id.to_string());
        let response = answer["Response"].as_object().unwrap();
        if code.is_empty() {
            assert!(!response.contains_key("Error"), "{answer}");
            assert_eq!(response["RequestId"], "from-upstream");
        } else {
            assert_eq!(response["Error"]["Code"], code, "{body}");
            assert_eq!(response["RequestId"], record.id.to_string());
            let says_free = response["Error"]["Message"]
                .as_str()
                .unwrap()
                .contains("not billed");
            assert!(!(says_free && record.billable), "{body}: {answer}");
            let says_retry = answer.to_string().contains("send the call again");
            assert_eq!(says_retry, body == "429", "{answer}");
        }
        assert_eq!(record.outcome, Outcome::Answered);
        assert_eq!(
            (record.status, record.reason),
            (Some(status), reason),
            "{body}"
        );
        assert_eq!(record.billable, reason == Reason::Billable, "{body}");
    }
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_false_of_the_upstream_vetoes_and_a_word_that_is_neither_is_logged() {
    // The body of the request is what the answer's head says.
    let upstream = RawUpstream::scripted(|mut connection| async move {
        while let Some(request) = connection.request().await {
            connection.write("HTTP/1.1 200 OK\r\n").await;
            connection.write(request.body).await;
            connection.write("Content-Length: 2\r\n\r\n{}").await;
        }
    })
    .await;
    let house = Sandbox::new(upstream.address, &[]);
    let process = house.start().await;
    let mut wire = Wire::connect(process.public).await;
    let cases = [
        ("", true, ""),
        ("X-Tollgate-Billable: true\r\n", true, ""),
        ("x-tollgate-billable:FALSE \r\n", false, ""),
        (
            "X-Tollgate-Billable: true\r\nX-Tollgate-Billable: false\r\n",
            false,
            "",
        ),
        (
            "X-Tollgate-Billable: false\r\nX-Tollgate-Billable: true\r\n",
            false,
            "",
        ),
        ("X-Tollgate-Billable: true, False\r\n", false, ""),
        (
            "Connection: x-tollgate-billable\r\nX-Tollgate-Billable: false\r\n",
            false,
            "",
        ),
        ("X-Tollgate-Billable: no\r\n", true, "no\\\""),
        ("X-Tollgate-Billable: 0\r\n", true, "0\\\""),
        ("X-Tollgate-Billable: never, false\r\n", false, "never\\\""),
    ];
    for (said, is_billable, logged) in cases {
        wire.write(format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n\
             Content-Length: {}\r\n\r\n{said}",
            said.len()
        ))
        .await;
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200, "{said}");
        assert!(!reply.headers.contains_key("x-tollgate-billable"), "{said}");
        let record = records(&house.ledger()).pop().unwrap();
        let reason = if is_billable {
            Reason::Billable
        } else {
            Reason::Vetoed
        };
        assert_eq!(
            (record.reason, record.billable),
            (reason, is_billable),
            "{said}"
        );
        eventually("it is logged", || house.log().contains(logged)).await;
    }
    assert_eq!(house.log().matches("neither true nor false").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_free_group_is_recorded_as_free_whatever_the_answer() {
    let upstream = talkative().await;
    let gate = Gate::start(upstream.address).await;
    for body in ["200", "500", "200 veto"] {
        send(
            gate.public,
            plain("POST", "/v1/video/tasks", VIDEO_KEY, body),
        )
        .await;
    }
    let records = gate.records();
    assert_eq!(records.len(), 3);
    for record in records {
        assert_eq!((record.mode, record.reason), (Mode::Free, Reason::Free));
        assert!(!record.billable);
    }
}
