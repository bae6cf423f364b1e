//! What the agent knows, as one immutable snapshot: entries, SVIDs, trust bundles.
//!
//! The sync task is the only writer; everything else watches. An SVID is replaced, never changed, so that two
//! snapshots share what did not change and a view can compare by address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use identity::{BundleSet, SpiffeId, TrustDomain, X509Svid};

use crate::entry::{Entries, Entry};

/// One consistent picture of the node.
#[derive(Clone)]
pub struct State {
    /// Whether workloads can be answered.
    pub phase: Phase,
    /// The trust domain the agent serves.
    pub trust_domain: TrustDomain,
    /// The agent's own SPIFFE ID, once the CA gave it one.
    pub agent_id: Option<SpiffeId>,
    /// The entries that the CA lets this node serve.
    pub entries: Entries,
    /// SVIDs by the id of the entry they were issued for.
    pub svids: BTreeMap<String, Held>,
    /// The bundle of the own trust domain and those of foreign ones.
    pub bundles: BundleSet,
}

/// Whether workloads can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The entries are not known; a workload is asked to come again.
    Starting,
    /// The entries are known.
    Serving,
    /// The agent is going down; a workload is asked to come again.
    Stopping,
}

/// An SVID that the agent keeps for an entry.
#[derive(Clone)]
pub struct Held {
    /// The SVID with its key.
    pub svid: Arc<X509Svid>,
    /// When a successor is asked for.
    pub renew_at: SystemTime,
    /// The revision of the entry it was issued for.
    pub revision: i64,
}

impl State {
    /// Creates the state of an agent that knows nothing.
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            phase: Phase::Starting,
            trust_domain,
            agent_id: None,
            entries: Entries::default(),
            svids: BTreeMap::new(),
            bundles: BundleSet::default(),
        }
    }

    /// Returns the SVID to hand out for `entry` at `now`. An expired one is never handed out, nor one that carries
    /// another SPIFFE ID than the entry names.
    pub fn svid_for(&self, entry: &Entry, now: SystemTime) -> Option<&Held> {
        self.svids
            .get(&entry.id)
            .filter(|held| now < held.svid.not_after())
            .filter(|held| held.svid.id() == &entry.spiffe_id)
    }
}
