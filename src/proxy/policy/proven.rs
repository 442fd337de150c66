//! The key that a request was proven with, kept by what goes on after the request was let in.
//!
//! Must never hold a generation: it asks the one that is in force.

use crate::model::Utc;
use crate::proxy::policy::{KnownAccount, KnownKey, Policy};
use std::net::IpAddr;
use std::sync::Arc;

/// The key that a request was proven with, and where the request came from.
pub(crate) struct ProvenKey {
    account: Arc<KnownAccount>,
    /// The place in the account's list.
    index: usize,
    address: IpAddr,
}

impl ProvenKey {
    /// That of a request from `address`, which a trusted proxy may name.
    pub(crate) fn of(key: &KnownKey, address: IpAddr) -> Self {
        Self {
            account: key.account().clone(),
            index: key.index,
            address,
        }
    }

    /// Whose it is, as of the generation that proved it.
    pub(crate) fn account(&self) -> &Arc<KnownAccount> {
        &self.account
    }

    /// Whether the same credential proves the same account under this generation too, and holds at
    /// `now` from where the request came.
    pub(crate) fn holds(&self, policy: &Policy, now: Utc) -> bool {
        let known = self.account.keys.get(self.index);
        let known = known.and_then(|key| policy.known_key(key));
        known.is_some_and(|known| {
            known.account().id == self.account.id && known.check(now, self.address).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Key;
    use crate::proxy::identity::api_key::ApiKeyDigest;
    use crate::proxy::policy::keys::tests::{key, policy};

    #[test]
    fn a_key_that_was_proven_is_asked_again_of_the_generation_that_is_in_force() {
        let address = [203, 0, 113, 7].into();
        let before = policy(vec![key(1), key(2)]);
        let proven = ProvenKey::of(before.api_key(&ApiKeyDigest([2; 32])).unwrap(), address);
        assert!(proven.holds(&before, Utc(0)));
        assert!(proven.holds(&policy(vec![key(2)]), Utc(0)));
        assert!(!proven.holds(&policy(vec![key(1)]), Utc(0)), "taken away");
        let ended = policy(vec![Key {
            expires: Some(Utc(5)),
            ..key(2)
        }]);
        assert!(proven.holds(&ended, Utc(4)) && !proven.holds(&ended, Utc(5)));
        let elsewhere = policy(vec![Key {
            allowed_addresses: ["198.51.100.0/24".parse().unwrap()].into(),
            ..key(2)
        }]);
        assert!(!proven.holds(&elsewhere, Utc(0)));
    }
}
