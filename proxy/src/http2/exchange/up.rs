//! The body of a request on its way up, and what is left of it once it has gone.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use crate::http2::pump::{Broken, Pump, Trailers, Wait};

/// The request's body.
pub(super) enum Up {
    /// There is none, and what would break the request off.
    None(SendStream<Bytes>),
    /// It goes on.
    Going(Pump),
    /// All of it has gone, and what would break it off.
    Gone { stream: SendStream<Bytes>, moved: u64 },
    /// Nobody wants the rest of it.
    Unwanted { moved: u64 },
}

impl Up {
    /// Moves the body on; returns how the exchange is to break off, where the caller broke its body off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Option<Reason> {
        let Self::Going(pump) = self else { return None };
        match pump.poll(cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => {
                let moved = pump.moved();
                if let Self::Going(pump) = std::mem::replace(self, Self::Unwanted { moved }) {
                    *self = Self::Gone { stream: pump.into_sink(), moved };
                }
                None
            }
            Poll::Ready(Err(Broken::Receiver)) => {
                *self = Self::Unwanted { moved: pump.moved() };
                None
            }
            Poll::Ready(Err(Broken::Sender(_))) => Some(Reason::CANCEL),
        }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        match self {
            Self::Going(pump) => pump.reset(reason),
            Self::None(stream) | Self::Gone { stream, .. } => stream.send_reset(reason),
            Self::Unwanted { .. } => {}
        }
    }

    /// Returns how many bytes have gone on.
    pub(super) fn moved(&self) -> u64 {
        match self {
            Self::None(_) => 0,
            Self::Going(pump) => pump.moved(),
            Self::Gone { moved, .. } | Self::Unwanted { moved } => *moved,
        }
    }

    /// Returns the body as it came, where nothing of it has been sent.
    pub(super) fn unsent(self) -> Option<(Option<RecvStream>, Trailers)> {
        match self {
            Self::Going(pump) => pump.into_unmoved().map(|(body, trailers)| (Some(body), trailers)),
            Self::None(_) => Some((None, Trailers::All)),
            Self::Gone { .. } | Self::Unwanted { .. } => None,
        }
    }

    /// Returns what the body waits for, and how much of it has gone on.
    pub(super) fn waits(&self) -> Option<(Wait, u64)> {
        match self {
            Self::Going(pump) => Some((pump.waits_for(), pump.moved())),
            Self::None(_) | Self::Gone { .. } | Self::Unwanted { .. } => None,
        }
    }
}
