//! The bytes of one HTTP/1 connection on their way to the library: scanned, measured, and ended properly.
//!
//! A flawed request head never reaches the library. In its place goes a head of our own that ends the
//! connection, so that the refusal is answered in order, after the responses still owed.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    flaw::Flaw,
    scanner::{HeadLimits, Phase, Scanner, Side},
};
use crate::{
    activity::{Activity, Waiting},
    live::Live,
    stream::Stream,
};

/// A flaw, the request it was in, and how that request began.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) flaw: Flaw,
    /// Counts the requests of the connection from one.
    pub(crate) request: u64,
    /// The first bytes of the flawed message, cut short.
    pub(crate) start: Vec<u8>,
}

/// What the scanning side and the answering side of one connection share.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    heads: AtomicU64,
    awaited: AtomicU8,
    reset: AtomicBool,
    report: Mutex<Option<Report>>,
}

impl Wire {
    /// Makes the end of the connection a reset.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    /// A response is now expected from the upstream.
    pub(crate) fn await_response(&self, to_head: bool) {
        self.awaited.store(if to_head { AWAITED_TO_HEAD } else { AWAITED }, Ordering::Relaxed);
    }

    /// Returns the flaw found, if one was.
    pub(crate) fn report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the flaw found: who takes it records it.
    pub(crate) fn take_report(&self) -> Option<Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_report(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }
}

/// Whose bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    Requests,
    Responses,
}

/// A stream whose incoming bytes are scanned.
#[derive(Debug)]
pub(crate) struct ScannedIo {
    stream: Stream,
    reads: Reads,
    scanner: Scanner,
    wire: Arc<Wire>,
    live: Option<Arc<Live>>,
    /// Bytes read and not handed on; the first `ready` of them may be.
    held: BytesMut,
    ready: usize,
    place: Place,
    /// Nothing of the message being scanned has been handed on.
    whole: bool,
    drained: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Scanning,
    /// The refusal's head is on its way: nothing is read any more.
    Refusing,
    /// Our end is closed; what the client still sends is read and dropped, to a bound.
    Lingering,
}

impl ScannedIo {
    pub(crate) fn requests(stream: Stream, limits: HeadLimits, wire: Arc<Wire>, live: Arc<Live>) -> Self {
        Self::new(stream, Reads::Requests, limits, wire, Some(live))
    }

    pub(crate) fn responses(
        stream: Stream,
        limits: HeadLimits,
        wire: Arc<Wire>,
        live: Option<Arc<Live>>,
    ) -> Self {
        Self::new(stream, Reads::Responses, limits, wire, live)
    }

    fn new(
        stream: Stream,
        reads: Reads,
        limits: HeadLimits,
        wire: Arc<Wire>,
        live: Option<Arc<Live>>,
    ) -> Self {
        let scanner = Scanner::new(limits);
        let (held, ready, place, whole, drained) = (BytesMut::new(), 0, Place::Scanning, true, 0);
        Self { stream, reads, scanner, wire, live, held, ready, place, whole, drained }
    }

    fn activity(&self) -> Option<&Activity> {
        self.live.as_deref().map(|live| &live.activity)
    }

    /// Reads into `buffer` and leaves there what may go on; false when nothing may yet.
    fn read_through(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if let Some(activity) = self.activity() {
            activity.received(bytes.len());
        }
        let passed = match self.scan(bytes) {
            Ok(passed) => passed,
            Err(flaw) => {
                let start = first_bytes(bytes);
                buffer.set_filled(before);
                return Poll::Ready(self.refuse(flaw, start).map(|()| false));
            }
        };
        self.held.extend_from_slice(bytes.get(passed..).unwrap_or_default());
        buffer.set_filled(before + passed);
        self.note_phase();
        Poll::Ready(Ok(passed > 0))
    }

