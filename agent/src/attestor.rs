//! The `unix` workload attestor: from a process to its selectors, spelled as SPIRE spells them.
//!
//! Everything is read from `/proc` while a pidfd pins the process: what was read counts only if the process was
//! still the same afterwards, so a reused pid yields nothing. What no entry asks for is not looked up. A failure is
//! an error, never a shorter list of selectors.
//!
//! A path counts only where the agent finds the same file there: any user can mount a file at any path of a mount
//! namespace of their own. `path` and `sha256` tell programs of one user apart; they say nothing about what a program was
//! made to do by whoever started it, who can preload code into it or trace it. Entries that guard something name a uid too.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::selector::{Selector, SelectorSet};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

mod digest;
mod proc_fs;
mod process;
mod turns;

pub use process::{Process, ProcessError};
pub use turns::{MAX_CONCURRENT_ATTESTATIONS, MAX_CONCURRENT_ATTESTATIONS_PER_UID};

use digest::Digests;
use proc_fs::{Facts, ReadError};
use turns::Turns;

/// How long one attestation may take, waiting for its turn included.
pub const ATTESTATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The `unix` workload attestor.
#[derive(Clone)]
pub struct Attestor {
    options: Options,
    digests: Arc<Digests>,
    turns: Arc<Turns>,
}

/// What the attestor may tell of an executable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether there are `path` selectors, and with them `sha256` selectors.
    pub path: Switch,
    /// Whether there are `sha256` selectors.
    pub sha256: Switch,
    /// The largest executable that is hashed, in bytes; a larger one has no `sha256` selector.
    pub sha256_limit: u64,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// Which facts beyond the numbers are wanted. Looking up names may ask a directory service, and a digest reads the
/// whole executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Names of users and groups.
    pub names: bool,
    /// The path of the executable.
    pub path: bool,
    /// The digest of the executable.
    pub digest: bool,
}

impl Depth {
    /// Every fact there is.
    pub const ALL: Self = Self { names: true, path: true, digest: true };

    /// Returns what a decision about `selectors` needs.
    pub fn of<'a>(selectors: impl Iterator<Item = &'a Selector>) -> Self {
        let mut depth = Self::default();
        for selector in selectors.filter(|selector| selector.kind() == "unix") {
            match selector.value().split(':').next() {
                Some("user" | "group" | "supplementary_group") => depth.names = true,
                Some("path") => depth.path = true,
                Some("sha256") => depth.digest = true,
                Some(_) | None => {}
            }
        }
        depth
    }

    /// Tells whether selectors read to this depth answer for `wanted`.
    pub fn covers(self, wanted: Self) -> bool {
        self.names >= wanted.names && self.path >= wanted.path && self.digest >= wanted.digest
    }
}

impl Attestor {
    /// Creates the attestor.
    pub fn new(options: Options) -> Self {
        Self { options, digests: Arc::new(Digests::default()), turns: Arc::new(Turns::new()) }
    }

    /// Returns the selectors of `process`, to `depth`.
    pub async fn attest(&self, process: &Arc<Process>, depth: Depth) -> Result<SelectorSet, AttestError> {
        tokio::time::timeout(ATTESTATION_TIMEOUT, self.attest_in_turn(process.clone(), depth))
            .await
            .map_err(|_| AttestError::Timeout)?
    }

