//! Arguments of the commands that wait for a sidecar, end it and take over from it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::ProxyConfig;

/// Which running sidecar is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Running {
    /// The admin interface of the sidecar: a Unix socket, or an address on loopback
    #[arg(
        long,
        env = "VOUCHSAFE_PROXY_ADMIN",
        value_name = "SOCKET|ADDRESS",
        required_unless_present = "config"
    )]
    pub(crate) admin: Option<PathBuf>,
    /// The configuration file of the sidecar, which names its admin interface
    #[arg(long, env = "VOUCHSAFE_PROXY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Arguments of `proxy wait`.
#[derive(Debug, Args)]
pub(crate) struct ProxyWait {
    #[command(flatten)]
    pub(crate) running: Running,
    /// How long to wait at most
    #[arg(long, value_parser = crate::cli::duration::parse, value_name = "TIME", default_value = "60s")]
    pub(crate) timeout: Duration,
    /// What takes this command's place once the sidecar is ready
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// Arguments of `proxy quit`.
#[derive(Debug, Args)]
pub(crate) struct ProxyQuit {
    #[command(flatten)]
    pub(crate) running: Running,
}

/// Arguments of `proxy upgrade`.
#[derive(Debug, Args)]
pub(crate) struct ProxyUpgrade {
    #[command(flatten)]
    pub(crate) config: ProxyConfig,
    /// The program that takes over; else the one that this command is
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
    /// How long to wait for it to serve at most
    #[arg(long, value_parser = crate::cli::duration::parse, value_name = "TIME", default_value = "90s")]
    pub(crate) timeout: Duration,
}

pub(super) const WAIT_HELP: &str = "\
Exit codes: 0 the sidecar is ready; 5 it is not, and the reason is told. With a command after --, that command's.

Examples:
  vouchsafe proxy wait --config /etc/vouchsafe/proxy/api.yaml -- /usr/bin/api --port 8080
  vouchsafe proxy wait --admin 127.0.0.1:15000 --timeout 2m";

pub(super) const QUIT_HELP: &str = "\
The sidecar drains and ends as after SIGTERM. Only root and the user that it runs as may ask, on the Unix socket that
`admin: {socket: PATH}` names.

Example:
  vouchsafe proxy quit --admin /run/vouchsafe/api.sock";

pub(super) const UPGRADE_HELP: &str = "\
The new process takes the listening sockets over by the socket that `handover: {socket: PATH}` names, and reads the
configuration anew. The one before goes on until the new one is ready, then finishes its connections and ends. Where the
new one cannot serve, nothing changes.

Exit codes: 0 the new process serves; 1 it does not, and the one before goes on; 2 the configuration is refused.

Example:
  vouchsafe proxy upgrade --config /etc/vouchsafe/proxy/api.yaml";
