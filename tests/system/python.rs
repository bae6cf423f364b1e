//! py-spiffe against the agent's socket.

use std::path::PathBuf;
use std::process::Command;

use crate::support::cluster::{Agent, Ca, id};
use crate::support::command::ended;
use crate::support::wait::eventually;

#[test]
fn py_spiffe_fetches_and_watches_its_svid() {
    let python = interpreter();
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "svid_ttl: 10s\n");
    let agent = Agent::start(root.path(), "node", &ca, "");
    let workload = id("/ns/data/sa/notebook");
    ca.entry(agent.alias(), &workload, &python.canonicalize().unwrap(), "10s");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/workload.py");
    let mut command = Command::new(&python);
    command.args([script, "3"]);

    eventually("the entry has reached the agent", || {
        let mut first = Command::new(&python);
        first.args([
            "-c",
            "from spiffe import WorkloadApiClient; WorkloadApiClient().fetch_x509_svid(timeout=5)",
        ]);
        (ended(with_socket(first, &agent)).code == 0).then_some(())
    });
    let answer = ended(with_socket(command, &agent)).expect(0).json();

    assert_eq!(answer["id"], workload, "{answer}");
    assert_eq!(answer["source"], workload, "{answer}");
    assert_eq!((&answer["key_matches"], &answer["signed"]), (&true.into(), &true.into()), "{answer}");
    assert!(answer["serials"].as_u64().unwrap() >= 3, "{answer}");
}

fn with_socket(mut command: Command, agent: &Agent) -> Command {
    command.env("SPIFFE_ENDPOINT_SOCKET", agent.endpoint());
    command
}

fn interpreter() -> PathBuf {
    let python = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/.venv/bin/python"));
    assert!(python.exists(), "tests/.venv is missing: tests/run.sh makes it");
    python
}
