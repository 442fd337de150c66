//! `catalog.yaml`: what is sold. The contract as data.
//!
//! Owns the shape of the offer. Must hold no price, cap or size of its own (CONTRACT, head).

use crate::config::reader::{Fields, Item, all, point, quoted};
use crate::config::yaml::Place;
use crate::words::{Action, Bill, GroupId, QUOTA_PATH, TierBasis, Utc};
use http::Method;
use jiff::civil::date;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;
use std::collections::HashMap;

/// No cap, quota or purchase is above this many calls per second.
pub const MAX_QPS: u32 = 1_000_000;
/// No count of calls is above this; with prices below 10^9 no bill leaves `Decimal`.
const MAX_CALLS: u64 = 1_000_000_000_000;

/// The whole of `catalog.yaml`.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// The provider's zone: months, days and the ends of periods are told by it (R11, R15, R16).
    /// A whole number of hours from UTC at every start of a month from 2020 to 2100.
    pub time_zone: TimeZone,
    /// Three capital letters.
    pub currency: String,
    /// Services accepted in the scope of a TC3 signature; not empty.
    pub services: Vec<String>,
    /// Versions accepted in `X-TC-Version`; not empty.
    pub versions: Vec<String>,
    /// Host names that a client may have signed instead of the one it sends (PROTOCOL §2).
    pub host_aliases: Vec<String>,
    /// Which admitted calls are billable.
    pub bill: Bill,
    /// The day of the month by whose end the month before is settled (R16); 1 to 28.
    pub settle_day: u8,
    /// In the order of the file; not empty. No action and no route occurs twice in all of them.
    pub groups: Vec<Group>,
}

/// Actions that share one cap, one meter and one price ladder (R1, R2).
#[derive(Clone, Debug)]
pub struct Group {
    /// Its key.
    pub id: GroupId,
    /// What people call it.
    pub title: String,
    /// Accepted values of `X-TC-Region`; empty: not asked for and not checked.
    pub regions: Vec<String>,
    /// Not empty.
    pub actions: Vec<ActionSpec>,
    /// What its calls cost.
    pub charging: Charging,
}

/// One API operation and how it is reached.
#[derive(Clone, Debug)]
pub struct ActionSpec {
    /// As `X-TC-Action` spells it.
    pub action: Action,
    /// `None`: only by `X-TC-Action`.
    pub route: Option<Route>,
}

/// How plain HTTP names an action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Begins with `/` and has more; compared exactly.
    pub path: String,
}

/// What the calls of a group cost.
#[derive(Clone, Debug)]
pub enum Charging {
    /// By one of two modes, of the account's choice (R3).
    Paid {
        /// The terms of `mode: per_call`.
        per_call: PerCall,
        /// The price ladder of `mode: qps` (R15); ascending from 1.
        qps: Vec<QpsPrice>,
    },
    /// Nothing (R2).
    Free {
        /// The cap of each action; 1 to 1,000,000.
        qps_per_action: u32,
    },
}

/// The terms of per-call mode.
#[derive(Clone, Debug)]
pub struct PerCall {
    /// The group's cap (R4); 1 to 1,000,000.
    pub qps: u32,
    /// The monthly free pack (R10); may be zero.
    pub free_calls: u64,
    /// Which calls decide the tier (R13).
    pub tier_basis: TierBasis,
    /// The post-paid ladder (R13); ascending from 0.
    pub tiers: Vec<Tier>,
    /// The prepaid packs on sale (R11); sizes differ.
    pub packs: Vec<PackPrice>,
    /// Validity of a pack (R11); 1 to 120.
    pub pack_months: u32,
    /// The share of a pack below which a notice is raised (R14); between 0 and 1.
    pub notice_below: Decimal,
}

/// One tier of the post-paid ladder.
#[derive(Clone, Debug)]
pub struct Tier {
    /// The tier holds from this many calls a month on.
    pub from: u64,
    /// For one call; above zero.
    pub price: Decimal,
}

/// A prepaid pack on sale.
#[derive(Clone, Debug)]
pub struct PackPrice {
    /// Its size; above zero.
    pub calls: u64,
    /// For the whole pack; above zero.
    pub price: Decimal,
}

