//! One HTTP/1 connection to the application or to a peer, driven by whoever uses it.
//!
//! No task of its own: the exchange that holds the connection polls it, so a request costs no hand-over between
//! tasks, and an idle connection is only a value in the pool.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use http::{Method, Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{
    body::RequestBody,
    io::{ScannedIo, Wire},
    pool::PoolKey,
    scanner::HeadLimits,
};
use crate::{outbound::Opened, stream::Stream};

/// A connection, what it may be used for, and since when it is idle.
pub(crate) struct Upstream {
    sender: SendRequest<RequestBody>,
    driver: Option<Driver>,
    wire: Arc<Wire>,
    opened: Option<Opened>,
    pub(super) key: PoolKey,
    pub(super) idle_since: Instant,
}

/// What moves the bytes of a connection.
struct Driver(Pin<Box<Connection<TokioIo<ScannedIo>, RequestBody>>>);

/// A new connection before HTTP is spoken on it.
pub(crate) struct Dialled {
    pub(crate) stream: Stream,
    pub(crate) key: PoolKey,
    /// Present where the peer has an identity that may be withdrawn.
    pub(crate) opened: Option<Opened>,
}

/// Makes connections for a pool.
pub(crate) trait Dial: Send + Sync + 'static {
    /// Returns what an idle connection has to match now, or why nothing may be sent.
    fn key(&self) -> Result<PoolKey, DialError>;
    /// Connects.
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send + '_>>;
}

/// Why there is no connection to send a request on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// We have no identity to prove.
    #[error("no identity")]
    NoIdentity,
    /// Nobody answers.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// No answer in time.
    #[error("connecting took too long")]
    TimedOut,
    /// The peer proved another identity, or none.
    #[error("peer refused: {reason}")]
    Rejected {
        /// The verifier's code.
        reason: &'static str,
        /// What the refusal is called in the record.
        denial: audit::DenialId,
    },
    /// The handshake failed otherwise.
    #[error("handshake failed: {reason}")]
    Handshake {
        /// The failure's code.
        reason: &'static str,
    },
    /// HTTP could not be started on the connection.
    #[error("connection ended at once")]
    Ended(#[source] hyper::Error),
}

/// Why a request got no response.
pub(super) enum SendError {
    /// Nothing of the request was sent: it may go on another connection.
    Unsent(Box<Request<RequestBody>>),
    /// The upstream broke off or answered in a way that cannot be read.
    Broken,
    /// The peer's identity is no longer accepted.
    Withdrawn,
}

impl Upstream {
    pub(super) async fn start(dialled: Dialled, limits: HeadLimits) -> Result<Self, DialError> {
        let wire = Arc::new(Wire::default());
        let live = dialled.opened.as_ref().map(|opened| Arc::clone(opened.live()));
        let io = ScannedIo::responses(dialled.stream, limits, Arc::clone(&wire), live);
        let (sender, connection) = Builder::new()
            .max_headers(limits.count)
            .max_buf_size(limits.buffer())
            .handshake(TokioIo::new(io))
            .await
            .map_err(DialError::Ended)?;
        Ok(Self {
            sender,
            driver: Some(Driver(Box::pin(connection))),
            wire,
            opened: dialled.opened,
            key: dialled.key,
            idle_since: Instant::now(),
        })
    }

    /// Says whether a kept connection can take a request. Sees an end that came meanwhile.
    pub(super) fn poll_usable(&mut self, cx: &mut Context<'_>) -> bool {
        !self.is_given_up() && self.drive(cx).is_pending() && self.sender.is_ready()
    }

    /// Says whether the connection is between exchanges, without waiting for it.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.poll_usable(&mut Context::from_waker(Waker::noop()))
    }

    /// Moves the connection on; ready when it has ended.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(driver) = &mut self.driver else { return Poll::Ready(()) };
        match driver.0.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(_) => {
                // What went wrong shows in the response or the body.
                self.driver = None;
                Poll::Ready(())
            }
        }
    }

    /// Ready when the peer's identity is no longer accepted.
    pub(super) fn poll_withdrawn(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.opened {
            Some(opened) => opened.live().poll_cut(cx).map(|_| ()),
            None => Poll::Pending,
        }
    }

    /// Says whether the peer's identity is no longer accepted, or was proved by a certificate that has expired.
    fn is_given_up(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.live().is_cut() || opened.live().is_retired())
    }

    /// Makes the end of the connection a reset.
    pub(super) fn reset(&self) {
        self.wire.reset();
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.wire.await_response(request.method() == Method::HEAD);
        let sending = self.sender.try_send_request(request);
        let mut sending = pin!(sending);
        poll_fn(|cx| {
            if self.poll_withdrawn(cx).is_ready() {
                self.reset();
                return Poll::Ready(Err(SendError::Withdrawn));
            }
            let ended = self.drive(cx).is_ready();
            match sending.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                    Some(request) => SendError::Unsent(Box::new(request)),
                    None => SendError::Broken,
                })),
                Poll::Pending if ended => Poll::Ready(Err(SendError::Broken)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
