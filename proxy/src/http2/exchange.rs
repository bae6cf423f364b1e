//! One request and its response on their way, in both directions at once.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, client::ResponseFuture, server::SendResponse};
use http::{Request, Response, StatusCode};
use policy::RequestKind;
use tokio::time::{Sleep, sleep_until};

use super::{
    pool::{self, Seeking, Unreached},
    pump::{Broken, Pump, Trailers, Wait},
    reply::{Form, grpc_status},
    session::{FORBIDDEN, Session, Tally},
    upstream::{Place, Unsent},
};
use crate::{
    activity::Expired,
    http1::{Outcome, RequestLine, clean_response},
    live::{Cut, Entered},
    outbound::{Blame, Way},
};

mod up;

use up::Up;

/// A request that was let through, until its response has gone back.
pub(super) struct Exchange {
    session: Arc<Session>,
    entered: Entered,
    line: Arc<RequestLine>,
    form: Form,
    /// Where it goes, once that is clear.
    way: Option<Way>,
    /// When it has waited too long for its response.
    late: Option<Pin<Box<Sleep>>>,
    stage: Stage,
    tally: Tally,
    pause: Option<Pause>,
    stalled: bool,
}

/// What goes out, before there is a connection for it.
pub(super) struct Outgoing {
    pub(super) request: Request<()>,
    /// Absent where the head is all.
    pub(super) body: Option<RecvStream>,
    pub(super) trailers: Trailers,
}

enum Stage {
    /// There is no connection for it yet.
    Seeking(Box<Looking>),
    /// It was sent; no response has come.
    Awaiting {
        respond: SendResponse<Bytes>,
        response: ResponseFuture,
        up: Up,
        place: Place,
        again: bool,
    },
    /// The response is on its way.
    Answering {
        down: Pump,
        up: Up,
        _place: Place,
    },
    Done,
}

struct Looking {
    respond: SendResponse<Bytes>,
    seeking: Seeking,
    outgoing: Outgoing,
    /// One attempt has failed.
    again: bool,
}

/// A wait for somebody who should not keep a request waiting.
struct Pause {
    since: Instant,
    /// How much had moved before.
    moved: u64,
    waker: Waker,
}

/// Looks for a connection on the way of a request.
fn seeking(respond: SendResponse<Bytes>, outgoing: Outgoing, way: Way, again: bool) -> Stage {
    Stage::Seeking(Box::new(Looking { respond, seeking: pool::seek(way), outgoing, again }))
}

impl Exchange {
    pub(super) fn new(
        session: Arc<Session>,
        (entered, line, begun): (Entered, Arc<RequestLine>, Instant),
        (respond, form): (SendResponse<Bytes>, Form),
        outgoing: Outgoing,
    ) -> Self {
        let (stage, tally, pause, stalled) = (Stage::Done, Tally::begin(begun), None, false);
        let (way, late) = (None, None);
        let mut this = Self { session, entered, line, form, way, late, stage, tally, pause, stalled };
        let way = match this.session.way(&this.line) {
            Ok(way) => way,
            Err(unreached) => {
                this.stage = this.unanswered(respond, unreached);
                return this;
            }
        };
        this.late = way.deadline().map(|deadline| Box::pin(sleep_until(deadline)));
        let place = way.http2().try_get();
        this.stage = match place {
            Ok(Some(place)) => {
                this.way = Some(way);
                this.send(respond, place, outgoing, false)
            }
            Ok(None) => seeking(respond, outgoing, way, false),
            Err(unreached) => this.unanswered(respond, unreached),
        };
        this
    }

    /// Has a request that has waited for too long end itself.
    pub(super) fn stall(&mut self, limit: Duration) {
        if let Some(pause) = &self.pause
            && pause.since.elapsed() >= limit
        {
            self.stalled = true;
            pause.waker.wake_by_ref();
        }
    }

    fn unanswered(&mut self, mut respond: SendResponse<Bytes>, unreached: Unreached) -> Stage {
        self.session.unanswered(&mut respond, self.form, unreached);
        self.tally.status = Some(unreached.status);
        Stage::Done
    }

