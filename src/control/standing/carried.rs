//! What stays of a standing when a ledger that knows less says its own: an account that is in arrears
//! must not go on because the collected ledger is another one, or an older state of it.
//!
//! Pure. Must never keep an account stopped by a ledger that has debited it itself.

use crate::model::AccountId;
use crate::proxy::CollectedStanding;
use std::collections::BTreeSet;

/// What is in force when `heard` comes after `known`; `None`: what was. `is_later`: it is said now, and
/// was not there already.
///
/// NATS may have been put back to an older state: what it has then is not believed before the
/// collector says it again.
pub(in crate::control) fn in_force(
    known: Option<&CollectedStanding>,
    heard: CollectedStanding,
    is_later: bool,
) -> Option<CollectedStanding> {
    match known {
        None => Some(heard),
        Some(known) if !is_later && heard.as_of < known.as_of => None,
        Some(known) => Some(carried_into(known, heard)),
    }
}

/// `heard`, and what stays of `known`. A collected ledger that lacks a month, since it is new or was put
/// back to a backup, does not know who is in arrears by it: whoever was stopped stays so until it has
/// debited that month, too. By another ledger than before also until it has debited that account.
pub(in crate::control) fn carried_into(
    known: &CollectedStanding,
    mut heard: CollectedStanding,
) -> CollectedStanding {
    let is_other = !known.books.collected_in.is_empty()
        && known.books.collected_in != heard.books.collected_in;
    if !is_other {
        // Put back to a backup from before its adoption, it says an earlier instant.
        heard.books.adopted_at = heard.books.adopted_at.max(known.books.adopted_at);
    }
    let held: BTreeSet<AccountId> = match is_other {
        true => known.stopped.iter().cloned().collect(),
        false => known.books.held.clone(),
    };
    let held = held
        .into_iter()
        .filter(|id| !heard.balances.contains_key(id));
    heard.books.held.extend(held);
    heard.stopped.extend(heard.books.held.iter().cloned());
    if heard.books.debited < known.books.debited {
        heard.stopped.extend(known.stopped.iter().cloned());
        heard.books.debited.clone_from(&known.books.debited);
    }
    heard
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Utc;
    use crate::proxy::CollectedBooks;

    /// By the ledger `of`, which has debited the accounts 1 and 2.
    fn said(of: &str, as_of: i64, debited: Option<&str>, stopped: &[&str]) -> CollectedStanding {
        CollectedStanding {
            as_of: Utc(as_of),
            books: CollectedBooks {
                collected_in: of.to_owned(),
                debited: debited.map(str::to_owned),
                ..CollectedBooks::default()
            },
            stopped: stopped.iter().filter_map(|id| AccountId::new(id)).collect(),
            balances: ["1", "2"]
                .into_iter()
                .map(|id| (AccountId::new(id).unwrap(), "-5".into()))
                .collect(),
            ..CollectedStanding::default()
        }
    }

    fn stopped(standing: &CollectedStanding) -> Vec<&str> {
        let mut stopped: Vec<&str> = standing.stopped.iter().map(AccountId::as_str).collect();
        stopped.sort_unstable();
        stopped
    }

    #[test]
    fn an_older_standing_counts_only_when_it_is_said_again() {
        let known = said("a", 9, None, &["1"]);
        assert_eq!(in_force(Some(&known), said("a", 8, None, &[]), false), None);
        let again = in_force(Some(&known), said("a", 8, None, &[]), true).unwrap();
        assert!(again.stopped.is_empty());
        assert!(in_force(Some(&known), said("a", 9, None, &[]), false).is_some());
        assert!(in_force(None, said("a", 8, None, &[]), false).is_some());
    }

    #[test]
    fn who_was_stopped_stays_so_until_the_month_is_debited_again() {
        let known = said("a", 1, Some("2026-10"), &["1"]);
        let mut now = known.clone();
        for debited in [None, Some("2026-08"), Some("2026-09")] {
            now = in_force(Some(&now), said("a", 2, debited, &["2"]), true).unwrap();
            assert_eq!(stopped(&now), ["1", "2"]);
        }
        now = in_force(Some(&now), said("a", 3, Some("2026-10"), &["2"]), true).unwrap();
        assert_eq!(stopped(&now), ["2"]);
    }

    #[test]
    fn who_was_stopped_stays_so_by_another_ledger_until_that_has_debited_the_account() {
        let known = said("a", 1, Some("2026-10"), &["1", "9"]);
        let mut now = known;
        for as_of in 2..4 {
            let heard = said("b", as_of, Some("2026-11"), &[]);
            now = in_force(Some(&now), heard, true).unwrap();
            assert_eq!(stopped(&now), ["9"], "account 1 has a balance there");
        }
        let mut heard = said("b", 4, Some("2026-11"), &[]);
        heard
            .balances
            .insert(AccountId::new("9").unwrap(), "0".into());
        let now = in_force(Some(&now), heard, true).unwrap();
        assert!(now.stopped.is_empty() && now.books.held.is_empty());
    }

    #[test]
    fn the_same_ledger_lets_go_on_whom_it_has_stopped_by_an_entry_that_was_taken_back() {
        let known = said("a", 1, Some("2026-10"), &["9"]);
        let now = in_force(Some(&known), said("a", 2, Some("2026-10"), &[]), true).unwrap();
        assert!(now.stopped.is_empty());
    }

    #[test]
    fn the_instant_of_an_adoption_is_not_forgotten_with_a_backup() {
        let mut known = said("a", 1, None, &[]);
        known.books.adopted_at = 7;
        let now = in_force(Some(&known), said("a", 2, None, &[]), true).unwrap();
        assert_eq!(now.books.adopted_at, 7);
        let other = in_force(Some(&known), said("b", 2, None, &[]), true).unwrap();
        assert_eq!(other.books.adopted_at, 0);
    }
}
