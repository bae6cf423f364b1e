//! Arguments of `vouchsafe svid`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use identity::SpiffeId;
use proxy::workload_api::Endpoint;

use super::Output;
use crate::commands::svid::notice::Signal;

/// Arguments of `svid`.
#[derive(Debug, Args)]
pub(crate) struct Svid {
    #[command(subcommand)]
    pub(crate) command: SvidCommand,
}

/// What can be done with this process's identity.
#[derive(Debug, Subcommand)]
pub(crate) enum SvidCommand {
    /// Fetch the identity once
    ///
    /// Without --out it is described on standard output; the key is never printed.
    #[command(after_help = "Example:\n  vouchsafe svid fetch --out /etc/nginx/identity")]
    Fetch(SvidFetch),
    /// Fetch the identity and every renewal of it, until told to stop
    #[command(
        after_help = "Example:\n  vouchsafe svid watch --out /etc/nginx/identity --signal HUP --pid-file /run/nginx.pid"
    )]
    Watch(SvidWatch),
}

/// Which identity, from where, to where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Identity {
    /// The Workload API's socket
    #[arg(long, env = "SPIFFE_ENDPOINT_SOCKET", value_name = "unix:///PATH")]
    #[arg(default_value = "unix:///run/vouchsafe/agent.sock")]
    pub(crate) socket: Endpoint,
    /// Which identity, where this process has several
    #[arg(long, env = "VOUCHSAFE_SVID_ID", value_name = "SPIFFE-ID")]
    pub(crate) id: Option<SpiffeId>,
    /// Write svid.pem, key.pem (mode 0600) and bundle.pem into this directory, as one set
    #[arg(long, env = "VOUCHSAFE_SVID_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `svid fetch`.
#[derive(Debug, Args)]
pub(crate) struct SvidFetch {
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// How long to wait for an identity
    #[arg(long, default_value = "10s", value_parser = super::duration::parse, value_name = "TIME")]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `svid watch`.
#[derive(Debug, Args)]
pub(crate) struct SvidWatch {
    #[command(flatten)]
    pub(crate) identity: Identity,
    /// Run this command with `sh -c` after each new set of files
    #[arg(long, value_name = "COMMAND", requires = "out")]
    pub(crate) exec: Option<String>,
    /// Send this signal after each new set of files to the process in --pid-file
    #[arg(long, value_enum, requires = "pid_file", requires = "out", value_name = "NAME")]
    pub(crate) signal: Option<Signal>,
    /// The file with the number of the process to signal
    #[arg(long, requires = "signal", value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}
