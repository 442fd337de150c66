//! An account's `keys` -> [`Key`]s.
//!
//! Owns which keys may have one id. No message here repeats a value: people paste a key into the
//! wrong field.

use crate::config::accounts::taken::{OF_NOTHING, Taken, is_of_nothing, take};
use crate::config::accounts::{Credential, Key};
use crate::config::reader::{Fields, Item, point};
use crate::config::settings::network;
use crate::config::yaml::Place;
use crate::model::KeyId;
use ipnet::IpNet;
use std::mem::discriminant;

/// A call is compared with each of them.
const MAX_ADDRESSES: usize = 64;

/// A key that was read, as far as the next ones must know it.
struct Known {
    key: Key,
    is_named: bool,
    at: Place,
}

pub(in crate::config) fn keys(item: Item<'_>, taken: &mut Taken) -> Option<Vec<Key>> {
    let mut known: Vec<Known> = Vec::new();
    item.each(|item| {
        let (name, key) = key(item, taken)?;
        let read = Known {
            is_named: name.is_some(),
            at: name.unwrap_or(item).place(),
            key,
        };
        check_id(name.unwrap_or(item), &known, &read)?;
        known.push(read);
        Some(())
    })?;
    Some(known.into_iter().map(|known| known.key).collect())
}

/// Two keys have one id while a secret is rotated: then both are named, and of one kind.
fn check_id(item: Item<'_>, known: &[Known], new: &Known) -> Option<()> {
    let mut alike = known.iter().filter(|known| known.key.id == new.key.id);
    let Some(first) = alike.next() else {
        return Some(());
    };
    let at = point(item.source.path(), first.at);
    let kind = |known: &Known| discriminant(&known.key.credential);
    if !(first.is_named && new.is_named) {
        return item.refuse(format!(
            "has the same id as the key at {at}: give each of the two a `name` of its own, or, while a secret is \
             rotated, both the same one"
        ));
    }
    if kind(first) != kind(new) {
        return item.refuse(format!(
            "is the name of a key of the other kind, at {at}: a rotation keeps the kind; choose another name"
        ));
    }
    match alike.next() {
        Some(_) => item.refuse(format!(
            "two keys have this name already, the first at {at}: remove the one that was rotated out"
        )),
        None => Some(()),
    }
}

/// A key, and the place of its name.
fn key<'a>(item: Item<'a>, taken: &mut Taken) -> Option<(Option<Item<'a>>, Key)> {
    let mut fields = item.fields()?;
    let credential = credential(item, &mut fields, taken);
    let name_at = fields.get("name");
    let name = fields.optional("name", name);
    let expires = fields.optional("expires", Item::instant);
    let addresses = fields.or("allowed_addresses", Vec::new(), addresses);
    fields.close();
    let unnamed = Key::from(credential?);
    let key = Key {
        id: name?.unwrap_or(unnamed.id),
        expires: expires?,
        allowed_addresses: addresses?.into(),
        credential: unnamed.credential,
    };
    Some((name_at, key))
}

fn name(item: Item<'_>) -> Option<KeyId> {
    // An empty text is refused by `text`.
    match KeyId::new(item.text()?) {
        Some(name) => Some(name),
        None => item.refuse("is not a name of a key: use 1 to 32 of 0-9, A-Z, a-z, _ . and -"),
    }
}

fn addresses(item: Item<'_>) -> Option<Vec<IpNet>> {
    let networks = item.each(network)?;
    match networks.len() {
        0 => {
            item.refuse("is empty: no client could use the key; name a network, or remove the list")
        }
        1..=MAX_ADDRESSES => Some(networks),
        _ => item.refuse(format!("has more than {MAX_ADDRESSES} networks: join some")),
    }
}

fn credential<'a>(
    item: Item<'a>,
    fields: &mut Fields<'a>,
    taken: &mut Taken,
) -> Option<Credential> {
    const REMEDY: &str = "a credential names one account; issue another";
    let secret_id = fields.get("secret_id");
    let secret_key = fields.get("secret_key");
    let sha256 = fields.get("api_key_sha256");
    match (secret_id, secret_key, sha256) {
        (Some(id), Some(key), None) => {
            let secret_key = key.secret();
            let text = id.text()?;
            let is_id = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
            if text.len() > 128 || !text.bytes().all(is_id) {
                return id.refuse("is not a secret id: use 1 to 128 of 0-9, A-Z, a-z, _ and -");
            }
            let Taken {
                files, secret_ids, ..
            } = &mut *taken;
            let (what, at) = ("this secret id", id.place());
            take(secret_ids, files, text.into(), id, at, what, REMEDY)?;
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
                return item.refuse(
                    "expected the SHA-256 of the key as 64 lowercase hex digits, not the key itself",
                );
            }
            if is_of_nothing(&sha256) {
                return item.refuse(OF_NOTHING);
            }
            let Taken {
                files, api_keys, ..
            } = &mut *taken;
            let (what, at) = ("this API key", item.place());
            take(api_keys, files, sha256, item, at, what, REMEDY)?;
            Some(Credential::ApiKey { sha256 })
        }
        _ => item.refuse(
            "a key is either {secret_id, secret_key} or {api_key_sha256}: give one of the two, whole",
        ),
    }
}
