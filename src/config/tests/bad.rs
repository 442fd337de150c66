//! The bad files: each page of `bad/` holds cases, and a case is what is written in place of the good
//! files and all that is said about it.
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

#[test]
fn every_bad_file_is_refused_with_its_place_and_its_remedy() {
    let pages = fs::read_dir(pages()).unwrap();
    let names = pages.map(|page| page.unwrap().file_name().into_string().unwrap());
    let checked: usize = names.map(|name| check(&name)).sum();
    assert!(checked >= 191, "only {checked} cases are found");
}
