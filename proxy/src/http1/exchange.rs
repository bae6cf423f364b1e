//! One request and its response: read, decided, cleaned, forwarded, answered.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use http::{Method, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{
    end::End,
    flaw::Flaw,
    gate::{Admission, Answered, Gate, Marks, Outcome},
    line::RequestLine,
    reply::{self, Addressee},
    request::Wishes,
    response::{Client, announced},
    scanner::Scanned,
    serve::ServeError,
    transfer::{Done, READ_AHEAD, Receiving, Sending, Transfer},
    upstream::{DialError, Upstream},
};
use crate::{
    live::{Cut, Entered, Live},
    outbound::{Blame, Onward, Way},
};

/// What the requests of one connection share.
pub(crate) struct Session {
    pub(super) gate: Arc<dyn Gate>,
    onward: Onward,
    pub(super) live: Arc<Live>,
}

/// What becomes of a connection after a request.
pub(super) enum After {
    KeepAlive,
    /// Our end is closed once everything is written.
    Close,
    /// Both sides speak another protocol.
    Switch(Box<(Upstream, Exchange)>),
    /// Something broke: the client must not take what it has for whole.
    Break(ServeError),
    /// The connection was cut.
    Cut,
}

impl Session {
    pub(crate) fn new(gate: impl Gate, onward: Onward, live: Arc<Live>) -> Self {
        Self { gate: Arc::new(gate), onward, live }
    }

    /// Answers a request whose head is the first of what the client's end holds. On `drain` no
    /// other follows.
    pub(super) async fn answer(
        &self,
        client: &mut End,
        scanned: Scanned,
        drain: &CancellationToken,
    ) -> After {
        let mut exchange = Exchange::begin(self);
        let head = client.take_held(scanned.length);
        let (line, wishes) = match RequestLine::of_head(&head, scanned) {
            Ok((line, wishes)) => (Arc::new(line), wishes),
            Err(flaw) => return self.flawed((flaw, &head), None, (Addressee::UNREAD, exchange), client),
        };
        // Registered first, decided second: a policy pushed in between finds the request.
        exchange.enter(&line);
        let last = self.live.is_refused() || self.live.is_last() || drain.is_cancelled();
        let keep_alive = wishes.keep_alive && !last;
        let to = Addressee { old: wishes.old, head_only: line.method == Method::HEAD, keep_alive };
        // An unread body is never taken for the next request: the connection ends with the answer.
        let refused = Addressee { keep_alive: keep_alive && wishes.has_no_body(), ..to };
        let marks = match self.gate.admit(&line) {
            Admission::Forward => self.gate.mark(&line),
            Admission::Refuse(denial) => {
                return exchange.refuse(StatusCode::FORBIDDEN, denial, refused, client);
            }
        };
        let closing = Addressee { keep_alive: false, ..to };
        let marks = match marks {
            Ok(marks) => marks,
            Err(denial) => return exchange.refuse(StatusCode::FORBIDDEN, denial, closing, client),
        };
        let mut way = match self.onward.begin(&line, self.live.key.source) {
            Ok(way) => way,
            Err(error) => return self.unanswered(&Failure::Dial(error), closing, exchange, client),
        };
        let upstream = match self.reach(&mut way).await {
            Ok(Some(upstream)) => upstream,
            Ok(None) => return After::Cut,
            Err(error) => return self.unanswered(&Failure::Dial(error), closing, exchange, client),
        };
        self.forward(Forwarded { line, wishes, marks, to, drain, way }, upstream, exchange, client).await
    }

    /// Returns a connection to send on; none where ours is cut meanwhile.
    async fn reach(&self, way: &mut Way) -> Result<Option<Upstream>, DialError> {
        let pool = way.http1();
        let kept = poll_fn(|cx| Poll::Ready(pool.kept(cx))).await?;
        if kept.is_some() {
            return Ok(kept);
        }
        self.reach_anew(way).await
    }

    async fn reach_anew(&self, way: &mut Way) -> Result<Option<Upstream>, DialError> {
        // Boxed: most requests find a kept connection.
        let mut connecting = Box::pin(connect(way));
        poll_fn(|cx| match self.live.poll_cut(cx) {
            Poll::Ready(_) => Poll::Ready(Ok(None)),
            Poll::Pending => connecting.as_mut().poll(cx).map_ok(Some),
        })
        .await
    }

