//! Arguments of `vouchsafe agent` and `vouchsafe whoami`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Output;
use super::daemon::{Supervised, Threads};

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(subcommand)]
    pub(crate) command: AgentCommand,
}

/// What can be done with the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Run the agent until it is told to stop
    #[command(after_help = "Example:\n  vouchsafe agent run --config /etc/vouchsafe/agent.yaml")]
    Run(AgentRun),
    /// Read the configuration, say what is wrong with it, and stop
    #[command(after_help = "Example:\n  vouchsafe agent check --config /etc/vouchsafe/agent.yaml")]
    Check(AgentCheck),
}

/// Where the agent's configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentConfig {
    /// The configuration file
    #[arg(long, env = "VOUCHSAFE_AGENT_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/vouchsafe/agent.yaml")]
    pub(crate) config: PathBuf,
    /// The trust domain, over the file's `trust_domain`
    #[arg(long, env = "VOUCHSAFE_AGENT_TRUST_DOMAIN", value_name = "NAME")]
    pub(crate) trust_domain: Option<identity::TrustDomain>,
    /// The CA's address, over the file's `ca`
    #[arg(long, env = "VOUCHSAFE_AGENT_CA", value_name = "HOST:PORT")]
    pub(crate) ca: Option<String>,
    /// Where the agent keeps what it holds, over the file's `data_dir`
    #[arg(long, env = "VOUCHSAFE_AGENT_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The Workload API's socket, over the file's `socket`
    #[arg(long, env = "VOUCHSAFE_AGENT_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// Arguments of `agent run`.
#[derive(Debug, Args)]
pub(crate) struct AgentRun {
    #[command(flatten)]
    pub(crate) config: AgentConfig,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
}

/// Arguments of `agent check`.
#[derive(Debug, Args)]
pub(crate) struct AgentCheck {
    #[command(flatten)]
    pub(crate) config: AgentConfig,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `whoami`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  vouchsafe whoami --pid $(pidof -s nginx)")]
pub(crate) struct Whoami {
    /// Ask about this process; answered on the agent's administration socket only
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..), value_name = "PID")]
    pub(crate) pid: Option<i32>,
    /// The agent's Workload API socket, used without --pid
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "unix:///PATH")]
    #[arg(default_value = "unix:///run/vouchsafe/agent.sock")]
    pub(crate) socket: proxy::workload_api::Endpoint,
    /// The agent's administration socket, used with --pid
    #[arg(long, env = "VOUCHSAFE_AGENT_ADMIN_SOCKET", value_name = "PATH")]
    #[arg(default_value = "/var/lib/vouchsafe/agent/admin.sock")]
    pub(crate) admin_socket: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}
