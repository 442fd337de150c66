//! How a scalar is written, where the parser does not tell.
//!
//! Must never judge what a value means.

use crate::config::yaml::Value;

/// Whether the text may hold a number or a tag that the parser gives without its spelling. Sees
/// more of them than there are: also inside of text.
pub(in crate::config) fn hides_its_spelling(text: &[u8]) -> bool {
    // The two bytes before. A scalar begins behind a blank, behind a bracket, or behind the colon
    // of a quoted key. It never begins behind the colon of a time of day.
    let mut before = [b' '; 2];
    for (at, byte) in text.iter().enumerate() {
        let begins = match before[1] {
            b':' => !before[0].is_ascii_alphanumeric(),
            byte => byte.is_ascii_whitespace() || b"[{,?".contains(&byte) || !byte.is_ascii(),
        };
        if begins && matches!(byte, b'0' | b'+' | b'-' | b'!') && is_spelled_oddly(&text[at..]) {
            return true;
        }
        before = [before[1], *byte];
    }
    false
}

/// Whether a scalar that begins here has a tag, or is a whole number with a plus, leading zeros or
/// a base.
fn is_spelled_oddly(text: &[u8]) -> bool {
    let (sign, digits) = match text {
        [b'!', ..] => return true,
        [sign @ (b'+' | b'-'), digits @ ..] => (Some(sign), digits),
        _ => (None, text),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let digits = &digits[..end.unwrap_or(digits.len())];
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    match digits {
        [b'0', b'x' | b'o' | b'b', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        [b'0'] => sign.is_some(),
        [b'0', _, ..] => is_decimal,
        _ => is_decimal && sign == Some(&b'+'),
    }
}

/// The value as it is written, which the parser does not tell. `written` begins where the scalar
/// stands.
pub(in crate::config) fn as_written(value: Value, written: &str) -> Value {
    let mut written = written;
    // An anchor that no alias follows.
    while let Some(anchor) = written.strip_prefix('&') {
        let behind = anchor.trim_start_matches(|c: char| !c.is_whitespace());
        written = behind.trim_start();
    }
    let is_plain = !written.starts_with(['"', '\'', '|', '>']);
    match value {
        _ if written.starts_with('!') => Value::Tagged,
        Value::Number(_) => {
            let ends = |c: char| c.is_whitespace() || ",[]{}:".contains(c);
            let end = written.find(ends).unwrap_or(written.len());
            Value::Number(written[..end].to_owned())
        }
        Value::Text(text) if is_plain && has_leading_zeros(&text) => Value::Number(text),
        value => value,
    }
}

/// Whether a null that stands here is not written at all.
pub(in crate::config) fn is_left_out(written: &str) -> bool {
    let word = written.split(|c: char| !c.is_ascii_alphabetic()).next();
    let is_null = ["null", "Null", "NULL"].contains(&word.unwrap_or_default());
    !is_null && !written.starts_with(['~', '&', '!'])
}

fn has_leading_zeros(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}
