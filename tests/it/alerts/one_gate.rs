//! A gate as a process, and a second one of the same files that is killed in the end: its files, its
//! upstream, its clients and its disk.

use crate::alerts::watch::{Watch, instance};
use crate::bills::rfc3339;
use crate::failing_disk::disk::{Disk, ENOSPC, Word};
use crate::harness::*;
use http::StatusCode;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tollgate::testing::model::{Clock, Utc};

const MS: Duration = Duration::from_millis(1);
const DAY_US: i64 = 86_400_000_000;
/// More than what the rule allows of a write-ahead log.
const LONG_WAL: u64 = 600 << 20;
/// What the growing file takes each time: the disk of any machine is full by it within four days.
const STEP: u64 = 4 << 20;

/// A certificate and its key.
fn ends_in_a_week() -> (String, String) {
    let mut parameters = rcgen::CertificateParams::new(vec!["gate.test".to_owned()]).unwrap();
    let day = jiff::Timestamp::from_microsecond(Clock::default().utc().0 + 7 * DAY_US).unwrap();
    let day = jiff::tz::TimeZone::UTC.to_datetime(day).date();
    let (month, of_month) = (day.month().unsigned_abs(), day.day().unsigned_abs());
    parameters.not_after = rcgen::date_time_ymd(day.year().into(), month, of_month);
    let key = rcgen::KeyPair::generate().unwrap();
    (
        parameters.self_signed(&key).unwrap().pem(),
        key.serialize_pem(),
    )
}

pub struct Gates {
    house: Sandbox,
    disk: Disk,
    _process: Process,
    _twin_house: Sandbox,
    twin: Process,
    /// Where nobody listens yet.
    upstream: SocketAddr,
    _home: tempfile::TempDir,
}

impl Gates {
    pub async fn start() -> Self {
        let upstream: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let home = tempfile::tempdir().unwrap();
        let disk = Disk::new(home.path());
        let [ledger, log] = ["ledger.db", "access.log"].map(|file| disk.root().join(file));
        let dead = free_port();
        let log = format!(
            "trusted_proxies: []\naccess_log: {{to: {}}}\nupstreams: {{spare: {{endpoints: [http://{upstream}, http://127.0.0.1:{dead}]}}}}",
            log.display()
        );
        let edits = [
            ("workers: auto", "workers: 1"),
            ("  connections: 4000", "  connections: 40"),
            ("../var/ledger.db", ledger.to_str().unwrap()),
            ("trusted_proxies: []", &log),
        ];
        let house = Sandbox::new(upstream, &edits);
        let tls = "behind_tls: false\ntls: {certificates: [{cert: a.pem, key: {file: a.key}}]}";
        let twin_edits = [&edits[..2], &[("behind_tls: false", tls)]].concat();
        let twin_house = Sandbox::new(upstream, &twin_edits);
        let (cert, key) = ends_in_a_week();
        std::fs::write(twin_house.file("a.pem"), cert).unwrap();
        std::fs::write(twin_house.file("a.key"), key).unwrap();
        let mine = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(twin_house.file("a.key"), mine).unwrap();
        let mut command = house.command(&[], &["serve"]);
        command.envs(disk.environment()).stderr(Stdio::null());
        let (process, twin) = tokio::join!(
            Process::start_by(&mut command, house.public, house.admin),
            twin_house.start()
        );
        Self {
            house,
            disk,
            _process: process,
            _twin_house: twin_house,
            twin,
            upstream,
            _home: home,
        }
    }

    /// Of both.
    pub fn admin(&self) -> [SocketAddr; 2] {
        [self.house.admin, self.twin.admin]
    }

    async fn call(&self) -> StatusCode {
        send(self.house.public, segment(RETAIL_KEY)).await.0
    }

    pub async fn causes(&mut self, watch: &Watch) {
        let [here, twin] = self.admin().map(instance);
        watch.fires(&["TollgateLedgerCreated"], &here).await;
        watch.fires(&["TollgateCertificateExpires"], &twin).await;
        let down = ["TollgateDown"];
        watch.quiet(&down, &twin).await;
        tokio::join!(self.fill_slowly(watch), async {
            self.no_upstream(watch).await;
            self.change_files(watch).await;
            self.hold_connections(watch).await;
            self.call_too_often(watch).await;
            self.slow_disk(watch).await;
            self.long_wal(watch).await;
            self.full_disk(watch).await;
            // A change of these files was the first cause, and is in force until now.
            watch.fires(&["TollgateRestartPending"], &here).await;
        });
        self.twin.kill();
        watch.fires(&down, &twin).await;
    }

    /// Something takes more and more of the disk, without writing it.
    async fn fill_slowly(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alert = ["TollgateLedgerDiskFullSoon"];
        watch.quiet(&alert, &here).await;
        let path = self.house.dir.path().join("grows");
        let file = std::fs::File::create(&path).unwrap();
        let (mut size, taken) = (0, rustix::fs::FallocateFlags::empty());
        watch
            .fires_while(&alert, &here, async || {
                rustix::fs::fallocate(&file, taken, size, STEP).unwrap();
                size += STEP;
            })
            .await;
        std::fs::remove_file(path).unwrap();
    }

