//! One request and its response: read, decided, cleaned, forwarded, answered.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::{Request, Response, StatusCode, Version, header::TRANSFER_ENCODING, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;

use super::gate::Outcome;
use super::{
    body::{Exchange, ReplyBody, RequestBody},
    flaw::Flaw,
    gate::{Admission, Gate},
    headers,
    io::{Report, Wire},
    line::RequestLine,
    pool::Pool,
    reply::{self, After},
    upstream::{DialError, SendError, Upstream},
};
use crate::live::{Cut, Live};

/// What the requests of one connection share.
pub(crate) struct Session {
    gate: Arc<dyn Gate>,
    pool: Arc<Pool>,
    live: Arc<Live>,
    wire: Arc<Wire>,
    requests: AtomicU64,
}

impl Session {
    pub(crate) fn new(gate: impl Gate, pool: Arc<Pool>, live: Arc<Live>) -> Self {
        let wire = Arc::new(Wire::default());
        Self { gate: Arc::new(gate), pool, live, wire, requests: AtomicU64::new(0) }
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(super) fn record_cut(&self, cut: &Cut) {
        self.gate.cut(cut);
    }

    /// Puts a flaw on record that no answer has told of.
    pub(super) fn record_flaw(&self) {
        if let Some(report) = self.wire.take_report() {
            self.gate.malformed(report.flaw, &report.start, None);
        }
    }

    /// Answers one request.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<ReplyBody> {
        let mut exchange = Exchange::begin(&self.live, &self.gate);
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(report) = self.report_of(number) {
            return self.flawed(&report, None, exchange);
        }
        let (mut parts, body) = request.into_parts();
        let line = match RequestLine::read(&mut parts) {
            Ok(line) => Arc::new(line),
            Err(flaw) => {
                let start = format!("{} {}", parts.method, parts.uri).into_bytes();
                return self.flawed(&Report { flaw, request: number, start }, None, exchange);
            }
        };
        // Registered first, decided second: a policy pushed in between finds the request.
        exchange.enter(&line);
        // An unread body is never taken for the next request: the connection ends with the answer.
        let goes_on = body.is_end_stream() && !self.live.is_refused();
        let after = if goes_on { After::KeepAlive } else { After::Close };
        match self.gate.admit(&line) {
            Admission::Forward => {}
            Admission::Refuse(denial) => {
                return reply::refused(StatusCode::FORBIDDEN, denial, after, exchange);
            }
            Admission::Unsupported(denial) => {
                return reply::refused(StatusCode::NOT_IMPLEMENTED, denial, After::Close, exchange);
            }
        }
        match self.prepare(parts, body, &line) {
            Ok(request) => self.forward(request, number, &line, exchange).await,
            Err(Unready::Withdrawn(denial)) => {
                reply::refused(StatusCode::FORBIDDEN, denial, After::Close, exchange)
            }
            Err(Unready::Flawed(flaw)) => {
                let start = line.path().as_bytes().to_vec();
                self.flawed(&Report { flaw, request: number, start }, Some(&line), exchange)
            }
        }
    }

    /// Makes the request that goes out, from the structure that was decided about.
    fn prepare(
        &self,
        mut parts: Parts,
        body: Incoming,
        line: &RequestLine,
    ) -> Result<Request<RequestBody>, Unready> {
        parts.headers.remove(TRANSFER_ENCODING);
        self.gate.mark(line).map_err(Unready::Withdrawn)?.apply(&mut parts.headers);
        parts.uri = line.forwarded().map_err(Unready::Flawed)?;
        parts.version = Version::HTTP_11;
        Ok(Request::from_parts(parts, RequestBody::new(body)))
    }

    async fn forward(
        &self,
        request: Request<RequestBody>,
        number: u64,
        line: &RequestLine,
        exchange: Exchange,
    ) -> Response<ReplyBody> {
        match self.send(request).await {
            Ok((response, upstream)) => self.pass_on(response, upstream, exchange),
            Err(failure) => match self.report_of(number) {
                // The request's own body was at fault.
                Some(report) => self.flawed(&report, Some(line), exchange),
                None => self.unanswered(&failure, exchange),
            },
        }
    }

