//! The ledger that a gate believes to be the collected one.
//!
//! Must never take another one for it by itself: an empty ledger would let everybody go on who is in
//! arrears.

use crate::proxy::CollectedBooks;
use parking_lot::Mutex;

/// That ledger; none before the first was heard of.
#[derive(Debug)]
pub(in crate::control) struct KnownCollector(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// Its id; empty where there is none.
    ledger_id: String,
    /// When it was put in the place of another, in microseconds since the Unix epoch; 0 where it was
    /// the first.
    adopted_at: i64,
}

impl KnownCollector {
    /// As it was heard last, else as this gate's own ledger has it: empty before the first.
    pub(in crate::control) fn new(heard: Option<&CollectedBooks>, ledger_id: String) -> Self {
        let heard = heard.filter(|books| !books.collected_in.is_empty());
        Self(Mutex::new(Known {
            ledger_id: heard.map_or(ledger_id, |books| books.collected_in.clone()),
            adopted_at: heard.map_or(0, |books| books.adopted_at),
        }))
    }

    /// Whether what is collected in this ledger is believed.
    pub(in crate::control) fn is(&self, ledger_id: &str) -> bool {
        let known = self.0.lock();
        known.ledger_id.is_empty() || known.ledger_id == ledger_id
    }

    /// Takes the ledger of these books for the collected one, where it is that, or was put in its
    /// place by an operator, and later than that one was in the place of another. Else an error for
    /// the log.
    pub(in crate::control) fn believe(&self, books: &CollectedBooks) -> Result<(), String> {
        let mut known = self.0.lock();
        let id = &known.ledger_id;
        let is_same = id.is_empty() || *id == books.collected_in;
        let follows = books.replaces.contains(id) && books.adopted_at > known.adopted_at;
        if !is_same && books.replaces.contains(id) && !follows {
            return Err(format!(
                "its ledger {} was put in the place of {id}, and {id} was put in the place of another later. If the clock was wrong when \
                 that was done: stop this gate, delete LEDGER-standing beside its ledger, and start it",
                books.collected_in
            ));
        }
        if !is_same && !follows {
            return Err(format!(
                "it collects in another ledger, {}, than the one that has the records of this gate, {id}. If that one is lost for \
                 good: `tollgate collect adopt --replaces {id}` where the new one is",
                books.collected_in
            ));
        }
        // Of a ledger that was put back to a backup the later instant counts on.
        let before = if is_same { known.adopted_at } else { 0 };
        *known = Known {
            ledger_id: books.collected_in.clone(),
            adopted_at: books.adopted_at.max(before),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_ledger_is_believed_only_when_it_was_put_in_the_place_of_the_known_one() {
        let books = |id: &str, replaces: &[&str], adopted_at| CollectedBooks {
            collected_in: id.to_owned(),
            replaces: replaces.iter().map(|id| (*id).to_owned()).collect(),
            adopted_at,
            ..CollectedBooks::default()
        };
        let known = KnownCollector::new(None, String::new());
        assert!(known.is("a"));
        known.believe(&books("a", &[], 0)).unwrap();
        let refused = known.believe(&books("b", &["c"], 5)).unwrap_err();
        assert!(refused.contains("--replaces a"), "{refused}");
        assert!(known.is("a") && !known.is("b"));
        known.believe(&books("b", &["a", "c"], 5)).unwrap();
        assert!(known.is("b") && !known.is("a"));
        // The ledger before is not believed again by itself, and once it is put back the other is not.
        known.believe(&books("a", &[], 0)).unwrap_err();
        known.believe(&books("a", &["b"], 7)).unwrap();
        let refused = known.believe(&books("b", &["a", "c"], 5)).unwrap_err();
        assert!(refused.contains("LEDGER-standing"), "{refused}");
        // Put back to a backup from before that.
        known.believe(&books("a", &[], 0)).unwrap();
        known.believe(&books("b", &["a", "c"], 5)).unwrap_err();
        assert!(known.is("a"));
    }

    #[test]
    fn what_was_heard_by_an_earlier_process_is_known_before_the_ledger_has_it() {
        let heard = CollectedBooks {
            collected_in: "a".to_owned(),
            adopted_at: 5,
            ..CollectedBooks::default()
        };
        let known = KnownCollector::new(Some(&heard), String::new());
        assert!(known.is("a") && !known.is("b"));
        let older = KnownCollector::new(Some(&CollectedBooks::default()), "c".to_owned());
        assert!(older.is("c") && !older.is("a"));
    }
}
