//! A month of a ledger that the records of many were collected in, against that of one ledger which
//! saw every call: whatever comes late, and in whatever order, the statements are the same (R16).

use super::*;
use crate::billing::{Statement, closing_day, due, last_day_over, over_by};
use crate::config::{self, Catalog, Charging, Config, Pack};
use crate::ledger::{
    Collected, LedgerOptions, Range, RangeReader, Reader, Record, Seal, Watermark,
};
use crate::model::{
    Action, Clock, Durability, GroupId, KeyId, Local, Mono, Origin, Outcome, RequestId, Utc,
};
use fastrand::Rng;
use jiff::tz::TimeZone;
use std::sync::LazyLock;
use std::time::Duration;

static SHIPPED: LazyLock<Config> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tollgate.yaml");
    config::load(path.as_ref()).unwrap()
});

const MONTHS: usize = 3;
const GATES: usize = 3;
const CALLS: usize = 900;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const GROUPS: [&str; 2] = ["portrait-segmentation", "second-group"];
const ACCOUNTS: [&str; 3] = ["2000000001", "2000000002", "2000000003"];

fn zone() -> &'static TimeZone {
    &SHIPPED.catalog.time_zone
}

fn month(place: usize) -> Month {
    let first = Month::parse("2026-03").unwrap();
    (0..place).fold(first, |month, _| month.next())
}

fn begin(place: usize) -> i64 {
    month(place).bounds(zone()).0.0
}

/// Small free packs and tiers, so that few calls reach all of them.
fn catalog() -> Catalog {
    let mut catalog = SHIPPED.catalog.clone();
    let group = &mut catalog.groups[0];
    let Charging::Paid { per_call, .. } = &mut group.charging else {
        panic!("the first group is paid");
    };
    per_call.free_calls = 7;
    per_call.tiers = [(0, 10), (20, 9), (45, 7)]
        .map(|(from, price)| config::Tier {
            from,
            price: Decimal::new(price, 3),
        })
        .into();
    let mut second = group.clone();
    second.id = GroupId::new(GROUPS[1]).unwrap();
    catalog.groups.push(second);
    catalog
}

/// Customers with packs that begin and end at any instant, and payments.
fn accounts(random: &mut Rng) -> Vec<Account> {
    let shipped = &SHIPPED.accounts[0];
    let within = |random: &mut Rng| Utc(random.i64(begin(0)..begin(MONTHS)));
    let pack = |random: &mut Rng| Pack {
        order: format!("P-{}", random.u64(..)).into(),
        calls: random.u64(1..40),
        count: random.u32(1..3),
        delivered: within(random),
        expires: Utc(0),
        paid: shipped.services[0].packs[0].paid.clone(),
        origin: Origin::Bought,
        refundable: true,
        refund_days: None,
        refund_refused: None,
        refunded: None,
        discount: None,
    };
    let account = |id: &&str| {
        let services = GROUPS.map(|group| {
            let mut service = shipped.services[0].clone();
            (service.opened, service.group) = (Utc(0), GroupId::new(group).unwrap());
            let packs = (0..random.usize(0..4)).map(|_| {
                let pack = pack(random);
                let expires = Utc(pack.delivered.0 + random.i64(DAY..50 * DAY));
                Pack { expires, ..pack }
            });
            service.packs = packs.collect();
            service
        });
        let payments = (0..random.usize(0..3)).map(|nth| config::Payment {
            order: format!("T-{nth}").into(),
            at: within(random),
            amount: Decimal::from(random.u32(1..9)),
        });
        Account {
            id: AccountId::new(id).unwrap(),
            payments: payments.collect(),
            services: services.into(),
            ..shipped.clone()
        }
    };
    ACCOUNTS.iter().map(account).collect()
}

/// A call, and when its record was written: the slow ones are written later than quicker ones that
/// came after them.
struct Call {
    gate: usize,
    recorded: i64,
    record: Record,
}

/// Calls at any time, and many around the ends of months.
fn calls(random: &mut Rng) -> Vec<Call> {
    let call = |_| {
        let at = match random.u8(0..3) {
            0 => begin(random.usize(1..=MONTHS)) + random.i64(-2 * HOUR..2 * HOUR),
            1 => begin(random.usize(1..=MONTHS)) + random.i64(-20..20),
            _ => random.i64(begin(0)..begin(MONTHS)),
        };
        let reason = match random.u8(0..8) {
            0 => Reason::ServerError,
            _ => Reason::Billable,
        };
        Call {
            gate: random.usize(0..GATES),
            recorded: at + random.i64(0..30 * SECOND),
            record: Record {
                id: RequestId(uuid::Uuid::from_u128(random.u128(..))),
                account: AccountId::new(random.choice(ACCOUNTS).unwrap()).unwrap(),
                key: KeyId::new(["k", "l"][random.usize(0..2)]).unwrap(),
                group: GroupId::new(random.choice(GROUPS).unwrap()).unwrap(),
                action: Action::new(["A", "B"][random.usize(0..2)]).unwrap(),
                mode: [Mode::PerCall, Mode::PerCall, Mode::Qps][random.usize(0..3)],
                admitted_at: Utc(at),
                start: Mono(1),
                store_start: None,
                outcome: Outcome::Answered,
                status: Some(match reason {
                    Reason::ServerError => 503,
                    _ => 200,
                }),
                reason,
                duration: Duration::ZERO,
            },
        }
    };
    let mut calls: Vec<Call> = (0..CALLS).map(call).collect();
    // A ledger has a first call in its first month.
    calls[0].record.admitted_at = Utc(begin(0));
    calls[0].recorded = begin(0);
    calls.sort_by_key(|call| call.recorded);
    calls
}

