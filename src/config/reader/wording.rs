//! Parts of messages: a place, a text as it was written, the name that was likely meant.

use crate::config::punctuation;
use crate::config::yaml::Place;
use std::path::Path;

/// `file:line:column`, to name a second place in a message.
pub(in crate::config) fn point(file: &Path, at: Place) -> String {
    format!("{}:{}:{}", file.display(), at.line, at.column)
}

/// In quotes, control characters escaped, cut to what a line can carry. With what to type when a
/// character of it comes from another keyboard.
pub(in crate::config) fn quoted(text: &str) -> String {
    let quoted = match text.char_indices().nth(60) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    };
    match punctuation::hint(text) {
        None => quoted,
        Some(hint) => format!("{quoted} ({hint})"),
    }
}

/// The name that `wrong` most likely stands for.
pub(in crate::config) fn nearest<'n>(
    wrong: &str,
    names: impl Iterator<Item = &'n str>,
) -> Option<&'n str> {
    let limit = (wrong.chars().count() / 3).min(2);
    names
        .map(|name| (edits(wrong, name), name))
        .filter(|(n, _)| (1..=limit).contains(n))
        .min_by_key(|(n, _)| *n)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    // Cut, so that a megabyte of key costs no more than a name.
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().take(70).collect(), b.chars().take(70).collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            d[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replace.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(d[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    d[a.len()][b.len()]
}
