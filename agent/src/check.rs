//! `agent check`: what would keep the agent from doing its job on this host, found without starting it.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};
use serde::Serialize;

use crate::admission::Admission;
use crate::config::{Bootstrap, Config, SecretSource};
use crate::health::chain;
use crate::socket;

/// Something that would keep the agent from its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key of the configuration that it is about, or the part of the host.
    pub about: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// Looks at the host for what would keep an agent with `config` from its job. Nothing is written, no token is sent.
pub fn check(config: &Config) -> Vec<Finding> {
    let sockets = [("socket", &config.socket), ("admin_socket", &config.admin_socket)];
    let sockets = sockets
        .into_iter()
        .filter_map(|(about, path)| socket::check(path).err().map(|error| Finding::new(about, &error)));
    sockets.chain(same_socket(config)).chain(bootstrap(config)).chain(kernel()).collect()
}

impl Finding {
    fn new(about: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { about: about.to_owned(), problem: chain(error) }
    }
}

fn same_socket(config: &Config) -> Option<Finding> {
    (config.socket == config.admin_socket).then(|| Finding {
        about: "admin_socket".to_owned(),
        problem: "the admin socket must not be the socket of the Workload API, which every process can use"
            .to_owned(),
    })
}

fn bootstrap(config: &Config) -> Option<Finding> {
    // A node that is attested needs no token, and standard input can be read only once.
    let attested = config.data_dir.join("node.sealed").exists();
    let unread = matches!(
        config.bootstrap,
        Bootstrap::JoinString(SecretSource::StandardInput)
            | Bootstrap::Token { token: SecretSource::StandardInput, .. }
    );
    if attested || unread {
        return None;
    }
    Admission::read(config).err().map(|error| Finding::new("bootstrap", &error))
}

/// Tells whether the kernel lacks what the workload attestor cannot do without.
pub(crate) fn kernel() -> Option<Finding> {
    let (one, _other) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC).ok()?;
    let error = getsockopt(&one, sockopt::PeerPidfd).err()?;
    Some(Finding {
        about: "kernel".to_owned(),
        problem: format!(
            "no pidfd of a caller can be had ({error}); the workload attestor needs Linux 6.5 or later"
        ),
    })
}
