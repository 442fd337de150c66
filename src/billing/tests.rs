//! The rules of money, by examples. Every expected figure is worked out by hand from the contract.

use super::*;
use crate::billing::price::{NotSold, pack_price, qps_price};
use crate::model::{
    AccountId, Action, Fund, GroupId, KeyId, Local, Mode, Origin, Reason, Stop, TierBasis, Utc,
};
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

fn at(text: &str) -> Utc {
    Utc(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

fn yuan(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn shanghai() -> TimeZone {
    TimeZone::get("Asia/Shanghai").unwrap()
}

/// November 2026 in Shanghai, as UTC sees it.
fn november() -> (Utc, Utc) {
    (at("2026-10-31T16:00:00Z"), at("2026-11-30T16:00:00Z"))
}

fn action(name: &str) -> Action {
    Action::new(name).unwrap()
}

/// R10 and R13 as the shipped catalogue has them.
fn terms(tier_basis: TierBasis) -> PriceTerms {
    PriceTerms {
        free_calls: 1_000,
        tier_basis,
        tiers: vec![
            (0, yuan("0.01")),
            (10_000, yuan("0.009")),
            (100_000, yuan("0.008")),
            (1_000_000, yuan("0.007")),
        ],
    }
}

/// `count` bought packs of `calls`.
fn packs(order: &str, calls: u64, count: u32, delivered: &str, expires: &str) -> PackOrder {
    PackOrder {
        order: order.into(),
        calls,
        count,
        delivered: at(delivered),
        expires: at(expires),
        refunded: None,
        origin: Origin::Bought,
        paid: vec![(Fund::Cash, yuan("88"))],
        used_before: 0,
    }
}

/// A pack of 10,000 that covers the whole of November and more.
fn pack(order: &str) -> PackOrder {
    packs(
        order,
        10_000,
        1,
        "2026-10-02T10:00:00+08:00",
        "2027-10-02T10:00:00+08:00",
    )
}

fn portrait(terms: PriceTerms, packs: Vec<PackOrder>) -> GroupInputs {
    GroupInputs {
        group: GroupId::new("portrait-segmentation").unwrap(),
        title: "人像分割".into(),
        title_en: String::new(),
        terms: Some(terms),
        packs,
        purchases: Vec::new(),
        intervals: Vec::new(),
        late: Vec::new(),
        keys: Vec::new(),
        late_entries: LateEntries::default(),
    }
}

fn video() -> GroupInputs {
    GroupInputs {
        group: GroupId::new("video-segmentation").unwrap(),
        title: "视频人像分割".into(),
        terms: None,
        ..portrait(terms(TierBasis::AllCalls), Vec::new())
    }
}

fn inputs(groups: Vec<GroupInputs>) -> Inputs {
    let (from, until) = november();
    Inputs {
        account: AccountId::new("1250000001").unwrap(),
        name: "Example Studio".into(),
        month: "2026-11".into(),
        time_zone: "Asia/Shanghai".into(),
        currency: "CNY".into(),
        from,
        until,
        counted_until: until,
        on_no_statement: 0,
        balance: None,
        groups,
        licences: Vec::new(),
    }
}

fn per_call(calls: u64) -> Calls {
    Calls {
        action: action("SegmentPortraitPic"),
        mode: Mode::PerCall,
        reason: Reason::Billable,
        calls,
    }
}

fn qps(calls: u64) -> Calls {
    Calls {
        mode: Mode::Qps,
        ..per_call(calls)
    }
}

/// The month's intervals: as many calls as given from each instant on, cut where a pack begins or
/// ends.
fn called(mut group: GroupInputs, calls: &[(&str, Calls)]) -> GroupInputs {
    let (from, until) = november();
    let mut edges = vec![from];
    edges.extend(boundaries(&group.packs, from, until));
    edges.push(until);
    group.intervals = edges
        .windows(2)
        .map(|edge| Interval {
            from: edge[0],
            until: edge[1],
            calls: calls
                .iter()
                .filter(|(when, _)| (edge[0]..edge[1]).contains(&at(when)))
                .map(|(_, calls)| calls.clone())
                .collect(),
        })
        .collect();
    group
}

const MID: &str = "2026-11-15T12:00:00+08:00";

fn of_one(group: GroupInputs) -> (Statement, GroupStatement) {
    let statement = statement(&inputs(vec![group]));
    let group = statement.groups[0].clone();
    (statement, group)
}

/// `(used, left)` of each order, in the order of the file.
fn used(group: &GroupStatement) -> Vec<(u64, u64)> {
    let packs = &group.per_call.as_ref().unwrap().packs;
    packs.iter().map(|pack| (pack.used, pack.left)).collect()
}

fn postpaid(group: &GroupStatement) -> u64 {
    group.per_call.as_ref().unwrap().postpaid.calls
}

fn said(group: &GroupStatement, what: &str) -> bool {
    group.computed.iter().any(|line| line == what)
}

#[test]
fn the_tier_that_the_month_reaches_prices_all_its_post_paid_calls() {
    use TierBasis::{AllCalls, PostpaidCalls};
    // (reading, billable calls, post-paid ones, the tier, its price, due): R13, without packs.
    for (basis, calls, beyond_free, tier, price, due) in [
        (AllCalls, 0, 0, 0, "0.01", "0"),
        (AllCalls, 1, 0, 0, "0.01", "0"),
        (AllCalls, 1_000, 0, 0, "0.01", "0"),
        (AllCalls, 1_001, 1, 0, "0.01", "0.01"),
        (AllCalls, 9_999, 8_999, 0, "0.01", "89.99"),
        (AllCalls, 10_000, 9_000, 10_000, "0.009", "81"),
        (AllCalls, 99_999, 98_999, 10_000, "0.009", "890.99"), // 890.991
        (AllCalls, 100_000, 99_000, 100_000, "0.008", "792"),
        (AllCalls, 999_999, 998_999, 100_000, "0.008", "7991.99"), // 7,991.992
        (AllCalls, 1_000_000, 999_000, 1_000_000, "0.007", "6993"),
        (PostpaidCalls, 0, 0, 0, "0.01", "0"),
        (PostpaidCalls, 9_999, 8_999, 0, "0.01", "89.99"),
        (PostpaidCalls, 10_000, 9_000, 0, "0.01", "90"),
        (PostpaidCalls, 10_999, 9_999, 0, "0.01", "99.99"),
        (PostpaidCalls, 11_000, 10_000, 10_000, "0.009", "90"),
        (PostpaidCalls, 99_999, 98_999, 10_000, "0.009", "890.99"),
        (PostpaidCalls, 100_000, 99_000, 10_000, "0.009", "891"),
        (PostpaidCalls, 101_000, 100_000, 100_000, "0.008", "800"),
        (PostpaidCalls, 999_999, 998_999, 100_000, "0.008", "7991.99"),
        (PostpaidCalls, 1_000_000, 999_000, 100_000, "0.008", "7992"),
        (
            PostpaidCalls,
            1_001_000,
            1_000_000,
            1_000_000,
            "0.007",
            "7000",
        ),
    ] {
        let group = called(portrait(terms(basis), vec![]), &[(MID, per_call(calls))]);
        let (statement, group) = of_one(group);
        let use_ = group.per_call.as_ref().unwrap();
        let why = format!("{calls} calls by {basis}");
        assert_eq!(use_.billable, calls, "{why}");
        assert_eq!(use_.free.used, calls.min(1_000), "{why}");
        assert_eq!(use_.postpaid.calls, beyond_free, "{why}");
        assert_eq!(use_.postpaid.tier_from, tier, "{why}");
        assert_eq!(use_.postpaid.unit_price, yuan(price), "{why}");
        assert_eq!(statement.due, yuan(due), "{why}");
        assert_eq!(group.lines.len(), usize::from(beyond_free > 0), "{why}");
        assert_eq!(statement.paid_when_ordered, Decimal::ZERO, "{why}");
    }
}

#[test]
fn calls_that_packs_cover_count_towards_the_tier_in_one_reading_only() {
    for (basis, due) in [
        (TierBasis::AllCalls, "36"),      // 4,000 at 0.009: all 15,000 count
        (TierBasis::PostpaidCalls, "40"), // 4,000 at 0.01: only they count
    ] {
        let group = portrait(terms(basis), vec![pack("P-1")]);
        let (statement, group) = of_one(called(group, &[(MID, per_call(15_000))]));
        assert_eq!(used(&group), [(10_000, 0)]);
        assert_eq!(postpaid(&group), 4_000);
        assert_eq!(statement.due, yuan(due), "{basis}");
    }
}

#[test]
fn an_amount_is_rounded_once_a_line_half_up_and_the_total_is_the_sum_of_the_lines() {
    let dear = |price: &str, calls| {
        let mut terms = terms(TierBasis::AllCalls);
        (terms.free_calls, terms.tiers) = (0, vec![(0, yuan(price))]);
        called(portrait(terms, vec![]), &[(MID, per_call(calls))])
    };
    for (price, calls, due) in [
        ("0.005", 1, "0.01"),
        ("0.005", 3, "0.02"),
        ("0.005", 5, "0.03"), // to even it would be 0.02
        ("0.0049", 1, "0.00"),
        ("0.004999", 1, "0.00"),
        ("0.001", 4, "0.00"),
        ("0.001", 14, "0.01"),
        ("0.001", 15, "0.02"), // not call by call: that would be nothing
    ] {
        let (statement, group) = of_one(dear(price, calls));
        assert_eq!(group.lines[0].amount.to_string(), due, "{calls} x {price}");
        assert_eq!(statement.due.to_string(), due);
        assert_eq!(group.lines[0].unit_price.to_string(), price, "exact");
    }
    let two = statement(&inputs(vec![dear("0.005", 1), dear("0.005", 1)]));
    assert_eq!(two.due, yuan("0.02"), "0.01 would be the rounded sum");
}

#[test]
fn a_month_without_any_call_owes_nothing_and_its_free_pack_is_whole() {
    let (statement, group) = of_one(called(
        portrait(terms(TierBasis::AllCalls), vec![pack("P-1")]),
        &[],
    ));
    let use_ = group.per_call.as_ref().unwrap();
    assert_eq!((use_.free.used, use_.free.left), (0, 1_000));
    assert_eq!(used(&group), [(0, 10_000)]);
    assert!(group.lines.is_empty() && group.calls.is_empty());
    assert_eq!(statement.due, Decimal::ZERO);
    assert!(said(&group, "R13: nothing is due"));
}

#[test]
fn a_month_is_the_one_of_shanghai_though_utc_still_has_the_day_before() {
    let on = |order: &str, delivered: &str| packs(order, 10_000, 1, delivered, MID);
    let group = portrait(
        terms(TierBasis::AllCalls),
        vec![
            on("October", "2026-10-31T15:59:59.999999Z"),
            on("November", "2026-10-31T16:00:00Z"),
            PackOrder {
                expires: at("2027-11-30T15:59:59Z"),
                ..on("November-too", "2026-11-30T15:59:59Z")
            },
        ],
    );
    let (statement, group) = of_one(called(group, &[]));
    assert_eq!(statement.from.to_string(), "2026-11-01T00:00:00+08:00");
    assert_eq!(statement.until.to_string(), "2026-12-01T00:00:00+08:00");
    let paid: Vec<&str> = group.paid.iter().map(|line| line.order.as_str()).collect();
    assert_eq!(paid, ["November", "November-too"]);
    assert_eq!(group.paid[0].at.to_string(), "2026-11-01T00:00:00+08:00");
    assert_eq!(group.paid[1].at.to_string(), "2026-11-30T23:59:59+08:00");
    assert_eq!(statement.paid_when_ordered, yuan("176"));
}

#[test]
fn a_pack_that_expires_with_the_month_covers_its_last_instant_and_is_expired_after_it() {
    let (begin, end) = ("2026-10-01T00:00:00+08:00", "2026-12-01T00:00:00+08:00");
    let group = portrait(
        terms(TierBasis::AllCalls),
        vec![packs("P-1", 10_000, 1, begin, end)],
    );
    let last = "2026-11-30T15:59:59.999999Z";
    let (_, group) = of_one(called(group, &[(last, per_call(1_500))]));
    assert_eq!(used(&group), [(500, 9_500)]);
    let pack = &group.per_call.as_ref().unwrap().packs[0];
    assert_eq!(pack.state, PackState::Expired);
}

#[test]
fn a_pack_of_a_leap_day_ends_a_year_later_on_the_28th_at_its_clock_time() {
    // R11: 29 Feb 2028 10:00 -> 28 Feb 2029 10:00, excluded.
    let leap = packs(
        "P-1",
        10_000,
        1,
        "2028-02-29T10:00:00+08:00",
        "2029-02-28T10:00:00+08:00",
    );
    assert!(!leap.covers(at("2028-02-29T09:59:59.999999+08:00")));
    assert!(leap.covers(at("2028-02-29T10:00:00+08:00")));
    assert!(leap.covers(at("2029-02-28T09:59:59.999999+08:00")));
    assert!(!leap.covers(at("2029-02-28T10:00:00+08:00")));
    let (from, until) = (
        at("2029-02-01T00:00:00+08:00"),
        at("2029-03-01T00:00:00+08:00"),
    );
    let packs = std::slice::from_ref(&leap);
    assert_eq!(boundaries(packs, from, until), [leap.expires]);
    let group = GroupInputs {
        intervals: vec![
            Interval {
                from,
                until: leap.expires,
                calls: vec![per_call(3_000)],
            },
            Interval {
                from: leap.expires,
                until,
                calls: vec![per_call(4_000)],
            },
        ],
        ..portrait(terms(TierBasis::AllCalls), vec![leap])
    };
    let statement = statement(&Inputs {
        month: "2029-02".into(),
        from,
        until,
        counted_until: until,
        ..inputs(vec![group])
    });
    // 1,000 free and 2,000 by the pack before, 4,000 after: 7,000 x 0.01 were it void at once.
    assert_eq!(used(&statement.groups[0]), [(2_000, 8_000)]);
    assert_eq!(statement.due, yuan("40"));
}

#[test]
fn a_pack_that_begins_in_mid_hour_covers_from_that_very_instant() {
    let begins = "2026-11-10T10:30:15.500000+08:00";
    let late = packs("P-1", 10_000, 1, begins, "2027-11-10T10:30:15.5+08:00");
    let group = portrait(terms(TierBasis::AllCalls), vec![late]);
    let calls = [
        ("2026-11-10T10:30:15.499999+08:00", per_call(1_200)),
        (begins, per_call(300)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    assert_eq!(used(&group), [(300, 9_700)]);
    assert_eq!(postpaid(&group), 200);
    assert_eq!(statement.due, yuan("2"));
}

#[test]
fn a_pack_that_expires_in_mid_hour_covers_up_to_that_very_instant() {
    let ends = "2026-11-10T10:30:15+08:00";
    let old = packs("P-1", 10_000, 1, "2025-11-10T10:30:15+08:00", ends);
    let group = portrait(terms(TierBasis::AllCalls), vec![old]);
    let calls = [
        ("2026-11-10T10:30:14.999999+08:00", per_call(1_200)),
        (ends, per_call(300)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    assert_eq!(used(&group), [(200, 9_800)]);
    assert_eq!(postpaid(&group), 300);
    assert_eq!(statement.due, yuan("3"));
    let pack = &group.per_call.as_ref().unwrap().packs[0];
    assert_eq!(pack.state, PackState::Expired, "the rest is void");
}

#[test]
fn a_service_opened_on_the_twentieth_has_the_whole_free_pack() {
    let group = portrait(terms(TierBasis::AllCalls), vec![]);
    let calls = [
        ("2026-11-20T00:00:00+08:00", per_call(999)),
        ("2026-11-30T23:59:59+08:00", per_call(2)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    let free = &group.per_call.as_ref().unwrap().free;
    assert_eq!((free.granted, free.used, free.left), (1_000, 1_000, 0));
    assert_eq!(statement.due, yuan("0.01"));
}

#[test]
fn calls_in_qps_mode_use_nothing_and_decide_no_tier_however_often_the_mode_is_switched() {
    let group = portrait(terms(TierBasis::AllCalls), vec![]);
    let calls = [
        ("2026-11-03T00:00:00+08:00", per_call(600)),
        ("2026-11-10T00:00:00+08:00", qps(2_000_000)),
        ("2026-11-20T00:00:00+08:00", per_call(600)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    // R5, R10: 1,000 free over both stretches, 200 at 0.01: 1,200 calls decide the tier.
    assert_eq!(statement.due, yuan("2"));
    assert_eq!(group.qps_calls, 2_000_000);
    let use_ = group.per_call.as_ref().unwrap();
    assert_eq!((use_.billable, use_.postpaid.tier_calls), (1_200, 1_200));
    assert_eq!(group.calls.len(), 2, "both modes are listed");
}

#[test]
fn a_stop_in_mid_month_leaves_the_free_pack_as_it_was_and_brings_no_second_one() {
    let group = portrait(terms(TierBasis::AllCalls), vec![]);
    // Stopped from the 10th to the 20th: nothing was admitted (R9).
    let calls = [
        ("2026-11-05T00:00:00+08:00", per_call(400)),
        ("2026-11-25T00:00:00+08:00", per_call(700)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    assert_eq!(group.per_call.as_ref().unwrap().free.used, 1_000);
    assert_eq!(postpaid(&group), 100);
    assert_eq!(statement.due, yuan("1"));
}

#[test]
fn the_pack_that_expires_first_is_used_first_then_the_one_delivered_first_then_the_files_order() {
    let of = |order, calls, delivered, expires| packs(order, calls, 1, delivered, expires);
    let group = portrait(
        terms(TierBasis::AllCalls),
        vec![
            of(
                "later",
                100,
                "2026-10-01T00:00:00+08:00",
                "2027-09-01T00:00:00+08:00",
            ),
            of(
                "tie-b",
                20,
                "2026-10-03T00:00:00+08:00",
                "2027-08-01T00:00:00+08:00",
            ),
            of(
                "tie-c",
                30,
                "2026-10-03T00:00:00+08:00",
                "2027-08-01T00:00:00+08:00",
            ),
            of(
                "tie-a",
                10,
                "2026-10-02T00:00:00+08:00",
                "2027-08-01T00:00:00+08:00",
            ),
            of(
                "soonest",
                5,
                "2026-10-04T00:00:00+08:00",
                "2026-12-24T00:00:00+08:00",
            ),
        ],
    );
    // later, tie-b, tie-c, tie-a, soonest
    for (calls, expected) in [
        (1_004, [0, 0, 0, 0, 4]),
        (1_014, [0, 0, 0, 9, 5]),
        (1_034, [0, 19, 0, 10, 5]),
        (1_036, [0, 20, 1, 10, 5]),
        (1_066, [1, 20, 30, 10, 5]),
        (1_166, [100, 20, 30, 10, 5]),
    ] {
        let (_, group) = of_one(called(group.clone(), &[(MID, per_call(calls))]));
        let used: Vec<u64> = used(&group).iter().map(|(used, _)| *used).collect();
        assert_eq!(used, expected, "{calls} calls");
        assert_eq!(postpaid(&group), calls.saturating_sub(1_165), "{calls}");
    }
}

#[test]
fn a_pack_that_was_paid_back_later_is_used_in_the_order_of_its_expiry_all_the_same() {
    let mut refunded = pack("refunded");
    refunded.refunded = Some(at("2026-11-20T09:00:00+08:00"));
    refunded.expires = at("2027-12-01T00:00:00+08:00");
    let group = portrait(
        terms(TierBasis::AllCalls),
        vec![refunded, packs_of(100, "kept")],
    );
    let (_, group) = of_one(called(group, &[(MID, per_call(1_050))]));
    assert_eq!(used(&group), [(0, 10_000), (50, 50)]);
}

fn packs_of(calls: u64, order: &str) -> PackOrder {
    PackOrder {
        calls,
        ..pack(order)
    }
}

#[test]
fn several_packs_of_one_order_cover_one_after_the_other_and_go_on_where_the_month_before_ended() {
    let order = PackOrder {
        count: 3,
        used_before: 12_500,
        ..pack("P-1")
    };
    let group = portrait(terms(TierBasis::AllCalls), vec![order]);
    let (statement, group) = of_one(called(group, &[(MID, per_call(20_000))]));
    // 30,000 granted, 17,500 of them still there: 20,000 = 1,000 free + 17,500 + 1,500 at 0.009.
    assert_eq!(used(&group), [(17_500, 0)]);
    assert_eq!(statement.due, yuan("13.5"));
    let pack = &group.per_call.as_ref().unwrap().packs[0];
    assert_eq!(pack.state, PackState::Exhausted);
    assert_eq!(pack.used_before, 12_500);
}

#[test]
fn a_refunded_order_covers_until_its_refund_and_is_shown_as_paid_back_by_the_funds_that_are() {
    let refunded = "2026-11-05T09:30:00+08:00";
    let order = PackOrder {
        delivered: at("2026-11-02T10:00:00+08:00"),
        refunded: Some(at(refunded)),
        paid: vec![
            (Fund::Cash, yuan("40")),
            (Fund::Income, yuan("20.5")),
            (Fund::Gift, yuan("10")),
            (Fund::Deduction, yuan("7.5")),
            (Fund::Voucher, yuan("10")),
        ],
        ..pack("P-1")
    };
    let group = portrait(terms(TierBasis::AllCalls), vec![order]);
    let (statement, group) = of_one(called(group, &[(refunded, per_call(1_100))]));
    assert_eq!(used(&group), [(0, 10_000)]);
    assert_eq!(statement.due, yuan("1"));
    let pack = &group.per_call.as_ref().unwrap().packs[0];
    assert_eq!(pack.state, PackState::Refunded);
    let [paid, back] = group.paid.as_slice() else {
        panic!("{:?}", group.paid);
    };
    assert_eq!((paid.kind, paid.amount), (PaidKind::Packs, yuan("88")));
    assert_eq!(paid.funds.len(), 5);
    assert_eq!(
        (back.kind, back.amount),
        (PaidKind::PaidBack, yuan("-70.5"))
    );
    let funds: Vec<(Fund, Decimal)> = back.funds.clone().into_iter().collect();
    let expected = [
        (Fund::Cash, yuan("-40")),
        (Fund::Income, yuan("-20.5")),
        (Fund::Gift, yuan("-10")),
    ];
    assert_eq!(funds, expected);
    assert_eq!(statement.paid_when_ordered, yuan("17.5"));
}

#[test]
fn what_was_paid_when_ordered_stands_apart_and_in_order_of_time() {
    let mut group = portrait(
        terms(TierBasis::AllCalls),
        vec![
            PackOrder {
                delivered: at("2026-11-20T10:00:00+08:00"),
                count: 2,
                paid: vec![(Fund::Cash, yuan("176.00"))],
                ..pack("P-2")
            },
            PackOrder {
                delivered: at("2026-11-03T10:00:00+08:00"),
                origin: Origin::Gift,
                paid: vec![],
                ..pack("P-gift")
            },
            pack("P-october"),
        ],
    );
    group.purchases = vec![QpsOrder {
        order: "Q-1".into(),
        qps: 10,
        from: at("2026-11-10T00:00:00+08:00"),
        until: at("2026-12-10T00:00:00+08:00"),
        paid: vec![(Fund::Cash, yuan("7000")), (Fund::Voucher, yuan("800"))],
    }];
    let (statement, group) = of_one(called(group, &[(MID, qps(50_000))]));
    let paid: Vec<(&str, &str, String)> = group
        .paid
        .iter()
        .map(|line| {
            (
                line.order.as_str(),
                line.what.as_str(),
                line.amount.to_string(),
            )
        })
        .collect();
    let expected = [
        ("P-gift", "1 pack of 10000 calls, gift", "0.00".to_owned()),
        (
            "Q-1",
            "10 QPS until 2026-12-10T00:00:00+08:00",
            "7800.00".to_owned(),
        ),
        ("P-2", "2 packs of 10000 calls, bought", "176.00".to_owned()),
    ];
    assert_eq!(paid, expected);
    assert_eq!(statement.paid_when_ordered, yuan("7976"));
    assert_eq!(statement.due, Decimal::ZERO);
}

#[test]
fn the_two_paid_actions_are_added_everywhere_and_listed_apart() {
    let custom = Calls {
        action: action("SegmentCustomizedPortraitPic"),
        ..per_call(4_000)
    };
    let group = portrait(terms(TierBasis::AllCalls), vec![]);
    let calls = [(MID, per_call(6_000)), (MID, custom)];
    let (statement, group) = of_one(called(group, &calls));
    // R1: 10,000 together reach the second tier: 9,000 x 0.009.
    assert_eq!(statement.due, yuan("81"));
    let listed: Vec<(&str, u64)> = group
        .calls
        .iter()
        .map(|calls| (calls.action.as_str(), calls.calls))
        .collect();
    let expected = [
        ("SegmentCustomizedPortraitPic", 4_000),
        ("SegmentPortraitPic", 6_000),
    ];
    assert_eq!(listed, expected);
    assert!(said(
        &group,
        "R1: SegmentCustomizedPortraitPic 4000 + SegmentPortraitPic 6000 = 10000 calls in per-call mode"
    ));
}

#[test]
fn calls_that_are_not_billable_are_listed_by_reason_and_count_for_nothing() {
    let not = |reason, calls| Calls {
        reason,
        ..per_call(calls)
    };
    let group = portrait(terms(TierBasis::AllCalls), vec![]);
    let calls = [
        (MID, per_call(9_999)),
        (MID, not(Reason::ServerError, 5)),
        (MID, not(Reason::Vetoed, 7)),
        (MID, not(Reason::NotServed, 3)),
        (MID, not(Reason::UpstreamFailed, 11)),
        ("2026-11-16T00:00:00+08:00", not(Reason::Vetoed, 1)),
    ];
    let (statement, group) = of_one(called(group, &calls));
    // One more billable call would reach the second tier.
    assert_eq!(statement.due, yuan("89.99"));
    let listed: Vec<(Reason, u64)> = group
        .not_billable
        .iter()
        .map(|calls| (calls.reason, calls.calls))
        .collect();
    let expected = [
        (Reason::UpstreamFailed, 11),
        (Reason::ServerError, 5),
        (Reason::NotServed, 3),
        (Reason::Vetoed, 8),
    ];
    assert_eq!(listed, expected);
    let computed = group.computed.join("\n");
    assert!(
        computed.contains("R8: 27 admitted calls are not billable"),
        "{computed}"
    );
    assert!(
        computed.contains("R8: 3 of them were answered with a status of 408"),
        "{computed}"
    );
}

#[test]
fn a_free_group_costs_nothing_and_its_calls_are_listed() {
    let of = |mode, reason| Calls {
        action: action("CreateSegmentationTask"),
        mode,
        reason,
        calls: 1_000_000,
    };
    let calls = [
        (MID, of(Mode::Free, Reason::Free)),
        (MID, of(Mode::Free, Reason::GateFailed)),
        (MID, of(Mode::PerCall, Reason::Billable)), // of the time before it became free
    ];
    let (statement, group) = of_one(called(video(), &calls));
    assert_eq!(statement.due, Decimal::ZERO);
    assert!(group.per_call.is_none() && group.lines.is_empty());
    assert_eq!(group.calls.len(), 2);
    assert_eq!(group.not_billable[0].reason, Reason::GateFailed);
    assert!(said(
        &group,
        "R2: CreateSegmentationTask 1000000 calls in a free group: they cost nothing"
    ));
}

#[test]
fn late_calls_come_first_as_calls_of_the_months_first_instant() {
    let old = packs(
        "old",
        100,
        1,
        "2025-11-02T00:00:00+08:00",
        "2026-11-02T00:00:00+08:00",
    );
    let new = packs(
        "new",
        100,
        1,
        "2026-11-01T00:00:00.000001+08:00",
        "2026-11-01T18:00:00+08:00",
    );
    let mut group = portrait(terms(TierBasis::AllCalls), vec![old, new]);
    group.late = vec![
        per_call(9_500),
        qps(3),
        Calls {
            reason: Reason::Vetoed,
            ..per_call(2)
        },
    ];
    let (statement, group) = of_one(called(group, &[(MID, per_call(500))]));
    // 1,000 free and 100 by `old`, which ends on the 2nd; `new` is not there yet: 8,900 x 0.009.
    assert_eq!(used(&group), [(100, 0), (0, 100)]);
    assert_eq!(statement.due, yuan("80.1"));
    assert_eq!(group.late, 9_505);
    assert_eq!(group.qps_calls, 3);
    assert!(said(
        &group,
        "R16: 9505 calls of earlier months came after their statements were fixed; they are counted here, as calls of 2026-11-01T00:00:00+08:00"
    ));
}

#[test]
fn a_running_month_shows_packs_as_they_are_now() {
    let now = "2026-11-10T12:00:00+08:00";
    let ends = |order, expires| packs(order, 10_000, 1, "2026-01-01T00:00:00+08:00", expires);
    let packs = vec![
        ends("over", now),
        ends("ends-later", "2026-11-10T12:00:01+08:00"),
        packs("tomorrow", 10_000, 1, "2026-11-11T12:00:00+08:00", MID),
        packs("now", 10_000, 1, now, MID),
        PackOrder {
            used_before: 10_000,
            ..ends("used-up", "2026-11-05T00:00:00+08:00")
        },
        PackOrder {
            refunded: Some(at("2026-11-12T00:00:00+08:00")),
            ..ends("will-be-paid-back", "2027-01-01T00:00:00+08:00")
        },
    ];
    let group = portrait(terms(TierBasis::AllCalls), packs);
    let statement = statement(&Inputs {
        counted_until: at(now),
        ..inputs(vec![group])
    });
    let states: Vec<PackState> = statement.groups[0]
        .per_call
        .iter()
        .flat_map(|use_| use_.packs.iter().map(|pack| pack.state))
        .collect();
    use PackState::{Exhausted, Expired, NotYet, Valid};
    assert_eq!(states, [Expired, Valid, NotYet, Valid, Exhausted, Valid]);
    assert_eq!(statement.counted_until.to_string(), now);
}

#[test]
fn the_boundaries_are_the_instants_inside_at_which_a_pack_begins_or_ends() {
    let (from, until) = november();
    let of = |delivered: &str, expires: &str| packs("P", 10_000, 1, delivered, expires);
    let (a, b) = ("2026-11-05T10:00:00.000001+08:00", MID);
    let (month, next) = ("2026-11-01T00:00:00+08:00", "2026-12-01T00:00:00+08:00");
    let mut refunded = of(month, next);
    refunded.refunded = Some(at("2026-11-07T00:00:00+08:00"));
    let mut refunded_after_its_end = of(month, b);
    refunded_after_its_end.refunded = Some(at("2026-11-17T00:00:00+08:00"));
    let all = [
        of(b, a),
        of(a, b),
        of(month, next),
        of("2026-10-01T00:00:00+08:00", "2027-10-01T00:00:00+08:00"),
        refunded,
        refunded_after_its_end,
    ];
    let expected = [at(a), at("2026-11-07T00:00:00+08:00"), at(b)];
    assert_eq!(boundaries(&all, from, until), expected);
    assert!(boundaries(&[], from, until).is_empty());
}

#[test]
fn what_is_left_of_the_pack_in_use_is_told_by_its_own_size() {
    for (count, used, left) in [
        (1, 0, 10_000),
        (1, 8_500, 1_500),
        (1, 10_000, 0),
        (3, 9_999, 1),
        (3, 10_000, 10_000), // the second is in use
        (3, 18_501, 1_499),
        (3, 29_999, 1),
        (3, 30_000, 0),
        (3, 99_999, 0),
    ] {
        let (got, size) = pack_in_use(10_000, count, used);
        assert_eq!((got, size), (left, 10_000), "{used} of {count}");
    }
}

#[test]
fn a_pack_with_under_fifteen_percent_left_raises_a_notice_and_an_exhausted_one_another() {
    let account = AccountId::new("1250000001").unwrap();
    let raised = |count, used| -> Vec<String> {
        notices(&account, "P-1", 10_000, count, used, yuan("0.15"))
            .into_iter()
            .map(|notice| format!("{} {}", notice.id, notice.left))
            .collect()
    };
    let (low, out) = ("1250000001/P-1/1/low", "1250000001/P-1/1/exhausted");
    assert!(raised(1, 0).is_empty());
    assert!(raised(1, 8_500).is_empty(), "1,500 of 10,000 are left");
    assert_eq!(raised(1, 8_501), [format!("{low} 1499")]);
    assert_eq!(raised(1, 9_999), [format!("{low} 1")]);
    let both = [format!("{low} 0"), format!("{out} 0")];
    assert_eq!(raised(1, 10_000), both);
    // Of three packs the second is measured by its own 10,000 as well, not by the order's 30,000.
    assert_eq!(raised(3, 10_000), both);
    assert_eq!(raised(3, 18_500), both);
    assert_eq!(raised(3, 18_501)[2], "1250000001/P-1/2/low 1499");
    assert_eq!(raised(3, 18_501).len(), 3);
    assert_eq!(raised(3, 30_000).len(), 6);
    assert_eq!(raised(3, 30_000)[5], "1250000001/P-1/3/exhausted 0");
}

#[test]
fn a_purchase_of_quota_is_priced_whole_at_the_step_of_its_own_size() {
    let ladder = [
        (1, yuan("880"), yuan("48")),
        (10, yuan("780"), yuan("40")),
        (50, yuan("700"), yuan("35")),
        (100, yuan("630"), yuan("30")),
    ];
    use crate::model::Period::{Days, Months};
    for (qps, period, amount) in [
        (1, Months(1), "880"),
        (9, Months(1), "7920"),
        (10, Months(1), "7800"),
        (49, Months(1), "38220"),
        (50, Months(1), "35000"),
        (99, Months(1), "69300"),
        (100, Months(1), "63000"),
        (10, Months(3), "23400"),
        (9, Days(1), "432"),
        (10, Days(1), "400"),
        (49, Days(1), "1960"),
        (50, Days(1), "1750"),
        (99, Days(1), "3465"),
        (100, Days(1), "3000"),
        (9, Days(5), "2160"),
        (1_000_000, Months(120), "75600000000"),
    ] {
        let quote = qps_price(&ladder, qps, period).unwrap();
        assert_eq!(quote.amount, yuan(amount), "{qps} QPS for {period}");
    }
    let quote = qps_price(&ladder, 10, Months(2)).unwrap();
    assert_eq!(
        quote.how,
        "R15: 10 QPS x 2 months x 780.00, the price from 10 and below 50 QPS, = 15600.00"
    );
    assert_eq!(quote.unit_price, yuan("780"));
    assert_eq!(qps_price(&ladder, 0, Days(1)), Err(NotSold::Quota(0)));
    assert_eq!(qps_price(&[], 5, Days(1)), Err(NotSold::Quota(5)));
    assert_eq!(qps_price(&ladder, 5, Days(0)), Err(NotSold::Nothing));
    let dearest = [(1, Decimal::MAX, Decimal::MAX)];
    assert_eq!(qps_price(&dearest, 2, Days(1)), Err(NotSold::TooLarge));
}

#[test]
fn a_pack_has_the_price_of_its_size_however_many_are_ordered() {
    let sold = [
        (10_000, yuan("88")),
        (100_000, yuan("860")),
        (1_000_000, yuan("7300")),
        (10_000_000, yuan("63000")),
    ];
    for (calls, count, amount) in [
        (10_000, 1, "88"),
        (10_000, 10, "880"), // not the price of 100,000
        (100_000, 1, "860"),
        (1_000_000, 3, "21900"),
        (10_000_000, 1, "63000"),
    ] {
        let quote = pack_price(&sold, calls, count).unwrap();
        assert_eq!(quote.amount, yuan(amount), "{count} x {calls}");
        assert_eq!(quote.goods, Goods::Packs { calls, count });
    }
    let none = pack_price(&sold, 20_000, 1).unwrap_err();
    assert_eq!(
        none.to_string(),
        "no pack of 20000 calls is sold: the catalogue has 10000, 100000, 1000000, 10000000"
    );
    assert_eq!(pack_price(&sold, 10_000, 0), Err(NotSold::Nothing));
}

#[test]
fn the_balance_is_what_was_paid_in_by_now_less_what_was_debited() {
    let payments = [
        (at("2026-11-01T00:00:00+08:00"), yuan("500")),
        (at("2026-11-20T00:00:00+08:00"), yuan("0.01")),
        (at("2026-12-01T00:00:00+08:00"), yuan("20")),
    ];
    let on = |now: &str, debited: &str| balance(payments, yuan(debited), at(now));
    assert_eq!(on("2026-10-31T23:59:59+08:00", "0"), yuan("0"));
    assert_eq!(on("2026-11-01T00:00:00+08:00", "0"), yuan("500"));
    assert_eq!(on("2026-11-30T23:59:59+08:00", "520"), yuan("-19.99"));
    let back = on("2026-12-01T00:00:00+08:00", "520.01");
    assert!(back.is_zero(), "zero is enough (R17)");
}

/// A day's refund: of `order`, with what else may stand in the way.
fn asked(order: &PackOrder, now: &str) -> Refund {
    let (standing, rule) = (Standing::default(), RefundRule::default());
    refund(order, 0, standing, rule, &shanghai(), at(now))
}

fn why_not(refund: Refund) -> NotRefundable {
    match refund {
        Refund::No { reason } => reason,
        Refund::Yes { .. } => panic!("{refund:?}"),
    }
}

#[test]
fn an_unused_order_is_paid_back_until_the_seventh_day_after_its_delivery_ends() {
    let until = |text| Refund::Yes {
        back: vec![(Fund::Cash, yuan("88"))],
        total: yuan("88"),
        until: at(text),
        days: 7,
    };
    for (delivered, last, too_late) in [
        // The day of delivery is not counted, the 7th after counts to its end, in Shanghai.
        (
            "2026-11-02T10:00:00+08:00",
            "2026-11-09T23:59:59.999999+08:00",
            "2026-11-10T00:00:00+08:00",
        ),
        (
            "2026-11-02T00:00:00+08:00",
            "2026-11-09T23:59:59.999999+08:00",
            "2026-11-10T00:00:00+08:00",
        ),
        (
            "2026-11-02T23:59:59+08:00",
            "2026-11-09T23:59:59.999999+08:00",
            "2026-11-10T00:00:00+08:00",
        ),
        // UTC still has the day before.
        (
            "2026-11-01T17:00:00Z",
            "2026-11-09T15:59:59.999999Z",
            "2026-11-09T16:00:00Z",
        ),
        // Over a leap day and over a year's end.
        (
            "2028-02-29T10:00:00+08:00",
            "2028-03-07T23:59:59+08:00",
            "2028-03-08T00:00:00+08:00",
        ),
        (
            "2027-02-22T10:00:00+08:00",
            "2027-03-01T23:59:59+08:00",
            "2027-03-02T00:00:00+08:00",
        ),
        (
            "2026-12-28T10:00:00+08:00",
            "2027-01-04T23:59:59+08:00",
            "2027-01-05T00:00:00+08:00",
        ),
    ] {
        let order = PackOrder {
            delivered: at(delivered),
            ..pack("P-1")
        };
        assert_eq!(asked(&order, delivered), until(too_late), "at once");
        assert_eq!(asked(&order, last), until(too_late), "the last second");
        let late = NotRefundable::TooLate {
            until: at(too_late),
            days: 7,
        };
        assert_eq!(why_not(asked(&order, too_late)), late, "{delivered}");
    }
}

#[test]
fn what_stands_in_the_way_of_a_refund_is_named_with_its_rule() {
    let order = PackOrder {
        delivered: at("2026-11-02T10:00:00+08:00"),
        ..pack("P-1")
    };
    let now = at("2026-11-05T10:00:00+08:00");
    let zone = shanghai();
    let ask = |order: &PackOrder, used, standing, violation, refundable: bool| {
        let standing = Standing {
            stopped: standing,
            violation,
        };
        let rule = RefundRule {
            excluded: !refundable,
            ..RefundRule::default()
        };
        refund(order, used, standing, rule, &zone, now)
    };
    let no = |refund| why_not(refund).to_string();

    let used = ask(&order, 1, None, false, true);
    assert_eq!(
        no(used),
        "R18: 1 calls of the order are used, and only an unused one is paid back"
    );
    let arrears = ask(&order, 0, Some(Stop::Arrears), false, true);
    assert_eq!(
        no(arrears),
        "R18: nothing is paid back while the service is stopped (arrears)"
    );
    let stopped = ask(&order, 0, Some(Stop::Violation), false, true);
    assert_eq!(why_not(stopped), NotRefundable::Stopped(Stop::Violation));
    let elsewhere = ask(&order, 0, None, true, true);
    assert_eq!(why_not(elsewhere), NotRefundable::Violation);

    let again = PackOrder {
        refunded: Some(at("2026-11-04T10:00:00+08:00")),
        ..order.clone()
    };
    assert_eq!(
        why_not(ask(&again, 0, None, false, true)),
        NotRefundable::Refunded
    );
    let gift = PackOrder {
        origin: Origin::Gift,
        ..order.clone()
    };
    assert_eq!(
        why_not(ask(&gift, 0, None, false, true)),
        NotRefundable::NotBought
    );
    let promotion = |paid| PackOrder {
        origin: Origin::Promotion,
        paid,
        ..order.clone()
    };
    // A promotion's gift was not bought; what was bought on a promotion follows the promotion's own
    // rule where it differs, else the usual one.
    let given = ask(&promotion(vec![]), 0, None, false, true);
    assert_eq!(why_not(given), NotRefundable::NotBought);
    let bought = promotion(vec![(Fund::Cash, yuan("44"))]);
    assert!(matches!(
        ask(&bought, 0, None, false, true),
        Refund::Yes { total, .. } if total == yuan("44")
    ));
    let excluded = ask(&bought, 0, None, false, false);
    assert_eq!(why_not(excluded), NotRefundable::PromotionRule);
}

#[test]
fn an_order_has_its_own_days_of_refund_and_the_provider_may_refuse_it_with_a_reason() {
    let order = PackOrder {
        delivered: at("2026-11-02T10:00:00+08:00"),
        ..pack("P-1")
    };
    let ask = |rule, used, now: &str| {
        refund(
            &order,
            used,
            Standing::default(),
            rule,
            &shanghai(),
            at(now),
        )
    };
    let month = RefundRule {
        days: Some(30),
        ..RefundRule::default()
    };
    // More generous, and stricter, than the contract; each day counts to its end.
    assert!(matches!(
        ask(month, 0, "2026-12-02T23:59:59+08:00"),
        Refund::Yes { days: 30, until, .. } if until == at("2026-12-03T00:00:00+08:00")
    ));
    assert_eq!(
        why_not(ask(month, 0, "2026-12-03T00:00:00+08:00")).to_string(),
        "R18: the order could be paid back within 30 days of its delivery; they are over"
    );
    let day = RefundRule {
        days: Some(1),
        ..RefundRule::default()
    };
    let next = why_not(ask(day, 0, "2026-11-04T00:00:00+08:00"));
    assert!(matches!(next, NotRefundable::TooLate { days: 1, .. }));
    let refused = RefundRule {
        refused: Some(("ordered and returned five times", "Li Wei")),
        ..RefundRule::default()
    };
    let why = why_not(ask(refused, 0, "2026-11-03T00:00:00+08:00"));
    assert_eq!(
        (why.as_str(), &*why.to_string()),
        (
            "refused",
            "R18: the provider has refused it (Li Wei): ordered and returned five times"
        )
    );
    assert_eq!(
        why_not(ask(month, 1, "2026-11-03T00:00:00+08:00")).as_str(),
        "used"
    );
}

#[test]
fn an_order_that_was_not_paid_by_the_price_list_is_told_unless_it_says_why() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tollgate.yaml");
    let mut config = crate::config::load(path.as_ref()).unwrap();
    let catalog = config.catalog;
    for account in &config.accounts {
        assert!(off_the_list(&catalog, account).is_empty(), "{}", account.id);
    }
    let packs = &mut config.accounts[0].services[0].packs;
    packs[0].count = 2;
    let told = off_the_list(&catalog, &config.accounts[0]);
    assert_eq!(told.len(), 1);
    let begin = "1250000001 portrait-segmentation: order P-1 was paid with 88.00, and by the price list it costs 176.00:";
    assert!(told[0].starts_with(begin), "{}", told[0]);
    let pack = &mut config.accounts[0].services[0].packs[0];
    pack.discount = Some("two for one".into());
    assert!(off_the_list(&catalog, &config.accounts[0]).is_empty());
    // A gift is not bought.
    let pack = &mut config.accounts[0].services[0].packs[0];
    (pack.discount, pack.origin) = (None, Origin::Gift);
    assert!(off_the_list(&catalog, &config.accounts[0]).is_empty());
    let purchase = &mut config.accounts[1].services[0].qps_purchases[1];
    purchase.qps = 60;
    let told = off_the_list(&catalog, &config.accounts[1]);
    assert!(
        told[0].contains("order Q-2 was paid with 936000.00"),
        "{told:?}"
    );
    assert!(told[0].contains("costs 2520000.00"), "{told:?}");
}

#[test]
fn a_debt_within_the_credit_limit_or_that_the_next_statement_takes_back_stops_nobody() {
    for (balance, credits, limit, stops) in [
        ("-0.01", "0", "0", true),
        ("0", "0", "0", false),
        ("-250", "0", "250", false),
        ("-250.01", "0", "250", true),
        ("-250.01", "0.01", "250", false),
        ("-10", "9.99", "0", true),
        ("-10", "10", "0", false),
    ] {
        let found = in_arrears(yuan(balance), yuan(credits), yuan(limit));
        assert_eq!(found, stops, "{balance} with {credits} and {limit}");
    }
}

/// R16's own example: 10,000 x 0.009 becomes 9,999 x 0.01.
#[test]
fn a_late_pack_can_raise_a_bill_where_the_post_paid_calls_decide_the_tier() {
    let from = november().0;
    let group = called(
        portrait(terms(TierBasis::PostpaidCalls), Vec::new()),
        &[("2026-11-02T00:00:00+08:00", per_call(11_000))],
    );
    let fixed = statement(&inputs(vec![group.clone()])).due;
    assert_eq!(fixed, yuan("90"));
    let november = MonthAgain {
        month: "2026-11".into(),
        from,
        until: self::november().1,
        terms: terms(TierBasis::PostpaidCalls),
        packs: Vec::new(),
        intervals: group.intervals,
        late: Vec::new(),
        fixed,
        adjusted: Decimal::ZERO,
    };
    let one = PackOrder {
        calls: 1,
        ..pack("P-2")
    };
    let months = crate::billing::late::again(&[november], &[one], &Default::default());
    let mut next = portrait(terms(TierBasis::PostpaidCalls), Vec::new());
    next.late_entries.months = months;
    let charged = statement(&inputs(vec![next.clone()]));
    assert_eq!(charged.due, yuan("9.99"));
    let line = &charged.groups[0].adjustments[0];
    assert_eq!((line.recomputed, line.fixed), (yuan("99.99"), fixed));
    assert_eq!(line.per_call.packs[0].used, 1);
    let (mut shown, mut csv) = (Vec::new(), Vec::new());
    text::table(&mut shown, &charged).unwrap();
    csv::csv(&mut csv, &charged).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let table = shown.lines().skip_while(|line| !line.contains("(R16)"));
    assert_eq!(
        table.take(3).map(words).collect::<Vec<_>>(),
        [
            "adjustments of fixed months (R16)",
            "month computed again fixed adjusted before amount",
            "2026-11 99.99 90.00 0.00 9.99"
        ]
    );
    assert!(shown.contains("R16: 2026-11 is computed again: 9999 post-paid calls x 0.01 = 99.99, less 90.00 fixed, less 0.00 adjusted before = 9.99 CNY"), "{shown}");
    let csv = String::from_utf8(csv).unwrap();
    let row = "2026-11,1250000001,CNY,portrait-segmentation,adjustment,2026-11,,,,9999,,0.01,9.99,,,人像分割,";
    assert!(csv.lines().any(|line| line == row), "{csv}");
    // What earlier statements adjusted is not charged again, and a total may be a credit.
    next.late_entries.months[0].adjusted = yuan("10");
    let credited = statement(&inputs(vec![next]));
    assert_eq!(credited.due, yuan("-0.01"));
}

#[test]
fn a_statement_shows_the_balance_before_and_after_with_what_people_changed_and_its_total_without() {
    let mut of = inputs(vec![called(
        portrait(terms(TierBasis::AllCalls), Vec::new()),
        &[("2026-11-02T00:00:00+08:00", per_call(1_100))],
    )]);
    of.balance = Some(BalanceInputs {
        before: yuan("-3"),
        payments: vec![PaymentInput {
            order: "T-1".into(),
            at: at("2026-11-05T00:00:00+08:00"),
            amount: yuan("20"),
        }],
        adjustments: vec![ManualAdjustment {
            id: "A-1".into(),
            at: at("2026-11-06T00:00:00+08:00"),
            amount: yuan("-12.5"),
            reason: "counted twice".into(),
            by: "Li Wei".into(),
        }],
    });
    let statement = statement(&of);
    let balance = statement.balance.clone().unwrap();
    assert_eq!(statement.due, yuan("1"));
    assert_eq!((balance.before, balance.debit), (yuan("-3"), yuan("1")));
    assert_eq!(balance.after, yuan("3.5"));
    assert_eq!(balance.adjustments[0].amount, yuan("-12.50"));
    let mut shown = Vec::new();
    text::table(&mut shown, &statement).unwrap();
    let shown = String::from_utf8(shown).unwrap();
    let lines = shown.lines().skip_while(|line| *line != "  balance");
    assert_eq!(
        lines.skip(1).take(6).collect::<Vec<_>>(),
        [
            "    what        id   at                         amount  by and why",
            "    before                                       -3.00",
            "    payment     T-1  2026-11-05T00:00:00+08:00   20.00",
            "    adjustment  A-1  2026-11-06T00:00:00+08:00  -12.50  Li Wei: counted twice",
            "    debit                                        -1.00",
            "    after                                         3.50",
        ]
    );
}

#[test]
fn cash_income_and_gift_balance_are_paid_back_and_deductions_and_vouchers_are_not() {
    let paid = |funds: &[(Fund, &str)]| PackOrder {
        delivered: at("2026-11-02T10:00:00+08:00"),
        paid: funds
            .iter()
            .map(|(fund, amount)| (*fund, yuan(amount)))
            .collect(),
        ..pack("P-1")
    };
    let all = paid(&[
        (Fund::Cash, "50"),
        (Fund::Income, "12.34"),
        (Fund::Gift, "5.66"),
        (Fund::Deduction, "10"),
        (Fund::Voucher, "10"),
    ]);
    let now = "2026-11-05T10:00:00+08:00";
    let until = at("2026-11-10T00:00:00+08:00");
    let back = vec![
        (Fund::Cash, yuan("50")),
        (Fund::Income, yuan("12.34")),
        (Fund::Gift, yuan("5.66")),
    ];
    let total = yuan("68");
    let days = 7;
    let yes = Refund::Yes {
        back,
        total,
        until,
        days,
    };
    assert_eq!(asked(&all, now), yes);
    // Refundable, though nothing comes back of it.
    let voucher = paid(&[(Fund::Voucher, "88")]);
    let nothing = Refund::Yes {
        back: vec![],
        total: Decimal::ZERO,
        until,
        days,
    };
    assert_eq!(asked(&voucher, now), nothing);
}

/// A month with something of everything.
fn rich() -> Statement {
    let mut group = portrait(
        terms(TierBasis::AllCalls),
        vec![
            PackOrder {
                count: 2,
                used_before: 18_000,
                ..pack("P-1")
            },
            PackOrder {
                delivered: at("2026-11-02T10:00:00+08:00"),
                expires: at("2027-11-02T10:00:00+08:00"),
                refunded: Some(at("2026-11-03T10:00:00+08:00")),
                paid: vec![(Fund::Cash, yuan("80")), (Fund::Voucher, yuan("8"))],
                ..pack("P-2")
            },
        ],
    );
    group.purchases = vec![QpsOrder {
        order: "Q-1".into(),
        qps: 10,
        from: at("2026-11-10T00:00:00+08:00"),
        until: at("2026-12-10T00:00:00+08:00"),
        paid: vec![(Fund::Cash, yuan("7800"))],
    }];
    group.late = vec![per_call(12)];
    let calls = [
        (MID, per_call(98_987)),
        (MID, qps(500)),
        (
            MID,
            Calls {
                action: action("SegmentCustomizedPortraitPic"),
                ..per_call(1_000)
            },
        ),
        (
            MID,
            Calls {
                reason: Reason::Vetoed,
                ..per_call(3)
            },
        ),
    ];
    let free = Calls {
        action: action("CreateSegmentationTask"),
        mode: Mode::Free,
        reason: Reason::Free,
        calls: 7,
    };
    let groups = vec![called(group, &calls), called(video(), &[(MID, free)])];
    Statement {
        fixed: Some(Fixed {
            at: Local::new(at("2026-12-01T01:00:03+08:00"), &shanghai()),
            through_seq: 123_456,
            head: "00ff".into(),
        }),
        ..statement(&inputs(groups))
    }
}

#[test]
fn a_statement_is_a_table_that_people_can_read_and_add_up() {
    let mut out = Vec::new();
    text::table(&mut out, &rich()).unwrap();
    // 99,999 calls - 1,000 free - 2,000 by P-1 = 96,999 x 0.009 = 872.991.
    let expected = "\
statement of 2026-11 for 1250000001 (Example Studio)
from 2026-11-01T00:00:00+08:00 until 2026-12-01T00:00:00+08:00 (Asia/Shanghai), amounts in CNY
fixed at 2026-12-01T01:00:03+08:00 on the records up to 123456, chain head 00ff

portrait-segmentation 人像分割
  calls
    action                        mode      billable  calls
    SegmentCustomizedPortraitPic  per_call  yes        1000
    SegmentPortraitPic            per_call  yes       98999
    SegmentPortraitPic            qps       yes         500
    SegmentPortraitPic            per_call  vetoed        3
  billable calls in per-call mode
    covered by      calls  used before   used   left  from                       until                      state
    free pack        1000                1000      0
    P-1         2 x 10000        18000   2000      0  2026-10-02T10:00:00+08:00  2027-10-02T10:00:00+08:00  exhausted
    P-2         1 x 10000            0      0  10000  2026-11-02T10:00:00+08:00  2027-11-02T10:00:00+08:00  refunded
    post-paid                           96999
  due at settlement
    what                              calls  unit price  amount
    post-paid calls, tier from 10000  96999       0.009  872.99
  paid when ordered
    order  what                                      at                         funds                      amount
    P-2    1 pack of 10000 calls, bought             2026-11-02T10:00:00+08:00  cash 80.00, voucher 8.00    88.00
    P-2    paid back: 1 pack of 10000 calls, bought  2026-11-03T10:00:00+08:00  cash -80.00                -80.00
    Q-1    10 QPS until 2026-12-10T00:00:00+08:00    2026-11-10T00:00:00+08:00  cash 7800.00              7800.00
  how it was computed
    R16: 12 calls of earlier months came after their statements were fixed; they are counted here, as calls of 2026-11-01T00:00:00+08:00
    R8: 3 admitted calls are not billable: they cost nothing and count for nothing
    R5: SegmentPortraitPic 500 calls in qps mode: inside the quota that was paid for, they cost nothing and decide no tier
    R1: SegmentCustomizedPortraitPic 1000 + SegmentPortraitPic 98999 = 99999 calls in per-call mode
    R10: the free pack of 1000 calls: 1000 used, 0 left
    R12: order P-1 of 2 x 10000 calls, from 2026-10-02T10:00:00+08:00 until 2027-10-02T10:00:00+08:00: 18000 used before, 2000 used, 0 left
    R12: order P-2 of 1 x 10000 calls, from 2026-11-02T10:00:00+08:00 until 2026-11-03T10:00:00+08:00: 0 used before, 0 used, 10000 left, paid back
    R12: 99999 - 1000 free - 2000 by P-1 = 96999 post-paid calls
    R13: the tier is decided by all billable calls in per-call mode (all_calls): 99999 reach the tier from 10000, 0.009 CNY a call
    R13: 96999 x 0.009 = 872.991, rounded half up to 872.99 CNY

video-segmentation 视频人像分割
  calls
    action                  mode  billable  calls
    CreateSegmentationTask  free  free          7
  how it was computed
    R2: CreateSegmentationTask 7 calls in a free group: they cost nothing

due at settlement   872.99 CNY
paid when ordered  7808.00 CNY
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_statement_of_a_running_month_says_until_when_it_counts() {
    let now = at("2026-11-10T12:00:00+08:00");
    let running = statement(&Inputs {
        counted_until: now,
        ..inputs(vec![])
    });
    let mut out = Vec::new();
    text::table(&mut out, &running).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\nnot fixed yet: calls until 2026-11-10T12:00:00+08:00\n"));
    assert!(text.ends_with("\ndue at settlement  0.00 CNY\npaid when ordered  0.00 CNY\n"));
}

#[test]
fn calls_that_are_on_no_statement_stand_on_it_and_cost_nothing() {
    let none = statement(&inputs(vec![]));
    let some = statement(&Inputs {
        on_no_statement: 17,
        ..inputs(vec![])
    });
    assert_eq!(some.due, none.due);
    let said = |statement: &Statement| {
        let (mut table, mut csv) = (Vec::new(), Vec::new());
        text::table(&mut table, statement).unwrap();
        csv::csv(&mut csv, statement).unwrap();
        let json = serde_json::to_string(statement).unwrap();
        [table, csv, json.into_bytes()].map(|text| String::from_utf8(text).unwrap())
    };
    let [table, csv, json] = said(&some);
    assert!(table.contains("\n17 calls are on no statement"), "{table}");
    assert!(csv.contains(",,on_no_statement,,,,,17,"), "{csv}");
    assert!(json.contains(r#""on_no_statement":17"#), "{json}");
    // What was stored before there were any reads as it did.
    assert!(
        said(&none)
            .iter()
            .all(|text| !text.contains("no_statement"))
    );
    let read: Statement = serde_json::from_str(&said(&none)[2]).unwrap();
    assert_eq!(read, none);
}

#[test]
fn a_statement_is_a_row_a_figure_in_csv_and_its_columns_stay() {
    let mut out = Vec::new();
    csv::csv(&mut out, &rich()).unwrap();
    let expected = "\
month,account,currency,group,row,name,mode,reason,state,calls,left,unit_price,amount,from,until,title,title_en
2026-11,1250000001,CNY,portrait-segmentation,calls,SegmentCustomizedPortraitPic,per_call,,,1000,,,,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,calls,SegmentPortraitPic,per_call,,,98999,,,,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,calls,SegmentPortraitPic,qps,,,500,,,,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,not_billable,SegmentPortraitPic,per_call,vetoed,,3,,,,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,free_pack,,,,,1000,0,,,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,pack,P-1,,,exhausted,2000,0,,,2026-10-02T10:00:00+08:00,2027-10-02T10:00:00+08:00,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,pack,P-2,,,refunded,0,10000,,,2026-11-02T10:00:00+08:00,2027-11-02T10:00:00+08:00,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,due,\"post-paid calls, tier from 10000\",,,,96999,,0.009,872.99,,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,paid,P-2,,,,,,,88.00,2026-11-02T10:00:00+08:00,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,paid_back,P-2,,,,,,,-80.00,2026-11-03T10:00:00+08:00,,人像分割,
2026-11,1250000001,CNY,portrait-segmentation,paid,Q-1,,,,,,,7800.00,2026-11-10T00:00:00+08:00,,人像分割,
2026-11,1250000001,CNY,video-segmentation,calls,CreateSegmentationTask,free,,,7,,,,,,视频人像分割,
2026-11,1250000001,CNY,,total_due,,,,,,,,872.99,,,,
2026-11,1250000001,CNY,,total_paid,,,,,,,,7808.00,,,,
";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_statement_and_its_inputs_come_back_whole_from_json_with_amounts_as_text() {
    let statement = rich();
    let json = serde_json::to_string(&statement).unwrap();
    assert!(json.contains(r#""unit_price":"0.009""#), "{json}");
    assert!(json.contains(r#""due":"872.99""#));
    assert!(json.contains(r#""funds":{"cash":"80.00","voucher":"8.00"}"#));
    assert!(json.contains(r#""from":"2026-11-01T00:00:00+08:00""#));
    assert!(json.contains(r#""state":"refunded""#));
    let back: Statement = serde_json::from_str(&json).unwrap();
    assert_eq!(back, statement);

    let inputs = inputs(vec![called(
        portrait(terms(TierBasis::AllCalls), vec![pack("P-1")]),
        &[(MID, per_call(20_000))],
    )]);
    let json = serde_json::to_string(&inputs).unwrap();
    let again: Inputs = serde_json::from_str(&json).unwrap();
    assert_eq!(again, inputs);
    assert_eq!(
        crate::billing::statement(&again),
        crate::billing::statement(&inputs)
    );
}

#[test]
fn inputs_beyond_all_bounds_give_a_statement_and_no_panic() {
    let most = Calls {
        calls: u64::MAX,
        ..per_call(0)
    };
    let endless = PackOrder {
        calls: u64::MAX,
        count: u32::MAX,
        used_before: u64::MAX,
        delivered: Utc(i64::MIN),
        expires: Utc(i64::MAX),
        paid: vec![(Fund::Cash, Decimal::MAX), (Fund::Cash, Decimal::MAX)],
        ..pack("P-1")
    };
    let mut terms = terms(TierBasis::AllCalls);
    terms.tiers = vec![(0, Decimal::MAX)];
    let mut group = called(
        portrait(terms.clone(), vec![endless.clone()]),
        &[(MID, most.clone())],
    );
    group.late = vec![most.clone(), qps(u64::MAX), qps(u64::MAX)];
    let mut no_tiers = group.clone();
    no_tiers.terms = Some(PriceTerms {
        tiers: vec![],
        ..terms
    });
    let inputs = Inputs {
        time_zone: "Nowhere/Land".into(),
        from: Utc(i64::MIN),
        ..inputs(vec![group, no_tiers])
    };
    let statement = crate::billing::statement(&inputs);
    text::table(&mut Vec::new(), &statement).unwrap();
    csv::csv(&mut Vec::new(), &statement).unwrap();
    let _ = asked(&endless, MID);
    assert_eq!(pack_in_use(0, 0, 5), (0, 0));
    let account = AccountId::new("a").unwrap();
    assert!(notices(&account, "P", 0, u32::MAX, 5, Decimal::MAX).is_empty());
}

#[test]
fn an_order_whose_refund_is_refused_for_its_use_is_not_said_to_be_paid_back() {
    let mut order = pack("P-1");
    order.refunded = Some(at("2026-11-03T10:00:00+08:00"));
    let (standing, rule) = (Standing::default(), RefundRule::default());
    let now = at("2026-11-04T10:00:00+08:00");
    let of = |used| why_not(refund(&order, used, standing, rule, &shanghai(), now));
    assert_eq!(of(7), NotRefundable::Used { used: 7 });
    assert_eq!(of(0), NotRefundable::Refunded);
    // What is entered for an instant to come was not done yet.
    let before = at("2026-11-02T10:00:00+08:00");
    let ahead = refund(&order, 0, standing, rule, &shanghai(), before);
    assert_eq!(why_not(ahead), NotRefundable::RefundAhead);
}

#[test]
fn a_text_that_a_spreadsheet_would_compute_has_an_apostrophe_and_a_number_has_none() {
    let mut order = pack("-2-3");
    order.paid = vec![(Fund::Cash, yuan("88"))];
    order.refunded = Some(at("2026-11-03T10:00:00+08:00"));
    let of = statement(&inputs(vec![portrait(
        terms(TierBasis::AllCalls),
        vec![order],
    )]));
    let mut out = Vec::new();
    csv::csv(&mut out, &of).unwrap();
    let csv = String::from_utf8(out).unwrap();
    assert!(csv.contains(",pack,'-2-3,"), "{csv}");
    assert!(!csv.contains(",-2-3,") && csv.contains(",-88.00,"), "{csv}");
}

#[test]
fn calls_by_key_stand_on_the_statement_and_none_before_keys_had_ids() {
    let mut group = called(
        portrait(terms(TierBasis::AllCalls), vec![]),
        &[(MID, per_call(7))],
    );
    let before = serde_json::to_string(&inputs(vec![group.clone()])).unwrap();
    assert!(!before.contains("keys"), "as it was stored then");
    let parsed: Inputs = serde_json::from_str(&before).unwrap();
    let statement = crate::billing::statement(&parsed);
    assert!(!serde_json::to_string(&statement).unwrap().contains("keys"));

    let of = |key, calls, billable| KeyCalls {
        key: KeyId::new(key).unwrap(),
        calls,
        billable,
    };
    group.keys = vec![of("", 2, 2), of("main", 5, 4)];
    let statement = crate::billing::statement(&inputs(vec![group]));
    let shown = |write: fn(&mut dyn std::io::Write, &Statement) -> std::io::Result<()>| {
        let mut out = Vec::new();
        write(&mut out, &statement).unwrap();
        String::from_utf8(out).unwrap()
    };
    let table = shown(text::table);
    let rows = "  calls by key\n    key     calls  billable\n    (none)      2         2\n    main        5         4\n";
    assert!(table.contains(rows), "{table}");
    let csv = shown(csv::csv);
    let rows = "2026-11,1250000001,CNY,portrait-segmentation,key,main,,,,5,,,,,,人像分割,\n\
                2026-11,1250000001,CNY,portrait-segmentation,key_billable,main,,,,4,,,,,,人像分割,\n";
    assert!(csv.contains(rows), "{csv}");
}

#[test]
fn a_statement_without_late_entries_and_balance_is_stored_as_earlier_versions_stored_it() {
    let group = called(
        portrait(terms(TierBasis::AllCalls), vec![pack("P-1")]),
        &[("2026-11-02T00:00:00+08:00", per_call(12_000))],
    );
    let of = inputs(vec![group]);
    let stored = (
        serde_json::to_string(&of).unwrap(),
        serde_json::to_string(&statement(&of)).unwrap(),
    );
    for new in ["late_entries", "balance", "adjustments"] {
        assert!(!stored.0.contains(new) && !stored.1.contains(new), "{new}");
    }
    let read: Inputs = serde_json::from_str(&stored.0).unwrap();
    let fixed: Statement = serde_json::from_str(&stored.1).unwrap();
    assert_eq!((&read, statement(&read)), (&of, fixed));
}
