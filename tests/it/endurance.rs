//! A thousand reloads under load. The longest test: its name has it begin early, beside the others
//! and not after them.

use crate::harness::*;
use crate::reload::{FEW_FILES, SECOND_NS, mistakes, most_within_a_second};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono};

const MOVERS: usize = 16;
/// So many of them are called; the rest only move.
const CALLED: usize = 8;

/// An account that the test moves about.
#[derive(Clone)]
struct Mover {
    gone: bool,
    per_call: bool,
    bought: Vec<u32>,
    stopped: Option<&'static str>,
}

impl Mover {
    /// What may start in a second.
    fn quota(&self) -> u32 {
        match self {
            Self { gone: true, .. }
            | Self {
                stopped: Some(_), ..
            } => 0,
            Self { per_call: true, .. } => 20,
            Self { bought, .. } => bought.iter().sum(),
        }
    }

    fn write(&self, n: usize, file: &mut String) {
        use sha2::Digest;
        use std::fmt::Write;
        if self.gone {
            return;
        }
        let key = hex::encode(sha2::Sha256::digest(format!("mover-{n}")));
        let mode = ["qps", "per_call"][usize::from(self.per_call)];
        let stopped = self
            .stopped
            .map_or(String::new(), |why| format!("        stopped: {why}\n"));
        write!(
            file,
            "  \"mover-{n}\":\n    name: Mover {n}\n    keys:\n      - {{api_key_sha256: {key}}}\n      \
             - {{secret_id: AKIDMOVER{n}, secret_key: secret-of-mover-{n}}}\n    services:\n      \
             portrait-segmentation:\n        opened: 2026-01-01T00:00:00+08:00\n        mode: {mode}\n\
             {stopped}        qps_purchases:\n"
        )
        .unwrap();
        for (at, qps) in self.bought.iter().enumerate() {
            writeln!(
                file,
                "          - {{order: M{n}-{at}, qps: {qps}, from: 2026-01-01T00:00:00+08:00, months: 120, paid: {{}}}}"
            )
            .unwrap();
        }
    }

    /// One change of those that an operator makes.
    fn moved(&self, random: &mut fastrand::Rng) -> Self {
        let mut to = self.clone();
        match random.u32(0..10) {
            _ if self.gone => to.gone = random.bool(),
            _ if self.stopped.is_some() => to.stopped = None,
            0 => to.gone = true,
            1 => to.stopped = Some(["violation", "arrears"][random.usize(0..2)]),
            2 | 3 => to.per_call = !self.per_call,
            4 | 5 if self.bought.len() > 1 => drop(to.bought.pop()),
            4 | 5 => to.bought.push(random.u32(1..15)),
            _ => to.bought[0] = random.u32(1..30),
        }
        to
    }
}

/// A quota that an account was given: it may have come into force from the moment its file was
/// begun, and was in force when its reload had returned.
struct Given {
    begin: Mono,
    end: Mono,
    quota: u32,
}

/// The most and the least that can have been in force at any time in `[from, until]`.
fn in_force(given: &[Given], from: Mono, until: Mono) -> (u32, u32) {
    let possible = given.iter().enumerate().filter(|(at, one)| {
        let replaced = given.get(at + 1).map_or(Mono(u64::MAX), |next| next.end);
        one.begin <= until && replaced >= from
    });
    possible.fold((0, u32::MAX), |(most, least), (_, one)| {
        (most.max(one.quota), least.min(one.quota))
    })
}

/// What the clients of one account were told.
#[derive(Default)]
struct Heard {
    answered: HashSet<String>,
    /// Over the cap, stopped or unknown: what a moved account must expect.
    turned_away: usize,
    odd: Vec<String>,
}