/// A ledger in a directory of its own.
struct Home {
    ledger: Ledger,
    reader: Reader,
    _dir: tempfile::TempDir,
}

impl Home {
    fn new(replica: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            path: dir.path().join("ledger.db"),
            durability: Durability::Relaxed,
            replica: replica.to_owned(),
            create: true,
            pending_limit: 100_000,
            stall_after: Duration::from_secs(1 << 40),
        };
        let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
        Self {
            reader: Reader::open(ledger.path()).unwrap(),
            ledger,
            _dir: dir,
        }
    }

    fn record(&self, record: Record) {
        drop(self.ledger.reserve().unwrap().commit(record));
    }
}

/// A gate: what it has recorded, and what it has sent of it.
struct Gate {
    home: Home,
    replica: String,
    ledger_id: String,
    reader: RangeReader,
    /// When each record was admitted and written, in the order of the ledger.
    written: Vec<(i64, i64)>,
    /// Until when it cannot send, each time from an instant on.
    cuts: Vec<(i64, i64)>,
    sent: u64,
}

impl Gate {
    /// With all that it will ever record: nobody asks for what is not written yet.
    fn new(nth: usize, calls: &[Call], cuts: Vec<(i64, i64)>) -> Self {
        let replica = format!("gate-{nth}");
        let home = Home::new(&replica);
        let own = || calls.iter().filter(|call| call.gate == nth);
        own().for_each(|call| home.record(call.record.clone()));
        while home.reader.last_seq().unwrap() < own().count() as u64 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            ledger_id: home.reader.ledger_id().unwrap(),
            reader: RangeReader::open(home.ledger.path()).unwrap(),
            written: own()
                .map(|call| (call.record.admitted_at.0, call.recorded))
                .collect(),
            home,
            replica,
            cuts,
            sent: 0,
        }
    }

    fn is_cut(&self, now: i64) -> bool {
        self.cuts
            .iter()
            .any(|(from, to)| (*from..*to).contains(&now))
    }

    /// What is written by now and was not sent, and how far the ledger is.
    fn send(&mut self, now: i64, random: &mut Rng) -> (Vec<Range>, Watermark) {
        let is_written = |call: &&(i64, i64)| call.1 <= now;
        let seq = self.written.iter().take_while(is_written).count() as u64;
        let running = self.written.iter().skip(seq as usize).map(|call| call.0);
        let mut ranges = Vec::new();
        while self.sent < seq {
            let limit = random.u64(1..=seq - self.sent) as usize;
            let range = self.reader.next(self.sent, limit).unwrap().unwrap();
            self.sent = range.last_seq;
            ranges.push(range);
        }
        let watermark = Watermark {
            ledger_id: self.ledger_id.clone(),
            replica: self.replica.clone(),
            at: Some(Utc(running.fold(now, i64::min))),
            seq,
            billed_seq: 0,
        };
        (ranges, watermark)
    }
}

/// What a settler does at `now`, by the functions that it does it by.
fn pass(of: &Home, catalog: &Catalog, accounts: &[Account], now: i64) {
    let (reader, now) = (&of.reader, Utc(now));
    let sources = reader.sources().unwrap();
    let alive = sources.iter().filter(|source| source.retired.is_none());
    let Some(by) = over_by(now, alive.map(|source| source.admitted_before)) else {
        return;
    };
    let day = last_day_over(by, zone()).to_string();
    let sealed = reader.last_day().unwrap();
    if reader.last_seq().unwrap() > 0 && sealed.is_none_or(|sealed| sealed.day < day) {
        of.ledger.seal(&day).unwrap();
    }
    while let Some(month) = due(reader, zone(), by).unwrap() {
        let Seal { last_seq, head, .. } = closing_day(reader, month, zone(), now).unwrap();
        let begun = Entry::Settlement {
            month: month.to_string(),
            through_seq: last_seq,
            head,
            fixed_at: now,
        };
        of.ledger.keep(vec![begun]).unwrap();
        let fixed = Fixed {
            at: Local::new(now, zone()),
            through_seq: last_seq,
            head: hex::encode(head),
        };
        let books = Books {
            catalog,
            reader,
            now,
        };
        settle_month(
            &of.ledger,
            &books,
            accounts.iter(),
            month,
            &fixed,
            || Ok(()),
        )
        .unwrap();
    }
}

