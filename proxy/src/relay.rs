//! Carries bytes both ways between two connections until both have ended.
//!
//! No buffer is held while nothing is in flight: bytes are read into room that the thread lends and written from there; only
//! what the other side does not take at once is kept, and nothing more is read until it is gone.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use audit::CloseCause;

use crate::{
    activity::{Activity, Waiting},
    live::Live,
    record::{self, Trace},
    stream::Stream,
    tls::Scratch,
};

/// Joins two connections until they end or are cut, and says why they ended.
pub(crate) async fn relay(source: Stream, destination: Stream, live: &Live, trace: &Trace) -> CloseCause {
    let mut relay = Relay::new(source, destination);
    tokio::select! {
        biased;
        cut = live.wait_cut() => {
            trace.cut(cut);
            relay.reset_on_close();
            record::cause(cut)
        }
        result = relay.run(&live.activity) => match result {
            Ok(()) => CloseCause::Finished,
            Err(RelayError::Source(_)) => CloseCause::SourceFailed,
            Err(RelayError::Destination(_)) => CloseCause::DestinationFailed,
        },
    }
}

/// Which side of a relay broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the caller's connection broke")]
    Source(#[source] io::Error),
    #[error("the callee's connection broke")]
    Destination(#[source] io::Error),
}

/// Two connections joined to one.
#[derive(Debug)]
pub(crate) struct Relay {
    source: Stream,
    destination: Stream,
    forth: Direction,
    back: Direction,
}

#[derive(Debug)]
struct Direction {
    kept: Vec<u8>,
    written: usize,
    /// How much is read at once: more where much comes, less where the writer does not keep up.
    window: usize,
    place: Place,
}

impl Default for Direction {
    fn default() -> Self {
        Self { kept: Vec::new(), written: 0, window: FIRST_WINDOW, place: Place::default() }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Copying,
    Ending,
    Ended,
}

/// Which of the two ends a step failed on.
enum End {
    Reader(io::Error),
    Writer(io::Error),
}

impl Relay {
    pub(crate) fn new(source: Stream, destination: Stream) -> Self {
        Self { source, destination, forth: Direction::default(), back: Direction::default() }
    }

    /// Makes both ends break rather than end.
    pub(crate) fn reset_on_close(&mut self) {
        self.source.reset_on_close();
        self.destination.reset_on_close();
    }

    /// Runs until both directions have ended in order, or one side breaks; the other is then reset as well.
    pub(crate) async fn run(&mut self, activity: &Activity) -> Result<(), RelayError> {
        let result = poll_fn(|cx| self.poll(cx, activity)).await;
        if result.is_err() {
            self.reset_on_close();
        }
        result
    }

    fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<Result<(), RelayError>> {
        let forth =
            self.forth.poll(cx, &mut self.source, &mut self.destination, |bytes| activity.received(bytes));
        let back = self.back.poll(cx, &mut self.destination, &mut self.source, |bytes| activity.sent(bytes));
        let forth = done(forth).map_err(|end| match end {
            End::Reader(error) => RelayError::Source(error),
            End::Writer(error) => RelayError::Destination(error),
        })?;
        let back = done(back).map_err(|end| match end {
            End::Reader(error) => RelayError::Destination(error),
            End::Writer(error) => RelayError::Source(error),
        })?;
        match (forth, back) {
            (true, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
            (true, false) | (false, true) => {
                activity.wait(Waiting::Half);
                Poll::Pending
            }
        }
    }
}

fn done(poll: Poll<Result<(), End>>) -> Result<bool, End> {
    match poll {
        Poll::Pending => Ok(false),
        Poll::Ready(result) => result.map(|()| true),
    }
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Stream,
        writer: &mut Stream,
        moved: impl Fn(usize),
    ) -> Poll<Result<(), End>> {
        let mut turn = 0;
        while turn < TURN {
            match self.place {
                Place::Copying => {
                    ready!(self.drain(cx, writer)).map_err(End::Writer)?;
                    let length = ready!(self.copy(cx, reader, writer))?;
                    if length == 0 {
                        self.place = Place::Ending;
                    }
                    moved(length);
                    turn += length;
                }
                Place::Ending => {
                    ready!(self.drain(cx, writer)).map_err(End::Writer)?;
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(End::Writer)?;
                    self.place = Place::Ended;
                }
                Place::Ended => return Poll::Ready(Ok(())),
            }
        }
        // Enough for one turn: the other direction and the other connections come first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is kept, here and in the writer.
    fn drain(&mut self, cx: &mut Context<'_>, writer: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *writer).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.written += taken,
            }
        }
        if !self.kept.is_empty() {
            (self.kept, self.written) = (Vec::new(), 0);
        }
        Pin::new(writer).poll_flush(cx)
    }

    /// Reads once, and writes as much of it as the writer takes; the rest is kept. Returns how much was read, nothing at the end.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Stream,
        writer: &mut Stream,
    ) -> Poll<Result<usize, End>> {
        let mut scratch = Scratch::take();
        let length = ready!(reader.poll_fill(cx, &mut scratch, self.window)).map_err(End::Reader)?;
        let mut rest = scratch.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest).map_err(End::Writer)? {
                Poll::Ready(0) => return Poll::Ready(Err(End::Writer(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Poll::Pending => {
                    self.kept = rest.to_vec();
                    self.window = (self.window / 2).max(FIRST_WINDOW);
                    return Poll::Ready(Ok(length));
                }
            }
        }
        // Records cost some of what was read, so that a full window is a little less.
        if length >= self.window / 4 * 3 {
            self.window = (self.window * 2).min(LARGEST_WINDOW);
        }
        Poll::Ready(Ok(length))
    }
}

/// What is read at once at first.
const FIRST_WINDOW: usize = 32 * 1024;
/// What is read at once at most: so much may be kept for a peer that stops reading.
const LARGEST_WINDOW: usize = 256 * 1024;
/// What one direction moves before another task has its turn.
const TURN: usize = 1024 * 1024;

#[cfg(test)]
mod tests;
