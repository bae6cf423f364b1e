//! Arguments of the commands that look at policies as a whole.

use std::path::PathBuf;

use clap::Args;
use policy::pattern::IdPattern;

use crate::cli::Output;
use crate::cli::duration::{self, DurationError};
use crate::cli::moment::Moment;

/// Arguments of `policy bench`.
#[derive(Debug, Args)]
pub(crate) struct PolicyBench {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// How long to measure
    #[arg(long, default_value = "2s", value_name = "TIME")]
    pub(crate) time: Length,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Callers that are asked about.
#[derive(Debug, Clone)]
pub(crate) enum Reacher {
    /// Those with one of these IDs.
    Ids(IdPattern),
    /// Those without one.
    Unauthenticated,
}

/// Arguments of `policy reach`.
#[derive(Debug, Args)]
pub(crate) struct PolicyReach {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only what these callers reach: a SPIFFE ID, a pattern of them, or `unauthenticated`
    #[arg(long, value_name = "ID")]
    pub(crate) from: Option<Reacher>,
    /// Only ways to these workloads: a SPIFFE ID or a pattern of them
    #[arg(long, value_name = "ID")]
    pub(crate) to: Option<IdPattern>,
    /// Decide as of this time rather than once every policy in shadow enforces: `now`, RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Moment>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy diff`.
#[derive(Debug, Args)]
pub(crate) struct PolicyDiff {
    /// The policies before: a file or a directory
    #[arg(value_name = "OLD")]
    pub(crate) old: PathBuf,
    /// The policies after: a file or a directory
    #[arg(value_name = "NEW")]
    pub(crate) new: PathBuf,
    /// Tell only what speaks against the change: what is gained, and what could not be settled
    #[arg(long)]
    pub(crate) only_narrows: bool,
    /// Decide as of this time rather than as of every moment from now on: `now`, RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Moment>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A length of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length(pub(crate) std::time::Duration);

impl std::str::FromStr for Length {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        duration::parse(text).map(Self)
    }
}
