//! Messages between two processes, each with the descriptors that belong to it: a length, then JSON.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{io::Interest, net::UnixStream, time::timeout};

use super::HandoverError;
use crate::run::Place;

/// What is said.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Message {
    /// The new process asks for the sockets.
    Hello { version: u32 },
    /// The old one gives some of them, a descriptor for each.
    Sockets { places: Vec<Place>, more: bool },
    /// The new one has an identity and policies.
    Ready {},
    /// The old one has let go of the audit log.
    Released {},
    /// The new one accepts.
    Serving {},
    /// The old one accepts no more.
    Leaving {},
    /// One of them does not go on.
    Refused { reason: String },
}

impl Message {
    fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Sockets { .. } => "sockets",
            Self::Ready {} => "ready",
            Self::Released {} => "released",
            Self::Serving {} => "serving",
            Self::Leaving {} => "leaving",
            Self::Refused { .. } => "refused",
        }
    }

    /// What is made of a message that is not the one that is due.
    pub(super) fn unexpected(self) -> HandoverError {
        match self {
            Self::Refused { reason } => HandoverError::Refused { reason: audit::shown(&reason) },
            other => HandoverError::OutOfTurn { said: other.name() },
        }
    }
}

/// One end of the exchange.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Sends a message; the descriptors go with its first byte.
    pub(super) async fn send(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), HandoverError> {
        let body = serde_json::to_vec(message).map_err(HandoverError::Unclear)?;
        let length = u32::try_from(body.len()).map_err(|_| HandoverError::TooLong)?;
        let frame = [length.to_be_bytes().as_slice(), &body].concat();
        let sent = timeout(super::ANSWER, self.send_all(&frame, descriptors)).await;
        sent.map_err(|_| HandoverError::Slow { limit: super::ANSWER })?.map_err(HandoverError::Broken)
    }

    async fn send_all(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let (mut rest, mut descriptors) = (frame, descriptors);
        while !rest.is_empty() {
            let sent = self.0.async_io(Interest::WRITABLE, || send(&self.0, rest, descriptors)).await?;
            rest = rest.get(sent..).unwrap_or_default();
            descriptors = &[];
        }
        Ok(())
    }

    /// Receives the next message within `limit`.
    pub(super) async fn receive(
        &mut self,
        limit: Duration,
    ) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        timeout(limit, self.message()).await.map_err(|_| HandoverError::Slow { limit })?
    }

    async fn message(&mut self) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        let (mut descriptors, mut length) = (Vec::new(), [0; 4]);
        self.receive_all(&mut length, &mut descriptors).await?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| HandoverError::TooLong)?;
        if length > MAX_MESSAGE {
            return Err(HandoverError::TooLong);
        }
        let mut body = vec![0; length];
        self.receive_all(&mut body, &mut descriptors).await?;
        let message = serde_json::from_slice(&body).map_err(HandoverError::Unclear)?;
        Ok((message, descriptors))
    }

    /// Receives exactly that much: a byte of the next message would bring its descriptors along.
    async fn receive_all(
        &self,
        into: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<(), HandoverError> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let received = self.0.async_io(Interest::READABLE, || receive(&self.0, rest, descriptors));
            match received.await.map_err(HandoverError::Broken)? {
                0 => return Err(HandoverError::Gone),
                received => filled += received,
            }
            if descriptors.len() > MAX_DESCRIPTORS {
                return Err(HandoverError::TooLong);
            }
        }
        Ok(())
    }

    /// Waits until the other end says something or is gone.
    pub(super) async fn stirs(&self) {
        // Whatever comes, the next to receive finds out.
        let _ = self.0.readable().await;
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(sendmsg(stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

fn receive(stream: &UnixStream, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); SPACE];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(bytes)];
    let received = recvmsg(stream.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    // Descriptors that found no room are closed already, and nobody knows which.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost"));
    }
    Ok(received.bytes)
}

/// Descriptors of one message: well below what the kernel takes.
pub(super) const MAX_DESCRIPTORS: usize = 64;
const SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));
/// Names and addresses of that many sockets, with room to spare.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
