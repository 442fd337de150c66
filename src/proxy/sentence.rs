//! The sentences of refusals: fixed words, and the values that are filled in.

use http::Method;
use std::fmt;
use std::time::Duration;

/// The text of a refusal: fixed words and numbers, none of which needs an escape in JSON. It holds
/// nothing that the client sent. `Display` shows a value's name in its place, as the page of errors
/// has it.
pub enum Sentence {
    /// The same for each call.
    Fixed(&'static str),
    /// Text, the name of a value, text.
    Filled([&'static str; 3]),
    /// The text of the failure; here is one such failure.
    Said(&'static (dyn fmt::Display + Sync)),
}

impl fmt::Display for Sentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(text) => f.write_str(text),
            Self::Filled([before, name, after]) => {
                write!(f, "{before}{}{after}", name.to_uppercase())
            }
            Self::Said(failure) => f.write_str(&sentence(failure)),
        }
    }
}

/// A value that is filled into a sentence.
pub(super) trait Value {
    /// The sentence: the value between two texts.
    fn between(&self, before: &str, after: &str) -> String;
}

fn number(before: &str, number: impl itoa::Integer, after: &str) -> String {
    [before, itoa::Buffer::new().format(number), after].concat()
}

impl Value for usize {
    fn between(&self, before: &str, after: &str) -> String {
        number(before, *self, after)
    }
}

impl Value for u64 {
    fn between(&self, before: &str, after: &str) -> String {
        number(before, *self, after)
    }
}

impl Value for u32 {
    fn between(&self, before: &str, after: &str) -> String {
        number(before, *self, after)
    }
}

impl Value for Duration {
    fn between(&self, before: &str, after: &str) -> String {
        number(before, ceil_seconds(*self), after)
    }
}

impl Value for Vec<Method> {
    fn between(&self, before: &str, after: &str) -> String {
        let names: Vec<&str> = self.iter().map(Method::as_str).collect();
        [before, &names.join(" or "), after].concat()
    }
}

/// Rounded up, at least 1: a client that comes back then finds the window open.
pub(super) fn ceil_seconds(wait: Duration) -> u64 {
    let rest = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(rest).max(1)
}

pub(super) fn sentence(text: impl fmt::Display) -> String {
    let mut text = format!("{text}.");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up_whatever_it_is() {
        let seconds = [Duration::ZERO, Duration::from_millis(1_001), Duration::MAX];
        assert_eq!(seconds.map(ceil_seconds), [1, 2, u64::MAX]);
    }
}
