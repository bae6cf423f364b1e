//! One request on its way up and its response on its way down, both at once.
//!
//! Nothing is read of either side before what was read of it has been written to the other. What was read ahead of a
//! client is its next request, to a bound.

use std::{
    io,
    task::{Context, Poll, ready},
};

use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::{
    coding,
    end::End,
    flaw::Flaw,
    response::{self, Client, Coding, Told},
    scanner::{Asked, Body, Framing, Side},
    upstream::Upstream,
};
use crate::{activity::Waiting, live::Live};

/// A request that was let through.
pub(super) struct Transfer<'d> {
    pub(super) upstream: Upstream,
    pub(super) request: Sending,
    pub(super) response: Receiving,
    pub(super) client: Client,
    pub(super) asked: Asked,
    pub(super) upgrade: Option<String>,
    /// Set when the connection of the client is to end with this response.
    pub(super) drain: &'d CancellationToken,
}

/// The body of a request on its way up.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) body: Body,
    pub(super) coding: Coding,
    /// The trailers that may follow.
    pub(super) announced: Vec<Vec<u8>>,
    pub(super) bytes: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Going,
    Gone,
    /// The upstream takes no more; it may still answer.
    Unwanted,
}

/// A response on its way down.
#[derive(Debug)]
pub(super) struct Receiving {
    place: Place,
    /// A byte of it has come.
    pub(super) begun: bool,
    pub(super) told: Option<Told>,
    pub(super) bytes: u64,
}

#[derive(Debug)]
enum Place {
    Head,
    Body(Body),
    Whole,
    Switched,
}

/// What one direction did.
enum Step {
    Moved,
    /// It waits for someone, or has nothing to do.
    Waits,
    Over(Done),
}

/// How a transfer ended.
#[derive(Debug)]
pub(super) enum Done {
    /// The client has the whole response.
    Answered,
    /// Both sides speak another protocol from here on.
    Switched,
    /// The request's body was at fault.
    Flawed(Flaw),
    /// The upstream gave no response, or none that could be read. `unsent` where nothing of the request was sent.
    Unanswered { unsent: bool },
    /// The upstream broke off within its response.
    BrokenOff,
    /// The client went away.
    Left(io::Error),
    /// The upstream may no longer be spoken to.
    Withdrawn,
    /// The connection is to be ended.
    Cut,
}

impl Sending {
    pub(super) fn new(framing: Framing, announced: Vec<Vec<u8>>) -> Self {
        let coding = if framing == Framing::Chunked { Coding::Chunks } else { Coding::Plain };
        Self { body: Body::of(framing), coding, announced, bytes: 0, state: State::Going }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.state == State::Gone
    }

    /// Begins once more, on another connection.
    pub(super) fn again(&mut self) {
        self.state = State::Going;
    }

    /// Takes what is the body's of `bytes`; returns how many that are.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> (usize, Result<(), Flaw>) {
        match self.pass(bytes, out) {
            Ok(taken) => (taken, Ok(())),
            Err(flaw) => (0, Err(flaw)),
        }
    }

    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Flaw> {
        let coding = self.coding;
        let count = &mut self.bytes;
        let taken = self.body.take(bytes, |part| {
            *count += part.len() as u64;
            coding.put(part, out);
        })?;
        let trailers = self.body.take_trailers();
        if self.body.is_ended() {
            let trailers = trailers.map(|section| coding::trailers(&section, &self.announced));
            coding.end(&trailers.unwrap_or_default(), out);
        }
        Ok(taken)
    }
}

impl Receiving {
    pub(super) fn new() -> Self {
        Self { place: Place::Head, begun: false, told: None, bytes: 0 }
    }

    fn coding(&self) -> Coding {
        self.told.as_ref().map_or(Coding::UntilClose, |told| told.coding)
    }

    pub(super) fn head_is_gone(&self) -> bool {
        !matches!(self.place, Place::Head)
    }
}

