//! Every record is on exactly one statement, whatever the wall clock showed when its call came:
//! against a list of all calls.

use super::*;
use crate::billing::{
    Fixed, KeyCalls, calls_on_none, check_settlement, first_month, verify_statements,
};
use crate::config::{self, Config};
use crate::ledger::{Entry, Ledger, LedgerOptions, Record, Seal, Settlement};
use crate::model::KeyId;
use crate::model::{Action, Clock, Durability, Local, Mode, Mono, Outcome, Reason, RequestId};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

static SHIPPED: LazyLock<Config> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tollgate.yaml");
    config::load(path.as_ref()).unwrap()
});

const HOUR_US: i64 = 3_600_000_000;
/// The month that a call of age 0 is in.
const BASE: &str = "2026-03";

#[derive(Clone, Debug)]
enum Event {
    /// A call of one of three accounts, in the month so far from [`BASE`] by the clock of that
    /// moment, so far into it.
    Call { account: u8, month: i32, into: Into },
    /// The next month is fixed.
    Fix,
}

#[derive(Clone, Copy, Debug)]
enum Into {
    Begin,
    End,
    Hours(u16),
}

fn event() -> impl Strategy<Value = Event> {
    let month = prop_oneof![
        6 => -1..3_i32,
        2 => -9..9_i32,
        // Years wrong; 1970, as a clock has it that was never set.
        1 => prop_oneof![Just(-60), Just(-300), Just(-674)],
    ];
    let into = prop_oneof![
        Just(Into::Begin),
        Just(Into::End),
        (0..660_u16).prop_map(Into::Hours)
    ];
    prop_oneof![
        4 => (0..3_u8, month, into)
            .prop_map(|(account, month, into)| Event::Call { account, month, into }),
        1 => Just(Event::Fix),
    ]
}

fn month(from_base: i32) -> Month {
    let base = Month::parse(BASE).unwrap();
    let step = if from_base < 0 {
        Month::previous
    } else {
        Month::next
    };
    (0..from_base.unsigned_abs()).fold(base, |month, _| step(month))
}

fn account(number: u8) -> AccountId {
    AccountId::new(&format!("a{number}")).unwrap()
}

/// The key of the call with this place: some are from before keys had ids.
fn key_of(place: usize) -> KeyId {
    KeyId::new(["", "k-1", "k-2"][place % 3]).unwrap()
}

/// The calls of these places by key, as a statement has them; all are billable.
fn by_key(places: &[usize]) -> Vec<KeyCalls> {
    let mut calls: BTreeMap<KeyId, u64> = BTreeMap::new();
    for place in places {
        *calls.entry(key_of(*place)).or_default() += 1;
    }
    if calls.keys().all(KeyId::is_none) {
        return Vec::new();
    }
    let of = |(key, calls)| KeyCalls {
        key,
        calls,
        billable: calls,
    };
    calls.into_iter().map(of).collect()
}

/// A call, named by its own action.
#[derive(Debug)]
struct Called {
    account: AccountId,
    action: String,
    month: Month,
    /// The months that were fixed before its record was there.
    after: usize,
}

