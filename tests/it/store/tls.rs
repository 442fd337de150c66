//! TLS to the store.

use super::asker::Asker;
use crate::harness::{StoreServer, store_options};
use std::path::Path;
use std::process::Command;
use tollgate::testing::store::{
    CheckError, NoConnection, StoreOptions, TlsOptions, Topology, check,
};

/// An authority `NAME.pem`, and a certificate `NAME-server.pem` of 127.0.0.1 that it signed.
fn certificates(dir: &Path, name: &str) -> Vec<u8> {
    let script = r#"set -e
        key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
        key "$1"; key "$1-server"
        openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem" \
            -addext basicConstraints=critical,CA:TRUE
        openssl req -new -key "$1-server.key" -subj "/CN=store" -out "$1.csr"
        printf 'subjectAltName=IP:127.0.0.1\n' > "$1.ext"
        openssl x509 -req -in "$1.csr" -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 2 \
            -extfile "$1.ext" -out "$1-server.pem""#;
    let made = Command::new("bash")
        .args(["-c", script, "certificates", name])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::read(dir.join(format!("{name}.pem"))).unwrap()
}

fn over_tls(server: &StoreServer, ca: &[u8]) -> StoreOptions {
    let mut options = store_options(vec![server.address()], Topology::Single);
    options.tls = Some(TlsOptions {
        ca: Some(ca.to_vec()),
    });
    options
}

#[tokio::test]
async fn a_store_is_asked_over_tls_and_only_by_a_certificate_that_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let ca = certificates(dir.path(), "ours");
    let other = certificates(dir.path(), "other");
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (own, key) = (file("ours-server.pem"), file("ours-server.key"));
    let tls = [
        "--tls-port",
        "PORT",
        "--port",
        "0",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &own,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &file("ours.pem"),
    ];
    let server = StoreServer::redis(&tls);
    let mut asker = Asker::new(over_tls(&server, &ca));
    asker.until_granted().await;
    check(&over_tls(&server, &ca)).await.unwrap();

    let said = check(&over_tls(&server, &other)).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::Tls(_))),
        "{said}"
    );
    assert!(
        said.to_string().contains("signed by the authority"),
        "{said}"
    );
    let mut by_name = over_tls(&server, &ca);
    by_name.nodes[0].host = "localhost".to_owned();
    let said = check(&by_name).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::Tls(_))),
        "{said}"
    );
    let mut plain = over_tls(&server, &ca);
    plain.tls = None;
    let said = check(&plain).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::HungUp)),
        "{said}"
    );
    let said = check(&over_tls(&server, b"no certificate"))
        .await
        .unwrap_err();
    assert!(matches!(said, CheckError::BadCertificates(_)), "{said}");
}

#[tokio::test]
async fn tls_to_a_store_that_speaks_plain_text_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ca = certificates(dir.path(), "ours");
    let server = StoreServer::redis(&[]);
    server.ready().await;
    let said = check(&over_tls(&server, &ca)).await.unwrap_err();
    assert!(
        matches!(said, CheckError::NoConnection(_, NoConnection::PlainText)),
        "{said}"
    );
    assert!(said.to_string().contains("take `tls` out"), "{said}");
}
