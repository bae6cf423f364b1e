//! Serves the requests of one connection until it ends, is cut or drains: one task for all of them.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream,
    server::{Connection, SendResponse},
};
use http::Request;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    exchange::Exchange,
    limits::{self, LAST_CALL},
    session::Session,
    wire::{Side, Signals, Wire},
};
use crate::{
    activity::{Expired, Waiting},
    http1::Flaw,
    live::{Cut, Live},
    stream::Stream,
};

/// How a served connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides were done.
    Finished,
    /// The caller's connection broke, or the caller broke the rules.
    Failed,
    /// The connection was cut; the reason is kept by its registration.
    Cut,
}

/// Serves `stream`. On `drain`, or once the peer's certificate has expired, the requests in flight are finished and the
/// connection closed.
pub(crate) async fn serve(stream: Stream, session: Arc<Session>, drain: &CancellationToken) -> Ended {
    let live = Arc::clone(session.live());
    live.multiplex();
    live.activity.wait(Waiting::Head);
    let signals = Arc::new(Signals::default());
    let wire = Wire::new(stream, Side::Server, Some(Arc::clone(&live)), Arc::clone(&signals));
    let handshake = limits::server(session.limits()).handshake(wire);
    let connection = tokio::select! {
        biased;
        cut = live.wait_cut() => {
            session.record_cut(cut);
            signals.reset();
            return Ended::Cut;
        }
        connection = handshake => match connection {
            Ok(connection) => connection,
            Err(error) => return failed(&error),
        },
    };
    live.activity.wait(Waiting::Request);
    // Boxed: the library's state is large, and what waits for its first request takes the room it needs.
    let mut serving = Box::new(Serving::new(connection, session, signals));
    let mut drained = pin!(drain.cancelled());
    poll_fn(|cx| serving.poll(cx, drained.as_mut())).await
}

struct Serving {
    connection: Connection<Wire, Bytes>,
    exchanges: FuturesUnordered<Exchange>,
    session: Arc<Session>,
    signals: Arc<Signals>,
    taking: Taking,
    busy: bool,
    /// When the requests that wait are looked at.
    look: Option<Pin<Box<Sleep>>>,
}

/// Whether the connection takes requests.
enum Taking {
    All,
    /// It was told to take no more; those on their way are let in until then.
    LastCall(Instant),
    /// The last word was said.
    None,
}

impl Serving {
    fn new(connection: Connection<Wire, Bytes>, session: Arc<Session>, signals: Arc<Signals>) -> Self {
        let (exchanges, taking) = (FuturesUnordered::new(), Taking::All);
        Self { connection, exchanges, session, signals, taking, busy: false, look: None }
    }

    fn live(&self) -> &Live {
        self.session.live()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        drained: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> Poll<Ended> {
        let session = Arc::clone(&self.session);
        if let Poll::Ready(cut) = session.live().poll_cut(cx) {
            return Poll::Ready(self.cut(cx, cut));
        }
        if matches!(self.taking, Taking::All) && (self.live().is_retired() || drained.poll(cx).is_ready()) {
            self.close_gracefully();
        }
        self.poll_look(cx);
        let ended = self.poll_requests(cx);
        self.record_flaws();
        if self.signals.is_flooded() && !matches!(self.taking, Taking::None) {
            self.session.record_flaw(Flaw::Flood);
            self.taking = Taking::None;
            self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            return self.connection.poll_closed(cx).map(|_| Ended::Failed);
        }
        ended
    }

    /// Puts on record what the library refused.
    fn record_flaws(&mut self) {
        for _ in 0..self.signals.take_flaws() {
            self.session.record_flaw(Flaw::Message);
        }
        let said_by_us = matches!(self.taking, Taking::None);
        if let Some(reason) = self.signals.take_farewell().filter(|_| !said_by_us) {
            let flood = reason == Reason::ENHANCE_YOUR_CALM;
            self.session.record_flaw(if flood { Flaw::Flood } else { Flaw::Frame });
            self.taking = Taking::None;
        }
    }

    /// Answers what there is to answer. What has an answer comes first, so that it leaves with everything else.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            while let Poll::Ready(Some(())) = self.exchanges.poll_next_unpin(cx) {}
            let mut came = false;
            loop {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        came = true;
                        self.begin(request, respond);
                    }
                    Poll::Ready(Some(Err(error))) if self.is_done(&error) => {
                        return Poll::Ready(Ended::Finished);
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(failed(&error)),
                    Poll::Ready(None) => return Poll::Ready(Ended::Finished),
                    Poll::Pending => break,
                }
            }
            self.note_busy();
            if !came {
                return Poll::Pending;
            }
        }
    }

    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        match self.taking {
            Taking::All => {}
            Taking::LastCall(until) if Instant::now() < until => {}
            Taking::LastCall(_) | Taking::None => {
                // It promises that nobody has looked at the request: it may go elsewhere.
                return respond.send_reset(Reason::REFUSED_STREAM);
            }
        }
        if let Some(exchange) = self.session.begin(request, respond) {
            self.exchanges.push(exchange);
        }
        if self.live().is_refused() && matches!(self.taking, Taking::All) {
            // Nothing on the connection will be allowed: it got its answer.
            self.close_gracefully();
        }
    }

    /// A caller that waits for nothing may go without a word.
    fn is_done(&self, error: &h2::Error) -> bool {
        error.is_io() && self.exchanges.is_empty()
    }

    fn note_busy(&mut self) {
        let busy = !self.exchanges.is_empty();
        if busy != self.busy {
            self.busy = busy;
            self.live().activity.set_busy(busy);
        }
    }

    fn close_gracefully(&mut self) {
        self.taking = Taking::LastCall(Instant::now() + LAST_CALL);
        self.connection.graceful_shutdown();
    }

    /// Looks at the requests that wait, while there are any.
    fn poll_look(&mut self, cx: &mut Context<'_>) {
        if self.look.is_none() && self.session.has_waiting() {
            self.look = Some(Box::pin(sleep(self.session.stall() / LOOKS)));
        }
        while let Some(look) = &mut self.look
            && look.as_mut().poll(cx).is_ready()
        {
            for exchange in self.exchanges.iter_mut() {
                exchange.stall(self.session.stall());
            }
            self.look = self.session.has_waiting().then(|| Box::pin(sleep(self.session.stall() / LOOKS)));
        }
    }

    /// Says the last word and breaks the connection.
    fn cut(&mut self, cx: &mut Context<'_>, cut: &Cut) -> Ended {
        self.session.record_cut(cut);
        self.taking = Taking::None;
        self.connection.abrupt_shutdown(reason_of(cut));
        // What cannot be said at once is not said.
        let _ = self.connection.poll_closed(cx);
        self.signals.reset();
        if matches!(cut, Cut::Expired(Expired::Lingering)) { Ended::Finished } else { Ended::Cut }
    }
}

/// What the peer is told of a connection that is cut.
fn reason_of(cut: &Cut) -> Reason {
    match cut {
        Cut::Policy { .. } | Cut::Trust | Cut::Identity => Reason::INADEQUATE_SECURITY,
        Cut::Expired(Expired::Head | Expired::Stalled) => Reason::ENHANCE_YOUR_CALM,
        Cut::Expired(
            Expired::Idle | Expired::HalfClosed | Expired::Lingering | Expired::Peer | Expired::Age,
        )
        | Cut::Drained => Reason::NO_ERROR,
    }
}

fn failed(error: &h2::Error) -> Ended {
    tracing::debug!(%error, "HTTP/2 connection broke");
    Ended::Failed
}

/// The time that a request may wait is kept to one part in so many.
const LOOKS: u32 = 4;
