//! The standing of all accounts, put together from the values of a bucket.
//!
//! Must never give a part for the whole: an account that is missing would go on.

use crate::control::standing::message::key;
use crate::control::standing::{StandingError, StandingMessage};
use crate::model::Utc;
use crate::proxy::CollectedStanding;
use std::collections::HashMap;

/// The newest values that have come.
#[derive(Debug, Default)]
pub(in crate::control) struct Assembly {
    head: Option<StandingMessage>,
    others: HashMap<String, StandingMessage>,
}

impl Assembly {
    /// Takes in a head. Gives the keys of the other parts that are to be read for it.
    pub(in crate::control) fn take_head(
        &mut self,
        bytes: &[u8],
    ) -> Result<Vec<String>, StandingError> {
        let head = StandingMessage::decode(bytes)?;
        let before = self.head.as_ref().map_or(0, |before| before.generation);
        if head.generation < before {
            // Another bucket: its generations began anew.
            self.others.clear();
        }
        let keys: Vec<String> = keys(&head).collect();
        self.others.retain(|name, _| keys.contains(name));
        let wanted = keys.into_iter().zip(&head.others);
        let wanted = wanted.filter(|(key, generation)| !self.has(key, **generation));
        let wanted = wanted.map(|(key, _)| key).collect();
        self.head = Some(head);
        Ok(wanted)
    }

    /// Takes in another part.
    pub(in crate::control) fn take_part(
        &mut self,
        key: String,
        bytes: &[u8],
    ) -> Result<(), StandingError> {
        self.others.insert(key, StandingMessage::decode(bytes)?);
        Ok(())
    }

    /// The standing of all accounts; `None` while a part of it is missing, or older than the head
    /// says.
    pub(in crate::control) fn whole(&self) -> Option<CollectedStanding> {
        let head = self.head.as_ref()?;
        let is_there = |(key, generation): (String, &u64)| self.has(&key, *generation);
        if !keys(head).zip(&head.others).all(is_there) {
            return None;
        }
        let all = || self.others.values().chain([head]);
        let stopped = all().flat_map(|message| &message.accounts.stopped);
        let balances = all().flat_map(|message| &message.accounts.balances);
        Some(CollectedStanding {
            generation: head.generation,
            as_of: Utc(head.as_of),
            books: head.books.clone(),
            stopped: stopped.map(|stopped| stopped.account.clone()).collect(),
            balances: balances
                .map(|(id, balance)| (id.clone(), balance.clone()))
                .collect(),
        })
    }

    fn has(&self, key: &str, generation: u64) -> bool {
        let known = self.others.get(key);
        known.is_some_and(|known| known.generation >= generation)
    }
}

fn keys(head: &StandingMessage) -> impl Iterator<Item = String> + use<> {
    let others = head.others.len();
    (0..others).map(move |nth| key(nth, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::standing::{AccountStanding, HEAD, messages};
    use crate::model::AccountId;
    use proptest::prelude::*;

    fn standings(accounts: &[(u32, i64, bool)]) -> Vec<AccountStanding> {
        let of = |(id, balance, in_arrears): &(u32, i64, bool)| AccountStanding {
            account: AccountId::new(&id.to_string()).unwrap(),
            balance: balance.to_string().into(),
            in_arrears: *in_arrears,
        };
        accounts.iter().map(of).collect()
    }

    /// As they are written when all are new, the head last.
    fn values(standings: &[AccountStanding], generation: u64) -> Vec<(String, Vec<u8>)> {
        let told = messages(standings);
        let others = vec![generation; told.len() - 1];
        let value = |(key, accounts): (String, _)| {
            let others = if key == HEAD {
                others.clone()
            } else {
                Vec::new()
            };
            (
                key,
                StandingMessage::new(generation, Utc(7), others, accounts).encode(),
            )
        };
        told.into_iter().map(value).collect()
    }

    /// Reads a head and what it asks for.
    fn read(assembly: &mut Assembly, values: &[(String, Vec<u8>)]) -> Vec<String> {
        let wanted = assembly.take_head(&values.last().unwrap().1).unwrap();
        for key in &wanted {
            let (_, bytes) = values.iter().find(|(known, _)| known == key).unwrap();
            assembly.take_part(key.clone(), bytes).unwrap();
        }
        wanted
    }

    fn is(heard: &CollectedStanding, said: &[AccountStanding]) {
        let stopped = said
            .iter()
            .filter(|of| of.in_arrears)
            .map(|of| of.account.clone());
        assert_eq!(heard.stopped, stopped.collect());
        let balances = said
            .iter()
            .map(|of| (of.account.clone(), of.balance.clone()));
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
            read(&mut assembly, &values(&said, 3));
            let heard = assembly.whole().unwrap();
            is(&heard, &said);
            prop_assert_eq!(heard.generation, 3);
        }

        #[test]
        fn bytes_of_somebody_else_are_an_error_and_no_standing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Assembly::default().take_head(&bytes).is_err());
        }
    }

    #[test]
    fn nothing_is_in_force_before_each_part_is_there_and_no_value_is_too_large() {
        let accounts: Vec<_> = (0..50_000)
            .map(|n| (n, i64::from(n) - 9, n % 3 == 0))
            .collect();
        let (few, many) = (standings(&accounts[..10]), standings(&accounts));
        let mut assembly = Assembly::default();
        assert_eq!(read(&mut assembly, &values(&few, 1)), [""; 0]);
        is(&assembly.whole().unwrap(), &few);
        let values = values(&many, 2);
        assert!(values.len() > 4 && values.iter().all(|(_, bytes)| bytes.len() < 900_000));
        let (head, others) = values.split_last().unwrap();
        assert_eq!(assembly.take_head(&head.1).unwrap().len(), others.len());
        for (key, bytes) in others {
            assert_eq!(assembly.whole(), None);
            assembly.take_part(key.clone(), bytes).unwrap();
        }
        is(&assembly.whole().unwrap(), &many);
        // What is there already is not read again, and an older part is none.
        assert_eq!(read(&mut assembly, &values), [""; 0]);
        let newer = self::values(&many, 3);
        let wanted = assembly.take_head(&newer.last().unwrap().1).unwrap();
        assert_eq!((wanted.len(), assembly.whole()), (others.len(), None));
        read(&mut assembly, &self::values(&few, 4));
        is(&assembly.whole().unwrap(), &few);
    }

    #[test]
    fn a_standing_in_a_format_of_tomorrow_is_refused_by_its_number() {
        let value = br#"{"format":2,"who":"knows"}"#;
        let error = Assembly::default().take_head(value).unwrap_err();
        assert_eq!(error, StandingError::Format(2));
        assert!(error.to_string().contains("format 2"));
    }
}
