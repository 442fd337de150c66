//! The tree that the parser gives, its places, and its pieces.

use crate::config::Mistake;
use crate::config::yaml::spelling::hides_its_spelling;
use crate::config::yaml::{Node, Place, Places, Value, parse, pieces};
use std::path::Path;

/// One line per node: place, kind, text.
fn outline(text: &str) -> Vec<String> {
    fn walk(node: &Node, out: &mut Vec<String>) {
        let what = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => format!("number {n}"),
            Value::Text(t) => format!("{t:?}"),
            Value::List(_) => "list".to_owned(),
            Value::Map(_) => "map".to_owned(),
            Value::Tagged => "tagged".to_owned(),
        };
        out.push(format!("{}:{} {what}", node.place.line, node.place.column));
        match &node.value {
            Value::List(list) => list.iter().for_each(|n| walk(n, out)),
            Value::Map(map) => map.iter().for_each(|(k, v)| {
                walk(k, out);
                walk(v, out);
            }),
            _ => {}
        }
    }
    let mut out = Vec::new();
    match parse(Path::new("f"), text.as_bytes(), Places::Wanted) {
        Ok(node) => walk(&node, &mut out),
        Err(mistake) => out.push(mistake.to_string()),
    }
    out
}

#[test]
fn every_scalar_knows_its_place_and_a_container_stands_at_its_key_or_first_scalar() {
    assert_eq!(
        outline("a: 1\n人: [x, {k: \"q\"}, []]\nb:\n  c: ~\n  d: 1.0\ne: true\n"),
        [
            "1:1 map",
            "1:1 \"a\"",
            "1:4 number 1",
            "2:1 \"人\"",
            "2:1 list",
            "2:5 \"x\"",
            "2:9 map",
            "2:9 \"k\"",
            "2:12 \"q\"",
            "2:1 list",
            "3:1 \"b\"",
            "3:1 map",
            "4:3 \"c\"",
            "4:6 null",
            "5:3 \"d\"",
            "5:6 number 1.0",
            "6:1 \"e\"",
            "6:4 true",
        ]
    );
}

#[test]
fn repeated_keys_are_kept() {
    assert_eq!(
        outline("a: 7\na: 8\n"),
        [
            "1:1 map",
            "1:1 \"a\"",
            "1:4 number 7",
            "2:1 \"a\"",
            "2:4 number 8"
        ]
    );
}

#[test]
fn a_number_keeps_its_spelling_and_a_scalar_with_a_tag_is_no_value() {
    for (written, read) in [
        ("0x3E8", "number 0x3E8"),
        ("0b11", "number 0b11"),
        ("0o12", "number 0o12"),
        ("+5", "number +5"),
        ("007", "number 007"),
        ("-007", "number -007"),
        ("+007", "number +007"),
        ("1e3", "number 1e3"),
        (".inf", "number .inf"),
        ("&x 0x1F", "number 0x1F"),
        ("0", "number 0"),
        ("0.5", "number 0.5"),
        ("-5", "number -5"),
        ("\"007\"", "\"007\""),
        ("'0x1F'", "\"0x1F\""),
        ("|-\n  007", "\"007\""),
        ("00a", "\"00a\""),
        ("1_000", "\"1_000\""),
        ("!!binary aGVsbG8=", "tagged"),
        ("!!str 7", "tagged"),
        ("!!str \"7\"", "tagged"),
        ("&x !!str 7", "tagged"),
        ("!<tag:yaml.org,2002:binary> aGVsbG8=", "tagged"),
    ] {
        // In a block, in a flow, after other lines, and where only the tree is wanted.
        for text in [
            format!("人: {written}\n"),
            format!("- [x, {{人: {written}}}]\n"),
            format!("- 'a\n\n  b' # c\r\n- {{\"人\":{written} }}\n"),
        ] {
            if text.contains("{") && written.contains('\n') {
                continue;
            }
            let outline = outline(&text);
            let found = outline.last().map(|line| line.split_once(' ').unwrap().1);
            assert_eq!(found, Some(read), "{text}");
            let plain = parse(Path::new("f"), text.as_bytes(), Places::Skipped);
            let placed = parse(Path::new("f"), text.as_bytes(), Places::Wanted);
            let (Ok(plain), Ok(placed)) = (plain, placed) else {
                panic!("{text}");
            };
            let is_float = [".inf", "1e3"].contains(&written);
            assert!(is_float || same(&plain, &placed), "{text}");
        }
    }
}

#[test]
fn a_tag_is_seen_and_what_follows_it_is_read_on() {
    assert_eq!(
        outline("a: !x {b: 1}\nc: !y 2\nd: 3\n"),
        [
            "1:1 map",
            "1:1 \"a\"",
            "1:1 tagged",
            "2:1 \"c\"",
            "2:4 tagged",
            "3:1 \"d\"",
            "3:4 number 3",
        ]
    );
}

