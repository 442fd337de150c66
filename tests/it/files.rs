//! The files that people write, as the commands read them: what editors, exports and scripts make
//! of them.

use crate::harness::*;
use std::net::SocketAddr;

fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[test]
fn a_variable_that_ends_with_a_newline_is_read_and_one_that_ends_with_a_blank_is_refused() {
    let house = Sandbox::new(nowhere(), &[]);
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
        let place = format!("{}:16:", file.display());
        assert_eq!(refused.code, Some(1), "{value:?}");
        assert!(refused.err.starts_with(&place), "{}", refused.err);
        let told = format!("the environment variable \"STUDIO_SECRET\" {odd}\n");
        assert!(refused.err.ends_with(&told), "{}", refused.err);
        assert!(!refused.err.contains("hush"), "{}", refused.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_accounts_that_comes_with_another_ending_is_told_by_check_and_by_the_running_gate()
 {
    let house = Sandbox::new(
        nowhere(),
        &[("accounts: accounts.yaml", "accounts: accounts.d")],
    );
    let directory = house.file("accounts.d");
    std::fs::create_dir(&directory).unwrap();
    std::fs::rename(house.file("accounts.yaml"), directory.join("all.yaml")).unwrap();
    let _process = house.start().await;
    std::fs::write(directory.join("new.yml"), "accounts: {}\n").unwrap();
    let told = "accounts.d/new.yml is passed over, because only *.yaml files are read";
    eventually("the gate says so by itself", || house.log().contains(told)).await;
    let check = house.run(&["check"]);
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(check.err.starts_with("warning: "), "{}", check.err);
    assert!(check.err.contains(told), "{}", check.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_mistakes_a_hundred_are_told_and_the_rest_counted() {
    let house = Sandbox::new(nowhere(), &[]);
    let good = std::fs::read_to_string(house.file("accounts.yaml")).unwrap();
    let process = house.start().await;
    for (wrong, lines, last) in [
        (100, 100, ":\u{20}"),
        (2_500, 101, "and 2400 more like these"),
    ] {
        let accounts: String = (0..wrong)
            .map(|n| format!("  a{n}: {{name: A, colour: red}}\n"))
            .collect();
        std::fs::write(house.file("accounts.yaml"), format!("{good}{accounts}")).unwrap();
        let check = house.run(&["check"]);
        assert_eq!(check.code, Some(1));
        let told: Vec<&str> = check.err.lines().collect();
        assert_eq!(told.len(), lines, "{}", check.err);
        assert!(told[0].contains("unknown key \"colour\""), "{}", told[0]);
        assert!(told[lines - 1].contains(last), "{}", told[lines - 1]);
        let (status, answer) = post_reload(house.admin, "").await;
        assert_eq!(status, http::StatusCode::UNPROCESSABLE_ENTITY);
        let answered = answer["mistakes"].as_array().unwrap();
        assert_eq!(answered.len(), lines);
        assert_eq!(answered[lines - 1], told[lines - 1]);
    }
    // A thread of its own writes the log: a process that is killed may take the last lines with it.
    for _ in 0..500 {
        if house.log().contains("\"mistakes\":2500") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(process);
    let log = house.log();
    assert!(log.contains("and 2400 more like these"), "{log}");
    assert!(
        log.contains("\"mistakes\":2500"),
        "the log counts all of them"
    );
}
