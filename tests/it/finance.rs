//! What finance takes from the ledger at the end of a month: all statements, the list of fixed
//! months, the closing report.

use crate::bills::{call, into_last_month, last_month, rfc3339, seed, settled};
use crate::harness::*;
use serde_json::Value;
use std::collections::BTreeMap;
use tollgate::testing::model::{Mode, Reason, Utc};

/// Two accounts that pay by the call: the first with a pack of 10,000, the second with a payment.
fn house(upstream: std::net::SocketAddr) -> Sandbox {
    let house = Sandbox::new(upstream, &[]);
    let keys = ["demo-studio-key", "demo-retail-key"].map(|key| {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(key))
    });
    let (delivered, paid) = (rfc3339(into_last_month(0)), rfc3339(into_last_month(1)));
    let service =
        "services:\n      portrait-segmentation:\n        opened: 2026-01-01T00:00:00+08:00";
    let accounts = format!(
        "accounts:\n  \"2000000001\":\n    name: 甲, \"One\"\n    keys: [{{api_key_sha256: {}}}]\n    {service}\n        \
         packs: [{{order: P-1, calls: 10000, delivered: {delivered}, paid: {{cash: \"80\", gift: \"8\"}}}}]\n  \
         \"2000000002\":\n    name: Two\n    keys: [{{api_key_sha256: {}}}]\n    payments: [{{order: T-1, at: {paid}, amount: \"30\"}}]\n    \
         {service}\n",
        keys[0], keys[1]
    );
    std::fs::write(house.file("accounts.yaml"), accounts).unwrap();
    let from = into_last_month(0).0;
    let calls = (0..5_000).flat_map(|n| {
        let at = Utc(from + 1 + n * 1_000_000);
        ["2000000001", "2000000002"].map(|id| call(id, at, Mode::PerCall, Reason::Billable))
    });
    let vetoed = (0..7).map(|n| {
        call(
            "2000000002",
            Utc(from + 1 + n),
            Mode::PerCall,
            Reason::Vetoed,
        )
    });
    seed(&house.ledger(), calls.chain(vetoed));
    house
}

fn run(house: &Sandbox, words: &[&str]) -> String {
    let said = house.run(words);
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.out
}

