//! The requests in flight on a connection, so that a change ends those that lost their right and no others.

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use super::{Cut, Live, lock};
use crate::http1::RequestLine;

/// One request that is being answered.
#[derive(Debug)]
pub(crate) struct InFlight {
    line: Arc<RequestLine>,
    cut: OnceLock<Cut>,
    waker: AtomicWaker,
}

/// Keeps a request in flight on its connection until dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    live: Arc<Live>,
    request: Arc<InFlight>,
}

/// What is to end, and why.
#[derive(Debug)]
pub(crate) struct Sentence {
    pub(crate) live: Arc<Live>,
    /// The request that lost its right where its connection did not.
    pub(crate) request: Option<Arc<InFlight>>,
    pub(crate) cut: Cut,
}

impl Sentence {
    /// Ends what was judged; returns whether it still lived. On a connection that answers one request at a time the request
    /// is the connection.
    pub(crate) fn carry_out(self) -> bool {
        match self.request {
            Some(request) if self.live.is_multiplexed() => request.cut(self.cut),
            Some(_) | None => self.live.cut(self.cut),
        }
    }
}

impl InFlight {
    pub(crate) fn line(&self) -> &RequestLine {
        &self.line
    }

    /// Ends the request. The first reason stays; returns whether it is this one.
    pub(crate) fn cut(&self, cut: Cut) -> bool {
        let first = self.cut.set(cut).is_ok();
        if first {
            self.waker.wake();
        }
        first
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get().is_some()
    }
}

impl Entered {
    /// Ready once the request is to be ended by itself; the end of its connection is told elsewhere. One task asks.
    pub(crate) fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<&Cut> {
        if let Some(cut) = self.request.cut.get() {
            return Poll::Ready(cut);
        }
        self.request.waker.register(cx.waker());
        self.request.cut.get().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        lock(&self.live.requests).retain(|request| !Arc::ptr_eq(request, &self.request));
    }
}

impl Live {
    /// Says which request is being answered. It is entered before it is decided, so that a new policy finds it.
    pub(crate) fn enter(self: &Arc<Self>, line: Arc<RequestLine>) -> Entered {
        let request = Arc::new(InFlight { line, cut: OnceLock::new(), waker: AtomicWaker::new() });
        lock(&self.requests).push(Arc::clone(&request));
        Entered { live: Arc::clone(self), request }
    }

    /// Returns the requests in flight.
    pub(crate) fn requests(&self) -> Vec<Arc<InFlight>> {
        lock(&self.requests).clone()
    }
}
