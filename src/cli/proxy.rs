//! Arguments of `vouchsafe proxy`.

pub(crate) mod intercept;
pub(crate) mod lifecycle;
pub(crate) mod looking;

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
    /// Have a running sidecar reload its configuration and policies, or say what a reload would do
    #[command(after_help = RELOAD_HELP)]
    Reload(ProxyReload),
    /// Wait until a running sidecar is ready, then run a command
    #[command(after_help = lifecycle::WAIT_HELP)]
    Wait(lifecycle::ProxyWait),
    /// Have a running sidecar finish its connections and end
    #[command(after_help = lifecycle::QUIT_HELP)]
    Quit(lifecycle::ProxyQuit),
    /// Start a sidecar that takes over from the running one without losing a connection
    #[command(after_help = lifecycle::UPGRADE_HELP)]
    Upgrade(lifecycle::ProxyUpgrade),
    /// Show who calls a running sidecar, how often, and what is refused
    #[command(after_help = looking::TOP_HELP)]
    Top(looking::ProxyTop),
    /// Show the requests of a running sidecar as they end
    #[command(after_help = looking::TAP_HELP)]
    Tap(Box<looking::ProxyTap>),
    /// Have the kernel bring the workload's traffic to the sidecar
    Intercept(Box<intercept::ProxyIntercept>),
}

const RELOAD_HELP: &str = "\
The sidecar answers on the Unix socket that `admin: {socket: PATH}` names in its configuration, and only root and the
user that it runs as.

Exit codes: 0 reloaded, or nothing would be cut; 2 the configuration or the policies are refused, and what is refused
changes nothing; 3 with --dry-run, live connections would be cut.

Examples:
  vouchsafe proxy reload --dry-run --policies ./new --config /etc/vouchsafe/proxy/api.yaml
  vouchsafe proxy reload --admin /run/vouchsafe/api.sock -o json";

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
    /// Take the listening sockets over from the sidecar that runs, if there is one
    #[arg(long, env = "VOUCHSAFE_PROXY_TAKE_OVER")]
    pub(crate) take_over: bool,
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

/// Arguments of `proxy reload`.
#[derive(Debug, Args)]
pub(crate) struct ProxyReload {
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// With --dry-run: look at the files of this directory instead of those that the sidecar has
    #[arg(long, value_name = "DIR", requires = "dry_run")]
    pub(crate) policies: Option<PathBuf>,
    /// Reload even if the last policy file is gone, so that everything is refused
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) accept_empty: bool,
    /// The admin socket of the sidecar
    #[arg(long, env = "VOUCHSAFE_PROXY_ADMIN", value_name = "SOCKET", required_unless_present = "config")]
    pub(crate) admin: Option<PathBuf>,
    /// The configuration file of the sidecar, which names its admin socket
    #[arg(long, env = "VOUCHSAFE_PROXY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
