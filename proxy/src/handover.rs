//! One process takes over from another without a connection being refused between them: the listening sockets, with
//! everybody who waits in their queues, go from the one to the other over a Unix socket.
//!
//! The one that goes changes nothing until the one that comes is ready, and leaves only once the other accepts. Whatever
//! goes wrong before that leaves it as it was. Both sides have the kernel say who the other is, and believe only their own
//! user and root; every message is bounded, and what is not understood ends the exchange.

mod giving;
mod taking;
#[cfg(test)]
mod tests;
mod wire;

use std::{io, time::Duration};

pub(crate) use giving::Giving;
pub(crate) use taking::Taking;

use tokio::net::UnixStream;

/// Why sockets do not change hands.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The connection broke.
    #[error("the connection to the other process broke")]
    Broken(#[source] io::Error),
    /// The process at the other end belongs to somebody else.
    #[error("the other process belongs to user {user}")]
    Stranger {
        /// Whose it is.
        user: u32,
    },
    /// The kernel does not say who is at the other end.
    #[error("nobody knows who the other process is")]
    Nobody(#[source] io::Error),
    /// The other process went away.
    #[error("the other process went away")]
    Gone,
    /// The other process took too long.
    #[error("the other process took longer than {} s", limit.as_secs())]
    Slow {
        /// For how long it was waited for.
        limit: Duration,
    },
    /// What the other process says is longer than anything that is said here.
    #[error("the other process says too much")]
    TooLong,
    /// What the other process says has another shape.
    #[error("the other process is not understood: is it of another version?")]
    Unclear(#[source] serde_json::Error),
    /// What the other process says is not what comes next.
    #[error("the other process says \"{said}\" where something else is due")]
    OutOfTurn {
        /// What it says.
        said: &'static str,
    },
    /// The other process refuses.
    #[error("the other process refuses: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The sockets are not the ones that are named.
    #[error("the socket for {name} is not what it is called: {reason}")]
    Socket {
        /// What it is called.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Returns the process at the other end, where it may be trusted with our sockets, or we with its.
fn trusted(stream: &UnixStream) -> Result<u32, HandoverError> {
    let peer = stream.peer_cred().map_err(HandoverError::Nobody)?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        return Err(HandoverError::Stranger { user: peer.uid() });
    }
    peer.pid().and_then(|pid| u32::try_from(pid).ok()).ok_or(HandoverError::Gone)
}

/// What both sides have to speak.
const VERSION: u32 = 1;
/// For a message that is owed at once.
const ANSWER: Duration = Duration::from_secs(15);
/// For a new process to get its identity and its policies.
pub(crate) const READY: Duration = Duration::from_secs(60);
