//! The processes of `tollgate demo --replicas`: the store, NATS, the gates and their collector.
//!
//! Owns their start and their end. Must never leave one behind.

use crate::cli::output::tell;
use crate::model::ONE_NATS_SERVER;
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// What keeps the windows, by the names under which systems have it.
const STORE_PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// Between choosing a free port and listening on it another process may take it.
const PORTS_TRIED: u32 = 5;
/// How often is looked whether a process does what it was asked to do.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A server listens within this many looks, or it does not work.
const LOOKS_AT_A_START: u32 = 500;
/// A gate drains within this many looks.
const LOOKS_AT_A_DRAIN: u32 = 1_000;

/// A process that ends with its owner at the latest.
struct Server(Child);

impl Server {
    /// In a process group of its own: Ctrl-C is for the demo, which ends the others in their order.
    fn start(command: &mut Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        command.spawn().map(Self)
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The store.
pub(super) struct StoreServer {
    /// Where it listens.
    pub(super) address: SocketAddr,
    _server: Server,
}

impl StoreServer {
    /// Starts one that keeps nothing on disk and forgets nothing in memory.
    pub(super) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let listening = listening(|address| spawn_store(directory, address)).await?;
        let (address, server) = listening.context(
            "the store does not start: see whether `redis-server --port 6390` does, and why not",
        )?;
        Ok(Self {
            address,
            _server: server,
        })
    }
}

/// Starts a server at a free port, and waits until it takes connections. `None`: it does at none.
async fn listening(
    spawn: impl Fn(SocketAddr) -> anyhow::Result<Server>,
) -> anyhow::Result<Option<(SocketAddr, Server)>> {
    for _ in 0..PORTS_TRIED {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = socket.local_addr()?;
        drop(socket);
        let mut server = spawn(address)?;
        for _ in 0..LOOKS_AT_A_START {
            if server.0.try_wait()?.is_some() {
                break;
            }
            if TcpStream::connect(address).await.is_ok() {
                return Ok(Some((address, server)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(None)
}

fn spawn_store(directory: &Path, address: SocketAddr) -> anyhow::Result<Server> {
    let port = address.port().to_string();
    for program in STORE_PROGRAMS {
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &port])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--maxmemory-policy", "noeviction"])
            .arg("--dir")
            .arg(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        match Server::start(&mut command) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            started => return started.with_context(|| format!("cannot start {program}")),
        }
    }
    bail!(
        "there is no redis-server, which holds the quota that the gates share: install it \
         (`apt-get install redis-server`; valkey-server does as well), or run the demo of one gate, \
         `tollgate demo`"
    )
}

/// NATS with JetStream, by which the gates send their records.
pub(super) struct RecordServer {
    /// Where it listens.
    pub(super) address: SocketAddr,
    _server: Server,
}

impl RecordServer {
    /// Starts one that keeps its messages in the directory.
    pub(super) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let listening = listening(|address| spawn_nats(directory, address)).await?;
        let (address, server) = listening.context(
            "NATS does not start: see whether `nats-server -js -p 4290` does, and why not",
        )?;
        Ok(Self {
            address,
            _server: server,
        })
    }
}

fn spawn_nats(directory: &Path, address: SocketAddr) -> anyhow::Result<Server> {
    let mut command = Command::new("nats-server");
    command
        .args(["-a", "127.0.0.1", "-p", &address.port().to_string()])
        .args(["-js", "-sd"])
        .arg(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match Server::start(&mut command) {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is no nats-server, by which the gates send their records to the collector: install \
             it (`apt-get install nats-server`), or run the demo of one gate, `tollgate demo`"
        ),
        started => started.context("cannot start nats-server"),
    }
}

/// A gate, `tollgate serve`, or their collector, `tollgate collect`, on files of settings of its own.
pub(super) struct GateServer {
    pub(super) name: String,
    pub(super) public: SocketAddr,
    pub(super) admin: SocketAddr,
    settings: PathBuf,
    server: Server,
}

impl GateServer {
    /// Starts the subcommand, and waits until it is ready. What it warns of goes to standard error.
    pub(super) async fn start(
        subcommand: &str,
        name: String,
        settings: PathBuf,
    ) -> anyhow::Result<Self> {
        let mut command = own_program()?;
        command
            .args([subcommand, "--config"])
            .arg(&settings)
            // The line that tells its addresses is of this level.
            .env("TOLLGATE_LOG", "info")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut server = Server::start(&mut command)?;
        let log = server.0.stderr.take().context("a process without a log")?;
        let (serving, served) = oneshot::channel();
        let named = name.clone();
        std::thread::spawn(move || pass_on(&named, log, serving));
        let [public, admin] = served
            .await
            .with_context(|| format!("{name} did not start"))?;
        Ok(Self {
            name,
            public,
            admin,
            settings,
            server,
        })
    }

    /// Starts a gate that was killed again, with the ledger that it left.
    pub(super) async fn started_again(self) -> anyhow::Result<Self> {
        Self::start("serve", self.name, self.settings).await
    }

    /// As `kill -9` does.
    pub(super) fn kill(&mut self) {
        self.server.kill();
    }

    /// The lines of its records after the `cursor`, by `tollgate records`: also of a gate that was
    /// killed.
    pub(super) async fn records_after(&self, cursor: u64) -> anyhow::Result<String> {
        let mut command = own_program()?;
        command
            .args(["records", "--limit", "1000000", "--after"])
            .arg(cursor.to_string())
            .arg("--config")
            .arg(&self.settings);
        // Calls go on meanwhile.
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tollgate records: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Drains it.
    ///
    /// # Errors
    /// It does not end, or its ledger was not closed whole.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        let id = i32::try_from(self.server.0.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(id.context("a process without an id")?, Signal::TERM)?;
        for _ in 0..LOOKS_AT_A_DRAIN {
            if let Some(status) = self.server.0.try_wait()? {
                ensure!(status.success(), "{} ended with {status}", self.name);
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        bail!("{} does not end", self.name)
    }
}

fn own_program() -> anyhow::Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Reads the log of a process: tells where it serves, and passes on what it warns of.
fn pass_on(name: &str, log: impl Read, serving: oneshot::Sender<[SocketAddr; 2]>) {
    let mut serving = Some(serving);
    for line in BufReader::new(log).lines() {
        let Ok(line) = line else { return };
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            // Not of the log: why it did not start.
            tell(format_args!("{name}: {line}"));
            continue;
        };
        // Nothing of the demo is to outlast a power cut.
        let message = event["message"].as_str().unwrap_or_default();
        let is_said = message.starts_with(ONE_NATS_SERVER);
        if event["level"] != "INFO" && event["level"] != "DEBUG" && !is_said {
            tell(format_args!("{name}: {line}"));
        }
        let address = |key: &str| event[key].as_str()?.parse().ok();
        if (message == "serving" || message == "collecting")
            && let Some(addresses) = address("public").zip(address("admin"))
            && let Some(serving) = serving.take()
        {
            let _ = serving.send(addresses.into());
        }
    }
}