/// The statements of all months: what each is computed from, as it is stored, and what it says but
/// for the ledger that it was fixed in.
fn statements(of: &Home) -> Vec<(String, String, String, String)> {
    let reader = &of.reader;
    let mut all = Vec::new();
    for place in 0..MONTHS {
        for account in ACCOUNTS {
            let (month, id) = (month(place).to_string(), AccountId::new(account).unwrap());
            let stored = reader.stored_statement(&month, &id).unwrap();
            let Some(stored) = stored else { continue };
            let mut said: Statement = serde_json::from_str(&stored.statement).unwrap();
            said.fixed = None;
            let said = serde_json::to_string(&said).unwrap();
            all.push((month, account.to_owned(), stored.inputs, said));
        }
    }
    all
}

/// Cuts of one gate: now and then, and each over the end of a month when its turn is.
fn cuts(nth: usize, random: &mut Rng) -> Vec<(i64, i64)> {
    let some = |random: &mut Rng| {
        let from = random.i64(begin(0)..begin(MONTHS));
        (from, from + random.i64(HOUR..3 * DAY))
    };
    let mut cuts: Vec<(i64, i64)> = (0..random.usize(0..3)).map(|_| some(random)).collect();
    for place in (1..=MONTHS).filter(|place| place % GATES == nth) {
        let midnight = begin(place);
        let from = midnight - random.i64(0..12 * HOUR);
        cuts.push((from, midnight + random.i64(2 * HOUR..4 * DAY)));
    }
    cuts
}

fn is_settled(of: &Home, place: usize) -> bool {
    let settled = of.reader.last_settled().unwrap();
    settled.is_some_and(|settled| settled.month >= month(place).to_string())
}

/// Until the next look: short ones around the ends of months.
fn pause(now: i64, random: &mut Rng) -> i64 {
    let is_near = |place| (begin(place) - DAY..begin(place) + 4 * DAY).contains(&now);
    match (1..=MONTHS).any(is_near) {
        true => random.i64(HOUR / 4..8 * HOUR),
        false => random.i64(12 * HOUR..72 * HOUR),
    }
}

/// Lives through the months, and says how many were waited for.
fn live(seed: u64) -> usize {
    let mut random = Rng::with_seed(seed);
    let random = &mut random;
    let (catalog, accounts, calls) = (catalog(), accounts(random), calls(random));
    let mut gates: Vec<Gate> = (0..GATES)
        .map(|nth| Gate::new(nth, &calls, cuts(nth, random)))
        .collect();
    let (one, collected) = (Home::new("one"), Home::new("collector"));
    let mut to_come = calls.iter().peekable();
    let (mut now, mut waited) = (begin(0), 0);
    while now < begin(MONTHS) + 5 * DAY {
        while let Some(call) = to_come.next_if(|call| call.recorded <= now) {
            one.record(call.record.clone());
        }
        random.shuffle(&mut gates);
        let (mut ranges, mut watermarks) = (Vec::new(), Vec::new());
        for gate in gates.iter_mut().filter(|gate| !gate.is_cut(now)) {
            let (sent, watermark) = gate.send(now, random);
            // What NATS gives again.
            let again = sent.first().cloned().filter(|_| random.bool());
            ranges.extend(sent.into_iter().chain(again));
            watermarks.push(watermark);
        }
        // What a gate says of its ledger comes another way than its records, and may be there first.
        let (before, after) = match random.bool() {
            true => (watermarks, Vec::new()),
            false => (Vec::new(), watermarks),
        };
        collected.ledger.watermark_of(before).unwrap();
        pass(&collected, &catalog, &accounts, now);
        for taken in collected.ledger.collect(ranges).unwrap() {
            let is_taken = matches!(taken, Collected::Taken { .. });
            assert!(is_taken, "seed {seed}: {taken:?}");
        }
        collected.ledger.watermark_of(after).unwrap();
        pass(&one, &catalog, &accounts, now);
        pass(&collected, &catalog, &accounts, now);
        waited += (0..MONTHS)
            .filter(|place| is_settled(&one, *place) && !is_settled(&collected, *place))
            .count();
        now += pause(now, random);
    }
    let expected = statements(&one);
    assert!(expected.len() >= MONTHS, "seed {seed}");
    assert_eq!(statements(&collected), expected, "seed {seed}");
    crate::billing::verify_statements(&collected.reader, zone()).unwrap();
    assert!(
        gates
            .iter()
            .all(|gate| gate.sent == gate.home.reader.last_seq().unwrap())
    );
    waited
}

/// A case takes a second; `make torture` tries hundreds.
fn cases() -> u64 {
    let told = std::env::var("MONTHS_CASES").ok();
    told.map_or(2, |cases| cases.parse().unwrap())
}

#[test]
fn calls_of_any_months_over_three_gates_of_which_one_is_cut_off_at_midnight_make_the_bills_of_one()
{
    for seed in 1..=cases() {
        let waited = live(seed);
        assert!(waited > 0, "seed {seed}: no month was waited for");
    }
}
