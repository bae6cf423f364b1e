//! Arguments of `vouchsafe policy`.

mod analysis;
mod history;
mod writing;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use identity::SpiffeId;

use super::Output;
use super::moment::Moment;
use crate::commands::policy::Caller;
use crate::output::Format;

pub(crate) use analysis::{PolicyBench, PolicyDiff, PolicyReach, Reacher};
pub(crate) use history::{GraphFormat, PolicyGraph, PolicyLearn, PolicyReplay};
pub(crate) use writing::{Assumed, PolicyFmt, PolicyImport, PolicyLint};

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// What can be done with policy files.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Read policy files as a sidecar would and say everything that is wrong with them
    #[command(after_help = "Example:\n  vouchsafe policy check /etc/vouchsafe/policies")]
    Check(PolicyCheck),
    /// Run the tests written in the policy files
    #[command(after_help = "Example:\n  vouchsafe policy test policies/")]
    Test(PolicyTest),
    /// Say whether a call would be allowed, by which rule, and what the nearest rules lacked
    ///
    /// Exits 0 when the call is allowed and 4 when it is denied.
    #[command(
        after_help = "Examples:\n  vouchsafe policy explain --policies policies/ --from spiffe://prod.example/web \\\n      --to spiffe://prod.example/api --port 8443 'GET /accounts/7'\n  vouchsafe policy explain --policies policies/ --request -"
    )]
    Explain(PolicyExplain),
    /// Decide requests, one JSON object a line, and print a decision for each
    ///
    /// A request has the keys peer (a SPIFFE ID or null), source_ip, dest_ip, port, sni, http (method, host, path and
    /// headers as pairs, or null), jwt (verified claims or null) and time; all but port may be left out. A decision has
    /// decision, rule, reason, and the file and line of the rule. A line that cannot be read is answered with its number and
    /// an error, and the command then exits 2, as it does when the policies are refused.
    #[command(
        after_help = "Example:\n  vouchsafe policy eval --policies policies/ --requests requests.jsonl -o jsonl"
    )]
    Eval(PolicyEval),
    /// List who can reach what, with a request that shows each way in
    ///
    /// The answer is exact. Exits 3 when a part of it could not be settled.
    #[command(after_help = "Example:\n  vouchsafe policy reach --to spiffe://prod.example/api policies/")]
    Reach(PolicyReach),
    /// Compare two sets of policies: every access gained and lost, with a request that shows it
    ///
    /// Exits 3 when something is gained, or when that could not be settled.
    #[command(after_help = "Example:\n  vouchsafe policy diff --only-narrows policies/ new-policies/")]
    Diff(PolicyDiff),
    /// Find rules that never match, that others make useless or contradict, and IDs that nobody can have
    ///
    /// Exits 3 when something is found.
    #[command(after_help = "Example:\n  vouchsafe policy lint --entries entries/ policies/")]
    Lint(PolicyLint),
    /// Bring policy files into the one form
    #[command(after_help = "Example:\n  vouchsafe policy fmt --check policies/")]
    Fmt(PolicyFmt),
    /// Rewrite Istio's files as native ones, and list every place where the meaning may surprise
    #[command(after_help = "Example:\n  vouchsafe policy import istio/ --out policies/")]
    Import(PolicyImport),
    /// Print the JSON Schema of policy files, for editors
    #[command(after_help = "Example:\n  vouchsafe policy schema > policy.schema.json")]
    Schema,
    /// Measure how fast these policies decide
    #[command(after_help = "Example:\n  vouchsafe policy bench policies/")]
    Bench(PolicyBench),
    /// Draw who may talk to whom, and with an audit log who does
    #[command(
        after_help = "Example:\n  vouchsafe policy graph --format svg --log audit.jsonl policies/ > graph.svg"
    )]
    Graph(PolicyGraph),
    /// Say which past requests other policies would have decided otherwise
    ///
    /// Exits 3 when a decision changes or the log does not say enough.
    #[command(after_help = "Example:\n  vouchsafe policy replay --log audit.jsonl new-policies/")]
    Replay(PolicyReplay),
    /// Propose allow rules for what an audit log says was refused
    ///
    /// What is printed is for review: it is nowhere applied.
    #[command(
        after_help = "Example:\n  vouchsafe policy learn --log audit.jsonl --policies policies/ > proposed.yaml"
    )]
    Learn(PolicyLearn),
    /// Show which set of policies the CA hands out, and which sidecar runs which
    ///
    /// Exits 3 when some sidecar is behind or has refused a set, or when the CA refuses its policy directory.
    #[command(after_help = "Example:\n  vouchsafe policy status")]
    Status(super::policy_status::PolicyStatus),
}

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub(crate) struct PolicyCheck {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub(crate) struct PolicyTest {
    /// Policy files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Say how many tests each rule decides; exits 3 when some rule decides none
    #[arg(long)]
    pub(crate) coverage: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Whose semantics Istio's files have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WantedCompat {
    /// Those of sidecars
    Sidecar,
    /// Those of ztunnel
    Ambient,
}

/// Arguments of `policy explain`.
#[derive(Debug, Args)]
pub(crate) struct PolicyExplain {
    /// Policy files, or directories of them
    #[arg(long, required = true, value_name = "PATH")]
    pub(crate) policies: Vec<PathBuf>,
    /// Who calls: a SPIFFE ID, or `unauthenticated`
    #[arg(long, required_unless_present = "question", conflicts_with = "question", value_name = "SPIFFE-ID")]
    pub(crate) from: Option<Caller>,
    /// Who is called
    #[arg(long, required_unless_present = "question", value_name = "SPIFFE-ID")]
    pub(crate) to: Option<SpiffeId>,
    /// The port that the called workload's sidecar listens on
    #[arg(long, required_unless_present = "question", conflicts_with = "question", value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The address that the connection comes from
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(crate) source: IpAddr,
    /// The Host of the request
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    pub(crate) host: String,
    /// Decide as of this time: `now`, RFC 3339, or how long ago
    #[arg(long, default_value = "now", value_name = "TIME")]
    pub(crate) at: Moment,
    /// The whole call as JSON, as `policy eval` reads it; `-` is standard input
    #[arg(long = "request", id = "question", conflicts_with = "request", value_name = "JSON")]
    pub(crate) question: Option<String>,
    /// With --request, who is called: a file with spiffe_id, namespace and labels
    #[arg(long, requires = "question", conflicts_with = "to", value_name = "FILE")]
    pub(crate) workload: Option<PathBuf>,
    /// With --request, whose semantics Istio's files have
    #[arg(long, requires = "question", value_enum, value_name = "MODE")]
    pub(crate) compat: Option<WantedCompat>,
    /// The request, as `METHOD /path`; without it a plain TCP connection
    #[arg(value_name = "REQUEST")]
    pub(crate) request: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A call that the options name one by one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpelledCall<'a> {
    pub(crate) from: &'a Caller,
    pub(crate) to: &'a SpiffeId,
    pub(crate) port: u16,
}

impl PolicyExplain {
    /// The call, where the options name it.
    pub(crate) fn spelled(&self) -> Option<SpelledCall<'_>> {
        Some(SpelledCall { from: self.from.as_ref()?, to: self.to.as_ref()?, port: self.port? })
    }
}

/// Arguments of `policy eval`.
#[derive(Debug, Args)]
pub(crate) struct PolicyEval {
    /// Policy files, or directories of them
    #[arg(long, required = true, value_name = "PATH")]
    pub(crate) policies: Vec<PathBuf>,
    /// The workload that is called, as YAML or JSON: spiffe_id, namespace, labels, and of its mesh root_namespace,
    /// trust_domain, trust_domain_aliases, path_normalization, compat and unselected (allow or deny). Without it, the one
    /// workload that the policies name
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: Option<PathBuf>,
    /// The requests, one JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) requests: PathBuf,
    /// Whose semantics Istio's files have, over the workload file's `compat`
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) compat: Option<WantedCompat>,
    /// How to print: `jsonl` for one object a line, `json` for one document, `table` for people
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Jsonl)]
    #[arg(value_name = "FORMAT", hide_possible_values = true)]
    pub(crate) format: Format,
}
