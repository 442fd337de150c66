//! The law of adjustments (R16), against a biller that shares nothing with the one it checks: it
//! knows every order from the start, and takes each call by itself.

use super::*;
use crate::billing::books::{Books, GRACE_US};
use crate::billing::{self, Statement, conflicts, settle_month, verify_statements};
use crate::config::{self, Account, Catalog, Charging, Config, LicenceOrder, QpsPurchase, Tier};
use crate::ledger::{Entry, Ledger, LedgerOptions, Record};
use crate::model::{
    Action, Clock, Durability, KeyId, Local, Mode, Mono, Origin, Outcome, Package, Period, Reason,
    RequestId, TierBasis,
};
use proptest::prelude::*;
use rust_decimal::Decimal;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Duration;

static SHIPPED: LazyLock<Config> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tollgate.yaml");
    config::load(path.as_ref()).unwrap()
});

/// Months that are fixed; one more is fixed at the end.
const MONTHS: usize = 4;
const DAY_US: i64 = 24 * 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;
const FREE: u64 = 3;
/// From so many calls on, thousandths of a yuan each.
const LADDER: [(u64, u64); 3] = [(0, 10), (12, 9), (30, 7)];
const GROUPS: [&str; 2] = ["portrait-segmentation", "second-group"];
const ACCOUNT: &str = "2000000001";

fn month(place: usize) -> Month {
    let base = Month::parse("2026-03").unwrap();
    (0..place).fold(base, |month, _| month.next())
}

fn zone() -> &'static TimeZone {
    &SHIPPED.catalog.time_zone
}

/// The begin of the first month.
fn base() -> i64 {
    month(0).bounds(zone()).0.0
}

fn until(place: usize) -> i64 {
    month(place).bounds(zone()).1.0
}

/// The place of the month in which the instant lies.
fn month_of(at: i64) -> usize {
    (0..MONTHS + 12).find(|place| at < until(*place)).unwrap()
}

fn catalog(tier_basis: TierBasis) -> Catalog {
    let mut catalog = SHIPPED.catalog.clone();
    let group = &mut catalog.groups[0];
    let Charging::Paid { per_call, .. } = &mut group.charging else {
        panic!("the first group is paid");
    };
    per_call.free_calls = FREE;
    per_call.tier_basis = tier_basis;
    let tier = |(from, price): (u64, u64)| Tier {
        from,
        price: Decimal::new(i64::try_from(price).unwrap(), 3),
    };
    per_call.tiers = LADDER.map(tier).into();
    let mut second = group.clone();
    second.id = GroupId::new(GROUPS[1]).unwrap();
    catalog.groups.push(second);
    catalog
}

#[derive(Clone, Debug)]
struct Order {
    group: usize,
    size: u64,
    count: u32,
    delivered: i64,
    expires: i64,
    /// The months that are fixed before it is entered.
    known: usize,
    /// When it is paid back, and the months that are fixed before that is entered.
    refund: Option<(i64, usize)>,
}

#[derive(Clone, Debug)]
struct Call {
    group: usize,
    at: i64,
    mode: Mode,
    /// The months that are fixed before its record comes.
    comes: usize,
}

impl Call {
    /// A late call is one of the first instant of the month that bills it.
    fn billed_at(&self) -> i64 {
        let begin = match self.comes {
            0 => base(),
            place => until(place - 1),
        };
        self.at.max(begin)
    }
}

fn instant() -> impl Strategy<Value = i64> {
    let days = i64::try_from(MONTHS).unwrap() * 30;
    (0..days, prop_oneof![Just(0), Just(90), Just(700)])
        .prop_map(|(day, minutes)| base() + day * DAY_US + minutes * MINUTE_US)
}

fn order() -> impl Strategy<Value = Order> {
    let refund = prop::option::weighted(0.4, (0..40_i64, 0..3_usize));
    (
        0..2_usize,
        (1..10_u64, 1..3_u32),
        instant(),
        2..120_i64,
        0..3_usize,
        refund,
    )
        .prop_map(|(group, (size, count), delivered, days, later, refund)| {
            let known = month_of(delivered) + later;
            let refund = refund.map(|(after, later)| {
                let at = delivered + after * DAY_US / 2;
                (at, known.max(month_of(at)) + later)
            });
            Order {
                group,
                size,
                count,
                delivered,
                expires: delivered + days * DAY_US,
                known,
                refund,
            }
        })
}

fn call() -> impl Strategy<Value = Call> {
    let later = prop_oneof![6 => Just(0), 1 => 1..3_usize];
    let mode = prop_oneof![8 => Just(Mode::PerCall), 1 => Just(Mode::Qps)];
    (0..2_usize, instant(), mode, later, 0..60_i64).prop_map(|(group, at, mode, later, us)| Call {
        group,
        at: at + us,
        mode,
        comes: month_of(at + us) + later,
    })
}

