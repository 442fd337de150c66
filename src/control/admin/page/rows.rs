//! Which accounts a page of the list shows: searched, filtered and sorted here, so that the browser
//! never gets more than it shows.
//!
//! Owns the bound of a page. What needs nothing of the other accounts looks at none of them. Must never
//! ask the ledger: what it knows is asked for the rows that are shown.

use crate::control::admin::page::tally::{Figures, Tally};
use crate::model::{Mode, Stop};
use crate::proxy::admission::Limiters;
use crate::proxy::policy::{KnownAccount, Policy};
use std::cmp::Reverse;
use std::sync::Arc;

/// The most rows of a page.
pub(super) const MOST_ROWS: usize = 100;
/// Those of a page when it is not said.
pub(super) const ROWS: usize = 50;
/// The most characters of a search.
pub(super) const SEARCHED: usize = 64;

/// What the list is sorted by.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Sort {
    #[default]
    Id,
    Name,
    Admitted,
    Throttled,
    Refused,
    /// How full the fullest window is.
    Used,
}

impl Sort {
    const ALL: [(&'static str, Self); 6] = [
        ("id", Self::Id),
        ("name", Self::Name),
        ("admitted", Self::Admitted),
        ("throttled", Self::Throttled),
        ("refused", Self::Refused),
        ("used", Self::Used),
    ];

    pub(super) fn parse(text: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, sort)| sort)
    }

    fn of(self, figures: Figures) -> u64 {
        let [admitted, throttled, refused] = figures.counts;
        match self {
            Self::Id | Self::Name => 0,
            Self::Admitted => admitted,
            Self::Throttled => throttled,
            Self::Refused => refused,
            Self::Used => u64::from(figures.used),
        }
    }
}

/// Which accounts are shown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) enum Only {
    #[default]
    All,
    /// With calls since the process started.
    Called,
    /// With calls over the cap.
    Throttled,
    /// Stopped for whatever reason.
    Stopped,
    /// Stopped for arrears.
    Arrears,
    /// Charged so in a group.
    In(Mode),
}

impl Only {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "all" => Self::All,
            "called" => Self::Called,
            "throttled" => Self::Throttled,
            "stopped" => Self::Stopped,
            "arrears" => Self::Arrears,
            mode => Self::In(*Mode::ALL.iter().find(|known| known.as_str() == mode)?),
        })
    }
}

/// A page of the list, as it was asked for.
#[derive(Clone, Default, Debug)]
pub(super) struct Wanted {
    /// Part of an id or of a name; in small letters.
    pub(super) search: String,
    pub(super) only: Only,
    pub(super) sort: Sort,
    pub(super) is_descending: bool,
    pub(super) offset: usize,
    pub(super) rows: usize,
}

impl Wanted {
    /// Whether the figures of all accounts are needed.
    pub(super) fn needs_tally(&self) -> bool {
        !matches!(self.sort, Sort::Id | Sort::Name)
            || matches!(self.only, Only::Called | Only::Throttled)
    }

    fn takes_all(&self) -> bool {
        self.search.is_empty() && self.only == Only::All
    }

    fn takes(&self, account: &KnownAccount, figures: Figures, limiters: &Limiters) -> bool {
        let stopped = |why: Option<Stop>| {
            let by_files = account.services.iter().filter_map(|of| of.stopped);
            by_files
                .into_iter()
                .any(|stop| why.is_none_or(|why| why == stop))
                || limiters.is_in_arrears(&account.id)
        };
        let [_, throttled, _] = figures.counts;
        let is_taken = match self.only {
            Only::All => true,
            Only::Called => figures.counts.iter().any(|calls| *calls > 0),
            Only::Throttled => throttled > 0,
            Only::Stopped => stopped(None),
            Only::Arrears => stopped(Some(Stop::Arrears)),
            Only::In(mode) => account.services.iter().any(|of| of.mode == mode),
        };
        is_taken
            && (account.id.as_str().to_lowercase().contains(&self.search)
                || account.name.to_lowercase().contains(&self.search))
    }
}

/// A page of the list.
pub(super) struct Rows<'p> {
    /// How many accounts the search and the filter leave.
    pub(super) found: usize,
    pub(super) shown: Vec<&'p Arc<KnownAccount>>,
    /// How many accounts were looked at for it.
    pub(super) looked_at: usize,
}

/// The page. `tally` is needed when [`Wanted::needs_tally`] says so.
pub(super) fn rows<'p>(
    policy: &'p Policy,
    limiters: &Limiters,
    tally: Option<&Tally>,
    wanted: &Wanted,
) -> Rows<'p> {
    let accounts = policy.accounts().as_slice();
    let most = wanted.rows.min(MOST_ROWS);
    let figures = |nth: usize| tally.map_or_else(Figures::default, |tally| tally.of(nth));
    let all = accounts.len();
    if wanted.takes_all() && wanted.sort == Sort::Id {
        let shown: Vec<_> = match wanted.is_descending {
            false => accounts.iter().skip(wanted.offset).take(most).collect(),
            true => accounts
                .iter()
                .rev()
                .skip(wanted.offset)
                .take(most)
                .collect(),
        };
        return Rows {
            found: all,
            looked_at: shown.len(),
            shown,
        };
    }
    let is_taken =
        |nth: &usize| wanted.takes_all() || wanted.takes(&accounts[*nth], figures(*nth), limiters);
    let mut found: Vec<usize> = (0..all).filter(is_taken).collect();
    let until = wanted.offset.saturating_add(most).min(found.len());
    let from = wanted.offset.min(until);
    // Equal figures stand in the order of ids either way.
    match (wanted.sort, wanted.is_descending) {
        (Sort::Id, false) => {}
        (Sort::Id, true) => found.reverse(),
        (Sort::Name, false) => first_by(&mut found, until, |nth| (&accounts[*nth].name, *nth)),
        (Sort::Name, true) => {
            first_by(&mut found, until, |nth| {
                (Reverse(&accounts[*nth].name), *nth)
            });
        }
        (sort, false) => first_by(&mut found, until, |nth| (sort.of(figures(*nth)), *nth)),
        (sort, true) => {
            first_by(&mut found, until, |nth| {
                (Reverse(sort.of(figures(*nth))), *nth)
            });
        }
    }
    let shown = found[from..until].iter().map(|nth| &accounts[*nth]);
    Rows {
        shown: shown.collect(),
        found: found.len(),
        looked_at: all,
    }
}

/// Puts the first `until` in order; the others are left as they come.
fn first_by<K: Ord>(list: &mut [usize], until: usize, key: impl Fn(&usize) -> K) {
    if until < list.len() {
        list.select_nth_unstable_by_key(until, &key);
    }
    list[..until].sort_unstable_by_key(key);
}
