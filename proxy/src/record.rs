//! From what happened to a connection to the events of the audit log.
//!
//! `audit` and `policy` do not know each other: this is where a decision becomes evidence. Each event is handed
//! over before the client hears of what it tells.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use audit::{
    Close, CloseCause, ConnectionId, DenialId, Effect, Endpoint, Event, Kind, PolicyRef, Reason, Stage, Tls,
};
use identity::{Peer, SpiffeId};
use policy::DenyReason;

use crate::{
    activity::Expired,
    live::Cut,
    metrics::Metrics,
    telemetry::{Watched, Way},
};

/// What all events of one connection have in common.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    log: audit::Log,
    metrics: Arc<Metrics>,
    pub(crate) id: ConnectionId,
    opened: SystemTime,
    source: Endpoint,
    destination: Endpoint,
    tls: Option<Tls>,
}

/// A refusal, before it is recorded.
#[derive(Debug)]
pub(crate) struct Refusal<'a> {
    pub(crate) stage: Stage,
    pub(crate) reason: Reason,
    pub(crate) effect: Effect,
    pub(crate) http: Option<audit::Http>,
    pub(crate) jwt: Option<audit::Jwt>,
    pub(crate) rule: Option<&'a policy::RuleRef>,
    pub(crate) near_misses: &'a [policy::NearMiss],
    pub(crate) generation: Arc<str>,
}

impl<'a> Refusal<'a> {
    /// A refusal that no policy made.
    pub(crate) fn plain(stage: Stage, reason: Reason) -> Self {
        let (generation, near_misses) = (Arc::default(), &[][..]);
        let effect = Effect::Enforced;
        Self { stage, reason, effect, http: None, jwt: None, rule: None, near_misses, generation }
    }

    /// A refusal by policy.
    pub(crate) fn by_policy(stage: Stage, denial: &'a policy::Denial, generation: Arc<str>) -> Self {
        Self {
            stage,
            reason: reason(denial.reason),
            effect: Effect::Enforced,
            http: None,
            jwt: None,
            rule: denial.rule.as_ref(),
            near_misses: &denial.near_misses,
            generation,
        }
    }

    pub(crate) fn shadow(mut self) -> Self {
        self.effect = Effect::Shadow;
        self
    }

    pub(crate) fn with_http(mut self, http: audit::Http) -> Self {
        self.http = Some(http);
        self
    }

    /// Notes what the request's token says of itself.
    pub(crate) fn with_jwt(mut self, jwt: Option<audit::Jwt>) -> Self {
        self.jwt = jwt;
        self
    }
}

impl Trace {
    /// Begins the records of a connection that was just accepted.
    pub(crate) fn begin(log: audit::Log, metrics: Arc<Metrics>, source: Option<SocketAddr>) -> Self {
        let opened = SystemTime::now();
        let source = Endpoint {
            ip: source.map(|address| address.ip().to_canonical()),
            port: source.map(|address| address.port()),
            ..Endpoint::default()
        };
        let (id, destination) = (ConnectionId::new(opened), Endpoint::default());
        Self { log, metrics, id, opened, source, destination, tls: None }
    }

    /// Begins the records of a connection within this one, which is of the same caller.
    pub(crate) fn within(&self) -> Self {
        let opened = SystemTime::now();
        Self { id: ConnectionId::new(opened), opened, ..self.clone() }
    }

    /// Names the listener and the port of the workload.
    pub(crate) fn to(mut self, name: &Arc<str>, address: Option<SocketAddr>) -> Self {
        self.destination.name = Some(Arc::clone(name));
        self.destination.ip = address.map(|address| address.ip().to_canonical());
        self.destination.port = address.map(|address| address.port());
        self
    }

    /// Names the workload at the called end.
    pub(crate) fn for_workload(mut self, id: &SpiffeId) -> Self {
        self.destination.id = Some(Arc::from(id.as_str()));
        self
    }

    /// Names our own workload at the calling end.
    pub(crate) fn by_workload(mut self, id: &SpiffeId) -> Self {
        self.source.id = Some(Arc::from(id.as_str()));
        self
    }

    /// Notes that the caller proved to be `peer`.
    pub(crate) fn called_by(mut self, peer: &Peer, sni: Option<&str>) -> Self {
        self.source.id = Some(Arc::from(peer.id().as_str()));
        self.tls = Some(Tls { sni: sni.map(str::to_owned), ..tls(peer) });
        self
    }

    /// Notes that the called end proved to be `peer`.
    pub(crate) fn answered_by(mut self, peer: &Peer) -> Self {
        self.destination.id = Some(Arc::from(peer.id().as_str()));
        self.tls = Some(tls(peer));
        self
    }

    /// Returns whose requests are watched.
    pub(crate) fn watched(&self, way: Way) -> Watched {
        let peer = match way {
            Way::Inbound => self.source.id.clone(),
            Way::Outbound => self.destination.id.clone(),
        };
        let service = self.destination.name.clone().unwrap_or_default();
        Watched { way, service, peer, source: self.source.ip, connection: self.id }
    }

