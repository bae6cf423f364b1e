//! Calls to the workload, brought here by the rules of the network namespace: mutual TLS in, and on to the application at
//! the address that was called.

use std::{net::SocketAddr, sync::Arc};

use audit::{Reason, Stage};
use tokio::{net::TcpStream, time::timeout};

use super::{
    doors::{Call, Doors},
    original::{self, Astray, OwnPorts},
    probe,
};
use crate::{
    config::{self, Config, Probe, Protocol},
    inbound::{Door, Entrance},
    intercept::Mode,
    listener::{Accept, Place},
    record::{Refusal, Trace},
    shared::Shared,
};

/// The listener of one thread for calls to the workload.
pub(crate) struct TransparentInbound {
    mode: Mode,
    ports: Vec<config::CalledPort>,
    default_protocol: Protocol,
    probes: Vec<Probe>,
    own: OwnPorts,
    doors: Doors<Door>,
    name: Arc<str>,
    shared: Arc<Shared>,
}

impl TransparentInbound {
    /// Makes the listener; none where calls to the workload are not captured.
    pub(crate) fn new(config: &Config, shared: Arc<Shared>) -> Option<Self> {
        let transparent = config.transparent.as_ref()?;
        let called = transparent.inbound.as_ref()?;
        Some(Self {
            mode: transparent.mode,
            ports: called.ports.clone(),
            default_protocol: called.default_protocol,
            probes: config.probes.clone(),
            own: OwnPorts::of(config),
            doors: Doors::new(),
            name: Arc::from(NAME),
            shared,
        })
    }

    async fn run(&self, socket: TcpStream, from: SocketAddr) {
        let from = original::canonical(from);
        let to = match original::read(&socket, self.mode) {
            Ok(to) => to,
            Err(astray) => return self.refuse(socket, from, None, astray),
        };
        match self.door(to, from) {
            Ok(door) => self.enter(&door, to, socket, from).await,
            Err(astray) => self.refuse(socket, from, Some(to), astray),
        }
    }

    async fn enter(&self, door: &Door, to: SocketAddr, socket: TcpStream, from: SocketAddr) {
        let probes: Vec<&Probe> =
            self.probes.iter().filter(|probe| probe.may_come(from.ip(), to.port())).collect();
        // Only who may be a probe is looked at before the handshake.
        if !probes.is_empty() && self.speaks_plaintext(&socket).await {
            return probe::serve(&self.shared, door, &probes, socket, (from, to)).await;
        }
        let entrance = Entrance { shared: &self.shared, door };
        // Boxed: a handshake gives back the room it took.
        let entered = Box::pin(entrance.identify(socket, from)).await;
        if let Some(served) = entered.map(|known| door.serve(known)) {
            served.await;
        }
    }

    /// Waits for the first byte, for as long as a handshake may take. Nothing at all is left to the handshake to refuse.
    async fn speaks_plaintext(&self, socket: &TcpStream) -> bool {
        let mut first = [0];
        let peeked = timeout(self.shared.limits.handshake_timeout, socket.peek(&mut first)).await;
        matches!(peeked, Ok(Ok(1))) && first != [TLS_HANDSHAKE]
    }

    /// Returns the door of an address that a caller named in another way than by calling it.
    pub(crate) fn named(&self, to: SocketAddr, from: SocketAddr) -> Option<Arc<Door>> {
        self.door(to, from).ok()
    }

    /// Returns the door of an address of ours.
    fn door(&self, to: SocketAddr, from: SocketAddr) -> Result<Arc<Door>, Astray> {
        let from = (self.mode == Mode::Tproxy).then(|| from.ip());
        let (name, protocol) = self.spoken(to.port());
        let listed = self.ports.iter().find(|listed| listed.port == to.port());
        self.doors.find(Call { to, from, protocol }, || {
            self.own.called(to, original::is_ours)?;
            let config = config::Inbound {
                name: name.to_owned(),
                listen: to,
                protocol,
                application: to,
                danger_permissive_until: listed.and_then(|listed| listed.danger_permissive_until),
            };
            let way = from.map_or(self.shared.way, |from| self.shared.way.from(from));
            Ok(Arc::new(Door::called_at(&config, way, Arc::clone(&self.shared))))
        })
    }

    /// What a port of ours speaks: as the configuration lists it, else as the CA says.
    fn spoken(&self, port: u16) -> (&str, Protocol) {
        match self.ports.iter().find(|listed| listed.port == port) {
            Some(listed) => (&listed.name, listed.protocol),
            None => (NAME, self.shared.state.served().protocol(port).unwrap_or(self.default_protocol)),
        }
    }

    fn refuse(&self, socket: TcpStream, from: SocketAddr, to: Option<SocketAddr>, astray: Astray) {
        self.trace(from, to).denied(Refusal::plain(Stage::Connect, Reason::NotPermitted(astray.code())));
        // Fails only where the client is gone already.
        let _ = socket.set_zero_linger();
    }

    fn trace(&self, from: SocketAddr, to: Option<SocketAddr>) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), Some(from));
        let trace = trace.to(&self.name, to);
        match &self.shared.state.now().identity {
            Some(identity) => trace.for_workload(identity.id()),
            None => trace,
        }
    }
}

impl Accept for TransparentInbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        self.shared.metrics.live.inc();
        self.run(socket, from).await;
        self.shared.metrics.live.dec();
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        let to = original::read(&socket, self.mode).ok();
        self.trace(from, to).denied(Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit)));
        // Fails only where the client is gone already.
        let _ = socket.set_zero_linger();
    }
}

/// The name in records of ports that have none.
const NAME: &str = "transparent-inbound";
/// The first byte of a TLS handshake (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;
