//! A stream of which something has been read ahead: it is read again first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::{Io, Stream};

/// A stream, and what was read of it.
#[derive(Debug)]
pub(super) struct Ahead {
    bytes: BytesMut,
    stream: Stream,
}

impl Ahead {
    /// Puts `bytes` in front of `stream`.
    pub(super) fn put(bytes: BytesMut, stream: Stream) -> Stream {
        if bytes.is_empty() {
            return stream;
        }
        Stream::Other(Box::new(Self { bytes, stream }))
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.bytes.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let taken = this.bytes.len().min(buffer.remaining());
        buffer.put_slice(this.bytes.get(..taken).unwrap_or_default());
        this.bytes.advance(taken);
        if this.bytes.is_empty() {
            // Gives the room back.
            this.bytes = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl Io for Ahead {
    fn reset_on_close(&mut self) {
        self.stream.reset_on_close();
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn what_was_read_ahead_comes_first_and_nothing_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        client.write_all(b" world").await.unwrap();
        client.shutdown().await.unwrap();

        let mut stream = Ahead::put(BytesMut::from(&b"hello"[..]), Stream::Plain(socket));
        let mut start = [0; 3];
        stream.read_exact(&mut start).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();

        assert_eq!((&start, rest.as_str()), (b"hel", "lo world"));
    }
}