// The other biller.

/// What it found: the sum in fen, the orders whose refund it refuses, and what is used of each.
#[derive(Default, Debug, PartialEq)]
struct Billed {
    fen: u64,
    refused: BTreeSet<usize>,
    used: Vec<u64>,
}

/// Bills the calls of the first months, knowing all that is entered by then. `shown`: what earlier
/// statements showed as used; `settled`: refunds that these accepted.
fn bill(
    orders: &[Order],
    calls: &[Call],
    months: usize,
    tier_basis: TierBasis,
    shown: &[u64],
    settled: &BTreeSet<usize>,
) -> Billed {
    let mut billed = Billed {
        used: vec![0; orders.len()],
        ..Billed::default()
    };
    let known: Vec<usize> = (0..orders.len())
        .filter(|order| orders[*order].known < months)
        .collect();
    // Refunds and calls as they happen; at one instant a refund comes first: an end is excluded.
    let mut happened: Vec<(i64, u8, usize)> = Vec::new();
    for &order in &known {
        if let Some((at, entered)) = orders[order].refund
            && entered < months
            && at < until(months - 1)
        {
            happened.push((at, 0, order));
        }
    }
    for (place, call) in calls.iter().enumerate() {
        if month_of(call.billed_at()) < months && call.comes < months && call.mode == Mode::PerCall
        {
            happened.push((call.billed_at(), 1, place));
        }
    }
    happened.sort_unstable();
    let mut ended: BTreeSet<usize> = BTreeSet::new();
    let mut of_month = vec![[(FREE, 0u64, 0u64); 2]; months];
    for (at, kind, place) in happened {
        if kind == 0 {
            let is_used = billed.used[place] > 0 || shown[place] > 0;
            if is_used && !settled.contains(&place) {
                billed.refused.insert(place);
            } else {
                ended.insert(place);
            }
            continue;
        }
        let group = calls[place].group;
        let (free, billable, postpaid) = &mut of_month[month_of(at)][group];
        *billable += 1;
        if *free > 0 {
            *free -= 1;
            continue;
        }
        let covering = known.iter().copied().filter(|&order| {
            let of = &orders[order];
            let left = of.size * u64::from(of.count) - billed.used[order];
            of.group == group
                && left > 0
                && of.delivered <= at
                && at < of.expires
                && !ended.contains(&order)
        });
        let first = covering.min_by_key(|&order| (orders[order].expires, orders[order].delivered));
        match first {
            Some(order) => billed.used[order] += 1,
            None => *postpaid += 1,
        }
    }
    for (_, billable, postpaid) in of_month.into_iter().flatten() {
        let decides = match tier_basis {
            TierBasis::AllCalls => billable,
            TierBasis::PostpaidCalls => postpaid,
        };
        let reached = LADDER.iter().rfind(|(from, _)| *from <= decides).unwrap();
        // Thousandths to fen, half up.
        billed.fen += (reached.1 * postpaid + 5) / 10;
    }
    billed
}

// The biller in question, with a ledger.

struct World {
    ledger: Ledger,
    catalog: Catalog,
    fixed: usize,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(tier_basis: TierBasis) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            path: dir.path().join("ledger.db"),
            durability: Durability::Relaxed,
            replica: String::new(),
            pending_limit: 100_000,
            stall_after: Duration::from_secs(1 << 40),
            create: true,
        };
        let world = Self {
            ledger: Ledger::open(options, Clock::default(), |_| ()).unwrap(),
            catalog: catalog(tier_basis),
            fixed: 0,
            _dir: dir,
        };
        // So that the first month is the first.
        world.call("somebody", 0, base(), Mode::Free);
        world
    }

    fn call(&self, account: &str, group: usize, at: i64, mode: Mode) {
        let reason = match mode {
            Mode::Free => Reason::Free,
            _ => Reason::Billable,
        };
        drop(self.ledger.reserve().unwrap().commit(Record {
            id: RequestId(uuid::Uuid::now_v7()),
            account: AccountId::new(account).unwrap(),
            key: KeyId::new("k").unwrap(),
            group: GroupId::new(GROUPS[group]).unwrap(),
            action: Action::new(["A", "B"][usize::from(at % 2 == 0)]).unwrap(),
            mode,
            admitted_at: Utc(at),
            start: Mono(1),
            store_start: None,
            outcome: Outcome::Answered,
            status: Some(200),
            reason,
            duration: Duration::ZERO,
        }));
    }

    fn reader(&self) -> Reader {
        Reader::open(self.ledger.path()).unwrap()
    }

    fn books<'b>(&'b self, reader: &'b Reader) -> Books<'b> {
        Books {
            catalog: &self.catalog,
            reader,
            now: Utc(until(self.fixed) + 2 * GRACE_US),
        }
    }

    /// Fixes the next month with the account as the files have it now, and gives its statement.
    fn fix(&mut self, account: &Account) -> Option<Statement> {
        let month = month(self.fixed);
        let seal = self.ledger.seal(&month.last_day().to_string()).unwrap();
        let at = Utc(until(self.fixed) + GRACE_US);
        let keep = |entry| self.ledger.keep(vec![entry]).unwrap();
        keep(Entry::Settlement {
            month: month.to_string(),
            through_seq: seal.last_seq,
            head: seal.head,
            fixed_at: at,
        });
        let reader = self.reader();
        let fixed = billing::Fixed {
            at: Local::new(at, zone()),
            through_seq: seal.last_seq,
            head: hex::encode(seal.head),
        };
        let accounts = std::iter::once(account);
        let books = self.books(&reader);
        settle_month(&self.ledger, &books, accounts, month, &fixed, || Ok(())).unwrap();
        let stored = books.stored(&account.id, month).unwrap();
        self.fixed += 1;
        stored
    }
}

