//! What the gate itself costs a call before it is forwarded: identify, admit, throttle. On one
//! thread, without sockets; the figures are CPU time.

use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use sha2::{Digest, Sha256};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::config::{self, Credential};
use tollgate::testing::http::h1::RequestHead;
use tollgate::testing::metrics::Metrics;
use tollgate::testing::model::{AccountId, Clock, GroupId, Mode, Mono, Utc};
use tollgate::testing::proxy::admission::{Limiter, LimiterKey, Limiters, Now, Quota, Terms};
use tollgate::testing::proxy::identity::api_key::{ApiKeyDigest, api_key};
use tollgate::testing::proxy::identity::tc3::{self, BodyHash};
use tollgate::testing::proxy::policy::Policy;
use tollgate::testing::proxy::upstream::Upstreams;

const MAX_DELAY: Duration = Duration::from_millis(50);
const MS: u64 = 1_000_000;
/// Accounts beside the shipped ones, so that lookups meet a table of some size.
const ACCOUNTS: u32 = 10_000;

fn policy() -> Policy {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let config = config::load(&path).expect("the shipped configuration is sound");
    let mut accounts = config.accounts;
    let sample = accounts[0].clone();
    for number in 0..ACCOUNTS {
        let mut account = sample.clone();
        account.id = AccountId::new(&format!("bench-{number}")).expect("a valid id");
        let sha256 = Sha256::digest(format!("key-{number}")).into();
        account.keys = Box::new([Credential::ApiKey { sha256 }.into()]);
        accounts.push(account);
    }
    let metrics = Metrics::new(1_000);
    let upstreams = Upstreams::new(&config.settings, 1, &Clock::default());
    let catalog = Arc::new(config.catalog);
    Policy::build(1, catalog, accounts, upstreams, &metrics)
}

/// The head of a request as it is read from the wire.
fn head(request: http::request::Builder) -> Box<RequestHead> {
    let (parts, ()) = request.body(()).expect("a valid request").into_parts();
    let mut wire = format!("{} {} HTTP/1.1\r\n", parts.method, parts.uri).into_bytes();
    for (name, value) in &parts.headers {
        wire.extend_from_slice(
            &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat(),
        );
    }
    wire.extend_from_slice(b"\r\n");
    let head = tollgate::testing::http::h1::request_head(&mut wire[..].into());
    head.ok().flatten().expect("a valid head")
}

fn identify(c: &mut Criterion) {
    let policy = policy();
    let mut group = c.benchmark_group("identify");

    let call = head(
        Request::post("/v1/portrait/segment")
            .header("host", "gate.example:8080")
            .header("content-type", "application/json")
            .header("x-api-key", "key-4711"),
    );
    group.bench_function("API key", |b| {
        b.iter(|| {
            let digest: Option<ApiKeyDigest> =
                api_key(black_box(&call.fields)).and_then(Result::ok);
            digest
                .and_then(|digest| policy.api_key(&digest).map(|key| key.account().clone()))
                .expect("known")
        });
    });

    let (id, secret) = (
        "AKIDEXAMPLESTUDIO00000000000000000001",
        "trial-secret-of-example-studio",
    );
    let now = 1_764_590_400;
    for (size, name) in [
        (32, "TC3, body of 32 B"),
        (64 * 1024, "TC3, body of 64 KiB"),
    ] {
        let body = "x".repeat(size);
        let call = head(
            Request::post("/")
                .header("host", "bda.gate.example")
                .header("content-type", "application/json")
                .header("x-tc-action", "SegmentPortraitPic")
                .header("x-tc-version", "2020-03-24")
                .header("x-tc-region", "ap-guangzhou")
                .header("x-tc-timestamp", now.to_string())
                .header(
                    "authorization",
                    tollgate::cli::demo::sign(id, secret, now, "bda.gate.example", &body),
                ),
        );
        group.bench_function(name, |b| {
            b.iter(|| {
                let claim = tc3::claim(black_box(&call), now, &policy.catalog.services)
                    .expect("well formed");
                let mut hash = BodyHash::new();
                hash.update(black_box(body.as_bytes()));
                let known = policy.tc3(claim.secret_id()).expect("known");
                claim
                    .verify(&call, known.secret().expect("a pair"), &hash.finish(), &[])
                    .expect("well signed");
                known.account().clone()
            });
        });
    }
    group.finish();
}

fn limiter(quota: u32) -> Arc<Limiter> {
    let key = LimiterKey {
        account: AccountId::new("a").expect("a valid id"),
        group: GroupId::new("g").expect("a valid id"),
        action: None,
    };
    let terms = Terms {
        opened: Utc(0),
        stopped: None,
        mode: Mode::PerCall,
        quota: Quota::Fixed(quota),
    };
    Limiters::default().get_or_insert(key, 1, terms)
}

fn now(mono: u64) -> Now {
    Now {
        mono: Mono(mono),
        utc: Utc(1_764_590_400_000_000),
    }
}

fn admit(c: &mut Criterion) {
    let mut group = c.benchmark_group("admit");
    for quota in [20_u32, 1_000] {
        let limiter = limiter(quota);
        let mut at = 10_000 * MS;
        group.bench_function(format!("at the pace of {quota} QPS"), |b| {
            b.iter(|| {
                // Evenly paced in a time of its own: the window is full and each call is admitted.
                at += 1_000 * MS / u64::from(quota);
                limiter
                    .reserve(black_box(now(at)), MAX_DELAY)
                    .expect("admitted")
            });
        });
    }
    group.finish();
}

fn throttle(c: &mut Criterion) {
    let mut group = c.benchmark_group("throttle");
    let limiter = limiter(20);
    for _ in 0..20 {
        drop(limiter.reserve(now(10_000 * MS), MAX_DELAY));
    }
    group.bench_function("a flood, without the lock", |b| {
        b.iter(|| {
            limiter
                .reserve(black_box(now(10_001 * MS)), MAX_DELAY)
                .expect_err("throttled")
        });
    });
    group.finish();
}

criterion_group!(benches, identify, admit, throttle);
criterion_main!(benches);