    /// Reads more of what is held back.
    fn read_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.reserve(READ_MORE);
        let read = ready!(tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.held))?;
        if let Some(activity) = self.activity() {
            activity.received(read);
        }
        Poll::Ready(Ok(read))
    }

    fn scan_held(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        let result = self.scan(&held);
        let start = if result.is_err() { first_bytes(&held) } else { Vec::new() };
        self.held = held;
        match result {
            Ok(passed) => {
                self.ready = passed;
                self.note_phase();
                Ok(())
            }
            Err(flaw) => self.refuse(flaw, start),
        }
    }

    fn scan(&mut self, bytes: &[u8]) -> Result<usize, Flaw> {
        let side = match (self.reads, self.wire.awaited.load(Ordering::Relaxed)) {
            (Reads::Requests, _) => Side::Request,
            (Reads::Responses, AWAITED_TO_HEAD) => Side::Response { head_only: true },
            (Reads::Responses, AWAITED) => Side::Response { head_only: false },
            (Reads::Responses, _) if self.scanner.phase() == Phase::Idle => return Err(Flaw::Unrequested),
            (Reads::Responses, _) => Side::Response { head_only: false },
        };
        self.whole = matches!(self.scanner.phase(), Phase::Idle | Phase::Head);
        let released = self.scanner.scan(bytes, side)?;
        if released.head {
            self.wire.heads.fetch_add(1, Ordering::Relaxed);
            self.wire.awaited.store(0, Ordering::Relaxed);
        }
        Ok(released.bytes)
    }

    fn note_phase(&self) {
        let (Reads::Requests, Some(activity)) = (self.reads, self.activity()) else { return };
        activity.wait(match self.scanner.phase() {
            Phase::Idle => Waiting::Request,
            Phase::Head => Waiting::Head,
            // Whether a body is awaited, or its reader is slow, shows when a read finds nothing.
            Phase::Body | Phase::UntilClose => Waiting::Nothing,
        });
    }

    /// Keeps the flaw and lets the library see a request that asks for nothing but an answer and the end.
    fn refuse(&mut self, flaw: Flaw, start: Vec<u8>) -> io::Result<()> {
        let request = self.wire.heads.load(Ordering::Relaxed) + u64::from(self.whole);
        self.wire.set_report(Report { flaw, request, start });
        self.held = BytesMut::new();
        self.ready = 0;
        if self.reads == Reads::Responses || !self.whole {
            return Err(io::Error::new(io::ErrorKind::InvalidData, flaw));
        }
        self.place = Place::Refusing;
        self.wire.heads.fetch_add(1, Ordering::Relaxed);
        self.held.extend_from_slice(REFUSED_HEAD);
        self.ready = REFUSED_HEAD.len();
        Ok(())
    }

    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.ready.min(buffer.remaining());
        buffer.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.advance(count);
        self.ready -= count;
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }

    /// Reads and drops what the client still sends: closing with unread bytes would reset the connection, and
    /// the client might lose its answer.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.drained < MAX_LINGER {
            let mut space = [const { MaybeUninit::<u8>::uninit() }; LINGER_BUFFER];
            let mut buffer = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.drained += buffer.filled().len(),
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ScannedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                this.hand_over(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.place != Place::Scanning {
                return Poll::Pending;
            }
            if this.held.is_empty() {
                match this.read_through(cx, buffer) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return this.waits(),
                }
                continue;
            }
            this.scan_held()?;
            if this.ready == 0 && this.place == Place::Scanning {
                match this.read_held(cx) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        }
    }
}

impl ScannedIo {
    fn waits(&self) -> Poll<io::Result<()>> {
        if let (Reads::Requests, Some(activity), Phase::Body) =
            (self.reads, self.activity(), self.scanner.phase())
        {
            activity.wait(Waiting::Body);
        }
        Poll::Pending
    }

    fn note_write(&self, poll: &Poll<io::Result<usize>>) {
        match (self.activity(), poll) {
            (Some(activity), Poll::Ready(Ok(bytes))) => activity.sent(*bytes),
            (Some(activity), Poll::Pending) => activity.blocked(),
            (Some(_), Poll::Ready(Err(_))) | (None, _) => {}
        }
    }
}

impl AsyncWrite for ScannedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(&poll);
        poll
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.note_write(&poll);
        poll
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.place != Place::Lingering {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.place = Place::Lingering;
            if let (Reads::Requests, Some(activity)) = (this.reads, this.activity()) {
                activity.wait(Waiting::Close);
            }
        }
        match this.reads {
            Reads::Requests => this.linger(cx),
            Reads::Responses => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for ScannedIo {
    fn drop(&mut self) {
        if self.wire.reset.load(Ordering::Relaxed) {
            self.stream.reset_on_close();
        }
    }
}

fn first_bytes(bytes: &[u8]) -> Vec<u8> {
    bytes.get(..MAX_START).unwrap_or(bytes).to_vec()
}

const AWAITED: u8 = 1;
const AWAITED_TO_HEAD: u8 = 2;
/// Stands in for a request that cannot be read. The answering side knows it by its number, not by its text.
const REFUSED_HEAD: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// Read at once while a head is incomplete.
const READ_MORE: usize = 4096;
/// How much of a flawed message is kept for its record.
const MAX_START: usize = 512;
/// How much of a refused client's further bytes is read before its connection is closed all the same.
pub(super) const MAX_LINGER: usize = 1024 * 1024;
const LINGER_BUFFER: usize = 16 * 1024;
