//! A process pinned by a pidfd: which one it is, and whether it still is.
//!
//! The kernel does not give a pid to another process while the pidfd says that its process lives, so what is read
//! below `/proc/PID` between two such answers belongs to that process.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;

use super::proc_fs::{self, Facts, ReadError};

/// A process that was named by the kernel or by an administrator.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
    started: u64,
    owner: Owner,
}

/// Whose the process has to be.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    /// Who it was when it connected.
    Peer { uid: u32, gid: u32 },
    /// Anybody's: an administrator asked.
    Anybody,
}

impl Process {
    /// Returns the process that connected `socket`, as the kernel noted it then.
    pub fn of_peer(socket: &UnixStream) -> Result<Self, ProcessError> {
        let credentials = socket.peer_cred().map_err(|source| ProcessError::Credentials { source })?;
        // A process in a pid namespace that this agent cannot see has pid 0 here.
        let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        let pid = pid.ok_or(ProcessError::ForeignNamespace)?;
        let pidfd =
            getsockopt(socket, sockopt::PeerPidfd).map_err(|source| ProcessError::Pidfd { source })?;
        Self::pinned(pid, pidfd, Owner::Peer { uid: credentials.uid(), gid: credentials.gid() })
    }

    /// Returns the process that has `pid` at this moment.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ProcessError::Gone)?;
        let pidfd = pidfd_open(raw, PidfdFlags::NONBLOCK).map_err(|_| ProcessError::Gone)?;
        Self::pinned(pid, pidfd, Owner::Anybody)
    }

    fn pinned(pid: u32, pidfd: OwnedFd, owner: Owner) -> Result<Self, ProcessError> {
        let started = proc_fs::started(pid).map_err(|source| ProcessError::Read { source })?;
        let process = Self { pid, pidfd, started, owner };
        process.check_alive()?;
        Ok(process)
    }

    /// Returns the pid, as this agent sees it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the uid that connected, or `None` for a process that was named by its pid.
    pub fn peer_uid(&self) -> Option<u32> {
        match self.owner {
            Owner::Peer { uid, .. } => Some(uid),
            Owner::Anybody => None,
        }
    }

    /// Refuses a process that has exited.
    pub fn check_alive(&self) -> Result<(), ProcessError> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(0) => Ok(()),
            Ok(_) | Err(_) => Err(ProcessError::Gone),
        }
    }

    /// Refuses facts of another process or another user than the one that connected.
    pub(super) fn check_unchanged(&self, facts: &Facts) -> Result<(), ProcessError> {
        if facts.started != self.started {
            return Err(ProcessError::Gone);
        }
        match self.owner {
            Owner::Peer { uid, gid } if (uid, gid) != (facts.uid, facts.gid) => Err(ProcessError::OtherUser),
            Owner::Peer { .. } | Owner::Anybody => Ok(()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Process {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// Why a process is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The kernel does not tell who connected.
    #[error("cannot read the credentials of the caller")]
    Credentials {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The caller lives in a pid namespace that the agent cannot see.
    #[error(
        "the caller is in a pid namespace that the agent cannot see; run the agent in the host's (hostPID)"
    )]
    ForeignNamespace,
    /// The kernel gives no pidfd.
    #[error("the kernel gives no pidfd for the caller; SO_PEERPIDFD needs Linux 6.5 or later")]
    Pidfd {
        /// What the kernel said.
        source: nix::errno::Errno,
    },
    /// The process has exited.
    #[error("the process has exited")]
    Gone,
    /// The process changed its user or group since it connected.
    #[error("the process changed its user or group since it connected")]
    OtherUser,
    /// The process cannot be read.
    #[error("cannot read the process")]
    Read {
        /// What failed.
        source: ReadError,
    },
}