/// The account with the orders that are entered by the time that so many months are fixed.
fn account(orders: &[Order], fixed: usize) -> Account {
    let base = &SHIPPED.accounts[0];
    let mut service = base.services[0].clone();
    service.opened = Utc(0);
    let services = (0..2).map(|group| {
        let mut service = service.clone();
        service.group = GroupId::new(GROUPS[group]).unwrap();
        let packs = orders.iter().enumerate();
        let packs = packs.filter(|(_, order)| order.group == group && order.known <= fixed);
        service.packs = packs
            .map(|(place, order)| pack(place, order, fixed))
            .collect();
        service
    });
    Account {
        id: AccountId::new(ACCOUNT).unwrap(),
        payments: Box::default(),
        services: services.collect(),
        ..base.clone()
    }
}

fn pack(place: usize, order: &Order, fixed: usize) -> Pack {
    let refund = order.refund.filter(|(_, known)| *known <= fixed);
    Pack {
        order: format!("P-{place}").into(),
        calls: order.size,
        count: order.count,
        delivered: Utc(order.delivered),
        expires: Utc(order.expires),
        paid: SHIPPED.accounts[0].services[0].packs[0].paid.clone(),
        origin: Origin::Bought,
        refundable: true,
        refund_days: None,
        refund_refused: None,
        refunded: refund.map(|(at, _)| Utc(at)),
        discount: None,
    }
}

fn fen(amount: Decimal) -> i64 {
    let fen = amount * Decimal::ONE_HUNDRED;
    assert_eq!(fen, fen.trunc(), "{amount} is no whole fen");
    fen.try_into().unwrap()
}