#[test]
fn an_empty_file_is_null() {
    assert_eq!(outline(""), ["1:1 null"]);
    assert_eq!(outline("# nothing\n"), ["2:1 null"]);
}

#[test]
fn an_alias_is_refused_wherever_its_anchor_stands() {
    let refused = "an alias (`*name`) follows here: aliases are not supported, write the value out";
    assert_eq!(outline("a: &x 1\nb: *x\n"), [format!("f:2:1: {refused}")]);
    assert_eq!(outline("- &x 1\n- *x\n"), [format!("f:1:3: {refused}")]);
    assert_eq!(
        outline("a: &x [1]\n? *x\n: 2\n"),
        [format!("f:1:8: {refused}")]
    );
}

#[test]
fn a_value_that_is_left_out_is_no_alias() {
    assert_eq!(
        outline("? a\nb: 1\n"),
        [
            "1:3 map",
            "1:3 \"a\"",
            "2:1 null",
            "2:1 \"b\"",
            "2:4 number 1"
        ]
    );
    let refused = "an alias (`*name`) follows here: aliases are not supported, write the value out";
    for null in ["~", "null", ""] {
        assert_eq!(
            outline(&format!("- &x {null}\n- *x\n")),
            [format!("f:1:3: {refused}")]
        );
    }
}

#[test]
fn what_is_not_yaml_is_one_mistake_with_its_place() {
    assert_eq!(
        outline("a: [1\nb: 2\n"),
        [
            "f:2:2: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4; check indentation, brackets and quotes here"
        ]
    );
    assert_eq!(
        outline("a: \u{1}\n"),
        [
            "f:1:4: not valid YAML: control characters are not allowed at position 3; check indentation, brackets and quotes here"
        ]
    );
    assert_eq!(
        outline("a: 1\n---\nb: 2\n"),
        ["f:1:1: more than one YAML document: keep one, without `---` after it"]
    );
    assert_eq!(
        parse(Path::new("f"), b"a: 1\nb: \xff", Places::Wanted)
            .err()
            .map(|m| m.to_string()),
        Some("f:2:4: not UTF-8 text: save the file as UTF-8".to_owned())
    );
}

/// The parser's time grows with the square of the depth: 20,000 of them took it 4 to 19 s.
#[test]
fn brackets_that_nest_too_deep_are_refused_in_a_time_that_grows_with_the_text_alone() {
    let refused = "more than 100 `[` and `{` are open here: close them";
    for opens in [
        "[", "{a: ", "{\"a\":", "{'a' :", "{[a]:", "[{", "!t [", "&a [", "? [", "[x, ", "\n [",
    ] {
        let outline = outline(&format!("k: {}", opens.repeat(100_000)));
        let [told] = &outline[..] else {
            panic!("{opens}: {outline:?}");
        };
        assert!(told.ends_with(refused), "{opens}: {told}");
    }
    let whole = format!("k: {}", "[".repeat(101));
    assert_eq!(outline(&whole), [format!("f:1:104: {refused}")]);
    // What is closed again, quoted, in a comment or a text of more lines does not count.
    let (open, close) = ("[".repeat(100), "]".repeat(100));
    for text in [
        format!("k: {open}{close}\nl: {open}{close}\n"),
        format!("k: '{open}[' # {open}[\nl: |\n  {open}[\nm: a {open}[\n"),
    ] {
        let outline = outline(&text);
        assert!(outline.len() > 3, "{outline:?}");
    }
}

#[test]
fn a_value_that_does_not_fit_its_tag_is_not_repeated() {
    assert_eq!(
        outline("a: !!int hush\n"),
        ["f:1:4: this value does not fit its tag: remove the tag"]
    );
}

fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Null, Value::Null) | (Value::Tagged, Value::Tagged) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Number(a), Value::Number(b)) | (Value::Text(a), Value::Text(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(b)) => {
            let pair = |((k, v), (l, w)): (&(Node, Node), &(Node, Node))| same(k, l) && same(v, w);
            a.len() == b.len() && a.iter().zip(b).all(pair)
        }
        _ => false,
    }
}

