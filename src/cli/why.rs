//! Arguments of `vouchsafe why`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use identity::SpiffeId;

use super::Output;
use super::moment::Moment;
use crate::commands::policy::Caller;

/// Arguments of `why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  vouchsafe why spiffe://prod.example/web spiffe://prod.example/api 'GET /accounts/7' \\\n      --port 8443 --policies policies/"
)]
pub(crate) struct Why {
    /// Who calls: a SPIFFE ID, or `unauthenticated`
    #[arg(value_name = "SRC")]
    pub(crate) from: Caller,
    /// Who is called
    #[arg(value_name = "DST")]
    pub(crate) to: SpiffeId,
    /// The request, as `METHOD /path`; without it a plain TCP connection
    #[arg(value_name = "REQUEST")]
    pub(crate) request: Option<String>,
    /// The port that the called workload's sidecar listens on; without it, the only one in --proxy
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Policy files, or directories of them; without it, the directory that --proxy names
    #[arg(long, value_name = "PATH")]
    pub(crate) policies: Vec<PathBuf>,
    /// The configuration file of the called workload's sidecar
    #[arg(long, env = "VOUCHSAFE_PROXY_CONFIG", value_name = "FILE")]
    pub(crate) proxy: Option<PathBuf>,
    /// The CA's administration socket
    #[arg(long, env = "VOUCHSAFE_CA_ADMIN_SOCKET", value_name = "PATH")]
    pub(crate) ca_admin_socket: Option<PathBuf>,
    /// The agent's administration socket, on the called workload's host
    #[arg(long, env = "VOUCHSAFE_AGENT_ADMIN_SOCKET", value_name = "PATH", requires = "pid")]
    pub(crate) agent_admin_socket: Option<PathBuf>,
    /// The process of the called workload's sidecar, for the agent to tell of
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), value_name = "PID", requires = "agent_admin_socket")]
    pub(crate) pid: Option<u32>,
    /// The address that the connection comes from
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) source: IpAddr,
    /// The Host of the request
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub(crate) host: String,
    /// Decide as of this time: `now`, RFC 3339, or how long ago
    #[arg(long, default_value = "now", value_name = "TIME")]
    pub(crate) at: Moment,
    /// An audit log of the called workload: tells which policies were in force at that time
    #[arg(long = "log", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
