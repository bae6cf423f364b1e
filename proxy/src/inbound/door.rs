//! One called port of our workload: what is spoken there, where the application listens, and how a caller that has proved
//! itself is served.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::SystemTime};

use audit::{CloseCause, Stage};
use identity::Peer;
use policy::{Allowed, Decision, Traffic};
use tokio::net::TcpStream;

use super::{at_connect, cause_of, decide_tcp, explained, gate, open, refused};
use crate::{
    activity::Waiting,
    clock,
    config::{self, Protocol},
    detect::{self, Found, Ways},
    http1::{Dial, DialError, Dialled, Gate, Pool, PoolKey},
    http2,
    listener::ConnectError,
    live::{Live, Registered, Role},
    outbound::Onward,
    record::{Refusal, Trace},
    relay::relay,
    shared::Shared,
    stream::{Declined, Stream},
    transparent::Way,
    unreachable::Unreachable,
};

/// What one called port is. Listeners of every kind lead here.
pub(crate) struct Door {
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Until when callers are let in that prove nothing.
    pub(super) danger_permissive_until: Option<SystemTime>,
    application: SocketAddr,
    /// The address that callers called, where it is not that of the socket.
    called: Option<SocketAddr>,
    way: Way,
    ways: Ways,
    unreachable: Arc<Unreachable>,
    shared: Arc<Shared>,
}

/// A connection whose caller is known.
pub(crate) struct Known {
    /// Absent where the door lets a caller in that proved nothing.
    pub(crate) peer: Option<Peer>,
    pub(crate) stream: Stream,
    pub(crate) registered: Registered,
    pub(crate) trace: Trace,
}

impl Door {
    /// Makes the door of a listener that is open on `port`.
    pub(crate) fn new(config: &config::Inbound, port: u16, shared: Arc<Shared>) -> Self {
        Self::make(config, port, None, shared.way, shared)
    }

    /// Makes the door of an address that was called and brought here. The application is called at that address.
    pub(crate) fn called_at(config: &config::Inbound, way: Way, shared: Arc<Shared>) -> Self {
        Self::make(config, config.listen.port(), Some(config.listen), way, shared)
    }

    fn make(
        config: &config::Inbound,
        port: u16,
        called: Option<SocketAddr>,
        way: Way,
        shared: Arc<Shared>,
    ) -> Self {
        let application = config.application;
        let unreachable = Arc::new(Unreachable::new(&config.name));
        let limit = shared.limits.connect_timeout;
        let dial = Application { application, limit, way, unreachable: Arc::clone(&unreachable) };
        let ways = Ways {
            http1: Arc::new(Pool::new(dial.clone(), shared.limits.head())),
            http2: http2::Pool::new(dial, shared.limits.head()),
        };
        let (name, protocol) = (Arc::from(config.name.as_str()), config.protocol);
        let danger_permissive_until = config.danger_permissive_until;
        Self {
            name,
            port,
            protocol,
            danger_permissive_until,
            application,
            called,
            way,
            ways,
            unreachable,
            shared,
        }
    }

    /// Returns the address that a caller called.
    pub(crate) fn called(&self, socket: &TcpStream) -> Option<SocketAddr> {
        self.called.or_else(|| socket.local_addr().ok())
    }

    /// Where the application listens.
    pub(crate) fn application(&self) -> SocketAddr {
        self.application
    }

    /// Where the requests of its callers go.
    pub(crate) fn onward(&self) -> Onward {
        Onward::from(&self.ways)
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.ways.http1
    }

    /// Returns how a connection to this door is registered.
    pub(crate) fn registration(&self) -> (Role, Waiting) {
        match self.protocol {
            Protocol::Tcp => (Role::InboundTcp, Waiting::Relay),
            // What is spoken shows later; until then nothing passes.
            Protocol::Http | Protocol::Auto => (Role::InboundHttp, Waiting::Request),
        }
    }