    /// Calls find no upstream. Then it is started.
    async fn no_upstream(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alerts = ["TollgateUpstreamDown", "TollgateUpstreamFails"];
        watch.quiet(&alerts[1..], &here).await;
        watch
            .fires_while(&alerts, &here, async || {
                assert_eq!(self.call().await, StatusCode::BAD_GATEWAY);
            })
            .await;
        let answer = |_| async { json(StatusCode::OK, "{}") };
        let half = ["TollgateUpstreamEndpointDown"];
        watch.quiet(&half, &here).await;
        Upstream::scripted_at(&self.upstream.to_string(), answer).await;
        watch
            .fires_while(&half, &here, async || {
                assert_eq!(self.call().await, StatusCode::OK);
            })
            .await;
    }

    async fn reload(&self, expected: StatusCode) {
        let (status, told) = post_reload(self.house.admin, "").await;
        assert_eq!(status, expected, "{told}");
    }

    /// A key that ends soon, a debt, a mistake, and a setting for which it has to be restarted.
    async fn change_files(&self, watch: &Watch) {
        let (house, here) = (&self.house, instance(self.house.admin));
        let alerts = ["TollgateKeysExpire", "TollgateAccountInArrears"];
        let (job, differ) = ("job=\"tollgate\"", ["TollgateReplicasDiffer"]);
        watch.quiet(&alerts, &here).await;
        watch.quiet(&differ, job).await;
        let now = Clock::default().utc().0;
        let in_a_week = format!("3a18, expires: {}}}", rfc3339(Utc(now + 7 * DAY_US)));
        house.edit("accounts.yaml", "3a18}", &in_a_week);
        let debt = format!(
            "name: Example Retail\n    credit_limit: \"100\"\n    adjustments: [{{id: A-1, at: {}, amount: \"-5\", \
             reason: counted twice, by: Li Wei}}]",
            rfc3339(Utc(now - DAY_US))
        );
        house.edit("accounts.yaml", "name: Example Retail", &debt);
        self.reload(StatusCode::OK).await;
        watch.fires(&alerts, &here).await;
        watch.fires(&differ, job).await;

        let refused = ["TollgateReloadRefused"];
        watch.quiet(&refused, &here).await;
        house.edit("accounts.yaml", "accounts:", "accounts: [");
        self.reload(StatusCode::UNPROCESSABLE_ENTITY).await;
        watch.fires(&refused, &here).await;
        house.edit("accounts.yaml", "accounts: [", "accounts:");

        watch.quiet(&["TollgateRestartPending"], &here).await;
        house.edit("tollgate.yaml", "workers: 1", "workers: 2");
        self.reload(StatusCode::OK).await;
    }

    /// From several addresses: one alone gets an eighth of them.
    async fn hold_connections(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alert = ["TollgateConnectionsNearLimit"];
        watch.quiet(&alert, &here).await;
        let mut held = Vec::new();
        for nth in 0..36 {
            let from = [127, 0, 0, 20 + nth / 4];
            held.push(Wire::connect_from(from, self.house.public).await);
        }
        watch.fires(&alert, &here).await;
    }

    async fn call_too_often(&self, watch: &Watch) {
        let labels = "job=\"tollgate\", account=\"1250000001\"";
        let alert = ["TollgateAccountThrottled"];
        watch.quiet(&[], "job=\"tollgate\"").await;
        let mut client = Client::connect(self.house.public).await.unwrap();
        watch
            .fires_while(&alert, labels, async || {
                for _ in 0..60 {
                    client.send(segment(STUDIO_KEY)).await.unwrap();
                }
            })
            .await;
    }

    /// Each sync takes 300 ms.
    async fn slow_disk(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alerts = ["TollgateLedgerSlow", "TollgateOverheadHigh"];
        watch.quiet(&alerts, &here).await;
        watch
            .fires_while(&alerts, &here, async || {
                self.disk.set(Word::Hang, 1);
                let slow = async {
                    tokio::time::sleep(300 * MS).await;
                    self.disk.set(Word::Hang, 0);
                };
                let (status, ()) = tokio::join!(self.call(), slow);
                assert_eq!(status, StatusCode::OK);
            })
            .await;
    }

    /// The log gets a long end that holds nothing and takes no disk.
    async fn long_wal(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alert = ["TollgateWalNotCopied"];
        watch.quiet(&alert, &here).await;
        let wal = self.disk.root().join("ledger.db-wal");
        let wal = std::fs::File::options().write(true).open(wal).unwrap();
        watch
            .fires_while(&alert, &here, async || wal.set_len(LONG_WAL).unwrap())
            .await;
    }

    /// The disk has no room for a record, nor for a line of the access log.
    async fn full_disk(&self, watch: &Watch) {
        let here = instance(self.house.admin);
        let alerts = ["TollgateLedgerCannotBeWritten", "TollgateLogLinesDropped"];
        watch.quiet(&alerts, &here).await;
        self.disk.refuse_writes(ENOSPC);
        watch
            .fires_while(&alerts, &here, async || {
                assert_eq!(self.call().await, StatusCode::SERVICE_UNAVAILABLE);
            })
            .await;
        self.disk.refuse_writes(0);
        wait_ready(self.house.admin).await;
        assert_eq!(self.call().await, StatusCode::OK);
    }
}
