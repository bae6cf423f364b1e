//! Waits for the first bytes of a caller, and serves HTTP in the version that it speaks.

use std::{future::poll_fn, mem::MaybeUninit, pin::Pin, sync::Arc, task::Poll, time::Duration};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    ahead::Ahead,
    first::{Found, Verdict, among_all, among_http},
};
use crate::{
    activity::Waiting,
    http1::{self, Gate},
    http2,
    live::Live,
    outbound::Onward,
    shared::Shared,
    stream::Stream,
};

/// Where the requests of a listener go on, in either version.
#[derive(Clone)]
pub(crate) struct Ways {
    pub(crate) http1: Arc<http1::Pool>,
    pub(crate) http2: Arc<http2::Pool>,
}

/// How a connection that speaks HTTP ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It spoke HTTP/1, or nothing.
    Http1(http1::Ended),
    /// It spoke HTTP/2.
    Http2(http2::Ended),
}

impl Ended {
    /// Says whether it broke.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self, Self::Http1(http1::Ended::Failed(_)) | Self::Http2(http2::Ended::Failed))
    }
}

/// Serves requests in the version that the caller speaks.
pub(crate) async fn http<G: Gate>(
    stream: Stream,
    gate: G,
    onward: impl Into<Onward>,
    live: &Arc<Live>,
    shared: &Shared,
) -> Ended {
    let mut opening = Opening { stream, bytes: BytesMut::new() };
    // A port that detects has read the first bytes already: they come again.
    match opening.see(among_http, live, &shared.drain).await {
        Seen::Is(Found::Http2) => {
            let stream = opening.into_stream();
            let session = http2::Session::new(gate, onward.into(), Arc::clone(live), shared.limits.streams());
            // Boxed: callers of HTTP/1 do not pay for the room.
            Ended::Http2(Box::pin(http2::serve(stream, Arc::new(session), &shared.drain)).await)
        }
        Seen::Is(Found::Http1 | Found::Opaque) => {
            let stream = opening.into_stream();
            let session = http1::Session::new(gate, onward.into(), Arc::clone(live));
            let (limits, session) = (shared.limits.head(), Arc::new(session));
            Ended::Http1(Box::pin(http1::serve(stream, limits, session, &shared.drain)).await)
        }
        Seen::Last => {
            // A client that is gone needs no goodbye.
            let _ = opening.stream.shutdown().await;
            Ended::Http1(http1::Ended::Finished)
        }
        Seen::Cut => {
            if let Some(cut) = live.cut_reason() {
                gate.cut(cut);
            }
            opening.stream.reset_on_close();
            Ended::Http1(http1::Ended::Cut)
        }
    }
}

/// Finds out what a caller speaks where it may speak anything. Who says nothing for too long waits for the other side to
/// speak first. None where the connection is to end: it was cut, and its end is a reset.
pub(crate) async fn detect(
    stream: Stream,
    live: &Live,
    (patience, drain): (Duration, &CancellationToken),
) -> Option<(Found, Stream)> {
    let mut opening = Opening { stream, bytes: BytesMut::new() };
    let seen = timeout(patience, opening.see(among_all, live, drain)).await;
    match seen {
        Ok(Seen::Is(found)) => Some((found, opening.into_stream())),
        Err(_) => Some((Found::Opaque, opening.into_stream())),
        Ok(Seen::Cut | Seen::Last) => {
            opening.stream.reset_on_close();
            None
        }
    }
}

/// A connection that has just begun, and what it began with.
struct Opening {
    stream: Stream,
    bytes: BytesMut,
}

/// What came of waiting for the first bytes.
enum Seen {
    Is(Found),
    /// Nothing came, and nothing more is to be taken.
    Last,
    Cut,
}

impl Opening {
    /// Reads until it is clear what is spoken.
    async fn see(&mut self, judge: fn(&[u8]) -> Verdict, live: &Live, drain: &CancellationToken) -> Seen {
        loop {
            if let Verdict::Is(found) = judge(&self.bytes) {
                live.activity.wait(Waiting::Request);
                return Seen::Is(found);
            }
            let nothing = self.bytes.is_empty();
            if !nothing {
                // From its first byte a head has a time limit, whoever may read it.
                live.activity.wait(Waiting::Head);
            }
            let ended = tokio::select! {
                biased;
                _ = live.wait_cut() => return Seen::Cut,
                () = drain.cancelled(), if nothing => return Seen::Last,
                () = live.wait_retired(), if nothing => return Seen::Last,
                ended = self.read() => ended,
            };
            if ended {
                // Whoever serves it sees the end again, and says what it means.
                live.activity.wait(Waiting::Request);
                return Seen::Is(Found::Opaque);
            }
        }
    }

    /// Reads what there is; true at the end. No room is taken while nothing comes.
    async fn read(&mut self) -> bool {
        let Self { stream, bytes } = self;
        poll_fn(|cx| {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    bytes.extend_from_slice(buffer.filled());
                    Poll::Ready(false)
                }
                Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(true),
            }
        })
        .await
    }

    /// Returns the stream as it was.
    fn into_stream(self) -> Stream {
        Ahead::put(self.bytes, self.stream)
    }
}

/// Most first requests fit into one read.
const READ: usize = 4 * 1024;