impl Transfer<'_> {
    /// Moves both directions on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, client: &mut End, live: &Live) -> Poll<Done> {
        if live.poll_cut(cx).is_ready() {
            return Poll::Ready(Done::Cut);
        }
        if self.upstream.poll_withdrawn(cx).is_ready() {
            return Poll::Ready(Done::Withdrawn);
        }
        for _ in 0..ROUNDS {
            let (up, down) = match (self.poll_up(cx, client, live), self.poll_down(cx, client, live)) {
                (Step::Over(done), _) | (_, Step::Over(done)) => return Poll::Ready(done),
                (up, down) => (matches!(up, Step::Moved), matches!(down, Step::Moved)),
            };
            if !up && !down {
                return self.poll_client(cx, client, live).map(Done::Left);
            }
        }
        // Enough for one turn: the other connections come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends some of the request, where there is some to send.
    fn poll_up(&mut self, cx: &mut Context<'_>, client: &mut End, live: &Live) -> Step {
        if self.request.state != State::Going {
            return Step::Waits;
        }
        let upstream = &mut self.upstream;
        let mut sent = 0;
        let written = upstream.end.poll_write(cx, |bytes| sent += bytes);
        upstream.count(0, sent);
        match written {
            Poll::Pending => {
                // Its reader is slow: nobody waits for the client.
                live.activity.wait(Waiting::Request);
                Step::Waits
            }
            Poll::Ready(Ok(())) if self.request.body.is_ended() => {
                self.request.state = State::Gone;
                live.activity.wait(Waiting::Request);
                Step::Waits
            }
            Poll::Ready(Ok(())) => self.poll_body(cx, client, live),
            // It may have answered before.
            Poll::Ready(Err(_)) => {
                self.request.state = State::Unwanted;
                Step::Waits
            }
        }
    }

    /// Reads more of the request's body.
    fn poll_body(&mut self, cx: &mut Context<'_>, client: &mut End, live: &Live) -> Step {
        let (request, out) = (&mut self.request, &mut self.upstream.end.out.bytes);
        let mut came = 0;
        let mut take = |bytes: &[u8]| {
            came = bytes.len();
            request.take(bytes, out)
        };
        if !client.held.is_empty() {
            return client
                .use_held(take)
                .map_or_else(|flaw| Step::Over(Done::Flawed(flaw)), |()| Step::Moved);
        }
        let read = client.poll_read(cx, &mut take);
        if came > 0 {
            live.activity.received(came);
        }
        match read {
            Poll::Pending => {
                live.activity.wait(Waiting::Body);
                Step::Waits
            }
            Poll::Ready(Ok(Ok(()))) if came == 0 => {
                Step::Over(Done::Left(io::ErrorKind::UnexpectedEof.into()))
            }
            Poll::Ready(Ok(Ok(()))) => Step::Moved,
            Poll::Ready(Ok(Err(flaw))) => Step::Over(Done::Flawed(flaw)),
            Poll::Ready(Err(error)) => Step::Over(Done::Left(error)),
        }
    }

    /// Passes on some of the response, where there is some.
    fn poll_down(&mut self, cx: &mut Context<'_>, client: &mut End, live: &Live) -> Step {
        let mut sent = 0;
        let written = client.poll_write(cx, |bytes| sent += bytes);
        if sent > 0 {
            live.activity.sent(sent);
        }
        match written {
            Poll::Pending => {
                live.activity.blocked();
                return Step::Waits;
            }
            Poll::Ready(Err(error)) => return Step::Over(Done::Left(error)),
            Poll::Ready(Ok(())) => {}
        }
        match self.response.place {
            Place::Whole => Step::Over(Done::Answered),
            Place::Switched => Step::Over(Done::Switched),
            Place::Head => {
                self.client.keep_alive &= !live.is_last() && !self.drain.is_cancelled();
                self.poll_response(cx, &mut client.out.bytes)
            }
            Place::Body(_) => self.poll_response(cx, &mut client.out.bytes),
        }
    }

    /// Reads more of the response.
    fn poll_response(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Step {
        let whole = self.request.is_whole();
        let Self { upstream: Upstream { end, scanner, .. }, response, client, asked, upgrade, .. } = self;
        let (before, mut came) = (end.held.len(), 0);
        let read = end.poll_read(cx, |bytes| {
            came = bytes.len().saturating_sub(before);
            let upgrade = upgrade.as_deref();
            let mut passage = Passage { scanner, whole, to: *client, asked: *asked, upgrade, out };
            match passage.pass(response, bytes) {
                Ok(taken) => (taken, Ok(())),
                Err(flaw) => (0, Err(flaw)),
            }
        });
        let Poll::Ready(read) = read else { return Step::Waits };
        self.upstream.count(came, 0);
        self.response.begun |= came > 0;
        match read {
            Ok(Ok(())) if came > 0 => {
                self.upstream.end.out.forget();
                Step::Moved
            }
            Ok(Err(flaw)) => {
                tracing::debug!(flaw = flaw.code(), "the response cannot be read");
                Step::Over(self.broken())
            }
            // Only a body that lasts until the end may end here.
            Ok(Ok(())) if matches!(self.response.place, Place::Body(Body::UntilClose)) => {
                let coding = self.response.coding();
                coding.end(&HeaderMap::new(), out);
                self.response.place = Place::Whole;
                Step::Moved
            }
            Ok(Ok(())) | Err(_) => Step::Over(self.broken()),
        }
    }

    fn broken(&self) -> Done {
        if self.response.head_is_gone() {
            return Done::BrokenOff;
        }
        Done::Unanswered { unsent: self.upstream.end.out.is_untouched() }
    }

    /// Sees whether a client that waits is still there, and keeps what it sends meanwhile, to a bound.
    fn poll_client(&mut self, cx: &mut Context<'_>, client: &mut End, live: &Live) -> Poll<io::Error> {
        while self.request.state != State::Going && client.held.len() < READ_AHEAD && !client.ended {
            let before = client.held.len();
            match ready!(client.poll_read(cx, |_| (0, ()))) {
                Err(error) => return Poll::Ready(error),
                Ok(()) if client.held.len() > before => live.activity.received(client.held.len() - before),
                Ok(()) => {
                    // Its half has ended; ours has not.
                    client.ended = true;
                    live.activity.wait(Waiting::Half);
                }
            }
        }
        Poll::Pending
    }
}

