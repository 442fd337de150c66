//! The cases, one function each: who is started, what is sent, what is printed.

use crate::accounts;
use crate::envoy::{self, Work};
use crate::load::{Calls, Load, Pace, SMALL_BODY, Wire};
use crate::servers::{self, Accounts, Figure, Gate, Server};
use crate::table::{self, Row};
use crate::upstream::Upstream;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tollgate::testing::model::Clock;
use tollgate::testing::proxy::identity::tc3::BodyHash;

pub(crate) const MEASURED: Duration = Duration::from_secs(2);
/// Of the round that warms caches and connections and is not counted.
const WARMED: Duration = Duration::from_millis(500);
const CONNECTIONS: usize = 64;
/// HAProxy's default, and what large bodies want.
pub(crate) const SMALL_BUFFER: usize = 16 << 10;
const LARGE_BUFFER: usize = 64 << 10;
/// Addresses in `unknown`. The gate forgives each of them ten failed keys at once and one more a
/// second, and knows 65,536 apart: so many in turn may fail 60,000 times a second for ever without
/// one answer being held back.
pub(crate) const PEERS: usize = 60_000;
const MANY_ACCOUNTS: usize = 100_000;
const GIVEN_BACK: Duration = Duration::from_secs(12);
/// Calls a second in `latency`.
const RATE: u64 = 2_000;

pub(crate) struct Bench {
    pub rounds: usize,
    pub clock: Clock,
    pub upstream: Upstream,
}

/// One server under one load, measured once a round.
pub(crate) struct Contender<'a> {
    pub label: String,
    /// `None` calls the upstream directly.
    pub server: Option<&'a Server>,
    pub traffic: Traffic,
    pub wire: Wire,
    pub pace: Pace,
    pub connections: usize,
    pub status: u16,
    pub let_in_percent: u64,
}

pub(crate) enum Traffic {
    Keyed(Arc<Calls>),
    /// Signed anew each round: a signature is valid for five minutes.
    Signed {
        different: usize,
        body_bytes: usize,
    },
}

impl<'a> Contender<'a> {
    pub(crate) fn new(server: &'a Server, calls: &Arc<Calls>) -> Self {
        Self {
            label: server.name.to_owned(),
            server: Some(server),
            traffic: Traffic::Keyed(calls.clone()),
            wire: Wire::Plain,
            pace: Pace::Closed,
            connections: CONNECTIONS,
            status: 200,
            let_in_percent: 1,
        }
    }

    pub(crate) fn signed(server: &'a Server, different: usize, body_bytes: usize) -> Self {
        let traffic = Traffic::Signed {
            different,
            body_bytes,
        };
        Self {
            label: format!("{}, signed (TC3)", server.name),
            traffic,
            ..Self::new(server, &Calls::with_keys(0..1, body_bytes))
        }
    }

    pub(crate) async fn measure(&self, bench: &Bench, lasting: Duration) -> Figure {
        let calls = match &self.traffic {
            Traffic::Keyed(calls) => calls.clone(),
            Traffic::Signed {
                different,
                body_bytes,
            } => Calls::signed(&bench.clock, *different, *body_bytes),
        };
        let load = Load {
            calls,
            wire: self.wire,
            pace: self.pace,
            connections: self.connections,
            status: self.status,
            let_in_percent: self.let_in_percent,
            is_at_store: false,
        };
        let upstream = &bench.upstream;
        let address = self
            .server
            .map_or(upstream.address, |server| server.address);
        servers::measure(&load, address, self.server, upstream, lasting).await
    }
}

impl Bench {
    pub(crate) async fn new(rounds: usize) -> Self {
        Self {
            rounds,
            clock: Clock::default(),
            upstream: Upstream::start().await,
        }
    }

    async fn gate(&self, name: &'static str, gate: Gate, accounts: Accounts) -> Server {
        Server::gate(name, gate, accounts, &self.upstream).await
    }

    /// The peers that are installed. HAProxy's buffers are to be its default but for large bodies.
    async fn peers(&self, accounts: Accounts, buffer_bytes: usize, work: Work) -> Vec<Server> {
        let nginx = Server::nginx(accounts, &self.upstream, false).await;
        let haproxy = Server::haproxy(accounts, &self.upstream, buffer_bytes, false).await;
        let envoy = envoy::start(accounts, &self.upstream, work, false).await;
        nginx.into_iter().chain(haproxy).chain(envoy).collect()
    }

