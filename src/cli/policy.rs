//! Arguments of `vouchsafe policy`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use identity::SpiffeId;

use super::Output;
use super::moment::Moment;
use crate::commands::policy::Caller;

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// What can be done with policy files.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read policy files as a sidecar would and say everything that is wrong with them
    #[command(after_help = "Example:\n  vouchsafe policy check /etc/vouchsafe/policies")]
    Check(PolicyCheck),
    /// Run the tests written in the policy files
    #[command(after_help = "Example:\n  vouchsafe policy test policies/")]
    Test(PolicyTest),
    /// Say whether a call would be allowed, by which rule, and what the nearest rules lacked
    ///
    /// Exits 0 when the call is allowed and 4 when it is denied.
    #[command(
        after_help = "Example:\n  vouchsafe policy explain --policies policies/ --from spiffe://prod.example/web \\\n      --to spiffe://prod.example/api --port 8443 'GET /accounts/7'"
    )]
    Explain(PolicyExplain),
    /// Show which set of policies the CA hands out, and which sidecar runs which
    ///
    /// Exits 3 when some sidecar is behind or has refused a set, or when the CA refuses its policy directory.
    #[command(after_help = "Example:\n  vouchsafe policy status")]
    Status(super::policy_status::PolicyStatus),
}

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub(crate) struct PolicyTest {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyExplain {
    /// Policy files, or directories of them
    #[arg(long, required = true, value_name = "PATH")]
    pub(crate) policies: Vec<PathBuf>,
    /// Who calls: a SPIFFE ID, or `unauthenticated`
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) from: Caller,
    /// Who is called
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) to: SpiffeId,
    /// The port that the called workload's sidecar listens on
    #[arg(long, value_name = "PORT")]
    pub(crate) port: u16,
    /// The address that the connection comes from
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) source: IpAddr,
    /// The Host of the request
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub(crate) host: String,
    /// Decide as of this time: `now`, RFC 3339, or how long ago
    #[arg(long, default_value = "now", value_name = "TIME")]
    pub(crate) at: Moment,
    /// The request, as `METHOD /path`; without it a plain TCP connection
    #[arg(value_name = "REQUEST")]
    pub(crate) request: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}
