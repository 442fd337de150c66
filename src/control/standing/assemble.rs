//! The standing of all accounts, put together from the values of a bucket.
//!
//! Must never give a part for the whole: an account that is missing would go on.

use crate::control::standing::message::key;
use crate::control::standing::{HEAD, StandingError, StandingMessage};
use crate::model::{AccountId, Utc};
use crate::proxy::CollectedStanding;
use std::collections::HashMap;

/// The values that have come, the newest of each key.
#[derive(Debug, Default)]
pub(in crate::control) struct Assembly {
    values: HashMap<String, StandingMessage>,
}

impl Assembly {
    /// Takes in a value. Gives the standing of all accounts when all of its parts are there.
    pub(in crate::control) fn take(
        &mut self,
        name: &str,
        bytes: &[u8],
    ) -> Result<Option<CollectedStanding>, StandingError> {
        self.values.insert(name.to_owned(), StandingMessage::decode(bytes)?);
        let Some(head) = self.values.get(HEAD) else {
            return Ok(None);
        };
        let (parts, generation) = (head.parts, head.generation);
        if name == HEAD {
            // Those of another number were written before the parts were doubled.
            let read: Vec<String> = (0..parts).map(|part| key(part, parts)).collect();
            self.values.retain(|name, value| {
                // The others may come before their head does.
                value.parts > parts || read.contains(name)
            });
        }
        let messages: Option<Vec<&StandingMessage>> =
            (0..parts).map(|part| self.values.get(&key(part, parts))).collect();
        Ok(messages.map(|messages| whole(generation, &messages)))
    }
}

fn whole(generation: u64, messages: &[&StandingMessage]) -> CollectedStanding {
    let newest = messages.iter().map(|message| message.as_of).max();
    let stopped = messages.iter().flat_map(|message| &message.accounts.stopped);
    let balances = messages.iter().flat_map(|message| &message.accounts.balances);
    let owned = |(id, balance): (&AccountId, &Box<str>)| (id.clone(), balance.clone());
    CollectedStanding {
        generation,
        as_of: Utc(newest.unwrap_or(0)),
        stopped: stopped.map(|stopped| stopped.account.clone()).collect(),
        balances: balances.map(owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::standing::{AccountStanding, messages};
    use proptest::prelude::*;

    fn standings(accounts: &[(u32, i64, bool)]) -> Vec<AccountStanding> {
        let of = |(id, balance, in_arrears): &(u32, i64, bool)| AccountStanding {
            account: AccountId::new(&id.to_string()).unwrap(),
            balance: balance.to_string().into(),
            in_arrears: *in_arrears,
        };
        accounts.iter().map(of).collect()
    }

    fn values(standings: &[AccountStanding], generation: u64) -> Vec<(String, Vec<u8>)> {
        let told = messages(standings);
        let parts = u32::try_from(told.len()).unwrap();
        let value = |(key, accounts)| {
            (key, StandingMessage::new(generation, Utc(7), parts, accounts).encode())
        };
        told.into_iter().map(value).collect()
    }

    fn is(heard: &CollectedStanding, said: &[AccountStanding]) {
        let stopped = said.iter().filter(|of| of.in_arrears).map(|of| of.account.clone());
        assert_eq!(heard.stopped, stopped.collect());
        let balances = said.iter().map(|of| (of.account.clone(), of.balance.clone()));
        assert_eq!(heard.balances, balances.collect());
    }

    proptest! {
        #[test]
        fn what_was_said_of_each_account_is_heard(
            accounts in prop::collection::btree_map(any::<u32>(), (any::<i64>(), any::<bool>()), 0..200)
        ) {
            let accounts: Vec<_> = accounts.into_iter().map(|(id, (n, stop))| (id, n, stop)).collect();
            let said = standings(&accounts);
            let mut assembly = Assembly::default();
            let heard = values(&said, 3)
                .into_iter()
                .filter_map(|(key, bytes)| assembly.take(&key, &bytes).unwrap())
                .last()
                .unwrap();
            is(&heard, &said);
            prop_assert_eq!(heard.generation, 3);
        }

        #[test]
        fn bytes_of_somebody_else_are_an_error_and_no_standing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Assembly::default().take(HEAD, &bytes).is_err());
        }
    }

    #[test]
    fn nothing_is_in_force_before_each_part_is_there_and_no_value_is_too_large() {
        let accounts: Vec<_> = (0..50_000).map(|n| (n, i64::from(n) - 9, n % 3 == 0)).collect();
        let (few, many) = (standings(&accounts[..10]), standings(&accounts));
        let mut assembly = Assembly::default();
        let [(key, bytes)] = &values(&few, 1)[..] else {
            panic!("ten accounts are told in one value");
        };
        is(&assembly.take(key, bytes).unwrap().unwrap(), &few);
        let values = values(&many, 2);
        assert!(values.len() > 4 && values.iter().all(|(_, bytes)| bytes.len() < 900_000));
        let (head, others) = values.split_last().unwrap();
        for (key, bytes) in others {
            // The old head is still the newest.
            let still = assembly.take(key, bytes).unwrap().unwrap();
            is(&still, &few);
        }
        is(&assembly.take(&head.0, &head.1).unwrap().unwrap(), &many);
        // In any other order: whole with the last of them only.
        let mut late = Assembly::default();
        for (key, bytes) in values.iter().rev().take(values.len() - 1) {
            assert_eq!(late.take(key, bytes).unwrap(), None);
        }
        is(&late.take(&values[0].0, &values[0].1).unwrap().unwrap(), &many);
        // Fewer again.
        let again = self::values(&few, 3);
        is(&assembly.take(&again[0].0, &again[0].1).unwrap().unwrap(), &few);
    }

    #[test]
    fn a_standing_in_a_format_of_tomorrow_is_refused_by_its_number() {
        let value = br#"{"format":2,"who":"knows"}"#;
        let error = Assembly::default().take(HEAD, value).unwrap_err();
        assert_eq!(error, StandingError::Format(2));
        assert!(error.to_string().contains("format 2"));
    }
}
