//! The one snapshot that decides: identity, TLS configurations and policies, swapped whole.
//!
//! One task writes it; everything else reads. After each swap the live connections that the change concerns are
//! decided again, so the writer knows before and after.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use identity::{
    BundleSet, Credentials, SpiffeId, TrustDomain,
    tls::{self, Acceptor, ClientAuth, Connector, ExpectedServer, TlsError},
    verify,
};
use policy::WorkloadPolicies;
use tokio::sync::{Notify, watch};

use crate::{
    jwt::{Accepted, Tokens},
    live::{Cut, Proof, Registry},
    policies::Candidate,
    services::central::Served,
};

/// What decides at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Effective {
    pub(crate) identity: Option<Arc<Identity>>,
    /// Absent until a good set has been loaded: everything is refused.
    pub(crate) policies: Option<WorkloadPolicies>,
    pub(crate) generation: Arc<str>,
    /// Whose tokens count under these policies.
    pub(crate) tokens: Accepted,
}

impl Effective {
    /// Returns the name of the generation, if there is one.
    pub(crate) fn name(&self) -> Option<String> {
        (!self.generation.is_empty()).then(|| self.generation.to_string())
    }
}

/// Who we are, with the TLS configurations that prove it.
pub(crate) struct Identity {
    pub(crate) credentials: Arc<Credentials>,
    /// For callers of our workload.
    pub(crate) server: Acceptor,
    /// For callers that come through a tunnel (HBONE speaks HTTP/2).
    pub(crate) tunnel_server: Acceptor,
    clients: Mutex<HashMap<Callee, Connector>>,
}

/// Whom a client configuration is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Callee {
    expected: Arc<[SpiffeId]>,
    tunnel: bool,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Identity").field("id", self.id()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Builds the TLS configurations, once for each generation of credentials.
    pub(crate) fn new(credentials: Arc<Credentials>) -> Result<Self, TlsError> {
        let server = Acceptor::new(&credentials, ClientAuth::Required, &[])?;
        let tunnel_server = Acceptor::new(&credentials, ClientAuth::Required, &[tls::ALPN_H2])?;
        Ok(Self { credentials, server, tunnel_server, clients: Mutex::default() })
    }

    pub(crate) fn id(&self) -> &SpiffeId {
        self.credentials.svid().id()
    }

    /// Returns the configuration for calls to a service that has to prove one of `expected`. It is made once.
    pub(crate) fn client(&self, expected: &Arc<[SpiffeId]>, tunnel: bool) -> Result<Connector, TlsError> {
        let callee = Callee { expected: Arc::clone(expected), tunnel };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&callee) {
            return Ok(known.clone());
        }
        let alpn = if tunnel { &[tls::ALPN_H2][..] } else { &[] };
        let config = Connector::new(&self.credentials, ExpectedServer::AnyOf(expected.to_vec()), alpn)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(callee, config.clone());
        Ok(config)
    }
}

/// Holds the snapshot, and why the proxy is not ready.
#[derive(Debug, Default)]
pub(crate) struct State {
    effective: ArcSwap<Effective>,
    problems: Mutex<BTreeMap<Part, String>>,
    tokens: Tokens,
    served: Served,
    changed: watch::Sender<()>,
    files: Notify,
}

/// What can keep the proxy from being ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// There is no identity.
    Identity,
    /// The identity in use is good, the last update was not.
    IdentityUpdate,
    /// No policies could be loaded.
    Policies,
    /// The policies in force are good, the last reload was not.
    PolicyReload,
    /// The agent hands out no policies, or none that can be believed; those in force stay.
    PolicyDelivery,
    /// The agent hands out no services, or none that can be believed; those in use stay.
    ServiceDelivery,
    /// The services in use are good, the last reload of their directory was not.
    Services,
    /// The policies are in no use, or there are none and everything is refused.
    PolicyUse,
    /// The configuration in force is good, the last reload was not, or some of it waits for a restart.
    ConfigReload,
    /// The kernel cannot do a part of what confines the proxy.
    Confinement,
    /// The proxy is stopping.
    Draining,
}

impl Part {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::IdentityUpdate => "identity_update",
            Self::Policies => "policies",
            Self::PolicyReload => "policy_reload",
            Self::PolicyDelivery => "policy_delivery",
            Self::PolicyUse => "policy_use",
            Self::ServiceDelivery => "service_delivery",
            Self::Services => "services",
            Self::ConfigReload => "config_reload",
            Self::Confinement => "confinement",
            Self::Draining => "draining",
        }
    }

    /// Whether the proxy is not ready while this lasts; otherwise it is a warning.
    pub(crate) const fn blocks(self) -> bool {
        match self {
            Self::Identity | Self::Policies | Self::Draining => true,
            Self::IdentityUpdate
            | Self::PolicyReload
            | Self::PolicyDelivery
            | Self::PolicyUse
            | Self::ServiceDelivery
            | Self::ConfigReload
            | Self::Confinement
            | Self::Services => false,
        }
    }
}

