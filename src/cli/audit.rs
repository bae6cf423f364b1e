//! Arguments of `vouchsafe audit`.

use std::path::PathBuf;

use audit::read::{Caller, Field, Glob};
use audit::{ConnectionId, DenialId};
use clap::{Args, Subcommand, ValueEnum};

use super::Output;
use super::moment::Moment;

/// Arguments of `audit`.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) command: AuditCommand,
}

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print the last records, and with -f every new one
    #[command(after_help = "Example:\n  vouchsafe audit tail -f /var/log/vouchsafe/api/audit.jsonl")]
    Tail(AuditTail),
    /// Find records, or count them by what they have in common
    #[command(
        after_help = "Examples:\n  vouchsafe audit query --since 1h --group-by from,rule --top 20 audit.jsonl\n  vouchsafe audit query --denial 01JD9Z6Q4T8M0V2W7Y5N3K1R4S audit.jsonl"
    )]
    Query(AuditQuery),
}

/// Which log.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditFiles {
    /// Log files or directories of them; a file's rotated predecessors are read with it
    #[arg(env = "VOUCHSAFE_AUDIT_LOG", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// A decision that records can be asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum WantedDecision {
    /// Let through: connections, their ends, and requests
    Allowed,
    /// Refused
    Denied,
    /// Let through only because the policy is in shadow
    WouldDeny,
}

impl WantedDecision {
    /// The decisions of the records that are meant.
    pub(crate) fn decisions(self) -> Vec<audit::Decision> {
        use audit::Decision::{Allowed, Closed, Denied, Opened, WouldDeny};
        match self {
            Self::Allowed => vec![Opened, Closed, Allowed],
            Self::Denied => vec![Denied],
            Self::WouldDeny => vec![WouldDeny],
        }
    }
}

/// Which records.
#[derive(Debug, Clone, Args)]
pub(crate) struct AuditFilter {
    /// Not before: a time (RFC 3339) or how long ago (`1h`)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Not after: a time (RFC 3339) or how long ago (`1h`)
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// Calls from these identities, or `unauthenticated`; `*` is one segment, a last `**` the rest
    #[arg(long, value_name = "GLOB")]
    pub(crate) from: Option<Caller>,
    /// Calls to these identities
    #[arg(long, value_name = "GLOB")]
    pub(crate) to: Option<Glob>,
    /// Decided by this rule, as `rule` or `file#rule`
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,
    /// Decided by this policy, by its name or its file
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Option<String>,
    /// Denied for this reason, such as `no_allow_matched`
    #[arg(long, value_name = "REASON")]
    pub(crate) reason: Option<String>,
    /// Only what was decided so
    #[arg(long, value_name = "DECISION")]
    pub(crate) decision: Option<WantedDecision>,
    /// Only what was denied: short for `--decision denied`
    #[arg(long, conflicts_with = "decision")]
    pub(crate) denied: bool,
    /// Calls to this port
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Requests for these paths
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Option<Glob>,
    /// The record with the denial id of a 403 answer
    #[arg(long, value_name = "ID")]
    pub(crate) denial: Option<DenialId>,
    /// The records of one connection
    #[arg(long, value_name = "ID")]
    pub(crate) connection: Option<ConnectionId>,
}

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub(crate) struct AuditTail {
    #[command(flatten)]
    pub(crate) files: AuditFiles,
    /// Go on printing records as they are written
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,
    /// How many records to start with
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub(crate) lines: usize,
    #[command(flatten)]
    pub(crate) filter: AuditFilter,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `audit query`.
#[derive(Debug, Args)]
pub(crate) struct AuditQuery {
    #[command(flatten)]
    pub(crate) files: AuditFiles,
    #[command(flatten)]
    pub(crate) filter: AuditFilter,
    /// Count records that agree in these fields, such as `from,rule`
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    pub(crate) group_by: Vec<Field>,
    /// Only the largest groups, or the newest records
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    #[command(flatten)]
    pub(crate) output: Output,
}
