//! The side that comes.

use std::{io, path::Path};

use tokio::net::UnixStream;

use super::{
    ANSWER, HandoverError, VERSION, trusted,
    wire::{Message, Wire},
};
use crate::run::Bound;

/// A running process that is asked for its sockets.
#[derive(Debug)]
pub(crate) struct Taking {
    wire: Wire,
    predecessor: u32,
}

impl Taking {
    /// Asks whoever listens on `path`; nobody is an answer, too.
    pub(crate) async fn ask(path: &Path) -> Result<Option<Self>, HandoverError> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) => return Err(HandoverError::Broken(error)),
        };
        // Somebody else's sockets would bring us somebody else's callers.
        let predecessor = trusted(&stream)?;
        let mut wire = Wire::new(stream);
        wire.send(&Message::Hello { version: VERSION }, &[]).await?;
        Ok(Some(Self { wire, predecessor }))
    }

    /// The process that is taken over from.
    pub(crate) fn predecessor(&self) -> u32 {
        self.predecessor
    }

    /// Receives the sockets, each of them what it is called.
    pub(crate) async fn sockets(&mut self) -> Result<Vec<Bound>, HandoverError> {
        let mut all = Vec::new();
        loop {
            let (places, more, descriptors) = match self.wire.receive(ANSWER).await? {
                (Message::Sockets { places, more }, descriptors) => (places, more, descriptors),
                (other, _) => return Err(other.unexpected()),
            };
            if places.len() != descriptors.len() || all.len() + places.len() > MAX_SOCKETS {
                return Err(HandoverError::TooLong);
            }
            for (place, descriptor) in places.into_iter().zip(descriptors) {
                let name = place.name.clone();
                let bound = Bound::received(place, descriptor);
                all.push(
                    bound.map_err(|reason| HandoverError::Socket { name: audit::shown(&name), reason })?,
                );
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// Returns once the other process says something before its turn, or is gone: nothing can be taken over any more.
    pub(crate) async fn breaks(&mut self) -> HandoverError {
        self.wire.stirs().await;
        match self.wire.receive(ANSWER).await {
            Ok((message, _)) => message.unexpected(),
            Err(error) => error,
        }
    }

    /// Says that we could serve, and waits until the audit log is free.
    pub(crate) async fn ready(&mut self) -> Result<(), HandoverError> {
        self.wire.send(&Message::Ready {}, &[]).await?;
        match self.wire.receive(ANSWER).await?.0 {
            Message::Released {} => Ok(()),
            other => Err(other.unexpected()),
        }
    }

    /// Says that we accept, and waits until the other does not.
    pub(crate) async fn serving(&mut self) -> Result<(), HandoverError> {
        self.wire.send(&Message::Serving {}, &[]).await?;
        match self.wire.receive(ANSWER).await?.0 {
            Message::Leaving {} => Ok(()),
            other => Err(other.unexpected()),
        }
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// As many as a configuration can name, and those of the admin interface.
const MAX_SOCKETS: usize = 2 * crate::config::MAX_LISTENERS + 64;
