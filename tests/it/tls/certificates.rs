//! Which certificate is shown, and its change under load.

use super::client::{connect, trusting};
use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::HandshakeKind;

const CALL: &str =
    "GET /v1/quota HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: demo-studio-key\r\n\r\n";

async fn asks(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) -> String {
    stream.write_all(CALL.as_bytes()).await.unwrap();
    let mut answer = vec![0; 8192];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_name_has_its_certificate_and_an_unknown_one_the_first() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let tls = format!(
        "behind_tls: false\ntls: {}",
        section(&["one", "two", "three"])
    );
    let house = Sandbox::new(upstream.address, &[("behind_tls: false", &tls)]);
    let (one, _) = certificate(&house.file("one"), &["one.test", "127.0.0.1"]);
    let (two, _) = certificate(&house.file("two"), &["two.test"]);
    let (three, _) = certificate(&house.file("three"), &["*.three.test"]);
    let _process = house.start().await;
    for (cert, name, is_shown) in [
        (&one, "one.test", true),
        (&two, "two.test", true),
        (&three, "a.three.test", true),
        (&one, "two.test", false),
        // A client that names an address asks for no name.
        (&one, "127.0.0.1", true),
        (&two, "a.three.test", false),
    ] {
        let config = trusting(&[cert], &["http/1.1"]);
        let connected = connect(house.public, &config, name).await;
        assert_eq!(connected.is_ok(), is_shown, "{name}: {connected:?}");
    }
    // The first is shown, which is none of that name.
    let config = trusting(&[&one], &["http/1.1"]);
    let unknown = connect(house.public, &config, "other.test")
        .await
        .unwrap_err();
    assert!(
        unknown.to_string().contains("not valid for name"),
        "{unknown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_and_no_connection_is_dropped() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let config = trusting(&[&gate.cert], &["http/1.1"]);
    let mut old = connect(gate.house.public, &config, "localhost")
        .await
        .unwrap();
    assert!(asks(&mut old).await.starts_with("HTTP/1.1 200 "));

    let (cert, key) = certificate(&gate.house.file("next"), &[]);
    // A key that belongs to another certificate changes nothing.
    std::fs::copy(&key, gate.house.file("tls/gate.key")).unwrap();
    eventually("the mistake is told", || {
        gate.house
            .log()
            .contains("not the key of the first certificate")
    })
    .await;
    let still = connect(gate.house.public, &config, "localhost").await;
    assert!(still.is_ok(), "{still:?}");

    std::fs::copy(&cert, gate.house.file("tls/gate.pem")).unwrap();
    eventually("the change is told", || {
        gate.house.log().contains("other certificates are shown")
    })
    .await;
    assert!(asks(&mut old).await.starts_with("HTTP/1.1 200 "));
    let fresh = trusting(&[&gate.cert], &["http/1.1"]);
    let next = connect(gate.house.public, &fresh, "localhost")
        .await
        .unwrap();
    let shown = next.get_ref().1.peer_certificates().unwrap();
    let text = std::fs::read_to_string(&cert).unwrap();
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    let expected = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    assert_eq!(shown[0], expected);
    let ends = scrape(gate.house.admin).await;
    let ends = ends.sum("tollgate_tls_certificate_expires_timestamp_seconds", &[]);
    assert!(ends > 1_700_000_000, "{ends}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_again_resumes_its_session() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let config = trusting(&[&gate.cert], &["http/1.1"]);
    for kind in [
        HandshakeKind::Full,
        HandshakeKind::Resumed,
        HandshakeKind::Resumed,
    ] {
        let mut stream = connect(gate.house.public, &config, "localhost")
            .await
            .unwrap();
        assert!(asks(&mut stream).await.starts_with("HTTP/1.1 200 "));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_command_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let (_, key) = certificate(dir.path(), &["a.test"]);
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    let mut again = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    let told = said(again.args(["key", "new", "--tls"]).arg(dir.path()));
    assert!(
        told.code == Some(1) && told.err.contains("gate.key"),
        "{told:?}"
    );
    assert_eq!(std::fs::read(&key).unwrap(), before);
}
