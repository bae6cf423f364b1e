//! The bytes of one HTTP/2 connection on their way to and from the library: counted, measured, and ended properly.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    frames::{Allowance, Frames, GOAWAY, RST_STREAM},
    limits::{CONTROL_FRAMES, CONTROL_FRAMES_PER_SECOND, CONTROL_FRAMES_PER_USEFUL},
};
use crate::{activity::Waiting, live::Live, stream::Stream};

/// What the bytes and their reader tell each other.
#[derive(Debug, Default)]
pub(super) struct Signals {
    reset: AtomicBool,
    flood: AtomicBool,
    flaws: AtomicU32,
    farewell: AtomicU32,
}

impl Signals {
    /// Makes the end of the connection a reset.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// Says whether the peer sends what brings nothing forward.
    pub(super) fn is_flooded(&self) -> bool {
        self.flood.load(Ordering::Relaxed)
    }

    /// Returns how many messages were refused for breaking the rules since this was asked last.
    pub(super) fn take_flaws(&self) -> u32 {
        if self.flaws.load(Ordering::Relaxed) == 0 { 0 } else { self.flaws.swap(0, Ordering::Relaxed) }
    }
}

impl Signals {
    /// Returns the error that the connection was told to end for, once.
    pub(super) fn take_farewell(&self) -> Option<Reason> {
        if self.farewell.load(Ordering::Relaxed) == 0 {
            return None;
        }
        Some(Reason::from(self.farewell.swap(0, Ordering::Relaxed)))
    }
}

/// Which side of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// A stream whose frames are counted.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    side: Side,
    live: Option<Arc<Live>>,
    signals: Arc<Signals>,
    came: Frames,
    went: Frames,
    allowance: Allowance,
    refilled: Instant,
    /// Something was written since the last flush.
    dirty: bool,
    lingered: Option<usize>,
}

impl Wire {
    pub(super) fn new(stream: Stream, side: Side, live: Option<Arc<Live>>, signals: Arc<Signals>) -> Self {
        let (came, went) = match side {
            Side::Server => (Frames::after(PREFACE.len()), Frames::default()),
            Side::Client => (Frames::default(), Frames::after(PREFACE.len())),
        };
        let allowance = Allowance::new(CONTROL_FRAMES);
        let refilled = Instant::now();
        Self { stream, side, live, signals, came, went, allowance, refilled, dirty: true, lingered: None }
    }

    fn note_read(&mut self, bytes: &[u8]) {
        if let Some(live) = &self.live {
            live.activity.received(bytes.len());
        }
        let (mut flood, allowance) = (false, &mut self.allowance);
        self.came.scan(bytes, |head, _| {
            if head.is_useful() {
                allowance.earn(CONTROL_FRAMES_PER_USEFUL);
            } else {
                flood |= !allowance.spend();
            }
        });
        if self.allowance.is_low() {
            self.refill();
        }
        if flood {
            self.signals.flood.store(true, Ordering::Relaxed);
        }
    }

    fn refill(&mut self) {
        let seconds = self.refilled.elapsed().as_secs();
        if seconds > 0 {
            self.refilled = Instant::now();
            let earned = u64::from(CONTROL_FRAMES_PER_SECOND).saturating_mul(seconds);
            self.allowance.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
    }

    fn note_written(&mut self, bytes: &[u8]) {
        let (signals, allowance) = (&self.signals, &mut self.allowance);
        self.went.scan(bytes, |head, payload| {
            if head.is_useful() {
                allowance.earn(CONTROL_FRAMES_PER_USEFUL);
            } else if head.kind == RST_STREAM && code(payload) == PROTOCOL_ERROR {
                signals.flaws.fetch_add(1, Ordering::Relaxed);
            } else if head.kind == GOAWAY {
                signals.farewell.store(code(payload.get(4..).unwrap_or_default()), Ordering::Relaxed);
            }
        });
    }

    fn note_count(&mut self, poll: &Poll<io::Result<usize>>) {
        let Some(live) = &self.live else { return };
        match poll {
            Poll::Ready(Ok(bytes)) => live.activity.sent(*bytes),
            Poll::Pending => live.activity.blocked(),
            Poll::Ready(Err(_)) => {}
        }
    }

    /// Reads and drops what the peer still sends: closing with unread bytes would reset the connection, and the peer might
    /// lose the last word.
    fn linger(&mut self, cx: &mut Context<'_>, mut drained: usize) -> Poll<io::Result<()>> {
        while drained < MAX_LINGER {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; LINGER_BUFFER];
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => drained += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
            self.lingered = Some(drained);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.signals.is_flooded() {
            // Not a byte more: who answers closes the connection.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.note_read(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.dirty = true;
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(taken)) = &poll {
            this.note_written(bytes.get(..*taken).unwrap_or(bytes));
        }
        this.note_count(&poll);
        poll
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.dirty = true;
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(taken)) = &poll {
            let mut left = *taken;
            for slice in slices {
                let part = slice.get(..left).unwrap_or(slice);
                this.note_written(part);
                left -= part.len();
            }
        }
        this.note_count(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.dirty {
            ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
            this.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let drained = match this.lingered {
            Some(drained) => drained,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if let (Side::Server, Some(live)) = (this.side, &this.live) {
                    live.activity.wait(Waiting::Close);
                }
                this.lingered = Some(0);
                0
            }
        };
        match this.side {
            Side::Server => this.linger(cx, drained),
            Side::Client => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.signals.reset.load(Ordering::Relaxed) {
            self.stream.reset_on_close();
        }
    }
}

fn code(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |code| u32::from_be_bytes(*code))
}

/// What a client begins with (RFC 9113 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The error code that the library resets a flawed message with. The proxy itself uses it for nothing else.
const PROTOCOL_ERROR: u32 = 1;
/// How much of a peer's further bytes is read before its connection is closed all the same.
const MAX_LINGER: usize = 1024 * 1024;
const LINGER_BUFFER: usize = 16 * 1024;
