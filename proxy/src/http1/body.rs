//! Bodies on their way through, in both directions, and the few that the proxy writes itself.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    gate::{Answered, Gate, Outcome},
    headers,
    line::RequestLine,
    pool::Pool,
    upstream::Upstream,
};
use crate::live::{Entered, Live};

/// A request's body on its way upstream.
#[derive(Debug)]
pub(crate) struct RequestBody(Incoming);

impl RequestBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(body)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx).map_ok(clean)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("upstream broke off")]
    Upstream(#[source] hyper::Error),
    #[error("the peer's identity was withdrawn")]
    Withdrawn,
}

/// A response's body on its way to the client.
pub(crate) struct ReplyBody {
    source: Source,
    /// Ends the exchange when the body is done with, however that comes about.
    _exchange: Exchange,
}

enum Source {
    Own(Option<Bytes>),
    Upstream(Box<Forwarded>),
}

struct Forwarded {
    body: Incoming,
    finished: bool,
    upstream: Option<Upstream>,
    pool: Arc<Pool>,
}

/// Marks a connection as busy with a request, and tells of it when it is over.
pub(super) struct Exchange {
    live: Arc<Live>,
    gate: Arc<dyn Gate>,
    line: Option<Arc<RequestLine>>,
    entered: Option<Entered>,
    begun: Instant,
    before: (u64, u64),
    status: Option<StatusCode>,
    outcome: Outcome,
}

impl Exchange {
    pub(super) fn begin(live: &Arc<Live>, gate: &Arc<dyn Gate>) -> Self {
        live.activity.set_busy(true);
        Self {
            live: Arc::clone(live),
            gate: Arc::clone(gate),
            line: None,
            entered: None,
            begun: Instant::now(),
            before: live.activity.totals(),
            status: None,
            outcome: Outcome::Broken,
        }
    }

    /// Says which request is being answered.
    pub(super) fn enter(&mut self, line: &Arc<RequestLine>) {
        self.line = Some(Arc::clone(line));
        self.entered = Some(self.live.enter(Arc::clone(line)));
    }

    /// Says what the answer is.
    pub(super) fn answer(&mut self, status: StatusCode, outcome: Outcome) {
        (self.status, self.outcome) = (Some(status), outcome);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.entered = None;
        self.live.activity.set_busy(false);
        let Some(line) = &self.line else { return };
        let (received, sent) = self.live.activity.totals();
        let outcome = if self.live.is_cut() { Outcome::Cut } else { self.outcome };
        self.gate.answered(&Answered {
            line,
            status: self.status,
            grpc_status: None,
            took: self.begun.elapsed(),
            received: received - self.before.0,
            sent: sent - self.before.1,
            outcome,
        });
    }
}

impl ReplyBody {
    pub(super) fn own(bytes: Bytes, exchange: Exchange) -> Self {
        Self { source: Source::Own((!bytes.is_empty()).then_some(bytes)), _exchange: exchange }
    }

    pub(super) fn forwarded(body: Incoming, upstream: Upstream, pool: Arc<Pool>, exchange: Exchange) -> Self {
        let forwarded = Forwarded { body, finished: false, upstream: Some(upstream), pool };
        Self { source: Source::Upstream(Box::new(forwarded)), _exchange: exchange }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().source {
            Source::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(forwarded) => forwarded.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_none(),
            Source::Upstream(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(forwarded) => forwarded.body.size_hint(),
        }
    }
}

impl Forwarded {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(upstream) = &mut self.upstream {
            if upstream.poll_withdrawn(cx).is_ready() {
                upstream.reset();
                return Poll::Ready(Some(Err(BodyError::Withdrawn)));
            }
            // An end shows in the body.
            let _ = upstream.drive(cx);
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx).map_err(BodyError::Upstream);
        self.finished |= matches!(frame, Poll::Ready(None));
        frame.map_ok(clean)
    }
}

impl Drop for Forwarded {
    /// A connection whose response was read to its end serves again; any other is closed.
    fn drop(&mut self) {
        let finished = self.finished || self.body.is_end_stream();
        if let Some(mut upstream) = self.upstream.take().filter(|_| finished)
            && upstream.is_reusable()
        {
            self.pool.put(upstream);
        }
    }
}

fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