/// What a response passes through.
struct Passage<'p> {
    scanner: &'p mut super::scanner::Scanner,
    /// All of the request was sent.
    whole: bool,
    to: Client,
    asked: Asked,
    upgrade: Option<&'p str>,
    out: &'p mut Vec<u8>,
}

impl Passage<'_> {
    /// Passes on what is the response's of `bytes`; returns how many that are.
    fn pass(&mut self, response: &mut Receiving, bytes: &[u8]) -> Result<usize, Flaw> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            match &mut response.place {
                Place::Head => match self.head(response, rest)? {
                    Some(length) => at += length,
                    None => return Ok(at),
                },
                Place::Body(body) => {
                    let coding = response.told.as_ref().map_or(Coding::UntilClose, |told| told.coding);
                    let count = &mut response.bytes;
                    at += body.take(rest, |part| {
                        *count += part.len() as u64;
                        coding.put(part, self.out);
                    })?;
                    if let Some(section) = body.take_trailers() {
                        let trailers = response.told.as_mut().map(|told| told.trailers(&section));
                        coding.end(&trailers.unwrap_or_default(), self.out);
                    } else if body.is_ended() {
                        coding.end(&HeaderMap::new(), self.out);
                    } else {
                        return Ok(at);
                    }
                    response.place = Place::Whole;
                }
                Place::Whole | Place::Switched => return Ok(at),
            }
        }
    }

    /// Passes on a head, if all of one is there.
    fn head(&mut self, response: &mut Receiving, bytes: &[u8]) -> Result<Option<usize>, Flaw> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let Some(scanned) = self.scanner.head(bytes, Side::Response(self.asked))? else { return Ok(None) };
        let head = bytes.get(..scanned.length).unwrap_or_default();
        let before = self.out.len();
        // Another protocol begins where the request ends, not within it.
        let early = scanned.framing == Framing::Switch && !self.whole;
        let told = response::write(head, &scanned, self.to, self.upgrade, self.out);
        let Some(told) = told.filter(|_| !early) else {
            self.out.truncate(before);
            return Err(Flaw::Unrequested);
        };
        match scanned.framing {
            // RFC 9110 15.2: an old client has no use for it.
            Framing::Interim if self.to.old => self.out.truncate(before),
            Framing::Interim => {}
            Framing::Switch => (response.place, response.told) = (Place::Switched, Some(told)),
            framing @ (Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => {
                let body = Body::of(framing);
                response.place = if body.is_ended() { Place::Whole } else { Place::Body(body) };
                response.told = Some(told);
            }
        }
        Ok(Some(scanned.length))
    }
}

impl Told {
    fn trailers(&mut self, section: &[u8]) -> HeaderMap {
        let trailers = coding::trailers(section, &self.announced);
        if let Some(status) = trailers.get("grpc-status") {
            self.grpc_status = response::number(status.as_bytes());
        }
        trailers
    }
}

/// Bufferfuls moved before another task has its turn.
const ROUNDS: usize = 16;
/// What is kept of further requests while one is answered; the last read may exceed it by its own size.
pub(super) const READ_AHEAD: usize = 16 * 1024;