/// A case takes a second of the processor, so few are tried at each change; `make torture` tries
/// hundreds.
fn cases() -> u32 {
    let told = std::env::var("LAW_CASES").ok();
    told.and_then(|cases| cases.parse().ok()).unwrap_or(10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn totals_so_far_are_what_a_biller_charges_who_knew_every_order_from_the_start(
        orders in prop::collection::vec(order(), 0..7),
        calls in prop::collection::vec(call(), 1..150),
        by_postpaid in any::<bool>(),
    ) {
        let tier_basis = match by_postpaid {
            true => TierBasis::PostpaidCalls,
            false => TierBasis::AllCalls,
        };
        // Each begins and ends at an instant of its own, so that there are no ties.
        let mut orders = orders;
        for (place, order) in orders.iter_mut().enumerate() {
            order.delivered += i64::try_from(place).unwrap();
            order.expires += i64::try_from(place).unwrap();
            if let Some((at, _)) = &mut order.refund {
                *at += i64::try_from(place).unwrap();
            }
        }
        let mut world = World::new(tier_basis);
        let mut total = 0;
        let (mut shown, mut settled) = (vec![0; orders.len()], BTreeSet::new());
        let mut paid = Vec::new();
        for place in 0..MONTHS + 2 {
            for call in calls.iter().filter(|call| call.comes == place) {
                world.call(ACCOUNT, call.group, call.at, call.mode);
            }
            let account = account(&orders, place);
            let fixed = world.fix(&account);
            if let Some(fixed) = &fixed {
                let balance = fixed.balance.as_ref().unwrap();
                prop_assert_eq!(fen(balance.before), -total);
                prop_assert_eq!(balance.after, balance.before - fixed.due);
                let lines = fixed.groups.iter().flat_map(|group| &group.paid);
                paid.extend(lines.map(|line| (line.order.clone(), line.amount < Decimal::ZERO)));
            }
            total += fixed.map_or(0, |fixed| fen(fixed.due));
            let billed = bill(&orders, &calls, place + 1, tier_basis, &shown, &settled);
            prop_assert_eq!(total, i64::try_from(billed.fen).unwrap(), "{}: {:?}", place, billed);
            for (shown, used) in shown.iter_mut().zip(&billed.used) {
                *shown = (*shown).max(*used);
            }
            let refunds = orders.iter().enumerate().filter(|(order, of)| {
                let entered = of.refund.is_some_and(|(at, known)| {
                    known <= place && at < until(place)
                });
                entered && of.known <= place && !billed.refused.contains(order)
            });
            settled.extend(refunds.map(|(order, _)| order));
        }
        let verified = verify_statements(&world.reader(), zone()).unwrap();
        prop_assert!(!verified.is_empty());
        // Each order is shown as paid on one statement, and each refund that counts.
        let last = until(MONTHS + 1);
        let mut expected: Vec<_> = (0..orders.len())
            .filter(|&order| orders[order].delivered < last && orders[order].known < MONTHS + 2)
            .map(|order| (format!("P-{order}"), false))
            .chain(settled.iter().map(|order| (format!("P-{order}"), true)))
            .collect();
        expected.sort();
        paid.sort();
        prop_assert_eq!(paid, expected);
    }
}

// What is refused, told and shown.

/// Without a refund, entered when so many months are fixed.
fn late_order(delivered: i64, size: u64, known: usize) -> Order {
    Order {
        group: 0,
        size,
        count: 1,
        delivered,
        expires: until(MONTHS),
        known,
        refund: None,
    }
}

/// A world with `calls` in the first hour of the first month, the newest in its 50th minute.
fn world_with(calls: i64) -> World {
    let world = World::new(TierBasis::AllCalls);
    for call in 0..calls {
        let minutes = 50 - (calls - 1 - call) % 40;
        world.call(
            ACCOUNT,
            0,
            base() + minutes * MINUTE_US + call,
            Mode::PerCall,
        );
    }
    world
}

impl World {
    fn conflicts(&self, account: &Account) -> Vec<String> {
        let reader = self.reader();
        conflicts(&self.books(&reader), [account]).unwrap()
    }

    fn credits(&self, account: &Account) -> Decimal {
        let reader = self.reader();
        self.books(&reader).credits(account.into()).unwrap()
    }
}

#[test]
fn an_account_that_called_nothing_gets_a_statement_with_what_a_late_order_takes_back() {
    let mut world = world_with(10);
    let charged = world.fix(&account(&[], 0)).unwrap();
    assert_eq!(charged.due, Decimal::new(7, 2), "3 are free");
    let orders = [late_order(base(), 5, 1)];
    let account = account(&orders, 1);
    // Nobody is stopped for what the next statement takes back, until it is debited.
    assert_eq!(world.credits(&account), Decimal::new(5, 2));
    let credited = world.fix(&account).unwrap();
    assert_eq!(credited.due, Decimal::new(-5, 2));
    let group = &credited.groups[0];
    assert!(group.calls.is_empty() && group.lines.is_empty());
    let line = &group.adjustments[0];
    assert_eq!(
        (line.month.as_str(), line.amount),
        ("2026-03", credited.due)
    );
    assert_eq!(line.per_call.packs[0].used, 5);
    // It was paid in a month whose statement does not show it.
    assert_eq!(group.paid[0].order, "P-0");
    let per_call = group.per_call.as_ref().unwrap();
    assert_eq!(per_call.packs[0].used_before, 5);
    assert_eq!(world.credits(&account), Decimal::new(5, 2));
    for place in 0..2 {
        let (month, at) = (month(place).to_string(), Utc(until(place)));
        world
            .ledger
            .keep(vec![Entry::Debited { month, at }])
            .unwrap();
    }
    assert_eq!(world.credits(&account), Decimal::ZERO);
    // It is told once.
    assert_eq!(world.fix(&account), None);
    verify_statements(&world.reader(), zone()).unwrap();
}

#[test]
fn an_entry_whose_records_were_deleted_is_refused_with_a_manual_adjustment_as_the_remedy() {
    let mut world = world_with(10);
    // Three are free; this one covers one of them, and cuts the hour before it is only known whole.
    let known = Order {
        expires: base() + 48 * MINUTE_US,
        ..late_order(base() + 46 * MINUTE_US, 9, 0)
    };
    for place in 0..3 {
        world.fix(&account(std::slice::from_ref(&known), place));
    }
    world.ledger.prune(Utc(until(1)));
    let is_deleted = || world.reader().first_kept_seq().unwrap() == 12;
    for _ in 0..10_000 {
        if is_deleted() {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(is_deleted());
    // In mid-hour: which calls came before it cannot be told any more.
    let with = |late: i64| account(&[known.clone(), late_order(base() + late, 5, 3)], 3);
    let refused = with(45 * MINUTE_US);
    let told = world.conflicts(&refused);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("order P-1 is refused (R16)"), "{told:?}");
    assert!(told[0].contains("under `adjustments`"), "{told:?}");
    assert_eq!(world.credits(&refused), Decimal::ZERO);
    // It covers nothing at all. Whole hours are known, also beside one that is cut.
    let month = month(3);
    world.call(ACCOUNT, 0, until(2) + MINUTE_US, Mode::PerCall);
    let reader = world.reader();
    let inputs = world
        .books(&reader)
        .inputs((&refused).into(), month)
        .unwrap();
    assert!(inputs.groups.iter().all(|group| group.packs.is_empty()));
    assert!(world.conflicts(&with(60 * MINUTE_US)).is_empty());
    let whole = with(0);
    assert!(world.conflicts(&whole).is_empty());
    let adjusted = world.fix(&whole).unwrap();
    assert_eq!(
        adjusted.groups[0].adjustments[0].amount,
        Decimal::new(-5, 2)
    );
    verify_statements(&world.reader(), zone()).unwrap();
}

#[test]
fn an_order_from_before_the_first_fixed_month_makes_no_line_and_covers_what_is_not_fixed() {
    let mut world = world_with(10);
    assert_eq!(world.fix(&account(&[], 0)).unwrap().due, Decimal::new(7, 2));
    for call in 0..6 {
        world.call(ACCOUNT, 0, until(0) + call, Mode::PerCall);
    }
    let account = account(&[late_order(base() - 1, 5, 1)], 1);
    let fixed = world.fix(&account).unwrap();
    assert!(fixed.groups[0].adjustments.is_empty());
    let pack = &fixed.groups[0].per_call.as_ref().unwrap().packs[0];
    assert_eq!((pack.used_before, pack.used), (0, 3));
    assert_eq!(fixed.due, Decimal::new(0, 2));
}

#[test]
fn a_refund_of_a_used_order_is_refused_and_told_wherever_it_is_dated() {
    let mut world = world_with(10);
    let order = late_order(base(), 50, 0);
    world
        .fix(&account(std::slice::from_ref(&order), 0))
        .unwrap();
    world.call(ACCOUNT, 0, until(0) + 2 * DAY_US, Mode::PerCall);
    for call in 0..6 {
        world.call(ACCOUNT, 0, until(0) + 3 * DAY_US + call, Mode::PerCall);
    }
    // In a fixed month, in the running one, and before all that are fixed.
    for at in [base() + DAY_US, until(0) + DAY_US, base() - 1] {
        let refund = Some((at, 0));
        let refunded = account(
            &[Order {
                refund,
                ..order.clone()
            }],
            1,
        );
        let told = world.conflicts(&refunded);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("`refunded` of order P-0 is refused (R18)"),
            "{told:?}"
        );
    }
    let refund = Some((until(0) + DAY_US, 1));
    let refunded = account(&[Order { refund, ..order }], 1);
    let fixed = world.fix(&refunded).unwrap();
    // It goes on covering, and nothing is paid back.
    let pack = &fixed.groups[0].per_call.as_ref().unwrap().packs[0];
    assert_eq!((pack.used_before, pack.used, &pack.refunded), (7, 4, &None));
    assert!(fixed.groups[0].paid.is_empty());
    verify_statements(&world.reader(), zone()).unwrap();
}

#[test]
fn an_order_of_a_fixed_month_that_is_changed_or_removed_changes_nothing_and_is_told() {
    let mut world = world_with(10);
    let order = late_order(base(), 5, 0);
    let as_fixed = account(std::slice::from_ref(&order), 0);
    world.fix(&as_fixed).unwrap();
    assert!(world.conflicts(&as_fixed).is_empty());
    let larger = Order {
        size: 7,
        delivered: base() + 1,
        ..order
    };
    for (changed, what) in [
        (
            account(&[larger], 1),
            "was changed (calls 5 → 7, delivered ",
        ),
        (account(&[], 1), "is not in the files any more"),
    ] {
        let told = world.conflicts(&changed);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&format!("order P-0 {what}")), "{told:?}");
        assert!(
            told[0].contains("the statement of 2026-03 is fixed with it"),
            "{told:?}"
        );
        let reader = world.reader();
        let books = world.books(&reader);
        let next = books.statement((&changed).into(), month(1)).unwrap();
        assert_eq!(next.due, Decimal::ZERO);
        assert!(next.groups.iter().all(|group| group.adjustments.is_empty()));
    }
}

