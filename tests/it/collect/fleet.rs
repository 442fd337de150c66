//! Gates with an outbox, NATS, and the collector.

use crate::bills;
use crate::harness::*;
use http::StatusCode;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tollgate::testing::ledger::{Reader, SourceLedger, StoredRecord};
use tollgate::testing::nats::Records;

/// The line of the settings that has nothing to do with an outbox, which stands behind it then.
pub const ALONE: &str = "admission: {max_delay: 50ms}";

/// The line of a gate with an outbox, or of a collector.
pub fn outbox(nats: u16, replica: &str) -> String {
    format!(
        "{ALONE}\noutbox: {{nats: {{servers: [\"nats://127.0.0.1:{nats}\"], max_bytes: 64MiB}}}}\nreplica: {replica}"
    )
}

/// A directory with a process.
pub struct Member {
    pub sandbox: Sandbox,
    pub process: Option<Process>,
    command: &'static str,
}

impl Member {
    /// Starts it, or starts it again.
    pub async fn start(&mut self) {
        self.kill();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.sandbox.dir.path().join("log"))
            .unwrap();
        let mut command = self.sandbox.command(&[], &[self.command]);
        let started =
            Process::start_by(command.stderr(log), self.sandbox.public, self.sandbox.admin);
        self.process = Some(started.await);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and its end.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            let status = process.ended().await;
            assert_eq!(status.code(), Some(0), "{}", self.sandbox.log());
        }
    }
}

fn member(sandbox: Sandbox, nats: u16, name: &str, command: &'static str) -> Member {
    sandbox.edit("tollgate.yaml", ALONE, &outbox(nats, name));
    sandbox.edit("tollgate.yaml", "workers: auto", "workers: 1");
    Member {
        sandbox,
        process: None,
        command,
    }
}

/// Three gates, their collector and NATS.
pub struct Fleet {
    pub nats: NatsServer,
    upstream: Upstream,
    pub gates: Vec<Member>,
    pub collector: Member,
}

impl Fleet {
    /// Directories for all; nothing but NATS runs.
    pub async fn new(house: impl Fn(SocketAddr) -> Sandbox) -> Self {
        Self::on(NatsServer::chosen(NatsServer::debian), house).await
    }

    /// The same on this server.
    pub async fn on(nats: NatsServer, house: impl Fn(SocketAddr) -> Sandbox) -> Self {
        nats.ready().await;
        let upstream = Upstream::after(Duration::from_millis(1)).await;
        let member =
            |name: &str, command| member(house(upstream.address), nats.port, name, command);
        let gates = [0, 1, 2].map(|nth| member(&format!("gate-{nth}"), "serve"));
        let collector = member("collector", "collect");
        Self {
            gates: gates.into(),
            collector,
            nats,
            upstream,
        }
    }

    /// A second one, with a ledger of its own; it does not run.
    pub fn another_collector(&self) -> Member {
        let sandbox = Sandbox::new(self.upstream.address, &[]);
        member(sandbox, self.nats.port, "collector-2", "collect")
    }

    /// Starts all that do not run.
    pub async fn start(&mut self) {
        for member in self.gates.iter_mut().chain([&mut self.collector]) {
            if member.process.is_none() {
                member.start().await;
            }
        }
    }

    /// The stream, as the gates and the collector have it.
    pub async fn stream(&self) -> Records {
        let nats = connected(&self.nats).await;
        nats.records(&stream_options(64 << 20)).await.unwrap()
    }

    /// Waits until each record of each gate is collected.
    pub async fn collected(&self) {
        let mut missing = String::new();
        for _ in 0..1_200 {
            missing = self.missing();
            if missing.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "not collected: {missing}\nthe collector:\n{}\nthe first gate:\n{}",
            self.collector.sandbox.log(),
            self.gates[0].sandbox.log()
        );
    }

    fn missing(&self) -> String {
        let sources = sources(&self.collector.sandbox.ledger());
        let told = self.gates.iter().enumerate().filter_map(|(nth, gate)| {
            let last = Reader::open(&gate.sandbox.ledger())
                .unwrap()
                .last_seq()
                .unwrap();
            let replica = format!("gate-{nth}");
            let source = sources.iter().find(|source| source.replica == replica);
            let seq = source.map_or(0, |source| source.seq);
            (seq < last).then(|| format!("{replica} has {last}, collected are {seq}; "))
        });
        told.collect()
    }

    /// The records of the gates are those of the collected ledger, id by id.
    pub fn assert_is_the_union(&self) {
        let mut union = BTreeMap::new();
        for gate in &self.gates {
            for record in whole_ledger(&gate.sandbox.ledger()) {
                let id = record.id.to_string();
                assert!(
                    union.insert(id, comparable(record)).is_none(),
                    "an id twice"
                );
            }
        }
        let mut collected = BTreeMap::new();
        for record in whole_ledger(&self.collector.sandbox.ledger()) {
            let id = record.id.to_string();
            assert!(
                collected.insert(id, comparable(record)).is_none(),
                "an id twice"
            );
        }
        assert!(!union.is_empty());
        let lost: Vec<_> = union
            .keys()
            .filter(|id| !collected.contains_key(*id))
            .collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost: {lost:?}",
            lost.len(),
            union.len()
        );
        for (id, record) in &collected {
            assert_eq!(union.get(id), Some(record), "{id}");
        }
        let verified = self.collector.sandbox.run(&["verify"]);
        assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    }
}

/// A record without its place in a ledger.
fn comparable(record: StoredRecord) -> Value {
    let mut value = serde_json::to_value(record).unwrap();
    for place in ["seq", "run"] {
        value[place] = Value::Null;
    }
    value
}

/// The sources of a collected ledger; none where there is none yet.
pub fn sources(ledger: &Path) -> Vec<SourceLedger> {
    match Reader::open(ledger) {
        Ok(reader) => reader.sources().unwrap(),
        Err(_) => Vec::new(),
    }
}

/// The id of a gate's ledger.
pub fn ledger_id(gate: &Member) -> String {
    let ledger = Reader::open(&gate.sandbox.ledger()).unwrap();
    ledger.ledger_id().unwrap()
}

/// How a call of the customer is answered.
pub async fn answered(gate: &Member) -> StatusCode {
    match try_send(gate.sandbox.public, segment(bills::KEY)).await {
        Ok((status, ..)) => status,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
