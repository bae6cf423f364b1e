//! What the commands answer, on files in a directory of their own.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use policy::strict::Source;

use super::*;
use crate::cli::{Cli, Command};

#[test]
fn sound_policies_are_accepted() {
    assert_eq!(exit(&["check", "DIR"], POLICY), Exit::Done);
    assert_eq!(exit(&["test", "DIR"], POLICY), Exit::Done);
}

#[test]
fn a_policy_with_an_unknown_key_exits_2() {
    let flawed = POLICY.replace("mode: enforce", "mood: enforce");

    assert_eq!(exit(&["check", "DIR"], &flawed), Exit::Unacceptable);
    assert_eq!(exit(&["check", "-o", "json", "DIR"], &flawed), Exit::Unacceptable);
    assert_eq!(exit(&["test", "DIR"], &flawed), Exit::Unacceptable);
}

#[test]
fn a_test_that_fails_exits_3_from_test_and_2_from_check() {
    let flawed = POLICY.replace("expect: deny", "expect: allow");

    assert_eq!(exit(&["test", "DIR"], &flawed), Exit::Found);
    assert_eq!(exit(&["test", "-o", "jsonl", "DIR"], &flawed), Exit::Found);
    assert_eq!(exit(&["check", "DIR"], &flawed), Exit::Unacceptable);
}

#[test]
fn an_allowed_call_exits_0_and_a_denied_one_4() {
    assert_eq!(explained("spiffe://prod.test/web", &["GET /accounts/7"]), Exit::Done);
    assert_eq!(explained("spiffe://prod.test/web", &["DELETE /accounts/7"]), Exit::Denied);
    assert_eq!(explained("spiffe://prod.test/other", &["GET /accounts/7"]), Exit::Denied);
    assert_eq!(explained("unauthenticated", &["GET /accounts/7"]), Exit::Denied);
    assert_eq!(explained("spiffe://prod.test/web", &[]), Exit::Denied);
}

#[test]
fn a_request_that_no_sidecar_would_parse_exits_2() {
    for request in ["GET", "GET accounts", "GET /a%2fb", "G T /accounts/7", " /accounts/7"] {
        assert_eq!(explained("spiffe://prod.test/web", &[request]), Exit::Unacceptable, "{request}");
    }
}

#[test]
fn a_directory_has_the_generation_that_its_sidecar_shows_and_messages_a_path_to_open() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("api.yaml"), POLICY).unwrap();
    let paths = [dir.path().to_owned()];
    let sources = files::sources(&paths).unwrap();
    let shown = policy::compile(&[Source::new("api.yaml", POLICY)]).unwrap().generation().to_owned();

    assert_eq!(files::generation(&sources, &paths), Some(shown));
    assert!(Path::new(&sources[0].name).is_file(), "{}", sources[0].name);
}

fn explained(from: &str, request: &[&str]) -> Exit {
    let words =
        ["explain", "--policies", "DIR", "--from", from, "--to", "spiffe://prod.test/api", "--port", "8443"];
    exit(&[&words, request].concat(), POLICY)
}

/// Runs a command on a directory with one policy file.
fn exit(words: &[&str], text: &str) -> Exit {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("api.yaml"), text).unwrap();
    let here = dir.path().to_str().unwrap();
    let words = words.iter().map(|word| if *word == "DIR" { here } else { word });
    let cli = Cli::try_parse_from(["vouchsafe", "policy"].into_iter().chain(words)).unwrap();
    let Command::Policy(policy) = cli.command else { unreachable!("only policy commands are run here") };
    run(policy.command).unwrap_or_else(|failure| failure.exit())
}

const POLICY: &str = "\
vouchsafe: policy/v1
name: api
protects: spiffe://prod.test/api
mode: enforce
allow:
  - name: web-reads
    from: [spiffe://prod.test/web]
    http: {port: 8443, methods: [GET], paths: [/accounts/**]}
tests:
  - {from: spiffe://prod.test/web, http: GET 8443 /accounts/7, expect: allow, by: web-reads}
  - {from: unauthenticated, http: GET 8443 /accounts/7, expect: deny}
";
