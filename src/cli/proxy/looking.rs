//! Arguments of the commands that look at a running sidecar.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::lifecycle::Running;
use crate::cli::Output;

/// Arguments of `proxy top`.
#[derive(Debug, Args)]
pub(crate) struct ProxyTop {
    #[command(flatten)]
    pub(crate) running: Running,
    /// How long each picture stands
    #[arg(long, value_parser = crate::cli::duration::parse, value_name = "TIME", default_value = "2s")]
    pub(crate) interval: Duration,
    /// Show so many pictures and end; without a terminal one is shown
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `proxy tap`.
#[derive(Debug, Args)]
pub(crate) struct ProxyTap {
    #[command(flatten)]
    pub(crate) running: Running,
    /// Only requests of this peer: a SPIFFE ID, or a pattern such as spiffe://prod.test/ns/shop/**
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) peer: Option<policy::pattern::IdPattern>,
    /// Only requests with such a path, such as /orders/**
    #[arg(long, value_name = "PATTERN")]
    pub(crate) path: Option<String>,
    /// Only requests with this method
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// Only answers with this status, or of this class
    #[arg(long, value_name = "403|4xx")]
    pub(crate) status: Option<String>,
    /// Only requests that go this way
    #[arg(long, value_enum)]
    pub(crate) direction: Option<Direction>,
    /// Only requests that ended so
    #[arg(long, value_enum)]
    pub(crate) outcome: Option<Ended>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Which way a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// To the workload
    Inbound,
    /// From the workload
    Outbound,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ended {
    /// The client has its whole answer
    Finished,
    /// One of the two sides broke off, or no service answered
    Broken,
    /// Its right was withdrawn, or it took longer than it may
    Cut,
    /// It was refused
    Refused,
}

pub(super) const TOP_HELP: &str = "\
Nothing is counted while nobody looks. Only root and the user that the sidecar runs as may look, on the Unix socket that
`admin: {socket: PATH}` names.

Examples:
  vouchsafe proxy top --config /etc/vouchsafe/proxy/api.yaml
  vouchsafe proxy top --admin /run/vouchsafe/api.sock -n 1 -o json";

pub(super) const TAP_HELP: &str = "\
Each request is shown when it is over, without query, body or token. Only root and the user that the sidecar runs as may
look, on the Unix socket that `admin: {socket: PATH}` names.

Examples:
  vouchsafe proxy tap --config /etc/vouchsafe/proxy/api.yaml --outcome refused
  vouchsafe proxy tap --admin /run/vouchsafe/api.sock --peer spiffe://prod.test/web --path /orders/** --status 5xx -o jsonl";
