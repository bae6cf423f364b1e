//! Answers the one request of a caller whom no rule could allow, so that it gets a denial id to ask about.
//!
//! Such a connection has exactly one denial on record: that of its request, or that of the connection where no
//! request came.

use std::sync::{Arc, Mutex, PoisonError};

use audit::{DenialId, Stage};
use policy::{Denial, Traffic};

use super::{explained, gate::InboundGate};
use crate::{
    http1::{Admission, Answered, Flaw, Gate, Marks, RequestLine},
    live::Cut,
    record::Refusal,
    state::Effective,
};

/// Refuses whatever comes.
pub(super) struct RefusedGate {
    gate: InboundGate,
    /// The refusal of the connection, and the snapshot that made it.
    denial: Denial,
    effective: Arc<Effective>,
    told: Mutex<Option<DenialId>>,
}

impl RefusedGate {
    pub(super) fn new(gate: InboundGate, denial: Denial, effective: Arc<Effective>) -> Self {
        Self { gate, denial, effective, told: Mutex::default() }
    }

    /// Puts the denial on record unless one is.
    fn once(&self, record: impl FnOnce() -> DenialId) -> DenialId {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(record)
    }

    fn without_request(&self) -> DenialId {
        self.once(|| {
            let connection = self.gate.connection();
            let denial =
                explained(&self.effective, &connection, Traffic::HttpConnection, self.denial.clone());
            let generation = Arc::clone(&self.effective.generation);
            self.gate.trace().denied(Refusal::by_policy(Stage::Connect, &denial, generation))
        })
    }
}

impl Gate for RefusedGate {
    fn admit(&self, line: &RequestLine) -> Admission {
        self.gate.watch(line);
        Admission::Refuse(self.once(|| match self.gate.judge(line) {
            Admission::Refuse(denial) => denial,
            // Policies that came since would allow it; they speak for the next connection.
            Admission::Forward => self.gate.refuse(&self.effective, line, &self.denial),
        }))
    }

    fn malformed(&self, flaw: Flaw, start: &[u8], line: Option<&RequestLine>) -> DenialId {
        self.once(|| self.gate.malformed(flaw, start, line))
    }

    fn mark(&self, line: &RequestLine) -> Result<Marks, DenialId> {
        // Reached by no request: none is forwarded.
        Err(self.once(|| self.gate.refuse(&self.effective, line, &self.denial)))
    }

    fn upstream_failed(&self, _: &'static str) {}

    fn answered(&self, answered: &Answered<'_>) {
        self.gate.answered(answered);
    }

    fn cut(&self, _: &Cut) {
        self.without_request();
    }

    fn explains(&self) -> bool {
        false
    }
}

impl Drop for RefusedGate {
    fn drop(&mut self) {
        self.without_request();
    }
}
