//! Arguments of `vouchsafe proxy intercept`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};
use proxy::intercept::{Cgroup, Mark, Network};

use crate::cli::Output;

/// Arguments of `proxy intercept`.
#[derive(Debug, Args)]
pub(crate) struct ProxyIntercept {
    #[command(subcommand)]
    pub(crate) command: InterceptCommand,
}

/// What can be done with the rules.
#[derive(Debug, Subcommand)]
pub(crate) enum InterceptCommand {
    /// Put the rules in force, in one step, in place of those that are
    ///
    /// Exits 0 once they are in force: fit for an init step that runs before the workload and its sidecar.
    #[command(after_help = INSTALL_HELP)]
    Install(InterceptRules),
    /// Take the rules away; where there are none, nothing happens
    #[command(after_help = "Example:\n  vouchsafe proxy intercept remove")]
    Remove(InterceptRemove),
    /// Print the rules, and touch nothing
    #[command(
        after_help = "Example:\n  vouchsafe proxy intercept show --config /etc/vouchsafe/proxy/api.yaml"
    )]
    Show(InterceptRules),
    /// Compare the rules in force with those that should be; exits 3 where they differ
    #[command(
        after_help = "Example:\n  vouchsafe proxy intercept check --config /etc/vouchsafe/proxy/api.yaml"
    )]
    Check(InterceptRules),
}

const INSTALL_HELP: &str = "\
Needs root, or CAP_NET_ADMIN, in the network namespace of the workload, and the commands `nft` and (with --mode tproxy) `ip`.

Examples:
  vouchsafe proxy intercept install --config /etc/vouchsafe/proxy/api.yaml
  vouchsafe proxy intercept install --inbound all --outbound all
  vouchsafe proxy intercept install --inbound 8080,9090 --outbound uid:1000
  vouchsafe proxy intercept install --outbound cgroup:system.slice/api.service --mode redirect";

/// Arguments of `proxy intercept remove`.
#[derive(Debug, Args)]
pub(crate) struct InterceptRemove {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which rules are meant: those of a configuration file, or those that are spelled out.
#[derive(Debug, Args)]
pub(crate) struct InterceptRules {
    /// The configuration file of the sidecar, whose `transparent` says everything
    #[arg(long, env = "VOUCHSAFE_PROXY_CONFIG", value_name = "FILE", required_unless_present_any = ["inbound", "outbound"])]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) spelled: Spelled,
    /// Capture everything even in the host's own network namespace: the agent's traffic and SSH's, too
    #[arg(long)]
    pub(crate) danger_capture_shared: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// The rules, spelled out.
#[derive(Debug, Clone, Args)]
pub(crate) struct Spelled {
    /// Which calls to the workload are captured: `all`, or these ports
    #[arg(long, value_name = "all|PORTS", conflicts_with = "config")]
    pub(crate) inbound: Option<Inbound>,
    /// Whose calls are captured: `all`, `uid:N,uid:N` or `cgroup:PATH`
    #[arg(long, value_name = "all|WHO", conflicts_with = "config")]
    pub(crate) outbound: Option<Outbound>,
    /// How callers come to the sidecar: `redirect`, or `tproxy`, which keeps their address for the application
    #[arg(long, value_name = "MODE", conflicts_with = "config", default_value = "redirect")]
    #[arg(value_parser = ["redirect", "tproxy"], hide_possible_values = true)]
    pub(crate) mode: String,
    /// Where the sidecar takes calls to the workload
    #[arg(long, value_name = "PORT", conflicts_with = "config", default_value_t = proxy::config::INBOUND_PORT)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) inbound_to: u16,
    /// Where the sidecar takes calls of the workload
    #[arg(long, value_name = "PORT", conflicts_with = "config", default_value_t = proxy::config::OUTBOUND_PORT)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) outbound_to: u16,
    /// The mark of the sidecar's own sockets
    #[arg(long, value_name = "MARK", conflicts_with = "config", default_value_t = Mark::DEFAULT)]
    pub(crate) mark: Mark,
    /// Tell the sidecar's own sockets by their user, not by the mark
    #[arg(long, value_name = "UID", value_delimiter = ',', conflicts_with_all = ["config", "mark"])]
    pub(crate) own_uid: Vec<u32>,
    /// Tell the sidecar's own sockets by their group, not by the mark
    #[arg(long, value_name = "GID", value_delimiter = ',', conflicts_with_all = ["config", "mark"])]
    pub(crate) own_gid: Vec<u32>,
    /// Ports of the sidecar itself that other hosts call
    #[arg(long, value_name = "PORT", value_delimiter = ',', conflicts_with = "config", requires = "inbound")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) own_port: Vec<u16>,
    /// The CA, which is called directly; without it port 8081 is, in a namespace that others use
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        conflicts_with = "config",
        requires = "outbound"
    )]
    pub(crate) ca: Vec<SocketAddr>,
    /// TCP ports of the workload that everybody reaches past the sidecar
    #[arg(long, value_name = "PORT", value_delimiter = ',', conflicts_with = "config", requires = "inbound")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) danger_open_port: Vec<u16>,
    /// UDP ports of the workload that everybody reaches
    #[arg(long, value_name = "PORT", value_delimiter = ',', conflicts_with = "config", requires = "inbound")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) danger_open_udp_port: Vec<u16>,
    /// TCP ports that the workload calls past the sidecar
    #[arg(
        long,
        value_name = "PORT",
        value_delimiter = ',',
        conflicts_with = "config",
        requires = "outbound"
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) danger_exempt_port: Vec<u16>,
    /// Networks that the workload calls past the sidecar
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        conflicts_with = "config",
        requires = "outbound"
    )]
    pub(crate) danger_exempt_network: Vec<Network>,
    /// What the workload may send by UDP beside DNS: `all`, or to these ports
    #[arg(long, value_name = "all|PORTS", conflicts_with = "config", requires = "outbound")]
    pub(crate) danger_udp: Option<Inbound>,
}

/// Everything, or some ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Inbound {
    All,
    Ports(Vec<u16>),
}

impl FromStr for Inbound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let port = |text: &str| text.parse().ok().filter(|port| *port != 0);
        let ports: Option<Vec<u16>> = text.split(',').map(port).collect();
        ports.map(Self::Ports).ok_or_else(|| "expected `all`, or ports such as 8080,9090".to_owned())
    }
}

/// Everybody, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    All,
    Users(Vec<u32>),
    Cgroup(Cgroup),
}

impl FromStr for Outbound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(path) = text.strip_prefix("cgroup:") {
            return path.parse().map(Self::Cgroup).map_err(|error| format!("{path}: {error}"));
        }
        let user = |text: &str| text.strip_prefix("uid:")?.parse().ok().filter(|uid| *uid != u32::MAX);
        let users: Option<Vec<u32>> = text.split(',').map(user).collect();
        users.map(Self::Users).ok_or_else(|| "expected `all`, `uid:N,uid:N` or `cgroup:PATH`".to_owned())
    }
}
