//! Several gates: their trials are counted together, in a bucket at NATS, or not given out.

use super::trials::passed;
use super::*;
use crate::collect::fleet::{ALONE, outbox};
use std::time::Duration;

/// Three gates with an outbox, all of the same account files and signing key.
async fn three(nats: &NatsServer, upstream: SocketAddr) -> Vec<(Sandbox, Process)> {
    let mut gates: Vec<(Sandbox, Process)> = Vec::new();
    for n in 0..3 {
        let house = house(upstream);
        if let Some((first, _)) = gates.first() {
            let key = std::fs::read(first.file("licence.pem")).unwrap();
            std::fs::write(house.file("licence.pem"), key).unwrap();
        }
        house.edit(
            "tollgate.yaml",
            ALONE,
            &outbox(nats.port, &format!("gate-{n}")),
        );
        house.edit("tollgate.yaml", "workers: auto", "workers: 1");
        let process = house.start().await;
        gates.push((house, process));
    }
    gates
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_at_once_for_the_last_place_over_three_replicas_a_single_one_passes() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let mut nats = NatsServer::debian(&[]);
    nats.ready().await;
    let mut gates = three(&nats, upstream.address).await;
    let publics: Vec<SocketAddr> = gates.iter().map(|(house, _)| house.public).collect();
    for n in 0..3 {
        let app = format!("com.example.app{n}");
        let (status, said) = authorize(publics[n], RETAIL_KEY, &app, "d", trial()).await;
        assert_eq!(status, StatusCode::OK, "{said}");
        // Each gate gives the same grant.
        let mut grants = Vec::new();
        for public in &publics {
            let (status, said) = authorize(*public, RETAIL_KEY, &app, "d", nothing()).await;
            assert_eq!(status, StatusCode::OK, "{said}");
            grants.push(said["grant"].clone());
        }
        assert!(grants.windows(2).all(|two| two[0] == two[1]), "{grants:?}");
    }
    assert_eq!(passed(&publics, 50).await, 1);
    assert_eq!(
        passed(&publics, 50).await,
        1,
        "who has the place has it again"
    );

    // Without NATS what is known is renewed, also after a kill, and nothing new is given out.
    nats.kill();
    gates[1].1.kill();
    gates[1].1 = gates[1].0.start().await;
    let (status, said) =
        authorize(publics[1], RETAIL_KEY, "com.example.app0", "d", nothing()).await;
    assert_eq!(status, StatusCode::OK, "{said}");
    let asked = authorize(publics[1], VIDEO_KEY, "com.example.new", "d", trial()).await;
    assert_eq!(
        (asked.0, reason(&asked)),
        (StatusCode::SERVICE_UNAVAILABLE, "licences_away".to_owned())
    );
    nats.restart();
    nats.ready().await;
    let mut refused = String::new();
    for _ in 0..100 {
        let asked = authorize(publics[1], VIDEO_KEY, "com.example.new", "d", trial()).await;
        if asked.0 == StatusCode::OK {
            refused.clear();
            break;
        }
        refused = reason(&asked);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(refused, "", "NATS is back");

    // What one gate revokes is revoked at all.
    let query = format!("/v1/licences/revoke?account=1250000001&package={CAMERA}&why=stolen");
    for _ in 0..100 {
        let asked = Request::post(&query)
            .header("host", gates[0].0.admin.to_string())
            .body(Full::default())
            .unwrap();
        // This gate may not have seen yet that NATS is back.
        match send(gates[0].0.admin, asked).await.0 {
            StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_millis(100)).await,
            status => {
                assert_eq!(status, StatusCode::OK);
                break;
            }
        }
    }
    let mut left = publics.clone();
    for _ in 0..300 {
        let mut still = Vec::new();
        for public in left {
            let asked = authorize(public, APP_KEY, CAMERA, "d", nothing()).await;
            if reason(&asked) != "licence_revoked" {
                still.push(public);
            }
        }
        left = still;
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{left:?} still give out grants");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_that_share_a_store_and_no_outbox_give_out_grants_and_no_trials() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let store = StoreServer::redis(&[]);
    store.ready().await;
    let house = house(upstream.address);
    let shared = format!(
        "admission: {{max_delay: 50ms, store: {{redis: {{nodes: [\"127.0.0.1:{}\"]}}}}}}",
        store.port
    );
    house.edit("tollgate.yaml", ALONE, &shared);
    let _process = house.start().await;
    let asked = authorize(house.public, STUDIO_KEY, "com.example.new", "d", trial()).await;
    assert_eq!(
        (asked.0, reason(&asked)),
        (StatusCode::CONFLICT, "no_trials_here".to_owned())
    );
    let formal = authorize(house.public, APP_KEY, CAMERA, "d", nothing()).await;
    assert_eq!(formal.0, StatusCode::OK);
    // Each revokes by itself, and says so.
    let settings = house.settings.to_str().unwrap();
    let revoke = ["licence", "revoke", "--account", "1250000001", "--package"];
    let more = [CAMERA, "--why", "stolen", "--config", settings];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let told = said(command.args(revoke).args(more));
    assert!(
        told.code == Some(0) && told.out.contains("no other gate hears of it"),
        "{told:?}"
    );
    let asked = authorize(house.public, APP_KEY, CAMERA, "d", nothing()).await;
    assert_eq!(reason(&asked), "licence_revoked");
}
