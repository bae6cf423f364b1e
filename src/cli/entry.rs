//! Arguments of `vouchsafe ca entry`.

use std::path::PathBuf;
use std::time::Duration;

use ca::model::{EntryId, Selector};
use clap::{Args, Subcommand};
use identity::{SpiffeId, TrustDomain};

use super::Output;
use super::ca::Admin;

/// What can be done with registration entries.
#[derive(Debug, Subcommand)]
pub(crate) enum Entry {
    /// Give an identity to the processes that carry all these selectors
    #[command(
        after_help = "Example:\n  vouchsafe ca entry create --id spiffe://prod.example/web \\\n      --node host-1 --selector unix:user:web"
    )]
    Create(EntryCreate),
    /// List entries
    #[command(after_help = "Example:\n  vouchsafe ca entry list --id spiffe://prod.example/web -o jsonl")]
    List(EntryList),
    /// Show one entry whole
    #[command(after_help = "Example:\n  vouchsafe ca entry show 5a4f0a9e-93c4-4a3b-8f6e-0a2ce5c2d0a1")]
    Show(EntryShow),
    /// Change an entry; what is not named stays
    #[command(
        after_help = "Example:\n  vouchsafe ca entry update 5a4f0a9e-93c4-4a3b-8f6e-0a2ce5c2d0a1 --x509-ttl 30m"
    )]
    Update(EntryUpdate),
    /// Withdraw entries
    #[command(after_help = "Example:\n  vouchsafe ca entry delete 5a4f0a9e-93c4-4a3b-8f6e-0a2ce5c2d0a1")]
    Delete(EntryDelete),
    /// Make the registry agree with entry files: shows the difference, then applies it
    #[command(after_help = "Example:\n  vouchsafe ca entry apply entries/ --dry-run")]
    Apply(EntryApply),
}

/// Arguments of `ca entry create`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("place").args(["node", "parent"]).required(true)))]
pub(crate) struct EntryCreate {
    /// The identity to give
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) id: SpiffeId,
    /// The agent that may serve it: the agent's own ID, or the one its token was created for
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) parent: Option<SpiffeId>,
    /// The node that may serve it, by the name its token was created for
    #[arg(long, value_name = "NAME", conflicts_with = "parent")]
    pub(crate) node: Option<String>,
    /// What the process must show, as `type:value`; all given selectors are needed
    #[arg(long = "selector", required = true, value_parser = selector, value_name = "TYPE:VALUE")]
    pub(crate) selectors: Vec<Selector>,
    #[command(flatten)]
    pub(crate) details: EntryDetails,
    /// Say what would be created and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What an entry may say beyond who, where and what.
#[derive(Debug, Args)]
pub(crate) struct EntryDetails {
    /// How long the certificates live; without it the CA's `svid_ttl`
    #[arg(long, value_parser = super::duration::parse, value_name = "TIME")]
    pub(crate) x509_ttl: Option<Duration>,
    /// A hint that tells several identities of one process apart
    #[arg(long, value_name = "TEXT")]
    pub(crate) hint: Option<String>,
    /// A DNS name to put into the certificate; may be repeated
    #[arg(long = "dns-name", value_name = "NAME")]
    pub(crate) dns_names: Vec<String>,
    /// A foreign trust domain whose bundle the process gets; may be repeated
    #[arg(long = "federates-with", value_name = "NAME")]
    pub(crate) federates_with: Vec<TrustDomain>,
}

/// Arguments of `ca entry list`.
#[derive(Debug, Args)]
pub(crate) struct EntryList {
    /// Only entries for this identity
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) id: Option<SpiffeId>,
    /// Only entries of this parent
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) parent: Option<SpiffeId>,
    /// Only entries with exactly these selectors
    #[arg(long = "selector", value_parser = selector, value_name = "TYPE:VALUE")]
    pub(crate) selectors: Vec<Selector>,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca entry show`.
#[derive(Debug, Args)]
pub(crate) struct EntryShow {
    /// The entry's ID
    #[arg(value_parser = entry_id)]
    pub(crate) entry: EntryId,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca entry update`.
#[derive(Debug, Args)]
pub(crate) struct EntryUpdate {
    /// The entry's ID
    #[arg(value_parser = entry_id)]
    pub(crate) entry: EntryId,
    /// The identity to give
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) id: Option<SpiffeId>,
    /// The agent that may serve it
    #[arg(long, value_name = "SPIFFE-ID")]
    pub(crate) parent: Option<SpiffeId>,
    /// The selectors, all of them: the old ones are replaced
    #[arg(long = "selector", value_parser = selector, value_name = "TYPE:VALUE")]
    pub(crate) selectors: Vec<Selector>,
    #[command(flatten)]
    pub(crate) details: EntryDetails,
    /// Say what would change and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Arguments of `ca entry delete`.
#[derive(Debug, Args)]
pub(crate) struct EntryDelete {
    /// The entries' IDs
    #[arg(required = true, value_parser = entry_id)]
    pub(crate) entries: Vec<EntryId>,
    /// Say what would be deleted and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
}

/// Arguments of `ca entry apply`.
#[derive(Debug, Args)]
pub(crate) struct EntryApply {
    /// Entry files, or directories of them
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Delete entries made through the API that these files do not hold
    #[arg(long)]
    pub(crate) prune: bool,
    /// Show the difference and change nothing; exit 3 when there is one
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) admin: Admin,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn selector(text: &str) -> Result<Selector, &'static str> {
    Selector::parse(text).ok_or("expected type:value, like unix:uid:1000")
}

fn entry_id(text: &str) -> Result<EntryId, &'static str> {
    if text.starts_with("spiffe://") {
        return Err(
            "that is a SPIFFE ID: an entry's own id is wanted, see `vouchsafe ca entry list --id SPIFFE-ID`",
        );
    }
    EntryId::parse(text).ok_or("expected 1 to 255 letters, digits, dots, dashes and underscores")
}
