//! The keys of a generation: who has one, whether it holds for a call, and when it was last used.
//!
//! Pure but for two figures that a call counts up. Must never say why a key does not hold to
//! whoever has not proven it.

use crate::config::{Credential, Key};
use crate::metrics::{IntCounter, Metrics};
use crate::model::{AccountId, KeyId, Utc, is_in};
use crate::proxy::identity::api_key::ApiKeyDigest;
use crate::proxy::identity::tc3::{SigningKeys, SigningSecret};
use crate::proxy::policy::KnownAccount;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

/// A key of an account, as it is found by its credential.
pub struct KnownKey {
    account: Arc<KnownAccount>,
    /// The place in the account's list, which alone has the texts.
    pub(super) index: usize,
    signing_keys: SigningKeys,
    /// Made by its first call: most of many keys are idle.
    usage: OnceLock<Arc<KeyUsage>>,
}

/// The id of a key, and the figures that are kept under it. They outlive the generation.
pub(crate) struct KeyUsage {
    id: KeyId,
    calls: IntCounter,
    /// In seconds since the Unix epoch; [`NEVER`] before its first call.
    last_second: AtomicI64,
}

const NEVER: i64 = i64::MIN;

impl KeyUsage {
    fn new(id: KeyId, calls: IntCounter) -> Self {
        Self {
            id,
            calls,
            last_second: AtomicI64::new(NEVER),
        }
    }

    /// The id that the calls are counted under.
    pub(crate) fn id(&self) -> &KeyId {
        &self.id
    }

    /// Counts a call that was admitted at `at`.
    pub(crate) fn admitted(&self, at: Utc) {
        self.calls.inc();
        // Written once a second, so that the workers seldom take the line from each other.
        let second = at.seconds();
        if self.last_second.load(Ordering::Relaxed) != second {
            self.last_second.store(second, Ordering::Relaxed);
        }
    }
}

/// Why a key that was proven does not hold for a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyBar {
    /// It has expired.
    Expired,
    /// The client's address is in none of its networks.
    Address,
}

impl KnownKey {
    /// Whose it is.
    pub fn account(&self) -> &Arc<KnownAccount> {
        &self.account
    }

    /// Its place in the list of the account's keys.
    pub(crate) fn index(&self) -> u32 {
        u32::try_from(self.index).unwrap_or(u32::MAX)
    }

    fn key(&self) -> Option<&Key> {
        self.account.keys.get(self.index)
    }

    /// The secret that verifies a signature; `None` of an API key.
    pub fn secret(&self) -> Option<SigningSecret<'_>> {
        match &self.key()?.credential {
            Credential::Tc3 { secret_key, .. } => Some(SigningSecret {
                secret_key,
                signing_keys: &self.signing_keys,
            }),
            Credential::ApiKey { .. } => None,
        }
    }

    /// Whether the key holds at `now` for a client at `address`: the one that a trusted proxy names,
    /// if it came through one. To be asked when the credential is proven, never before.
    ///
    /// # Errors
    /// Expiry before the address.
    pub(crate) fn check(&self, now: Utc, address: IpAddr) -> Result<(), KeyBar> {
        let Some(key) = self.key() else {
            return Ok(());
        };
        if key.is_expired(now) {
            return Err(KeyBar::Expired);
        }
        let allowed = &key.allowed_addresses;
        match allowed.is_empty() || is_in(allowed, address) {
            true => Ok(()),
            false => Err(KeyBar::Address),
        }
    }

    /// Where its calls are counted.
    pub(crate) fn usage(&self, metrics: &Metrics) -> &Arc<KeyUsage> {
        self.usage.get_or_init(|| {
            let id = self.key().map(|key| key.id.clone()).unwrap_or_default();
            let calls = metrics.key_calls(&self.account.id, &id);
            Arc::new(KeyUsage::new(id, calls))
        })
    }

    /// The second in which a call of it was last admitted, since the start of the process.
    pub(super) fn last_used(&self) -> Option<Utc> {
        let second = self.usage.get()?.last_second.load(Ordering::Relaxed);
        (second != NEVER).then(|| Utc(second.saturating_mul(1_000_000)))
    }
}

