//! What the command line says of itself.

use crate::harness::said;
use std::process::Command;

fn tollgate(arguments: &[&str]) -> String {
    let said = said(Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments));
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
    said.out
}

/// The commands that a help lists.
fn listed(help: &str) -> Vec<&str> {
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|command| *command != "help")
        .collect()
}

#[test]
fn every_command_is_completed_by_each_shell_and_has_a_man_page() {
    let help = tollgate(&["--help"]);
    let commands = listed(&help);
    assert!(commands.len() >= 12, "{commands:?}");
    let scripts = ["bash", "zsh", "fish"].map(|shell| tollgate(&["completions", shell]));
    let directory = tempfile::tempdir().unwrap();
    tollgate(&["man", directory.path().to_str().unwrap()]);
    for command in commands {
        assert!(scripts.iter().all(|script| script.contains(command)));
        let page = directory.path().join(format!("tollgate-{command}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("SYNOPSIS"), "{command}");
    }
    assert!(directory.path().join("tollgate-price-packs.1").exists());
}

#[test]
fn every_help_ends_with_an_example_of_its_own_command() {
    let mut paths: Vec<Vec<String>> = vec![vec![], vec!["man".to_owned()]];
    let mut read = 0;
    while let Some(path) = paths.pop() {
        let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = tollgate(&arguments);
        let examples = help.rsplit("\nExample").next().unwrap();
        let examples: Vec<&str> = examples.trim_end().lines().skip(1).collect();
        let own = format!("  tollgate {}", path.join(" "));
        assert!((1..=2).contains(&examples.len()), "{path:?}: {help}");
        for example in examples {
            assert!(example.starts_with(&own), "{path:?}: {example}");
        }
        for command in listed(&help) {
            let mut path = path.clone();
            path.push(command.to_owned());
            paths.push(path);
        }
        read += 1;
    }
    assert!(read >= 18, "the commands of commands are read too: {read}");
}