struct World {
    ledger: Ledger,
    calls: Vec<Called>,
    fixed: Vec<Month>,
    /// The number of first months that are fixed by the rule of schema 3.
    limited: usize,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(limited: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            path: dir.path().join("ledger.db"),
            durability: Durability::Relaxed,
            replica: String::new(),
            pending_limit: 1_000,
            stall_after: Duration::from_secs(1 << 40),
            create: true,
        };
        Self {
            ledger: Ledger::open(options, Clock::default(), |_| ()).unwrap(),
            calls: Vec::new(),
            fixed: Vec::new(),
            limited,
            _dir: dir,
        }
    }

    fn zone() -> &'static TimeZone {
        &SHIPPED.catalog.time_zone
    }

    fn reader(&self) -> Reader {
        Reader::open(self.ledger.path()).unwrap()
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Call {
                account: number,
                month: from_base,
                into,
            } => {
                let month = month(from_base);
                let (from, until) = month.bounds(Self::zone());
                let at = match into {
                    Into::Begin => from,
                    Into::End => Utc(until.0 - 1),
                    Into::Hours(hours) => Utc(from.0 + i64::from(hours) * HOUR_US + 1),
                };
                let action = format!("A{}", self.calls.len());
                let record = Record {
                    id: RequestId(uuid::Uuid::now_v7()),
                    account: account(number),
                    key: key_of(self.calls.len()),
                    group: GroupId::new("portrait-segmentation").unwrap(),
                    action: Action::new(&action).unwrap(),
                    mode: Mode::PerCall,
                    admitted_at: at,
                    start: Mono(1),
                    store_start: None,
                    outcome: Outcome::Answered,
                    status: Some(200),
                    reason: Reason::Billable,
                    duration: Duration::from_millis(1),
                };
                drop(self.ledger.reserve().unwrap().commit(record));
                self.calls.push(Called {
                    account: account(number),
                    action,
                    month,
                    after: self.fixed.len(),
                });
            }
            Event::Fix => self.fix(),
        }
    }

    /// What the settler does, without a clock.
    fn fix(&mut self) {
        let month = self.fixed.last().map_or(month(0), |last| last.next());
        // Commits what is queued, too.
        let seal = self.ledger.seal(&month.last_day().to_string()).unwrap();
        let reader = self.reader();
        if self.fixed.is_empty() {
            let first = first_month(&reader, Self::zone()).unwrap();
            assert_eq!(first, Some(month));
        }
        let text = month.to_string();
        let fixed_at = Utc(month.bounds(Self::zone()).1.0 + GRACE_US);
        self.keep(vec![Entry::Settlement {
            month: text.clone(),
            through_seq: seal.last_seq,
            head: seal.head,
            fixed_at,
        }]);
        if self.fixed.len() < self.limited {
            rusqlite::Connection::open(self.ledger.path())
                .unwrap()
                .execute(
                    "UPDATE settlements SET late_months = 2 WHERE month = ?1",
                    [&text],
                )
                .unwrap();
        }
        let books = self.books(&reader);
        let accounts = books.on_the_books(std::iter::empty(), month).unwrap();
        let mut entries = Vec::new();
        for id in accounts {
            let inputs = books.inputs(sold(&id), month).unwrap();
            let mut statement = billing::statement(&inputs);
            statement.fixed = Some(Fixed {
                at: Local::new(fixed_at, Self::zone()),
                through_seq: seal.last_seq,
                head: hex::encode(seal.head),
            });
            entries.push(Entry::Statement {
                month: text.clone(),
                account: id,
                due: statement.due.to_string(),
                inputs: json!(inputs).to_string(),
                statement: json!(statement).to_string(),
            });
        }
        self.keep(entries);
        let digest = reader.statements_digest(&text).unwrap();
        self.keep(vec![Entry::Settled {
            month: text,
            at: Utc(2),
            digest,
        }]);
        self.fixed.push(month);
    }

    fn keep(&self, entries: Vec<Entry>) {
        self.ledger.keep(entries).unwrap();
    }

    fn books<'b>(&self, reader: &'b Reader) -> Books<'b> {
        Books {
            catalog: &SHIPPED.catalog,
            reader,
            now: Utc(i64::MAX / 4),
        }
    }

    /// The months, by their place in `fixed`, on whose statements the call is.
    fn billed_in(&self) -> HashMap<String, Vec<usize>> {
        let reader = self.reader();
        let books = self.books(&reader);
        let mut billed: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, month) in self.fixed.iter().enumerate() {
            for number in 0..3 {
                let id = account(number);
                let inputs = books.inputs(sold(&id), *month).unwrap();
                let in_month = inputs.groups.iter().flat_map(|group| &group.intervals);
                let in_month = in_month.flat_map(|interval| &interval.calls);
                let late = inputs.groups.iter().flat_map(|group| &group.late);
                let mut places = Vec::new();
                for calls in in_month.chain(late) {
                    assert_eq!(calls.calls, 1);
                    let called = self
                        .calls
                        .iter()
                        .position(|c| c.action == calls.action.as_str());
                    places.push(called.unwrap());
                    assert_eq!(self.calls[called.unwrap()].account, id);
                    billed
                        .entry(calls.action.to_string())
                        .or_default()
                        .push(place);
                }
                let keys = inputs.groups.iter().flat_map(|group| group.keys.clone());
                assert_eq!(keys.collect::<Vec<_>>(), by_key(&places));
                // Who has calls has a statement, and it is the one that was stored.
                let stored = books.stored(&id, *month).unwrap();
                assert_eq!(stored.is_some(), !inputs.groups.is_empty());
            }
        }
        billed
    }

    /// Fixes months until nothing that was called can be left.
    fn fix_all(&mut self) {
        self.happen(&Event::Call {
            account: 0,
            month: 0,
            into: Into::Begin,
        });
        // At least one, for the call just made.
        self.fix();
        while self.fixed.last().is_none_or(|last| *last < month(9)) {
            self.fix();
        }
    }
}

