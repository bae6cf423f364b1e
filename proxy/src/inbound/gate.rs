//! Decides about the requests of one inbound connection.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use audit::{DenialId, Reason, Stage};
use identity::Peer;
use policy::{AtConnect, Decision, Denial, RequestKind, Residual, Traffic};

use super::{beyond, explained, unavailable};
use crate::{
    clock,
    http1::{Admission, Answered, Flaw, Gate, Marks, RequestLine, client_cert},
    jwt::Presented,
    live::{Cut, Key},
    record::{Refusal, Trace},
    shared::Shared,
    state::Effective,
    telemetry::{Watcher, Way},
};

pub(super) struct InboundGate {
    shared: Arc<Shared>,
    trace: Trace,
    peer: Option<Peer>,
    key: Key,
    /// What the connection left over to decide about, and the snapshot it was decided under.
    residual: Mutex<Option<(Arc<Effective>, Residual)>>,
    watcher: Watcher,
}

impl InboundGate {
    pub(super) fn new(shared: Arc<Shared>, trace: Trace, peer: Option<Peer>, key: Key) -> Self {
        let watcher = Watcher::new(&shared.telemetry, trace.watched(Way::Inbound));
        Self { shared, trace, peer, key, residual: Mutex::new(None), watcher }
    }

    /// Decides under the snapshot in force. The connection's part is decided once for each snapshot.
    fn decide(&self, effective: &Arc<Effective>, request: &policy::Request<'_>) -> Decision {
        let Some(policies) = &effective.policies else { return Decision::Deny(unavailable()) };
        let mut kept = self.residual.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((under, residual)) = &*kept
            && Arc::ptr_eq(under, effective)
        {
            return residual.decide(request, clock::decided_at());
        }
        match policies.at_connect(&self.connection()) {
            AtConnect::Deny(denial) => self.decide_whole(policies, request, denial),
            AtConnect::Residual(residual) => {
                let decision = residual.decide(request, clock::decided_at());
                *kept = Some((Arc::clone(effective), residual));
                decision
            }
        }
    }

    /// Says of a request that the connection rules out what is said of the request itself: a deny rule may speak
    /// of it.
    fn decide_whole(
        &self,
        policies: &policy::WorkloadPolicies,
        request: &policy::Request<'_>,
        denial: Denial,
    ) -> Decision {
        match policies.decide_http(&self.connection(), request) {
            Decision::Deny(denial) => Decision::Deny(denial),
            Decision::Allow(_) => Decision::Deny(denial),
        }
    }

    pub(super) fn connection(&self) -> policy::Connection<'_> {
        self.key.as_policy(clock::decided_at())
    }

    /// Notes that a request is being answered.
    pub(super) fn watch(&self, line: &RequestLine) {
        self.watcher.begin(line);
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Puts the refusal of a request by policy on record.
    pub(super) fn refuse(&self, effective: &Effective, line: &RequestLine, denial: &Denial) -> DenialId {
        self.shared.metrics.request("denied");
        let generation = Arc::clone(&effective.generation);
        self.record(Refusal::by_policy(Stage::Request, denial, generation), line)
    }

    fn refuse_plainly(&self, reason: Reason, line: &RequestLine) -> DenialId {
        self.shared.metrics.request("denied");
        self.record(Refusal::plain(Stage::Request, reason), line)
    }

    fn record(&self, refusal: Refusal<'_>, line: &RequestLine) -> DenialId {
        let jwt = line.presented().and_then(|presented| presented.as_audit());
        self.trace.denied(refusal.with_http(line.as_audit()).with_jwt(jwt))
    }

    /// Finds out what the request's token proves, once for the request.
    fn present(&self, effective: &Effective, line: &RequestLine) -> Arc<Presented> {
        let presented = Arc::new(effective.tokens.judge(line, SystemTime::now()));
        if let Some(outcome) = presented.outcome() {
            self.shared.metrics.token(outcome);
        }
        line.keep_presented(Arc::clone(&presented));
        presented
    }

    /// Decides about a request; a refusal is on record before this returns its name.
    pub(super) fn judge(&self, line: &RequestLine) -> Admission {
        let effective = self.shared.state.now();
        let presented = self.present(&effective, line);
        let request = line.as_policy(&presented);
        match self.decide(&effective, &request) {
            Decision::Deny(denial) => {
                let traffic = Traffic::HttpRequest(request);
                let denial = explained(&effective, &self.connection(), traffic, denial);
                Admission::Refuse(self.refuse(&effective, line, &denial))
            }
            Decision::Allow(allowed) => {
                // A rule about ports or names means other places than these.
                if is_tunnel(line) && beyond::is_forbidden(&line.host, self.key.destination) {
                    let reason = Reason::NotPermitted("connect_destination");
                    return Admission::Refuse(self.refuse_plainly(reason, line));
                }
                if let Some(denial) = &allowed.shadow {
                    let generation = Arc::clone(&effective.generation);
                    self.record(Refusal::by_policy(Stage::Request, denial, generation).shadow(), line);
                }
                Admission::Forward
            }
        }
    }
}

