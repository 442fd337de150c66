//! `accounts.yaml`: who bought what.
//!
//! Owns the shape of an account and the ends of what it bought. Must never say what a purchase is
//! worth now: that is decided against an instant, elsewhere.

use crate::config::catalog::{self, Charging, MAX_QPS, PerCall};
use crate::config::reader::{self, Fields, Item, Source, all, nearest, point, quoted};
use crate::config::yaml::{self, Place, Places};
use crate::words::{AccountId, Fund, GroupId, Mode, Origin, Stop, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;
use secrecy::SecretString;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::PathBuf;

/// An order has at most so many packs.
pub const MAX_PACKS: u32 = 10_000;
/// Quota is bought for at most so many calendar months.
pub const MAX_MONTHS: u32 = 120;
/// Or for at most so many days.
pub const MAX_DAYS: u32 = 3_660;

/// The least bytes of accounts that are read at once, when they can be.
const PIECE_BYTES: usize = 64 << 10;

/// A customer. There may be very many: nothing in here has room to spare.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its key.
    pub id: AccountId,
    /// What people call it; not empty.
    pub name: String,
    /// By which it is known (P6). No credential is in the file twice.
    pub credentials: Box<[Credential]>,
    /// Towards post-paid charges (R17), in the order of the file.
    pub payments: Box<[Payment]>,
    /// The groups it has opened, each once.
    pub services: Box<[Service]>,
}

/// What a call proves who it is by.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A key pair for TC3 signatures (PROTOCOL §2).
    Tc3 {
        /// Public; `[0-9A-Za-z_-]{1,128}`.
        secret_id: Box<str>,
        /// Not empty.
        secret_key: SecretString,
    },
    /// A key sent as it is, over TLS.
    ApiKey {
        /// Of the key's bytes: the file need not hold the key.
        sha256: [u8; 32],
    },
}

/// Money received. Its order id, like every other, is in the file once.
#[derive(Clone, Debug)]
pub struct Payment {
    /// 1 to 64 of `[0-9A-Za-z._-]`.
    pub order: Box<str>,
    /// When it counts from.
    pub at: Utc,
    /// Above zero.
    pub amount: Decimal,
}

/// A group that an account has opened.
#[derive(Clone, Debug)]
pub struct Service {
    /// In the catalogue.
    pub group: GroupId,
    /// From when on calls are admitted (R9).
    pub opened: Utc,
    /// `Free` exactly in a free group (R2, R3).
    pub mode: Mode,
    /// Prepaid packs (R11); none in a free group.
    pub packs: Box<[Pack]>,
    /// Bought quota (R6), whatever the mode now; none in a free group. At no instant is more than
    /// 1,000,000 in force.
    pub qps_purchases: Box<[QpsPurchase]>,
    /// `None` in good standing.
    pub stopped: Option<Stop>,
}

/// An order of prepaid packs (R11).
#[derive(Clone, Debug)]
pub struct Pack {
    /// As [`Payment::order`].
    pub order: Box<str>,
    /// The size of one pack: one that the catalogue sells.
    pub calls: u64,
    /// How many of them; 1 to 10,000.
    pub count: u32,
    /// Valid from here on.
    pub delivered: Utc,
    /// Excluded; the catalogue's `pack_months` after delivery.
    pub expires: Utc,
    /// By which funds; zero for what was not bought.
    pub paid: Paid,
    /// How the account came by it.
    pub origin: Origin,
    /// Whether the seven-day refund applies at all (R18).
    pub refundable: bool,
    /// When it was paid back; not before delivery.
    pub refunded: Option<Utc>,
}

/// An order of quota for a period (R6, R15).
#[derive(Clone, Debug)]
pub struct QpsPurchase {
    /// As [`Payment::order`].
    pub order: Box<str>,
    /// Calls per second; 1 to 1,000,000.
    pub qps: u32,
    /// In force from here on.
    pub from: Utc,
    /// Excluded; after `from` by calendar months or days.
    pub until: Utc,
    /// By which funds.
    pub paid: Paid,
}

/// The funds that an order was paid from (R18), with amounts above zero: there are as many orders as
/// purchases, and nearly all of them were paid from one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Paid(Box<[(Fund, Decimal)]>);

