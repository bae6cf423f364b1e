//! Asking a running sidecar to look at its policies: what a reload would come to, or the reload itself.
//!
//! The answer has one shape, which the sidecar writes and `vouchsafe proxy reload` reads.

mod asking;

use std::{collections::BTreeMap, path::Path};

pub(crate) use asking::WAIT;
pub use asking::{AskError, ask, ask_about};

use serde::{Deserialize, Serialize};

use crate::{LoadError, policies};

/// Files of policies by name, as they are sent to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub(crate) files: BTreeMap<String, String>,
}

impl Files {
    /// Reads a directory as a sidecar does.
    pub fn read(directory: &Path) -> Result<Self, LoadError> {
        let sources = policies::read(directory)?.sources()?;
        Ok(Self { files: sources.into_iter().map(|source| (source.name, source.text)).collect() })
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To say what a reload would come to. Nothing changes.
    Preview,
    /// To reload now.
    Reload,
    /// To reload now, even if the directory holds no policy any more, so that everything is refused.
    ReloadEmpty,
}

impl Asked {
    /// Every request there is.
    pub(crate) const ALL: [Self; 3] = [Self::Preview, Self::Reload, Self::ReloadEmpty];

    /// Returns where the admin interface takes the request.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Preview => "/policies/preview",
            Self::Reload => "/policies/reload",
            Self::ReloadEmpty => "/policies/reload-empty",
        }
    }
}

/// What a reload came to, or would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether this is what would happen, and nothing has.
    pub dry_run: bool,
    /// Whether the policies are accepted. Otherwise what was in force stays.
    pub accepted: bool,
    /// Whether they differ from what was in force.
    pub changed: bool,
    /// The generation of the policies that were looked at; absent where they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The generation in force when they were looked at; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Why they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// What lies in the directory as if it were meant to be read, and is not.
    pub ignored: Vec<String>,
    /// What it costs those who are connected.
    #[serde(flatten)]
    pub losses: Losses,
}

/// The live connections that policies cut.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// How many.
    pub cut: usize,
    /// How many live inbound connections there were.
    pub connections: usize,
    /// How many of each peer, those with most first, at most 100 peers.
    pub by_peer: Vec<PeerLosses>,
    /// How many peers are not listed.
    pub more_peers: usize,
    /// Which, the oldest first, at most 200.
    pub lost: Vec<Lost>,
    /// How many connections are not listed.
    pub more_lost: usize,
}

/// The connections of one peer that are cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLosses {
    /// The peer's SPIFFE ID.
    pub peer: String,
    /// How many of its connections are cut.
    pub connections: usize,
}

/// A connection that is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The peer's SPIFFE ID.
    pub peer: String,
    /// The address that it calls from.
    pub source: String,
    /// The port of ours that it called.
    pub port: u16,
    /// `tcp` or `http`.
    pub protocol: String,
    /// For how long it has been open.
    pub age_seconds: u64,
    /// The rule that it lived by, as policy/rule (file:line); absent for an HTTP connection that waits for a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_lost: Option<String>,
    /// Why it is refused.
    pub reason: String,
    /// The rule that refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_by: Option<String>,
}

/// Peers that are listed.
pub(crate) const MAX_PEERS: usize = 100;
/// Connections that are listed.
pub(crate) const MAX_LOST: usize = 200;
