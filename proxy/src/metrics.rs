//! What is counted: bounded label sets, handles kept, so that counting costs one addition.

mod answers;

use std::sync::{Arc, OnceLock, atomic::AtomicU64};

use audit::CloseCause;
use identity::manifest::Kind;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::Registry,
};

use answers::Answers;

use crate::{
    http1::Outcome as Ending,
    services::{Counted, Services},
    telemetry::Telemetry,
};

/// The counters of one proxy.
#[derive(Debug)]
pub(crate) struct Metrics {
    opened: Counter,
    closed: Family<Cause, Counter>,
    received: Counter,
    sent: Counter,
    requests: Family<Decided, Counter>,
    /// The one of `requests` that most requests count.
    allowed: Counter,
    answers: Answers,
    upstream_failures: Family<Error, Counter>,
    accept_failures: Counter,
    policy_loads: Family<Outcome, Counter>,
    config_loads: Family<Outcome, Counter>,
    policy_deliveries: Family<Outcome, Counter>,
    service_deliveries: Family<Outcome, Counter>,
    service_set_number: Gauge,
    identity_updates: Family<Outcome, Counter>,
    /// The number of the central policies in force.
    pub(crate) policy_number: Gauge,
    tokens: Family<Judged, Counter>,
    key_fetches: Family<Outcome, Counter>,
    plaintext: Family<Listener, Counter>,
    services: OnceLock<Arc<Services>>,
    pub(crate) live: Gauge,
    pub(crate) handshaking: Gauge,
    pub(crate) svid_not_after: Gauge<f64, AtomicU64>,
    pub(crate) ready: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Error {
    error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Judged {
    result: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = Family::<Decided, Counter>::default();
        let allowed = requests.get_or_create(&Decided { decision: ALLOWED }).clone();
        Self {
            opened: Counter::default(),
            closed: Family::default(),
            received: Counter::default(),
            sent: Counter::default(),
            allowed,
            requests,
            answers: Answers::new(),
            upstream_failures: Family::default(),
            accept_failures: Counter::default(),
            policy_loads: Family::default(),
            config_loads: Family::default(),
            policy_deliveries: Family::default(),
            service_deliveries: Family::default(),
            service_set_number: Gauge::default(),
            identity_updates: Family::default(),
            policy_number: Gauge::default(),
            tokens: Family::default(),
            key_fetches: Family::default(),
            plaintext: Family::default(),
            services: OnceLock::new(),
            live: Gauge::default(),
            handshaking: Gauge::default(),
            svid_not_after: Gauge::default(),
            ready: Gauge::default(),
        }
    }

    pub(crate) fn opened(&self) {
        self.opened.inc();
    }

    /// A caller that proved nothing was let in at a listener that is on its way to mutual TLS.
    pub(crate) fn plaintext(&self, listener: &str) {
        self.plaintext.get_or_create(&Listener { listener: listener.to_owned() }).inc();
    }

    pub(crate) fn closed(&self, cause: CloseCause, received: u64, sent: u64) {
        self.closed.get_or_create(&Cause { cause: cause.as_str() }).inc();
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }

    /// A request was let through, refused or could not be read.
    pub(crate) fn request(&self, decision: &'static str) {
        if decision == ALLOWED {
            self.allowed.inc();
        } else {
            self.requests.get_or_create(&Decided { decision }).inc();
        }
    }

    /// A request is over.
    pub(crate) fn answered(&self, status: Option<http::StatusCode>, ending: Ending) {
        self.answers.count(status, ending);
    }

    pub(crate) fn upstream_failed(&self, error: &'static str) {
        self.upstream_failures.get_or_create(&Error { error }).inc();
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_failures.inc();
    }

    pub(crate) fn policies_loaded(&self, good: bool) {
        self.policy_loads.get_or_create(&outcome(good)).inc();
    }

    /// The configuration was read again.
    pub(crate) fn config_loaded(&self, good: bool) {
        self.config_loads.get_or_create(&outcome(good)).inc();
    }

    /// The agent handed out a set.
    pub(crate) fn set_delivered(&self, kind: Kind, good: bool) {
        let deliveries = match kind {
            Kind::Policies => &self.policy_deliveries,
            Kind::Services => &self.service_deliveries,
        };
        deliveries.get_or_create(&outcome(good)).inc();
    }

    /// The number of the central set in force.
    pub(crate) fn set_number(&self, kind: Kind) -> &Gauge {
        match kind {
            Kind::Policies => &self.policy_number,
            Kind::Services => &self.service_set_number,
        }
    }

    pub(crate) fn identity_updated(&self, good: bool) {
        self.identity_updates.get_or_create(&outcome(good)).inc();
    }

    /// A request's token was verified or proved nothing; `result` is one of a fixed set of words.
    pub(crate) fn token(&self, result: &'static str) {
        self.tokens.get_or_create(&Judged { result }).inc();
    }

    pub(crate) fn keys_fetched(&self, good: bool) {
        self.key_fetches.get_or_create(&outcome(good)).inc();
    }

    /// Has what happens to calls of these services told, too.
    pub(crate) fn count_services(&self, services: &Arc<Services>) {
        // A proxy has one set of services.
        let _ = self.services.set(Arc::clone(services));
    }

    /// Writes everything in OpenMetrics text, the log's own counts included.
    pub(crate) fn encode(&self, log: &audit::Log, telemetry: &Telemetry) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("vouchsafe_proxy");
        self.register_traffic(&mut registry);
        self.register_updates(&mut registry);
        registry.register("connections", "Live connections", self.live.clone());
        registry.register("handshakes", "TLS handshakes in flight", self.handshaking.clone());
        registry.register(
            "svid_not_after_seconds",
            "When the SVID in use expires",
            self.svid_not_after.clone(),
        );
        registry.register("ready", "Whether the proxy is ready", self.ready.clone());
        registry.register_collector(Box::new(Recorded(log.clone())));
        registry.register_collector(Box::new(telemetry.written()));
        let (lines, spans) = (Counter::<u64>::default(), Counter::<u64>::default());
        let (lost_lines, lost_spans) = telemetry.lost();
        lines.inc_by(lost_lines);
        spans.inc_by(lost_spans);
        registry.register("access_log_dropped", "Lines of the access log that found no room", lines);
        registry.register("spans_lost", "Spans that reached no collector", spans);
        if let Some(services) = self.services.get() {
            registry.register_collector(Box::new(Counted(Arc::clone(services))));
        }
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }

    fn register_traffic(&self, registry: &mut Registry) {
        registry.register("connections_opened", "Connections let through", self.opened.clone());
        registry.register("connections_closed", "Connections ended, by cause", self.closed.clone());
        registry.register("received_bytes", "Bytes received from callers", self.received.clone());
        registry.register("sent_bytes", "Bytes sent to callers", self.sent.clone());
        registry.register("requests", "HTTP requests, by decision", self.requests.clone());
        let answers = self.answers.family.clone();
        registry.register("responses", "HTTP requests that are over, by outcome and status", answers);
        registry.register(
            "upstream_failures",
            "Requests and connections that got no answer",
            self.upstream_failures.clone(),
        );
        registry.register("accept_failures", "Failures to accept a connection", self.accept_failures.clone());
        registry.register("tokens", "Tokens of requests, by what they came to", self.tokens.clone());
        registry.register(
            "plaintext_callers",
            "Callers that proved nothing, let in where danger_permissive says so",
            self.plaintext.clone(),
        );
    }

    fn register_updates(&self, registry: &mut Registry) {
        registry.register("policy_loads", "Attempts to load the policies", self.policy_loads.clone());
        registry.register(
            "config_loads",
            "Attempts to read the configuration again",
            self.config_loads.clone(),
        );
        registry.register(
            "policy_deliveries",
            "Sets of policies that the agent handed out",
            self.policy_deliveries.clone(),
        );
        registry.register(
            "service_deliveries",
            "Sets of services from the agent, by what became of them",
            self.service_deliveries.clone(),
        );
        registry.register(
            "service_set_number",
            "The number of the central services in force",
            self.service_set_number.clone(),
        );
        registry.register(
            "policy_number",
            "The number of the central policies in force",
            self.policy_number.clone(),
        );
        registry.register(
            "identity_updates",
            "Answers of the identity source",
            self.identity_updates.clone(),
        );
        registry.register(
            "token_key_fetches",
            "Attempts to fetch the keys of token issuers",
            self.key_fetches.clone(),
        );
    }
}

fn outcome(good: bool) -> Outcome {
    Outcome { outcome: if good { "good" } else { "refused" } }
}

const ALLOWED: &str = "allowed";

/// What the audit log counted: the sums of its records.
#[derive(Debug)]
struct Recorded(audit::Log);

impl Collector for Recorded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.0.counts();
        let mut family = encoder.encode_descriptor(
            "audit_events",
            "Audit events, by decision and reason",
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        for count in counts {
            let labels = [("decision", count.decision.as_str()), ("reason", count.reason.unwrap_or(""))];
            ConstCounter::new(count.total).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
