//! What became durable is in force, also when nobody waited for it.

use super::*;
use crate::failing_disk::disk::{Disk, Word};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// Applies for a trial, and goes away once the disk is asked.
async fn apply_and_go(house: &Sandbox, package: &str, is_asked: impl Fn() -> bool) {
    let body = json!({"package": package, "device": "d", "sdk": "1", "apply": "trial"}).to_string();
    let mut stream = TcpStream::connect(house.public).await.unwrap();
    let head = format!(
        "POST /v1/licences/authorize HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    while !is_asked() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
}

/// Waits until the app gets a grant without an application.
async fn is_licensed(house: &Sandbox, package: &str) {
    let mut asked = authorize(house.public, RETAIL_KEY, package, "d", nothing()).await;
    for _ in 0..200 {
        if asked.0 == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked = authorize(house.public, RETAIL_KEY, package, "d", nothing()).await;
    }
    panic!("{package}: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_whose_client_went_or_was_told_to_come_again_has_its_place() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let house = house(upstream.address);
    let home = tempfile::tempdir().unwrap();
    let disk = Disk::new(home.path());
    let ledger = disk.root().join("ledger.db");
    house.edit(
        "tollgate.yaml",
        "../var/ledger.db",
        ledger.to_str().unwrap(),
    );
    house.edit(
        "tollgate.yaml",
        "response_timeout: 50s",
        "response_timeout: 1s",
    );
    let mut command = house.command(&[], &["serve"]);
    command.envs(disk.environment());
    command.stderr(std::process::Stdio::null());
    let _process = Process::start_by(&mut command, house.public, house.admin).await;

    disk.set(Word::Hang, 1);
    apply_and_go(&house, "com.example.gone", || disk.get(Word::Hanging) > 0).await;
    disk.set(Word::Hang, 0);
    is_licensed(&house, "com.example.gone").await;

    // Whoever waits is answered, though the disk is not.
    disk.set(Word::Hang, 1);
    let late = authorize(house.public, RETAIL_KEY, "com.example.late", "d", trial());
    let late = tokio::time::timeout(Duration::from_secs(60), late).await;
    let late = late.unwrap();
    assert_eq!(
        (late.0, reason(&late)),
        (StatusCode::SERVICE_UNAVAILABLE, "licences_away".to_owned())
    );
    disk.set(Word::Hang, 0);
    is_licensed(&house, "com.example.late").await;
}
