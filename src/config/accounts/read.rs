//! A file of accounts -> [`Account`]s.
//!
//! No message about a credential repeats a value: people paste a key into the wrong field.

use crate::config::accounts::services::service;
use crate::config::accounts::taken::{Taken, adjustment_id, order, take};
use crate::config::accounts::{Account, Adjustment, Credential, Payment};
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
    let name = fields.required("name", "Example Studio", |i| i.text().map(str::to_owned));
    let credentials = fields.or("keys", Vec::new(), |item| {
        item.each(|item| credential(item, taken))
    });
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
    fields.close();
    Some(Account {
        id: id?,
        name: name?,
        credentials: credentials?.into(),
        payments: payments?.into(),
        adjustments: adjustments?.into(),
        credit_limit: credit_limit?,
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

fn adjustment(item: Item<'_>, taken: &mut Taken) -> Option<Adjustment> {
    let mut fields = item.fields()?;
    let id = fields.required("id", "A-1", |i| adjustment_id(i, taken));
    let at = fields.required("at", "2026-11-15T10:00:00+08:00", Item::instant);
    let amount = fields.required("amount", "\"-12.50\"", Item::signed_amount);
    let reason = fields.required("reason", "a pack that was entered too late", Item::text);
    let by = fields.required("by", "Li Wei", Item::text);
    fields.close();
    Some(Adjustment {
        id: id?,
        at: at?,
        amount: amount?,
        reason: reason?.into(),
        by: by?.into(),
    })
}
