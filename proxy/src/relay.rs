//! Carries bytes both ways between two connections until both have ended.
//!
//! No buffer is held while nothing is in flight: bytes are read onto the stack and written from there; only
//! what the other side does not take at once is kept, and nothing more is read until it is gone.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use audit::CloseCause;

use crate::{
    activity::{Activity, Waiting},
    live::Live,
    record::{self, Trace},
    stream::Stream,
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

#[derive(Debug, Default)]
struct Direction {
    kept: Vec<u8>,
    written: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Copying,
    Flushing,
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
        for _ in 0..ROUNDS {
            match self.place {
                Place::Copying => {
                    ready!(self.drain(cx, writer)).map_err(End::Writer)?;
                    self.place = ready!(self.copy(cx, reader, writer, &moved))?;
                }
                Place::Flushing => {
                    ready!(Pin::new(&mut *writer).poll_flush(cx)).map_err(End::Writer)?;
                    // The reader may have been woken while the flush waited: it is asked once more.
                    self.place = Place::Copying;
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

    /// Writes what is kept.
    fn drain(&mut self, cx: &mut Context<'_>, writer: &mut Stream) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *writer).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                taken => self.written += taken,
            }
        }
        (self.kept, self.written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Reads as much as there is, up to a bufferful, and writes as much of it as the writer takes.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Stream,
        writer: &mut Stream,
        moved: &impl Fn(usize),
    ) -> Poll<Result<Place, End>> {
        let mut space = [const { MaybeUninit::<u8>::uninit() }; BUFFER];
        let mut buffer = ReadBuf::uninit(&mut space);
        let next = fill(cx, reader, &mut buffer)?;
        moved(buffer.filled().len());
        let mut rest = buffer.filled();
        while !rest.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, rest).map_err(End::Writer)? {
                Poll::Ready(0) => return Poll::Ready(Err(End::Writer(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(taken) => rest = rest.get(taken..).unwrap_or_default(),
                Poll::Pending => {
                    self.kept = rest.to_vec();
                    // Copying resumes with the kept bytes; an end that was read is read again after them.
                    return if next == Some(Place::Ending) {
                        Poll::Ready(Ok(Place::Ending))
                    } else {
                        Poll::Pending
                    };
                }
            }
        }
        match next {
            Some(place) => Poll::Ready(Ok(place)),
            None if buffer.filled().is_empty() => Poll::Pending,
            None => Poll::Ready(Ok(Place::Flushing)),
        }
    }
}

/// Reads until the buffer is full (go on copying), nothing more is there (`None`), or the stream ends.
fn fill(cx: &mut Context<'_>, reader: &mut Stream, buffer: &mut ReadBuf<'_>) -> Result<Option<Place>, End> {
    while buffer.remaining() > 0 {
        let before = buffer.filled().len();
        match Pin::new(&mut *reader).poll_read(cx, buffer).map_err(End::Reader)? {
            Poll::Pending => return Ok(None),
            Poll::Ready(()) if buffer.filled().len() == before => return Ok(Some(Place::Ending)),
            Poll::Ready(()) => {}
        }
    }
    Ok(Some(Place::Copying))
}

/// What one read and write move at most. On the stack, only while a direction is polled.
const BUFFER: usize = 64 * 1024;
/// Bufferfuls moved before another task has its turn.
const ROUNDS: usize = 16;
