//! What the command line says of itself.

use crate::harness::said;
use std::process::Command;

fn tollgate(arguments: &[&str]) -> String {
    let said = said(Command::new(env!("CARGO_BIN_EXE_tollgate")).args(arguments));
    assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.err);
    said.out
}

#[test]
fn every_command_is_completed_by_each_shell_and_has_a_man_page() {
    let help = tollgate(&["--help"]);
    let listed = help.split("Commands:\n").nth(1).unwrap();
    let commands: Vec<&str> = listed
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|command| *command != "help")
        .collect();
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
