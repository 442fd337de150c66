//! What is said of a text that is not YAML.

use crate::config::tests::files::{ACCOUNTS, Files};

/// In each case ⌖ stands before what is wrong, and is not part of the file.
#[test]
fn a_tab_punctuation_of_another_keyboard_and_an_unclosed_quote_are_said_where_they_stand() {
    const TAB: &str = "a tab stands here, and YAML indents by spaces alone: put spaces instead";
    const UNCLOSED: &str =
        "the quotation mark that opens here is not closed in its line: close it behind the value";
    const COLON: &str = "： (U+FF1A) is not the : of YAML: type :";
    const COMMA: &str = "， (U+FF0C) is not the , of YAML: type ,";
    let mut wrong = Vec::new();
    for (from, to, said) in [
        ("    name: One", "⌖\tname: One", TAB),
        ("    name: One", "  ⌖\t  name: One", TAB),
        ("    keys:", "⌖\tkeys:", TAB),
        ("      - {secret_id", "⌖\t- {secret_id", TAB),
        (
            "      - {secret_id",
            "      -⌖\tsecret_id: x\n      - {secret_id",
            TAB,
        ),
        ("    name: One", "    name⌖： One", COLON),
        ("    name: One", "    name⌖：One # a comment", COLON),
        ("mode: qps", "mode⌖： qps", COLON),
        ("mode: qps", "mode⌖： qps\n\n        # a comment", COLON),
        ("      video:", "      video⌖：", COLON),
        ("order: P-1, ", "order: P-1⌖， ", COMMA),
        ("order: P-1, ", "order: \"P-1\"⌖， ", COMMA),
        (
            "packs: [{",
            "packs: ⌖［{",
            "［ (U+FF3B) is not the [ of YAML: type [",
        ),
        (
            "    name: One",
            "⌖\u{3000}   name: One",
            "U+3000 is no space to YAML: type a space",
        ),
        ("name: One", "name: ⌖\"One", UNCLOSED),
        ("name: One", "name: ⌖'One", UNCLOSED),
        ("name: One", "name: ⌖\"One\\\"", UNCLOSED),
        ("secret_id: AKID1", "secret_id: ⌖\"AKID1", UNCLOSED),
        ("cash: \"176\"", "cash: ⌖\"176", UNCLOSED),
        ("name: Two", "name: ⌖\"Two", UNCLOSED),
        (
            "accounts:",
            "# don't say \"no\naccounts:\n  x: {name: 'it''s: \"x'}\n  y: {name: ⌖'Y}",
            UNCLOSED,
        ),
        (
            "name: One",
            "name: |\n      it's: \"text\n    note⌖： x",
            COLON,
        ),
    ] {
        let text = ACCOUNTS.replacen(from, to, 1);
        let (before, _) = text.split_once('⌖').unwrap();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let expected = format!("accounts.yaml:{line}:{column}: not valid YAML: {said}");
        for ends in ["\n", "\r\n"] {
            let files = Files::good();
            files.write("accounts.yaml", text.replace('⌖', "").replace('\n', ends));
            let found = files.mistakes();
            if found != [expected.as_str()] {
                wrong.push(format!(
                    "{to:?}\n  said     {found:#?}\n  expected {expected}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_character_that_cannot_be_seen_is_named_with_its_line() {
    const BOM: &str =
        "a byte-order mark, U+FEFF, stands here, as where two files were joined: take it out";
    const ZERO: &str = "U+200B cannot be seen: take it out";
    for (from, to, said) in [
        // What `cat` makes of two files, the second of an editor that puts a mark first.
        ("accounts:", "accounts: {}\n\u{feff}accounts:", BOM),
        ("accounts:", "\u{200b}accounts:", ZERO),
        ("  \"2\":", "\u{feff}  \"2\":", BOM),
        ("    name: One", "    \u{200b}name: One", ZERO),
        ("    name: One", "   \u{200b} name: One", ZERO),
        ("    keys:", "\u{200b}    keys:", ZERO),
        ("    name: One", "    name:\u{200b} One", ZERO),
        ("name: One", "name: \u{200b}\"One\": x", ZERO),
        (
            "\"2\":",
            "\"2\u{2060}\":",
            "U+2060 cannot be seen: take it out",
        ),
        ("\"2\":", "\"2\"\u{200b}:", ZERO),
    ] {
        let files = Files::good();
        files.change("accounts.yaml", from, to);
        let text = ACCOUNTS.replacen(from, to, 1);
        let (before, _) = text
            .split_once(['\u{feff}', '\u{200b}', '\u{2060}'])
            .unwrap();
        let line = before.matches('\n').count() + 1;
        let found = files.mistakes();
        let place = format!("accounts.yaml:{line}:");
        assert!(
            found
                .iter()
                .any(|told| told.starts_with(&place) && told.contains(said)),
            "{to:?}: {found:#?}"
        );
    }
}
