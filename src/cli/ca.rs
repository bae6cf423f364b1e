//! Arguments of `vouchsafe ca`, except those of entries.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Output;
use super::daemon::{Supervised, Threads};
use super::entry::Entry;
use super::service::Service;
use crate::output::BundleFormat;

/// Arguments of `ca`.
#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    pub(crate) command: CaCommand,
}

/// What can be done with the CA.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Run the CA until it is told to stop
    #[command(after_help = "Example:\n  vouchsafe ca run --config /etc/vouchsafe/ca.yaml")]
    Run(CaRun),
    /// Read the configuration, say what is wrong with it, and stop
    #[command(after_help = "Example:\n  vouchsafe ca check --config /etc/vouchsafe/ca.yaml")]
    Check(CaCheck),
    /// Admit new agents
    #[command(subcommand)]
    Token(TokenCommand),
    /// Say which processes get which identity
    #[command(subcommand)]
    Entry(Entry),
    /// Say where calls go: the services of the trust domain, handed to sidecars
    #[command(subcommand)]
    Service(Service),
    /// The keys that the trust domain is verified with
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// The agents that have been admitted
    #[command(subcommand)]
    Agent(CaAgentCommand),
}

/// Where the CA's configuration comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct CaConfig {
    /// The configuration file
    #[arg(long, env = "VOUCHSAFE_CA_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/vouchsafe/ca.yaml")]
    pub(crate) config: PathBuf,
    /// The trust domain, over the file's `trust_domain`
    #[arg(long, env = "VOUCHSAFE_CA_TRUST_DOMAIN", value_name = "NAME")]
    pub(crate) trust_domain: Option<identity::TrustDomain>,
    /// Where agents connect, over the file's `listen`
    #[arg(long, env = "VOUCHSAFE_CA_LISTEN", value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where keys and the registry are kept, over the file's `data_dir`
    #[arg(long, env = "VOUCHSAFE_CA_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The Unix socket for administration, over the file's `admin_socket`
    #[arg(long, env = "VOUCHSAFE_CA_ADMIN_SOCKET", value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
}

/// Arguments of `ca run`.
#[derive(Debug, Args)]
pub(crate) struct CaRun {
    #[command(flatten)]
    pub(crate) config: CaConfig,
    #[command(flatten)]
    pub(crate) threads: Threads,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
}

/// Arguments of `ca check`.
#[derive(Debug, Args)]
pub(crate) struct CaCheck {
    #[command(flatten)]
    pub(crate) config: CaConfig,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How commands reach the CA's administration.
#[derive(Debug, Clone, Args)]
pub(crate) struct Admin {
    /// The CA's administration socket; without it, the one named in --config
    #[arg(long, env = "VOUCHSAFE_CA_ADMIN_SOCKET", value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// The CA's configuration file, read only to find the socket
    #[arg(long, env = "VOUCHSAFE_CA_CONFIG", value_name = "FILE")]
    #[arg(default_value = "/etc/vouchsafe/ca.yaml")]
    pub(crate) config: PathBuf,
}

/// What can be done with join tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token that admits one agent, once
    ///
    /// With --ca-address the output is one self-contained join string: the CA's address, the
    /// token and the hash of the CA's root. Give it to the agent in a file, on standard input
    /// or as a systemd credential, never on a command line.
    #[command(
        after_help = "Example:\n  vouchsafe ca token create --node host-1 --ca-address ca.prod.example:8081 --out host-1.join"
    )]
    Create(TokenCreate),
}

/// Arguments of `ca token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// How long the token can be spent
    #[arg(long, default_value = "10m", value_parser = token_ttl, value_name = "TIME")]
    pub(crate) ttl: Duration,
    /// A SPIFFE ID that entries may name as their parent for the agent that spends this token
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) agent_id: Option<identity::SpiffeId>,
    /// A name for the node: entries made with `--node NAME` are for the agent that spends the token
    #[arg(long, value_name = "NAME", conflicts_with = "agent_id")]
    pub(crate) node: Option<String>,
    /// Print a join string for a CA that agents reach at this address
    #[arg(long, env = "VOUCHSAFE_CA_ADDRESS", value_name = "HOST:PORT")]
    pub(crate) ca_address: Option<String>,
    /// Write the secret to this new file, mode 0600, and not to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What can be done with the trust bundle.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Print the trust bundle
    #[command(after_help = "Example:\n  vouchsafe ca bundle show -o pem > bundle.pem")]
    Show(BundleShow),
}

/// Arguments of `ca bundle show`.
#[derive(Debug, Args)]
pub(crate) struct BundleShow {
    #[command(flatten)]
    pub(crate) admin: Admin,
    /// A table for people, certificates as PEM, or the SPIFFE bundle document
    #[arg(short = 'o', long = "output", value_enum, default_value_t = BundleFormat::Table)]
    #[arg(value_name = "FORMAT")]
    pub(crate) format: BundleFormat,
}

/// What can be done with agents.
#[derive(Debug, Subcommand)]
pub(crate) enum CaAgentCommand {
    /// List the agents
    #[command(after_help = "Example:\n  vouchsafe ca agent list -o json")]
    List(AgentList),
    /// Refuse this agent's identity from its next call on
    ///
    /// A new join string admits the node again, under a new identity.
    #[command(
        after_help = "Example:\n  vouchsafe ca agent ban spiffe://prod.example/spire/agent/join_token/1c1d..."
    )]
    Ban(AgentNamed),
    /// Forget an agent: it has to be admitted again
    #[command(
        after_help = "Example:\n  vouchsafe ca agent evict spiffe://prod.example/spire/agent/join_token/1c1d..."
    )]
    Evict(AgentNamed),
}

/// Arguments of `ca agent list`.
#[derive(Debug, Args)]
pub(crate) struct AgentList {
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca agent ban` and `ca agent evict`.
#[derive(Debug, Args)]
pub(crate) struct AgentNamed {
    /// The agent's SPIFFE ID
    #[arg(value_name = "SPIFFE-ID")]
    pub(crate) id: identity::SpiffeId,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Parses how long a token can be spent, within what the CA accepts.
fn token_ttl(text: &str) -> Result<Duration, String> {
    let ttl = super::duration::parse(text).map_err(|cause| cause.to_string())?;
    if ttl > MAX_TOKEN_TTL {
        return Err(format!("a token lives at most {}", super::duration::spell(MAX_TOKEN_TTL)));
    }
    Ok(ttl)
}

/// The longest time that the CA lets a token be spent.
const MAX_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
