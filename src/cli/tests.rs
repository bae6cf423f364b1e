//! The command line as a whole: it holds together, every command has its example, and what
//! cannot be meant is refused with exit code 2.

use std::collections::BTreeSet;

use clap::{Command as Parser, CommandFactory as _, Parser as _};

use super::*;

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_an_example() {
    for command in leaves(&Cli::command()) {
        let name = command.get_name().to_owned();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "{name}");
    }
}

#[test]
fn every_example_is_accepted() {
    for command in leaves(&Cli::command()) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for example in examples(&help) {
            let parsed = Cli::try_parse_from(&example);
            assert!(parsed.is_ok(), "{example:?}: {}", parsed.err().unwrap());
        }
    }
}

#[test]
fn every_option_is_explained() {
    for command in leaves(&Cli::command()) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    let wrong: [&[&str]; 14] = [
        &["vouchsafe", "frobnicate"],
        &["vouchsafe", "ca", "token", "create", "--ttl", "forever"],
        &["vouchsafe", "ca", "entry", "create", "--id", "spiffe://prod.example/web"],
        &["vouchsafe", "ca", "agent", "ban", "not-an-id"],
        &["vouchsafe", "svid", "watch", "--signal", "HUP"],
        &["vouchsafe", "whoami", "--pid", "0"],
        &["vouchsafe", "audit", "query", "--since", "yesterday"],
        &["vouchsafe", "ca", "token", "create", "--ttl", "31d"],
        &["vouchsafe", "ca", "entry", "show", "spiffe://prod.example/web"],
        &["vouchsafe", "audit", "query", "--denied", "--decision", "would_deny", "audit.jsonl"],
        &["vouchsafe", "audit", "query"],
        &["vouchsafe", "proxy", "check"],
        &["vouchsafe", "dev", "--address", "localhost"],
        &["vouchsafe", "dev", "--base-port", "65533"],
    ];

    for words in wrong {
        assert_eq!(Cli::try_parse_from(words).unwrap_err().exit_code(), 2, "{words:?}");
    }
}

#[test]
fn what_was_likely_meant_is_told() {
    let told = |words: &str| Cli::try_parse_from(words.split(' ')).unwrap_err().to_string();

    let create = told("vouchsafe ca entry create --id spiffe://a.test/web --selector unix:uid:1");
    let show = told("vouchsafe ca entry show spiffe://a.test/web");
    let token = told("vouchsafe ca token create --ttl 31d");

    assert!(create.contains("--node") && create.contains("--parent"), "{create}");
    assert!(show.contains("vouchsafe ca entry list --id"), "{show}");
    assert!(token.contains("at most 30d"), "{token}");
}

#[test]
fn no_secret_can_be_given_on_the_command_line() {
    let names: BTreeSet<String> = leaves(&Cli::command())
        .iter()
        .flat_map(|command| command.get_arguments())
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect();

    for secret in ["token", "join-string", "key", "password"] {
        assert!(!names.contains(secret), "--{secret}");
    }
}

/// The commands that do something, hidden ones left out.
fn leaves(command: &Parser) -> Vec<Parser> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let below: Vec<Parser> = shown.flat_map(leaves).collect();
    if below.is_empty() { vec![command.clone()] } else { below }
}

/// The examples of a help text as words; lines that end in a backslash go on.
fn examples(help: &str) -> Vec<Vec<String>> {
    let joined = help.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| line.starts_with("vouchsafe"));
    lines.map(|line| words(line.split(" > ").next().unwrap())).collect()
}

fn words(line: &str) -> Vec<String> {
    let line = line.replace("$(pidof -s nginx)", "7");
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}