/// Calls over one connection until `stop`. It must never break.
async fn call_on(
    public: std::net::SocketAddr,
    request: impl Fn() -> Request<Full<Bytes>>,
    pace: Duration,
    stop: Arc<AtomicBool>,
    heard: Arc<Mutex<Heard>>,
) {
    let mut client = Client::connect(public).await.unwrap();
    let mut tick = tokio::time::interval(pace);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        match client.send(request()).await {
            Err(error) => {
                heard
                    .lock()
                    .odd
                    .push(format!("a kept connection broke: {error}"));
                return;
            }
            Ok((status, headers, body)) => {
                let body = String::from_utf8_lossy(&body);
                let mut heard = heard.lock();
                match status {
                    StatusCode::OK if !body.contains("\"Error\"") => {
                        let id = headers["x-request-id"].to_str().unwrap().to_owned();
                        heard.answered.insert(id);
                    }
                    StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::UNAUTHORIZED
                    | StatusCode::PAYMENT_REQUIRED
                    | StatusCode::FORBIDDEN => heard.turned_away += 1,
                    StatusCode::OK
                        if [
                            "RequestLimitExceeded",
                            "SecretIdNotFound",
                            "InArrears",
                            "StopUsing",
                        ]
                        .iter()
                        .any(|code| body.contains(code)) =>
                    {
                        heard.turned_away += 1;
                    }
                    _ => heard.odd.push(format!("{status} {body}")),
                }
            }
        }
    }
}