/// What a credential is found by.
#[derive(Clone, Copy)]
enum Proof<'a> {
    SecretId(&'a str),
    Digest(&'a [u8; 32]),
}

impl<'a> Proof<'a> {
    fn of(credential: &'a Credential) -> Self {
        match credential {
            Credential::Tc3 { secret_id, .. } => Self::SecretId(secret_id),
            Credential::ApiKey { sha256 } => Self::Digest(sha256),
        }
    }

    fn fits(self, known: &KnownKey) -> bool {
        match (self, known.key().map(|key| &key.credential)) {
            (Self::SecretId(id), Some(Credential::Tc3 { secret_id, .. })) => **secret_id == *id,
            (Self::Digest(digest), Some(Credential::ApiKey { sha256 })) => sha256 == digest,
            _ => false,
        }
    }

    fn hash(self, hasher: &RandomState) -> u64 {
        match self {
            Self::SecretId(id) => hasher.hash_one(id),
            Self::Digest(digest) => hasher.hash_one(digest),
        }
    }
}

/// Every key of a generation, by secret id and by digest.
pub(super) struct Keys {
    table: HashTable<KnownKey>,
    hasher: RandomState,
}

impl Keys {
    pub(super) fn of(accounts: &[Arc<KnownAccount>]) -> Self {
        let hasher = RandomState::default();
        let count = accounts.iter().map(|account| account.keys.len());
        let mut table = HashTable::with_capacity(count.sum());
        for account in accounts {
            for (index, key) in account.keys.iter().enumerate() {
                let hash = Proof::of(&key.credential).hash(&hasher);
                let known = KnownKey {
                    account: account.clone(),
                    index,
                    signing_keys: SigningKeys::default(),
                    usage: OnceLock::new(),
                };
                table.insert_unique(hash, known, |known| {
                    let key = known.key();
                    key.map_or(0, |key| Proof::of(&key.credential).hash(&hasher))
                });
            }
        }
        Self { table, hasher }
    }

    fn find(&self, proof: Proof<'_>) -> Option<&KnownKey> {
        let hash = proof.hash(&self.hasher);
        self.table.find(hash, |known| proof.fits(known))
    }

    pub(super) fn by_secret_id(&self, secret_id: &str) -> Option<&KnownKey> {
        self.find(Proof::SecretId(secret_id))
    }

    pub(super) fn by_digest(&self, digest: &ApiKeyDigest) -> Option<&KnownKey> {
        self.find(Proof::Digest(&digest.0))
    }

    pub(super) fn by_key(&self, key: &Key) -> Option<&KnownKey> {
        self.find(Proof::of(&key.credential))
    }

    /// Takes over the figures of the keys that `before` has too: of the same account, under the
    /// same id.
    pub(super) fn inherit(&self, before: &Self) {
        let same = |old: &KnownKey| -> Option<(AccountId, KeyId)> {
            Some((old.account.id.clone(), old.key()?.id.clone()))
        };
        for old in before.table.iter() {
            let (Some(usage), Some(key)) = (old.usage.get(), old.key()) else {
                continue;
            };
            if let Some(new) = self.by_key(key)
                && same(new) == same(old)
            {
                new.usage.get_or_init(|| usage.clone());
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config;
    use crate::model::Clock;
    use crate::proxy::policy::Policy;
    use crate::proxy::upstream::Upstreams;
    use std::path::Path;

    /// The shipped files, whose first account has these keys.
    pub(in crate::proxy::policy) fn policy(keys: Vec<Key>) -> Policy {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tollgate.yaml");
        let mut config = config::load(&path).unwrap();
        config.accounts[0].keys = keys.into();
        let metrics = Metrics::new(10);
        let upstreams = Upstreams::new(&config.settings, 1, &Clock::default());
        let (catalog, accounts) = (Arc::new(config.catalog), config.accounts);
        Policy::build(1, catalog, accounts, upstreams, &metrics)
    }

    pub(in crate::proxy::policy) fn key(digest: u8) -> Key {
        Credential::ApiKey {
            sha256: [digest; 32],
        }
        .into()
    }

    fn known(policy: &Policy, digest: u8) -> &KnownKey {
        policy.api_key(&ApiKeyDigest([digest; 32])).unwrap()
    }

    #[test]
    fn a_key_holds_up_to_its_end_which_is_excluded() {
        let ends = Utc(1_000_000);
        let policy = policy(vec![Key {
            expires: Some(ends),
            ..key(1)
        }]);
        let address = [203, 0, 113, 7].into();
        let check = |at| known(&policy, 1).check(Utc(at), address);
        assert_eq!(check(ends.0 - 1), Ok(()));
        assert_eq!(check(ends.0), Err(KeyBar::Expired));
        assert_eq!(check(i64::MAX), Err(KeyBar::Expired));
    }

    #[test]
    fn a_key_with_networks_holds_in_them_alone_however_the_address_is_written() {
        let policy = policy(vec![
            Key {
                allowed_addresses: ["203.0.113.0/24", "2001:db8::/48"]
                    .map(|net| net.parse().unwrap())
                    .into(),
                ..key(1)
            },
            key(2),
        ]);
        for (address, allowed) in [
            ("203.0.113.0", true),
            ("203.0.113.255", true),
            ("::ffff:203.0.113.7", true),
            ("203.0.114.0", false),
            ("2001:db8::7", true),
            ("2001:db8:1::7", false),
            ("::ffff:198.51.100.1", false),
        ] {
            let address = address.parse().unwrap();
            let verdict = known(&policy, 1).check(Utc(0), address);
            assert_eq!(verdict.is_ok(), allowed, "{address}");
            assert_eq!(known(&policy, 2).check(Utc(0), address), Ok(()));
        }
    }

    #[test]
    fn the_last_use_of_a_key_outlives_a_reload_and_is_that_of_its_own_secret() {
        let metrics = Metrics::new(10);
        let named = |digest| Key {
            id: KeyId::new("main").unwrap(),
            ..key(digest)
        };
        let old = policy(vec![named(1), named(2)]);
        known(&old, 1).usage(&metrics).admitted(Utc(5_900_000));
        let new = policy(vec![named(1), named(2)]);
        new.inherit(&old);
        assert_eq!(known(&new, 1).last_used(), Some(Utc(5_000_000)));
        assert_eq!(known(&new, 2).last_used(), None);
        // A call that is late with the old generation counts where the new one looks.
        known(&old, 1).usage(&metrics).admitted(Utc(7_000_000));
        assert_eq!(known(&new, 1).last_used(), Some(Utc(7_000_000)));
        // Under another name its calls are counted anew.
        let renamed = policy(vec![key(1)]);
        renamed.inherit(&new);
        assert_eq!(known(&renamed, 1).last_used(), None);
    }

    #[test]
    fn keys_near_their_end_are_counted_unless_another_one_follows() {
        let day = 86_400_000_000;
        let ends = |digest, name: &str, days: i64| Key {
            id: KeyId::new(name).unwrap(),
            expires: Some(Utc(days * day)),
            ..key(digest)
        };
        let expiring = |keys| policy(keys).expiring(Utc(0));
        assert_eq!(expiring(vec![ends(1, "a", 14), ends(2, "b", 15)]), 1);
        assert_eq!(expiring(vec![ends(1, "a", 0), ends(2, "b", 1)]), 1);
        assert_eq!(expiring(vec![ends(1, "a", 7), ends(2, "a", 300)]), 0);
        assert_eq!(expiring(vec![ends(1, "a", 7), ends(2, "a", 8)]), 1);
        assert_eq!(expiring(vec![key(1)]), 0);
    }
}
