//! Lets the requests of our own workload pass: what it may do is decided where it calls.

use std::sync::Arc;

use audit::{DenialId, Reason, Stage};

use crate::{
    http1::{Admission, Answered, Flaw, Gate, Marks, RequestLine},
    inbound::unread,
    live::Cut,
    record::{Refusal, Trace},
    shared::Shared,
    telemetry::{Watcher, Way},
};

pub(super) struct OutboundGate {
    shared: Arc<Shared>,
    trace: Trace,
    watcher: Watcher,
}

impl OutboundGate {
    pub(super) fn new(shared: Arc<Shared>, trace: Trace) -> Self {
        let watcher = Watcher::new(&shared.telemetry, trace.watched(Way::Outbound));
        Self { shared, trace, watcher }
    }
}

impl Gate for OutboundGate {
    fn admit(&self, line: &RequestLine) -> Admission {
        self.watcher.begin(line);
        Admission::Forward
    }

    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> DenialId {
        let http = line.map_or_else(|| unread(start), RequestLine::as_audit);
        let refusal = Refusal::plain(Stage::Request, Reason::MalformedRequest(flaw.code()));
        self.trace.denied(refusal.with_http(http))
    }

    fn mark(&self, line: &RequestLine) -> Result<Marks, DenialId> {
        Ok(Marks { set: Watcher::mark(line).into_iter().collect(), ..Marks::default() })
    }

    fn upstream_failed(&self, error: &'static str) {
        tracing::debug!(connection = %self.trace.id, error, "no response from the service");
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
        true
    }
}
