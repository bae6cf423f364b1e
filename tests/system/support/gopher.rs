//! The Go peer's applications and clients: plain ones that know nothing of sidecars, and one of go-spiffe.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::TRUST_DOMAIN;
use super::process::Process;
use super::wait::eventually;

/// Starts the application of the Go peer at two addresses, where the caller is.
pub(crate) fn application(root: &Path, name: &str, http: &str, grpc: &str) -> Process {
    let mut command = serving(&program(), "^TestServeApplication$");
    command.env("VOUCHSAFE_LISTEN", http).env("VOUCHSAFE_LISTEN_GRPC", grpc);
    let process = Process::start(name, root, command);
    until_serving(&process);
    process
}

/// Lets `from` call the methods of the test service that the applications here have, but one.
pub(crate) fn test_service(protects: &str, from: &str, port: u16) -> String {
    format!(
        "vouchsafe: policy/v1\nname: rpc\nprotects: {protects}\nmode: enforce\nallow:\n  - name: calls\n    from: [{from}]\n    \
         grpc: {{port: {port}, service: grpc.testing.TestService, methods: [EmptyCall, UnaryCall, FullDuplexCall, \
         StreamingInputCall, StreamingOutputCall]}}\n"
    )
}

/// The Go peer, to run its tests of this pattern to their end.
pub(crate) fn peer(tests: &str) -> Command {
    let mut command = Command::new(program());
    command.args(["-test.v", "-test.count=1", "-test.timeout=120s", "-test.run", tests]);
    command.env("VOUCHSAFE_TRUST_DOMAIN", TRUST_DOMAIN);
    command
}

/// A server of the Go peer, which runs until it is ended.
pub(crate) fn serving(path: &Path, test: &str) -> Command {
    let mut command = Command::new(path);
    command.args(["-test.v", "-test.count=1", "-test.timeout=0", "-test.run", test]);
    command
}

/// Waits until such a server listens.
pub(crate) fn until_serving(process: &Process) {
    eventually("the program serves", || process.log().contains("\nserving\n").then_some(()));
}

/// The compiled Go peer.
pub(crate) fn program() -> PathBuf {
    let program = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/bin/interop.test"));
    assert!(program.exists(), "the Go peer is not compiled: tests/run.sh does it");
    program
}
