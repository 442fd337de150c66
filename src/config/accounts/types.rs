//! The shape of `accounts.yaml`: who bought what.
//!
//! Must never say what a purchase is worth now: that is decided against an instant, elsewhere.

use crate::model::{AccountId, Fund, GroupId, KeyId, Mode, Origin, Package, Period, Stop, Utc};
use ipnet::IpNet;
use rust_decimal::Decimal;
use secrecy::SecretString;
use std::time::Duration;

/// A key that ends within so much time is told of beforehand.
pub(crate) const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// An order has at most so many packs.
pub(crate) const MAX_PACKS: u32 = 10_000;
/// Quota is bought for at most so many calendar months.
pub(crate) const MAX_MONTHS: u32 = 120;
/// Or for at most so many days.
pub(crate) const MAX_DAYS: u32 = 3_660;
/// An order is paid back within at most so many days: a year.
pub(crate) const MAX_REFUND_DAYS: u32 = 366;

/// A customer. There may be very many: nothing in here has room to spare.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its key.
    pub id: AccountId,
    /// What people call it; not empty.
    pub name: String,
    /// By which it is known (P6). No credential is in the file twice. At most two keys have one id.
    pub keys: Box<[Key]>,
    /// Towards post-paid charges (R17), in the order of the file.
    pub payments: Box<[Payment]>,
    /// What people corrected of its balance (R16), in the order of the file.
    pub adjustments: Box<[Adjustment]>,
    /// So far below zero its balance may fall before it is in arrears (R17). Zero or more.
    pub credit_limit: Decimal,
    /// The groups it has opened, each once.
    pub services: Box<[Service]>,
    /// Licences for its apps (R19), in the order of the file.
    pub licences: Box<[LicenceOrder]>,
    /// The keys that stand in its apps.
    pub licence_keys: Box<[LicenceKey]>,
}

/// A credential of an account: how long it holds, and from where.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name. Without one, the first 8 characters of the secret id or of the hash. Two keys have
    /// one id only while the secret is rotated, and then both are named.
    pub id: KeyId,
    /// Refused from then on.
    pub expires: Option<Utc>,
    /// It holds for clients in these networks; empty: from anywhere.
    pub allowed_addresses: Box<[IpNet]>,
    /// What a call sends or signs with.
    pub credential: Credential,
}

impl From<Credential> for Key {
    /// A key without a name that holds from anywhere and does not expire.
    fn from(credential: Credential) -> Self {
        let id = match &credential {
            Credential::Tc3 { secret_id, .. } => {
                KeyId::new(secret_id.get(..8).unwrap_or(secret_id))
            }
            Credential::ApiKey { sha256 } => KeyId::new(&hex::encode(&sha256[..4])),
        };
        Self {
            id: id.unwrap_or_default(),
            expires: None,
            allowed_addresses: Box::default(),
            credential,
        }
    }
}

impl Key {
    /// Whether it is refused at `now`.
    pub fn is_expired(&self, now: Utc) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// Whether it still holds at `now` and expires within [`EXPIRES_SOON`].
    pub fn expires_soon(&self, now: Utc) -> bool {
        let ends = |expires| now < expires && expires <= now.plus(EXPIRES_SOON);
        self.expires.is_some_and(ends)
    }
}

impl Account {
    /// Whether another key with the id of this one holds longer: it is being rotated out.
    pub fn is_followed(&self, key: &Key) -> bool {
        let end = |key: &Key| key.expires.unwrap_or(Utc(i64::MAX));
        let mut others = self.keys.iter().filter(|other| other.id == key.id);
        others.any(|other| end(other) > end(key))
    }

