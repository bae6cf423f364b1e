//! Serves the requests of one connection until it ends, is cut or drains.
//!
//! One task, and nothing of a request in it while there is none.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    end::End,
    exchange::{After, MAX_START, Session},
    flaw::Flaw,
    reply::{self, Addressee},
    scanner::{HeadLimits, Scanned, Scanner, Side},
    switched,
};
use crate::{activity::Waiting, stream::Stream};

/// How a served connection ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Both sides were done.
    Finished,
    /// The client's connection broke, or an upstream broke in the middle of a response.
    Failed(ServeError),
    /// The connection was cut; the reason is kept by its registration.
    Cut,
}

/// Why a connection was not served to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The client's side broke.
    #[error("the client broke off")]
    Client(#[source] io::Error),
    /// A flaw came where no answer could tell of it.
    #[error("the body of a request cannot be read: {0}")]
    Flawed(Flaw),
    /// The upstream broke off within a response.
    #[error("the upstream broke off")]
    BrokenOff,
    /// The upstream's identity was withdrawn within a response.
    #[error("the peer's identity was withdrawn")]
    Withdrawn,
}

/// Serves `stream`. On `drain`, or once the peer's certificate has expired, the request in flight is finished and the
/// connection closed.
pub(crate) async fn serve(
    stream: Stream,
    limits: HeadLimits,
    session: Arc<Session>,
    drain: &CancellationToken,
) -> Ended {
    let mut client = Client { end: End::new(stream), scanner: Scanner::new(limits) };
    let drained = pin!(drain.cancelled());
    let mut last = Last { drained, is: false };
    loop {
        let after = match poll_fn(|cx| client.poll_request(cx, &session, &mut last)).await {
            Next::Request(scanned) => {
                // Boxed: an idle connection holds no room for a request.
                Box::pin(session.answer(&mut client.end, *scanned, drain)).await
            }
            Next::Flawed(flaw) => client.refuse(&session, flaw),
            Next::Ended => After::Close,
            Next::Broken(error) => After::Break(ServeError::Client(error)),
            Next::Cut => After::Cut,
        };
        match after {
            After::KeepAlive => {}
            After::Close => return Box::pin(close(client.end, &session)).await,
            After::Switch(switched) => {
                let (upstream, exchange) = *switched;
                return Box::pin(switched::carry(client.end, upstream, &session, exchange)).await;
            }
            After::Break(error) => {
                // A response that broke off must not look whole.
                client.end.stream.reset_on_close();
                return Ended::Failed(error);
            }
            After::Cut => {
                cut(&mut client.end.stream, &session);
                return Ended::Cut;
            }
        }
    }
}

/// Puts a cut on record and makes the end a reset.
pub(super) fn cut(stream: &mut Stream, session: &Session) {
    if let Some(cut) = session.live.cut_reason() {
        session.record_cut(cut);
    }
    stream.reset_on_close();
}

/// Whether no request is to follow.
struct Last<'l, 'd> {
    drained: Pin<&'l mut WaitForCancellationFuture<'d>>,
    is: bool,
}

/// What comes of waiting for a request.
enum Next {
    Request(Box<Scanned>),
    Flawed(Flaw),
    /// There is none, and none will come.
    Ended,
    Broken(io::Error),
    Cut,
}

/// A client between two requests.
struct Client {
    end: End,
    scanner: Scanner,
}

impl Client {
    fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        session: &Session,
        last: &mut Last<'_, '_>,
    ) -> Poll<Next> {
        let live = &session.live;
        if live.poll_cut(cx).is_ready() {
            return Poll::Ready(Next::Cut);
        }
        // What is owed is written first.
        if let Poll::Ready(Err(error)) = self.poll_write(cx, session) {
            return Poll::Ready(Next::Broken(error));
        }
        loop {
            if !self.end.held.is_empty() {
                match self.scanner.head(&self.end.held, Side::Request) {
                    Ok(Some(scanned)) => {
                        live.activity.wait(Waiting::Request);
                        return Poll::Ready(Next::Request(Box::new(scanned)));
                    }
                    Ok(None) => live.activity.wait(Waiting::Head),
                    Err(flaw) => return Poll::Ready(Next::Flawed(flaw)),
                }
            } else if self.end.ended || last.poll(cx) || live.is_retired() {
                return Poll::Ready(Next::Ended);
            }
            let before = self.end.held.len();
            match ready!(self.end.poll_read(cx, |_| (0, ()))) {
                Err(error) => return Poll::Ready(Next::Broken(error)),
                Ok(()) if self.end.held.len() > before => {
                    live.activity.received(self.end.held.len() - before);
                }
                Ok(()) if before == 0 => return Poll::Ready(Next::Ended),
                Ok(()) => return Poll::Ready(Next::Broken(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<io::Result<()>> {
        let mut sent = 0;
        let written = self.end.poll_write(cx, |bytes| sent += bytes);
        if sent > 0 {
            session.live.activity.sent(sent);
        }
        if written.is_pending() {
            session.live.activity.blocked();
        }
        written
    }

    /// Answers what is no request.
    fn refuse(&mut self, session: &Session, flaw: Flaw) -> After {
        let start = self.end.held.get(..MAX_START).unwrap_or(&self.end.held);
        let denial = session.gate.malformed(flaw, start, None);
        reply::refused(flaw.status(), denial, Addressee::UNREAD, &mut self.end.out.bytes);
        After::Close
    }
}

impl Last<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.is |= self.drained.as_mut().poll(cx).is_ready();
        self.is
    }
}

/// Writes what is owed, closes our end and waits for the client to have read it: closing with unread bytes would reset the
/// connection, and the client might lose its answer.
async fn close(mut end: End, session: &Session) -> Ended {
    let activity = &session.live.activity;
    let (mut closed, mut drained) = (false, 0);
    poll_fn(|cx| {
        if session.live.poll_cut(cx).is_ready() {
            if !closed {
                cut(&mut end.stream, session);
            }
            return Poll::Ready(Ended::Cut);
        }
        if !closed {
            let mut sent = 0;
            let written = end.poll_write(cx, |bytes| sent += bytes);
            if sent > 0 {
                activity.sent(sent);
            }
            if written.is_pending() {
                activity.blocked();
            }
            // A client that is gone needs no goodbye.
            if ready!(written).is_err() || ready!(Pin::new(&mut end.stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(Ended::Finished);
            }
            closed = true;
            activity.wait(Waiting::Close);
        }
        while drained < MAX_LINGER && !end.ended {
            let mut came = 0;
            let read = ready!(end.poll_read(cx, |bytes| {
                came = bytes.len();
                (came, ())
            }));
            drained += came;
            end.ended = came == 0 || read.is_err();
        }
        Poll::Ready(Ended::Finished)
    })
    .await
}

/// How much of a refused client's further bytes is read before its connection is closed all the same.
pub(super) const MAX_LINGER: usize = 1024 * 1024;
