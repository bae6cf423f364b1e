//! The Go peer: SPIRE's API module drives the CA, go-spiffe the Workload API and the inbound listener.
//! The program is `tests/go`, compiled by `tests/run.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::cluster::{API, Agent, Ca, Pair, TRUST_DOMAIN, WEB, id};
use crate::support::command::ended;
use crate::support::sidecar::allow_path;
use crate::support::wait::eventually;

#[test]
fn spires_own_client_modules_drive_the_ca() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let mut command = peer(&program(), "^TestCA");
    command.env("VOUCHSAFE_CA", ca.address().to_string());
    command.env("VOUCHSAFE_ADMIN_SOCKET", ca.admin_socket());

    let told = ended(command);

    assert_eq!(told.code, 0, "{}", told.stdout);
    assert!(told.stdout.matches("--- PASS: TestCA").count() >= 15, "{}", told.stdout);
}

#[test]
fn go_spiffe_fetches_watches_and_calls_through_the_inbound_listener() {
    let pair = Pair::start("svid_ttl: 15s\n", "15s");
    let program = copy(pair.root.path(), "go-workload");
    let workload = id("/ns/shop/sa/gopher");
    pair.ca.entry(pair.agent.alias(), &workload, &program, "15s");
    let policy = allow_path("http", &id(API), &workload, pair.http.inbound.port());
    pair.api.policy("http.yaml", &policy);
    eventually("the callee knows the new policy", || {
        let answer = crate::support::http::get(pair.http.outbound, "/allowed/x");
        answer.is_ok_and(|answer| answer.status != 200).then_some(())
    });
    pair.http.backend.forget();
    let mut command = peer(&program, "^TestWorkload");
    command.env("SPIFFE_ENDPOINT_SOCKET", pair.agent.endpoint());
    command.env("VOUCHSAFE_WORKLOAD_ID", &workload);
    command.env("VOUCHSAFE_INBOUND", pair.http.inbound.to_string());
    command.env("VOUCHSAFE_SERVER_ID", id(API));

    let mut first = peer(&program, "^TestWorkloadFetches");
    first.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    eventually("the entry has reached the agent", || first.output().unwrap().status.success().then_some(()));

    let told = ended(command);

    assert_eq!(told.code, 0, "{}", told.stdout);
    assert!(told.stdout.matches("--- PASS: TestWorkload").count() >= 6, "{}", told.stdout);
    assert!(pair.http.backend.seen_text().contains(&workload), "the caller's identity was not handed on");
    assert!(!pair.http.backend.seen_text().contains(&id(WEB)));
}

#[test]
fn a_process_without_an_entry_is_told_that_it_has_no_identity() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let agent = Agent::start(root.path(), "node", &ca, "");
    let mut command = peer(&copy(root.path(), "stranger"), "^TestStranger");
    command.env("SPIFFE_ENDPOINT_SOCKET", agent.endpoint());

    let told = ended(command);

    assert_eq!(told.code, 0, "{}", told.stdout);
    assert!(told.stdout.contains("--- PASS: TestStranger"), "{}", told.stdout);
}

fn peer(program: &Path, pattern: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-test.v", "-test.count=1", "-test.timeout=180s", "-test.run", pattern]);
    command.env("VOUCHSAFE_TRUST_DOMAIN", TRUST_DOMAIN);
    command
}

fn program() -> PathBuf {
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/bin/interop.test"));
    assert!(program.exists(), "the Go peer is not compiled: tests/run.sh does it");
    program
}

/// A copy with a path of its own, by which the agent knows it.
fn copy(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    std::fs::copy(program(), &path).unwrap();
    path
}