/// One step of the QPS price ladder: the whole purchase at the price of its own size (R15).
#[derive(Clone, Debug)]
pub struct QpsPrice {
    /// The step holds from this quota on.
    pub from: u32,
    /// For one QPS for one month; above zero.
    pub month: Decimal,
    /// For one QPS for one day; above zero.
    pub day: Decimal,
}

/// What could be read of the catalogue: enough to check accounts against its sound parts.
#[derive(Default)]
pub(in crate::config) struct Reading {
    pub time_zone: Option<TimeZone>,
    /// `None` when not even the names are known. A group's terms are `None` when they are wrong.
    pub groups: Option<Vec<(GroupId, Option<Charging>)>>,
    complete: Option<Catalog>,
}

impl Reading {
    pub(in crate::config) fn complete(self) -> Option<Catalog> {
        self.complete
    }
}

pub(in crate::config) fn read(root: Item<'_>) -> Reading {
    let Some(mut fields) = root.fields() else {
        return Reading::default();
    };
    let time_zone = fields.required("time_zone", "Asia/Shanghai", time_zone);
    let currency = fields.required("currency", "CNY", |item| {
        item.parsed("a currency of three capital letters, such as CNY", |text| {
            (text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()))
                .then(|| text.to_owned())
        })
    });
    let services = fields.required("services", "[bda]", names);
    let versions = fields.required("versions", "[\"2020-03-24\"]", names);
    let host_aliases = fields.or("host_aliases", Vec::new(), |item| item.each(token));
    let spellings = Bill::ALL
        .iter()
        .map(|b| (b.as_str(), *b))
        .collect::<Vec<_>>();
    let bill = fields.or("bill", Bill::Served, |item| item.choice(&spellings));
    let settle_day = fields.or("settle_day", 3, |item| {
        item.whole32(1..=28).and_then(|n| u8::try_from(n).ok())
    });
    let example = "{GROUP: {title: TEXT, actions: {ACTION: {}}, free: {qps_per_action: 20}}}";
    let groups_read = fields.required("groups", example, groups);
    fields.close();

    let (groups, known) = groups_read.map_or((None, None), |g| (g.groups, Some(g.known)));
    let complete = || {
        Some(Catalog {
            time_zone: time_zone.clone()?,
            currency: currency?,
            services: services?,
            versions: versions?,
            host_aliases: host_aliases?,
            bill: bill?,
            settle_day: settle_day?,
            groups: groups?,
        })
    };
    Reading {
        complete: complete(),
        time_zone,
        groups: known,
    }
}

fn time_zone(item: Item<'_>) -> Option<TimeZone> {
    let zone = item.parsed("the name of a time zone, such as Asia/Shanghai", |text| {
        TimeZone::get(text).ok()
    })?;
    let months = (2020..=2100).flat_map(|year| (1..=12).map(move |month| date(year, month, 1)));
    for first in months {
        let start = first
            .to_zoned_datetime(zone.clone())
            .map(|start| Utc(start.timestamp().as_microsecond()));
        if !start.is_ok_and(|start| start.0.rem_euclid(3_600_000_000) == 0) {
            return item.refuse(format!(
                "the month of {first} does not begin on a whole hour of UTC there, and calls are rolled up by the hour: take a zone with whole-hour offsets"
            ));
        }
    }
    Some(zone)
}

/// A name that is compared with a part of a header field.
fn token(item: Item<'_>) -> Option<String> {
    item.parsed("1 to 255 letters, digits or any of . : - _ [ ]", |text| {
        let fits = (1..=255).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".:-_[]".contains(&b));
        fits.then(|| text.to_owned())
    })
}

fn names(item: Item<'_>) -> Option<Vec<String>> {
    let names = item.each(token)?;
    if names.is_empty() {
        return item.refuse("is empty: no signed call could ever be accepted");
    }
    Some(names)
}

struct Groups {
    groups: Option<Vec<Group>>,
    known: Vec<(GroupId, Option<Charging>)>,
}

/// Where names that must be unique over all groups were first given.
#[derive(Default)]
struct Taken {
    actions: HashMap<Action, Place>,
    routes: HashMap<Route, Place>,
}

