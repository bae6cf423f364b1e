//! One stream of a tunnel as a byte stream.
//!
//! The window of a stream opens again only for bytes whose reader has come back for more: whoever sends is held up by
//! whoever reads. A stream that does not end in order ends in a reset, so that nobody takes half for the whole.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{answer::Answer, pool::Slot};
use crate::stream::{Declined, Io};

/// A stream of a tunnel, of either side of it.
#[derive(Debug)]
pub(super) struct TunnelStream {
    receive: RecvStream,
    send: Half,
    /// Received and not handed on.
    kept: Bytes,
    /// Handed on, and not known to be forwarded.
    taken: usize,
    reset: bool,
    /// Its place in a tunnel of ours.
    _slot: Option<Slot>,
}

/// Our direction.
#[derive(Debug)]
enum Half {
    /// The caller waits to hear whether it is let through.
    Asked(Answer),
    Open(SendStream<Bytes>),
    Ended(SendStream<Bytes>),
    Over,
}

impl TunnelStream {
    /// A stream whose caller hears that it is let through with the first step that is taken on it.
    pub(super) fn asked(receive: RecvStream, answer: Answer) -> Self {
        Self::new(receive, Half::Asked(answer), None)
    }

    /// A stream that the other side has let through.
    pub(super) fn let_through(receive: RecvStream, send: SendStream<Bytes>, slot: Slot) -> Self {
        Self::new(receive, Half::Open(send), Some(slot))
    }

    fn new(receive: RecvStream, send: Half, slot: Option<Slot>) -> Self {
        Self { receive, send, kept: Bytes::new(), taken: 0, reset: false, _slot: slot }
    }

    /// Tells the caller that it is let through, unless it knows.
    fn accept(&mut self) -> io::Result<()> {
        if let Half::Asked(_) = &self.send
            && let Half::Asked(answer) = std::mem::replace(&mut self.send, Half::Over)
        {
            self.send = Half::Open(answer.let_through().map_err(broken)?);
        }
        Ok(())
    }

    /// Lets the sender send as much again as was forwarded.
    fn release(&mut self) {
        if self.taken > 0 {
            // Fails only where the stream is over.
            let _ = self.receive.flow_control().release_capacity(self.taken);
            self.taken = 0;
        }
    }

    /// Waits for bytes; none are the end of the sender's direction.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.kept.is_empty() {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(bytes)) => self.kept = bytes,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Io for TunnelStream {
    fn reset_on_close(&mut self) {
        self.reset = true;
    }

    fn decline(&mut self, why: Declined) {
        match std::mem::replace(&mut self.send, Half::Over) {
            Half::Asked(answer) => answer.decline(why),
            other => {
                self.send = other;
                self.reset_on_close();
            }
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.accept()?;
        this.release();
        ready!(this.poll_bytes(cx))?;
        let length = this.kept.len().min(buffer.remaining());
        buffer.put_slice(&this.kept.split_to(length));
        this.taken += length;
        if this.kept.is_empty() {
            // What is empty may still hold the memory that it was a part of.
            this.kept = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.accept()?;
        let Half::Open(send) = &mut this.send else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        send.reserve_capacity(bytes.len());
        let room = match send.capacity() {
            0 => match ready!(send.poll_capacity(cx)) {
                Some(room) => room.map_err(broken)?,
                None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            },
            room => room,
        };
        let part = bytes.get(..room).unwrap_or(bytes);
        send.send_data(Bytes::copy_from_slice(part), false).map_err(broken)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The tunnel sends what is there with whatever else its streams have.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.accept()?;
        match std::mem::replace(&mut this.send, Half::Over) {
            Half::Open(mut send) => {
                send.send_data(Bytes::new(), true).map_err(broken)?;
                this.send = Half::Ended(send);
            }
            other => this.send = other,
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        match &mut self.send {
            Half::Asked(answer) => answer.reset(),
            Half::Open(send) => send.send_reset(BROKEN),
            Half::Ended(send) if self.reset => send.send_reset(BROKEN),
            Half::Ended(_) | Half::Over => {}
        }
    }
}

/// Every end of a tunnel or a stream out of order is a broken connection. `CANCEL` and `NO_ERROR` are too: some take them
/// for an end in order.
fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

/// RFC 9113 8.5: an error of the connection that is carried.
pub(super) const BROKEN: Reason = Reason::CONNECT_ERROR;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_stream_holds_little_room() {
        assert!(size_of::<TunnelStream>() <= 128, "{}", size_of::<TunnelStream>());
    }
}
