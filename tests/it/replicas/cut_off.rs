//! One gate is cut off from the store, in a network of its own.

use super::fleet::{Fleet, RETAIL, Replica, alone, sandbox, seconds};
use super::oracle::Starts;
use super::spray::{Spray, Told};
use crate::figure;
use crate::harness::{Process, RETAIL_KEY, STUDIO_KEY, StoreServer, Upstream};
use crate::names::{is_inside, run};
use http::StatusCode;
use std::io::Write;
use std::process::Command;
use std::time::Duration;
use tollgate::testing::model::{Clock, Mono};

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;
/// The gate that is cut off.
const FAR: usize = 2;

/// Runs a command in a network namespace that has two wires to the one of the process `$0`: one for
/// calls, one for the store.
const IN_A_NETWORK_OF_ITS_OWN: &str = "set -e
near() { nsenter --net=/proc/$0/ns/net ip \"$@\"; }
ip link set lo up
for wire in call/1 store/2; do
    name=${wire%/*} net=10.9.${wire#*/}
    ip link add far-$name type veth peer name near-$name netns $0
    near addr add $net.1/30 dev near-$name
    near link set near-$name up
    ip addr add $net.2/30 dev far-$name
    ip link set far-$name up
done
exec \"$@\"";

/// Two gates beside the store and one in a network of its own.
async fn fleet() -> Fleet {
    let store = StoreServer::redis(&["--bind", "0.0.0.0", "--protected-mode", "no"]);
    store.ready().await;
    let upstream = Upstream::scripted_at("0.0.0.0:0", |_| async {
        crate::harness::json(StatusCode::OK, "{}")
    })
    .await;
    let port = upstream.address.port();
    let mut fleet = Fleet {
        replicas: Vec::new(),
        store,
        upstream,
        quota: QUOTA,
    };
    fleet.upstream.address = ([127, 0, 0, 1], port).into();
    let door = ([10, 9, 1, 1], port).into();
    let address = format!("10.9.2.1:{}", fleet.store.port);
    let mut far = sandbox("gate-2", QUOTA, door, &address);
    for (listener, edit) in [(&mut far.public, "listen: "), (&mut far.admin, "{listen: ")] {
        let near = format!("{edit}{listener}");
        listener.set_ip([10, 9, 1, 2].into());
        let text = std::fs::read_to_string(&far.settings).unwrap();
        let to = format!("{edit}{listener}");
        std::fs::write(&far.settings, text.replace(&near, &to)).unwrap();
    }
    far.edit("tollgate.yaml", "behind_tls: false", "behind_tls: true");
    let admin = format!("{{listen: {}}}", far.admin);
    let token = format!("{{listen: {}, token: {{env: ADMIN_TOKEN}}}}", far.admin);
    far.edit("tollgate.yaml", &admin, &token);
    let own = std::process::id().to_string();
    let wrapper = [
        "unshare",
        "--net",
        "sh",
        "-c",
        IN_A_NETWORK_OF_ITS_OWN,
        &own,
    ];
    let log = std::fs::File::create(far.dir.path().join("log")).unwrap();
    let mut command: Command = far.command(&wrapper, &["serve"]);
    command.env("ADMIN_TOKEN", "of-the-operator-0123456789abcdef");
    let far_starts = Process::start_by(command.stderr(log), far.public, far.admin);
    let (first, second, process) = tokio::join!(fleet.replica(0), fleet.replica(1), far_starts);
    let far = Replica {
        sandbox: far,
        process,
        name: "gate-2".to_owned(),
    };
    fleet.replicas.extend([first, second, far]);
    fleet.admits().await;
    fleet
}

/// The wire between the store and the gate that is cut off.
struct StoreWire {
    /// Runs a command at the far end.
    far: String,
}

impl StoreWire {
    fn at(&self, is_far: bool, arguments: &[&str]) {
        match is_far {
            true => run("nsenter", &[&[&*self.far, "ip"], arguments].concat()),
            false => run("ip", arguments),
        }
    }

    /// Drops what is sent in both directions, without a word to anybody: it goes to a machine that
    /// is not there.
    fn cut(&self) {
        for (is_far, peer, wire) in Self::ENDS {
            let nobody = ["lladdr", "02:00:00:00:00:01", "nud", "permanent"];
            let to = [&["neigh", "replace", peer, "dev", wire], &nobody[..]];
            self.at(is_far, &to.concat());
        }
    }

    fn heal(&self) {
        for (is_far, peer, wire) in Self::ENDS {
            self.at(is_far, &["neigh", "del", peer, "dev", wire]);
        }
    }

    const ENDS: [(bool, &str, &str); 2] = [
        (true, "10.9.2.1", "far-store"),
        (false, "10.9.2.2", "near-store"),
    ];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_is_cut_off_from_the_store_refuses_at_once_and_the_others_have_the_quota() {
    let _alone = alone().await;
    if !rustix::process::geteuid().is_root() {
        let _ = writeln!(
            std::io::stderr(),
            "\nNOT TESTED: a gate cut off needs root\n"
        );
        return;
    }
    if !is_inside(&|| ()) {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let fleet = fleet().await;
    let wire = StoreWire {
        far: format!(
            "--net=/proc/{}/ns/net",
            fleet.replicas[FAR].process.child.id()
        ),
    };
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
    }
    // An account that is below its quota, so that nothing but the cut refuses its calls.
    let far = fleet.replicas[FAR].process.public;
    for _ in 0..4 {
        tokio::time::sleep(62 * MS).await;
        spray.at(FAR, far, STUDIO_KEY, 4);
    }
    tokio::time::sleep(1_100 * MS).await;

    let clock = Clock::default();
    let before = fleet_late(&fleet).await;
    wire.cut();
    let cut = clock.both();
    let away = Duration::from_secs(seconds(2)) + 200 * MS;
    tokio::time::sleep(away).await;
    let late = fleet_late(&fleet).await - before;
    let healing = clock.both();
    wire.heal();
    let healed = clock.mono();
    tokio::time::sleep(1_100 * MS).await;
    let told = spray.end().await;

    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    let (from, until) = (cut.1.plus(100 * MS).0, healing.1.0);
    assert_eq!(starts.within(from, until, |of| of == FAR), 0);
    let used = starts.used(from, until, QUOTA);
    let of_far = |one: &&Told| one.replica == FAR && one.key == STUDIO_KEY;
    let far: Vec<&Told> = told.iter().filter(of_far).collect();
    let refused = judge_refusals(&far, cut.0, healing.0);
    let first = |one: &&&Told| one.status == StatusCode::OK && one.told >= healing.0;
    let back = far.iter().find(first).expect("it is admitted again");
    let back = back.told.since(healed);
    figure!(
        "cut off: {refused} calls refused there, the others used {used:.3} of {QUOTA}/s, {late} \
         late answers; healed: admits after {back:?}"
    );
    // Starts that were granted to the gate when it was cut off are lost too, once.
    let lost = 2.0 * late as f64 / (f64::from(QUOTA) * away.as_secs_f64());
    assert!(
        !super::fleet::judges_time() || used >= 0.97 - lost,
        "{used}, {late} late"
    );
    // Of the 300 ms and the pause between two calls.
    assert!(!super::fleet::judges_time() || back <= 400 * MS, "{back:?}");
}

/// Late answers of the gates beside the store.
async fn fleet_late(fleet: &Fleet) -> u64 {
    let mut late = 0;
    for near in &fleet.replicas[..FAR] {
        let samples = crate::harness::scrape(near.process.admin).await;
        late += samples.sum("tollgate_store_late_total", &[]);
    }
    late
}

/// Asserts that each call in the cut was refused, within 100 ms.
fn judge_refusals(far: &[&Told], cut: Mono, healed: Mono) -> usize {
    let in_the_cut = |one: &&&Told| one.sent >= cut.plus(20 * MS) && one.told < healed;
    let refused: Vec<_> = far.iter().filter(in_the_cut).collect();
    let mut took: Vec<Duration> = refused.iter().map(|one| one.told.since(one.sent)).collect();
    took.sort();
    figure!(
        "cut off: refused after {:?} to {:?}",
        took.first(),
        took.last()
    );
    for one in &refused {
        assert_eq!(one.status, StatusCode::SERVICE_UNAVAILABLE, "{one:?}");
    }
    assert!(
        !super::fleet::judges_time() || refused.len() >= 20,
        "{}",
        refused.len()
    );
    // The scheduler of a busy machine may hold some of them back.
    assert!(
        !super::fleet::judges_time() || took[took.len() / 2] <= 100 * MS,
        "{took:?}"
    );
    refused.len()
}
