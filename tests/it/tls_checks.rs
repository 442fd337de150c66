//! The public listener as sslyze sees it: versions, suites, and the known faults of TLS.

use crate::harness::*;
use crate::tls::TlsGate;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What sslyze found out about a gate.
async fn scanned() -> Value {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let found = gate.house.dir.path().join("found.json");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("target/venv-tls/bin/python"));
    command
        .args(["-m", "sslyze", "--json_out"])
        .arg(&found)
        .args(
            "sslv2 sslv3 tlsv1 tlsv1_1 tlsv1_2 tlsv1_3"
                .split(' ')
                .map(|version| format!("--{version}")),
        )
        .args(
            "reneg compression robot heartbleed openssl_ccs fallback resum early_data ems"
                .split(' ')
                .map(|scan| format!("--{scan}")),
        )
        .arg(format!("localhost:{}", gate.house.public.port()))
        .stdin(Stdio::null());
    let told = tokio::task::spawn_blocking(move || said(&mut command))
        .await
        .unwrap();
    assert_eq!(told.code, Some(0), "{}{}", told.out, told.err);
    let found: Value = serde_json::from_slice(&std::fs::read(found).unwrap()).unwrap();
    found["server_scan_results"][0]["scan_result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sslyze_finds_tls_of_today_alone_and_none_of_the_known_faults() {
    let found = scanned().await;
    let of = |scan: &str| {
        assert_eq!(
            found[scan]["status"], "COMPLETED",
            "{scan}: {}",
            found[scan]
        );
        found[scan]["result"].clone()
    };
    let suites = |version: &str| -> Vec<String> {
        let accepted = of(version)["accepted_cipher_suites"].clone();
        let name = |suite: &Value| suite["cipher_suite"]["name"].as_str().unwrap().to_owned();
        accepted.as_array().unwrap().iter().map(name).collect()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(suites(&format!("{old}_cipher_suites")), [""; 0], "{old}");
    }
    // Each has a key of its own for every session, and authenticates what it encrypts.
    let (two, three) = (
        suites("tls_1_2_cipher_suites"),
        suites("tls_1_3_cipher_suites"),
    );
    assert_eq!(two.len(), 3, "{two:?}");
    assert_eq!(three.len(), 3, "{three:?}");
    for suite in &two {
        assert!(suite.starts_with("TLS_ECDHE_ECDSA_"), "{suite}");
    }
    for suite in two.iter().chain(&three) {
        assert!(
            suite.contains("_GCM_") || suite.contains("_CHACHA20_POLY1305_"),
            "{suite}"
        );
    }
    for (scan, what, is) in [
        ("tls_compression", "supports_compression", false),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
            false,
        ),
        (
            "session_renegotiation",
            "supports_secure_renegotiation",
            true,
        ),
        ("heartbleed", "is_vulnerable_to_heartbleed", false),
        (
            "openssl_ccs_injection",
            "is_vulnerable_to_ccs_injection",
            false,
        ),
        ("tls_fallback_scsv", "supports_fallback_scsv", true),
        ("tls_1_3_early_data", "supports_early_data", false),
        ("tls_extended_master_secret", "supports_ems_extension", true),
    ] {
        assert_eq!(of(scan)[what], is, "{scan}: {what}");
    }
    assert_eq!(
        of("robot")["robot_result"],
        "NOT_VULNERABLE_RSA_NOT_SUPPORTED"
    );
    let resumed = of("session_resumption")["session_id_resumption_result"].clone();
    assert_eq!(resumed, "FULLY_SUPPORTED");
}

/// Twice, the second time with the ticket of the first.
#[tokio::test(flavor = "multi_thread")]
async fn openssl_resumes_a_session_in_both_versions() {
    let upstream = Upstream::after(Duration::ZERO).await;
    let gate = TlsGate::start(&upstream).await;
    let session = gate.house.dir.path().join("session");
    for version in ["-tls1_3", "-tls1_2"] {
        let connected = |file: &str| {
            let mut command = Command::new("sh");
            // A request, so that the tickets of TLS 1.3 are read, which come after the handshake.
            let script = "(printf 'GET /v1/quota HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n'; sleep 1) | \
                openssl s_client -connect \"$0\" -servername localhost \"$@\"";
            command.args(["-c", script, &gate.house.public.to_string(), version]);
            command.arg(file).arg(&session);
            said(&mut command).out
        };
        let first = connected("-sess_out");
        assert!(first.contains("New, TLSv1"), "{version}: {first}");
        let second = connected("-sess_in");
        assert!(second.contains("Reused, TLSv1"), "{version}: {second}");
    }
}