fn groups(item: Item<'_>) -> Option<Groups> {
    let entries = item.entries()?;
    if entries.is_empty() {
        return item.refuse("is empty: a gate needs something to sell");
    }
    let mut taken = Taken::default();
    let mut known = Vec::new();
    let groups = all(entries.into_iter().map(|entry| {
        let id = GroupId::new(entry.key);
        if id.is_none() {
            let message = format!(
                "{} is not a group id: use 1 to 64 of a-z, 0-9 and -",
                quoted(entry.key)
            );
            item.source.refuse(entry.at, message);
        }
        let body = group(entry.value, &mut taken);
        let id = id?;
        let (charging, rest) = body.unwrap_or_default();
        known.push((id.clone(), charging.clone()));
        let (title, regions, actions) = rest?;
        Some(Group {
            id,
            title,
            regions,
            actions,
            charging: charging?,
        })
    }));
    Some(Groups { groups, known })
}

type Rest = (String, Vec<String>, Vec<ActionSpec>);

fn group(item: Item<'_>, taken: &mut Taken) -> Option<(Option<Charging>, Option<Rest>)> {
    let mut fields = item.fields()?;
    let title = fields.required("title", "人像分割", |i| i.text().map(str::to_owned));
    let regions = fields.or("regions", Vec::new(), |i| i.each(token));
    let actions = fields.required("actions", "{ACTION: {route: POST /path}}", |i| {
        actions(i, taken)
    });
    let charging = charging(item, &mut fields);
    fields.close();
    let rest = || Some((title?, regions?, actions?));
    Some((charging, rest()))
}

fn actions(item: Item<'_>, taken: &mut Taken) -> Option<Vec<ActionSpec>> {
    let entries = item.entries()?;
    if entries.is_empty() {
        return item.refuse("is empty: a group needs an action");
    }
    all(entries.into_iter().map(|entry| {
        let action = Action::new(entry.key);
        match &action {
            None => {
                let message = format!("{} is not an action: use 1 to 64 of 0-9, A-Z, a-z and _", quoted(entry.key));
                item.source.refuse(entry.at, message);
            }
            Some(action) => {
                if let Some(first) = taken.actions.insert(action.clone(), entry.at) {
                    let first = point(item.source.path(), first);
                    let message = format!("{action} is an action of another group already, at {first}: an action belongs to one group");
                    item.source.refuse(entry.at, message);
                }
            }
        }
        let mut fields = entry.value.fields()?;
        let route = fields.optional("route", |item| {
            let route = route(item)?;
            if let Some(first) = taken.routes.insert(route.clone(), item.place()) {
                let first = point(item.source.path(), first);
                return item.refuse(format!("{} {} leads to another action already, at {first}: give each action a route of its own", route.method, route.path));
            }
            Some(route)
        });
        fields.close();
        Some(ActionSpec {
            action: action?,
            route: route?,
        })
    }))
}

fn route(item: Item<'_>) -> Option<Route> {
    const METHODS: [Method; 5] = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
    ];
    let what = "METHOD /path, such as POST /v1/tasks, with GET, POST, PUT, PATCH or DELETE";
    let (method, path) = item.parsed(what, |text| {
        let (method, path) = text.split_once(' ')?;
        let method = METHODS.into_iter().find(|m| m.as_str() == method)?;
        let plain = path
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        (plain && path.starts_with('/')).then_some((method, path))
    })?;
    if path == "/" {
        return item.refuse(
            "`/` belongs to calls that name their action in X-TC-Action: give a longer path",
        );
    }
    if path == QUOTA_PATH {
        return item.refuse(format!(
            "{QUOTA_PATH} is the gate's own, where customers see their quota: give another path"
        ));
    }
    Some(Route {
        method,
        path: path.to_owned(),
    })
}

fn charging(item: Item<'_>, fields: &mut Fields<'_>) -> Option<Charging> {
    let (paid, free) = (fields.get("per_call"), fields.get("free"));
    let ladder = fields.get("qps");
    match (paid, ladder, free) {
        (None, None, Some(free)) => {
            let mut fields = free.fields()?;
            let qps_per_action =
                fields.required("qps_per_action", "20", |i| i.whole32(1..=MAX_QPS));
            fields.close();
            Some(Charging::Free {
                qps_per_action: qps_per_action?,
            })
        }
        (Some(paid), Some(ladder), None) => {
            let (per_call, qps) = (per_call(paid), qps_prices(ladder));
            Some(Charging::Paid {
                per_call: per_call?,
                qps: qps?,
            })
        }
        _ => item.refuse(
            "a group has either both `per_call` and `qps` (paid) or `free`: write what it costs",
        ),
    }
}