impl State {
    pub(crate) fn now(&self) -> Arc<Effective> {
        self.effective.load_full()
    }

    /// Puts a snapshot in force, with the keys of whoever may issue tokens under it.
    pub(crate) fn store(&self, effective: Effective) {
        self.effective.store(Arc::new(self.complete(effective)));
        self.changed.send_replace(());
    }

    /// Adds the keys of whoever may issue tokens under the policies of a snapshot.
    pub(crate) fn complete(&self, effective: Effective) -> Effective {
        let tokens = self.tokens.accept(effective.policies.as_ref());
        Effective { tokens, ..effective }
    }

    /// Tells of every change of the snapshot from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Rings when files of this host changed that wait for policies from the agent.
    pub(crate) fn files(&self) -> &Notify {
        &self.files
    }

    /// What the CA says that the ports of our workload speak.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub(crate) fn set_problem(&self, part: Part, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(part, problem),
            None => problems.remove(&part),
        };
    }

    pub(crate) fn problems(&self) -> BTreeMap<Part, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.problems().keys().all(|part| !part.blocks())
    }
}

/// Puts a new identity beside the policies in force, or takes the identity away.
pub(crate) fn with_identity(
    now: &Effective,
    set: Option<&Candidate>,
    identity: Option<Arc<Identity>>,
) -> Effective {
    let policies = match (&identity, set) {
        (Some(identity), Some(set)) => Some(protecting(set, identity)),
        (_, None) | (None, _) => None,
    };
    Effective { identity, policies, generation: Arc::clone(&now.generation), ..Effective::default() }
}

/// Puts new policies beside the identity in force.
pub(crate) fn with_policies(now: &Effective, set: &Candidate) -> Effective {
    let identity = now.identity.clone();
    let policies = identity.as_ref().map(|identity| protecting(set, identity));
    Effective { identity, policies, generation: Arc::from(set.set.generation()), ..Effective::default() }
}

fn protecting(candidate: &Candidate, identity: &Identity) -> WorkloadPolicies {
    candidate.set.protecting(&candidate.selectors.workload(identity.id()))
}

/// Returns the trust domains whose members have to be looked at again. A revocation list names no trust domain.
pub(crate) fn changed_bundles(before: &BundleSet, after: &BundleSet) -> BTreeSet<TrustDomain> {
    let relisted = before.revocation() != after.revocation();
    let changed = |(trust_domain, bundle): (&TrustDomain, &Arc<identity::TrustBundle>)| {
        let same = !relisted
            && after
                .get(trust_domain)
                .is_some_and(|other| other.x509_authorities() == bundle.x509_authorities());
        (!same).then(|| trust_domain.clone())
    };
    before.iter().filter_map(changed).collect()
}

/// Cuts the connections whose peers the new bundles do not vouch for.
pub(crate) fn recheck_trust(registry: &Registry, before: &Credentials, after: &Credentials) -> usize {
    let changed = changed_bundles(before.bundles(), after.bundles());
    if changed.is_empty() {
        return 0;
    }
    registry.recheck_proofs(
        |trust_domain| changed.contains(trust_domain),
        |proof, opened| holds(proof, after, opened),
    )
}

/// Whether `credentials` still vouch for a peer. Its certificate is judged as of the time it was shown: expiry is
/// no withdrawal.
pub(crate) fn holds(proof: &Proof, credentials: &Credentials, opened: SystemTime) -> bool {
    let [leaf, intermediates @ ..] = proof.chain.as_slice() else { return false };
    verify(leaf, intermediates, credentials.anchors(), identity::Role::Client, opened).is_ok()
}

/// Cuts everything: who we are is no longer ours to say.
pub(crate) fn withdraw(registry: &Registry) {
    registry.cut_all(|| Cut::Identity);
}

/// Client configurations kept: one for each set of identities that a service may have.
const MAX_CLIENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, WEB};

    #[test]
    fn configurations_for_clients_are_made_once_and_kept_within_a_bound() {
        let credentials = Authority::new("a").credentials(WEB);
        let identity = Identity::new(Arc::new(credentials)).unwrap();
        let service = |name: usize| -> Arc<[SpiffeId]> {
            Arc::from([SpiffeId::parse(&format!("spiffe://prod.test/{name}")).unwrap()])
        };

        let (first, again) = (identity.client(&service(0), false), identity.client(&service(0), false));
        let tunnel = identity.client(&service(0), true).unwrap();
        for name in 0..MAX_CLIENTS + 10 {
            identity.client(&service(name), false).unwrap();
        }

        assert_eq!(first.unwrap(), again.unwrap());
        assert_eq!(tunnel.alpn(), [tls::ALPN_H2]);
        assert!(identity.clients.lock().unwrap().len() <= MAX_CLIENTS);
    }
}