    /// Sends on a kept connection, or on a new one where the kept one ended before anything was sent on it.
    /// A request that may have been processed is never sent twice.
    async fn send(&self, request: Request<RequestBody>) -> Result<(Response<Incoming>, Upstream), Failure> {
        let mut upstream = self.pool.get().await.map_err(Failure::Dial)?;
        let request = match upstream.send(request).await {
            Ok(response) => return Ok((response, upstream)),
            Err(SendError::Unsent(request)) => *request,
            Err(SendError::Broken) => return Err(Failure::Broken),
            Err(SendError::Withdrawn) => return Err(Failure::Withdrawn),
        };
        let mut upstream = self.pool.connect().await.map_err(Failure::Dial)?;
        match upstream.send(request).await {
            Ok(response) => Ok((response, upstream)),
            Err(SendError::Unsent(_) | SendError::Broken) => Err(Failure::Broken),
            Err(SendError::Withdrawn) => Err(Failure::Withdrawn),
        }
    }

    fn pass_on(
        &self,
        response: Response<Incoming>,
        upstream: Upstream,
        mut exchange: Exchange,
    ) -> Response<ReplyBody> {
        let (mut parts, body) = response.into_parts();
        exchange.answer(parts.status, Outcome::Finished);
        headers::clean_response(&mut parts.headers);
        parts.headers.remove(TRANSFER_ENCODING);
        parts.version = Version::HTTP_11;
        let body = ReplyBody::forwarded(body, upstream, Arc::clone(&self.pool), exchange);
        Response::from_parts(parts, body)
    }

    fn report_of(&self, number: u64) -> Option<Report> {
        let report = self.wire.report().filter(|report| report.request == number)?;
        // Who answers it records it.
        self.wire.take_report();
        Some(report)
    }

    fn flawed(&self, report: &Report, line: Option<&RequestLine>, exchange: Exchange) -> Response<ReplyBody> {
        let denial = self.gate.malformed(report.flaw, &report.start, line);
        reply::refused(report.flaw.status(), denial, After::Close, exchange)
    }

    fn unanswered(&self, failure: &Failure, exchange: Exchange) -> Response<ReplyBody> {
        let (status, error, denial) = failure.told();
        self.gate.upstream_failed(error);
        match denial {
            Some(denial) if self.gate.explains() => reply::refused(status, denial, After::Close, exchange),
            Some(_) | None => {
                let error = if self.gate.explains() { error } else { "unavailable" };
                reply::failed(status, error, After::Close, exchange)
            }
        }
    }
}

/// Why a request that was let through is not sent.
enum Unready {
    /// It has no form to be sent in.
    Flawed(Flaw),
    /// What made it pass is gone.
    Withdrawn(audit::DenialId),
}

/// Why a request got no response.
enum Failure {
    Dial(DialError),
    Broken,
    Withdrawn,
}

impl Failure {
    fn told(&self) -> (StatusCode, &'static str, Option<audit::DenialId>) {
        match self {
            Self::Dial(DialError::NoIdentity) => (StatusCode::SERVICE_UNAVAILABLE, "no_identity", None),
            Self::Dial(DialError::Connect(_)) => (StatusCode::BAD_GATEWAY, "connect_failed", None),
            Self::Dial(DialError::TimedOut) => (StatusCode::GATEWAY_TIMEOUT, "connect_timeout", None),
            Self::Dial(DialError::Rejected { denial, .. }) => {
                (StatusCode::BAD_GATEWAY, "peer_rejected", Some(*denial))
            }
            Self::Dial(DialError::Handshake { .. }) => (StatusCode::BAD_GATEWAY, "handshake_failed", None),
            Self::Dial(DialError::Ended(_)) | Self::Broken => {
                (StatusCode::BAD_GATEWAY, "upstream_failed", None)
            }
            Self::Withdrawn => (StatusCode::BAD_GATEWAY, "peer_withdrawn", None),
        }
    }
}