    async fn forward(
        &self,
        mut asked: Forwarded<'_>,
        upstream: Upstream,
        mut exchange: Exchange,
        client: &mut End,
    ) -> After {
        let closing = Addressee { keep_alive: false, ..asked.to };
        if !asked.wishes.has_no_body() {
            // What is there of the body is looked at before anything goes on, and goes with the head.
            let came = poll_fn(|cx| Poll::Ready(client.gather(cx, READ_AHEAD))).await;
            self.live.activity.received(came);
        }
        let mut transfer = match asked.transfer(upstream, client) {
            Ok(transfer) => transfer,
            Err(flaw) => {
                return self.flawed(
                    (flaw, asked.line.path().as_bytes()),
                    Some(&asked.line),
                    (closing, exchange),
                    client,
                );
            }
        };
        let mut done = self.carry(&mut transfer, client, &asked.way).await;
        while let Some(Done::Unanswered { unsent }) = done
            && let Some(reached) = self.reach_again(&mut asked, &transfer, unsent).await
        {
            match reached {
                Ok(Some(upstream)) => transfer.again(upstream),
                Ok(None) => return After::Cut,
                Err(error) => return self.unanswered(&Failure::Dial(error), closing, exchange, client),
            }
            done = self.carry(&mut transfer, client, &asked.way).await;
        }
        let Some(done) = done else {
            asked.way.broken();
            transfer.upstream.reset();
            return self.unanswered(&Failure::Late, closing, exchange, client);
        };
        asked.tell(&transfer, &done);
        exchange.note(&transfer);
        self.conclude((done, transfer), &asked, exchange, client)
    }

