//! A file of accounts -> [`Account`]s.

use crate::config::accounts::keys::keys;
use crate::config::accounts::licences;
use crate::config::accounts::services::service;
use crate::config::accounts::taken::{Taken, adjustment_id, order, take};
use crate::config::accounts::{Account, Adjustment, Payment};
use crate::config::catalog;
use crate::config::reader::{Entry, Item, Source, all, quoted};
use crate::config::yaml::{self, Places};
use crate::model::AccountId;
use rust_decimal::Decimal;

/// The least bytes of accounts that are read at once, when they can be.
const PIECE_BYTES: usize = 64 << 10;

/// Reads one file. `taken` holds what the files before it gave. Without places it goes by pieces
/// when it can: then it finds a mistake exactly when the whole has one, but cannot say well which
/// one it is.
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

fn account(entry: Entry<'_>, catalog: &catalog::Reading, taken: &mut Taken) -> Option<Account> {
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
    let name = fields.required("name", "Example Studio", |i| i.line().map(str::to_owned));
    let keys = fields.or("keys", Vec::new(), |item| keys(item, taken));
    let payments = fields.or("payments", Vec::new(), |item| {
        item.each(|item| payment(item, taken))
    });
    let adjustments = fields.or("adjustments", Vec::new(), |item| {
        item.each(|item| adjustment(item, taken))
    });
    let credit_limit = fields.or("credit_limit", Decimal::ZERO, Item::amount);
    let services = fields.or("services", Vec::new(), |item| {
        all(item
            .entries()?
            .into_iter()
            .map(|entry| service(entry, catalog, taken)))
    });
    let bought = fields.or("licences", Vec::new(), |item| {
        licences::orders(item, catalog, taken)
    });
    let licence_keys = fields.or("licence_keys", Vec::new(), |item| {
        licences::keys(item, taken)
    });
    fields.close();
    Some(Account {
        id: id?,
        name: name?,
        keys: keys?.into(),
        payments: payments?.into(),
        adjustments: adjustments?.into(),
        credit_limit: credit_limit?,
        services: services?.into(),
        licences: bought?.into(),
        licence_keys: licence_keys?.into(),
    })
}

fn payment(item: Item<'_>, taken: &mut Taken) -> Option<Payment> {
    let mut fields = item.fields()?;
    let order = fields.required("order", "T-1", |i| order(i, taken));
    let at = fields.required("at", "2026-11-01T00:00:00+08:00", Item::instant);
    let amount = fields.required("amount", "\"500\"", |i| i.whole_fen(i.price()?));
    fields.close();
    Some(Payment {
        order: order?,
        at: at?,
        amount: amount?,
    })
}

fn adjustment(item: Item<'_>, taken: &mut Taken) -> Option<Adjustment> {
    let mut fields = item.fields()?;
    let id = fields.required("id", "A-1", |i| adjustment_id(i, taken));
    let at = fields.required("at", "2026-11-15T10:00:00+08:00", Item::instant);
    let amount = fields.required("amount", "\"-12.50\"", |i| i.whole_fen(i.signed_amount()?));
    let reason = fields.required("reason", "a pack that was entered too late", Item::line);
    let by = fields.required("by", "Li Wei", Item::line);
    fields.close();
    Some(Adjustment {
        id: id?,
        at: at?,
        amount: amount?,
        reason: reason?.into(),
        by: by?.into(),
    })
}
