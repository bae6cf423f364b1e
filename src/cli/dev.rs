//! Arguments of `vouchsafe dev` and of the services it starts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::Output;
use super::daemon::Supervised;

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  vouchsafe dev\n  vouchsafe dev --once --keep /tmp/vouchsafe-tour")]
pub(crate) struct Dev {
    /// End after the tour: 0 when every step held, 1 with the reason when one did not
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep all files in this new or empty directory and leave them there
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// The loopback address that everything listens on
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) address: IpAddr,
    /// Use this port and the six after it; without it, free ones are found
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=LAST_BASE))]
    pub(crate) base_port: Option<u16>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `dev-service`.
#[derive(Debug, Args)]
pub(crate) struct DevService {
    /// The name that the service answers with
    #[arg(long)]
    pub(crate) name: String,
    /// Where it listens
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// Where it passes requests on to; without it, it answers them itself
    #[arg(long)]
    pub(crate) upstream: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) supervised: Supervised,
}

/// The last port after which there are six more.
const LAST_BASE: i64 = u16::MAX as i64 - 6;