fn sold(id: &AccountId) -> AccountRef<'_> {
    AccountRef { id, account: None }
}

#[test]
fn a_month_that_was_begun_as_no_gate_does_it_does_not_pass() {
    let mut world = World::new(0);
    let call = Event::Call {
        account: 0,
        month: 0,
        into: Into::Begin,
    };
    world.happen(&call);
    world.fix();
    let early = world.reader().last_day().unwrap().unwrap();
    world.happen(&call);
    let next = month(1);
    let day = world.ledger.seal(&next.last_day().to_string()).unwrap();
    let over = next.bounds(World::zone()).1.0 + GRACE_US;
    let (zone, reader) = (World::zone(), world.reader());
    let begun = |month: Month, seal: &Seal, fixed_at| Settlement {
        month: month.to_string(),
        through_seq: seal.last_seq,
        head: seal.head,
        fixed_at: Utc(fixed_at),
        settled_at: None,
        debited_at: None,
        late_months: None,
        digest: None,
    };
    let other_seq = Seal {
        last_seq: early.last_seq,
        ..day.clone()
    };
    for (forged, why) in [
        (begun(next, &early, over), "no day"),
        (begun(next, &other_seq, over), "no day"),
        (begun(next, &day, over - 1), "before it was over"),
        (begun(month(2), &day, i64::MAX), "the month before"),
    ] {
        let found = check_settlement(&reader, zone, &forged).unwrap_err();
        assert!(found.to_string().contains(why), "{found}");
    }
    let honest = begun(next, &day, over);
    check_settlement(&reader, zone, &honest).unwrap();
    // As it is found in the ledger.
    world.keep(vec![Entry::Settlement {
        month: honest.month,
        through_seq: early.last_seq,
        head: early.head,
        fixed_at: honest.fixed_at,
    }]);
    let found = verify_statements(&world.reader(), zone).unwrap_err();
    assert!(found.to_string().contains("2026-04"), "{found}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_record_is_on_exactly_one_statement_whatever_the_clock_showed(
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut world = World::new(0);
        // The first month is not five years back: that many months would be fixed one by one.
        world.happen(&Event::Call { account: 0, month: 0, into: Into::Begin });
        world.fix();
        for event in &events {
            world.happen(event);
        }
        world.fix_all();
        let billed = world.billed_in();
        for called in &world.calls {
            // The first month that was not over by the call's own clock and was fixed when the
            // record was there.
            let expected = (called.after..world.fixed.len())
                .find(|place| world.fixed[*place] >= called.month);
            let expected = vec![expected.unwrap()];
            prop_assert_eq!(billed.get(&called.action), Some(&expected), "{:?}", called);
        }
        prop_assert_eq!(calls_on_none(&world.reader(), World::zone(), None).unwrap(), 0);
        let verified = verify_statements(&world.reader(), World::zone()).unwrap();
        prop_assert!(!verified.is_empty());
    }

    #[test]
    fn what_months_of_the_older_rule_left_out_is_on_no_statement_and_is_counted(
        events in prop::collection::vec(event(), 1..30),
        limited in 1..5_usize,
    ) {
        let mut world = World::new(limited);
        world.happen(&Event::Call { account: 0, month: 0, into: Into::Begin });
        world.fix();
        for event in &events {
            world.happen(event);
        }
        world.fix_all();
        let billed = world.billed_in();
        let mut on_none = [0; 3];
        for called in &world.calls {
            let place = (called.after..world.fixed.len())
                .find(|place| world.fixed[*place] >= called.month)
                .unwrap();
            let left_out = place < limited
                && called.month < world.fixed[place].previous().previous();
            let expected = (!left_out).then(|| vec![place]);
            prop_assert_eq!(billed.get(&called.action), expected.as_ref(), "{:?}", called);
            if left_out {
                let number = (0..3).find(|number| account(*number) == called.account);
                on_none[usize::from(number.unwrap())] += 1;
            }
        }
        let reader = world.reader();
        let books = world.books(&reader);
        for number in 0..3 {
            let inputs = books.inputs(sold(&account(number)), month(20)).unwrap();
            prop_assert_eq!(inputs.on_no_statement, on_none[usize::from(number)]);
            prop_assert_eq!(billing::statement(&inputs).on_no_statement, inputs.on_no_statement);
        }
        let all = calls_on_none(&reader, World::zone(), None).unwrap();
        prop_assert_eq!(all, on_none.iter().sum::<u64>());
        prop_assert!(verify_statements(&reader, World::zone()).is_ok());
    }
}
