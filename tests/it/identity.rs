//! P6: an account is known only by a verified credential. On real sockets, with what a thief would
//! send.

use crate::harness::*;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::config::{self, Config, Credential};
use tollgate::testing::model::{Clock, Mode, Outcome, Stop, Utc};
use tollgate::testing::proxy::policy::Policy;

const BODY: &str = "{\"Image\":\"iVBORw0KGgo=\"}";

/// A signed call whose parts a test can change after it was signed.
fn signed_text(id: &str, secret: &str, at: i64) -> String {
    let authorization = tollgate::cli::demo::sign(id, secret, at, "bda.gate.test", BODY);
    format!(
        "POST / HTTP/1.1\r\nHost: bda.gate.test\r\nContent-Type: application/json\r\n\
         X-TC-Action: SegmentPortraitPic\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
         X-TC-Timestamp: {at}\r\nAuthorization: {authorization}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// Signed over the action too, as the vendor's published sample does.
fn signed_over_the_action(action: &str, at: i64) -> String {
    let hash = |text: &str| hex::encode(Sha256::digest(text));
    let date = jiff::Timestamp::from_second(at)
        .unwrap()
        .strftime("%Y-%m-%d");
    let (scope, names) = (
        format!("{date}/bda/tc3_request"),
        "content-type;host;x-tc-action",
    );
    let canonical = format!(
        "POST\n/\n\ncontent-type:application/json\nhost:bda.gate.test\nx-tc-action:{action}\n\n{names}\n{}",
        hash(BODY)
    );
    let to_sign = format!("TC3-HMAC-SHA256\n{at}\n{scope}\n{}", hash(&canonical));
    let mut key = format!("TC3{STUDIO_SECRET}").into_bytes();
    for step in [&date.to_string(), "bda", "tc3_request", &to_sign] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(step.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    let signature = hex::encode(key);
    format!(
        "POST / HTTP/1.1\r\nHost: bda.gate.test\r\nContent-Type: application/json\r\n\
         X-TC-Action: {action}\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
         X-TC-Timestamp: {at}\r\nAuthorization: TC3-HMAC-SHA256 Credential={STUDIO_ID}/{scope}, \
         SignedHeaders={names}, Signature={signature}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// A call that names Example Studio without its proof, and the code that it must be answered with.
fn forgeries(at: i64) -> Vec<(&'static str, String, &'static str)> {
    let sound = signed_text(STUDIO_ID, STUDIO_SECRET, at);
    let swap = |from: &str, to: &str| {
        assert!(sound.contains(from), "{from}");
        sound.replace(from, to)
    };
    vec![
        (
            "wrong key",
            signed_text(STUDIO_ID, "a-guess", at),
            "AuthFailure.SignatureFailure",
        ),
        (
            "unknown id",
            signed_text("AKIDNOBODY", STUDIO_SECRET, at),
            "AuthFailure.SecretIdNotFound",
        ),
        (
            "expired",
            signed_text(STUDIO_ID, STUDIO_SECRET, at - 310),
            "AuthFailure.SignatureExpire",
        ),
        (
            "not yet valid",
            signed_text(STUDIO_ID, STUDIO_SECRET, at + 330),
            "AuthFailure.SignatureExpire",
        ),
        (
            "tampered body",
            swap("iVBORw0KGgo=", "iVBORw0KGgo+"),
            "AuthFailure.SignatureFailure",
        ),
        (
            "another service in the scope",
            swap("/bda/tc3_request", "/cvm/tc3_request"),
            "AuthFailure.InvalidAuthorization",
        ),
        (
            "another id under the same signature",
            swap(STUDIO_ID, "AKIDEXAMPLERETAIL00000000000000000002"),
            "AuthFailure.SignatureFailure",
        ),
        (
            "a signed action changed",
            signed_over_the_action("SegmentPortraitPic", at).replace(
                "X-TC-Action: SegmentPortraitPic",
                "X-TC-Action: SegmentCustomizedPortraitPic",
            ),
            "AuthFailure.SignatureFailure",
        ),
        (
            "the id as an API key",
            swap(
                "Authorization: TC3",
                &format!("X-Api-Key: {STUDIO_ID}\r\nX-Old: TC3"),
            ),
            "AuthFailure.InvalidAuthorization",
        ),
        (
            "only the account's name",
            swap(
                "Authorization: TC3",
                "X-Tollgate-Account: 1250000001\r\nX-Old: TC3",
            ),
            "AuthFailure.InvalidAuthorization",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_forgeries_take_no_quota_of_the_account_they_name_and_make_no_record() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let at = gate.clock.utc().seconds();

    let mut sent = 0;
    for round in 0..5 {
        for (what, forgery, code) in forgeries(at) {
            // Each from a peer of its own, or the last would be held down.
            let mut wire = Wire::connect_from([127, 0, 1 + round, 1], gate.public).await;
            wire.write(forgery).await;
            let reply = wire.reply().await;
            assert_eq!((reply.status, reply.code().as_str()), (200, code), "{what}");
            sent += 1;
        }
    }
    assert_eq!(sent, 50);
    assert_eq!(upstream.seen().len(), 0);

    let mut owner = Client::connect(gate.public).await.unwrap();
    for _ in 0..20 {
        let (status, _, _) = owner.send(segment(STUDIO_KEY)).await.unwrap();
        assert_eq!(status, StatusCode::OK, "the owner's quota is whole");
    }
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.decided("refused"), 50);
    let records = gate.records();
    assert_eq!(records.len(), 20);
    assert_eq!(upstream.seen().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sound_calls_from_which_forgeries_are_made_are_admitted() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let at = gate.clock.utc().seconds();
    for sound in [
        signed_text(STUDIO_ID, STUDIO_SECRET, at),
        signed_over_the_action("SegmentCustomizedPortraitPic", at),
    ] {
        let mut wire = Wire::connect(gate.public).await;
        wire.write(sound).await;
        assert_eq!(wire.reply().await.code(), "");
    }
    let actions: Vec<String> = gate
        .records()
        .iter()
        .map(|r| r.action.to_string())
        .collect();
    assert_eq!(
        actions,
        ["SegmentPortraitPic", "SegmentCustomizedPortraitPic"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_the_gate_may_set_are_dropped_when_a_client_sends_them() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         X-Tollgate-Account: 1250000002\r\nx-tollgate-account: 1250000003\r\nX-TOLLGATE-GROUP: video-segmentation\r\n\
         X-Tollgate-Action: DescribeSegmentationTask\r\nX-Tollgate-Billable: false\r\nX-Tollgate-Later: 1\r\n\
         X-Request-Id: mine\r\nX-Request-Id: mine-too\r\nX-Forwarded-For: 203.0.113.9\r\n\
         Connection: x-tollgate-account, x-request-id\r\n\
         Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
    .await;
    let reply = wire.reply().await;
    assert_eq!(reply.status, 200);

    let record = gate.records().remove(0);
    assert_eq!(record.account.as_str(), "1250000001");
    assert!(record.billable, "a client's veto is no veto");
    let seen = upstream.seen().remove(0).headers;
    let id = record.id.to_string();
    let only = |name: &str| {
        let values: Vec<_> = seen.get_all(name).iter().collect();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_str().unwrap()
    };
    assert_eq!(only("x-tollgate-account"), "1250000001");
    assert_eq!(only("x-tollgate-group"), "portrait-segmentation");
    assert_eq!(only("x-tollgate-action"), "SegmentPortraitPic");
    assert_eq!(only("x-request-id"), id);
    assert_eq!(
        only("x-forwarded-for"),
        "127.0.0.1",
        "nobody vouches for the client"
    );
    assert!(only("traceparent").starts_with("00-0af7"));
    let ours: Vec<_> = seen
        .keys()
        .filter(|n| n.as_str().starts_with("x-tollgate-"))
        .collect();
    assert_eq!(ours.len(), 3, "{ours:?}");
    assert_eq!(reply.headers["x-request-id"], id);
}

/// CGI, WSGI and what builds on them know `X_Tollgate_Account` and `X-Tollgate-Account` by one
/// name.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_the_gate_or_of_what_it_judged_is_dropped_also_when_it_is_spelled_with_underscores()
 {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut wire = Wire::connect(gate.public).await;
    wire.write(format!(
        "POST / HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {STUDIO_KEY}\r\n\
         X-TC-Action: DescribeSegmentationTask\r\nX-TC-Version: 2020-03-24\r\nX-TC-Region: ap-guangzhou\r\n\
         X_TC_Action: SegmentPortraitPic\r\nx-tc_action: SegmentPortraitPic\r\nX_Tollgate_Account: 1250000002\r\n\
         X-Tollgate_Group: portrait-segmentation\r\nX_Request_Id: mine\r\nX_Forwarded_For: 203.0.113.9\r\n\
         X_Api_Key: another\r\nMy_Own: 1\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
    .await;
    assert_eq!(wire.reply().await.status, 200);
    assert_eq!(
        gate.records()[0].action.as_str(),
        "DescribeSegmentationTask"
    );
    let seen = upstream.seen().remove(0).headers;
    let spelled: Vec<_> = seen
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .collect();
    assert_eq!(spelled, ["my_own"], "the client's own names pass");
    assert_eq!(seen["x-tc-action"], "DescribeSegmentationTask");
    assert_eq!(seen["x-tollgate-account"], "1250000001");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_that_cgi_wsgi_or_php_fold_to_a_name_of_the_gate_passes() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let names = [
        "Tollgate-Account",
        "Tollgate-Billable",
        "TC-Action",
        "Request-Id",
        "Forwarded-For",
        "Api-Key",
    ];
    let mut wire = Wire::connect(gate.public).await;
    // Whatever may stand in a name (RFC 9110 §5.6.2) and is neither a letter nor a digit nor `-`.
    for sign in "!#$%&'*+.^_`|~".chars() {
        let spelled = |name: &str| {
            let all = name.replace('-', &sign.to_string());
            let (first, rest) = name.split_once('-').unwrap();
            format!("X{sign}{all}: 1\r\nX-{first}{sign}{rest}: 1\r\nX{sign}{name}: 1\r\n")
        };
        let fields: String = names.iter().map(|name| spelled(name)).collect();
        let call = format!(
            "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n{fields}\
             Content{sign}Length: 7\r\nTransfer{sign}Encoding: chunked\r\nContent{sign}Type: a/b\r\n\
             My{sign}Own: 1\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        assert_eq!(wire.exchange(call).await.status, 200, "{sign}");
        let seen = upstream.seen().pop().unwrap().headers;
        let passed: Vec<_> = seen
            .keys()
            .filter(|name| name.as_str().contains(sign))
            .map(http::HeaderName::to_string)
            .collect();
        assert_eq!(passed, [format!("my{sign}own")]);
    }
}

// ---- The recorded vectors ----

fn vector_body(body: &Value) -> Vec<u8> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match body["kind"].as_str().unwrap() {
        "utf8" => text(&body["data"]).into_bytes(),
        "concat" => body["parts"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|part| {
                let times = part.get("times").map_or(1, |n| n.as_u64().unwrap());
                text(&part["utf8"]).repeat(times as usize).into_bytes()
            })
            .collect(),
        "base64" => {
            const DIGITS: &[u8] =
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
            for digit in text(&body["data"]).bytes().filter(|b| *b != b'=') {
                bits = bits << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
                held += 6;
                if held >= 8 {
                    held -= 8;
                    bytes.push((bits >> held) as u8);
                }
            }
            bytes
        }
        other => panic!("body kind {other}"),
    }
}

/// Header order, repeats and spelling as recorded.
fn vector_bytes(request: &Value) -> Vec<u8> {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str).unwrap();
    let mut bytes = format!("{} {} HTTP/1.1\r\n", text("/method"), text("/target")).into_bytes();
    for header in request["headers"].as_array().unwrap() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend(vector_body(&request["body"]));
    bytes
}

/// The accounts of the vectors' two keys, with more quota than the test uses.
fn vector_accounts(config: &mut Config, keys: &Value) {
    let template = config.accounts[1].clone();
    for (account, key) in config.accounts.iter_mut().zip(keys.as_array().unwrap()) {
        account.services = template.services.clone();
        let pair = Credential::Tc3 {
            secret_id: key["secret_id"].as_str().unwrap().into(),
            secret_key: key["secret_key"].as_str().unwrap().into(),
        };
        account.keys = Box::new([pair.into()]);
        for service in &mut account.services {
            service.opened = Utc(0);
            for purchase in &mut service.qps_purchases {
                (purchase.qps, purchase.from) = (10_000, Utc(0));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recorded_vector_gets_the_answer_that_it_expects() {
    let file: Value = serde_json::from_str(include_str!("../tc3.json")).unwrap();
    let mut vectors: Vec<&Value> = file["vectors"].as_array().unwrap().iter().collect();
    assert_eq!(vectors.len(), 127);
    vectors.sort_by_key(|vector| vector["now"].as_i64());

    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start_with(upstream.address, |config| {
        vector_accounts(config, &file["keys"]);
        // Six calls of one video action are well below its 20 a second; the rest share the
        // purchase.
        config.settings.workers = std::num::NonZeroUsize::new(1);
    })
    .await;

    let (mut accepted, mut wrong) = (0, Vec::new());
    for (n, vector) in vectors.iter().enumerate() {
        let now = vector["now"].as_i64().unwrap();
        gate.mover.set_utc(Utc(now * 1_000_000));
        let request = &vector["request"];
        let mut wire = Wire::connect_from([127, 0, 2, 1 + n as u8], gate.public).await;
        let reply = wire.exchange(vector_bytes(request)).await;

        let expect = &vector["expect"];
        let answer = match reply.status {
            200 if reply.code().is_empty() => "accept".to_owned(),
            200 => reply.code(),
            other => format!("http-{other}"),
        };
        let fits = match expect["result"].as_str().unwrap() {
            "accept" => answer == "accept",
            _ => {
                let also = expect.get("also_ok").and_then(Value::as_array);
                expect["code"] == answer.as_str()
                    || (answer != "accept"
                        && also.is_some_and(|also| also.iter().any(|ok| *ok == answer.as_str())))
            }
        };
        if !fits {
            wrong.push(format!("{}: {answer}, expected {expect}", vector["id"]));
        }
        if answer == "accept" {
            accepted += 1;
            assert_eq!(
                reply.body,
                b"{\"Response\":{\"RequestId\":\"from-upstream\"}}"
            );
            let seen = upstream.seen.lock().last().unwrap().clone();
            assert_eq!(
                seen.target,
                request["target"].as_str().unwrap(),
                "{}",
                vector["id"]
            );
            assert_eq!(seen.method, request["method"].as_str().unwrap());
            assert!(
                seen.body == vector_body(&request["body"]),
                "{}",
                vector["id"]
            );
        }
        if reply.status == 200 {
            assert_eq!(reply.headers["content-type"], "application/json");
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(accepted, 47);
    assert_eq!(upstream.seen().len(), 47);
    assert_eq!(gate.records().len(), 47);
    let metrics = gate.at_rest().await;
    metrics.assert_conserved();
    assert_eq!(metrics.decided("refused"), 80);
}

// ---- Guessing ----

#[tokio::test(flavor = "multi_thread")]
async fn the_eleventh_wrong_key_of_a_peer_is_answered_late_and_a_valid_one_never_is() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let clock = Clock::default();
    let held = async |gate: &Gate| gate.metrics().await.sum("tollgate_held_down_total", &[]);

    let mut guesser = Client::connect(gate.public).await.unwrap();
    for _ in 0..10 {
        let (status, _, _) = guesser.send(segment("a-guess")).await.unwrap();
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(held(&gate).await, 0, "ten are forgiven");

    // More than one, because one a second is forgiven and a busy machine may take as long.
    let began = clock.mono();
    let late = (0..6).map(|_| async {
        let (status, _, _) = send(gate.public, segment("another-guess")).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        Clock::default().mono()
    });
    let metrics = gate
        .running
        .as_ref()
        .unwrap()
        .proxy
        .shared()
        .metrics
        .clone();
    let honest = async {
        eventually("a guess is held", || metrics.held_down.get() > 0).await;
        let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
        assert_eq!(status, StatusCode::OK);
        Clock::default().mono()
    };
    let (late, served) = tokio::join!(futures_util::future::join_all(late), honest);
    let last = late.into_iter().max().unwrap();
    assert!(
        last.since(began) >= Duration::from_secs(1),
        "a held answer waits a second"
    );
    assert!(
        served < last,
        "the same address with a valid key is served meanwhile"
    );
    assert!(held(&gate).await >= 1);
    let (status, _, _) = send(gate.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_peer_is_not_held_down_with_the_guesser() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let guess = format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: a-guess\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    for peer in [[127, 0, 3, 1], [127, 0, 3, 2], [127, 0, 3, 3]] {
        for _ in 0..10 {
            let mut wire = Wire::connect_from(peer, gate.public).await;
            wire.write(&guess).await;
            assert_eq!(wire.reply().await.status, 401);
        }
    }
    assert_eq!(gate.metrics().await.sum("tollgate_held_down_total", &[]), 0);
}

// ---- What changes while a body arrives ----

fn swap_policy(gate: &Gate, upstream: &Upstream, change: impl FnOnce(&mut Config)) {
    let mut config = shipped_config(gate.dir.path(), upstream.address);
    change(&mut config);
    let proxy = &gate.running.as_ref().unwrap().proxy;
    let policy = Policy::build(
        proxy.shared().policy.load().generation + 1,
        Arc::new(config.catalog),
        config.accounts,
        proxy.shared().policy.load().upstreams.clone(),
        &proxy.shared().metrics,
    );
    policy.apply(&proxy.shared().limiters);
    proxy.shared().policy.swap(Arc::new(policy));
}

fn studio(config: &mut Config) -> &mut config::Service {
    &mut config.accounts[0].services[0]
}

fn revoke(config: &mut Config, index: usize) {
    let mut left = config.accounts[0].keys.to_vec();
    left.remove(index);
    config.accounts[0].keys = left.into();
}

type Change = fn(&mut Config);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_cut_or_revoked_while_the_body_arrives_is_so_for_that_call() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let cases: [(&str, Change, &str); 6] = [
        ("nothing", |_| (), ""),
        (
            "a stop",
            |config| studio(config).stopped = Some(Stop::Violation),
            "ResourceUnavailable.StopUsing",
        ),
        (
            "qps mode without quota",
            |config| studio(config).mode = Mode::Qps,
            "RequestLimitExceeded",
        ),
        (
            "a revoked key",
            |config| {
                revoke(config, 0);
            },
            "AuthFailure.SecretIdNotFound",
        ),
        (
            "another key under the same id",
            |config| {
                config.accounts[0].keys[0].credential = Credential::Tc3 {
                    secret_id: STUDIO_ID.into(),
                    secret_key: "rotated".into(),
                }
            },
            "AuthFailure.SignatureFailure",
        ),
        (
            "an account that is gone",
            |config| {
                config.accounts.remove(0);
            },
            "AuthFailure.SecretIdNotFound",
        ),
    ];
    for (what, change, code) in cases {
        let call = signed_text(STUDIO_ID, STUDIO_SECRET, gate.clock.utc().seconds());
        let (before, after) = call.split_at(call.len() - 7);
        let mut wire = Wire::connect(gate.public).await;
        wire.write(before).await;
        let proxy = gate.running.as_ref().unwrap().proxy.clone();
        eventually("the first half arrives", || proxy.body_memory_held() > 0).await;
        swap_policy(&gate, &upstream, change);
        wire.write(after).await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.code().as_str()), (200, code), "{what}");
        swap_policy(&gate, &upstream, |_| ());
    }
    assert_eq!(
        gate.records().len(),
        1,
        "only the call that nothing happened to"
    );
    assert_eq!(upstream.seen().len(), 1);
    let (_, used) = {
        let proxy = &gate.running.as_ref().unwrap().proxy;
        let policy = proxy.shared().policy.load();
        let operation = policy.by_action("SegmentPortraitPic").unwrap();
        let id = tollgate::testing::model::AccountId::new("1250000001").unwrap();
        let account = policy.account(&id).unwrap().clone();
        policy
            .limiter(&account, operation, &proxy.shared().limiters)
            .unwrap()
            .snapshot(tollgate::testing::proxy::admission::Now::read(&gate.clock))
    };
    assert!(used <= 1, "{used} places spent");
    gate.at_rest().await.assert_conserved();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_revoked_between_two_calls_of_one_connection_is_refused_on_the_second() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let mut client = Client::connect(gate.public).await.unwrap();
    let (status, _, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::OK);
    swap_policy(&gate, &upstream, |config| {
        revoke(config, 1);
    });
    let (status, _, _) = client.send(segment(STUDIO_KEY)).await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let records = gate.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::Answered);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_never_reaches_the_upstream_and_a_signature_does() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = Gate::start(upstream.address).await;
    let bearer = Request::post("/v1/portrait/segment")
        .header("host", "gate.test")
        .header("authorization", format!("Bearer {STUDIO_KEY}"))
        .body(Full::new(Bytes::from_static(BODY.as_bytes())))
        .unwrap();
    for call in [bearer, segment(STUDIO_KEY)] {
        let (status, _, _) = send(gate.public, call).await;
        assert_eq!(status, StatusCode::OK);
    }
    send(
        gate.public,
        signed(STUDIO_ID, STUDIO_SECRET, "SegmentPortraitPic", BODY),
    )
    .await;
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3);
    for seen in &seen[..2] {
        assert!(
            !format!("{:?}", seen.headers).contains(STUDIO_KEY),
            "{:?}",
            seen.headers
        );
    }
    assert!(
        seen[2].headers["authorization"]
            .as_bytes()
            .starts_with(b"TC3-HMAC-SHA256 ")
    );
}
