//! A CA, an agent, and whatever gets an SVID of them: sidecars, PEM files for others, programs in Go.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use crate::support::cluster::{Agent, Ca, id};
use crate::support::command::{binary_as, clean, ended};
use crate::support::gopher;
use crate::support::port;
use crate::support::process::Process;
use crate::support::wait::eventually;

/// The path of the identity of the server of go-spiffe.
pub(super) const SPIFFE_SERVER: &str = "/ns/shop/sa/gopher";

/// What everything here gets its identity from.
pub(super) struct Mesh {
    pub(super) agent: Agent,
    ca: Ca,
    /// Last, so that the logs are there while the others are dropped.
    pub(super) root: tempfile::TempDir,
}

/// One workload: the binary under a path of its own, and its SVID in files.
pub(super) struct Workload {
    pub(super) program: PathBuf,
    pub(super) files: PathBuf,
}

impl Mesh {
    pub(super) fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ca = Ca::start(root.path(), "");
        let agent = Agent::start(root.path(), "node", &ca, "");
        Self { agent, ca, root }
    }

    /// Gives an identity to a copy of the binary, and writes it to files as well.
    pub(super) fn workload(&self, path: &str) -> Workload {
        let program = binary_as(&self.program(path));
        self.ca.entry(self.agent.alias(), &id(path), &program, "1h");
        let files = program.with_extension("files");
        let (socket, out) = (self.agent.endpoint(), files.display().to_string());
        eventually("the entry has reached the agent", || {
            let fetch = ["svid", "fetch", "--socket", &socket, "--out", &out];
            (ended(clean(Command::new(&program), &fetch)).code == 0).then_some(())
        });
        Workload { program, files }
    }

    pub(super) fn program(&self, path: &str) -> PathBuf {
        self.root.path().join("bin").join(path.rsplit('/').next().unwrap())
    }

    /// A free address of this host.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()))
    }

    /// Starts a server of go-spiffe, with an SVID of the agent, that lets `client` in.
    pub(super) fn spiffe_server(&self, client: &str) -> (SocketAddr, Process) {
        let (address, program) = (self.address(), self.root.path().join("gopher"));
        std::fs::copy(gopher::program(), &program).unwrap();
        self.ca.entry(self.agent.alias(), &id(SPIFFE_SERVER), &program, "1h");
        let mut command = gopher::serving(&program, "^TestServeSpiffeTLS$");
        command.env("SPIFFE_ENDPOINT_SOCKET", self.agent.endpoint());
        command.env("VOUCHSAFE_CLIENT_ID", client).env("VOUCHSAFE_LISTEN", address.to_string());
        let process = Process::start("gopher", self.root.path(), command);
        gopher::until_serving(&process);
        (address, process)
    }
}

/// An application that speaks HTTP and gRPC and knows nothing of sidecars.
pub(super) struct Application {
    pub(super) grpc: SocketAddr,
    _process: Process,
}

impl Application {
    pub(super) fn start(mesh: &Mesh) -> Self {
        let (http, grpc) = (mesh.address(), mesh.address());
        let process =
            gopher::application(mesh.root.path(), "application", &http.to_string(), &grpc.to_string());
        Self { grpc, _process: process }
    }
}
