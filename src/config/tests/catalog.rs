//! How `catalog.yaml` is read. What it refuses stands in `bad/`.

use crate::config::{Charging, load};
use std::path::Path;

#[test]
fn the_shipped_files_are_right_and_hold_the_contract() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
    let config = load(&shipped).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.warnings, []);
    let Charging::Paid { per_call, qps } = &config.catalog.groups[0].charging else {
        panic!("the portrait group is paid");
    };
    assert_eq!(per_call.qps, 20);
    assert_eq!(per_call.free_calls, 1000);
    assert_eq!(per_call.notice_below.to_string(), "0.15");
    let tiers: Vec<_> = per_call
        .tiers
        .iter()
        .map(|t| (t.from, t.price.to_string()))
        .collect();
    let expected = [
        (0, "0.01"),
        (10_000, "0.009"),
        (100_000, "0.008"),
        (1_000_000, "0.007"),
    ];
    assert_eq!(
        tiers,
        expected.map(|(from, price)| (from, price.to_owned()))
    );
    let packs: Vec<_> = per_call
        .packs
        .iter()
        .map(|p| (p.calls, p.price.to_string()))
        .collect();
    let expected = [
        (10_000, "88"),
        (100_000, "860"),
        (1_000_000, "7300"),
        (10_000_000, "63000"),
    ];
    assert_eq!(
        packs,
        expected.map(|(calls, price)| (calls, price.to_owned()))
    );
    let ladder: Vec<_> = qps
        .iter()
        .map(|p| format!("{} {} {}", p.from, p.month, p.day))
        .collect();
    assert_eq!(ladder, ["1 880 48", "10 780 40", "50 700 35", "100 630 30"]);
    assert!(matches!(
        config.catalog.groups[1].charging,
        Charging::Free { qps_per_action: 20 }
    ));
    assert_eq!(config.catalog.settle_day, 3);
}
