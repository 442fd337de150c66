//! The rules with shorter times, and nothing else changed.

/// A range is a sixtieth of what it was, and this at least: some scrapes have to lie in it.
const SHORTEST_RANGE_MS: u64 = 4_000;

/// The rules as a test can wait for them: ranges are a sixtieth, and what has to last, a six
/// hundredth.
pub fn shortened(rules: &str) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        match line.split_once("for: ") {
            Some((before, long)) if before.trim().is_empty() => {
                let ms = milliseconds(long).unwrap_or_else(|| panic!("{line}"));
                text += &format!("{before}for: {}ms\n", ms / 600);
            }
            _ => text += &(with_short_ranges(line) + "\n"),
        }
    }
    text
}

fn with_short_ranges(line: &str) -> String {
    let mut parts = line.split('[');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let range = part.split_once(']');
        let range = range.and_then(|(long, rest)| Some((milliseconds(long)?, rest)));
        match range {
            Some((ms, rest)) => {
                text += &format!("[{}ms]{rest}", (ms / 60).max(SHORTEST_RANGE_MS));
            }
            None => text += &format!("[{part}"),
        }
    }
    text
}

/// Of a duration such as `30m`.
fn milliseconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    Some(number * seconds * 1_000)
}

#[test]
fn times_get_shorter_and_nothing_else_of_a_rule_changes() {
    for (rule, short) in [
        ("        for: 10m\n", "        for: 1000ms\n"),
        ("for: 2h\n", "for: 12000ms\n"),
        (
            "expr: rate(x[30m]) > 0.05 * rate(y[1m]) # for: 1m\n",
            "expr: rate(x[30000ms]) > 0.05 * rate(y[4000ms]) # for: 1m\n",
        ),
        (
            "summary: \"[a] waits for: 1 [5]\"\n",
            "summary: \"[a] waits for: 1 [5]\"\n",
        ),
    ] {
        assert_eq!(shortened(rule), short);
    }
}
