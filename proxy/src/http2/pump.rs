//! One body on its way: taken from its sender only as far as its receiver has room.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use super::reply::grpc_status;
use crate::http1::clean_trailers;

/// A body that is being forwarded.
pub(super) struct Pump {
    from: RecvStream,
    to: SendStream<Bytes>,
    held: Bytes,
    /// Bytes that have gone on.
    moved: u64,
    /// Something was taken from the sender.
    begun: bool,
    trailers: Trailers,
    grpc_status: Option<u32>,
}

/// Which trailers go on, cleaned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trailers {
    /// All: those of a response carry the status of a gRPC call.
    All,
    /// None: policy has decided by the fields that came before.
    None,
}

/// Which side of a body broke off.
#[derive(Debug)]
pub(super) enum Broken {
    /// Who sends it.
    Sender(h2::Error),
    /// Who is to receive it.
    Receiver,
}

/// What a body waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// More of it.
    Sender,
    /// Room for what is there.
    Receiver,
}

impl Pump {
    pub(super) fn new(from: RecvStream, to: SendStream<Bytes>, trailers: Trailers) -> Self {
        Self { from, to, held: Bytes::new(), moved: 0, begun: false, trailers, grpc_status: None }
    }

    /// Moves as much as can be moved; ready when the end was forwarded.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if !self.held.is_empty() && ready!(self.send_held(cx))? {
                return Poll::Ready(Ok(()));
            }
            let data = ready!(self.from.poll_data(cx));
            self.begun = true;
            match data {
                Some(Ok(bytes)) if bytes.is_empty() && !self.from.is_end_stream() => {}
                Some(Ok(bytes)) if bytes.is_empty() => return Poll::Ready(self.end(Bytes::new())),
                Some(Ok(bytes)) => self.held = bytes,
                Some(Err(error)) => return Poll::Ready(Err(Broken::Sender(error))),
                None => return self.poll_trailers(cx),
            }
        }
    }

    /// Returns what the body waits for, after a poll that was not ready.
    pub(super) fn waits_for(&self) -> Wait {
        if self.held.is_empty() { Wait::Sender } else { Wait::Receiver }
    }

    /// Returns how many bytes have gone on.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Returns the status of a gRPC call, once its trailers came.
    pub(super) fn grpc_status(&self) -> Option<u32> {
        self.grpc_status
    }

    /// Returns what could still be broken off, once all of the body has gone.
    pub(super) fn into_sink(self) -> SendStream<Bytes> {
        self.to
    }

    /// Returns the body as it came, where nothing was taken from it.
    pub(super) fn into_unmoved(self) -> Option<(RecvStream, Trailers)> {
        (!self.begun).then_some((self.from, self.trailers))
    }

    /// Ready when the receiver wants no more of it.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.to.poll_reset(cx).map(|_| ())
    }

    /// Breaks the body off.
    pub(super) fn reset(&mut self, reason: Reason) {
        self.to.send_reset(reason);
    }

    /// Sends what is held; true when that was the end.
    fn send_held(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        while !self.held.is_empty() {
            self.to.reserve_capacity(self.held.len());
            let room = match self.to.capacity() {
                0 => match ready!(self.to.poll_capacity(cx)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(Broken::Receiver)),
                },
                room => room,
            };
            let part = self.held.split_to(room.min(self.held.len()));
            let (size, end) = (part.len(), self.held.is_empty() && self.from.is_end_stream());
            self.moved += size as u64;
            if end {
                self.end(part)?;
                return Poll::Ready(Ok(true));
            }
            self.to.send_data(part, false).map_err(|_| Broken::Receiver)?;
            // The sender may send on for what has gone out, and for nothing else.
            self.from.flow_control().release_capacity(size).map_err(Broken::Sender)?;
        }
        Poll::Ready(Ok(false))
    }

    /// Sends the last piece. What the sender may send no more needs no room.
    fn end(&mut self, last: Bytes) -> Result<(), Broken> {
        let size = last.len();
        self.to.send_data(last, true).map_err(|_| Broken::Receiver)?;
        self.from.flow_control().release_capacity(size).map_err(Broken::Sender)
    }

    fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match ready!(self.from.poll_trailers(cx)) {
            Ok(Some(mut trailers)) => {
                self.grpc_status = grpc_status(&trailers).or(self.grpc_status);
                clean_trailers(&mut trailers);
                if trailers.is_empty() || self.trailers == Trailers::None {
                    return Poll::Ready(self.end(Bytes::new()));
                }
                Poll::Ready(self.to.send_trailers(trailers).map_err(|_| Broken::Receiver))
            }
            Ok(None) => Poll::Ready(self.end(Bytes::new())),
            Err(error) => Poll::Ready(Err(Broken::Sender(error))),
        }
    }
}
