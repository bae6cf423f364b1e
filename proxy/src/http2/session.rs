//! What the requests of one connection share, and how one begins: read, entered, decided, cleaned.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Request, StatusCode, request::Parts};

use super::{
    exchange::{Exchange, Outgoing},
    head,
    pool::Unreached,
    pump::Trailers,
    reply::{self, Form},
};
use crate::{
    http1::{Admission, Answered, Flaw, Gate, HeadLimits, Outcome, RequestLine},
    live::{Cut, Live},
    outbound::{Onward, Way},
};

/// What the requests of one connection share.
pub(crate) struct Session {
    gate: Box<dyn Gate>,
    onward: Onward,
    live: Arc<Live>,
    limits: HeadLimits,
    /// How long a request may wait for somebody who should not keep it waiting.
    stall: Duration,
    /// Requests that so wait.
    waiting: AtomicUsize,
}

/// What bounds the requests of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) heads: HeadLimits,
    /// How long a body may stand still.
    pub(crate) stall: Duration,
}

impl Session {
    pub(crate) fn new(gate: impl Gate, onward: Onward, live: Arc<Live>, bounds: Bounds) -> Self {
        let (limits, stall) = (bounds.heads, bounds.stall);
        Self { gate: Box::new(gate), onward, live, limits, stall, waiting: AtomicUsize::new(0) }
    }

    pub(super) fn stall(&self) -> Duration {
        self.stall
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Begins the way of a request.
    pub(super) fn way(&self, line: &RequestLine) -> Result<Way, Unreached> {
        self.onward.begin(line, self.live.key.source).map_err(|error| Unreached::from(&error))
    }

    pub(super) fn limits(&self) -> HeadLimits {
        self.limits
    }

    pub(super) fn record_cut(&self, cut: &Cut) {
        self.gate.cut(cut);
    }

    /// Puts on record that a message or the connection broke the rules of the protocol.
    pub(super) fn record_flaw(&self, flaw: Flaw) {
        self.gate.malformed(flaw, &[], None);
    }

    /// Counts the requests that wait for somebody who should not keep them waiting.
    pub(super) fn waiting(&self) -> &AtomicUsize {
        &self.waiting
    }

    pub(super) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Begins a request. None where it is answered already.
    pub(super) fn begin(
        self: &Arc<Self>,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Option<Exchange> {
        let begun = Instant::now();
        let (mut parts, body) = request.into_parts();
        let form = Form::of(&parts.method, &parts.headers);
        let line = match head::read(&mut parts, self.limits) {
            Ok(line) => Arc::new(line),
            Err(flaw) => {
                let start = format!("{} {}", parts.method, parts.uri.path()).into_bytes();
                self.flawed(&mut respond, form, flaw, &start, None);
                return None;
            }
        };
        // Registered first, decided second: a policy pushed in between finds the request.
        let entered = self.live.enter(Arc::clone(&line));
        let refused = match self.gate.admit(&line) {
            Admission::Forward => None,
            Admission::Refuse(denial) => Some((StatusCode::FORBIDDEN, denial)),
        };
        if let Some((status, denial)) = refused {
            reply::refuse(&mut respond, form, status, denial);
            self.answered(&Tally::refused(status, begun), &line);
            return None;
        }
        match self.prepare(parts, &line) {
            Ok((request, trailers)) => {
                let body = (!body.is_end_stream()).then_some(body);
                let outgoing = Outgoing { request, body, trailers };
                Some(Exchange::new(Arc::clone(self), (entered, line, begun), (respond, form), outgoing))
            }
            Err(Unready::Withdrawn(denial)) => {
                reply::refuse(&mut respond, form, StatusCode::FORBIDDEN, denial);
                self.answered(&Tally::refused(StatusCode::FORBIDDEN, begun), &line);
                None
            }
            Err(Unready::Flawed(flaw)) => {
                let start = line.path().as_bytes().to_vec();
                self.flawed(&mut respond, form, flaw, &start, Some(&line));
                self.answered(&Tally::refused(flaw.status(), begun), &line);
                None
            }
        }
    }

    /// Tells of a request that is over.
    pub(super) fn answered(&self, tally: &Tally, line: &RequestLine) {
        let &Tally { begun, status, grpc_status, received, sent, outcome } = tally;
        let took = begun.elapsed();
        self.gate.answered(&Answered { line, status, grpc_status, took, received, sent, outcome });
    }

    /// Makes the request that goes out, from the structure that was decided about.
    fn prepare(&self, mut parts: Parts, line: &RequestLine) -> Result<(Request<()>, Trailers), Unready> {
        let marks = self.gate.mark(line).map_err(Unready::Withdrawn)?;
        let trailers = if marks.drop_trailers { Trailers::None } else { Trailers::All };
        marks.apply(&mut parts.headers);
        Ok((head::forwarded(parts, line).map_err(Unready::Flawed)?, trailers))
    }

    /// Makes the request once more, for another connection. None where it may not be sent any more.
    pub(super) fn again(&self, line: &RequestLine, protocol: Option<&str>) -> Option<Request<()>> {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = line.method.clone();
        parts.headers = line.fields().map()?.clone();
        parts.headers.remove(http::header::HOST);
        if let Some(protocol) = protocol {
            parts.extensions.insert(h2::ext::Protocol::from(protocol));
        }
        self.prepare(parts, line).ok().map(|(request, _)| request)
    }

    /// Tells the caller that its request got no response.
    pub(super) fn unanswered(&self, respond: &mut SendResponse<Bytes>, form: Form, unreached: Unreached) {
        self.gate.upstream_failed(unreached.error);
        match unreached.denial {
            Some(denial) if self.gate.explains() => reply::refuse(respond, form, unreached.status, denial),
            Some(_) | None => {
                let error = if self.gate.explains() { unreached.error } else { "unavailable" };
                reply::fail(respond, form, unreached.status, error);
            }
        }
    }

    /// Notes that a response broke off.
    pub(super) fn broken_off(&self, error: &'static str) {
        self.gate.upstream_failed(error);
    }

    fn flawed(
        &self,
        respond: &mut SendResponse<Bytes>,
        form: Form,
        flaw: Flaw,
        start: &[u8],
        line: Option<&RequestLine>,
    ) {
        let denial = self.gate.malformed(flaw, start, line);
        reply::refuse(respond, form, flaw.status(), denial);
    }
}

/// How a request went so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tally {
    begun: Instant,
    pub(super) status: Option<StatusCode>,
    pub(super) grpc_status: Option<u32>,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) outcome: Outcome,
}

impl Tally {
    pub(super) fn begin(begun: Instant) -> Self {
        let outcome = Outcome::Broken;
        Self { begun, status: None, grpc_status: None, received: 0, sent: 0, outcome }
    }

    fn refused(status: StatusCode, begun: Instant) -> Self {
        Self { status: Some(status), outcome: Outcome::Refused, ..Self::begin(begun) }
    }
}

/// Why a request that was let through is not sent.
enum Unready {
    /// It has no form to be sent in.
    Flawed(Flaw),
    /// What made it pass is gone.
    Withdrawn(audit::DenialId),
}

/// How a request that a new policy forbids breaks off: gRPC reads it as a denial of permission.
pub(super) const FORBIDDEN: Reason = Reason::INADEQUATE_SECURITY;
