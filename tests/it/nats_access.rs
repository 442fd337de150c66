//! Who may use NATS: TLS both ways, users, keys, credentials, and the rights that a user needs.

use crate::bills::seed;
use crate::collect::fleet::{Fleet, outbox, sources};
use crate::harness::*;
use secrecy::SecretString;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tollgate::testing::nats::{BadNatsOptions, Nats, NatsCertificate, NatsLogin, NatsOptions};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a few attempts.
const IN_VAIN: Duration = Duration::from_millis(700);
const MIB: i64 = 1 << 20;
/// A key, and the name of it that the server knows. Nobody but these tests has it.
const SEED: &str = "SUAAXLCUFYWUV6472U6Q5EE2YSDHZD3QGJYLR7YYY4JEYP5DSERTFD4T6U";
const NKEY: &str = "UDQQYCOYT2LDM7FBL2MKOER6BGDYOBWET7TQVVL6VEOV6BLQOEROXC5A";

/// An authority `NAME.pem` in `dir`, and what it signed: `NAME-server.pem` of 127.0.0.1, and
/// `NAME-gate.pem` of a client.
fn certificates(dir: &Path, name: &str) {
    let script = r#"set -e
        key() { openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"; }
        key "$1"
        openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem" \
            -addext basicConstraints=critical,CA:TRUE
        for of in server gate; do
            key "$1-$of"
            openssl req -new -key "$1-$of.key" -subj "/CN=$of" -out "$1.csr"
            printf 'subjectAltName=IP:127.0.0.1\n' > "$1.ext"
            openssl x509 -req -in "$1.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 2 \
                -extfile "$1.ext" -out "$1-$of.pem"
        done"#;
    let made = Command::new("bash")
        .args(["-c", script, "certificates", name])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// What was wrong with the connection after some attempts.
async fn trouble(options: &NatsOptions) -> String {
    let nats = Nats::connect(options).await.unwrap();
    assert!(!nats.connected(IN_VAIN).await, "{options:?}");
    nats.status().trouble.unwrap()
}

/// The stream can be made.
async fn comes_in(options: &NatsOptions) {
    let nats = Nats::connect(options).await.unwrap();
    assert!(nats.connected(SOON).await, "{:?}", nats.status());
    nats.records(&stream_options(MIB)).await.unwrap();
}

async fn refused(options: &NatsOptions) -> String {
    match Nats::connect(options).await {
        Err(BadNatsOptions { .. }) => {}
        Ok(_) => panic!("{options:?}"),
    }
    Nats::connect(options)
        .await
        .map(drop)
        .unwrap_err()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_each_side_believes_only_whom_its_own_authority_has_signed() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ours", "other"] {
        certificates(dir.path(), name);
    }
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let shown = |name: &str, key: &str| {
        let key = String::from_utf8(read(&format!("{key}-gate.key"))).unwrap();
        let (chain, key) = (read(&format!("{name}-gate.pem")), SecretString::from(key));
        Some(NatsCertificate { chain, key })
    };
    let (own, key, ca) = (
        file("ours-server.pem"),
        file("ours-server.key"),
        file("ours.pem"),
    );
    let flags = [
        "--tls",
        "--tlscert",
        &own,
        "--tlskey",
        &key,
        "--tlscacert",
        &ca,
    ];
    for is_asked in [false, true] {
        let mut flags = flags.to_vec();
        flags.extend(is_asked.then_some("--tlsverify"));
        for server in NatsServer::each(&flags) {
            server.ready().await;
            let good = NatsOptions {
                tls: true,
                ca: Some(read("ours.pem")),
                certificate: shown("ours", "ours").filter(|_| is_asked),
                ..server.options()
            };
            comes_in(&good).await;
            let strange = NatsOptions {
                ca: Some(read("other.pem")),
                ..good.clone()
            };
            let in_clear = NatsOptions {
                tls: false,
                ca: None,
                ..good.clone()
            };
            assert!(trouble(&in_clear).await.contains("needs `tls: true`"));
            let mut wrong = vec![strange];
            for certificate in [None, shown("other", "other")] {
                wrong.extend(is_asked.then(|| NatsOptions {
                    certificate,
                    ..good.clone()
                }));
            }
            for options in &wrong {
                let told = trouble(options).await;
                let is_whole = told.contains("`ca` must") && told.contains("a `certificate`");
                assert!(is_whole, "{told}");
            }
            let of_two = NatsOptions {
                certificate: shown("ours", "other"),
                ..good
            };
            let told = refused(&of_two).await;
            assert!(told.contains("`certificate` and `key`"), "{told}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_no_tls_is_not_spoken_to_in_clear_text() {
    for server in NatsServer::each(&[]) {
        server.ready().await;
        let options = NatsOptions {
            tls: true,
            ca: None,
            ..server.options()
        };
        let told = trouble(&options).await;
        assert!(told.contains("is a server there that speaks TLS"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_a_key_and_credentials_come_in_and_wrong_ones_are_told_what_to_compare() {
    let fixture = |name: &str| format!("{}/tests/nats/{name}", env!("CARGO_MANIFEST_DIR"));
    let creds = std::fs::read_to_string(fixture("gate.creds")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("nkey.conf");
    std::fs::write(
        &conf,
        format!("authorization {{ users: [{{nkey: {NKEY}}}] }}"),
    )
    .unwrap();
    let (of_key, of_operator) = (conf.to_str().unwrap(), fixture("operator.conf"));
    let secret = |text: &str| SecretString::from(text);
    let user = |password: &str| NatsLogin::User {
        username: "tollgate".to_owned(),
        password: secret(password),
    };
    // The seed of another user below the same JWT.
    let own_seed = creds.lines().find(|line| line.starts_with("SU")).unwrap();
    let mixed = creds.replace(own_seed, SEED);
    for (flags, good, wrong) in [
        (
            ["--user", "tollgate", "--pass", "s3cret"].as_slice(),
            user("s3cret"),
            vec![
                user("wrong"),
                NatsLogin::Nobody,
                NatsLogin::NkeySeed(secret(SEED)),
            ],
        ),
        (
            &["-c", of_key],
            NatsLogin::NkeySeed(secret(SEED)),
            vec![
                NatsLogin::NkeySeed(secret(own_seed)),
                user("s3cret"),
                NatsLogin::Nobody,
            ],
        ),
        (
            &["-c", &of_operator],
            NatsLogin::Credentials(secret(&creds)),
            vec![NatsLogin::Credentials(secret(&mixed)), NatsLogin::Nobody],
        ),
    ] {
        for server in NatsServer::each(flags) {
            server.ready().await;
            let as_this = |login: &NatsLogin| NatsOptions {
                login: login.clone(),
                ..server.options()
            };
            comes_in(&as_this(&good)).await;
            for login in &wrong {
                let told = trouble(&as_this(login)).await;
                assert!(
                    told.contains("`credentials`") && told.contains("`nkey`"),
                    "{told}"
                );
            }
        }
    }
    let server = NatsServer::debian(&[]);
    let garbage = NatsOptions {
        login: NatsLogin::Credentials(secret("no credentials")),
        ..server.options()
    };
    assert_eq!(
        refused(&garbage).await,
        "`credentials` is no credentials file"
    );
}

/// The users that the page for operators gives the gates and the collector.
fn rights_of_the_page() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/README.md");
    let page = std::fs::read_to_string(page).unwrap();
    let begin = page.find("authorization {\n").unwrap();
    let (rights, _) = page[begin..].split_once("```").unwrap();
    rights.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_and_with_the_rights_of_the_page_gates_and_collector_do_all_their_work() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), "ours");
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let conf = file("nats.conf");
    std::fs::write(&conf, rights_of_the_page()).unwrap();
    let (own, key, ca) = (
        file("ours-server.pem"),
        file("ours-server.key"),
        file("ours.pem"),
    );
    for server in NatsServer::each(&[
        "-c",
        &conf,
        "--tlsverify",
        "--tlscert",
        &own,
        "--tlskey",
        &key,
        "--tlscacert",
        &ca,
    ]) {
        let mut fleet = Fleet::on(server, |upstream| Sandbox::new(upstream, &[])).await;
        let members = fleet.gates.iter().map(|gate| (gate, "gate"));
        for (member, user) in members.chain([(&fleet.collector, "collector")]) {
            let house = &member.sandbox;
            let access = format!(
                "max_bytes: 64MiB, username: {user}, password: {{file: password}}, tls: true, ca: {ca}, certificate: {}, key: {{file: {}}}",
                file("ours-gate.pem"),
                file("ours-gate.key")
            );
            house.edit("tollgate.yaml", "max_bytes: 64MiB", &access);
            std::fs::write(house.file("password"), format!("CHANGE-ME-{user}\n")).unwrap();
        }
        for gate in &fleet.gates {
            // Its clock is trusted, so that it says how far it is.
            seed(&gate.sandbox.ledger(), []);
        }
        fleet.start().await;
        for gate in &fleet.gates {
            for _ in 0..5 {
                drop(try_send(gate.sandbox.public, segment(RETAIL_KEY)).await);
            }
        }
        fleet.collected().await;
        eventually("it is heard how far each gate is", || {
            let sources = sources(&fleet.collector.sandbox.ledger());
            sources.len() == 3 && sources.iter().all(|of| of.admitted_before.is_some())
        })
        .await;
        // What is collected and who is stopped is heard.
        let told = async |gate: &Sandbox| {
            let (_, _, body) = get(gate.admin, "/status").await;
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        for gate in &fleet.gates {
            for _ in 0..400 {
                let status = told(&gate.sandbox).await;
                if status["outbox"]["collected_seq"] == 5
                    && status["standing"]["is_current"] == true
                {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
            let status = told(&gate.sandbox).await;
            assert_eq!(status["outbox"]["collected_seq"], 5, "{status}");
            assert_eq!(status["standing"]["is_current"], true, "{status}");
        }
        for member in fleet.gates.iter_mut().chain([&mut fleet.collector]) {
            member.stop().await;
        }
        fleet.assert_is_the_union();
        let log = fleet.nats.log();
        assert!(!log.to_lowercase().contains("violation"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_with_a_wrong_password_starts_and_says_what_to_compare() {
    let server = NatsServer::debian(&["--user", "tollgate", "--pass", "s3cret"]);
    server.ready().await;
    let upstream = Upstream::after(Duration::ZERO).await;
    let section = outbox(server.port, "gate-0").replace(
        "max_bytes: 64MiB",
        "username: tollgate, password: {file: password}",
    );
    let house = Sandbox::new(
        upstream.address,
        &[(crate::collect::fleet::ALONE, &section)],
    );
    std::fs::write(house.file("password"), "wrong\n").unwrap();
    certificates(&house.dir.path().join("config"), "ours");
    for (more, told) in [
        (
            ", tls: true, certificate: ours-gate.pem",
            "`certificate` needs its `key`",
        ),
        (
            ", tls: true, key: {file: ours-gate.key}",
            "is the key of no `certificate`",
        ),
        (
            ", certificate: ours-gate.pem, key: {file: ours-gate.key}",
            "is used only with `tls: true`",
        ),
    ] {
        let password = "password: {file: password}";
        house.edit("tollgate.yaml", password, &format!("{password}{more}"));
        let said = house.run(&["check"]);
        assert!(said.code != Some(0) && said.err.contains(told), "{said:?}");
        house.edit("tollgate.yaml", &format!("{password}{more}"), password);
    }
    let _gate = house.start().await;
    let told = house.log();
    assert!(told.contains("NATS is not there yet"), "{told}");
    assert!(told.contains("compare `username` and `password`"), "{told}");
    let (_, _, body) = get(house.admin, "/status").await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    let trouble = status["outbox"]["trouble"].as_str().unwrap();
    assert!(
        trouble.contains("compare `username` and `password`"),
        "{trouble}"
    );
}