    /// Measures all of them, round by round, and checks afterwards that each gate's ledger agrees.
    pub(crate) async fn compare(
        &self,
        contenders: &[Contender<'_>],
        lasting: Duration,
    ) -> Vec<Row> {
        let mut rows: Vec<Row> = contenders
            .iter()
            .map(|contender| Row {
                label: contender.label.clone(),
                rounds: Vec::new(),
            })
            .collect();
        for round in 0..=self.rounds {
            for (contender, row) in contenders.iter().zip(&mut rows) {
                let lasting = if round == 0 { WARMED } else { lasting };
                let figure = contender.measure(self, lasting).await;
                if round > 0 {
                    row.rounds.push(figure);
                }
            }
        }
        for server in contenders.iter().filter_map(|contender| contender.server) {
            server.verify().await;
        }
        rows
    }

    pub(crate) async fn admitted(&self) {
        let accounts = Accounts { large: 1 };
        let strict = self.gate("tollgate, strict", Gate::STRICT, accounts).await;
        let relaxed = self
            .gate("tollgate, relaxed", Gate::RELAXED, accounts)
            .await;
        let peers = self.peers(accounts, SMALL_BUFFER, Work::Forward).await;
        let calls = Calls::with_keys(0..1, SMALL_BODY);
        let mut contenders = vec![
            Contender::new(&strict, &calls),
            Contender::new(&relaxed, &calls),
            Contender::signed(&strict, 64, SMALL_BODY),
        ];
        contenders.extend(peers.iter().map(|peer| Contender::new(peer, &calls)));
        let rows = self.compare(&contenders, MEASURED).await;
        table::print("A admitted: POST of 300 B", &rows, "nginx");
    }

    pub(crate) async fn throttled(&self) {
        let accounts = Accounts { large: 1 };
        let gate = self.gate("tollgate", Gate::STRICT, accounts).await;
        let peers = self.peers(accounts, SMALL_BUFFER, Work::Refuse).await;
        let throttled = accounts.throttled();
        let calls = Calls::with_keys(throttled..throttled + 1, SMALL_BODY);
        let rows = self.refusals(&gate, &peers, &calls, 429).await;
        table::print("B throttled: POST of 300 B, one account", &rows, "nginx");
    }

    /// The gate delays its answers to an address from which too many keys fail, so the flood comes
    /// from many: it believes this client's `X-Forwarded-For`, which all servers are sent alike.
    pub(crate) async fn unknown(&self) {
        let accounts = Accounts { large: 1 };
        let gate = self.gate("tollgate", Gate::STRICT, accounts).await;
        let peers = self.peers(accounts, SMALL_BUFFER, Work::Refuse).await;
        let calls = Calls::with_unknown_key(PEERS);
        let rows = self.refusals(&gate, &peers, &calls, 401).await;
        table::print("B' unknown key: POST of 300 B", &rows, "nginx");
    }

    async fn refusals(
        &self,
        gate: &Server,
        peers: &[Server],
        calls: &Arc<Calls>,
        status: u16,
    ) -> Vec<Row> {
        let contenders: Vec<Contender<'_>> = std::iter::once(gate)
            .chain(peers)
            .map(|server| Contender {
                status,
                ..Contender::new(server, calls)
            })
            .collect();
        self.compare(&contenders, MEASURED).await
    }

    pub(crate) async fn bodies(&self) {
        let accounts = Accounts { large: 1 };
        let gate = self.gate("tollgate", Gate::STRICT, accounts).await;
        let peers = self.peers(accounts, LARGE_BUFFER, Work::Forward).await;
        for (body_bytes, size) in [(200 << 10, "200 KiB"), (2 << 20, "2 MiB")] {
            let calls = Calls::with_keys(0..1, body_bytes);
            let mut contenders = vec![
                Contender::new(&gate, &calls),
                Contender::signed(&gate, 2, body_bytes),
            ];
            contenders.extend(peers.iter().map(|peer| Contender::new(peer, &calls)));
            let hash_before = hash_us(body_bytes);
            let rows = self.compare(&contenders, MEASURED).await;
            table::print(&format!("C bodies: POST of {size}"), &rows, "nginx");
            // A signature covers the body: whoever checks it must hash it, and no peer does.
            let hash_us = f64::midpoint(hash_before, hash_us(body_bytes));
            println!("{:<44} {hash_us:>11.1}", "SHA-256 of such a body");
            if let (Some(signed), Some(nginx)) = (
                table::find(&rows, "tollgate, signed"),
                table::find(&rows, "nginx"),
            ) {
                let rest =
                    signed.against(nginx, |own, nginx| (own.cpu_us - hash_us) / nginx.cpu_us);
                println!(
                    "{:<44} {:>11}  {rest:>11.2}",
                    "signed, without the hash", ""
                );
            }
        }
    }

    pub(crate) async fn accounts(&self) {
        let (one, many) = (
            Accounts { large: 1 },
            Accounts {
                large: MANY_ACCOUNTS,
            },
        );
        let mut pairs = vec![(
            self.gate("tollgate, one account", Gate::STRICT, one).await,
            self.gate("tollgate, 100,000 accounts", Gate::STRICT, many)
                .await,
        )];
        let nginx = Server::nginx(one, &self.upstream, false).await;
        pairs.extend(nginx.zip(Server::nginx(many, &self.upstream, false).await));
        let (of_one, of_many) = (
            Calls::with_keys(0..1, SMALL_BODY),
            // Each server needs its own turn, to have heard of every account in the end.
            pairs
                .iter()
                .map(|_| Calls::with_keys(0..MANY_ACCOUNTS, SMALL_BODY))
                .collect::<Vec<_>>(),
        );
        let per_account = |(few, all): &(Server, Server)| {
            let beyond = all.resident_bytes() as f64 - few.resident_bytes() as f64;
            beyond / MANY_ACCOUNTS as f64
        };
        // What was freed since the start is given back within ten seconds and some.
        tokio::time::sleep(GIVEN_BACK).await;
        let idle: Vec<f64> = pairs.iter().map(per_account).collect();

        let mut contenders = Vec::new();
        for ((few, all), of_many) in pairs.iter().zip(&of_many) {
            contenders.push(Contender::new(few, &of_one));
            contenders.push(Contender {
                label: format!("{}, 100,000 in turn", all.name.split(',').next().unwrap()),
                ..Contender::new(all, of_many)
            });
        }
        // When the rounds begin, every account has called.
        for (pair, of_many) in contenders.chunks(2).zip(&of_many) {
            while of_many.taken() < MANY_ACCOUNTS {
                pair[1].measure(self, MEASURED).await;
            }
        }
        let rows = self.compare(&contenders, MEASURED).await;
        table::print("D accounts: POST of 300 B", &rows, "nginx");
        let active: Vec<f64> = pairs.iter().map(per_account).collect();

        let texts = accounts::texts(MANY_ACCOUNTS) as f64 / MANY_ACCOUNTS as f64;
        println!("\nD memory, bytes an account beyond a server of one account      idle    active");
        for ((few, _), (idle, active)) in pairs.iter().zip(idle.iter().zip(&active)) {
            let name = few.name.split(',').next().unwrap();
            println!("{name:<60} {idle:>8.0}  {active:>8.0}");
        }
        println!(
            "{:<60} {texts:>8.0}",
            "texts and digests of an account in the YAML"
        );
        println!(
            "{:<60} {:>8.0}  {:>8.0}",
            "tollgate, beyond them",
            idle[0] - texts,
            active[0] - texts
        );
        // Both gates, so that what a reload leaves behind of its own is not charged to the
        // accounts.
        pairs[0].0.reload(one).await;
        pairs[0].1.reload(many).await;
        tokio::time::sleep(GIVEN_BACK).await;
        let reloaded = per_account(&pairs[0]);
        println!(
            "{:<60} {:>8}  {reloaded:>8.0}",
            "tollgate, after a reload", ""
        );
        let most = accounts::most_resident_bytes(pairs[0].1.pid()) >> 20;
        println!("{:<60} {most:>8} MiB", "tollgate, the most at once, in all");
    }

    pub(crate) async fn latency(&self) {
        let accounts = Accounts { large: 1 };
        let mut servers = vec![
            self.gate("tollgate, strict", Gate::STRICT, accounts).await,
            self.gate("tollgate, relaxed", Gate::RELAXED, accounts)
                .await,
        ];
        servers.extend(self.peers(accounts, SMALL_BUFFER, Work::Forward).await);
        let calls = Calls::with_keys(0..1, SMALL_BODY);
        let mut contenders: Vec<Contender<'_>> = servers
            .iter()
            .map(|server| Contender::new(server, &calls))
            .collect();
        contenders.push(Contender {
            label: "directly".to_owned(),
            server: None,
            ..Contender::new(&servers[0], &calls)
        });
        for contender in &mut contenders {
            contender.pace = Pace::PerSecond(RATE);
            contender.connections = 32;
        }
        let mut rows = self.compare(&contenders, 2 * MEASURED).await;
        let direct = rows.pop().expect("the last of the contenders");
        println!(
            "\nE latency: {RATE} calls/s of 300 B, us      p50       p99     p99.9  CPU us/call   p50 x nginx"
        );
        println!(
            "{:<38} {:>8.0}  {:>8.0}  {:>8.0}",
            "directly",
            direct.median(|figure| figure.p50_us),
            direct.median(|figure| figure.p99_us),
            direct.median(|figure| figure.p999_us)
        );
        let p50 = |row: &Row| row.against(&direct, |own, direct| own.p50_us - direct.p50_us);
        let nginx = table::find(&rows, "nginx").map_or(f64::NAN, p50);
        for row in &rows {
            println!(
                "{:<38} {:>+8.0}  {:>+8.0}  {:>+8.0}  {:>11.1}   {:>11.2}",
                row.label,
                p50(row),
                row.against(&direct, |own, direct| own.p99_us - direct.p99_us),
                row.against(&direct, |own, direct| own.p999_us - direct.p999_us),
                row.median(|figure| figure.cpu_us),
                p50(row) / nginx
            );
        }
        let (p50, p99) = sync_us(&self.clock);
        println!(
            "{:<38} {p50:>8.0}  {p99:>8.0}",
            "a write of 4 KiB and its sync"
        );
        const COMMITS: [&str; 2] = ["ledger_commit_seconds_sum", "ledger_commit_seconds_count"];
        let [seconds, commits] = servers[0].series(COMMITS).await;
        println!(
            "{:<38} {:>8.0}",
            "a commit of the strict ledger, on average",
            seconds / commits * 1e6
        );
    }

    /// Both gates and the load may use both cores: two workers and a load cannot have a core each,
    /// and so only the number of workers differs.
    pub(crate) async fn workers(&self) {
        let accounts = Accounts { large: 1 };
        let of = |workers| Gate {
            workers,
            cores: "0,1",
            ..Gate::STRICT
        };
        let one = self.gate("one worker", of(1), accounts).await;
        let two = self.gate("two workers", of(2), accounts).await;
        let calls = Calls::with_keys(0..1, SMALL_BODY);
        servers::pin_load("0,1");
        let contenders = [&one, &two].map(|server| Contender::new(server, &calls));
        let rows = self.compare(&contenders, MEASURED).await;
        servers::pin_load("1");
        table::print("G workers: POST of 300 B, strict", &rows, "one");
    }

    /// Each commit adds to the hourly total of every account in it.
    pub(crate) async fn ledger(&self) {
        let accounts = Accounts { large: 1_000 };
        let gate = self.gate("tollgate, strict", Gate::STRICT, accounts).await;
        let contenders = [(1, "1 account"), (1_000, "1,000 accounts")].map(|(active, label)| {
            let calls = Calls::with_keys(0..active, SMALL_BODY);
            Contender {
                label: label.to_owned(),
                ..Contender::new(&gate, &calls)
            }
        });
        let rows = self.compare(&contenders, MEASURED).await;
        table::print("Ledger: POST of 300 B, strict", &rows, "1 account");
    }
}

/// What no strict ledger can be quicker than on this disk: a page written in place, and fdatasync,
/// as often as calls come in `latency`. Median and 99th percentile.
fn sync_us(clock: &Clock) -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("page");
    let page = [b'x'; 4096];
    std::fs::write(&path, page.repeat(256)).expect("a file");
    let file = File::options().write(true).open(&path).expect("the file");
    file.sync_all().expect("a sync");
    let once = |nth: u64| {
        std::thread::sleep(Duration::from_secs(1) / RATE as u32);
        let began = clock.mono();
        file.write_all_at(&page, nth % 256 * 4096).expect("a write");
        file.sync_data().expect("a sync");
        clock.mono().since(began).as_secs_f64() * 1e6
    };
    let mut took: Vec<f64> = (0..2_000).map(once).collect();
    took.sort_by(f64::total_cmp);
    (took[1_000], took[1_980])
}

/// Processor time of hashing so much at once.
fn hash_us(body_bytes: usize) -> f64 {
    let body = vec![b'x'; body_bytes];
    let cpu = || {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        spent.tv_sec as f64 * 1e6 + spent.tv_nsec as f64 / 1e3
    };
    let once = |_| {
        let before = cpu();
        let mut hash = BodyHash::new();
        hash.update(black_box(&body));
        black_box(hash.finish());
        cpu() - before
    };
    table::median((0..51).map(once).collect())
}