impl Gate for InboundGate {
    fn admit(&self, line: &RequestLine) -> Admission {
        self.watch(line);
        let admission = self.judge(line);
        if admission == Admission::Forward {
            self.shared.metrics.request("allowed");
        }
        admission
    }

    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> DenialId {
        self.shared.metrics.request("malformed");
        let http = line.map_or_else(|| unread(start), RequestLine::as_audit);
        let refusal = Refusal::plain(Stage::Request, Reason::MalformedRequest(flaw.code()));
        self.trace.denied(refusal.with_http(http))
    }

    fn mark(&self, line: &RequestLine) -> Result<Marks, DenialId> {
        let effective = self.shared.state.now();
        // Our identity may have been withdrawn since the decision: who called whom cannot be said then.
        let withdrawn = || self.refuse_plainly(Reason::TrustWithdrawn, line);
        let identity = effective.identity.as_ref().ok_or_else(withdrawn)?;
        // Trailers come after the decision, and only those that are announced go on. Some applications take them for
        // header fields.
        let drop_trailers = effective.policies.as_ref().is_none_or(policy::WorkloadPolicies::judges_headers);
        let strip = match line.presented().map(|presented| &**presented) {
            Some(Presented::Verified(proven)) => proven.strip().cloned(),
            Some(Presented::Absent | Presented::Invalid(_)) | None => None,
        };
        // Who proved nothing is not named: what the caller says of itself was removed before.
        let set = match &self.peer {
            Some(peer) => Some(client_cert(identity.id(), peer).ok_or_else(withdrawn)?),
            None => None,
        };
        let set = set.into_iter().chain(Watcher::mark(line)).collect();
        Ok(Marks { set, strip, drop_trailers })
    }

    fn upstream_failed(&self, error: &'static str) {
        tracing::debug!(connection = %self.trace.id, error, "no response from the application");
        self.shared.metrics.upstream_failed(error);
    }

    fn answered(&self, answered: &Answered<'_>) {
        self.shared.metrics.answered(answered.status, answered.outcome);
        self.watcher.end(answered);
    }

    fn cut(&self, cut: &Cut) {
        self.trace.cut(cut);
    }

    fn explains(&self) -> bool {
        false
    }
}

/// Whether a request asks for a connection to its host.
fn is_tunnel(line: &RequestLine) -> bool {
    match line.kind() {
        RequestKind::Connect { .. } => true,
        RequestKind::Plain | RequestKind::Upgrade { .. } => false,
    }
}

/// What a record can show of a request that could not be read: how it began.
pub(crate) fn unread(start: &[u8]) -> audit::Http {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let method = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    let path_raw = line.split(|&byte| byte == b' ').nth(1);
    let path_raw =
        path_raw.map(|target| target.split(|&byte| byte == b'?').next().unwrap_or_default().to_vec());
    audit::Http { method: String::from_utf8_lossy(method).into_owned(), path_raw, ..audit::Http::default() }
}
