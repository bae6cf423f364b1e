//! Arguments of the commands that write policy files or look at their text.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::Output;

/// Arguments of `policy lint`.
#[derive(Debug, Args)]
pub(crate) struct PolicyLint {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Files of registration entries, or directories of them: IDs that none of them has are told
    #[arg(long, value_name = "PATH")]
    pub(crate) entries: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy fmt`.
#[derive(Debug, Args)]
pub(crate) struct PolicyFmt {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Change nothing; list the files that are written otherwise and exit 3 if there are any
    #[arg(long, conflicts_with = "write")]
    pub(crate) check: bool,
    /// Rewrite the files; without this and --check, one file is printed
    #[arg(long)]
    pub(crate) write: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy import`.
#[derive(Debug, Args)]
pub(crate) struct PolicyImport {
    /// Istio's files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// The directory to write into; no file in it is overwritten
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Workloads that the files select by labels: files with spiffe_id, namespace and labels. The first also says which mesh
    /// the files are of
    #[arg(long = "workload", value_name = "FILE")]
    pub(crate) workloads: Vec<PathBuf>,
    /// Read /x* as /x and what is below it, as nearly everybody means it, and not as /xy too
    #[arg(long)]
    pub(crate) whole_segments: bool,
    /// Leave in Istio's form what a native file cannot say whole, and all that decides beside it: nothing is narrower
    #[arg(long, conflicts_with_all = ["whole_segments", "assumed"])]
    pub(crate) exact: bool,
    /// Read more of the files as nearly everybody means them; each use is told. May be given several times
    #[arg(long = "assume", value_name = "READING")]
    pub(crate) assumed: Vec<Assumed>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What `policy import` may take for granted.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Assumed {
    /// Namespaces and service accounts are those of the mesh's own trust domain
    UsualIdentities,
    /// A host is meant with any port
    AnyHostPort,
    /// Every verified token has a subject
    TokensHaveSubjects,
    /// There are no methods but GET, HEAD, POST, PUT, DELETE, OPTIONS, TRACE and PATCH
    RegisteredMethods,
}
