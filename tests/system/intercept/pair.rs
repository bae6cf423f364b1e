//! A called host with a sidecar and an application, a calling one with a sidecar, and a stranger: the rules of
//! interception are in force on the first two.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::app::{App, ECHO, HTTP};
use crate::support::command::{Ended, binary};
use crate::support::lan::{Host, Lan};
use crate::support::pki::Authority;
use crate::support::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};

/// What differs between the tests.
pub(super) struct Shape {
    /// More lines of the called sidecar's configuration.
    pub(super) called: String,
    /// What `transparent` says of the called sidecar, without its braces.
    pub(super) inbound: String,
    /// The same of the calling one.
    pub(super) outbound: String,
}

impl Default for Shape {
    fn default() -> Self {
        let ports = format!("ports: [{{port: {HTTP}, protocol: http}}, {{port: {ECHO}, protocol: tcp}}]");
        Self {
            called: String::new(),
            inbound: format!("inbound: {{{ports}}}"),
            outbound: "outbound: {}".to_owned(),
        }
    }
}

/// Everything that runs; dropped before the hosts that it runs on.
pub(super) struct Pair {
    pub(super) called: Sidecar,
    pub(super) calling: Sidecar,
    pub(super) app: App,
    pub(super) far: Host,
    pub(super) near: Host,
    pub(super) stranger: Host,
    _lan: Lan,
    pub(super) root: tempfile::TempDir,
}

impl Pair {
    pub(super) fn start() -> Self {
        Self::shaped(Shape::default())
    }

    pub(super) fn shaped(shape: Shape) -> Self {
        let lan = Lan::new();
        let (near, far, stranger) = (lan.host(2), lan.host(3), lan.host(4));
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        for (name, path) in [("api", SERVER), ("web", CALLER)] {
            authority.svid(path).write(&root.path().join("pem").join(name), &authority);
        }
        let pem = |name: &str| root.path().join("pem").join(name);
        let (to, from) = (authority.id(SERVER), authority.id(CALLER));
        for (name, protocol, port) in [("http", "http", HTTP), ("echo", "tcp", ECHO)] {
            write_policy(
                &root.path().join("api"),
                &format!("{name}.yaml"),
                &allow_all(name, &to, &from, protocol, port),
            );
        }
        let app = far.enter(App::start);
        let called = Setup::new("api").pem(&pem("api"));
        let called = called.section(&format!("transparent: {{{}}}\n{}", shape.inbound, shape.called));
        let calling = Setup::new("web").pem(&pem("web"));
        let mut services = "services:".to_owned();
        for (protocol, port) in [("http", HTTP), ("tcp", ECHO)] {
            for (family, address) in far.at(port).into_iter().enumerate() {
                // Writing to a String cannot fail.
                let _ = write!(
                    services,
                    "\n  - {{name: {protocol}-{family}, hosts: [\"{}\"], ports: [{port}], protocol: {protocol}, \
                     expect: [\"{to}\"], endpoints: [{{address: \"{address}\"}}]}}",
                    address.ip()
                );
            }
        }
        let calling = calling.section(&format!("{services}\ntransparent: {{{}}}", shape.outbound));
        let called = far.enter(|| called.start(root.path()));
        let calling = near.enter(|| calling.start(root.path()));
        let pair = Self { called, calling, app, far, near, stranger, _lan: lan, root };
        pair.intercept(&pair.far, "install", "api").expect(0);
        pair.intercept(&pair.near, "install", "web").expect(0);
        pair
    }

    /// Runs `vouchsafe proxy intercept` for one sidecar.
    pub(super) fn intercept(&self, host: &Host, command: &str, sidecar: &str) -> Ended {
        let config = self.config(sidecar);
        let program = binary().display().to_string();
        host.run(&program, &["proxy", "intercept", command, "--config", &config.display().to_string()])
    }

    pub(super) fn config(&self, sidecar: &str) -> PathBuf {
        self.root.path().join(sidecar).join("proxy.yaml")
    }
}
