//! Callers that prove nothing, at a port that is on its way to mutual TLS: let in until a day that the configuration names,
//! decided by policy as nobody's, and counted.

use std::{net::SocketAddr, time::SystemTime};

use tokio::{net::TcpStream, time::timeout};

use super::{Entrance, Known};
use crate::{
    live::{Entry, Key},
    record::Trace,
    stream::Stream,
};

/// What a caller begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Tls,
    Plaintext,
}

impl Entrance<'_> {
    /// Returns the connection as one of nobody's, where the door is open for those and the caller does not speak TLS. A caller
    /// that says nothing is left to the handshake and its time limit.
    pub(super) async fn unproven(&self, socket: &TcpStream) -> bool {
        let Some(until) = self.door.danger_permissive_until else { return false };
        if SystemTime::now() >= until {
            return false;
        }
        let first = timeout(self.shared.limits.handshake_timeout, first(socket)).await;
        matches!(first, Ok(Ok(First::Plaintext)))
    }

    /// Puts a connection without a proof into the registry.
    pub(super) fn unnamed(&self, socket: TcpStream, from: SocketAddr, trace: Trace) -> Known {
        let (role, waiting) = self.door.registration();
        let destination = self.door.called(&socket).map(|address| address.ip().to_canonical());
        let key = Key::new(role, None, Some(from.ip().to_canonical()), self.door.port);
        let entry =
            Entry { key: Key { destination, ..key }, proof: None, opened: trace.opened_at(), waiting };
        self.shared.metrics.plaintext(&self.door.name);
        let registered = self.shared.registry.register(entry);
        Known { peer: None, stream: Stream::Plain(socket), registered, trace }
    }
}

async fn first(socket: &TcpStream) -> std::io::Result<First> {
    let mut byte = [0];
    match socket.peek(&mut byte).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ if byte == [TLS_HANDSHAKE] => Ok(First::Tls),
        _ => Ok(First::Plaintext),
    }
}

/// The content type of a record that carries a ClientHello (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
