//! The kinds of byte streams that connections are made of, as one type.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::tls::{Scratch, TlsStream};

/// A connection: plaintext, or TLS from either side. The TLS state is boxed: it is large and plain
/// connections are many.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    Other(Box<dyn Io>),
}

/// Any other byte stream: one of a tunnel, or one of which something has been read ahead.
pub(crate) trait Io: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Sync + Unpin {
    /// Makes the end of the stream a reset.
    fn reset_on_close(&mut self);

    /// Says why the stream is not carried, where its caller waits to hear that it is.
    fn decline(&mut self, _why: Declined) {
        self.reset_on_close();
    }
}

/// Why a connection is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    /// Policy forbids it.
    Denied,
    /// Nobody answers where it leads.
    Unreachable,
}

impl Stream {
    /// Makes the end of this connection a reset: what is refused must not look like an empty, successful reply.
    pub(crate) fn reset_on_close(&mut self) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref(),
            Self::Other(stream) => return stream.reset_on_close(),
        };
        // A socket that is already gone has nothing left to reset.
        let _ = socket.set_zero_linger();
    }
}

impl Stream {
    /// Ends a connection that is not carried. Only a tunnel has words for it.
    pub(crate) fn decline(&mut self, why: Declined) {
        match self {
            Self::Other(stream) => stream.decline(why),
            Self::Plain(_) | Self::Tls(_) => self.reset_on_close(),
        }
    }
}

impl Stream {
    /// Reads about `want` bytes at most, once where that is enough, to the beginning of `scratch`. Returns how many there are,
    /// none at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        want: usize,
    ) -> Poll<io::Result<usize>> {
        if let Self::Tls(stream) = self {
            return stream.poll_open(cx, scratch, want);
        }
        let mut buffer = ReadBuf::new(scratch.get_mut(..want).unwrap_or_default());
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

/// Bounds what the kernel queues between two ends on this host. More brings no speed there, and what outgrows the cache is slow
/// to copy: it makes a third of what many bytes cost. To another host the kernel goes on choosing for itself.
pub(crate) fn bound_within_host(socket: &TcpStream, there: IpAddr) {
    let there = there.to_canonical();
    // A redirected call of our workload comes from its own address and arrives at a loopback one.
    let is_within = there.is_loopback()
        || socket.local_addr().is_ok_and(|here| {
            let here = here.ip().to_canonical();
            here.is_loopback() || here == there
        });
    if is_within {
        let socket = SockRef::from(socket);
        // Both only save work on a connection that works without them.
        let _ = socket.set_recv_buffer_size(QUEUE_WITHIN_HOST);
        let _ = socket.set_send_buffer_size(QUEUE_WITHIN_HOST);
    }
}

/// What each end of a connection within this host may queue.
const QUEUE_WITHIN_HOST: usize = 256 * 1024;

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_kernel_queues_within_a_host_is_bounded() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = TcpStream::connect(address).await.unwrap();

        bound_within_host(&socket, address.ip());

        // The kernel grants at most twice what is asked for.
        let granted = SockRef::from(&socket).recv_buffer_size().unwrap();
        assert!(granted <= 2 * QUEUE_WITHIN_HOST, "{granted}");
    }
}