    /// Carries a request and its response; none where the head of the response did not come in the time that the service
    /// has for it.
    async fn carry(&self, transfer: &mut Transfer<'_>, client: &mut End, way: &Way) -> Option<Done> {
        let Some(deadline) = way.deadline() else {
            return Some(poll_fn(|cx| transfer.poll(cx, client, &self.live)).await);
        };
        let mut late = Box::pin(tokio::time::sleep_until(deadline));
        poll_fn(|cx| match transfer.poll(cx, client, &self.live) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if transfer.response.head_is_gone() => Poll::Pending,
            Poll::Pending => late.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// Returns another connection to send a request on that got no answer, where it may be sent once more.
    async fn reach_again(
        &self,
        asked: &mut Forwarded<'_>,
        transfer: &Transfer<'_>,
        unsent: bool,
    ) -> Option<Result<Option<Upstream>, DialError>> {
        if asked.may_go_again(transfer, unsent) {
            // A kept connection ended just as it was used: that is nobody's fault, and the same endpoint is asked.
            return Some(self.reach_anew(&mut asked.way).await);
        }
        if !asked.may_go_elsewhere(transfer, unsent) {
            return None;
        }
        asked.way.broken();
        if asked.way.elsewhere().await { Some(self.reach_anew(&mut asked.way).await) } else { None }
    }

    /// Ends an exchange as its transfer ended.
    fn conclude(
        &self,
        (done, mut transfer): (Done, Transfer<'_>),
        asked: &Forwarded<'_>,
        mut exchange: Exchange,
        client: &mut End,
    ) -> After {
        let closing = Addressee { keep_alive: false, ..asked.to };
        // What was said before a head is whole by itself.
        let answerable = !transfer.response.head_is_gone();
        match done {
            Done::Answered => {
                exchange.outcome = Outcome::Finished;
                let keep_alive = transfer.client.keep_alive && !client.ended;
                self.answered(transfer, &asked.way, keep_alive)
            }
            Done::Switched => After::Switch(Box::new((transfer.upstream, exchange))),
            Done::Flawed(flaw) => {
                transfer.upstream.reset();
                let start = asked.line.path().as_bytes();
                if answerable {
                    return self.flawed((flaw, start), Some(&asked.line), (closing, exchange), client);
                }
                self.gate.malformed(flaw, start, Some(&asked.line));
                After::Break(ServeError::Flawed(flaw))
            }
            Done::Unanswered { .. } => self.unanswered(&Failure::Broken, closing, exchange, client),
            Done::Withdrawn => {
                transfer.upstream.reset();
                if answerable {
                    return self.unanswered(&Failure::Withdrawn, closing, exchange, client);
                }
                self.gate.upstream_failed("peer_withdrawn");
                After::Break(ServeError::Withdrawn)
            }
            Done::BrokenOff => {
                self.gate.upstream_failed("upstream_failed");
                After::Break(ServeError::BrokenOff)
            }
            Done::Left(error) => {
                transfer.upstream.reset();
                After::Break(ServeError::Client(error))
            }
            Done::Cut => {
                transfer.upstream.reset();
                After::Cut
            }
        }
    }

    /// Keeps what may serve again.
    fn answered(&self, transfer: Transfer<'_>, way: &Way, keep_alive: bool) -> After {
        let whole = transfer.request.is_whole();
        let told = transfer.response.told;
        let until_close = told.as_ref().is_none_or(|told| told.coding == super::response::Coding::UntilClose);
        let reusable = told.is_some_and(|told| told.reusable);
        if whole && reusable && transfer.upstream.end.held.is_empty() {
            way.http1().put(transfer.upstream);
        }
        // Of a request that was answered before all of it came, the rest is no request.
        if keep_alive && whole && !until_close { After::KeepAlive } else { After::Close }
    }

    fn flawed(
        &self,
        (flaw, start): (Flaw, &[u8]),
        line: Option<&RequestLine>,
        (to, exchange): (Addressee, Exchange),
        client: &mut End,
    ) -> After {
        let denial = self.gate.malformed(flaw, start.get(..MAX_START).unwrap_or(start), line);
        exchange.refuse(flaw.status(), denial, to, client)
    }

    fn unanswered(
        &self,
        failure: &Failure,
        to: Addressee,
        mut exchange: Exchange,
        client: &mut End,
    ) -> After {
        let (status, error, denial) = failure.told();
        self.gate.upstream_failed(error);
        exchange.status = Some(status);
        match denial {
            Some(denial) if self.gate.explains() => reply::refused(status, denial, to, &mut client.out.bytes),
            Some(_) | None => {
                let error = if self.gate.explains() { error } else { "unavailable" };
                reply::failed(status, error, to, &mut client.out.bytes);
            }
        }
        After::Close
    }

    pub(super) fn record_cut(&self, cut: &Cut) {
        self.gate.cut(cut);
    }
}

/// Connects to where a request goes, or to where it may go instead.
async fn connect(way: &mut Way) -> Result<Upstream, DialError> {
    loop {
        let error = match way.http1().connect().await {
            Ok(upstream) => return Ok(upstream),
            Err(error) => error,
        };
        if !way.unreached(Blame::of(&error)).await {
            return Err(error);
        }
    }
}

/// A request on its way.
struct Forwarded<'d> {
    line: Arc<RequestLine>,
    wishes: Wishes,
    marks: Marks,
    to: Addressee,
    drain: &'d CancellationToken,
    way: Way,
}

impl<'d> Forwarded<'d> {
    /// Prepares the transfer; what is there of the body goes with the head.
    fn transfer(&self, mut upstream: Upstream, client: &mut End) -> Result<Transfer<'d>, Flaw> {
        let announced = if self.marks.drop_trailers { Vec::new() } else { self.announced() };
        let mut request = Sending::new(self.wishes.framing, announced);
        let out = &mut upstream.end.out;
        self.line.write(&self.marks, &mut out.bytes);
        if !request.body.is_ended() && !client.held.is_empty() {
            client.use_held(|bytes| request.take(bytes, &mut out.bytes))?;
        } else if self.wishes.expects && !request.body.is_ended() {
            client.out.bytes.extend_from_slice(CONTINUE);
        }
        if (upstream.used || self.way.may_repeat()) && self.is_repeatable() {
            out.keep();
        }
        let Addressee { old, keep_alive, .. } = self.to;
        Ok(Transfer {
            upstream,
            request,
            response: Receiving::new(),
            client: Client { old, keep_alive, trailers: self.wishes.trailers && !old },
            asked: self.wishes.asked,
            upgrade: self.line.upgrade().map(str::to_owned),
            drain: self.drain,
        })
    }

    fn announced(&self) -> Vec<Vec<u8>> {
        self.line.fields().values("trailer").flat_map(announced).collect()
    }

    /// Says whether the request may be sent once more: a kept connection ended before a byte of a response, and either
    /// nothing was sent, or doing it twice is doing it once (RFC 9110 9.2.2) and there is no body to send again.
    fn may_go_again(&self, transfer: &Transfer<'_>, unsent: bool) -> bool {
        transfer.upstream.used && !transfer.response.begun && (unsent || self.is_repeatable())
    }

    /// Says whether the request may be sent to another endpoint, under the same conditions.
    fn may_go_elsewhere(&self, transfer: &Transfer<'_>, unsent: bool) -> bool {
        self.way.may_repeat() && !transfer.response.begun && (unsent || self.is_repeatable())
    }

    fn is_repeatable(&self) -> bool {
        self.wishes.has_no_body() && self.line.method.is_idempotent()
    }

    /// Tells of the endpoint how it served the request.
    fn tell(&self, transfer: &Transfer<'_>, done: &Done) {
        match (&transfer.response.told, done) {
            (Some(told), Done::Answered | Done::Switched) => self.way.answered(told.status),
            (_, Done::Unanswered { .. } | Done::BrokenOff) => self.way.broken(),
            // Neither the client's fault nor a withdrawn right is the endpoint's.
            (
                _,
                Done::Answered
                | Done::Switched
                | Done::Flawed(_)
                | Done::Left(_)
                | Done::Withdrawn
                | Done::Cut,
            ) => {}
        }
    }
}

impl Transfer<'_> {
    /// Begins once more on another connection.
    fn again(&mut self, mut upstream: Upstream) {
        let mut out = std::mem::take(&mut self.upstream.end.out);
        out.rewind();
        upstream.end.out = out;
        self.upstream = upstream;
        self.request.again();
    }
}