fn per_call(item: Item<'_>) -> Option<PerCall> {
    let mut fields = item.fields()?;
    let qps = fields.required("qps", "20", |i| i.whole32(1..=MAX_QPS));
    let free_calls = fields.required("free_calls", "1000", |i| i.whole(0..=MAX_CALLS));
    let tier_basis = fields.or("tier_basis", TierBasis::AllCalls, |i| {
        i.choice(&[
            ("all_calls", TierBasis::AllCalls),
            ("postpaid_calls", TierBasis::PostpaidCalls),
        ])
    });
    let tiers = fields.required("tiers", "[{from: 0, price: \"0.01\"}]", |item| {
        let tiers = item.each(|item| {
            let mut fields = item.fields()?;
            let from = fields.required("from", "0", |i| Some((i, i.whole(0..=MAX_CALLS)?)));
            let price = fields.required("price", "\"0.01\"", Item::price);
            fields.close();
            let (from_at, from) = from?;
            Some((
                from_at,
                Tier {
                    from,
                    price: price?,
                },
            ))
        })?;
        ladder(item, 0, tiers, |tier| tier.from)
    });
    let packs = fields.required("packs", "[{calls: 10000, price: \"88\"}]", |item| {
        let mut sizes = HashMap::new();
        item.each(|item| {
            let mut fields = item.fields()?;
            let calls = fields.required("calls", "10000", |item| {
                let calls = item.whole(1..=MAX_CALLS)?;
                match sizes.insert(calls, item.place()) {
                    Some(first) => item.refuse(format!(
                        "packs of {calls} have a price already, at {}: keep one",
                        point(item.source.path(), first)
                    )),
                    None => Some(calls),
                }
            });
            let price = fields.required("price", "\"88\"", Item::price);
            fields.close();
            Some(PackPrice {
                calls: calls?,
                price: price?,
            })
        })
    });
    let pack_months = fields.required("pack_months", "12", |i| i.whole32(1..=120));
    let notice_below = fields.required("notice_below", "15%", Item::percent);
    fields.close();
    Some(PerCall {
        qps: qps?,
        free_calls: free_calls?,
        tier_basis: tier_basis?,
        tiers: tiers?,
        packs: packs?,
        pack_months: pack_months?,
        notice_below: notice_below?,
    })
}

fn qps_prices(item: Item<'_>) -> Option<Vec<QpsPrice>> {
    let mut fields = item.fields()?;
    let prices = fields.required(
        "prices",
        "[{from: 1, month: \"880\", day: \"48\"}]",
        |item| {
            let prices = item.each(|item| {
                let mut fields = item.fields()?;
                let from = fields.required("from", "1", |i| Some((i, i.whole32(0..=MAX_QPS)?)));
                let month = fields.required("month", "\"880\"", Item::price);
                let day = fields.required("day", "\"48\"", Item::price);
                fields.close();
                let (from_at, from) = from?;
                let (month, day) = (month?, day?);
                Some((from_at, QpsPrice { from, month, day }))
            })?;
            ladder(item, 1, prices, |price| u64::from(price.from))
        },
    );
    fields.close();
    prices
}

/// Steps that begin at `start` and rise; each comes with the item that says where it begins.
fn ladder<T>(
    item: Item<'_>,
    start: u64,
    steps: Vec<(Item<'_>, T)>,
    from: impl Fn(&T) -> u64,
) -> Option<Vec<T>> {
    match steps.first() {
        None => return item.refuse(format!("is empty: give the step that begins at {start}")),
        Some((at, first)) if from(first) != start => {
            return at.refuse(format!(
                "the first step must begin at {start}, found {}",
                from(first)
            ));
        }
        Some(_) => {}
    }
    let falls = steps
        .windows(2)
        .find(|pair| from(&pair[1].1) <= from(&pair[0].1));
    if let Some([(_, before), (at, step)]) = falls {
        return at.refuse(format!(
            "steps must rise: {} follows {}; put them in order",
            from(step),
            from(before)
        ));
    }
    Some(steps.into_iter().map(|(_, step)| step).collect())
}
