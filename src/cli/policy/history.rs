//! Arguments of the commands that read an audit log beside the policies.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Output;
use crate::cli::moment::Moment;

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// A picture that any browser shows
    Svg,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// Arguments of `policy graph`.
#[derive(Debug, Args)]
pub(crate) struct PolicyGraph {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = GraphFormat::Svg, value_name = "FORMAT")]
    pub(crate) format: GraphFormat,
    #[command(flatten)]
    pub(crate) log: OptionalLog,
}

/// An audit log that may be given.
#[derive(Debug, Args)]
pub(crate) struct OptionalLog {
    /// An audit log, or a directory of them: what it shows is marked
    #[arg(long = "log", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Look at the log from this time on: RFC 3339, or how long ago
    #[arg(long, requires = "files", value_name = "TIME")]
    pub(crate) since: Option<Moment>,
}

/// An audit log.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// An audit log, or a directory of them
    #[arg(long = "log", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Look at the log from this time on: RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
}

/// Arguments of `policy replay`.
#[derive(Debug, Args)]
pub(crate) struct PolicyReplay {
    /// The new policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) log: Log,
    /// Decide as of this time rather than as of each record's own: `now`, RFC 3339, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Moment>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy learn`.
#[derive(Debug, Args)]
pub(crate) struct PolicyLearn {
    #[command(flatten)]
    pub(crate) log: Log,
    /// The policies in force: what they allow is not proposed, and what they deny by a rule never is
    #[arg(long, value_name = "PATH")]
    pub(crate) policies: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