#[test]
fn the_tree_is_the_same_with_and_without_places() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut texts = vec![
        "a: 1\n? [k, 2]\n: {x: ~, y: !t z, w: [-3, 1.5, true, \"7\", '8', |-\n]}\n".to_owned(),
    ];
    for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
        let text = std::fs::read_to_string(shipped.join(file)).unwrap();
        let is_placed = text.contains('*') || hides_its_spelling(text.as_bytes());
        assert!(!is_placed, "{file} is read without places");
        texts.push(text);
    }
    for text in texts {
        let parsed = |places| parse(Path::new("f"), text.as_bytes(), places);
        match (parsed(Places::Wanted), parsed(Places::Skipped)) {
            (Ok(a), Ok(b)) => assert!(same(&a, &b), "{text}"),
            (Err(a), Err(b)) => assert_eq!(a, b),
            _ => panic!("only one of the two fails: {text}"),
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]
    /// Whatever is written: the tree does not depend on whether places are wanted.
    #[test]
    fn no_spelling_is_lost_without_places(parts in proptest::collection::vec(0..PARTS.len(), 1..8)) {
        let text: String = parts.into_iter().map(|part| PARTS[part]).collect();
        let parsed = |places| parse(Path::new("f"), text.as_bytes(), places);
        if let (Ok(plain), Ok(placed)) = (parsed(Places::Skipped), parsed(Places::Wanted)) {
            assert!(same(&plain, &placed), "{text:?}");
        }
    }
}

/// What a number may begin behind, and numbers.
const PARTS: &[&str] = &[
    "007", "0x1F", "+5", "-0", "0", "-", "+", "!!str ", "!t ", "&a ", "a", " ", "  ", "\n", "\r",
    "\t", "\u{85}", "\u{2028}", "\u{a0}", "[", "]", "{", "}", ",", ":", ": ", "?", "? ", "- ",
    "\"", "'", "\"a\"", "'b'", "#", " #", "人", "|\n ", "---\n", "%", "@",
];

fn map(parsed: Result<Node, Mistake>) -> Option<Vec<(Node, Node)>> {
    match parsed.ok()?.value {
        Value::Map(map) => Some(map),
        _ => None,
    }
}

/// What the pieces hold together; `None` when it must be read as a whole.
fn in_pieces(text: &str) -> Option<Vec<(Node, Node)>> {
    let read = |piece: &str| map(parse(Path::new("f"), piece.as_bytes(), Places::Skipped));
    let maps = pieces(text, "top", 1)?.into_iter().map(read);
    Some(
        maps.collect::<Option<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect(),
    )
}

#[test]
fn a_usual_file_is_cut_before_each_entry_once_a_piece_is_long_enough() {
    let text = "# head\ntop: # of it\n\n  a: {x: 1}\n  # b's\n  b:\n    c: |\n      d: 1\n  e: 2\n";
    let cut = [
        "\n  a: {x: 1}\n  # b's\n",
        "  b:\n    c: |\n      d: 1\n",
        "  e: 2\n",
    ];
    assert_eq!(pieces(text, "top", 1).unwrap(), cut);
    assert_eq!(pieces(text, "top", 1_000).unwrap(), [cut.concat()]);
    for whole in [
        "",
        "top: {}\n",
        "top:\na: 1\n",
        "top:\n  a: 1\nb: 2\n",
        "b: 1\ntop:\n  a: 1\n",
        "top:\n  a: 1\n b: 2\n",
    ] {
        assert_eq!(pieces(whole, "top", 1), None, "{whole}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]
    /// Whatever is written: pieces that are maps, all of them, hold what the file holds.
    #[test]
    fn what_is_read_in_pieces_is_what_is_read_as_a_whole(lines in proptest::collection::vec(0..LINES.len(), 1..8)) {
        let lines: Vec<&str> = lines.into_iter().map(|line| LINES[line]).collect();
        let text = format!("top:\n  first: 1\n{}\n", lines.join("\n"));
        if let Some(entries) = in_pieces(&text) {
            let whole = map(parse(Path::new("f"), text.as_bytes(), Places::Skipped));
            let [(key, value)] = &whole.expect(&text)[..] else {
                panic!("{text}");
            };
            let read = Node { place: Place::START, value: Value::Map(entries) };
            assert!(matches!(&key.value, Value::Text(key) if key == "top") && same(value, &read), "{text}");
        }
    }
}

/// Lines that open, close or go on with something.
const LINES: &[&str] = &[
    "  a: 1",
    "  a: {x: 1",
    "  a: [x,",
    "  a: \"x",
    "  a: 'x",
    "  a: |",
    "  a: >-",
    "  a: |2",
    "  a:",
    "  a: x",
    "  a: &x y",
    "  b: *x",
    "  b: !t",
    "  b: &x",
    "  ? b",
    "  : b",
    "  - b",
    "  -",
    "    c: 1",
    "    c",
    "    - c",
    "  }",
    "  ]",
    "  \"",
    "  '",
    "  d\"",
    "    d'",
    "  c",
    " c: 1",
    "   c: 1",
    "c: 1",
    "",
    "  # c",
    "# \"",
    "\t",
    "  \tc: 1",
    "---",
    "...",
    "%YAML 1.2",
    "  <<: {}",
    "  a: x # \"",
    "  a: \"x\\",
    "  a: x\u{85}b: 1",
    "  a: x\rb: 1",
    "  {c: 1}: 2",
    "  a: [x]",
    "  a: \"x\" ",
    "    ",
];