impl Paid {
    /// What each fund paid, in the order of [`Fund::ALL`].
    pub fn funds(&self) -> impl Iterator<Item = (Fund, Decimal)> {
        self.0.iter().copied()
    }
}

/// Where everything that must be unique over all files was first given.
#[derive(Default)]
pub(in crate::config) struct Taken {
    /// The files read so far, the current one last.
    files: Vec<PathBuf>,
    accounts: FirstAt<Box<str>>,
    secret_ids: FirstAt<Box<str>>,
    api_keys: FirstAt<[u8; 32]>,
    orders: FirstAt<Box<str>>,
}

/// The file, by its place in [`Taken::files`], and the place in it.
type FirstAt<K> = HashMap<K, (usize, Place)>;

/// Reports that `what` is taken, or takes it.
fn take<K: Eq + Hash>(
    taken: &mut FirstAt<K>,
    files: &[PathBuf],
    key: K,
    item: Item<'_>,
    at: Place,
    what: &str,
    remedy: &str,
) -> Option<()> {
    match taken.entry(key) {
        Entry::Occupied(first) => {
            let (file, place) = *first.get();
            let first = files
                .get(file)
                .map_or_else(String::new, |file| point(file, place));
            item.source.refuse(
                at,
                item.named(format!("{what} is in use already, at {first}: {remedy}")),
            );
            None
        }
        Entry::Vacant(free) => {
            free.insert((files.len().saturating_sub(1), at));
            Some(())
        }
    }
}

/// Reads one file. `taken` holds what the files before it gave. Without places it goes by pieces when it
/// can: then it finds a mistake exactly when the whole has one, but cannot say well which one it is.
pub(in crate::config) fn read(
    source: &Source,
    bytes: &[u8],
    places: Places,
    catalog: &catalog::Reading,
    taken: &mut Taken,
) -> Option<Vec<Account>> {
    taken.files.push(source.path().to_owned());
    let mut each = |item: Item<'_>| {
        all(item
            .entries()?
            .into_iter()
            .map(|entry| account(entry, catalog, taken)))
    };
    let text = std::str::from_utf8(bytes).ok();
    let pieces = match places {
        Places::Wanted => None,
        Places::Skipped => text.and_then(|text| yaml::pieces(text, "accounts", PIECE_BYTES)),
    };
    let Some(pieces) = pieces else {
        let root = source.parse(bytes, places)?;
        let mut fields = source.root(&root).fields()?;
        let accounts = fields.required("accounts", "{}", each);
        fields.close();
        return accounts;
    };
    let mut accounts = Vec::new();
    for piece in pieces {
        let entries = source.parse(piece.as_bytes(), places)?;
        accounts.extend(each(source.root(&entries))?);
    }
    Some(accounts)
}

fn account(
    entry: reader::Entry<'_>,
    catalog: &catalog::Reading,
    taken: &mut Taken,
) -> Option<Account> {
    let id = AccountId::new(entry.key);
    if id.is_none() {
        let message = format!(
            "{} is not an account id: use 1 to 32 of 0-9, A-Z, a-z, _ and -",
            quoted(entry.key)
        );
        entry.value.source.refuse(entry.at, message);
    }
    let what = format!("account {}", quoted(entry.key));
    let id = id.filter(|_| {
        let remedy = "an account stands in one file; merge the two";
        let Taken {
            files, accounts, ..
        } = &mut *taken;
        take(
            accounts,
            files,
            entry.key.into(),
            entry.value,
            entry.at,
            &what,
            remedy,
        )
        .is_some()
    });
    let mut fields = entry.value.fields()?;
    let name = fields.required("name", "Example Studio", |i| i.text().map(str::to_owned));
    let credentials = fields.or("keys", Vec::new(), |item| {
        item.each(|item| credential(item, taken))
    });
    let payments = fields.or("payments", Vec::new(), |item| {
        item.each(|item| payment(item, taken))
    });
    let services = fields.or("services", Vec::new(), |item| {
        all(item
            .entries()?
            .into_iter()
            .map(|entry| service(entry, catalog, taken)))
    });
    fields.close();
    Some(Account {
        id: id?,
        name: name?,
        credentials: credentials?.into(),
        payments: payments?.into(),
        services: services?.into(),
    })
}

