//! What one process is given: its identities and bundles, computed from a snapshot and its selectors. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use identity::{TrustBundle, TrustDomain, X509Svid};
use rustls_pki_types::CertificateDer;

use crate::entry::{Entry, Expiry};
use crate::matching;
use crate::selector::SelectorSet;
use crate::state::{Phase, State};

/// What the Workload API answers to a process.
#[derive(Clone)]
pub enum Verdict {
    /// The agent is starting or stopping.
    NotReady(Phase),
    /// No entry matches.
    NoIdentity,
    /// Entries match.
    Granted(View),
}

/// Everything that one process gets.
#[derive(Clone)]
pub struct View {
    /// The identities whose SVID is held, default first.
    pub identities: Vec<Identity>,
    /// How many matching entries have no SVID that could be served.
    pub pending: usize,
    /// The bundle of the own trust domain.
    pub bundle: Arc<TrustBundle>,
    /// The bundles of foreign trust domains that the matching entries federate with.
    pub federated: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    /// When the view changes by itself: an SVID or an entry expires.
    pub expires: Option<SystemTime>,
}

/// One identity of a process.
#[derive(Clone)]
pub struct Identity {
    /// The SVID.
    pub svid: Arc<X509Svid>,
    /// The hint, empty where there is none or where an older entry has the same one.
    pub hint: String,
}

/// Computes what a process with the selectors `seen` gets at `now`.
pub fn decide(state: &State, seen: &SelectorSet, now: SystemTime) -> Verdict {
    match state.phase {
        Phase::Starting | Phase::Stopping => return Verdict::NotReady(state.phase),
        Phase::Serving => {}
    }
    let Some(bundle) = state.bundles.get(&state.trust_domain) else {
        return Verdict::NotReady(Phase::Starting);
    };
    let entries = matching::matches(&state.entries, seen, now);
    if entries.is_empty() {
        return Verdict::NoIdentity;
    }
    let identities = identities(state, &entries, now);
    Verdict::Granted(View {
        pending: entries.len().saturating_sub(identities.len()),
        bundle: bundle.clone(),
        federated: federated(state, &entries),
        expires: expires(&identities, &entries),
        identities,
    })
}

impl View {
    /// Tells whether a client that got `other` would learn nothing from this view.
    pub fn says_the_same_as(&self, other: &View) -> bool {
        self.identities.len() == other.identities.len()
            && self.identities.iter().zip(&other.identities).all(|(a, b)| a.is_same(b))
            && self.has_same_bundles(other)
    }

    /// Tells whether the bundles carry the same X.509 authorities as those of `other`.
    pub fn has_same_bundles(&self, other: &View) -> bool {
        authorities(&self.bundle) == authorities(&other.bundle)
            && self.federated.len() == other.federated.len()
            && self
                .federated
                .iter()
                .zip(&other.federated)
                .all(|((a, left), (b, right))| a == b && authorities(left) == authorities(right))
    }
}

impl Identity {
    fn is_same(&self, other: &Identity) -> bool {
        Arc::ptr_eq(&self.svid, &other.svid) && self.hint == other.hint
    }
}

fn authorities(bundle: &TrustBundle) -> &[CertificateDer<'static>] {
    bundle.x509_authorities()
}

fn identities(state: &State, entries: &[Arc<Entry>], now: SystemTime) -> Vec<Identity> {
    let mut hints = BTreeSet::new();
    entries
        .iter()
        .map(|entry| (entry, hints.insert(entry.hint.as_str())))
        .filter_map(|(entry, first)| {
            let held = state.svid_for(entry, now)?;
            // Workload API 5.2.1: hints are unique in a response. The oldest entry keeps its hint.
            let hint = if first { entry.hint.clone() } else { String::new() };
            Some(Identity { svid: held.svid.clone(), hint })
        })
        .collect()
}

fn federated(state: &State, entries: &[Arc<Entry>]) -> BTreeMap<TrustDomain, Arc<TrustBundle>> {
    entries
        .iter()
        .flat_map(|entry| &entry.federates_with)
        .filter(|domain| **domain != state.trust_domain)
        .filter_map(|domain| Some((domain.clone(), state.bundles.get(domain)?.clone())))
        .collect()
}

fn expires(identities: &[Identity], entries: &[Arc<Entry>]) -> Option<SystemTime> {
    let svids = identities.iter().map(|identity| identity.svid.not_after());
    let entries = entries.iter().filter_map(|entry| match entry.expires {
        Expiry::Never => None,
        Expiry::At(end) => Some(end),
    });
    svids.chain(entries).min()
}

#[cfg(test)]
mod tests;