#[test]
fn a_manual_adjustment_stands_on_the_statement_of_its_month_or_is_told() {
    let mut world = world_with(10);
    let of = |at: i64| {
        let adjustment = crate::config::Adjustment {
            id: "A-1".into(),
            at: Utc(at),
            amount: Decimal::ONE,
            reason: "x".into(),
            by: "y".into(),
        };
        let mut account = account(&[], 0);
        account.adjustments = Box::new([adjustment]);
        account
    };
    world.fix(&account(&[], 0)).unwrap();
    // The first month is fixed without it.
    let told = world.conflicts(&of(base() + 1));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("is fixed without it"), "{told:?}");
    // The next one has nothing but it, and a statement.
    let (begin, _) = month(1).bounds(zone());
    let dated = of(begin.0 + 1);
    assert!(world.conflicts(&dated).is_empty());
    world.fix(&dated).unwrap();
    assert!(world.conflicts(&dated).is_empty());
    let reader = world.reader();
    let stored = world.books(&reader).stored(&dated.id, month(1)).unwrap();
    let balance = stored.unwrap().balance.unwrap();
    assert_eq!(balance.adjustments.len(), 1);
}

#[test]
fn a_payment_stands_on_the_statement_of_its_month_or_is_told_and_so_is_one_that_was_changed() {
    let mut world = world_with(10);
    let of = |at: i64, yuan: i64| {
        let payment = crate::config::Payment {
            order: "T-1".into(),
            at: Utc(at),
            amount: Decimal::from(yuan),
        };
        let mut account = account(&[], 0);
        account.payments = Box::new([payment]);
        account
    };
    world.fix(&account(&[], 0)).unwrap();
    // The first month is fixed without it.
    let told = world.conflicts(&of(base() + 1, 50));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("payment T-1 is dated in") && told[0].contains("is fixed without it"),
        "{told:?}"
    );
    // The next one has nothing but it, and a statement.
    let (begin, _) = month(1).bounds(zone());
    let dated = of(begin.0 + 1, 50);
    assert!(world.conflicts(&dated).is_empty());
    world.fix(&dated).unwrap();
    assert!(world.conflicts(&dated).is_empty());
    let told = world.conflicts(&of(begin.0 + 1, 60));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("is 50.00 on the statement") && told[0].contains("60.00 in the files"),
        "{told:?}"
    );
}