// No message in here repeats a value: people paste a key into the wrong field.
fn credential(item: Item<'_>, taken: &mut Taken) -> Option<Credential> {
    let mut fields = item.fields()?;
    let secret_id = fields.get("secret_id");
    let secret_key = fields.get("secret_key");
    let sha256 = fields.get("api_key_sha256");
    fields.close();
    match (secret_id, secret_key, sha256) {
        (Some(id), Some(key), None) => {
            let secret_key = key.secret();
            let text = id.text()?;
            let fits = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if !fits {
                return id.refuse("is not a secret id: use 1 to 128 of 0-9, A-Z, a-z, _ and -");
            }
            let remedy = "a credential names one account; issue another";
            let Taken { files, secret_ids, .. } = &mut *taken;
            take(secret_ids, files, text.into(), id, id.place(), "this secret id", remedy)?;
            Some(Credential::Tc3 {
                secret_id: text.into(),
                secret_key: secret_key?,
            })
        }
        (None, None, Some(item)) => {
            let text = item.text()?;
            let mut sha256 = [0; 32];
            let lower = !text.bytes().any(|b| b.is_ascii_uppercase());
            if !lower || hex::decode_to_slice(text, &mut sha256).is_err() {
                return item.refuse("expected the SHA-256 of the key as 64 lowercase hex digits, not the key itself");
            }
            let remedy = "a credential names one account; issue another";
            let Taken { files, api_keys, .. } = &mut *taken;
            take(api_keys, files, sha256, item, item.place(), "this API key", remedy)?;
            Some(Credential::ApiKey { sha256 })
        }
        _ => item.refuse("a key is either {secret_id, secret_key} or {api_key_sha256}: give one of the two, whole"),
    }
}

fn order(item: Item<'_>, taken: &mut Taken) -> Option<Box<str>> {
    let order = item.parsed(
        "an order id of 1 to 64 of 0-9, A-Z, a-z, . _ and -",
        |text| {
            let fits = text.len() <= 64
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            fits.then(|| Box::<str>::from(text))
        },
    )?;
    let what = format!("order {}", quoted(&order));
    let Taken { files, orders, .. } = &mut *taken;
    let remedy = "an order is entered once; correct one of the two";
    take(
        orders,
        files,
        order.clone(),
        item,
        item.place(),
        &what,
        remedy,
    )?;
    Some(order)
}

fn payment(item: Item<'_>, taken: &mut Taken) -> Option<Payment> {
    let mut fields = item.fields()?;
    let order = fields.required("order", "T-1", |i| order(i, taken));
    let at = fields.required("at", "2026-11-01T00:00:00+08:00", Item::instant);
    let amount = fields.required("amount", "\"500\"", Item::price);
    fields.close();
    Some(Payment {
        order: order?,
        at: at?,
        amount: amount?,
    })
}

/// What the catalogue says of a group, as far as it is sound.
#[derive(Clone, Copy)]
enum Offer<'c> {
    Paid(&'c PerCall),
    Free,
    /// It was reported there.
    Unsound,
}