fn resident_kib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// `TORTURE_RELOADS=10000` makes it ten times as long (`make torture`).
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_reloads_under_load_lose_no_call_and_no_record_and_keep_every_cap() {
    let reloads: usize = std::env::var("TORTURE_RELOADS").map_or(1_000, |reloads| {
        reloads.parse().expect("TORTURE_RELOADS is a number")
    });
    let clock = Clock::default();
    let mut random = fastrand::Rng::with_seed(20_261_101);
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = Sandbox::new(upstream.address, &[FEW_FILES]);
    let shipped = std::fs::read_to_string(house.file("accounts.yaml")).unwrap();
    let file_of = |movers: &[Mover]| {
        let mut file = shipped.clone();
        for (n, mover) in movers.iter().enumerate() {
            mover.write(n, &mut file);
        }
        file
    };
    let put = |text: &str| {
        std::fs::write(house.file("next"), text).unwrap();
        std::fs::rename(house.file("next"), house.file("accounts.yaml")).unwrap();
    };
    let mut movers: Vec<Mover> = (0..MOVERS)
        .map(|n| Mover {
            gone: false,
            per_call: n % 3 == 0,
            bought: vec![5 + n as u32],
            stopped: None,
        })
        .collect();
    put(&file_of(&movers));
    let process = house.start().await;
    let mut given: Vec<Vec<Given>> = movers
        .iter()
        .map(|mover| {
            vec![Given {
                begin: Mono(0),
                end: Mono(0),
                quota: mover.quota(),
            }]
        })
        .collect();

    let stop = Arc::new(AtomicBool::new(false));
    let heard: Arc<Mutex<Heard>> = Arc::default();
    let mut callers = tokio::task::JoinSet::new();
    let mut caller = |request: Box<dyn Fn() -> Request<Full<Bytes>> + Send + Sync>, pace| {
        let pace = Duration::from_millis(pace);
        callers.spawn(call_on(
            house.public,
            request,
            pace,
            stop.clone(),
            heard.clone(),
        ));
    };
    caller(Box::new(|| segment(STUDIO_KEY)), 30);
    caller(Box::new(|| segment(RETAIL_KEY)), 40);
    caller(Box::new(|| segment(RETAIL_KEY)), 40);
    for n in 0..CALLED {
        if n < 2 {
            let (id, secret) = (format!("AKIDMOVER{n}"), format!("secret-of-mover-{n}"));
            caller(
                Box::new(move || signed(&id, &secret, "SegmentPortraitPic", "{}")),
                30,
            );
        } else {
            let key = format!("mover-{n}");
            caller(Box::new(move || segment(&key)), 30);
        }
    }

    let broken = [
        "accounts: [",
        "",
        "accounts: {\"1\": {name: 1}}",
        "accounts: {}\nusers: {}\n",
    ];
    let (mut posts_reloaded, mut posts_refused) = (0, 0);
    let mut resident = Vec::new();
    for step in 1..=reloads {
        if random.u32(0..8) == 0 {
            put(broken[random.usize(0..broken.len())]);
            let refused = post_reload(house.admin, "").await;
            assert!(!mistakes(&refused).is_empty());
            posts_refused += 1;
        } else {
            let n = random.usize(0..MOVERS);
            let to = movers[n].moved(&mut random);
            movers[n] = to;
            let begin = clock.mono();
            put(&file_of(&movers));
            let (status, told) = post_reload(house.admin, "").await;
            assert_eq!(status, StatusCode::OK, "{told}");
            posts_reloaded += usize::from(told["outcome"] == "reloaded");
            given[n].push(Given {
                begin,
                end: clock.mono(),
                quota: movers[n].quota(),
            });
        }
        if step % (reloads / 4).max(1) == 0 {
            // Long enough for windows that no reload has touched, and for the allocator to give
            // back what it only kept at hand: while reloads run it grows and shrinks by steps of
            // some MiB.
            tokio::time::sleep(Duration::from_millis(3_000)).await;
            resident.push(resident_kib(process.child.id()));
        }
    }
    let ended = clock.mono();
    stop.store(true, Ordering::Relaxed);
    callers.join_all().await;

    // No connection dropped, no record lost, everything adds up.
    let heard = std::mem::take(&mut *heard.lock());
    assert_eq!(heard.odd, Vec::<String>::new());
    let samples = at_rest(house.admin).await;
    samples.assert_conserved();
    let recorded = whole_ledger(&house.ledger());
    let ids: HashSet<String> = recorded.iter().map(|r| r.id.to_string()).collect();
    assert_eq!(ids, heard.answered, "answered = recorded");
    assert!(heard.turned_away > 100 && recorded.len() > 1_000);

    // The generation counts what was put in force, whoever asked for it.
    let log = house.log();
    let told = |message: &str| log.matches(&format!("\"message\":\"{message}")).count();
    let generation = samples.sum("tollgate_config_generation", &[]) as usize;
    assert_eq!(generation, told("reloaded") + 1);
    assert_eq!(
        samples.sum("tollgate_config_reload_failures_total", &[]) as usize,
        told("reload refused")
    );
    assert!(posts_reloaded < generation && posts_refused <= told("reload refused"));
    assert!(
        posts_reloaded > reloads / 2,
        "{posts_reloaded} of {reloads}"
    );

    // P1 on the recorded starts, against what can have been in force when each was decided: at most
    // max_delay before it, or a moment after it where a thread was put to sleep between clock and
    // lock.
    let mut starts: HashMap<&str, Vec<u64>> = HashMap::new();
    for record in &recorded {
        starts
            .entry(record.account.as_str())
            .or_default()
            .push(record.start.0);
    }
    let (mut steady, mut full) = (0, 0);
    for (n, given) in given.iter().enumerate() {
        let Some(starts) = starts.get_mut(format!("mover-{n}").as_str()) else {
            assert!(n >= CALLED, "mover-{n} was never let in");
            continue;
        };
        starts.sort_unstable();
        let mut first = 0;
        for (index, start) in starts.iter().enumerate() {
            while starts[first] + SECOND_NS <= *start {
                first += 1;
            }
            let within = (index + 1 - first) as u32;
            let around = |before: u64, after: u64| {
                let (before, after) = (before * 1_000_000, after * 1_000_000);
                in_force(
                    given,
                    Mono(start.saturating_sub(before)),
                    Mono(start + after),
                )
            };
            let (most, _) = around(60, 250);
            assert!(
                within <= most,
                "mover-{n}: {within} starts in a second under {most}"
            );
            let (most, least) = around(2_000, 250);
            if most == least {
                steady += 1;
                full += usize::from(within == most);
            }
        }
    }
    for (account, quota) in [("1250000001", 20), ("1250000002", 30)] {
        let starts = starts.remove(account).unwrap();
        assert_eq!(
            most_within_a_second(starts),
            quota,
            "{account} was never touched"
        );
    }
    assert!(
        steady > 100 && full > 20,
        "the oracle saw {steady} starts under a quota that stood, {full} of which filled it"
    );

    // Over the more of two: the allocator gives back now more, now less, by some MiB.
    let gained = resident[3] - resident[0].max(resident[1]);
    eprintln!(
        "{reloads} reloads and {} calls in {:?}; resident at rest after each quarter {resident:?} KiB; \
         {steady} starts under a quota that stood, {full} of them filled it",
        recorded.len() + heard.turned_away,
        ended.since(given[0][1].begin),
    );
    // Beside other tests by more of them; ten thousand reloads find a tenth of this leak.
    assert!(
        gained < 8_192.0,
        "the gate grows by {gained:.0} KiB in the second half: {resident:?}"
    );
}
