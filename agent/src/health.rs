//! Whether the agent does its job, and the figures about it.

use std::error::Error;
use std::fmt::Write;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use identity::manifest::Kind;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::state::{Phase, State};
use crate::wire::unix_seconds;

/// How the agent and its CA stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CaLink {
    /// No connection was made so far.
    Connecting,
    /// The CA pushes changes.
    Pushing,
    /// The CA is asked for changes.
    Polling,
    /// The CA cannot be reached; what is held is served until it expires.
    Lost {
        /// Why.
        reason: String,
    },
    /// The CA does not take this node for an agent: somebody has to act.
    Refused {
        /// What to do.
        cure: String,
    },
}

/// The figures of sets of one kind.
#[derive(Clone, Default)]
pub(crate) struct OfSets {
    /// The number of the set that is handed out.
    pub number: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// Sets of the CA that were refused.
    pub refused: Counter,
}

/// The figures of the agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Figures {
    /// Entries that this node may serve.
    pub entries: Gauge,
    /// SVIDs that are held.
    pub svids: Gauge,
    /// Open streams of the Workload API.
    pub streams: Gauge,
    /// When the agent's own SVID expires, in seconds since the epoch.
    pub own_expiry: Gauge,
    /// The sequence number of the trust bundle.
    pub bundle_sequence: Gauge<i64, std::sync::atomic::AtomicI64>,
    /// When the CA was last heard, in seconds since the epoch.
    pub last_contact: Gauge<u64, AtomicU64>,
    /// SVIDs issued.
    pub issued: Counter,
    /// SVIDs that the CA refused.
    pub issue_refused: Counter,
    /// Of sets of policies.
    pub policies: OfSets,
    /// Of sets of services.
    pub services: OfSets,
    /// Lost or refused connections to the CA.
    pub ca_failures: Counter,
    /// Attestations of processes by their result.
    pub attestations: Family<Attestation, Counter>,
}

/// How an attestation of a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Attestation {
    /// `granted`, `no_identity` or `failed`.
    pub result: &'static str,
}

/// State of the link, and the figures.
#[derive(Clone)]
pub(crate) struct Health {
    link: watch::Sender<CaLink>,
    /// The figures.
    pub figures: Figures,
}

impl Health {
    /// Creates the health of an agent that starts, and registers its figures.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        Self { link: watch::Sender::new(CaLink::Connecting), figures: Figures::new(registry) }
    }

    /// Notes how the agent and its CA stand.
    pub(crate) fn set_link(&self, link: CaLink) {
        self.link.send_if_modified(|held| {
            let changed = *held != link;
            *held = link;
            changed
        });
    }

    /// Returns how the agent and its CA stand.
    pub(crate) fn link(&self) -> CaLink {
        self.link.borrow().clone()
    }

    /// Returns what keeps the agent from being ready: nothing, where workloads are answered. A lost CA does not, for
    /// what is held is served; a refusing one does, for nothing will get better by itself.
    pub(crate) fn unready(&self, state: &State) -> Vec<String> {
        let phase = match state.phase {
            Phase::Starting => Some("the entries of this node are not known yet".to_owned()),
            Phase::Stopping => Some("the agent is going down".to_owned()),
            Phase::Serving => None,
        };
        let link = match self.link() {
            CaLink::Refused { cure } => Some(cure),
            CaLink::Lost { reason } if phase.is_some() => Some(reason),
            CaLink::Lost { .. } | CaLink::Connecting | CaLink::Pushing | CaLink::Polling => None,
        };
        phase.into_iter().chain(link).collect()
    }
}

impl Figures {
    fn new(registry: &mut Registry) -> Self {
        let figures = Self {
            entries: Gauge::default(),
            svids: Gauge::default(),
            streams: Gauge::default(),
            own_expiry: Gauge::default(),
            bundle_sequence: Gauge::default(),
            last_contact: Gauge::default(),
            issued: Counter::default(),
            issue_refused: Counter::default(),
            policies: OfSets::default(),
            services: OfSets::default(),
            ca_failures: Counter::default(),
            attestations: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("vouchsafe_agent");
        registry.register("entries", "Entries that this node may serve", figures.entries.clone());
        registry.register("svids", "SVIDs held", figures.svids.clone());
        registry.register("workload_streams", "Open Workload API streams", figures.streams.clone());
        registry.register(
            "own_svid_expiry_seconds",
            "When the agent's SVID expires",
            figures.own_expiry.clone(),
        );
        registry.register("bundle_sequence", "Sequence of the trust bundle", figures.bundle_sequence.clone());
        registry.register(
            "ca_last_contact_seconds",
            "When the CA was last heard",
            figures.last_contact.clone(),
        );
        registry.register("svids_issued", "SVIDs issued for entries", figures.issued.clone());
        registry.register("svids_refused", "SVIDs that the CA refused", figures.issue_refused.clone());
        let OfSets { number, refused } = figures.policies.clone();
        registry.register("policy_set_number", "Number of the policy set handed out", number);
        registry.register("policy_sets_refused", "Policy sets of the CA that were refused", refused);
        let OfSets { number, refused } = figures.services.clone();
        registry.register("service_set_number", "Number of the service set handed out", number);
        registry.register("service_sets_refused", "Service sets of the CA that were refused", refused);
        registry.register("ca_failures", "Lost or refused CA connections", figures.ca_failures.clone());
        registry.register("attestations", "Attestations of processes", figures.attestations.clone());
        figures
    }

    /// The figures of sets of `kind`.
    pub(crate) fn of_sets(&self, kind: Kind) -> &OfSets {
        match kind {
            Kind::Policies => &self.policies,
            Kind::Services => &self.services,
        }
    }

    /// Notes that the CA was heard.
    pub(crate) fn heard(&self, now: SystemTime) {
        self.last_contact.set(u64::try_from(unix_seconds(now)).unwrap_or(0));
    }

    /// Notes how an attestation ended.
    pub(crate) fn attested(&self, result: &'static str) {
        self.attestations.get_or_create(&Attestation { result }).inc();
    }
}

/// Writes an error with everything that caused it, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.ends_with(&said) {
            // Writing to a string does not fail.
            let _ = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}
