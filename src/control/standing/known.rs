//! The ledger that a gate believes to be the collected one.
//!
//! Must never take another one for it by itself: an empty ledger would let everybody go on who is in
//! arrears.

use crate::proxy::CollectedBooks;
use parking_lot::Mutex;

/// The id of that ledger; none before the first was heard of.
#[derive(Debug)]
pub(in crate::control) struct KnownCollector(Mutex<String>);

impl KnownCollector {
    /// As this gate's own ledger has it; empty before the first.
    pub(in crate::control) fn new(ledger_id: String) -> Self {
        Self(Mutex::new(ledger_id))
    }

    /// Whether what is collected in this ledger is believed.
    pub(in crate::control) fn is(&self, ledger_id: &str) -> bool {
        let known = self.0.lock();
        known.is_empty() || *known == ledger_id
    }

    /// Takes the ledger of these books for the collected one, where it is that, or was put in its
    /// place by an operator. Else an error for the log.
    pub(in crate::control) fn believe(&self, books: &CollectedBooks) -> Result<(), String> {
        let mut known = self.0.lock();
        let follows =
            known.is_empty() || *known == books.collected_in || books.replaces.contains(&known);
        match follows {
            true => {
                known.clone_from(&books.collected_in);
                Ok(())
            }
            false => Err(format!(
                "it collects in another ledger, {}, than the one that has the records of this gate, {known}. If that one is lost for \
                 good: `tollgate collect adopt --replaces {known}` where the new one is",
                books.collected_in
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_ledger_is_believed_only_when_it_was_put_in_the_place_of_the_known_one() {
        let books = |id: &str, replaces: &[&str]| CollectedBooks {
            collected_in: id.to_owned(),
            replaces: replaces.iter().map(|id| (*id).to_owned()).collect(),
            debited: None,
        };
        let known = KnownCollector::new(String::new());
        assert!(known.is("a"));
        known.believe(&books("a", &[])).unwrap();
        let refused = known.believe(&books("b", &["c"])).unwrap_err();
        assert!(refused.contains("--replaces a"), "{refused}");
        assert!(known.is("a") && !known.is("b"));
        known.believe(&books("b", &["a", "c"])).unwrap();
        assert!(known.is("b") && !known.is("a"));
        // The ledger before is not believed again by itself.
        known.believe(&books("a", &[])).unwrap_err();
    }
}
