//! Whether the upstream can be reached is known before the first call.

use crate::harness::*;
use http::StatusCode;
use std::net::SocketAddr;
use std::time::Duration;

async fn up_is(house: &Sandbox, wanted: u64) {
    let comes = async {
        while scrape(house.admin).await.sum("tollgate_upstream_up", &[]) != wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let comes = tokio::time::timeout(BOUND, comes).await;
    assert!(
        comes.is_ok(),
        "upstream_up is never {wanted}: {}",
        house.log()
    );
}

async fn logged(house: &Sandbox, line: &str) {
    let comes = async {
        while !house.log().contains(line) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let comes = tokio::time::timeout(BOUND, comes).await;
    assert!(comes.is_ok(), "never logged: {line}: {}", house.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_cannot_be_reached_at_the_start_is_a_warning_until_it_can() {
    let later: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let house = Sandbox::new(later, &[]);
    let _process = house.start().await;
    logged(&house, "calls get 502 until it can be reached").await;
    let log = house.log();
    assert!(
        log.contains(&format!("cannot connect to the upstream {later}")),
        "{log}"
    );
    up_is(&house, 0).await;
    // Without a call.
    let listener = tokio::net::TcpListener::bind(later).await.unwrap();
    logged(&house, "the upstream can be reached").await;
    up_is(&house, 1).await;
    drop(listener);
    let (status, ..) = send(house.public, segment(STUDIO_KEY)).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    up_is(&house, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_whose_name_is_none_is_a_warning_at_the_start() {
    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let named = ("http://127.0.0.1:9", "http://no-such-host.invalid:8000");
    let house = Sandbox::new(nowhere, &[named]);
    let _process = house.start().await;
    logged(
        &house,
        "cannot connect to the upstream no-such-host.invalid:8000",
    )
    .await;
    up_is(&house, 0).await;
}
