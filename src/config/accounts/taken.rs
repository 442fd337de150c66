//! What must be unique over all files: accounts, credentials, orders.

use crate::config::reader::{Item, point, quoted};
use crate::config::yaml::Place;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::PathBuf;

/// Where everything that must be unique over all files was first given.
#[derive(Default)]
pub(in crate::config) struct Taken {
    /// The files read so far, the current one last.
    pub files: Vec<PathBuf>,
    pub accounts: FirstAt<Box<str>>,
    pub secret_ids: FirstAt<Box<str>>,
    pub api_keys: FirstAt<[u8; 32]>,
    pub orders: FirstAt<Box<str>>,
    pub adjustments: FirstAt<Box<str>>,
}

/// The file, by its place in [`Taken::files`], and the place in it.
pub(in crate::config) type FirstAt<K> = HashMap<K, (usize, Place)>;

/// Reports that `what` is taken, or takes it.
pub(in crate::config) fn take<K: Eq + Hash>(
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

/// Whether this is the SHA-256 of nothing: an empty text would be the key.
pub(in crate::config) fn is_of_nothing(sha256: &[u8; 32]) -> bool {
    hex::encode(sha256) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
}

/// What is said of it.
pub(in crate::config) const OF_NOTHING: &str =
    "is the SHA-256 of an empty text: hash the key itself";

/// An order id, which no other order has.
pub(in crate::config) fn order(item: Item<'_>, taken: &mut Taken) -> Option<Box<str>> {
    let order = entry_id(item, "an order id of 1 to 64 of 0-9, A-Z, a-z, . _ and -")?;
    let what = format!("order {}", quoted(&order));
    let remedy = "an order is entered once; correct one of the two";
    let Taken { files, orders, .. } = &mut *taken;
    let (key, place) = (order.clone(), item.place());
    take(orders, files, key, item, place, &what, remedy)?;
    Some(order)
}

/// The id of a manual adjustment, which no other one has.
pub(in crate::config) fn adjustment_id(item: Item<'_>, taken: &mut Taken) -> Option<Box<str>> {
    let id = entry_id(item, "an id of 1 to 64 of 0-9, A-Z, a-z, . _ and -")?;
    let what = format!("adjustment {}", quoted(&id));
    let remedy = "an adjustment is entered once; correct one of the two";
    let Taken {
        files, adjustments, ..
    } = &mut *taken;
    let (key, place) = (id.clone(), item.place());
    take(adjustments, files, key, item, place, &what, remedy)?;
    Some(id)
}

fn entry_id(item: Item<'_>, what: &str) -> Option<Box<str>> {
    item.parsed(what, |text| {
        let fits = text.len() <= 64
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        fits.then(|| Box::<str>::from(text))
    })
}