    /// Sends the head. Where the connection has just ended nothing of it was sent, and it goes on another.
    fn send(&mut self, respond: SendResponse<Bytes>, place: Place, outgoing: Outgoing, again: bool) -> Stage {
        let Outgoing { request, body, trailers } = outgoing;
        match place.send(request, body.is_none()) {
            Ok((response, stream)) => {
                let up = match body {
                    Some(body) => Up::Going(Pump::new(body, stream, trailers)),
                    None => Up::None(stream),
                };
                Stage::Awaiting { respond, response, up, place, again }
            }
            Err(Unsent::Unsupported) => {
                let status = StatusCode::NOT_IMPLEMENTED;
                self.unanswered(
                    respond,
                    Unreached { status, error: "upgrade_unsupported", denial: None, blame: Blame::Nobody },
                )
            }
            Err(Unsent::Ended) if again => self.unanswered(respond, BROKEN),
            Err(Unsent::Ended) => self.send_again(respond, body, trailers),
        }
    }

    /// Looks for another connection, for what nobody has processed.
    fn send_again(
        &mut self,
        respond: SendResponse<Bytes>,
        body: Option<RecvStream>,
        trailers: Trailers,
    ) -> Stage {
        let protocol = match self.line.kind() {
            RequestKind::Upgrade { protocol } => Some(protocol),
            RequestKind::Plain | RequestKind::Connect { .. } => None,
        };
        match self.session.again(&self.line, protocol) {
            Some(request) => match self.way.take() {
                Some(way) => seeking(respond, Outgoing { request, body, trailers }, way, true),
                None => self.unanswered(respond, BROKEN),
            },
            None => self.unanswered(respond, BROKEN),
        }
    }

    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_late(cx).is_ready() {
            self.give_up();
        }
        loop {
            match &mut self.stage {
                Stage::Seeking(looking) => {
                    if let Poll::Ready(Ok(reason)) = looking.respond.poll_reset(cx) {
                        tracing::trace!(?reason, "the caller gave up before there was a connection");
                        self.stage = Stage::Done;
                        continue;
                    }
                    let (place, way) = ready!(looking.seeking.as_mut().poll(cx));
                    self.way = Some(way);
                    self.found(place);
                }
                Stage::Awaiting { respond, response, up, .. } => {
                    match response.poll_informational(cx) {
                        Poll::Ready(Some(Ok(interim))) => {
                            inform(respond, interim);
                            continue;
                        }
                        Poll::Ready(Some(Err(_)) | None) => {
                            let answer = ready!(Pin::new(&mut *response).poll(cx));
                            self.answered(answer);
                            continue;
                        }
                        Poll::Pending => {}
                    }
                    let given_up = match respond.poll_reset(cx) {
                        Poll::Ready(reason) => Some(reason.unwrap_or(Reason::CANCEL)),
                        Poll::Pending => None,
                    };
                    let Some(reason) = given_up.or_else(|| up.poll(cx)) else { return Poll::Pending };
                    up.reset(reason);
                    self.finish();
                }
                Stage::Answering { down, up, .. } => match down.poll(cx) {
                    Poll::Ready(Ok(())) => {
                        self.tally.outcome = Outcome::Finished;
                        self.finish();
                    }
                    Poll::Ready(Err(broken)) => self.broke_off(&broken),
                    Poll::Pending => {
                        let given_up =
                            if down.poll_reset(cx).is_ready() { Some(Reason::CANCEL) } else { up.poll(cx) };
                        let Some(reason) = given_up else { return Poll::Pending };
                        up.reset(reason);
                        down.reset(Reason::CANCEL);
                        self.finish();
                    }
                },
                Stage::Done => return Poll::Ready(()),
            }
        }
    }

    /// Ready when the head of the response has not come in the time that the service has for it.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match (&self.stage, &mut self.late) {
            (Stage::Seeking(_) | Stage::Awaiting { .. }, Some(late)) => late.as_mut().poll(cx),
            (Stage::Seeking(_) | Stage::Awaiting { .. }, None)
            | (Stage::Answering { .. } | Stage::Done, _) => Poll::Pending,
        }
    }

    /// Answers in the place of a service that takes too long.
    fn give_up(&mut self) {
        self.late = None;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Seeking(looking) => self.unanswered(looking.respond, LATE),
            Stage::Awaiting { respond, mut up, .. } => {
                up.reset(Reason::CANCEL);
                if let Some(way) = &self.way {
                    way.broken();
                }
                self.unanswered(respond, LATE)
            }
            stage @ (Stage::Answering { .. } | Stage::Done) => stage,
        };
    }

    fn found(&mut self, place: Result<Place, Unreached>) {
        let Stage::Seeking(looking) = std::mem::replace(&mut self.stage, Stage::Done) else { return };
        let Looking { respond, outgoing, again, .. } = *looking;
        self.stage = match place {
            Ok(place) => self.send(respond, place, outgoing, again),
            Err(unreached) => self.unanswered(respond, unreached),
        };
    }

    /// Goes on with the head of a response, or with what came in its place.
    fn answered(&mut self, answer: Result<Response<RecvStream>, h2::Error>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let Stage::Awaiting { mut respond, up, place, again, .. } = stage else { return };
        self.stage = match answer {
            Ok(response) => {
                place.settle();
                self.pass_on(respond, response, up, place)
            }
            Err(error) => {
                if error.is_go_away() {
                    place.give_up();
                }
                match (is_unprocessed(&error) && !again).then(|| up.unsent()).flatten() {
                    Some((body, trailers)) => self.send_again(respond, body, trailers),
                    None if error.is_reset() && error.is_remote() => {
                        self.session.broken_off("upstream_reset");
                        respond.send_reset(told(&error));
                        Stage::Done
                    }
                    None if place.is_withdrawn() => self.unanswered(respond, WITHDRAWN),
                    None => {
                        if let Some(way) = &self.way {
                            way.broken();
                        }
                        self.unanswered(respond, BROKEN)
                    }
                }
            }
        };
    }

    /// A response that breaks off on one side breaks off on the other: it never looks whole.
    fn broke_off(&mut self, broken: &Broken) {
        if let Stage::Answering { down, up, .. } = &mut self.stage {
            match broken {
                Broken::Sender(error) => {
                    self.session.broken_off("upstream_reset");
                    down.reset(told(error));
                }
                Broken::Receiver => up.reset(Reason::CANCEL),
            }
        }
        self.finish();
    }

    /// Counts what has moved, and lets go of everything.
    fn finish(&mut self) {
        match &self.stage {
            Stage::Awaiting { up, .. } => self.tally.received = up.moved(),
            Stage::Answering { down, up, .. } => {
                (self.tally.received, self.tally.sent) = (up.moved(), down.moved());
                self.tally.grpc_status = down.grpc_status();
            }
            Stage::Seeking(_) | Stage::Done => {}
        }
        self.stage = Stage::Done;
    }

    /// Passes the head of a response on.
    fn pass_on(
        &mut self,
        mut respond: SendResponse<Bytes>,
        response: Response<RecvStream>,
        mut up: Up,
        place: Place,
    ) -> Stage {
        let (mut parts, body) = response.into_parts();
        clean_response(&mut parts.headers);
        let end = body.is_end_stream();
        if let Some(way) = &self.way {
            way.answered(parts.status);
        }
        self.tally.status = Some(parts.status);
        self.tally.received = up.moved();
        if end {
            self.tally.grpc_status = grpc_status(&parts.headers);
        }
        match respond.send_response(Response::from_parts(parts, ()), end) {
            Ok(_) if end => {
                self.tally.outcome = Outcome::Finished;
                Stage::Done
            }
            Ok(stream) => {
                Stage::Answering { down: Pump::new(body, stream, Trailers::All), up, _place: place }
            }
            Err(_) => {
                up.reset(Reason::CANCEL);
                Stage::Done
            }
        }
    }

    /// Breaks the exchange off on both sides.
    fn break_off(&mut self, reason: Reason) {
        self.tally.outcome = Outcome::Cut;
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Seeking(mut looking) => looking.respond.send_reset(reason),
            Stage::Awaiting { mut respond, mut up, .. } => {
                respond.send_reset(reason);
                up.reset(Reason::CANCEL);
            }
            Stage::Answering { mut down, mut up, .. } => {
                down.reset(reason);
                up.reset(Reason::CANCEL);
            }
            Stage::Done => {}
        }
    }

    /// Says whether somebody keeps the request waiting who should not, and how much has moved so far.
    fn waits(&self) -> Option<u64> {
        match &self.stage {
            // A gRPC stream may pause for as long as it likes; any other body is there to be sent.
            Stage::Awaiting { up: body, .. } => body.waits().and_then(|(wait, moved)| {
                (wait == Wait::Receiver || self.form != Form::Grpc).then_some(moved)
            }),
            Stage::Answering { down, up: body, .. } => {
                let back = (down.waits_for() == Wait::Receiver).then(|| down.moved());
                back.or_else(|| {
                    body.waits().and_then(|(wait, moved)| (wait == Wait::Receiver).then_some(moved))
                })
            }
            Stage::Seeking(_) | Stage::Done => None,
        }
    }

    fn note_wait(&mut self, cx: &Context<'_>) {
        match (self.waits(), &mut self.pause) {
            (None, None) => {}
            (Some(moved), Some(pause)) if pause.moved == moved => {}
            (Some(moved), Some(pause)) => (pause.moved, pause.since) = (moved, Instant::now()),
            (Some(moved), None) => {
                self.session.waiting().fetch_add(1, Ordering::Relaxed);
                self.pause = Some(Pause { since: Instant::now(), moved, waker: cx.waker().clone() });
            }
            (None, Some(_)) => self.resume(),
        }
    }

    fn resume(&mut self) {
        if self.pause.take().is_some() {
            self.session.waiting().fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Future for Exchange {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Poll::Ready(cut) = this.entered.poll_cut(cx) {
            this.session.record_cut(cut);
            this.break_off(FORBIDDEN);
            return Poll::Ready(());
        }
        if this.stalled {
            this.session.record_cut(&Cut::Expired(Expired::Stalled));
            this.break_off(Reason::CANCEL);
            return Poll::Ready(());
        }
        let poll = this.poll_stage(cx);
        if poll.is_pending() {
            this.note_wait(cx);
        }
        poll
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.resume();
        if self.session.live().is_cut() {
            self.tally.outcome = Outcome::Cut;
        }
        self.session.answered(&self.tally, &self.line);
    }
}

/// Passes 100 and 103 on. The proxy switches protocols by other means.
fn inform(respond: &mut SendResponse<Bytes>, interim: Response<()>) {
    let (mut parts, ()) = interim.into_parts();
    clean_response(&mut parts.headers);
    // Fails only where the caller is gone, which shows elsewhere.
    let _ = respond.send_informational(Response::from_parts(parts, ()));
}

/// Says whether the upstream promises not to have looked at the request.
fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

/// What the caller is told of a response that broke off. An orderly end is not among it, nor is a flaw of its own.
fn told(error: &h2::Error) -> Reason {
    match error.reason().filter(|_| error.is_reset() && error.is_remote()) {
        Some(Reason::NO_ERROR | Reason::PROTOCOL_ERROR) | None => Reason::INTERNAL_ERROR,
        Some(reason) => reason,
    }
}

const LATE: Unreached = Unreached {
    status: StatusCode::GATEWAY_TIMEOUT,
    error: "request_timeout",
    denial: None,
    blame: Blame::Endpoint,
};
const BROKEN: Unreached = Unreached {
    status: StatusCode::BAD_GATEWAY,
    error: "upstream_failed",
    denial: None,
    blame: Blame::Endpoint,
};
const WITHDRAWN: Unreached = Unreached {
    status: StatusCode::BAD_GATEWAY,
    error: "peer_withdrawn",
    denial: None,
    blame: Blame::Nobody,
};
