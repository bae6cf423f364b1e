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
        match policies.at_connect(&connection_of(&self.key, &self.peer)) {
            AtConnect::Deny(denial) => Decision::Deny(denial),
            AtConnect::Residual(residual) => {
                let decision = residual.decide(request, SystemTime::now());
                *kept = Some((Arc::clone(effective), residual));
                decision
            }
        }
    }

    fn refuse(&self, effective: &Effective, line: &RequestLine, denial: &Denial) -> Admission {
        self.shared.metrics.request("denied");
        let generation = Arc::clone(&effective.generation);
        let refusal = Refusal::by_policy(Stage::Request, denial, generation).with_http(line.as_audit());
        Admission::Refuse(self.trace.denied(refusal))
    }
}

impl Gate for InboundGate {
    fn admit(&self, line: &RequestLine, wants: Wants) -> Admission {
        let effective = self.shared.state.now();
        let (Some(request), Wants::Response) = (line.as_policy(), wants) else {
            // No rule can speak of a tunnel or another protocol: none allows it.
            let denial = Denial { reason: DenyReason::NoAllowMatched, ..unavailable() };
            return self.refuse(&effective, line, &denial);
        };
        match self.decide(&effective, &request) {
            Decision::Deny(denial) => {
                let connection = connection_of(&self.key, &self.peer);
                let denial = explained(&effective, &connection, Traffic::HttpRequest(request), denial);
                self.refuse(&effective, line, &denial)
            }
            Decision::Allow(allowed) => {
                if let Some(denial) = &allowed.shadow {
                    let generation = Arc::clone(&effective.generation);
                    let refusal = Refusal::by_policy(Stage::Request, denial, generation).shadow();
                    self.trace.denied(refusal.with_http(line.as_audit()));
                }
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
