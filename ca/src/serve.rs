//! The two listeners: TLS for agents and distant operators, a Unix socket for those on the host.
//!
//! Both serve the same methods behind the same gate; they differ in what a connection proves.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tonic::transport::server::{Connected, Server};

use crate::{
    access::Origin,
    services::{Core, GateLayer, routes},
};

pub(crate) mod admin;
pub(crate) mod tls;

/// A connection together with what it proves about its other end, and the place that it gives back when it ends.
pub(crate) struct Connection<S, P> {
    stream: S,
    origin: Origin,
    lasts: Lasts,
    _place: P,
}

/// How long a connection may be used.
pub(crate) enum Lasts {
    /// As long as the other end likes.
    Open,
    /// Until then.
    Until(Pin<Box<Sleep>>),
}

impl Lasts {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        match self {
            Self::Open => false,
            Self::Until(end) => end.as_mut().poll(context).is_ready(),
        }
    }
}

impl<S, P> Connected for Connection<S, P> {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.origin.clone()
    }
}

impl<S: AsyncRead + Unpin, P: Unpin> AsyncRead for Connection<S, P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A reader is always waiting here, so the end comes on time even where nothing is sent.
        if self.lasts.is_over(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Connection<S, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves the API on `connections` until the CA stops, then lets requests under way finish for a while.
pub(crate) async fn serve<S, P>(
    connections: impl futures_util::Stream<Item = Result<Connection<S, P>, io::Error>>,
    core: &Arc<Core>,
) -> Result<(), tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Unpin + Send + 'static,
{
    let server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME_BYTES)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
        .timeout(REQUEST_TIMEOUT)
        .layer(GateLayer(core.clone()))
        .add_routes(routes(core))
        .serve_with_incoming_shutdown(connections, core.stop.clone().cancelled_owned());
    let drained = async {
        core.stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served,
        // A client that keeps a request open does not keep the CA.
        () = drained => Ok(()),
    }
}

/// Streams of one connection at once.
const MAX_STREAMS: u32 = 64;
/// HTTP/2's smallest.
const MAX_FRAME_BYTES: u32 = 16 * 1024;
/// gRPC headers are small.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How often a quiet connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams a client may reset before they were served (HTTP/2 rapid reset).
const MAX_RESETS: usize = 64;
/// How long a method may take to begin its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may go on after the order to stop.
const DRAIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, sync::Semaphore};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_its_time_is_over_even_if_nothing_is_sent() {
        let (near, _far) = tokio::io::duplex(16);
        let places = Arc::new(Semaphore::new(1));
        let mut connection = Connection {
            stream: near,
            origin: Origin::Local { uid: 0, gid: 0 },
            lasts: Lasts::Until(Box::pin(tokio::time::sleep(Duration::from_secs(60)))),
            _place: places.clone().try_acquire_owned().unwrap(),
        };

        let ended = connection.read_u8().await.unwrap_err();
        drop(connection);

        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert_eq!(places.available_permits(), 1);
    }
}