    async fn attest_in_turn(&self, process: Arc<Process>, depth: Depth) -> Result<SelectorSet, AttestError> {
        // The turn is given back by the thread itself: a look-up that hangs past the timeout keeps its turn, so
        // that hanging threads stay as few as turns.
        let turn = self.turns.take(process.peer_uid()).await.ok_or(AttestError::Stopped)?;
        let attestor = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            attestor.attest_blocking(&process, depth)
        })
        .await
        .map_err(|_| AttestError::Stopped)?
    }

    /// Returns the selectors of `process`, to `depth`. Blocks on files and on the user database.
    pub fn attest_blocking(&self, process: &Process, depth: Depth) -> Result<SelectorSet, AttestError> {
        let path = self.options.path == Switch::On && (depth.path || depth.digest);
        let facts = Facts::read(process.pid(), path)?;
        process.check_unchanged(&facts)?;
        let mut selectors = numbers(&facts);
        if depth.names {
            names(&facts, &mut selectors)?;
        }
        if path {
            self.executable(&facts, depth, &mut selectors)?;
        }
        // Read again: an exec between two reads would mix the facts of two programs.
        if Facts::read(process.pid(), path)? != facts {
            return Err(AttestError::Changed);
        }
        process.check_alive()?;
        Ok(selectors.into_iter().collect())
    }

    fn executable(&self, facts: &Facts, depth: Depth, out: &mut Vec<Selector>) -> Result<(), AttestError> {
        let Some(executable) = &facts.executable else { return Ok(()) };
        if executable.is_at_its_path()? {
            let path = executable.path.clone().into_string().map_err(|path| AttestError::Path { path })?;
            out.push(Selector::unix("path", path));
        } else {
            tracing::debug!(path = ?executable.path, "executable is not what the agent finds there; it has no unix:path selector");
        }
        if depth.digest && self.options.sha256 == Switch::On {
            match self.digests.of(&executable.file, self.options.sha256_limit) {
                Ok(Some(digest)) => out.push(Selector::unix("sha256", identity::crypto::hex(&digest))),
                Ok(None) => tracing::warn!(
                    path = ?executable.path,
                    limit = self.options.sha256_limit,
                    "executable is too large to hash; it has no unix:sha256 selector"
                ),
                Err(source) => return Err(AttestError::Digest { source }),
            }
        }
        Ok(())
    }
}

fn numbers(facts: &Facts) -> Vec<Selector> {
    let mut selectors = vec![Selector::unix("uid", facts.uid), Selector::unix("gid", facts.gid)];
    selectors.extend(facts.groups.iter().map(|gid| Selector::unix("supplementary_gid", gid)));
    selectors
}

fn names(facts: &Facts, out: &mut Vec<Selector>) -> Result<(), AttestError> {
    if let Some(user) = known(User::from_uid(Uid::from_raw(facts.uid)))? {
        out.push(Selector::unix("user", user.name));
    }
    if let Some(group) = known(Group::from_gid(Gid::from_raw(facts.gid)))? {
        out.push(Selector::unix("group", group.name));
    }
    for gid in &facts.groups {
        if let Some(group) = known(Group::from_gid(Gid::from_raw(*gid)))? {
            out.push(Selector::unix("supplementary_group", group.name));
        }
    }
    Ok(())
}

/// Tells an absent user or group from a database that cannot be asked.
fn known<T>(found: nix::Result<Option<T>>) -> Result<Option<T>, AttestError> {
    match found {
        Ok(found) => Ok(found),
        // getpwuid(3): these stand for "no such name" in one C library or another.
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        Err(source) => Err(AttestError::Names { source }),
    }
}

/// Why a process has no selectors.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The process is not the one that connected, or is gone.
    #[error("the process cannot be vouched for")]
    Process {
        /// What is wrong with it.
        #[from]
        source: ProcessError,
    },
    /// A file below `/proc` cannot be read.
    #[error("cannot read the process")]
    Read {
        /// What failed.
        #[from]
        source: ReadError,
    },
    /// The process became another program, or another user, while it was looked at.
    #[error("the process changed while it was attested")]
    Changed,
    /// The user or group database cannot be asked.
    #[error("cannot look up user and group names")]
    Names {
        /// What the C library said.
        source: Errno,
    },
    /// The path of the executable is not UTF-8, so that no selector can say it.
    #[error("path of the executable is not UTF-8: {path:?}")]
    Path {
        /// The path.
        path: OsString,
    },
    /// The executable cannot be read.
    #[error("cannot hash the executable")]
    Digest {
        /// What failed.
        source: std::io::Error,
    },
    /// It took longer than [`ATTESTATION_TIMEOUT`].
    #[error("attestation took longer than {ATTESTATION_TIMEOUT:?}")]
    Timeout,
    /// The agent is going down.
    #[error("the agent is going down")]
    Stopped,
}

#[cfg(test)]
mod tests;
