//! Accounts by the thousand, and what a process that knows them weighs: shared by the benchmarks.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The API key of an account; all are of one length.
pub(crate) fn key(number: usize) -> String {
    format!("key-of-customer-{number:09}")
}

pub(crate) fn secret_id(number: usize) -> String {
    format!("AKIDBENCH{number:09}")
}

pub(crate) fn secret_key(number: usize) -> String {
    format!("secret-of-customer-{number:09}")
}

/// The text of `accounts.yaml`: each account has a TC3 pair, an API key and one purchase of `qps`.
pub(crate) fn yaml(accounts: usize, qps: impl Fn(usize) -> u32) -> String {
    let mut text = String::from("accounts:\n");
    for number in 0..accounts {
        let hash = hex::encode(Sha256::digest(key(number)));
        write!(
            text,
            "  \"2{number:09}\":\n    name: Customer {number}\n    keys:\n      - {{secret_id: {}, \
             secret_key: {}}}\n      - {{api_key_sha256: {hash}}}\n    services:\n      \
             portrait-segmentation:\n        opened: 2026-01-01T00:00:00+08:00\n        mode: qps\n        \
             qps_purchases: [{{order: Q-{number}, qps: {}, from: 2026-01-01T00:00:00+08:00, months: 60, paid: {{cash: \"1\"}}}}]\n",
            secret_id(number),
            secret_key(number),
            qps(number)
        )
        .unwrap();
    }
    text
}

/// The bytes of what must be kept of [`yaml`] as it is: id, name, key pair, digest, order id.
pub(crate) fn texts(accounts: usize) -> u64 {
    let of_one = |number| {
        let texts = format!(
            "2{number:09}Customer {number}{}{}Q-{number}",
            secret_id(number),
            secret_key(number)
        );
        texts.len() as u64 + 32
    };
    (0..accounts).map(of_one).sum()
}

/// Memory of a process that is in use now.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// The most that it ever was.
pub(crate) fn most_resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap();
    kib * 1024
}
