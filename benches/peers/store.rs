//! What a store that replicas share adds to a call: a gate that asks one beside a gate that decides
//! alone, under the same load in the same run.
//!
//! The store is a `redis-server` on the gate's core, because the load spins on the other one. Both
//! ledgers are relaxed, so that waiting for a disk does not cover what is measured.

use crate::cases::Bench;
use crate::load::{Calls, Load, Pace, SMALL_BODY, Wire};
use crate::servers::{self, Accounts, Figure, Gate, Server};
use crate::table::{self, Row};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::net::SocketAddr;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::model::{AccountId, Clock, GroupId, Mode, Mono, Utc};
use tollgate::testing::proxy::admission::{Limiter, LimiterKey, Limiters, Now, Quota, Terms};
use tollgate::testing::store::{
    Link, NodeAddress, Question, QuestionTerms, Said, StoreListener, StoreOptions, Topology,
};

const CONNECTIONS: usize = 32;
const ACCOUNTS: Accounts = Accounts { large: 100 };
/// The gate's default, which the store is asked under too.
const MAX_DELAY: Duration = Duration::from_millis(50);
/// Before a case is measured: of a flood on the small quota so long that what is let in at first is
/// below a hundredth of it.
const WARMED: Duration = Duration::from_secs(2);
/// In process: decisions of the local window for a figure, and questions to the store.
const DECISIONS: u64 = 1_000_000;
const QUESTIONS: usize = 2_000;

struct Case {
    label: &'static str,
    per_second: u64,
    accounts: Range<usize>,
    status: u16,
    lasting: Duration,
}

/// One round of the gate that asks: what the call cost, and what the store had to do for it.
struct Asked {
    calls: f64,
    questions: f64,
    /// Of them, those whose answer was void.
    late: f64,
    /// From sending a question to its answer, on average.
    answer_us: f64,
    store_cpu_us: f64,
}

fn cases() -> [Case; 6] {
    let of = |label, per_second, accounts, status| Case {
        label,
        per_second,
        accounts,
        status,
        // About as many calls a round where they are many.
        lasting: Duration::from_secs(if per_second > 2_000 { 2 } else { 4 }),
    };
    let (all, hot) = (0..ACCOUNTS.large, 0..1);
    let flooded = ACCOUNTS.throttled()..ACCOUNTS.throttled() + 1;
    [
        of("200 calls/s, 100 accounts", 200, all.clone(), 200),
        of("2,000 calls/s, 100 accounts", 2_000, all.clone(), 200),
        of("5,000 calls/s, 100 accounts", 5_000, all, 200),
        of("2,000 calls/s, one account", 2_000, hot.clone(), 200),
        of("5,000 calls/s, one account", 5_000, hot, 200),
        of("5,000 calls/s over a quota of 20", 5_000, flooded, 429),
    ]
}

pub(crate) async fn run(bench: &Bench) {
    let Some(redis) = Server::redis().await else {
        return println!("\nStore: left out, there is no redis-server");
    };
    let start = async |name, gate| Server::gate(name, gate, ACCOUNTS, &bench.upstream).await;
    let alone = start("tollgate, local window", Gate::RELAXED).await;
    let store = Some(redis.address);
    let gate = Gate {
        store,
        ..Gate::RELAXED
    };
    let asking = start("tollgate, shared store", gate).await;
    println!(
        "\nStore: POST of 300 B, relaxed, us        p50       p99  CPU us/call  store's CPU  questions/call  answer us    late of questions  refused of calls"
    );
    for case in cases() {
        compare(bench, &case, &alone, &asking, &redis).await;
    }
    alone.verify().await;
    asking.verify().await;
    verify_questions(&asking, redis.address).await;
    in_process(&bench.clock, redis.address).await;
}