    /// Whether both have the same orders in the same groups, payments and manual adjustments.
    pub(crate) fn has_same_entries(&self, other: &Self) -> bool {
        let orders = |account: &Self| -> Vec<_> {
            let services = account.services.iter();
            services
                .map(|of| (of.group.clone(), of.packs.clone(), of.qps_purchases.clone()))
                .collect()
        };
        orders(self) == orders(other)
            && self.licences == other.licences
            && self.payments == other.payments
            && self.adjustments == other.adjustments
    }
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payment {
    /// 1 to 64 of `[0-9A-Za-z._-]`.
    pub order: Box<str>,
    /// When it counts from.
    pub at: Utc,
    /// Above zero.
    pub amount: Decimal,
}

/// A manual adjustment of a balance (R16): a correction that no rule makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Adjustment {
    /// As [`Payment::order`]. No other adjustment has it.
    pub id: Box<str>,
    /// When it counts from.
    pub at: Utc,
    /// In the customer's favour above zero, against it below; never zero.
    pub amount: Decimal,
    /// Why; not empty.
    pub reason: Box<str>,
    /// Who decided it; not empty.
    pub by: Box<str>,
}

/// A decision of the provider's that an order is not paid back (R18).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefundRefused {
    /// Why; not empty.
    pub reason: Box<str>,
    /// Who decided it; not empty.
    pub by: Box<str>,
    /// When.
    pub at: Utc,
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pack {
    /// As [`Payment::order`].
    pub order: Box<str>,
    /// The size of one pack: one that the catalogue sells.
    pub calls: u64,
    /// The number of packs; 1 to 10,000.
    pub count: u32,
    /// Valid from here on.
    pub delivered: Utc,
    /// Excluded; the catalogue's `pack_months` after delivery.
    pub expires: Utc,
    /// By which funds; zero for what was not bought.
    pub paid: Paid,
    /// How the account came by it.
    pub origin: Origin,
    /// Whether a refund applies at all (R18).
    pub refundable: bool,
    /// The days after that of delivery on which it is paid back, when the order has a rule of its
    /// own (R18).
    pub refund_days: Option<u16>,
    /// That it is not paid back, by decision. Never together with `refunded`.
    pub refund_refused: Option<Box<RefundRefused>>,
    /// When it was paid back; not before delivery.
    pub refunded: Option<Utc>,
    /// Why something else was paid than the price list says.
    pub discount: Option<Box<str>>,
}

/// An order of quota for a period (R6, R15).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QpsPurchase {
    /// As [`Payment::order`].
    pub order: Box<str>,
    /// Calls per second; 1 to 1,000,000.
    pub qps: u32,
    /// In force from here on.
    pub from: Utc,
    /// Excluded; after `from` by calendar months or days.
    pub until: Utc,
    /// What the price goes by (R15).
    pub(crate) period: Period,
    /// By which funds.
    pub paid: Paid,
    /// As [`Pack::discount`].
    pub discount: Option<Box<str>>,
}

/// An order of a licence for an app, for whole years (R19).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LicenceOrder {
    /// As [`Payment::order`].
    pub order: Box<str>,
    /// The app that it is for.
    pub package: Package,
    /// In force from here on.
    pub from: Utc,
    /// Excluded; the same local clock time whole years after `from`.
    pub until: Utc,
    /// 1 to 10.
    pub years: u32,
    /// By which funds.
    pub paid: Paid,
    /// As [`Pack::discount`].
    pub discount: Option<Box<str>>,
}

/// A key that stands in the provider's customers' apps (R19): whoever has the app has it, so it
/// obtains grants and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LicenceKey {
    /// Of the key's bytes. No key of calls has it.
    pub sha256: [u8; 32],
    /// The packages that it obtains grants for; empty: all of the account.
    pub packages: Box<[Package]>,
    /// Refused from then on.
    pub expires: Option<Utc>,
}

/// The funds that an order was paid from (R18), with amounts above zero: there are as many orders
/// as purchases, and nearly all of them were paid from one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Paid(pub(in crate::config) Box<[(Fund, Decimal)]>);

impl Paid {
    /// What each fund paid, in the order of [`Fund::ALL`].
    pub fn funds(&self) -> impl Iterator<Item = (Fund, Decimal)> {
        self.0.iter().copied()
    }
}
