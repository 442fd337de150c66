//! A gate in this process, served from the shipped configuration.

use super::*;

/// The keys of the sample accounts in config/accounts.yaml.
pub const STUDIO_KEY: &str = "demo-studio-key"; // 1250000001, per_call
pub const RETAIL_KEY: &str = "demo-retail-key"; // 1250000002, qps: 10 + 20
pub const ARREARS_KEY: &str = "demo-arrears-key"; // 1250000003, stopped
pub const VIDEO_KEY: &str = "demo-video-key"; // 1250000004, free group only
pub const STUDIO_ID: &str = "AKIDEXAMPLESTUDIO00000000000000000001";
pub const STUDIO_SECRET: &str = "trial-secret-of-example-studio";

/// Signs the events of a gate in a test.
pub const EVENTS_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The disk of a machine that builds and tests at once may take seconds for a sync, which is no
/// fault of the gate.
pub(super) const PATIENT: Duration = Duration::from_secs(30);

/// The shipped configuration, with free ports, the test's upstream and a ledger in `dir`.
pub fn shipped_config(dir: &Path, upstream: SocketAddr) -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let mut config = config::load(&path).expect("the shipped configuration is sound");
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    config.settings.listen = loopback.into();
    config.settings.admin.listen = loopback;
    config.settings.upstream.endpoints = vec![upstream.into()];
    config.settings.ledger.path = dir.join("ledger.db");
    config.settings.limits.connections = 500;
    config.settings.ledger.stall_after = PATIENT;
    // So that the day of the month on which the tests run decides nothing.
    config.catalog.settle_day = 1;
    config
}

/// A gate in this process, with its ledger in a directory of its own.
pub struct Gate {
    pub running: Option<Running>,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    pub clock: Clock,
    pub mover: Mover,
    pub dir: tempfile::TempDir,
}

impl Gate {
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::start_with(upstream, |_| ()).await
    }

    /// `change` edits the shipped configuration before it is served.
    pub async fn start_with(upstream: SocketAddr, change: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(upstream, Clock::movable(), change).await
    }

    /// The same by this clock.
    pub async fn start_at(
        upstream: SocketAddr,
        (clock, mover): (Clock, Mover),
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = shipped_config(dir.path(), upstream);
        change(&mut config);
        let running = control::start(config, clock.clone(), Default::default())
            .await
            .expect("the gate starts");
        Self {
            public: running.public.first_tcp().expect("it listens on a port"),
            admin: running.admin,
            running: Some(running),
            clock,
            mover,
            dir,
        }
    }

    pub fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger.db")
    }

    /// Every record, in order of seq.
    pub fn records(&self) -> Vec<StoredRecord> {
        records(&self.ledger())
    }

    /// One scrape of `/metrics`.
    pub async fn metrics(&self) -> Samples {
        scrape(self.admin).await
    }

    /// Waits until no call is pending or in flight, then scrapes.
    pub async fn at_rest(&self) -> Samples {
        at_rest(self.admin).await
    }
}

/// What an earlier process leaves in its ledger that ran on this machine for more than a day: the
/// wall clock is trusted.
pub fn trusted_clock() -> Entry {
    let (mono, utc) = Clock::default().both();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let day = Duration::from_secs(86_400);
    Entry::Clock(ClockWatch {
        boot: boot.trim().to_owned(),
        mono,
        utc,
        in_step: 2 * day,
        trusted: day,
        known: Utc(0),
        fixed_unseen: None,
    })
}

/// For [`Gate::start_with`]: the account of [`RETAIL_KEY`] may call as often as it likes.
pub fn retail_unlimited(config: &mut Config) {
    config.accounts[1].services[0].qps_purchases[0].qps = 100_000;
}