/// Measures both, round by round, and prints what the store added.
async fn compare(bench: &Bench, case: &Case, alone: &Server, asking: &Server, redis: &Server) {
    let row = |label: &str| Row {
        label: label.to_owned(),
        rounds: Vec::new(),
    };
    let (mut local, mut shared) = (row("  local window"), row("  shared store"));
    let mut asked = Vec::new();
    let mut load = Load {
        calls: Calls::with_keys(case.accounts.clone(), SMALL_BODY),
        pace: Pace::PerSecond(case.per_second),
        connections: CONNECTIONS,
        status: case.status,
        wire: Wire::Plain,
        let_in_percent: 1,
        is_at_store: false,
    };
    for round in 0..=bench.rounds {
        let lasting = if round == 0 { WARMED } else { case.lasting };
        load.is_at_store = false;
        let of_local = measure(&load, alone, bench, lasting).await;
        load.is_at_store = true;
        let (of_shared, of_store) = measure_asking(&load, asking, redis, bench, lasting).await;
        if round > 0 {
            local.rounds.push(of_local);
            shared.rounds.push(of_shared);
            asked.push(of_store);
        }
    }
    print(case.label, &local, &shared, &asked);
}

async fn measure(load: &Load, gate: &Server, bench: &Bench, lasting: Duration) -> Figure {
    servers::measure(load, gate.address, Some(gate), &bench.upstream, lasting).await
}

async fn measure_asking(
    load: &Load,
    gate: &Server,
    redis: &Server,
    bench: &Bench,
    lasting: Duration,
) -> (Figure, Asked) {
    const SERIES: [&str; 4] = [
        "store_calls_total",
        "store_late_total",
        "store_seconds_sum",
        "store_seconds_count",
    ];
    let before = gate.series(SERIES).await;
    let cpu_before = redis.cpu();
    let figure = measure(load, gate, bench, lasting).await;
    let store_cpu = redis.cpu().since(&cpu_before);
    let after = gate.series(SERIES).await;
    let [questions, late, seconds, answers] = std::array::from_fn(|nth| after[nth] - before[nth]);
    let calls = figure.calls as f64;
    let asked = Asked {
        calls,
        questions,
        late,
        answer_us: seconds * 1e6 / answers,
        store_cpu_us: store_cpu.as_secs_f64() * 1e6 / calls,
    };
    (figure, asked)
}

/// Ends the benchmark when the store ran its function less often than the gate says it asked. It
/// runs it for heartbeats too.
async fn verify_questions(gate: &Server, store: SocketAddr) {
    let [questions] = gate.series(["store_calls_total"]).await;
    let stats = Command::new("redis-cli")
        .args(["-p", &store.port().to_string(), "INFO", "commandstats"])
        .output()
        .unwrap();
    let stats = String::from_utf8(stats.stdout).unwrap();
    let runs: f64 = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_fcall:calls="))
        .and_then(|line| line.split(',').next()?.parse().ok())
        .unwrap();
    assert!(runs >= questions, "{runs} runs for {questions} questions");
    println!("runs of the function at the store: {runs}, of them for calls: {questions}");
}

fn print(label: &str, local: &Row, shared: &Row, asked: &[Asked]) {
    println!("{label}");
    for row in [local, shared] {
        print!(
            "{:<36} {:>8.0}  {:>8.0}  {:>11.1}",
            row.label,
            row.median(|figure| figure.p50_us),
            row.median(|figure| figure.p99_us),
            row.median(|figure| figure.cpu_us),
        );
        if std::ptr::eq(row, local) {
            println!();
        }
    }
    let median = |of: fn(&Asked) -> f64| table::median(asked.iter().map(of).collect());
    let sum = |of: fn(&Asked) -> f64| asked.iter().map(of).sum::<f64>();
    let calls: usize = shared.rounds.iter().map(|figure| figure.calls).sum();
    let undecided: u64 = shared.rounds.iter().map(|figure| figure.undecided).sum();
    println!(
        "  {:>11.1}  {:>14.3}  {:>9.0}  {:>9.0} of {:>6.0}  {undecided:>7} of {calls}",
        median(|asked| asked.store_cpu_us),
        median(|asked| asked.questions / asked.calls),
        median(|asked| asked.answer_us),
        sum(|asked| asked.late),
        sum(|asked| asked.questions),
    );
    let added = |of: fn(&Figure) -> f64| shared.against(local, |own, other| of(own) - of(other));
    let dearer = shared.ratio(local, |figure| figure.cpu_us);
    println!(
        "  {:<34} {:>+8.0}  {:>+8.0}  {:>+11.1}  (x {dearer:.2})",
        "added",
        added(|figure| figure.p50_us),
        added(|figure| figure.p99_us),
        added(|figure| figure.cpu_us),
    );
}