/// An account with these payments (order, time, yuan) and this adjustment (id, time, yuan).
fn entered(payments: &[(&str, i64, i64)], adjustment: Option<(&str, i64, i64)>) -> Account {
    let mut account = account(&[], 0);
    let payment = |(order, at, yuan): &(&str, i64, i64)| crate::config::Payment {
        order: (*order).into(),
        at: Utc(*at),
        amount: Decimal::from(*yuan),
    };
    account.payments = payments.iter().map(payment).collect();
    let adjustment = adjustment.map(|(id, at, yuan)| crate::config::Adjustment {
        id: id.into(),
        at: Utc(at),
        amount: Decimal::from(yuan),
        reason: "x".into(),
        by: "y".into(),
    });
    account.adjustments = adjustment.into_iter().collect();
    account
}

#[test]
fn a_payment_or_adjustment_that_leaves_its_fixed_month_or_is_moved_in_it_is_told() {
    let mut world = world_with(10);
    let at = base() + 1;
    let (running, earlier) = (until(0) + 1, base() - 1);
    let adjusted = Some(("A-1", at, -5));
    let was = entered(&[("T-1", at, 50), ("T-2", at, 20)], adjusted);
    world.fix(&was).unwrap();
    assert_eq!(world.conflicts(&was), [""; 0]);
    let on_statement = "on the statement of 2026-03, which is fixed";
    for (files, what) in [
        (
            entered(&[("T-2", at, 20)], adjusted),
            &[(
                "payment T-1 is 50.00 at 2026-03-01T",
                "not in the files any more",
            )][..],
        ),
        (
            entered(&[("T-1", at, 50), ("T-2", at, 20)], None),
            &[(
                "adjustment A-1 is -5.00 at 2026-03-01T",
                "not in the files any more",
            )],
        ),
        (
            entered(&[("T-1", running, 50), ("T-2", at, 20)], adjusted),
            &[(
                "payment T-1 is 50.00 at 2026-03-01T",
                "50.00 at 2026-04-01T",
            )],
        ),
        (
            entered(
                &[("T-1", at + 86_400_000_000, 50), ("T-2", at, 20)],
                adjusted,
            ),
            &[(
                "payment T-1 is 50.00 at 2026-03-01T",
                "50.00 at 2026-03-02T",
            )],
        ),
        // A payment and its correction leave the balance as it is.
        (
            entered(&[("T-1", at, 50), ("T-2", at, 15)], None),
            &[
                ("payment T-2 is 20.00 on the", "15.00 in the files"),
                (
                    "adjustment A-1 is -5.00 at 2026-03-01T",
                    "not in the files any more",
                ),
            ],
        ),
        (
            entered(&[("T-1", earlier, 50), ("T-2", at, 20)], adjusted),
            &[
                (
                    "payment T-1 is 50.00 at 2026-03-01T",
                    "50.00 at 2026-02-28T",
                ),
                (
                    "the balance before 2026-03 is 50.00 by the files, and 0.00",
                    "(payment T-1 of 2026-02-28T",
                ),
            ],
        ),
    ] {
        let told = world.conflicts(&files);
        assert_eq!(told.len(), what.len(), "{told:?}");
        for (told, (begin, end)) in told.iter().zip(what) {
            assert!(
                told.contains(begin) && told.contains(end) && told.contains(on_statement),
                "{told}; expected {begin} .. {end}"
            );
        }
    }
    // One of another name is told for both.
    let told = world.conflicts(&entered(&[("T-1", at, 50), ("T-3", at, 20)], adjusted));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("payment T-2 is 20.00 at 2026-03-01T"),
        "{told:?}"
    );
    assert!(
        told[1].contains("payment T-3 is dated in 2026-03, which is fixed without it"),
        "{told:?}"
    );
}

