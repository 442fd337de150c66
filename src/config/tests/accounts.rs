//! How `accounts.yaml` is read. What it refuses stands in `bad/`.

use crate::config::tests::bad;
use crate::config::tests::files::{Files, utc};
use crate::config::{Credential, Key, Paid, load};
use crate::model::{Mode, Origin, Stop};
use std::path::Path;

#[test]
fn the_shipped_accounts_have_the_keys_of_the_demo_and_the_quota_they_bought() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let config = load(&shipped).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let ids: Vec<_> = config.accounts.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(
        ids,
        ["1250000001", "1250000002", "1250000003", "1250000004"]
    );
    let keys = [
        "demo-studio-key",
        "demo-retail-key",
        "demo-arrears-key",
        "demo-video-key",
    ];
    for (account, key) in config.accounts.iter().zip(keys) {
        use sha2::Digest;
        let digest: [u8; 32] = sha2::Sha256::digest(key).into();
        let held =
            |key: &Key| matches!(key.credential, Credential::ApiKey { sha256 } if sha256 == digest);
        assert!(account.keys.iter().any(held), "{key}");
    }
    let now = utc("2026-11-24T00:00:00Z");
    let in_force = config.accounts[1].services[0].qps_purchases.iter();
    let in_force = in_force
        .filter(|p| p.from <= now && now < p.until)
        .map(|p| p.qps);
    assert_eq!(in_force.sum::<u32>(), 30);
    assert_eq!(config.accounts[2].services[0].stopped, Some(Stop::Arrears));
}

#[test]
fn the_mode_is_per_call_unless_written_and_free_in_a_free_group() {
    let accounts = Files::good().load().unwrap().accounts;
    let modes: Vec<_> = accounts
        .iter()
        .flat_map(|a| &a.services)
        .map(|s| s.mode)
        .collect();
    assert_eq!(modes, [Mode::Qps, Mode::Free, Mode::PerCall]);
}

#[test]
fn periods_end_at_the_same_local_time_clamped_to_the_months_end() {
    let accounts = Files::good().load().unwrap().accounts;
    let service = &accounts[0].services[0];
    let ends: Vec<_> = service.qps_purchases.iter().map(|p| p.until).collect();
    assert_eq!(
        ends,
        [
            utc("2026-02-28T12:30:00+08:00"),
            utc("2026-02-03T12:30:00+08:00")
        ]
    );
    assert_eq!(service.packs[0].expires, utc("2025-02-28T10:00:00+08:00"));
}

#[test]
fn a_period_keeps_its_clock_time_over_a_change_of_the_clocks_and_counts_in_the_catalogues_zone() {
    let files = Files::good();
    files.change("catalog.yaml", "Asia/Shanghai", "Europe/Berlin");
    // In Berlin it is still the 28th of February, 23:30, with the clocks on winter time.
    files.change(
        "accounts.yaml",
        "from: 2026-01-31T12:30:00+08:00, months: 1",
        "from: 2026-03-01T06:30:00+08:00, months: 1",
    );
    let accounts = files.load().unwrap().accounts;
    assert_eq!(
        accounts[0].services[0].qps_purchases[0].until,
        utc("2026-03-28T23:30:00+01:00")
    );
    files.change(
        "accounts.yaml",
        "from: 2026-03-01T06:30:00+08:00, months: 1",
        "from: 2026-03-28T12:00:00+01:00, days: 1",
    );
    let accounts = files.load().unwrap().accounts;
    assert_eq!(
        accounts[0].services[0].qps_purchases[0].until,
        utc("2026-03-29T12:00:00+02:00")
    );
}

#[test]
fn a_per_call_cap_in_an_account_is_refused_with_the_way_to_a_higher_rate() {
    assert_eq!(bad::check("the_cap_of_a_mode.yaml"), 4);
}

#[test]
fn purchases_that_follow_each_other_do_not_add_up() {
    let files = Files::good();
    files.change("accounts.yaml", "qps: 10,", "qps: 900000,");
    files.change(
        "accounts.yaml",
        "qps: 20, from: 2026-01-31T12:30:00+08:00",
        "qps: 900000, from: 2026-02-28T12:30:00+08:00",
    );
    assert_eq!(files.mistakes(), [""; 0]);
}

#[test]
fn a_pack_that_was_not_bought_may_cost_nothing() {
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "count: 2",
        "origin: promotion, refundable: false",
    );
    files.change("accounts.yaml", ", paid: {cash: \"176\"}", "");
    let pack = files.load().unwrap().accounts[0].services[0].packs[0].clone();
    assert_eq!(
        (pack.origin, pack.refundable, pack.count),
        (Origin::Promotion, false, 1)
    );
    assert_eq!(pack.paid, Paid::default());
}

#[test]
fn a_key_without_a_name_has_the_first_eight_characters_of_its_id_or_hash() {
    let files = Files::good();
    let ids = |files: &Files| -> Vec<String> {
        let account = files.load().unwrap().accounts[0].clone();
        account.keys.iter().map(|key| key.id.to_string()).collect()
    };
    assert_eq!(ids(&files), ["AKID1", "00000000"]);
    files.change(
        "accounts.yaml",
        "secret_id: AKID1,",
        "secret_id: AKID0123456,",
    );
    assert_eq!(ids(&files), ["AKID0123", "00000000"]);
    files.change(
        "accounts.yaml",
        "{api_key_sha256:",
        "{name: ci.main_1-a, api_key_sha256:",
    );
    assert_eq!(ids(&files), ["AKID0123", "ci.main_1-a"]);
}

#[test]
fn two_accounts_may_use_the_same_name_for_a_key() {
    let files = Files::good();
    files.change(
        "accounts.yaml",
        "secret_id: AKID1,",
        "name: main, secret_id: AKID1,",
    );
    let second = "{name: Two, keys: [{name: main, secret_id: AKID2, secret_key: other}],";
    files.change("accounts.yaml", "{name: Two,", second);
    assert_eq!(files.mistakes(), [""; 0]);
}

#[test]
fn a_key_ends_at_its_instant_and_is_told_of_for_fourteen_days_before() {
    let files = Files::good();
    let ends = "expires: 2026-12-15T00:00:00+08:00, secret_id: AKID1,";
    files.change("accounts.yaml", "secret_id: AKID1,", ends);
    let account = files.load().unwrap().accounts[0].clone();
    let judged = |at: &str| {
        let at = utc(at);
        (
            account.keys[0].is_expired(at),
            account.keys[0].expires_soon(at),
        )
    };
    assert_eq!(judged("2026-11-30T23:59:59.999999+08:00"), (false, false));
    assert_eq!(judged("2026-12-01T00:00:00+08:00"), (false, true));
    assert_eq!(judged("2026-12-14T23:59:59.999999+08:00"), (false, true));
    assert_eq!(judged("2026-12-15T00:00:00+08:00"), (true, false));
    assert!(!account.keys[1].is_expired(utc("2100-01-01T00:00:00Z")));
}

#[test]
fn a_key_is_followed_by_one_of_its_name_that_holds_longer() {
    let files = Files::good();
    let rotated = "secret_id: AKID1, secret_key: hush, name: a, expires: 2026-12-15T00:00:00Z}\n      \
                   - {name: a, secret_id: AKID2, secret_key: hush";
    files.change(
        "accounts.yaml",
        "secret_id: AKID1, secret_key: hush",
        rotated,
    );
    let account = files.load().unwrap().accounts[0].clone();
    let followed: Vec<bool> = account
        .keys
        .iter()
        .map(|key| account.is_followed(key))
        .collect();
    assert_eq!(followed, [true, false, false]);
}