/// The decision alone, without a gate around it: of the local window, and of the store.
async fn in_process(clock: &Clock, store: SocketAddr) {
    let limiter = limiter();
    let local: Vec<f64> = (1..=5).map(|nth| decision_ns(&limiter, nth)).collect();
    println!(
        "\na decision of the local window, ns       {:>8.0}",
        table::median(local)
    );
    let (p50, p99) = question_us(clock, store).await;
    println!("a question to the store, one at a time, us {p50:>6.0}  {p99:>8.0}");
}

fn limiter() -> Arc<Limiter> {
    let key = LimiterKey {
        account: AccountId::new("a").unwrap(),
        group: GroupId::new("g").unwrap(),
        action: None,
    };
    let terms = Terms {
        opened: Utc(0),
        stopped: None,
        mode: Mode::PerCall,
        quota: Quota::Fixed(1_000),
    };
    Limiters::default().get_or_insert(key, 1, terms)
}

/// Processor time of a decision at the pace of the quota, in a time of its own: each is admitted.
fn decision_ns(limiter: &Limiter, nth: u64) -> f64 {
    let cpu = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        spent.tv_sec as f64 * 1e9 + spent.tv_nsec as f64
    };
    let began = cpu();
    for number in 0..DECISIONS {
        let now = Now {
            mono: Mono((nth * DECISIONS + number) * 1_000_000),
            utc: Utc(1_764_590_400_000_000),
        };
        let reserved = limiter.reserve(black_box(now), MAX_DELAY);
        let _ = black_box(reserved.expect("admitted"));
    }
    (cpu() - began) / DECISIONS as f64
}

struct Nobody;
impl StoreListener for Nobody {}

/// From asking for one start to the answer, over the gate's own link, each after the one before:
/// median and 99th percentile.
async fn question_us(clock: &Clock, store: SocketAddr) -> (f64, f64) {
    let options = StoreOptions {
        nodes: vec![NodeAddress {
            host: store.ip().to_string(),
            port: store.port(),
        }],
        topology: Topology::Single,
        tls: None,
        username: None,
        password: None,
        database: 0,
        budget: Duration::from_millis(10),
        max_delay: MAX_DELAY,
        replica: "bench".to_owned(),
    };
    let link = Link::new(options, clock.clone(), Arc::new(Nobody)).unwrap();
    let handle = link.on_this_runtime();
    let question = Question {
        limiter: "bench/alone".into(),
        quota: 100_000,
        n: 1,
        max_delay: MAX_DELAY,
    };
    let bucket = link.bucket_of(&question.limiter);
    let mut epoch = 0;
    let mut took = Vec::new();
    while took.len() < QUESTIONS {
        let deadline = clock.utc().plus(Duration::from_secs(10));
        let began = clock.mono();
        let said = handle
            .ask(bucket, &question, QuestionTerms { epoch, deadline })
            .await;
        match said {
            Ok(Said::Granted { .. }) => took.push(clock.mono().since(began).as_secs_f64() * 1e6),
            Ok(Said::Epoch { epoch: other, .. }) => epoch = other,
            // The link is not there yet.
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    took.sort_by(f64::total_cmp);
    (took[QUESTIONS / 2], took[QUESTIONS * 99 / 100])
}
