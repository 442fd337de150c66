//! A directory with the shipped configuration, and commands that are run in it.

use super::*;

/// A port that is free now, and stays so while its gate is restarted: it lies below the range from
/// which the kernel takes ports for outgoing connections.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static GIVEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    loop {
        let nth = GIVEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(131).wrapping_add(nth)) % COUNT;
        let port = u16::try_from(port).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The shipped configuration in `dir/config`, its ports free ones, its ledger in `dir/var`.
/// `edits` are (from, to) in tollgate.yaml. Returns the settings file.
pub fn write_config(
    dir: &Path,
    upstream: SocketAddr,
    edits: &[(&str, &str)],
) -> (PathBuf, SocketAddr, SocketAddr) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let to = dir.join("config");
    std::fs::create_dir_all(&to).unwrap();
    for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    // So that the day of the month on which the tests run decides nothing.
    let catalog = std::fs::read_to_string(to.join("catalog.yaml")).unwrap();
    let early = catalog.replace("settle_day: 3", "settle_day: 1");
    assert_ne!(catalog, early);
    std::fs::write(to.join("catalog.yaml"), early).unwrap();
    let public: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let settings = to.join("tollgate.yaml");
    let mut text = std::fs::read_to_string(&settings).unwrap();
    let ports = [
        ("127.0.0.1:8080", public.to_string()),
        ("127.0.0.1:9090", admin.to_string()),
        ("127.0.0.1:8000", upstream.to_string()),
        ("stall_after: 2s", format!("stall_after: {PATIENT:?}")),
    ];
    for (from, to) in ports
        .iter()
        .map(|(a, b)| (*a, b.as_str()))
        .chain(edits.iter().copied())
    {
        assert!(
            text.contains(from),
            "{from:?} stands in the shipped settings"
        );
        text = text.replace(from, to);
    }
    std::fs::write(&settings, text).unwrap();
    (settings, public, admin)
}

/// The shipped configuration in a directory of its own, for the real binary.
pub struct Sandbox {
    pub dir: tempfile::TempDir,
    pub settings: PathBuf,
    pub public: SocketAddr,
    pub admin: SocketAddr,
}

/// What a command that ended said.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Sandbox {
    /// `edits` are (from, to) in tollgate.yaml.
    pub fn new(upstream: SocketAddr, edits: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (settings, public, admin) = write_config(dir.path(), upstream, edits);
        Self {
            dir,
            settings,
            public,
            admin,
        }
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("var/ledger.db")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("config").join(name)
    }

    /// Replaces `from` by `to` in one of the three files.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let path = self.file(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} stands in {name}");
        std::fs::write(path, text.replace(from, to)).unwrap();
    }

    /// What the gates of this house wrote to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts `program args.. tollgate serve`, with its standard error added to [`House::log`].
    pub async fn start_under(&self, wrapper: &[&str]) -> Process {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = self.command(wrapper, &["serve"]);
        Process::start_by(command.stderr(log), self.public, self.admin).await
    }

    pub async fn start(&self) -> Process {
        self.start_under(&[]).await
    }

    /// Runs `tollgate COMMAND --config .. args..` to its end. Blocks.
    pub fn run(&self, args: &[&str]) -> Output {
        said(&mut self.command(&[], args))
    }

    pub fn command(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut words = wrapper.to_vec();
        words.push(env!("CARGO_BIN_EXE_tollgate"));
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(args[0])
            .arg("--config")
            .arg(&self.settings)
            .args(&args[1..])
            .env_remove("TOLLGATE_CONFIG")
            .env_remove("TOLLGATE_LOG")
            .stdin(Stdio::null());
        command
    }
}

pub fn said(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Output {
        code: output.status.code(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}
