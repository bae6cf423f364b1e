//! The handshake of a caller's tunnel: bounded, proved once for all streams, and registered.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use audit::{Reason, Stage};
use identity::{Peer, tls::ALPN_H2};
use tokio::{net::TcpStream, time::timeout};

use super::listener::Inbound;
use crate::{
    activity::Waiting,
    handshakes::Unproven,
    live::{Entry, Key, Live, Proof, Registered, Role},
    record::{Refusal, Trace},
    state::{self, Identity},
    tls::{self, Met, TlsStream},
};

/// Whose streams a tunnel carries.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: Peer,
    pub(super) from: SocketAddr,
    /// The address of ours that was called.
    pub(super) called: IpAddr,
    sni: Option<Arc<str>>,
    pub(super) trace: Trace,
    registered: Registered,
    /// The credentials that we proved ourselves with.
    pub(super) generation: u64,
}

impl Caller {
    /// The tunnel itself.
    pub(super) fn live(&self) -> &Arc<Live> {
        self.registered.live()
    }

    /// Returns how a stream that leads to `port` is registered.
    pub(super) fn key(&self, role: Role, port: u16) -> Key {
        let source = Some(self.from.ip().to_canonical());
        let key = Key::new(role, Some(self.peer.id().clone()), source, port);
        Key { destination: Some(self.called), sni: self.sni.clone(), ..key }
    }
}

/// Begins the records of a tunnel.
pub(super) fn trace(inbound: &Inbound, from: SocketAddr, to: Option<SocketAddr>) -> Trace {
    let shared = &inbound.shared;
    Trace::begin(shared.log.clone(), Arc::clone(&shared.metrics), Some(from)).to(&inbound.name, to)
}

/// Refuses a tunnel for which there is no place.
pub(super) fn turn_away(inbound: &Inbound, socket: TcpStream, from: SocketAddr, limit: &'static str) {
    let refusal = Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit));
    trace(inbound, from, socket.local_addr().ok()).denied(refusal);
    // Fails only where the caller is gone already.
    let _ = socket.set_zero_linger();
}

/// Does the handshake and puts the tunnel into the registry.
pub(super) async fn identify(
    inbound: &Inbound,
    socket: TcpStream,
    from: SocketAddr,
) -> Option<(Caller, Box<TlsStream>)> {
    // A socket without an address of its own is gone.
    let to = socket.local_addr().ok()?;
    let trace = trace(inbound, from, Some(to));
    let Some(identity) = inbound.shared.state.now().identity.clone() else {
        refuse(&trace, "no_identity");
        // Fails only where the caller is gone already.
        let _ = socket.set_zero_linger();
        return None;
    };
    let trace = trace.for_workload(identity.id());
    let Some(unproven) = inbound.shared.handshakes.admit(from.ip()) else {
        turn_away(inbound, socket, from, "unproven_per_source");
        return None;
    };
    let Met { peer, chain, server_name, stream, .. } =
        match handshake(inbound, &identity, socket, unproven).await {
            Ok(met) => met,
            Err(reason) => {
                refuse(&trace, reason);
                return None;
            }
        };
    let sni = server_name.map(|name| Arc::from(name.to_ascii_lowercase()));
    let trace = trace.called_by(&peer, sni.as_deref());
    let key = Key::new(Role::Tunnel, Some(peer.id().clone()), Some(from.ip().to_canonical()), to.port());
    let proof = Some(Proof { peer: peer.clone(), chain });
    let entry = Entry { key, proof, opened: trace.opened_at(), waiting: Waiting::Nothing };
    let registered = inbound.shared.registry.register(entry);
    let generation = identity.credentials.generation();
    let called = to.ip().to_canonical();
    let caller = Caller { peer, from, called, sni, trace, registered, generation };
    if is_still_trusted(inbound, &caller) {
        return Some((caller, stream));
    }
    caller.trace.denied(Refusal::plain(Stage::Connect, Reason::TrustWithdrawn));
    None
}

/// A bundle withdrawn between the handshake and the registration has to be noticed here.
fn is_still_trusted(inbound: &Inbound, caller: &Caller) -> bool {
    match (&inbound.shared.state.now().identity, &caller.live().proof) {
        (Some(identity), _) if identity.credentials.generation() == caller.generation => true,
        (Some(identity), Some(proof)) => state::holds(proof, &identity.credentials, caller.trace.opened_at()),
        (Some(_), None) | (None, _) => false,
    }
}

async fn handshake(
    inbound: &Inbound,
    identity: &Identity,
    socket: TcpStream,
    unproven: Unproven<'_>,
) -> Result<Met<Peer>, &'static str> {
    let metrics = &inbound.shared.metrics;
    let accept = async {
        // Never closed: acquiring waits and cannot fail.
        let _room = unproven.room().await;
        metrics.handshaking.inc();
        let accepted = tls::accept(&identity.tunnel_server, socket).await;
        metrics.handshaking.dec();
        accepted
    };
    let met = match timeout(inbound.shared.limits.handshake_timeout, accept).await {
        Ok(Ok(met)) => met.proved().ok_or("no_certificate")?,
        Ok(Err(error)) => return Err(error.reason()),
        Err(_) => return Err("timeout"),
    };
    // Whoever did not ask for HTTP/2 came for something else.
    if met.alpn.as_deref() == Some(ALPN_H2) { Ok(met) } else { Err("no_h2") }
}

fn refuse(trace: &Trace, reason: &'static str) {
    trace.denied(Refusal::plain(Stage::Handshake, Reason::HandshakeFailed(reason)));
}
