//! Real NATS servers with JetStream, on free ports in directories of their own. They end with the
//! test.

use super::{eventually, free_port};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tollgate::testing::nats::{Nats, NatsAddress, NatsLogin, NatsOptions, StreamOptions};

/// A NATS server.
pub struct NatsServer {
    child: Child,
    program: PathBuf,
    args: Vec<String>,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl NatsServer {
    /// The one that Debian has, 2.9.10.
    pub fn debian(args: &[&str]) -> Self {
        Self::start(Path::new("nats-server"), args)
    }

    /// The one of today, from the wheel in the tests' Python environment.
    pub fn wheel(args: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        Self::start(&root.join("target/venv/bin/nats-server"), args)
    }

    /// This one, or the one that `NATS_SERVER` names (`debian`, `wheel`): a long run tries both.
    pub fn chosen(usual: fn(&[&str]) -> Self) -> Self {
        match std::env::var("NATS_SERVER").ok().as_deref() {
            None => usual(&[]),
            Some("debian") => Self::debian(&[]),
            Some("wheel") => Self::wheel(&[]),
            Some(other) => panic!("NATS_SERVER={other}: write debian or wheel"),
        }
    }

    /// Both.
    pub fn each(args: &[&str]) -> [Self; 2] {
        [Self::debian(args), Self::wheel(args)]
    }

    /// `DIR` in the arguments is replaced by the directory of the server.
    pub fn start(program: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let (number, store) = (port.to_string(), dir.path().join("store"));
        let own = ["-a", "127.0.0.1", "-p", &number, "-js", "-sd"];
        let mut all: Vec<String> = own.iter().map(|arg| (*arg).to_owned()).collect();
        all.push(store.to_str().unwrap().to_owned());
        let path = dir.path().to_str().unwrap();
        all.extend(args.iter().map(|arg| arg.replace("DIR", path)));
        let mut server = Self {
            child: spawn(program, &all, dir.path()),
            program: program.to_owned(),
            args: all,
            port,
            dir,
        };
        assert!(server.child.try_wait().unwrap().is_none(), "{program:?}");
        server
    }

    /// Waits until it takes connections.
    pub async fn ready(&self) {
        eventually("NATS takes connections", || {
            std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        })
        .await;
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, with what it has on the disk.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.program, &self.args, self.dir.path());
    }

    /// Starts it unless it runs.
    pub fn start_again(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.restart();
        }
    }

    /// Deletes all that it has stored. It must not run.
    pub fn delete_store(&self) {
        std::fs::remove_dir_all(self.dir.path().join("store")).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub fn options(&self) -> NatsOptions {
        NatsOptions {
            servers: vec![NatsAddress {
                host: "127.0.0.1".to_owned(),
                port: self.port,
            }],
            login: NatsLogin::Nobody,
            tls: false,
            ca: None,
            certificate: None,
            name: "test".to_owned(),
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{:?}:\n{}", self.program, self.log());
        }
    }
}

/// A connection to it that is there.
pub async fn connected(server: &NatsServer) -> Nats {
    let nats = Nats::connect(&server.options()).await.unwrap();
    assert!(nats.connected(Duration::from_secs(5)).await);
    nats
}

/// A stream that the settings ask for when they say nothing of it but its size.
pub fn stream_options(max_bytes: i64) -> StreamOptions {
    StreamOptions {
        stream: "TOLLGATE_RECORDS".to_owned(),
        max_bytes,
        replicas: 1,
    }
}

fn spawn(program: &Path, args: &[String], dir: &Path) -> Child {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program:?} cannot be started: {error}; `make needs target/venv/ready`")
        })
}