fn service(
    entry: reader::Entry<'_>,
    catalog: &catalog::Reading,
    taken: &mut Taken,
) -> Option<Service> {
    let item = entry.value;
    let mut group = None;
    let offer = match &catalog.groups {
        None => Some(Offer::Unsound),
        Some(groups) => {
            let known = groups.iter().find(|(id, _)| id.as_str() == entry.key);
            if known.is_none() {
                let ids = || groups.iter().map(|(id, _)| id.as_str());
                let remedy = nearest(entry.key, ids()).map_or_else(
                    || {
                        format!(
                            "the catalogue sells {}",
                            ids().collect::<Vec<_>>().join(", ")
                        )
                    },
                    |near| format!("did you mean {near:?}?"),
                );
                item.source.refuse(
                    entry.at,
                    format!("unknown group {}: {remedy}", quoted(entry.key)),
                );
            }
            group = known.map(|(id, _)| id.clone());
            known.map(|(_, charging)| match charging {
                Some(Charging::Paid { per_call, .. }) => Offer::Paid(per_call),
                Some(Charging::Free { .. }) => Offer::Free,
                None => Offer::Unsound,
            })
        }
    };
    let offer_or_unsound = offer.unwrap_or(Offer::Unsound);

    let mut fields = item.fields()?;
    for key in [
        "qps",
        "per_call",
        "cap",
        "quota",
        "limit",
        "rate",
        "qps_per_action",
        "per_call_qps",
    ] {
        fields.forbid(key, cap_refusal(offer_or_unsound));
    }
    if let Offer::Free = offer_or_unsound {
        for key in ["packs", "qps_purchases"] {
            fields.forbid(key, "a free group sells nothing: remove it");
        }
        fields.forbid("mode", "a free group has no mode: remove it");
    }
    let opened = fields.required("opened", "2026-11-01T00:00:00+08:00", Item::instant);
    let mode = fields.or("mode", Mode::PerCall, |i| {
        i.choice(&[("per_call", Mode::PerCall), ("qps", Mode::Qps)])
    });
    let packs = fields.or("packs", Vec::new(), |item| {
        item.each(|item| pack(item, offer_or_unsound, catalog.time_zone.as_ref(), taken))
    });
    let purchases_at = fields.get("qps_purchases");
    let qps_purchases = fields.or("qps_purchases", Vec::new(), |item| {
        item.each(|item| qps_purchase(item, catalog.time_zone.as_ref(), taken))
    });
    let stopped = fields.optional("stopped", |item| {
        item.choice(
            &Stop::ALL
                .iter()
                .map(|s| (s.as_str(), *s))
                .collect::<Vec<_>>(),
        )
    });
    fields.close();

    let qps_purchases = qps_purchases?;
    if let (Some(item), Some(at)) = (purchases_at, over_the_most(&qps_purchases)) {
        let at =
            Timestamp::from_microsecond(at.0).map_or_else(|_| String::new(), |t| t.to_string());
        item.refuse::<()>(format!(
            "more than {MAX_QPS} in force at {at}: remove or shorten a purchase"
        ))?;
    }
    Some(Service {
        // The catalogue's own text: every account that opened the group shares it.
        group: group?,
        opened: opened?,
        mode: if let Offer::Free = offer_or_unsound {
            Mode::Free
        } else {
            mode?
        },
        packs: packs?.into(),
        qps_purchases: qps_purchases.into(),
        stopped: stopped?,
    })
}

