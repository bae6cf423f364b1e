//! One HTTP/1 connection to the application or to a peer, driven by whoever uses it.
//!
//! No task of its own: the exchange that holds the connection polls it, so a request costs no hand-over between
//! tasks, and an idle connection is only a value in the pool.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    end::End,
    pool::PoolKey,
    scanner::{HeadLimits, Scanner},
};
use crate::{outbound::Opened, stream::Stream};

/// A connection, what it may be used for, and since when it is idle.
pub(crate) struct Upstream {
    pub(super) end: End,
    pub(super) scanner: Scanner,
    /// It has served a request before.
    pub(super) used: bool,
    opened: Option<Opened>,
    pub(super) key: PoolKey,
    pub(super) idle_since: Instant,
}

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
    /// Nothing can be called at all: no endpoint is known or in use, or all have as much to do as they may.
    #[error("the service is not available: {reason}")]
    Unavailable {
        /// The failure's code.
        reason: &'static str,
    },
    /// The handshake failed otherwise.
    #[error("handshake failed: {reason}")]
    Handshake {
        /// The failure's code.
        reason: &'static str,
    },
}

impl Upstream {
    pub(super) fn new(dialled: Dialled, limits: HeadLimits) -> Self {
        let (end, scanner) = (End::new(dialled.stream), Scanner::new(limits));
        let (opened, key) = (dialled.opened, dialled.key);
        Self { end, scanner, used: false, opened, key, idle_since: Instant::now() }
    }

    /// Says whether a kept connection can take a request: nobody asked for what it would say now, and it has not ended.
    pub(super) fn poll_usable(&mut self, cx: &mut Context<'_>) -> bool {
        !self.is_given_up() && self.end.held.is_empty() && self.end.poll_read(cx, |_| (0, ())).is_pending()
    }

    /// Ready when the peer's identity is no longer accepted.
    pub(super) fn poll_withdrawn(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.opened {
            Some(opened) => opened.live().poll_cut(cx).map(|_| ()),
            None => Poll::Pending,
        }
    }

    /// Notes bytes that the peer sent and was sent.
    pub(super) fn count(&self, received: usize, sent: usize) {
        if let Some(opened) = &self.opened {
            let activity = &opened.live().activity;
            if received > 0 {
                activity.received(received);
            }
            if sent > 0 {
                activity.sent(sent);
            }
        }
    }

    /// Says whether the peer's identity is no longer accepted, or was proved by a certificate that has expired.
    pub(super) fn is_given_up(&self) -> bool {
        self.opened.as_ref().is_some_and(|opened| opened.live().is_cut() || opened.live().is_retired())
    }

    /// Makes the end of the connection a reset.
    pub(super) fn reset(&mut self) {
        self.end.stream.reset_on_close();
    }

    /// Parts the stream from what keeps it in the registry.
    pub(super) fn into_parts(self) -> (End, Option<Opened>) {
        (self.end, self.opened)
    }
}
