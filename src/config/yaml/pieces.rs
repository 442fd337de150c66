//! A large file, cut into pieces that are read one by one.
//!
//! Must never cut where the parser would read on.

/// Cuts the text of a file that holds nothing but a map of maps under `key`, the usual way of
/// writing one. Each text holds some entries of the inner map, and all save the last have at least
/// `least` bytes. `None` when the file is written in another way.
///
/// It cuts only before a line that is indented as the first entry is. What stands before such a
/// line and is whole YAML in itself (nothing open, a map) is the same in the file: no scalar and no
/// block goes on there. So the pieces are the file's if each of them is a map, and the caller
/// refuses any other.
pub(in crate::config) fn pieces<'t>(
    text: &'t str,
    key: &str,
    least: usize,
) -> Option<Vec<&'t str>> {
    let mut indent = None;
    let mut pieces = Vec::new();
    let mut begin = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let from = at;
        at += line.len();
        let content = line.trim_start_matches(' ');
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        let indented = line.len() - content.len();
        let Some(start) = begin else {
            let rest = line.strip_prefix(key)?.strip_prefix(':')?;
            if !(rest.trim().is_empty() || rest.starts_with(" #")) {
                return None;
            }
            begin = Some(at);
            continue;
        };
        // What stands before the first entry goes with it.
        let Some(entries) = indent else {
            if indented == 0 {
                return None;
            }
            indent = Some(indented);
            continue;
        };
        if indented < entries {
            return None;
        }
        if indented == entries && from - start >= least {
            pieces.push(&text[start..from]);
            begin = Some(from);
        }
    }
    pieces.push(&text[begin?..]);
    Some(pieces)
}
