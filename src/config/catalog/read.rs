//! `catalog.yaml` -> [`Catalog`].

use crate::config::Settings;
use crate::config::catalog::charging::charging;
use crate::config::catalog::licences::licences;
use crate::config::catalog::{ActionSpec, Catalog, Charging, Group, Route};
use crate::config::reader::{Item, all, nearest, point, quoted};
use crate::config::yaml::Place;
use crate::model::{Action, Bill, Endpoint, GroupId, Utc};
use http::Method;
use jiff::civil::date;
use jiff::tz::TimeZone;
use std::collections::HashMap;

/// What could be read of the catalogue: enough to check accounts against its sound parts.
#[derive(Default)]
pub(in crate::config) struct Reading {
    pub time_zone: Option<TimeZone>,
    /// `None` when not even the names are known. A group's terms are `None` when they are wrong.
    pub groups: Option<Vec<(GroupId, Option<Charging>)>>,
    /// Whether it has a section of licences, sound or not.
    pub sells_licences: bool,
    complete: Option<Catalog>,
}

impl Reading {
    pub(in crate::config) fn complete(self) -> Option<Catalog> {
        self.complete
    }
}

/// `settings`: no route may have their `health_path`. `upstreams`: the names that groups and actions
/// may name; `None` when they are not known.
pub(in crate::config) fn read(
    root: Item<'_>,
    settings: Option<&Settings>,
    upstreams: Option<&[&str]>,
) -> Reading {
    let known = Known {
        health_path: settings.and_then(|settings| settings.health_path.as_deref()),
        upstreams,
    };
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
    let groups_read = fields.required("groups", example, |item| groups(item, known));
    let sells_licences = fields.get("licences").is_some();
    let licences = fields.optional("licences", licences);
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
            licences: licences?,
        })
    };
    Reading {
        complete: complete(),
        time_zone,
        groups: known,
        sells_licences,
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

/// What the settings say that groups must heed.
#[derive(Clone, Copy)]
struct Known<'s> {
    /// The path that is none of a route.
    health_path: Option<&'s str>,
    /// The upstreams that there are.
    upstreams: Option<&'s [&'s str]>,
}

/// What must be known of all groups: where names that must be unique were first given.
struct Taken<'s> {
    actions: HashMap<Action, Place>,
    routes: HashMap<Route, Place>,
    known: Known<'s>,
}

impl Taken<'_> {
    /// The upstream that a group or an action names.
    fn upstream(&self, item: Item<'_>) -> Option<String> {
        let name = item.text()?;
        let Some(known) = self.known.upstreams else {
            return Some(name.to_owned());
        };
        if known.contains(&name) {
            return Some(name.to_owned());
        }
        let remedy = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "add it to `upstreams` of tollgate.yaml".to_owned(),
        };
        item.refuse(format!("there is no upstream {}: {remedy}", quoted(name)))
    }
}

fn groups(item: Item<'_>, known: Known<'_>) -> Option<Groups> {
    let entries = item.entries()?;
    if entries.is_empty() {
        return item.refuse("is empty: a gate needs something to sell");
    }
    let mut taken = Taken {
        actions: HashMap::new(),
        routes: HashMap::new(),
        known,
    };
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
        let (title, title_en, regions, actions) = rest?;
        Some(Group {
            id,
            title_en: title_en.unwrap_or_else(|| title.clone()),
            title,
            regions,
            actions,
            charging: charging?,
        })
    }));
    Some(Groups { groups, known })
}

type Rest = (String, Option<String>, Vec<String>, Vec<ActionSpec>);

fn group(item: Item<'_>, taken: &mut Taken<'_>) -> Option<(Option<Charging>, Option<Rest>)> {
    let mut fields = item.fields()?;
    let title = fields.required("title", "人像分割", |i| i.line().map(str::to_owned));
    let title_en = fields.or("title_en", None, |i| {
        i.line().map(|text| Some(text.to_owned()))
    });
    let regions = fields.or("regions", Vec::new(), |i| i.each(token));
    let upstream = fields.optional("upstream", |i| taken.upstream(i));
    let actions = fields.required("actions", "{ACTION: {route: POST /path}}", |i| {
        actions(i, upstream.clone().flatten(), taken)
    });
    let charging = charging(item, &mut fields);
    fields.close();
    let rest = || {
        upstream?;
        Some((title?, title_en?, regions?, actions?))
    };
    Some((charging, rest()))
}

/// `upstream`: that of the group.
fn actions(
    item: Item<'_>,
    upstream: Option<String>,
    taken: &mut Taken<'_>,
) -> Option<Vec<ActionSpec>> {
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
            Some(action) if Endpoint::of_action(entry.key.as_bytes()).is_some() => {
                let message = format!("{action} is the gate's own action, by which customers ask about their account: leave it out");
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
            if taken.known.health_path == Some(&*route.path) {
                return item.refuse(format!("{} is `health_path` of the settings, which answers without a credential: give another path", route.path));
            }
            if let Some(first) = taken.routes.insert(route.clone(), item.place()) {
                let first = point(item.source.path(), first);
                return item.refuse(format!("{} {} leads to another action already, at {first}: give each action a route of its own", route.method, route.path));
            }
            Some(route)
        });
        let own = fields.optional("upstream", |item| taken.upstream(item));
        fields.close();
        Some(ActionSpec {
            action: action?,
            route: route?,
            upstream: own?.or_else(|| upstream.clone()),
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
    if Endpoint::of_path(path).is_some() {
        return item.refuse(format!(
            "{path} is the gate's own, where customers ask about their account: give another path"
        ));
    }
    Some(Route {
        method,
        path: path.to_owned(),
    })
}