fn cap_refusal(offer: Offer<'_>) -> &'static str {
    match offer {
        Offer::Free => {
            "the cap of a free group is the same for every account and stands in the catalogue: remove it"
        }
        Offer::Paid(_) | Offer::Unsound => {
            "the per-call cap is the same for every account and not adjustable: for a higher rate write `mode: qps` and buy quota in `qps_purchases`"
        }
    }
}

fn pack(
    item: Item<'_>,
    offer: Offer<'_>,
    zone: Option<&TimeZone>,
    taken: &mut Taken,
) -> Option<Pack> {
    let terms = if let Offer::Paid(terms) = offer {
        Some(terms)
    } else {
        None
    };
    let mut fields = item.fields()?;
    let order = fields.required("order", "P-1", |i| order(i, taken));
    let calls = fields.required("calls", "10000", |item| {
        let calls = item.whole(1..=u64::MAX)?;
        match terms {
            Some(terms) if !terms.packs.iter().any(|p| p.calls == calls) => {
                let sizes: Vec<_> = terms.packs.iter().map(|p| p.calls.to_string()).collect();
                item.refuse(format!(
                    "no pack of {calls} is sold: the catalogue has {}",
                    sizes.join(", ")
                ))
            }
            _ => Some(calls),
        }
    });
    let count = fields.or("count", 1, |i| i.whole32(1..=MAX_PACKS));
    let delivered_at = fields.get("delivered");
    let delivered = fields.required("delivered", "2026-11-02T10:00:00+08:00", Item::instant);
    let origin = fields.or("origin", Origin::Bought, |i| {
        i.choice(
            &Origin::ALL
                .iter()
                .map(|o| (o.as_str(), *o))
                .collect::<Vec<_>>(),
        )
    });
    let paid = match origin {
        Some(Origin::Bought) => fields.required("paid", "{cash: \"88\"}", paid),
        _ => fields.or("paid", Paid::default(), paid),
    };
    let refundable = fields.or("refundable", true, Item::flag);
    let refunded_at = fields.get("refunded");
    let refunded = fields.optional("refunded", Item::instant);
    fields.close();
    if let (Some(at), Some(delivered), Some(Some(refunded))) = (refunded_at, delivered, refunded)
        && refunded < delivered
    {
        at.refuse::<()>("is before `delivered`: correct one of the two")?;
    }
    let (delivered, zone, terms) = (delivered?, zone?, terms?);
    Some(Pack {
        order: order?,
        calls: calls?,
        count: count?,
        delivered,
        expires: end(
            delivered,
            Span::new().months(terms.pack_months),
            zone,
            delivered_at?,
        )?,
        paid: paid?,
        origin: origin?,
        refundable: refundable?,
        refunded: refunded?,
    })
}

fn qps_purchase(item: Item<'_>, zone: Option<&TimeZone>, taken: &mut Taken) -> Option<QpsPurchase> {
    let mut fields = item.fields()?;
    let order = fields.required("order", "Q-1", |i| order(i, taken));
    let qps = fields.required("qps", "10", |i| i.whole32(1..=MAX_QPS));
    let from_at = fields.get("from");
    let from = fields.required("from", "2026-11-01T00:00:00+08:00", Item::instant);
    let span = period(item, &mut fields);
    let paid = fields.required("paid", "{cash: \"7800\"}", paid);
    fields.close();
    let from = from?;
    Some(QpsPurchase {
        order: order?,
        qps: qps?,
        from,
        until: end(from, span?, zone?, from_at?)?,
        paid: paid?,
    })
}

/// `months: 1` or `days: 3`.
fn period(item: Item<'_>, fields: &mut Fields<'_>) -> Option<Span> {
    let months = fields.optional("months", |i| i.whole32(1..=MAX_MONTHS));
    let days = fields.optional("days", |i| i.whole32(1..=MAX_DAYS));
    match (months?, days?) {
        (Some(months), None) => Some(Span::new().months(months)),
        (None, Some(days)) => Some(Span::new().days(days)),
        _ => item.refuse("a purchase runs for either `months` or `days`: give one of the two"),
    }
}

/// The same local clock time after whole months or days, clamped to the month's end (R11, R15).
fn end(from: Utc, span: Span, zone: &TimeZone, item: Item<'_>) -> Option<Utc> {
    let end = Timestamp::from_microsecond(from.0)
        .and_then(|from| from.to_zoned_datetime(zone.clone()).checked_add(span))
        .map(|end| Utc(end.timestamp().as_microsecond()));
    match end {
        Ok(end) if end > from => Some(end),
        _ => item.refuse("its period does not end after it begins: correct the date"),
    }
}

fn paid(item: Item<'_>) -> Option<Paid> {
    let mut fields = item.fields()?;
    let amounts = all(Fund::ALL.iter().map(|fund| {
        let amount = fields.or(fund.as_str(), Decimal::ZERO, Item::amount)?;
        Some((*fund, amount))
    }));
    fields.close();
    let paid = amounts?.into_iter().filter(|(_, amount)| !amount.is_zero());
    Some(Paid(paid.collect()))
}

/// The first instant at which more than [`MAX_QPS`] is in force.
fn over_the_most(purchases: &[QpsPurchase]) -> Option<Utc> {
    let mut changes: Vec<(Utc, i64)> = purchases
        .iter()
        .flat_map(|p| [(p.from, i64::from(p.qps)), (p.until, -i64::from(p.qps))])
        .collect();
    // At one instant ends come before beginnings: an end is excluded.
    changes.sort_unstable();
    let mut in_force = 0;
    changes
        .into_iter()
        .find(|(_, change)| {
            in_force += change;
            in_force > i64::from(MAX_QPS)
        })
        .map(|(at, _)| at)
}
