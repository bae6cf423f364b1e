//! One end of an exchange: a stream, what was read of it ahead of its use, and what is still to be written to it.
//!
//! Bytes are read onto the stack: an end that waits holds no buffer.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) stream: Stream,
    /// Read and not used.
    pub(super) held: Vec<u8>,
    pub(super) out: Outgoing,
    /// The other side has ended its half.
    pub(super) ended: bool,
    /// What the stream said after the bytes that were shown last.
    last: Option<io::Result<()>>,
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) bytes: Vec<u8>,
    written: usize,
    /// A byte of this message was written, whatever is left of it here.
    touched: bool,
    flushed: bool,
    /// What is written stays, to be written once more elsewhere.
    kept: bool,
}

impl Outgoing {
    /// Keeps what is written until `forget`.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// Lets go of what is kept.
    pub(super) fn forget(&mut self) {
        self.kept = false;
        if self.written == self.bytes.len() {
            self.clear();
        }
    }

    /// Begins once more.
    pub(super) fn rewind(&mut self) {
        (self.written, self.touched, self.flushed) = (0, false, false);
    }

    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Returns the room of the buffer, where it is large.
    pub(super) fn release(&mut self) {
        if self.bytes.is_empty() {
            *self = Self::default();
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.written = 0;
    }

    /// Writes everything; `wrote` is told of each part.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        mut wrote: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.flushed = false;
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => {
                    self.written += taken;
                    self.touched = true;
                    wrote(taken);
                }
            }
        }
        if !self.flushed {
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            self.flushed = true;
        }
        if !self.kept {
            self.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl End {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
            out: Outgoing { flushed: true, ..Outgoing::default() },
            ended: false,
            last: None,
        }
    }

    /// Writes everything that waits.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        wrote: impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        self.out.poll(cx, &mut self.stream, wrote)
    }

    /// Reads what there is and shows it, with what was held; nothing at all is the end of the stream. What `see` does
    /// not take is held.
    pub(super) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        see: impl FnOnce(&[u8]) -> (usize, T),
    ) -> Poll<io::Result<T>> {
        let mut space = [const { MaybeUninit::<u8>::uninit() }; READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(self.poll_fill(cx, &mut buffer))?;
        let fresh = buffer.filled();
        if self.held.is_empty() {
            let (taken, seen) = see(fresh);
            self.held.extend_from_slice(fresh.get(taken..).unwrap_or_default());
            return Poll::Ready(Ok(seen));
        }
        if fresh.is_empty() {
            return Poll::Ready(Ok(see(fresh).1));
        }
        self.held.extend_from_slice(fresh);
        Poll::Ready(Ok(self.use_held(see)))
    }

    /// Reads ahead what is there at once, to a bound; returns how many bytes came.
    pub(super) fn gather(&mut self, cx: &mut Context<'_>, most: usize) -> usize {
        let before = self.held.len();
        while self.held.len() < most && self.last.is_none() {
            let now = self.held.len();
            match self.poll_read(cx, |_| (0, ())) {
                Poll::Ready(Ok(())) if self.held.len() > now => {}
                // Told again when the stream is read for what is missing.
                Poll::Ready(end) => self.last = Some(end),
                Poll::Pending => break,
            }
        }
        self.held.len() - before
    }

    /// Shows what is held; what `see` does not take stays.
    pub(super) fn use_held<T>(&mut self, see: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let (taken, seen) = see(&self.held);
        if taken >= self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..taken);
        }
        seen
    }

    /// Takes the first bytes of what is held.
    pub(super) fn take_held(&mut self, length: usize) -> Vec<u8> {
        if length >= self.held.len() {
            return std::mem::take(&mut self.held);
        }
        let rest = self.held.split_off(length);
        std::mem::replace(&mut self.held, rest)
    }

    /// Fills the buffer as far as it goes at once where much comes; a little is passed on without asking again.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(last) = self.last.take() {
            return Poll::Ready(last);
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        while buffer.filled().len() >= MUCH && buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut self.stream).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                // A socket tells of an error once: it is kept until what came before it is used.
                Poll::Ready(last) => {
                    self.last = Some(last);
                    break;
                }
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What one read takes at most. On the stack, only while the end is polled.
pub(super) const READ: usize = 64 * 1024;
/// A read of this size is one of many.
const MUCH: usize = 8 * 1024;
