//! One called port of our workload: what is spoken there, where the application listens, and how a caller that has proved
//! itself is served.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use audit::{CloseCause, Stage};
use identity::Peer;
use policy::{Allowed, Decision, Traffic};
use tokio::net::TcpStream;

use super::{at_connect, cause_of, decide_tcp, explained, gate, open, refused};
use crate::{
    activity::Waiting,
    clock,
    config::{self, Protocol},
    http1::{self, Dial, DialError, Dialled, Pool, PoolKey, Session},
    listener::ConnectError,
    live::{Live, Registered, Role},
    record::{Refusal, Trace},
    relay::relay,
    shared::Shared,
    stream::Stream,
    transparent::Way,
    unreachable::Unreachable,
};

/// What one called port is. Listeners of every kind lead here.
pub(crate) struct Door {
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    application: SocketAddr,
    /// The address that callers called, where it is not that of the socket.
    called: Option<SocketAddr>,
    way: Way,
    pool: Arc<Pool>,
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
        let pool = Arc::new(Pool::new(dial, shared.limits.head()));
        let (name, protocol) = (Arc::from(config.name.as_str()), config.protocol);
        Self { name, port, protocol, application, called, way, pool, unreachable, shared }
    }

    /// Returns the address that a caller called.
    pub(crate) fn called(&self, socket: &TcpStream) -> Option<SocketAddr> {
        self.called.or_else(|| socket.local_addr().ok())
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Returns how a connection to this door is registered.
    pub(crate) fn registration(&self) -> (Role, Waiting) {
        match self.protocol {
            Protocol::Tcp => (Role::InboundTcp, Waiting::Relay),
            Protocol::Http => (Role::InboundHttp, Waiting::Request),
        }
    }

    /// Decides about a connection and carries it to its end. Boxed: each kind of connection takes the room it needs.
    pub(crate) fn serve(&self, known: Known) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        match self.protocol {
            Protocol::Tcp => Box::pin(self.tcp(known)),
            Protocol::Http => Box::pin(self.http(known)),
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
                stream.reset_on_close();
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
                stream.reset_on_close();
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
        let pool = Arc::clone(&self.pool);
        let session = match refused {
            Some(denial) => {
                live.refuse();
                Session::new(refused::RefusedGate::new(gate, denial, effective), pool, Arc::clone(&live))
            }
            None => {
                open(&trace, &effective, &Allowed::default());
                Session::new(gate, pool, Arc::clone(&live))
            }
        };
        let (limits, drain) = (self.shared.limits.head(), &self.shared.drain);
        let ended = http1::serve(stream, limits, Arc::new(session), drain).await;
        if !live.is_refused() {
            trace.closed(live.activity.totals(), cause_of(&ended, &live));
        }
    }
}

/// Connects a pool to the application.
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