#[test]
fn an_entry_of_before_the_first_fixed_month_is_told_when_it_came_or_went_since() {
    let mut world = world_with(10);
    let (at, earlier) = (base() + 1, base() - 1);
    let was = entered(&[("T-0", earlier, 30), ("T-1", at, 50)], None);
    world.fix(&was).unwrap();
    assert_eq!(world.conflicts(&was), [""; 0]);
    let more = [
        ("T-0", earlier, 30),
        ("T-9", earlier - 1, 7),
        ("T-1", at, 50),
    ];
    let told = world.conflicts(&entered(&more, None));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains(
            "the balance before 2026-03 is 37.00 by the files, and 30.00 on the statement"
        ) && told[0].contains("(payment T-9 of 2026-02-28T"),
        "{told:?}"
    );
    let told = world.conflicts(&entered(&[("T-1", at, 50)], None));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("is 0.00 by the files, and 30.00 on the statement"),
        "{told:?}"
    );
    // An entry that came late to a fixed month is part of a later balance, and told once.
    let late = entered(
        &[("T-0", earlier, 30), ("T-1", at, 50), ("T-2", at, 20)],
        None,
    );
    world.fix(&late);
    let told = world.conflicts(&late);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("payment T-2 is dated in 2026-03"),
        "{told:?}"
    );
}

#[test]
fn an_account_whose_first_statement_is_later_is_told_once_of_an_entry_before_it() {
    // Nothing was called in the first month: the statement of the second one is the first.
    let (at, next) = (base() + 1, until(0) + 1);
    let known = entered(&[("T-1", at, 50), ("T-2", next, 1)], None);
    let unknown = entered(&[("T-2", next, 1)], None);
    for (fixed_with, is_in_balance) in [(&known, true), (&unknown, false)] {
        let mut world = world_with(0);
        world.fix(&entered(&[], None));
        let stored = world.fix(fixed_with).unwrap();
        let before = stored.balance.unwrap().before;
        assert_eq!(before == Decimal::from(50), is_in_balance);
        let told = world.conflicts(&known);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("payment T-1 is dated in 2026-03"),
            "{told:?}"
        );
    }
}

#[test]
fn a_hundred_entries_of_fixed_months_are_told_and_the_number_of_the_rest() {
    let mut world = world_with(10);
    world.fix(&entered(&[], None)).unwrap();
    let orders: Vec<String> = (0..150).map(|n| format!("T-{n}")).collect();
    let payments: Vec<_> = orders
        .iter()
        .map(|id| (id.as_str(), base() + 1, 1))
        .collect();
    let told = world.conflicts(&entered(&payments, None));
    assert_eq!(told.len(), 101);
    assert!(
        told[100].starts_with("and 50 more payments and adjustments"),
        "{}",
        told[100]
    );
}

#[test]
fn an_adjustment_that_was_changed_by_hand_is_found_though_it_fits_its_statement() {
    let mut world = world_with(10);
    world.fix(&account(&[], 0)).unwrap();
    let account = account(&[late_order(base() + 45 * MINUTE_US, 5, 1)], 1);
    world.fix(&account).unwrap();
    verify_statements(&world.reader(), zone()).unwrap();
    let stored = world
        .reader()
        .stored_statement("2026-04", &account.id)
        .unwrap()
        .unwrap();
    let honest: billing::Inputs = serde_json::from_str(&stored.inputs).unwrap();
    let fixed = world
        .books(&world.reader())
        .stored(&account.id, month(1))
        .unwrap()
        .unwrap()
        .fixed;
    let changes: [fn(&mut MonthAgain); 3] = [
        |month| month.fixed -= Decimal::ONE,
        |month| month.packs[0].calls = 6,
        |month| {
            let calls = month.intervals[0].calls[0].clone();
            month.intervals[1].calls.push(calls);
        },
    ];
    for change in changes {
        let mut inputs = honest.clone();
        change(&mut inputs.groups[0].late_entries.months[0]);
        let forged = Statement {
            fixed: fixed.clone(),
            ..billing::statement(&inputs)
        };
        let sql = rusqlite::Connection::open(world.ledger.path()).unwrap();
        sql.execute(
            "UPDATE statements SET due = ?1, inputs = ?2, statement = ?3 WHERE month = '2026-04'",
            [
                forged.due.to_string(),
                serde_json::json!(inputs).to_string(),
                serde_json::json!(forged).to_string(),
            ],
        )
        .unwrap();
        let found = verify_statements(&world.reader(), zone())
            .unwrap_err()
            .to_string();
        assert!(found.contains("give other adjustments"), "{found}");
    }
}

