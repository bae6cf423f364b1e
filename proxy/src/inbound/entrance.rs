//! The handshake of a caller: bounded, proved, registered, and looked at once more.

use std::{net::SocketAddr, sync::Arc};

use audit::{Reason, Stage};
use identity::Peer;
use tokio::{net::TcpStream, time::timeout};

use super::door::{Door, Known};
use crate::{
    handshakes::Unproven,
    live::{Entry, Key, Proof},
    record::{Refusal, Trace},
    shared::Shared,
    state::{self, Identity},
    stream::Stream,
    tls::{self, Met},
};

/// Lets callers prove themselves.
pub(crate) struct Entrance<'s> {
    pub(crate) shared: &'s Shared,
    pub(crate) door: &'s Door,
}

impl Entrance<'_> {
    /// Begins the records of a connection.
    pub(crate) fn trace(&self, socket: &TcpStream, from: SocketAddr) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), Some(from));
        trace.to(&self.door.name, self.door.called(socket))
    }

    /// Refuses a connection for which there is no place.
    pub(crate) fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        let refusal = Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit));
        self.trace(&socket, from).denied(refusal);
        // Fails only where the client is gone already.
        let _ = socket.set_zero_linger();
    }

    /// Does the handshake and puts the connection into the registry.
    pub(crate) async fn identify(&self, socket: TcpStream, from: SocketAddr) -> Option<Known> {
        let trace = self.trace(&socket, from);
        let Some(identity) = self.shared.state.now().identity.clone() else {
            refuse_handshake(&trace, "no_identity");
            // Fails only where the client is gone already.
            let _ = socket.set_zero_linger();
            return None;
        };
        let trace = trace.for_workload(identity.id());
        let Some(unproven) = self.shared.handshakes.admit(from.ip()) else {
            self.turn_away(socket, from, "unproven_per_source");
            return None;
        };
        if self.unproven(&socket).await {
            return Some(self.unnamed(socket, from, trace));
        }
        let Met { peer, chain, server_name, stream, .. } =
            match self.handshake(&identity, socket, unproven).await {
                Ok(accepted) => accepted,
                Err(reason) => {
                    refuse_handshake(&trace, reason);
                    return None;
                }
            };
        // Lower case for good: the library keeps names as they came.
        let sni = server_name.map(|name| Arc::from(name.to_ascii_lowercase()));
        let trace = trace.called_by(&peer, sni.as_deref());
        let destination = self.door.called(stream.get_ref()).map(|address| address.ip().to_canonical());
        let proof = Proof { peer: peer.clone(), chain };
        let (role, waiting) = self.door.registration();
        let source = Some(from.ip().to_canonical());
        let key = Key { destination, sni, ..Key::new(role, Some(peer.id().clone()), source, self.door.port) };
        let entry = Entry { key, proof: Some(proof), opened: trace.opened_at(), waiting };
        let registered = self.shared.registry.register(entry);
        let known = Known { peer: Some(peer), stream: Stream::Tls(stream), registered, trace };
        self.still_trusted(known, &identity)
    }

    /// A bundle withdrawn between the handshake and the registration has to be noticed here.
    pub(super) fn still_trusted(&self, mut known: Known, used: &Identity) -> Option<Known> {
        let now = self.shared.state.now();
        let trusted = match (&now.identity, &known.registered.live().proof) {
            (Some(identity), _) if identity.credentials.generation() == used.credentials.generation() => true,
            (Some(identity), Some(proof)) => {
                state::holds(proof, &identity.credentials, known.trace.opened_at())
            }
            (Some(_), None) | (None, _) => false,
        };
        if trusted {
            return Some(known);
        }
        known.trace.denied(Refusal::plain(Stage::Connect, Reason::TrustWithdrawn));
        known.stream.reset_on_close();
        None
    }

    async fn handshake(
        &self,
        identity: &Identity,
        socket: TcpStream,
        unproven: Unproven<'_>,
    ) -> Result<Met<Peer>, &'static str> {
        let metrics = &self.shared.metrics;
        let accept = async {
            // Never closed: acquiring waits and cannot fail.
            let _room = unproven.room().await;
            metrics.handshaking.inc();
            let accepted = tls::accept(&identity.server, socket).await;
            metrics.handshaking.dec();
            accepted
        };
        match timeout(self.shared.limits.handshake_timeout, accept).await {
            Ok(Ok(met)) => met.proved().ok_or("no_certificate"),
            Ok(Err(error)) => Err(error.reason()),
            Err(_) => Err("timeout"),
        }
    }
}

fn refuse_handshake(trace: &Trace, reason: &'static str) {
    trace.denied(Refusal::plain(Stage::Handshake, Reason::HandshakeFailed(reason)));
}