    pub(crate) fn opened_at(&self) -> SystemTime {
        self.opened
    }

    /// Records that the connection was let through.
    pub(crate) fn opened(&self, rule: Option<&policy::RuleRef>, generation: Arc<str>) {
        let mut event = self.event(Kind::Opened, Stage::Connect);
        event.policy = rule.map(policy_ref);
        event.generation = generation;
        self.log.open(event);
        self.metrics.opened();
    }

    /// Records the end of a connection that was let through.
    pub(crate) fn closed(&self, (bytes_in, bytes_out): (u64, u64), cause: CloseCause) {
        let duration = self.opened.elapsed().unwrap_or_default();
        let close = Close { bytes_in, bytes_out, duration, cause };
        self.log.open(self.event(Kind::Closed(close), Stage::Connect));
        self.metrics.closed(cause, bytes_in, bytes_out);
    }

    /// Records a refusal and returns the name by which the refused may ask about it.
    pub(crate) fn denied(&self, refusal: Refusal<'_>) -> DenialId {
        let now = SystemTime::now();
        let id = DenialId::new(now);
        let denial = audit::Denial { id, reason: refusal.reason, effect: refusal.effect };
        tracing::debug!(
            connection = %self.id, denial = %id, reason = refusal.reason.as_str(), code = refusal.reason.code(),
            stage = refusal.stage.as_str(), "access refused"
        );
        let mut event = self.event(Kind::Denied(denial), refusal.stage);
        event.time = now;
        event.http = refusal.http;
        event.jwt = refusal.jwt;
        event.policy = refusal.rule.map(policy_ref);
        event.generation = refusal.generation;
        event.near_misses = refusal.near_misses.iter().map(near_miss).collect();
        self.log.open(event);
        id
    }

    /// Records why a live connection is cut, where that is a refusal.
    pub(crate) fn cut(&self, cut: &Cut) {
        match cut {
            Cut::Policy { denial, generation } => {
                self.denied(Refusal::by_policy(Stage::Reevaluate, denial, Arc::clone(generation)));
            }
            Cut::Trust | Cut::Identity => {
                self.denied(Refusal::plain(Stage::Reevaluate, Reason::TrustWithdrawn));
            }
            Cut::Expired(expired @ (Expired::Head | Expired::Stalled)) => {
                self.denied(Refusal::plain(Stage::Reevaluate, Reason::LimitExceeded(expired.code())));
            }
            // Nobody was refused anything: the end itself is on record.
            Cut::Expired(
                Expired::Idle | Expired::HalfClosed | Expired::Lingering | Expired::Peer | Expired::Age,
            ) => {}
            Cut::Drained => {}
        }
    }

    fn event(&self, kind: Kind, stage: Stage) -> Event {
        let mut event = Event::new(SystemTime::now(), kind, stage, self.id);
        event.source = self.source.clone();
        event.destination = self.destination.clone();
        event.tls = self.tls.clone();
        event
    }
}

/// Returns the cause of the end that a cut is.
pub(crate) fn cause(cut: &Cut) -> CloseCause {
    match cut {
        Cut::Policy { .. } => CloseCause::PolicyChanged,
        Cut::Trust | Cut::Identity => CloseCause::TrustWithdrawn,
        Cut::Expired(Expired::Lingering) => CloseCause::Finished,
        Cut::Expired(Expired::Peer) => CloseCause::PeerExpired,
        Cut::Expired(_) => CloseCause::TimedOut,
        Cut::Drained => CloseCause::Draining,
    }
}

fn reason(reason: DenyReason) -> Reason {
    match reason {
        DenyReason::ExplicitDeny => Reason::ExplicitDeny,
        DenyReason::NoAllowMatched => Reason::NoAllowMatched,
        DenyReason::NoPolicy => Reason::NoPolicy,
        DenyReason::Unauthenticated => Reason::Unauthenticated,
        DenyReason::PolicyUnavailable => Reason::PolicyUnavailable,
        DenyReason::JwtInvalid => Reason::JwtInvalid,
        DenyReason::MalformedRequest => Reason::MalformedRequest("target"),
    }
}

fn policy_ref(rule: &policy::RuleRef) -> PolicyRef {
    PolicyRef {
        policy: Arc::clone(&rule.policy),
        rule: Arc::clone(&rule.rule),
        file: Arc::clone(&rule.file),
        line: rule.line,
    }
}

fn near_miss(miss: &policy::NearMiss) -> audit::NearMiss {
    audit::NearMiss {
        rule: policy_ref(&miss.rule),
        failed: miss.failed.as_str().to_owned(),
        wanted: miss.wanted.clone(),
        found: miss.found.clone(),
    }
}

fn tls(peer: &Peer) -> Tls {
    Tls {
        version: "1.3",
        sni: None,
        certificate: Some(audit::Certificate {
            issuer: Arc::from(peer.id().trust_domain().id()),
            serial: Arc::from(peer.serial()),
            fingerprint: Arc::from(peer.fingerprint()),
        }),
    }
}