    /// Decides about a connection and carries it to its end. Boxed: each kind of connection takes the room it needs.
    pub(crate) fn serve(&self, known: Known) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match self.protocol {
            Protocol::Tcp => Box::pin(self.tcp(known)),
            Protocol::Http => Box::pin(self.http(known)),
            Protocol::Auto => Box::pin(self.any(known)),
        }
    }

    /// Finds out what a caller speaks. What is no HTTP is registered anew, and decided about, as a connection of bytes.
    async fn any(&self, known: Known) {
        let Known { peer, stream, registered, trace } = known;
        let waits = (self.shared.limits.detect_timeout, &self.shared.drain);
        let Some((found, stream)) = detect::detect(stream, registered.live(), waits).await else { return };
        match found {
            Found::Http1 | Found::Http2 => {
                Box::pin(self.http(Known { peer, stream, registered, trace })).await;
            }
            Found::Opaque => {
                let registered = self.shared.registry.again(registered, Role::InboundTcp, Waiting::Relay);
                Box::pin(self.tcp(Known { peer, stream, registered, trace })).await;
            }
        }
    }

    pub(super) async fn tcp(&self, known: Known) {
        let Known { mut stream, registered, trace, .. } = known;
        let live = Arc::clone(registered.live());
        let effective = self.shared.state.now();
        let connection = live.key.as_policy(clock::decided_at());
        match decide_tcp(&effective, &connection) {
            Decision::Deny(denial) => {
                let denial = explained(&effective, &connection, Traffic::Tcp, denial);
                let generation = Arc::clone(&effective.generation);
                trace.denied(Refusal::by_policy(Stage::Connect, &denial, generation));
                stream.decline(Declined::Denied);
            }
            Decision::Allow(allowed) => {
                open(&trace, &effective, &allowed);
                drop(effective);
                let cause = self.relay(stream, &live, &trace).await;
                trace.closed(live.activity.totals(), cause);
            }
        }
    }

    async fn relay(&self, mut stream: Stream, live: &Live, trace: &Trace) -> CloseCause {
        let socket = match self.way.connect(self.application, self.shared.limits.connect_timeout).await {
            Ok(socket) => socket,
            Err(error) => {
                self.unreachable.tell(self.application, &error);
                self.shared.metrics.upstream_failed(error.code());
                stream.decline(Declined::Unreachable);
                return CloseCause::DestinationFailed;
            }
        };
        relay(stream, Stream::Plain(socket), live, trace).await
    }

    pub(super) async fn http(&self, known: Known) {
        let Known { peer, stream, registered, trace } = known;
        let live = Arc::clone(registered.live());
        let effective = self.shared.state.now();
        let connection = live.key.as_policy(clock::decided_at());
        let refused = at_connect(&effective, &connection).err();
        let gate = gate::InboundGate::new(Arc::clone(&self.shared), trace.clone(), peer, live.key.clone());
        match refused {
            Some(denial) => {
                live.refuse();
                let gate = refused::RefusedGate::new(gate, denial, effective);
                Box::pin(self.requests(stream, gate, &live)).await;
            }
            None => {
                open(&trace, &effective, &Allowed::default());
                drop(effective);
                let cause = Box::pin(self.requests(stream, gate, &live)).await;
                trace.closed(live.activity.totals(), cause);
            }
        }
    }

    async fn requests<G: Gate>(&self, stream: Stream, gate: G, live: &Arc<Live>) -> CloseCause {
        cause_of(&detect::http(stream, gate, &self.ways, live, &self.shared).await, live)
    }
}

/// Connects a pool to the application.
#[derive(Clone)]
struct Application {
    application: SocketAddr,
    limit: std::time::Duration,
    way: Way,
    unreachable: Arc<Unreachable>,
}

impl Dial for Application {
    fn key(&self) -> Result<PoolKey, DialError> {
        Ok(PoolKey::Application)
    }

    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send + '_>> {
        Box::pin(async {
            let connected = self.way.connect(self.application, self.limit).await;
            if let Err(error) = &connected {
                self.unreachable.tell(self.application, error);
            }
            match connected {
                Ok(socket) => {
                    Ok(Dialled { stream: Stream::Plain(socket), key: PoolKey::Application, opened: None })
                }
                Err(ConnectError::Io(error)) => Err(DialError::Connect(error)),
                Err(ConnectError::TimedOut) => Err(DialError::TimedOut),
            }
        })
    }
}
