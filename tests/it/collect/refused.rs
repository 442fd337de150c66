//! Which ledger and which settings a gate and a collector need.

use crate::bills::{call, into_last_month, seed};
use crate::collect::fleet::{ALONE, outbox};
use crate::harness::*;
use std::time::Duration;
use tollgate::testing::ledger::{Ledger, LedgerOptions, Watermark};
use tollgate::testing::model::{Clock, Durability, Mode, Reason};

const LEDGER: &str = "0123456789abcdef0123456789abcdef";

fn house(edits: &[(&str, &str)]) -> Sandbox {
    Sandbox::new(([127, 0, 0, 1], 9).into(), edits)
}

/// Makes the ledger of a sandbox one that knows another.
fn collects(house: &Sandbox) {
    seed(&house.ledger(), []);
    let options = LedgerOptions {
        path: house.ledger(),
        durability: Durability::Strict,
        replica: String::new(),
        create: false,
        pending_limit: 10,
        stall_after: Duration::from_secs(1 << 40),
    };
    let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
    let mark = Watermark {
        ledger_id: LEDGER.to_owned(),
        replica: "gate-0".to_owned(),
        at: Some(into_last_month(0)),
        seq: 7,
        billed_seq: 0,
    };
    ledger.watermark_of(vec![mark]).unwrap();
    ledger.close(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_collector_needs_an_outbox_in_its_settings_and_a_ledger_without_calls_of_a_gate() {
    let alone = house(&[]);
    let said = alone.run(&["collect"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("outbox: {nats: {servers: [..]}}"),
        "{}",
        said.err
    );

    let of_a_gate = house(&[(ALONE, &outbox(1, "collector"))]);
    let call = call(
        "1250000001",
        into_last_month(0),
        Mode::PerCall,
        Reason::Billable,
    );
    seed(&of_a_gate.ledger(), [call]);
    let said = of_a_gate.run(&["collect"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("has calls that a gate admitted itself"),
        "{}",
        said.err
    );
    assert!(said.err.contains("a ledger of its own"), "{}", said.err);
}

#[test]
fn a_gate_does_not_start_on_a_collected_ledger() {
    let house = house(&[]);
    collects(&house);
    let said = house.run(&["serve"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("has the records of other ledgers"),
        "{}",
        said.err
    );
}

#[test]
fn a_ledger_is_given_up_while_no_collector_runs_and_what_is_lost_is_said() {
    let house = house(&[(ALONE, &outbox(1, "collector"))]);
    collects(&house);
    let retire = |ledger: &str, why: &str| house.run(&["collect", "retire", ledger, "--why", why]);
    let said = retire("ffff", "lost");
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("no ledger ffff is known here"),
        "{}",
        said.err
    );
    assert_eq!(retire(LEDGER, " ").code, Some(1));
    let said = retire(LEDGER, "its disk is lost");
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.contains("of gate-0 is given up"), "{}", said.out);
    assert!(
        said.out.contains("7 records more were told of"),
        "{}",
        said.out
    );
    let said = retire(LEDGER, "again");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("was given up before"), "{}", said.err);
}