#[tokio::test(flavor = "multi_thread")]
async fn finance_closes_a_month_from_all_statements_the_list_and_the_report() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let gate = house.start().await;
    settled(&house).await;
    eventually("all statements are stored", || {
        house.log().contains("settled the month")
    })
    .await;
    drop(gate);
    let month = last_month().to_string();

    // All statements, as they were fixed.
    let lines = run(
        &house,
        &["statement", "--month", &month, "--format", "json"],
    );
    let all: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let dues: BTreeMap<&str, &str> = all
        .iter()
        .map(|one| {
            (
                one["account"].as_str().unwrap(),
                one["due"].as_str().unwrap(),
            )
        })
        .collect();
    // 5,000 calls: 1,000 are free; the pack covers the rest of the first account's.
    let expected = [("2000000001", "0.00"), ("2000000002", "40.00")];
    assert_eq!(dues, BTreeMap::from(expected));
    for one in &all {
        let id = one["account"].as_str().unwrap();
        let alone = run(
            &house,
            &[
                "statement",
                "--account",
                id,
                "--month",
                &month,
                "--format",
                "json",
            ],
        );
        assert_eq!(serde_json::from_str::<Value>(&alone).unwrap(), *one);
    }
    let csv = run(&house, &["statement", "--month", &month, "--bom"]);
    assert!(csv.starts_with("\u{feff}month,account,currency,group,row,"));
    assert_eq!(
        csv.lines()
            .filter(|line| line.contains(",total_due,"))
            .count(),
        2
    );
    assert_eq!(
        csv.lines()
            .filter(|line| line.contains("month,account"))
            .count(),
        1
    );
    let table = house.run(&["statement", "--month", &month, "--format", "table"]);
    assert_eq!(table.code, Some(1));
    assert!(table.err.contains("--account"), "{}", table.err);

    // The list of fixed months, with what the log and `verify` say.
    let list = run(&house, &["statement", "--list", "--format", "json"]);
    let fixed: Value = serde_json::from_str(list.lines().next_back().unwrap()).unwrap();
    assert_eq!(
        (fixed["month"].as_str(), fixed["due"].as_str()),
        (Some(&*month), Some("40.00"))
    );
    assert_eq!(fixed["statements"], 2);
    let verified = run(&house, &["verify"]);
    assert!(
        verified.contains(fixed["digest"].as_str().unwrap()),
        "{verified}"
    );

    // The closing report adds up to the same.
    let report: Value = serde_json::from_str(&run(
        &house,
        &["report", "--month", &month, "--format", "json"],
    ))
    .unwrap();
    assert_eq!(report["due"], "40.00");
    assert_eq!(
        (&report["statements"], &report["digest"]),
        (&2.into(), &fixed["digest"])
    );
    let group = &report["groups"]["portrait-segmentation"];
    assert_eq!(
        (&group["calls"], &group["not_billable"]["vetoed"]),
        (&10_000.into(), &7.into())
    );
    assert_eq!(report["paid"]["packs"]["cash"], "80.00");
    assert_eq!(report["paid"]["packs"]["gift"], "8.00");
    assert_eq!(
        (
            &report["payments"]["count"],
            report["payments"]["amount"].as_str()
        ),
        (&1.into(), Some("30"))
    );
    // 6,000 of 10,000 calls for 88.
    assert_eq!(report["unearned"]["calls"], 6_000);
    assert_eq!(report["unearned"]["amount"], "52.80");
    let table = run(&house, &["report", "--month", &month]);
    for said in [
        "Portrait segmentation",
        "due 40.00",
        "not billed: vetoed 7",
        "52.80",
        "人像分割",
    ] {
        assert!(table.contains(said), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_entered_for_a_fixed_month_is_named_by_check_the_reload_and_the_report() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    let _gate = house.start().await;
    settled(&house).await;
    eventually("all statements are stored", || {
        house.log().contains("settled the month")
    })
    .await;
    let check = house.run(&["check"]);
    assert!(!check.err.contains("warning"), "{}", check.err);
    let at = rfc3339(into_last_month(2));
    let late = format!(
        "adjustments: [{{id: A-1, at: {at}, amount: \"-1.50\", reason: r, by: b}}]\n    payments: [{{order: T-9, at: {at}, amount: \"5\"}}, "
    );
    house.edit("accounts.yaml", "payments: [", &late);
    house.edit("accounts.yaml", "amount: \"30\"", "amount: \"31\"");
    let expected = [
        "payment T-1 is 30.00 on the statement",
        "payment T-9 is dated in",
        "adjustment A-1 is dated in",
    ];
    let check = house.run(&["check"]);
    let (_, reload) = post_reload(house.admin, "").await;
    let reload = reload["warnings"].to_string();
    let month = last_month().to_string();
    let table = run(&house, &["report", "--month", &month]);
    for expected in expected {
        for said in [&check.err, &reload, &table] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
    let json = run(&house, &["report", "--month", &month, "--format", "json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["entered_late"].as_array().unwrap().len(), 3);
    // What is gone is told by the statement that has it.
    house.edit("accounts.yaml", "{order: T-1, ", "{order: T-7, ");
    let gone = "payment T-1 is 30.00 at ";
    let check = house.run(&["check"]);
    let (_, reload) = post_reload(house.admin, "").await;
    let table = run(&house, &["report", "--month", &month]);
    for told in [&check.err, &reload["warnings"].to_string(), &table] {
        assert!(
            told.contains(gone) && told.contains("not in the files any more"),
            "{told}"
        );
    }
    // One adjustment alone is told by a reload too.
    house.edit("accounts.yaml", "id: A-1", "id: A-2");
    let (_, reload) = post_reload(house.admin, "").await;
    assert!(
        reload["warnings"].to_string().contains("adjustment A-2"),
        "{reload}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_has_not_begun_has_no_report_and_no_statement_and_exits_2() {
    let upstream = Upstream::after(std::time::Duration::ZERO).await;
    let house = house(upstream.address);
    for command in ["report", "statement"] {
        let said = house.run(&[command, "--month", "2099-12"]);
        assert_eq!((said.code, &*said.out), (Some(2), ""), "{said:?}");
        assert!(said.err.contains("2099-12 has not begun"), "{}", said.err);
    }
}
