//! Arguments of `vouchsafe proxy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;
use super::daemon::{Supervised, Threads};

/// Arguments of `proxy`.
#[derive(Debug, Args)]
pub(crate) struct Proxy {
    #[command(subcommand)]
    pub(crate) command: ProxyCommand,
}

/// What can be done with the sidecar.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Run the sidecar until it is told to stop
    #[command(after_help = "Example:\n  vouchsafe proxy run --config /etc/vouchsafe/proxy/api.yaml")]
    Run(ProxyRun),
    /// Read the configuration and the policies, say what is wrong with them, and stop
    #[command(after_help = "Example:\n  vouchsafe proxy check --config /etc/vouchsafe/proxy/api.yaml")]
    Check(ProxyCheck),
}

/// Where the sidecar's configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyConfig {
    /// The configuration file
    #[arg(long, env = "VOUCHSAFE_PROXY_CONFIG", value_name = "FILE", required = true)]
    pub(crate) config: PathBuf,
    /// Which of several identities is this workload's, over the file's `identity`
    #[arg(long, env = "VOUCHSAFE_PROXY_IDENTITY", value_name = "SPIFFE-ID")]
    pub(crate) identity: Option<identity::SpiffeId>,
    /// The directory of policy files, over the file's `policies`
    #[arg(long, env = "VOUCHSAFE_PROXY_POLICIES", value_name = "DIR")]
    pub(crate) policies: Option<PathBuf>,
}

/// Arguments of `proxy run`.
#[derive(Debug, Args)]
pub(crate) struct ProxyRun {
    #[command(flatten)]
    pub(crate) config: ProxyConfig,
    #[command(flatten)]
    pub(crate) threads: Threads,
    /// Let processes of the same user read this one's memory. An agent that is not root needs
    /// it to see the path of the executable; whoever runs as this user can then take its key
    #[arg(long, env = "VOUCHSAFE_PROXY_DANGER_DUMPABLE")]
    pub(crate) danger_dumpable: bool,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
}

/// Arguments of `proxy check`.
#[derive(Debug, Args)]
pub(crate) struct ProxyCheck {
    #[command(flatten)]
    pub(crate) config: ProxyConfig,
    #[command(flatten)]
    pub(crate) output: Output,
}
