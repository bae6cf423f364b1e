//! Services and what their sidecars serve, as an operator writes them (`vouchsafe: services/v1`): text in, typed entries out.
//!
//! What a CA keeps, signs and hands out is one entry at a time in its canonical form, which the same reader reads again:
//! nobody on the way takes what an operator's file could not say. A file with one flaw yields nothing at all.

use std::fmt;
use std::time::Duration;

use identity::{SpiffeId, TrustDomain};
use serde::{Serialize, Serializer};

use crate::pattern::IdPattern;
use crate::selection::Selection;
use crate::strict::{Node, Problems, Reader, Source};

mod address;
mod clash;
mod print;
mod read;
mod recovery;

pub use address::{Address, AddressError};
pub use clash::{Clash, Placed, clashes, placed};
pub use print::print;
pub use recovery::{Balance, Breakers, Ejection, Health, Probe, Retries, Timeouts};

/// One thing that a services file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A service that sidecars call.
    Service(Box<Service>),
    /// What a sidecar serves for its workload.
    Sidecar(Sidecar),
}

/// The kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A service.
    Service,
    /// What a sidecar serves.
    Sidecar,
}

/// A service: where it is found, and who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name in the whole trust domain.
    pub name: String,
    /// The names and addresses that applications call it by, in canonical form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The ports that applications call.
    pub ports: Vec<u16>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who may answer.
    pub expect: Vec<SpiffeId>,
    /// Where calls go. Without any, calls fail at once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// How calls are spread.
    #[serde(skip_serializing_if = "Balance::is_default")]
    pub balance: Balance,
    /// How long a call may take.
    #[serde(skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
    /// When a call is tried again.
    #[serde(skip_serializing_if = "Retries::is_default")]
    pub retries: Retries,
    /// When an endpoint is left out for a while.
    #[serde(skip_serializing_if = "Ejection::is_default")]
    pub ejection: Ejection,
    /// How much may be under way at once.
    #[serde(skip_serializing_if = "Breakers::is_default")]
    pub breakers: Breakers,
    /// How endpoints are asked whether they work, beside the calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Whose sidecars get it.
    #[serde(serialize_with = "texts")]
    pub visible_to: Vec<IdPattern>,
}

/// One place where a service is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Its host and port.
    #[serde(serialize_with = "text")]
    pub address: Address,
    /// Its share of the calls.
    pub weight: u32,
    /// The place that calls prefer when they come from the same one: parts from the largest to the smallest, like `eu/a`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Whether its sidecar takes tunnels (HBONE).
    pub tunnel: bool,
}

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Bytes.
    Tcp,
    /// HTTP/1.1 and HTTP/2.
    Http,
    /// What the first bytes say.
    Auto,
}

/// What the sidecars of some workloads serve: the part of a service that lies on its own side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sidecar {
    /// Its name in the whole trust domain.
    pub name: String,
    /// The workloads whose sidecars serve so.
    #[serde(serialize_with = "texts")]
    pub applies_to: Vec<IdPattern>,
    /// The ports of the application that callers reach.
    pub inbound: Vec<Inbound>,
}

/// One port that a sidecar serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inbound {
    /// The port that callers call, and the application's own.
    pub port: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// Reads an operator's files as one set: an entry that stands twice is a problem, too. What does not say who may see it is
/// for everybody in `trust_domain`.
pub fn parse(sources: &[Source], trust_domain: &TrustDomain) -> Result<Vec<Entry>, Problems> {
    placed(sources, trust_domain).map(|found| found.into_iter().map(|found| found.entry).collect())
}

/// Reads one entry in its canonical form. It says who may see it.
pub fn entry(source: &Source) -> Result<Entry, Problems> {
    read::canonical(source)
}

/// Reads a service within a sidecar's own configuration: nobody else gets it.
pub fn own(node: &Node, read: &mut Reader<'_>) -> Option<Service> {
    read::service(node, read::Missing::Own, read)
}

/// Who gets the entry in a file of a set. What cannot be read is for nobody.
pub fn audience(source: &Source) -> Selection {
    match entry(source) {
        Ok(entry) => Selection::Matching(entry.audience().to_vec()),
        Err(_) => Selection::Matching(Vec::new()),
    }
}

impl Entry {
    /// What it is.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Service(_) => EntryKind::Service,
            Self::Sidecar(_) => EntryKind::Sidecar,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.name,
            Self::Sidecar(sidecar) => &sidecar.name,
        }
    }

    /// Whose sidecars get it.
    pub fn audience(&self) -> &[IdPattern] {
        match self {
            Self::Service(service) => &service.visible_to,
            Self::Sidecar(sidecar) => &sidecar.applies_to,
        }
    }

    /// The entry in its canonical form.
    pub fn document(&self) -> String {
        // Only maps with other keys than texts cannot be written as JSON, and there is no map.
        serde_json::to_string(&read::Document::of(self)).unwrap_or_default()
    }
}

impl EntryKind {
    /// Returns the word that files and commands use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Sidecar => "sidecar",
        }
    }

    /// Reads that word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Service, Self::Sidecar].into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Protocol {
    /// Returns the word that files use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Auto => "auto",
        }
    }
}

fn text<S: Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

fn texts<S: Serializer>(values: &[impl fmt::Display], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(values.iter().map(ToString::to_string))
}

#[expect(clippy::ref_option, reason = "what serde passes")]
fn time<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(time) if time.subsec_millis() == 0 => to.collect_str(&format_args!("{}s", time.as_secs())),
        Some(time) => to.collect_str(&format_args!("{}ms", time.as_millis())),
        None => to.serialize_none(),
    }
}

/// The longest name of an entry.
pub const MAX_NAME: usize = 128;
/// Most entries of one set.
pub const MAX_ENTRIES: usize = 10_000;
/// Most hosts of one service.
pub const MAX_HOSTS: usize = 64;
/// Most ports of one entry.
pub const MAX_PORTS: usize = 64;
/// Most endpoints of one service.
pub const MAX_ENDPOINTS: usize = 1_000;
/// Most identities that one service may have.
pub const MAX_EXPECTED: usize = 256;
/// Most patterns that say who gets an entry.
pub const MAX_AUDIENCE: usize = 256;
/// The largest weight of an endpoint.
pub const MAX_WEIGHT: u32 = 1_000;
/// The longest locality.
pub const MAX_LOCALITY: usize = 128;

#[cfg(test)]
mod tests;