// Orders without calls.

/// The account with a purchase of quota and a licence, each of this id that begins at this instant.
fn bought_once(quota: &[(&str, i64)], licences: &[(&str, i64)]) -> Account {
    let mut account = account(&[], 0);
    let paid = || SHIPPED.accounts[0].services[0].packs[0].paid.clone();
    let quota = quota.iter().map(|(order, from)| QpsPurchase {
        order: (*order).into(),
        qps: 30,
        from: Utc(*from),
        until: Utc(*from + 400 * DAY_US),
        period: Period::Days(400),
        paid: paid(),
        discount: None,
    });
    account.services[0].qps_purchases = quota.collect();
    let licences = licences.iter().map(|(order, from)| LicenceOrder {
        order: (*order).into(),
        package: Package::new("com.example.camera").unwrap(),
        from: Utc(*from),
        until: Utc(*from + 400 * DAY_US),
        years: 1,
        paid: paid(),
        discount: None,
    });
    account.licences = licences.collect();
    account
}

/// The orders without calls on a statement.
fn listed(statement: Option<Statement>) -> Vec<String> {
    let Some(statement) = statement else {
        return Vec::new();
    };
    let of_groups = statement.groups.iter().flat_map(|group| &group.paid);
    let lines = of_groups.chain(&statement.licences);
    let lines: Vec<_> = lines.map(|line| line.order.clone()).collect();
    let sum = statement.groups.iter().flat_map(|group| &group.paid);
    let sum: Decimal = sum.chain(&statement.licences).map(|line| line.amount).sum();
    assert_eq!(statement.paid_when_ordered, sum);
    lines
}

#[test]
fn an_order_without_calls_that_is_entered_after_its_month_was_fixed_is_on_the_next_statement_alone()
{
    let mut world = world_with(1);
    let early = bought_once(&[("Q-1", base())], &[("L-1", base())]);
    assert_eq!(listed(world.fix(&early)), ["Q-1", "L-1"]);
    // Of the fixed month, of the one that follows, and of before all that are fixed.
    let quota = [
        ("Q-1", base()),
        ("Q-2", base() + DAY_US),
        ("Q-3", until(0)),
        ("Q-0", base() - 1),
    ];
    let licences = [
        ("L-1", base()),
        ("L-2", base() + DAY_US),
        ("L-0", base() - 1),
    ];
    let late = bought_once(&quota, &licences);
    assert_eq!(world.conflicts(&late), [""; 0]);
    assert_eq!(listed(world.fix(&late)), ["Q-2", "Q-3", "L-2"]);
    assert_eq!(listed(world.fix(&late)), [""; 0]);
    // Nothing was called or bought in the month: the late order alone makes a statement.
    let later = bought_once(&quota, &[licences[0], licences[1], ("L-4", until(2) - 1)]);
    assert_eq!(listed(world.fix(&later)), ["L-4"]);
    verify_statements(&world.reader(), zone()).unwrap();
}

#[test]
fn an_order_without_calls_that_is_moved_or_removed_is_on_no_second_statement_and_is_told() {
    let mut world = world_with(1);
    let as_fixed = bought_once(&[("Q-1", base())], &[("L-1", base())]);
    world.fix(&as_fixed);
    assert_eq!(world.conflicts(&as_fixed), [""; 0]);
    let removed = world.conflicts(&bought_once(&[], &[]));
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(
        removed[1].contains("order L-1 is not in the files any more"),
        "{removed:?}"
    );
    let moved = bought_once(&[("Q-1", until(0))], &[("L-1", until(0))]);
    let told = world.conflicts(&moved);
    assert_eq!(told.len(), 2, "{told:?}");
    for (told, order) in told
        .iter()
        .zip(["portrait-segmentation: order Q-1", "licences: order L-1"])
    {
        assert!(
            told.contains(order) && told.contains("was changed (from "),
            "{told}"
        );
    }
    assert_eq!(listed(world.fix(&moved)), [""; 0]);
    assert_eq!(listed(world.fix(&moved)), [""; 0]);
    verify_statements(&world.reader(), zone()).unwrap();
}
