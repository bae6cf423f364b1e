//! The policies as one transaction: all files of one moment, compiled together, or nothing.
//!
//! [`supply`] is the one place that loads them while the sidecar runs, whatever the occasion: a changed file, a signal,
//! an operator, the agent. Only what compiles, passes its tests and keeps its guarantees gets past it.

mod compiling;
mod losses;
mod reading;
mod supply;

use std::{io, path::PathBuf, sync::Arc};

use policy::{PolicySet, strict::Problems};
use tokio::sync::oneshot;

use crate::reload::Outcome;

pub(crate) use compiling::{Central, Selectors, check};
pub(crate) use losses::losses;
pub(crate) use reading::{MAX_TOTAL, Snapshot, read};
pub(crate) use supply::{Ask, Delivered, Supply};

/// What an attempt to load came to, on its way to the writer.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// A good set, or what is wrong.
    pub(crate) result: Result<Candidate, LoadError>,
    /// Why it was loaded.
    pub(crate) occasion: Occasion,
    /// What is still wrong beside a good result.
    pub(crate) standing: Option<String>,
    /// Who wants to know what it came to.
    pub(crate) reply: Option<oneshot::Sender<Outcome>>,
}

/// A good set, and what selects the workload in it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) set: Arc<PolicySet>,
    pub(crate) selectors: Arc<Selectors>,
}

/// Why policies are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The files changed, or SIGHUP came.
    Files,
    /// An operator asked for it.
    Asked,
    /// The agent handed out other policies.
    Delivery,
}

impl Occasion {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files changed",
            Self::Asked => "asked for",
            Self::Delivery => "delivered",
        }
    }
}

/// Why policies cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or the directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// There are more files than are looked at.
    #[error("{path} holds more than {} policy files or {} entries", reading::MAX_FILES, reading::MAX_ENTRIES)]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// The files together are larger than is looked at.
    #[error("the policy files in {path} have more than {} bytes", reading::MAX_TOTAL)]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// A name is not text.
    #[error("{path} has a name that is not UTF-8")]
    Name {
        /// Which file.
        path: PathBuf,
    },
    /// A file has a name by which it would never be read.
    #[error("{name:?} would not be read from a directory of policies")]
    Unread {
        /// The name.
        name: String,
    },
    /// Two looks at the directory never agreed.
    #[error("{path} changes all the time")]
    Restless {
        /// The directory.
        path: PathBuf,
    },
    /// The file system does not answer.
    #[error("reading {path} takes longer than {} s", supply::READ_LIMIT.as_secs())]
    Slow {
        /// The directory.
        path: PathBuf,
    },
    /// The last policy file is gone.
    #[error(
        "{path} holds no policy file any more; if what they said is to end, and everything be refused where no other policies are, say so with `vouchsafe proxy reload --accept-empty`"
    )]
    Emptied {
        /// The directory.
        path: PathBuf,
    },
    /// The policies are wrong.
    #[error("{0}")]
    Problems(Problems),
    /// The compiler gave up, which it never does.
    #[error("the policies could not be compiled")]
    Compiler(#[source] tokio::task::JoinError),
}

impl LoadError {
    /// Whether something was not there.
    fn is_absence(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Describes an error with its causes, for a log line or a readiness reason.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
