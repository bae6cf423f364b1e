//! Decides about the requests of one inbound connection.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use audit::{DenialId, Reason, Stage};
use http::HeaderMap;
use identity::Peer;
use policy::{AtConnect, Decision, Denial, DenyReason, Residual, Traffic};

use super::{connection_of, explained, unavailable};
use crate::{
    http1::{Admission, Flaw, Gate, RequestLine, Wants, set_client_cert},
    live::{Cut, Key},
    record::{Refusal, Trace},
    shared::Shared,
    state::Effective,
};

pub(super) struct InboundGate {
    shared: Arc<Shared>,
    trace: Trace,
    peer: Peer,
    key: Key,
    /// What the connection left over to decide about, and the snapshot it was decided under.
    residual: Mutex<Option<(Arc<Effective>, Residual)>>,
}

impl InboundGate {
    pub(super) fn new(shared: Arc<Shared>, trace: Trace, peer: Peer, key: Key) -> Self {
        Self { shared, trace, peer, key, residual: Mutex::new(None) }
    }

    /// Decides under the snapshot in force. The connection's part is decided once for each snapshot.
    fn decide(&self, effective: &Arc<Effective>, request: &policy::Request<'_>) -> Decision {
        let Some(policies) = &effective.policies else { return Decision::Deny(unavailable()) };
        let mut kept = self.residual.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((under, residual)) = &*kept
            && Arc::ptr_eq(under, effective)
        {
            return residual.decide(request, SystemTime::now());
        }
        match policies.at_connect(&self.connection()) {
            AtConnect::Deny(denial) => self.decide_whole(policies, request, denial),
            AtConnect::Residual(residual) => {
                let decision = residual.decide(request, SystemTime::now());
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
        connection_of(&self.key, &self.peer)
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Puts the refusal of a request by policy on record.
    pub(super) fn refuse(&self, effective: &Effective, line: &RequestLine, denial: &Denial) -> DenialId {
        self.shared.metrics.request("denied");
        let generation = Arc::clone(&effective.generation);
        let refusal = Refusal::by_policy(Stage::Request, denial, generation).with_http(line.as_audit());
        self.trace.denied(refusal)
    }

    /// No rule can speak of a tunnel: none allows it. What rules the whole connection out is named all the same.
    fn refuse_tunnel(&self, effective: &Effective, line: &RequestLine) -> DenialId {
        match super::at_connect(effective, &self.connection()) {
            Err(denial) if denial.reason != DenyReason::NoAllowMatched => {
                self.refuse(effective, line, &denial)
            }
            Ok(()) | Err(_) => self.not_permitted(line, "connect"),
        }
    }

    /// Puts on record that a request asks for what no rule can grant.
    fn not_permitted(&self, line: &RequestLine, code: &'static str) -> DenialId {
        self.shared.metrics.request("denied");
        let refusal = Refusal::plain(Stage::Request, Reason::NotPermitted(code));
        self.trace.denied(refusal.with_http(line.as_audit()))
    }

    /// Decides about a request; a refusal is on record before this returns its name.
    pub(super) fn refusal(&self, line: &RequestLine, wants: Wants) -> Option<DenialId> {
        let effective = self.shared.state.now();
        let Some(request) = line.as_policy() else {
            return Some(self.refuse_tunnel(&effective, line));
        };
        match (self.decide(&effective, &request), wants.beyond()) {
            (Decision::Allow(_), Some(code)) => Some(self.not_permitted(line, code)),
            (Decision::Deny(denial), Some(code)) if denial.reason == DenyReason::NoAllowMatched => {
                Some(self.not_permitted(line, code))
            }
            (Decision::Deny(denial), _) => {
                let traffic = Traffic::HttpRequest(request);
                let denial = explained(&effective, &self.connection(), traffic, denial);
                Some(self.refuse(&effective, line, &denial))
            }
            (Decision::Allow(allowed), None) => {
                if let Some(denial) = &allowed.shadow {
                    let generation = Arc::clone(&effective.generation);
                    let refusal = Refusal::by_policy(Stage::Request, denial, generation).shadow();
                    self.trace.denied(refusal.with_http(line.as_audit()));
                }
                None
            }
        }
    }
}

impl Gate for InboundGate {
    fn admit(&self, line: &RequestLine, wants: Wants) -> Admission {
        match self.refusal(line, wants) {
            Some(denial) => Admission::Refuse(denial),
            None => {
                self.shared.metrics.request("allowed");
                Admission::Forward
            }
        }
    }

    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> DenialId {
        self.shared.metrics.request("malformed");
        let http = line.map_or_else(|| unread(start), RequestLine::as_audit);
        let refusal = Refusal::plain(Stage::Request, Reason::MalformedRequest(flaw.code()));
        self.trace.denied(refusal.with_http(http))
    }

    fn mark(&self, headers: &mut HeaderMap) {
        if let Some(identity) = &self.shared.state.now().identity {
            set_client_cert(headers, identity.id(), &self.peer);
        }
    }

    fn upstream_failed(&self, error: &'static str) {
        tracing::debug!(connection = %self.trace.id, error, "no response from the application");
        self.shared.metrics.upstream_failed(error);
    }

    fn cut(&self, cut: &Cut) {
        self.trace.cut(cut);
    }

    fn explains(&self) -> bool {
        false
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
