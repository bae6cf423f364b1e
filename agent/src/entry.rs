//! A registration entry as the agent holds it: who gets which SPIFFE ID.
//!
//! An entry without selectors names no process, whatever the subset rule of set theory would say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{SpiffeId, TrustDomain};

use crate::attestor::Depth;
use crate::selector::SelectorSet;

/// A registration entry that the CA lets this node serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The CA's name for the entry.
    pub id: String,
    /// The identity that a matching process gets.
    pub spiffe_id: SpiffeId,
    /// Who may serve the entry.
    pub parent_id: SpiffeId,
    /// What a process must have, all of it.
    pub selectors: SelectorSet,
    /// Foreign trust domains whose bundles a matching process gets.
    pub federates_with: Vec<TrustDomain>,
    /// DNS names that the CA puts into the SVID.
    pub dns_names: Vec<String>,
    /// The operator's name for the identity, unique in what one process gets.
    pub hint: String,
    /// Lifetime of the SVID in seconds, as asked for; 0 leaves it to the CA.
    pub x509_svid_ttl: i32,
    /// Grows with every change of the entry.
    pub revision: i64,
    /// When the entry was made, in seconds since the Unix epoch.
    pub created_at: i64,
    /// When the entry ends.
    pub expires: Expiry,
    /// Whether processes get the identity or an external store does.
    pub delivery: Delivery,
}

/// When an entry ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// When somebody deletes it.
    Never,
    /// At this time, even if the CA cannot be asked.
    At(SystemTime),
}

/// Where the SVID of an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To processes over the Workload API.
    WorkloadApi,
    /// To an external store; this agent does not serve such entries.
    ExternalStore,
}

impl Entry {
    /// Tells whether processes may get the identity at `now`.
    pub fn is_served(&self, now: SystemTime) -> bool {
        let live = match self.expires {
            Expiry::Never => true,
            Expiry::At(end) => now < end,
        };
        live && self.delivery == Delivery::WorkloadApi && !self.selectors.is_empty()
    }

    /// Tells whether a process with the selectors `seen` gets the identity at `now`.
    pub fn matches(&self, seen: &SelectorSet, now: SystemTime) -> bool {
        self.is_served(now) && self.selectors.is_subset_of(seen)
    }
}

/// The entries of the node by their id, with what is known of them as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    by_id: BTreeMap<String, Arc<Entry>>,
    depth: Depth,
}

impl Entries {
    /// Returns the entry with this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id)
    }

    /// Returns every entry, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_id.values()
    }

    /// Returns how many entries there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Tells whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Returns how deep a process has to be looked into to decide which entries it matches.
    pub fn depth(&self) -> Depth {
        self.depth
    }
}

impl FromIterator<Arc<Entry>> for Entries {
    fn from_iter<I: IntoIterator<Item = Arc<Entry>>>(entries: I) -> Self {
        let by_id: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let depth = Depth::of(by_id.values().flat_map(|entry| entry.selectors.iter()));
        Self { by_id, depth }
    }
}