/// Marks a connection as busy with a request, and tells of it when it is over.
pub(super) struct Exchange {
    live: Arc<Live>,
    gate: Arc<dyn Gate>,
    line: Option<Arc<RequestLine>>,
    entered: Option<Entered>,
    begun: Instant,
    status: Option<StatusCode>,
    grpc_status: Option<u32>,
    received: u64,
    sent: u64,
    pub(super) outcome: Outcome,
}

impl Exchange {
    fn begin(session: &Session) -> Self {
        session.live.activity.set_busy(true);
        Self {
            live: Arc::clone(&session.live),
            gate: Arc::clone(&session.gate),
            line: None,
            entered: None,
            begun: Instant::now(),
            status: None,
            grpc_status: None,
            received: 0,
            sent: 0,
            outcome: Outcome::Broken,
        }
    }

    /// Says which request is being answered.
    fn enter(&mut self, line: &Arc<RequestLine>) {
        self.line = Some(Arc::clone(line));
        self.entered = Some(self.live.enter(Arc::clone(line)));
    }

    /// Notes what passed.
    fn note(&mut self, transfer: &Transfer<'_>) {
        (self.received, self.sent) = (transfer.request.bytes, transfer.response.bytes);
        if let Some(told) = &transfer.response.told {
            (self.status, self.grpc_status) = (Some(told.status), told.grpc_status);
        }
    }

    /// Adds what passed after a switch of protocols.
    pub(super) fn note_tunnel(&mut self, (received, sent): (u64, u64)) {
        self.received += received;
        self.sent += sent;
    }

    fn refuse(
        mut self,
        status: StatusCode,
        denial: audit::DenialId,
        to: Addressee,
        client: &mut End,
    ) -> After {
        (self.status, self.outcome) = (Some(status), Outcome::Refused);
        reply::refused(status, denial, to, &mut client.out.bytes);
        if to.keep_alive { After::KeepAlive } else { After::Close }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.entered = None;
        self.live.activity.set_busy(false);
        let Some(line) = &self.line else { return };
        self.gate.answered(&Answered {
            line,
            status: self.status,
            grpc_status: self.grpc_status,
            took: self.begun.elapsed(),
            received: self.received,
            sent: self.sent,
            outcome: if self.live.is_cut() { Outcome::Cut } else { self.outcome },
        });
    }
}

/// Why a request got no response.
enum Failure {
    Dial(DialError),
    /// The service took longer than it may.
    Late,
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
            Self::Dial(DialError::Unavailable { reason }) => (StatusCode::SERVICE_UNAVAILABLE, *reason, None),
            Self::Dial(DialError::Handshake { .. }) => (StatusCode::BAD_GATEWAY, "handshake_failed", None),
            Self::Late => (StatusCode::GATEWAY_TIMEOUT, "request_timeout", None),
            Self::Broken => (StatusCode::BAD_GATEWAY, "upstream_failed", None),
            Self::Withdrawn => (StatusCode::BAD_GATEWAY, "peer_withdrawn", None),
        }
    }
}

/// How much of a flawed message is kept for its record.
pub(super) const MAX_START: usize = 512;
/// Sent to a client that waits to be asked for its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
