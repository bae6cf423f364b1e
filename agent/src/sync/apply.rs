//! Taking what the CA says into the state. What cannot be served is left out and said, never guessed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use identity::{Anchors, BundleSet, Role, Succession, TrustBundle, TrustDomain};
use proto::vouchsafe::v1::AuthorizedEntries;

use super::Synchroniser;
use crate::entry::{Entries, Entry};
use crate::health::chain;
use crate::node::Node;
use crate::state::State;
use crate::upstream::Upstream;
use crate::wire::{self, Received};

impl Synchroniser {
    /// Takes changed entries, and the bundle if one came. Tells whether the own bundle has other keys.
    pub(super) fn apply(&mut self, update: AuthorizedEntries, node: &mut Node) -> bool {
        let AuthorizedEntries { complete, changed, removed, bundle } = update;
        let held = self.state.borrow().clone();
        let mut by_id: BTreeMap<String, Arc<Entry>> = if complete {
            BTreeMap::new()
        } else {
            held.entries.iter().map(|entry| (entry.id.clone(), entry.clone())).collect()
        };
        for id in removed {
            by_id.remove(&id);
        }
        for entry in changed {
            let id = entry.id.clone();
            // An entry that cannot be read replaces the one before: serving the old one would be guessing.
            by_id.remove(&id);
            match wire::entry(entry, &self.config.trust_domain) {
                Ok(entry) => drop(by_id.insert(id, shared(&held.entries, entry))),
                Err(error) => tracing::warn!(entry = %id, error = %chain(&error), "entry cannot be served"),
            }
        }
        self.take_entries(by_id.into_values().collect());
        let Some(bundle) = bundle else { return false };
        match wire::bundle(bundle, &self.config.trust_domain) {
            Ok(received) => self.take_bundle(received, node),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "trust bundle from the CA cannot be used; keeping the old one");
                false
            }
        }
    }

    fn take_entries(&mut self, entries: Entries) {
        self.refusals.retain(&entries);
        if self.state.borrow().entries == entries {
            return;
        }
        tracing::info!(entries = entries.len(), "entries changed");
        self.modify(|state| {
            state.svids.retain(|id, _| entries.get(id).is_some());
            let wanted = federated(&entries);
            let kept = state
                .bundles
                .iter()
                .filter(|(domain, _)| **domain == state.trust_domain || wanted.contains(*domain));
            state.bundles = kept.map(|(_, bundle)| bundle.clone()).collect();
            state.entries = entries;
        });
    }

    /// Takes the bundle of the own trust domain, unless it is older than the held one. Tells whether it has other keys.
    pub(super) fn take_bundle(&mut self, received: Received, node: &mut Node) -> bool {
        let Received { bundle, tainted } = received;
        let held = self.state.borrow().bundles.get(bundle.trust_domain().as_str()).cloned();
        if let Some(held) = &held {
            match bundle.succession(held) {
                Succession::Same => return false,
                Succession::Older => {
                    tracing::error!(
                        held = ?held.sequence(), offered = ?bundle.sequence(),
                        "the CA offers an older trust bundle than this node holds; refused. If the CA was restored \
                         from a backup, attest this node anew"
                    );
                    return false;
                }
                Succession::Newer | Succession::Conflict | Succession::Unordered => {}
            }
        }
        let other_keys = held.as_ref().is_none_or(|held| !bundle.has_same_keys(held));
        let bundle = Arc::new(bundle);
        node.bundle = Some(bundle.clone());
        tracing::info!(sequence = ?bundle.sequence(), keys = bundle.x509_authorities().len(), "trust bundle changed");
        self.modify(|state| replace_bundle(state, bundle, &tainted));
        other_keys
    }

    /// Tells whether an entry federates with a trust domain whose bundle was not asked for since it does.
    pub(super) fn lacks_federated(&self) -> bool {
        let state = self.state.borrow();
        federated(&state.entries).iter().any(|domain| {
            *domain != state.trust_domain
                && state.bundles.get(domain.as_str()).is_none()
                && !self.federated_asked.contains(domain)
        })
    }

    /// Fetches the bundles of the trust domains that entries federate with. One that the CA does not have is left out.
    pub(super) async fn refresh_federated(&mut self, upstream: &Upstream) {
        let (wanted, held) = {
            let state = self.state.borrow();
            (federated(&state.entries), state.bundles.clone())
        };
        self.federated_asked = wanted.clone();
        let mut bundles = held.clone();
        for domain in wanted.iter().filter(|domain| **domain != self.config.trust_domain) {
            match upstream.federated_bundle(domain).await {
                Ok(received)
                    if held.get(domain.as_str()).is_none_or(|held| is_successor(&received.bundle, held)) =>
                {
                    bundles.insert(received.bundle);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%domain, error = %chain(&error), "no bundle of a federated trust domain")
                }
            }
        }
        if bundles != held {
            self.modify(|state| state.bundles = bundles);
        }
    }
}

/// Puts in `bundle`, and makes due at once what its holders could not verify.
pub(super) fn replace_bundle(state: &mut State, bundle: Arc<TrustBundle>, tainted: &BTreeSet<Vec<u8>>) {
    state.bundles.insert(bundle.clone());
    replace_distrusted(state, &bundle, tainted, SystemTime::now());
}

/// Tells whether `bundle` may take the place of `held`.
pub(super) fn is_successor(bundle: &TrustBundle, held: &TrustBundle) -> bool {
    match bundle.succession(held) {
        Succession::Newer | Succession::Conflict | Succession::Unordered => true,
        Succession::Same | Succession::Older => false,
    }
}

/// Shares what did not change, so that watchers can compare by address.
fn shared(held: &Entries, entry: Entry) -> Arc<Entry> {
    held.get(&entry.id).filter(|held| ***held == entry).cloned().unwrap_or_else(|| Arc::new(entry))
}

fn federated(entries: &Entries) -> BTreeSet<TrustDomain> {
    entries.iter().flat_map(|entry| entry.federates_with.iter().cloned()).collect()
}

/// Makes due at once what a peer that does not trust the tainted authorities would refuse.
fn replace_distrusted(state: &mut State, bundle: &TrustBundle, tainted: &BTreeSet<Vec<u8>>, now: SystemTime) {
    let trusted = bundle.x509_authorities().iter().filter(|authority| !tainted.contains(authority.as_ref()));
    let Ok(trusted) = TrustBundle::new(bundle.trust_domain().clone(), trusted.cloned().collect()) else {
        return;
    };
    let anchors = Anchors::new(&BundleSet::from_iter([trusted]));
    for held in state.svids.values_mut() {
        let Some((leaf, rest)) = held.svid.chain().split_first() else { continue };
        if identity::verify(leaf, rest, &anchors, Role::Server, now).is_err() {
            held.renew_at = held.renew_at.min(now);
        }
    }
}
