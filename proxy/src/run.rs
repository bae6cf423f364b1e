//! Starts everything, or takes it over, has it go by another configuration when asked to, and ends with the audit log on
//! disk.

mod arriving;
mod change;
mod checking;
mod effective;
mod ending;
mod keeping;
mod proxy;
mod serving;
mod sockets;

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc};

use policy::strict::Problems;
use tokio_util::sync::CancellationToken;

pub use checking::{CheckError, check};
pub(crate) use sockets::{Bound, Place};
#[cfg(test)]
pub(crate) use sockets::{Kind, Opened};

use crate::{config::Config, confine::Confining, handover::HandoverError};

/// Where a started proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Each inbound listener's name and address.
    pub inbound: Vec<(String, SocketAddr)>,
    /// Each outbound listener's name and address.
    pub outbound: Vec<(String, SocketAddr)>,
    /// The listener for tunnels.
    pub tunnel: Option<SocketAddr>,
    /// The admin interface, for probes and scrapers.
    pub admin: Option<SocketAddr>,
    /// The admin interface, for operators.
    pub admin_socket: Option<PathBuf>,
}

/// Why a proxy cannot start, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The audit log cannot be written.
    #[error("cannot start the audit log")]
    Audit(#[from] audit::StartError),
    /// The audit log was not written to its end.
    #[error("cannot finish the audit log")]
    AuditClose(#[from] audit::CloseError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} for {name}")]
    Listen {
        /// The listener's name.
        name: String,
        /// Where it was to listen.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The sockets of the running proxy cannot be taken over. It goes on.
    #[error("cannot take over from the running proxy, which goes on")]
    TakeOver(#[from] HandoverError),
    /// There is no way to take anything over.
    #[error("the configuration names no socket to take over by: add `handover: {{socket: PATH}}`")]
    NoHandover,
    /// This proxy could not serve. The running one goes on.
    #[error("not ready to take over from the running proxy, which goes on: {reasons}")]
    NotReady {
        /// What is missing.
        reasons: String,
    },
    /// SIGHUP cannot be waited for.
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    /// The threads of the data path cannot be started.
    #[error("cannot start the threads of the data path")]
    Workers(#[source] io::Error),
    /// Telemetry cannot be started.
    #[error("cannot start the telemetry")]
    Telemetry(#[source] io::Error),
}

/// Reads the configuration again.
#[derive(Clone)]
pub struct Again(Arc<dyn Fn() -> Result<Config, Problems> + Send + Sync>);

impl Again {
    /// Reads it by this. It may block.
    pub fn by(read: impl Fn() -> Result<Config, Problems> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }
}

impl fmt::Debug for Again {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Again")
    }
}

/// Whether a running proxy is asked for its sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TakeOver {
    /// Every socket is opened. One that a running proxy has makes the start fail.
    #[default]
    Never,
    /// Whoever listens on the configured socket is asked; where nobody does, every socket is opened.
    IfRunning,
}

/// What carries a proxy, beside its configuration.
#[derive(Default)]
pub struct Outside {
    /// Ends the proxy in order.
    pub stop: CancellationToken,
    /// Ends the waiting of an end in order.
    pub hurry: CancellationToken,
    /// Reads the configuration again, when somebody asks for it.
    pub again: Option<Again>,
    /// Whether a running proxy is asked for its sockets.
    pub take_over: TakeOver,
    /// Whether the process gives up what it does not need.
    pub confining: Confining,
    /// Told the process that has taken over.
    pub succeeded: Option<Box<dyn Fn(u32) + Send + Sync>>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Outside").field("take_over", &self.take_over).finish_non_exhaustive()
    }
}

/// Runs a proxy until `shutdown`, then drains it. `ready` is called once every listener is open; whether the proxy
/// may serve is another question, which `/readyz` answers.
///
/// SIGHUP has the policies looked at at once.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    run_with(config, Outside { stop: shutdown, ..Outside::default() }, ready).await
}

/// Runs a proxy until it is told to stop or another process has taken over, then has its connections finish.
///
/// SIGHUP has the configuration read again and the policies looked at, at once.
pub async fn run_with(config: Config, outside: Outside, ready: impl FnOnce(Ready)) -> Result<(), RunError> {
    proxy::run(config, outside, ready).await
}
