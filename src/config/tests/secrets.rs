//! Where secrets come from, and that none is shown.

use crate::config::Credential;
use crate::config::tests::files::Files;
use secrecy::ExposeSecret;
use std::fs;

#[test]
fn secrets_come_from_files_and_the_environment() {
    let files = Files::good();
    let key = |files: &Files| match &files.load().unwrap().accounts[0].keys[0].credential {
        Credential::Tc3 { secret_key, .. } => secret_key.expose_secret().to_owned(),
        Credential::ApiKey { .. } => String::new(),
    };
    files.change(
        "accounts.yaml",
        "secret_key: hush",
        "secret_key: {file: one.key}",
    );
    for content in ["from-a-file", "from-a-file\n", "from-a-file\r\n"] {
        files.write("one.key", content);
        assert_eq!(key(&files), "from-a-file");
    }
    files.change("accounts.yaml", "{file: one.key}", "{env: CARGO_PKG_NAME}");
    assert_eq!(key(&files), "tollgate");
    let inline = "{secret_id: AKID1, secret_key: {env: CARGO_PKG_NAME}}";
    let block = "secret_id: AKID1\n        secret_key: |\n          in-a-block";
    files.change("accounts.yaml", inline, block);
    assert_eq!(key(&files), "in-a-block");
}

#[test]
fn a_character_of_a_secret_that_cannot_be_seen_is_named_with_its_place() {
    // Format characters, fillers, variants: all that shows nothing.
    for c in "\u{ad}\u{61c}\u{115f}\u{180e}\u{200b}\u{200f}\u{202a}\u{202e}\u{2061}\u{2066}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{ffa0}\u{e0020}"
        .chars()
    {
        let files = Files::good();
        let to = format!("secret_key: \"hu{c}sh\"");
        files.change("accounts.yaml", "secret_key: hush", &to);
        let odd = format!("has a character that cannot be seen, U+{:04X} as character 3", u32::from(c));
        assert_eq!(files.mistakes().len(), 1, "{odd}");
        assert!(files.mistakes()[0].contains(&odd), "{:?}", files.mistakes());
    }
}

#[test]
fn a_file_that_is_too_large_for_a_secret_is_a_mistake() {
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "secret_key: hush",
        "secret_key: {file: one.key}",
    );
    files.write("one.key", "x".repeat(4097));
    assert_eq!(
        files.mistakes(),
        ["accounts.yaml:5:47: secret_key: one.key is larger than 4096 bytes: it cannot be a key"]
    );
}

#[test]
fn a_key_file_that_everybody_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "secret_key: hush",
        "secret_key: {file: one.key}",
    );
    files.write("one.key", "hush");
    let mode = |mode| {
        let path = files.dir.path().join("one.key");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o640);
    assert_eq!(files.warnings(), [""; 0]);
    mode(0o644);
    assert_eq!(
        files.warnings(),
        [
            "accounts.yaml:5:47: secret_key: one.key is open to every user of this machine (mode 644): chmod o= one.key"
        ]
    );
}

#[test]
fn no_secret_is_ever_shown() {
    let files = Files::good();
    files.change("accounts.yaml", "hush", "s3cr3t-s3cr3t");
    files.change(
        "tollgate.yaml",
        "ledger:",
        "admin: {token: s3cr3t-s3cr3t}\nevents: {webhook: https://a/s3cr3t, secret: whsec_czNjcjN0czNjcjN0czNjcjN0czNjcjN0czNjcjN0}\nledger:",
    );
    assert!(!format!("{:?}", files.load().unwrap()).contains("s3cr3t"));
    for wrong in [
        "secret_key: {s3cr3t-s3cr3t}",
        "secret_key: {{ s3cr3t }}",
        "secret_key: {s3cr3t: 1, s3cr3t: 2}",
        "secret_key: [s3cr3t]",
        "secret_key: !!int s3cr3t",
        "secret_key: !s3cr3t s3cr3t",
        "secret_key: k}, {api_key_sha256: s3cr3t",
        "secret_key: k}, {secret_key: k, secret_id: s3cr3t=",
        "secret_key: \"s3cr3t",
    ] {
        let files = Files::good();
        files.change("accounts.yaml", "secret_key: hush", wrong);
        let said = files.mistakes().join("\n");
        assert!(
            !said.is_empty() && !said.contains("s3cr3t"),
            "{wrong}: {said}"
        );
    }
    for number in ["3141592653", "3.141592653"] {
        let files = Files::good();
        files.change(
            "accounts.yaml",
            "secret_key: hush",
            &format!("secret_key: {number}"),
        );
        assert!(!files.mistakes().join("").contains("141592653"));
    }
}
