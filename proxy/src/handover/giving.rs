//! The side that goes.

use std::os::fd::AsFd;

use tokio::net::UnixStream;

use super::{
    ANSWER, HandoverError, READY, VERSION, trusted,
    wire::{MAX_DESCRIPTORS, Message, Wire},
};
use crate::run::Bound;

/// A new process that asked for the sockets.
#[derive(Debug)]
pub(crate) struct Giving {
    wire: Wire,
    successor: u32,
}

impl Giving {
    /// Finds out who asks.
    pub(crate) async fn meet(stream: UnixStream) -> Result<Self, HandoverError> {
        let successor = trusted(&stream)?;
        let mut wire = Wire::new(stream);
        match wire.receive(ANSWER).await?.0 {
            Message::Hello { version: VERSION } => Ok(Self { wire, successor }),
            Message::Hello { version } => {
                let reason = format!("version {version} of the hand-over is not spoken here, {VERSION} is");
                wire.send(&Message::Refused { reason: reason.clone() }, &[]).await?;
                Err(HandoverError::Refused { reason })
            }
            other => Err(other.unexpected()),
        }
    }

    /// The process that takes over.
    pub(crate) fn successor(&self) -> u32 {
        self.successor
    }

    /// Gives copies of the sockets, and waits until the new process could serve.
    pub(crate) async fn offer(&mut self, sockets: &[Bound]) -> Result<(), HandoverError> {
        let mut parts = sockets.chunks(MAX_DESCRIPTORS).peekable();
        while let Some(part) = parts.next() {
            let places = part.iter().map(|bound| bound.place.clone()).collect();
            let descriptors: Vec<_> = part.iter().map(|bound| bound.opened.as_fd()).collect();
            let more = parts.peek().is_some();
            self.wire.send(&Message::Sockets { places, more }, &descriptors).await?;
        }
        match self.wire.receive(READY).await?.0 {
            Message::Ready {} => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// Says that the audit log is free, and waits until the new process accepts.
    pub(crate) async fn release(&mut self) -> Result<(), HandoverError> {
        self.wire.send(&Message::Released {}, &[]).await?;
        match self.wire.receive(ANSWER).await?.0 {
            Message::Serving {} => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// Says that nothing is accepted here any more.
    pub(crate) async fn leave(&mut self) -> Result<(), HandoverError> {
        self.wire.send(&Message::Leaving {}, &[]).await
    }

    /// Says that nothing changes hands.
    pub(crate) async fn refuse(&mut self, reason: &str) {
        // Who is gone need not be told.
        let _ = self.wire.send(&Message::Refused { reason: reason.to_owned() }, &[]).await;
    }
}
