//! The licence keys of a generation (R19): whose each is. They obtain grants; no call knows them.

use crate::model::{Package, Utc};
use crate::proxy::policy::KnownAccount;
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// Every licence key, by its digest: the account, and the key's place in its list.
#[derive(Default)]
pub(super) struct LicenceKeyTable(HashMap<[u8; 32], (Arc<KnownAccount>, usize), RandomState>);

/// A licence key as a request finds it.
#[derive(Clone)]
pub(crate) struct KnownLicenceKey {
    /// Whose it is.
    pub account: Arc<KnownAccount>,
    index: usize,
}

impl LicenceKeyTable {
    pub(super) fn of(accounts: &[Arc<KnownAccount>]) -> Self {
        let keys = accounts.iter().flat_map(|account| {
            let keys = account.licence_keys.iter().enumerate();
            keys.map(|(index, key)| (key.sha256, (account.clone(), index)))
        });
        Self(keys.collect())
    }

    pub(super) fn find(&self, sha256: &[u8; 32]) -> Option<KnownLicenceKey> {
        let (account, index) = self.0.get(sha256)?;
        Some(KnownLicenceKey {
            account: account.clone(),
            index: *index,
        })
    }
}

impl KnownLicenceKey {
    /// Whether it is refused at `now`.
    pub(crate) fn is_expired(&self, now: Utc) -> bool {
        let key = self.account.licence_keys.get(self.index);
        key.is_some_and(|key| key.expires.is_some_and(|expires| expires <= now))
    }

    /// Whether it obtains grants for this app.
    pub(crate) fn is_for(&self, package: &Package) -> bool {
        let key = self.account.licence_keys.get(self.index);
        key.is_some_and(|key| key.packages.is_empty() || key.packages.contains(package))
    }
}
