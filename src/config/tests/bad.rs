//! The bad files: each page of `bad/` holds cases, and a case is what is written in place of the
//! good files and all that is said about it.
//!
//! ```yaml
//! - accounts.yaml:                  # FROM: TO, for each place that is changed; a text is the whole file
//!     'qps: 10,': 'qps: 0,'
//!   said: 'FILE:LINE:COLUMN: ...'   # every mistake: one, or a list
//!   warned: []                      # every warning, of files that are read
//! ```

use crate::config::tests::files::Files;
use serde_yaml::Value;
use std::fs;
use std::path::{Path, PathBuf};

pub(in crate::config) struct Case {
    pub files: Vec<(String, Written)>,
    pub said: Vec<String>,
    warned: Vec<String>,
}

pub(in crate::config) enum Written {
    Whole(String),
    /// What stands in the good file, and what is written in its place.
    Changed(Vec<(String, String)>),
}

pub(in crate::config) fn cases(page: &str) -> Vec<Case> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| match value {
        Value::Sequence(lines) => lines.iter().map(text).collect(),
        line => vec![text(line)],
    };
    let Value::Sequence(cases) = serde_yaml::from_str(page).unwrap() else {
        panic!("a page is a list of cases");
    };
    let read = |case: Value| {
        let (mut files, mut said, mut warned) = (Vec::new(), None, Vec::new());
        for (key, value) in case.as_mapping().unwrap() {
            match (text(key), value) {
                (key, value) if key == "said" => said = Some(list(value)),
                (key, value) if key == "warned" => warned = list(value),
                (key, Value::Mapping(changes)) => {
                    let changes = changes.iter().map(|(a, b)| (text(a), text(b))).collect();
                    files.push((key, Written::Changed(changes)));
                }
                (key, value) => files.push((key, Written::Whole(text(value)))),
            }
        }
        let said = said.expect("a case tells what is said");
        Case {
            files,
            said,
            warned,
        }
    };
    cases.into_iter().map(read).collect()
}

impl Case {
    /// What is said otherwise than the case tells.
    fn differs(&self) -> Option<String> {
        let files = Files::good();
        for (name, written) in &self.files {
            match written {
                Written::Whole(text) => files.write(name, text),
                Written::Changed(changes) => changes
                    .iter()
                    .for_each(|(from, to)| files.change(name, from, to)),
            }
        }
        let said = files.mistakes();
        let warned = if said.is_empty() {
            files.warnings()
        } else {
            Vec::new()
        };
        (said != self.said || warned != self.warned).then(|| {
            format!(
                "said {said:#?}, expected {:#?}; warned {warned:#?}, expected {:#?}",
                self.said, self.warned
            )
        })
    }
}

fn pages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/bad")
}

/// Checks a page; how many cases it has.
#[track_caller]
pub(in crate::config) fn check(page: &str) -> usize {
    let cases = cases(&fs::read_to_string(pages().join(page)).unwrap());
    let differ = |(n, case): (usize, &Case)| Some(format!("{page}, {n}: {}", case.differs()?));
    let wrong: Vec<String> = (1..).zip(&cases).filter_map(differ).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    cases.len()
}

/// A test for each page, by the rule that its cases show.
macro_rules! pages {
    ($($test:ident: $page:literal;)+) => {
        const PAGES: &[&str] = &[$($page),+];
        $(
            #[test]
            fn $test() {
                check(concat!($page, ".yaml"));
            }
        )+
    };
}

pages! {
    unknown_keys_are_refused_with_the_nearest_known_one: "unknown_keys";
    duplicate_keys_are_refused_with_both_places: "duplicate_keys";
    duplicate_credentials_and_orders_are_refused_with_both_places: "duplicate_credentials_and_orders";
    a_free_group_has_no_mode_and_sells_nothing: "free_groups";
    every_number_has_its_bounds: "numbers";
    a_certificate_has_its_own_key_which_nobody_else_reads: "tls";
    what_only_some_versions_of_yaml_read_as_written_is_refused: "spellings";
    money_is_quoted_text_above_zero: "money";
    durations_and_sizes_need_a_unit_and_a_bound: "durations_and_sizes";
    limits_that_contradict_each_other_are_refused: "limits";
    a_short_drain_is_a_warning: "limits";
    a_listener_open_to_other_machines_needs_its_protection: "listeners";
    an_upstream_has_endpoints_without_a_path_and_a_name_that_is_used: "the_upstream";
    trusted_proxies_are_networks: "trusted_proxies";
    a_store_is_one_server_or_sentinels_or_a_cluster: "store";
    an_outbox_has_servers_and_one_way_to_say_who_the_gate_is: "outbox";
    missing_files_are_mistakes_of_the_lines_that_name_them: "files";
    an_empty_or_shapeless_file_is_a_mistake: "shapes";
    punctuation_of_another_keyboard_in_a_value_is_said_beside_it: "punctuation";
    ids_outside_their_patterns_are_refused: "ids";
    a_service_names_a_group_of_the_catalogue: "groups_of_an_account";
    a_mistake_in_the_catalogue_makes_no_second_one_in_the_accounts: "what_hangs_together";
    instants_need_an_offset_and_a_likely_year: "instants";
    a_purchase_has_one_period_that_ends_after_it_begins: "periods";
    a_pack_has_a_size_on_sale: "packs";
    ladders_begin_where_they_must_and_rise: "ladders";
    actions_and_routes_lead_to_one_place_each: "actions_and_routes";
    a_zone_whose_months_begin_off_the_hour_is_refused: "time_zones";
    a_credential_is_one_of_two_kinds_and_whole: "credentials";
    a_secret_that_is_likely_longer_than_its_owners_is_refused_with_its_place: "odd_secrets";
    a_key_has_an_id_of_its_own_but_for_a_rotation_and_an_end_and_networks_that_make_sense: "keys";
    secrets_that_cannot_be_had_are_mistakes: "missing_secrets";
    events_are_checked: "events";
    adjustments_refunds_and_discounts_say_who_and_why: "adjustments_and_refunds";
    the_cap_of_a_mode_is_not_for_an_account_to_change: "the_cap_of_a_mode";
    licences_have_terms_orders_and_keys_that_fit: "licences";
}

#[test]
fn every_bad_file_is_refused_with_its_place_and_its_remedy() {
    let pages = fs::read_dir(pages()).unwrap();
    let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let mut found = 0;
    for name in names {
        let listed = PAGES.iter().any(|page| name == format!("{page}.yaml"));
        assert!(listed, "no test reads {name}");
        found += cases(&fs::read_to_string(self::pages().join(&name)).unwrap()).len();
    }
    assert!(found >= 207, "only {found} cases are found");
}
