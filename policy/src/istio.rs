//! Istio's files as they are: `AuthorizationPolicy`, `PeerAuthentication` and `RequestAuthentication`, read strictly and compiled
//! with Istio's meaning into the form that our own policies have.
//!
//! A field that is not understood fails the load, even where Kubernetes would drop it. What Istio accepts and few people mean is kept
//! as it is, with a warning.

mod authorization;
mod clauses;
mod compile;
mod conditions;
mod elements;
mod normalization;
mod peers;
mod resource;
mod scope;
mod source;
mod texts;
mod tokens;
mod when;

pub(crate) use authorization::{Action, Authorization};
use clauses::Attribute;
pub use normalization::istio_path;
pub(crate) use peers::{PeerAuthentication, resolved};
pub(crate) use resource::Name;
pub(crate) use scope::{Scope, Within};
pub(crate) use source::is_istio;
pub(crate) use tokens::RequestAuthentication;

use crate::document::{Mode, Policy, Stance};
use crate::mesh::Mesh;
use crate::strict::{Problem, Problems, Reader, Source};

/// What a file holds.
#[derive(Clone, Debug)]
pub(crate) enum Resource {
    Authorization(Authorization),
    Peers(PeerAuthentication),
    Tokens(RequestAuthentication),
}

impl Resource {
    /// What kind of thing it is and how it is called.
    pub(crate) fn name(&self) -> &Name {
        match self {
            Self::Authorization(policy) => &policy.name,
            Self::Peers(policy) => &policy.name,
            Self::Tokens(policy) => &policy.name,
        }
    }

    /// Its kind.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Authorization(_) => resource::AUTHORIZATION,
            Self::Peers(_) => resource::PEERS,
            Self::Tokens(_) => resource::TOKENS,
        }
    }
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) resources: Vec<Resource>,
    pub(crate) warnings: Problems,
}

/// Reads a file, or says everything that is wrong in it.
pub(crate) fn read(source: &Source, mesh: &Mesh) -> Result<Read, Problems> {
    let (mut reader, roots) = Reader::open_all(source);
    let mut resources = Vec::new();
    for root in &roots {
        resource::read(root, source, mesh, &mut reader, &mut resources);
    }
    reader.finish()?;
    if resources.is_empty() {
        return Err(Problems::from(Problem::in_file(&source.name, "the file says nothing", None)));
    }
    Ok(Read { resources, warnings: reader.take_warnings() })
}

/// A policy of the internal form, and the workloads it is about.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) policy: Policy,
    pub(crate) scope: Scope,
    pub(crate) weight: Weight,
}

/// Whether a workload that is selected counts as protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// It does: the policy is enforced.
    Protects,
    /// It does not: the policy only watches, or is about tokens.
    Watches,
}

impl Authorization {
    /// The policy in the internal form.
    pub(crate) fn selected(&self, mesh: &Mesh) -> Result<Selected, Problems> {
        compile::compile(self, mesh)
    }
}

/// A policy without rules.
fn plain(name: &Name, stance: Stance, mode: Mode) -> Policy {
    Policy {
        name: name.full(),
        owner: None,
        file: std::sync::Arc::clone(&name.file),
        protects: Vec::new(),
        stance,
        mode,
        rules: Vec::new(),
        issuers: Vec::new(),
        guarantees: Vec::new(),
        tests: Vec::new(),
    }
}

/// Most rules that one policy may come to, each `from` with each `to`.
pub const MAX_EXPANSION: usize = 20_000;

/// Most rules, entries of `from`, `to` and `when` in one list: Istio's own limit.
pub(crate) const MAX_ENTRIES: usize = 512;

/// Most values in one list.
pub(crate) const MAX_VALUES: usize = 4_096;

/// Most service accounts in one list: Istio's own limit.
pub(crate) const MAX_SERVICE_ACCOUNTS: usize = 16;

/// Most `*` in one namespace or trust domain.
pub(crate) const MAX_STARS: usize = 4;

/// Most names in the path of one claim.
pub(crate) const MAX_CLAIM_DEPTH: usize = 16;
