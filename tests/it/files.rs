//! The files that people write, as the commands read them: what editors, exports and scripts make of them.

use crate::harness::*;
use std::net::SocketAddr;

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[test]
fn a_variable_that_ends_with_a_newline_is_read_and_one_that_ends_with_a_blank_is_refused() {
    let house = House::new(nowhere(), &[]);
    house.edit(
        "accounts.yaml",
        "secret_key: trial-secret-of-example-studio",
        "secret_key: {env: STUDIO_SECRET}",
    );
    let check = |value: &str| said(house.command(&[], &["check"]).env("STUDIO_SECRET", value));
    for value in ["hush", "hush\n", "hush\r\n"] {
        assert_eq!(
            check(value).code,
            Some(0),
            "{value:?}: {}",
            check(value).err
        );
    }
    for (value, odd) in [
        ("hush ", "has a blank as character 5: take it out"),
        (
            "hush\n\n",
            "has more than one line or newline: leave one line",
        ),
        (
            "'hush'",
            "begins or ends with a quotation mark: take the marks off",
        ),
        ("\n", "is empty"),
    ] {
        let refused = check(value);
        let file = house.file("accounts.yaml");
        let place = format!("{}:12:", file.display());
        assert_eq!(refused.code, Some(1), "{value:?}");
        assert!(refused.err.starts_with(&place), "{}", refused.err);
        let told = format!("the environment variable \"STUDIO_SECRET\" {odd}\n");
        assert!(refused.err.ends_with(&told), "{}", refused.err);
        assert!(!refused.err.contains("hush"), "{}", refused.err);
    }
}
