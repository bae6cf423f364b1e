//! Arguments of `vouchsafe ca service`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use policy::service::EntryKind;

use super::Output;
use super::ca::Admin;

/// What can be done with services.
#[derive(Debug, Subcommand)]
pub(crate) enum Service {
    /// Make the catalogue hold the services of these files: all of them, or nothing
    ///
    /// Sidecars with `services_from: agent` have the change within a second. Exit codes: 0 applied,
    /// or nothing to change; 2 a file is flawed, or a service cannot stand beside another one; 3
    /// with --dry-run, something would change.
    #[command(
        after_help = "Example:\n  vouchsafe ca service apply services/ --dry-run\n  vouchsafe ca service apply services/"
    )]
    Apply(ServiceApply),
    /// List the services, and what sidecars serve
    #[command(after_help = "Example:\n  vouchsafe ca service list -o json")]
    List(ServiceList),
    /// Show one entry whole, as a file that can be applied again
    #[command(after_help = "Example:\n  vouchsafe ca service show shop > shop.yaml")]
    Show(ServiceShow),
    /// Remove entries
    #[command(after_help = "Example:\n  vouchsafe ca service remove shop")]
    Remove(ServiceRemove),
    /// Tell which sidecar runs which set of services; exit 3 where somebody is behind
    #[command(after_help = "Example:\n  vouchsafe ca service status -o json")]
    Status(ServiceList),
}

/// Arguments of `ca service apply`.
#[derive(Debug, Args)]
pub(crate) struct ServiceApply {
    /// Files of services, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Remove every entry that these files do not hold
    #[arg(long)]
    pub(crate) prune: bool,
    /// Show the difference and change nothing; exit 3 when there is one
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca service list` and `ca service status`.
#[derive(Debug, Args)]
pub(crate) struct ServiceList {
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca service show`.
#[derive(Debug, Args)]
pub(crate) struct ServiceShow {
    /// What it is called
    pub(crate) name: String,
    /// What kind of entry it is: service or sidecar
    #[arg(long, default_value = "service", value_parser = kind, value_name = "KIND")]
    pub(crate) kind: EntryKind,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca service remove`.
#[derive(Debug, Args)]
pub(crate) struct ServiceRemove {
    /// What they are called
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// What kind of entries they are: service or sidecar
    #[arg(long, default_value = "service", value_parser = kind, value_name = "KIND")]
    pub(crate) kind: EntryKind,
    /// Say what would be removed and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn kind(word: &str) -> Result<EntryKind, &'static str> {
    EntryKind::parse(word).ok_or("expected service or sidecar")
}
