//! What is told of the difference between two configurations.

use crate::config::tests::bad::{self, Written};
use crate::config::tests::files::Shipped;

#[test]
fn a_difference_is_told_in_the_words_of_the_contract() {
    let shipped = Shipped::new();
    let cases = bad::cases(include_str!("changes.yaml"));
    for case in &cases {
        let [(name, Written::Changed(changes))] = &case.files[..] else {
            panic!("a case changes one file");
        };
        let [(from, to)] = &changes[..] else {
            panic!("a case is one change");
        };
        assert_eq!(shipped.said(name, from, to), case.said, "{from} -> {to}");
    }
    assert_eq!(cases.len(), 25);
}

/// Where the values stand in a file: each scalar that is no key and no comment.
fn values(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let code = line.find(" #").map_or(line, |at| &line[..at]);
        let code = if line.starts_with('#') { "" } else { code };
        let mut at = 0;
        for token in code.split_inclusive(|c: char| " ,{}[]\n\"".contains(c)) {
            let end = at
                + token
                    .trim_end_matches(|c: char| " ,{}[]\n\"".contains(c))
                    .len();
            let value = &code[at..end];
            // A quoted key keeps its colon outside: `"1250000001":`.
            let is_key = value.ends_with(':') || code[end..].starts_with("\":");
            if !value.is_empty() && !is_key && value != "-" && value != ":" {
                found.push(start + at..start + end);
            }
            at += token.len();
        }
        start += line.len();
    }
    found
}

/// Other values that could stand there; some of them are refused.
fn others(value: &str) -> Vec<String> {
    let swaps = [
        ("per_call", "qps"),
        ("arrears", "violation"),
        ("all_calls", "postpaid_calls"),
        ("served", "admitted"),
        ("true", "false"),
        ("promotion", "gift"),
        ("Asia/Shanghai", "Asia/Tokyo"),
        ("CNY", "USD"),
        ("POST", "PUT"),
        ("01T00:00:00+08:00", "02T00:00:00+08:00"),
        ("T10:00:00", "T11:00:00"),
        ("15%", "16%"),
        ("7d", "8d"),
        ("10000", "100000"),
        ("100000", "10000"),
        ("000000000001", "000000000009"),
        ("3a1", "3a2"),
        ("10.0.0.1/32", "10.0.0.2/32"),
    ];
    let mut others = Vec::new();
    for (a, b) in swaps {
        for (from, to) in [(a, b), (b, a)] {
            if value.contains(from) {
                others.push(value.replace(from, to));
            }
        }
    }
    if let Ok(number) = value.parse::<u64>() {
        others.extend([number + 1, number + 2, number.saturating_sub(1)].map(|n| n.to_string()));
    }
    let last = value.chars().last().unwrap_or('x');
    others.push(format!("{}{last}", value));
    others.push(format!("{value}x"));
    if value.len() == 64 {
        others.push(format!("{}0", &value[..63]));
        others.push(format!("{}1", &value[..63]));
    }
    others.retain(|other| other != value);
    others
}

#[test]
fn no_value_of_catalogue_and_accounts_changes_silently() {
    let shipped = Shipped::new();
    let mut refused = Vec::new();
    let mut tried = 0;
    for (name, text) in &shipped.texts {
        for at in values(text) {
            let value = &text[at.clone()];
            let said = others(value).into_iter().find_map(|other| {
                let changed = format!("{}{other}{}", &text[..at.start], &text[at.end..]);
                shipped.changes(name, &changed).map(|said| (other, said))
            });
            let line = text[..at.start].lines().count();
            let Some((other, said)) = said else {
                refused.push(format!("{name}:{line} {value}"));
                continue;
            };
            tried += 1;
            let place = format!("{name}:{line}: {value} -> {other}");
            assert!(!said.is_empty(), "{place} changes silently");
            for sentence in &said {
                let told = sentence.split_once(" → ").map(|(before, after)| {
                    (
                        before.rsplit_once('(').map_or("", |(_, b)| b),
                        after.trim_end_matches(')'),
                    )
                });
                assert!(
                    told.is_none_or(|(before, after)| before != after),
                    "{place}: {sentence}: what is different?"
                );
                for secret in ["trial-secret", "hush"] {
                    assert!(!sentence.contains(secret), "{place}: a secret is shown");
                }
            }
        }
    }
    // The ladders begin where they must, and these sizes of packs were bought.
    let fixed: Vec<_> = refused
        .iter()
        .map(|place| place.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(fixed, ["0", "10000", "100000", "1"], "{refused:?}");
    assert!(tried > 90, "only {tried} values were tried");
}

#[test]
fn what_was_removed_or_added_as_a_whole_is_told_too() {
    let shipped = Shipped::new();
    let (_, text) = &shipped.texts[1];
    let (head, _) = text.split_once("\"every-key\"").unwrap();
    let head = head.trim_end().to_owned() + "\n";
    let removed = shipped.changes("accounts.yaml", &head).unwrap();
    assert_eq!(
        removed,
        ["every-key removed: its keys are unknown from now"]
    );
    for line in text.lines().filter(|line| {
        ["- {order: ", "payments:", "stopped:"]
            .iter()
            .any(|start| line.trim_start().starts_with(start))
    }) {
        let without = text.replace(&format!("{line}\n"), "");
        if let Some(said) = shipped.changes("accounts.yaml", &without) {
            assert!(!said.is_empty(), "without {line} nothing is said");
        }
    }
    let services = "      video-segmentation:\n        opened: 2026-01-01T00:00:00+08:00\n";
    let (before, after) = text.rsplit_once(services).unwrap();
    let said = shipped
        .changes("accounts.yaml", &format!("{before}      {{}}\n{after}"))
        .unwrap();
    assert_eq!(said, ["1250000004 video-segmentation: not opened from now"]);
}
