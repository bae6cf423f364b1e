//! Calls to our workload: mutual TLS in, decision, plaintext to the application.

mod gate;
mod recheck;
mod refused;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use audit::{CloseCause, Reason, Stage};
use identity::{Peer, tls};
use policy::{Allowed, AtConnect, Decision, Denial, Traffic};
use tokio::{net::TcpStream, time::timeout};

pub(crate) use gate::unread;
pub(crate) use recheck::{judge, rule_of};

use crate::{
    activity::{Expired, Waiting},
    clock,
    config::{self, Protocol},
    handshakes::Unproven,
    http1::{self, Dial, DialError, Dialled, Ended, Pool, PoolKey, Session},
    listener::{self, Accept, Place},
    live::{Cut, Entry, Key, Live, Proof, Registered, Role},
    record::{self, Refusal, Trace},
    relay::{Relay, RelayError},
    shared::Shared,
    state::{self, Effective, Identity},
    stream::Stream,
    unreachable::Unreachable,
};

/// One inbound listener.
pub(crate) struct Inbound {
    name: Arc<str>,
    port: u16,
    protocol: Protocol,
    application: SocketAddr,
    pool: Arc<Pool>,
    unreachable: Arc<Unreachable>,
    shared: Arc<Shared>,
}

/// A connection whose peer is known.
struct Known {
    peer: Peer,
    stream: Stream,
    registered: Registered,
    trace: Trace,
}

impl Inbound {
    pub(crate) fn new(config: &config::Inbound, port: u16, shared: Arc<Shared>) -> Self {
        let application = config.application;
        let unreachable = Arc::new(Unreachable::new(&config.name));
        let limit = shared.limits.connect_timeout;
        let dial = Application { application, limit, unreachable: Arc::clone(&unreachable) };
        let pool = Arc::new(Pool::new(dial, shared.limits.head()));
        Self {
            name: Arc::from(config.name.as_str()),
            port,
            protocol: config.protocol,
            application,
            pool,
            unreachable,
            shared,
        }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    async fn run(&self, socket: TcpStream, from: SocketAddr) {
        let trace = self.trace(&socket, from);
        // Boxed: each kind of connection takes the room it needs, and a handshake gives back its own.
        let Some(known) = Box::pin(self.identify(socket, from, trace)).await else { return };
        match self.protocol {
            Protocol::Tcp => Box::pin(self.tcp(known)).await,
            Protocol::Http => Box::pin(self.http(known)).await,
        }
    }

    fn trace(&self, socket: &TcpStream, from: SocketAddr) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), Some(from));
        trace.to(&self.name, socket.local_addr().ok())
    }

    /// Does the handshake and puts the connection into the registry.
    async fn identify(&self, socket: TcpStream, from: SocketAddr, trace: Trace) -> Option<Known> {
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
        let (peer, stream) = match self.handshake(&identity, socket, unproven).await {
            Ok(accepted) => accepted,
            Err(reason) => {
                refuse_handshake(&trace, reason);
                return None;
            }
        };
        // Lower case for good: the library keeps names as they came.
        let sni = stream.get_ref().1.server_name().map(|name| Arc::from(name.to_ascii_lowercase()));
        let trace = trace.called_by(&peer, sni.as_deref());
        let destination = stream.get_ref().0.local_addr().ok().map(|address| address.ip().to_canonical());
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let proof =
            Proof { peer: peer.clone(), chain: chain.iter().map(|der| der.clone().into_owned()).collect() };
        let (role, waiting) = match self.protocol {
            Protocol::Tcp => (Role::InboundTcp, Waiting::Relay),
            Protocol::Http => (Role::InboundHttp, Waiting::Request),
        };
        let source = Some(from.ip().to_canonical());
        let key = Key { destination, sni, ..Key::new(role, Some(peer.id().clone()), source, self.port) };
        let entry = Entry { key, proof: Some(proof), opened: trace.opened_at(), waiting };
        let registered = self.shared.registry.register(entry);
        let known = Known { peer, stream: Stream::Server(Box::new(stream)), registered, trace };
        self.still_trusted(known, &identity)
    }

    /// A bundle withdrawn between the handshake and the registration has to be noticed here.
    fn still_trusted(&self, known: Known, used: &Identity) -> Option<Known> {
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
    ) -> Result<(Peer, tokio_rustls::server::TlsStream<TcpStream>), &'static str> {
        let metrics = &self.shared.metrics;
        let accept = async {
            // Never closed: acquiring waits and cannot fail.
            let _room = unproven.room().await;
            metrics.handshaking.inc();
            let accepted = tls::accept(Arc::clone(&identity.server), socket).await;
            metrics.handshaking.dec();
            accepted
        };
        match timeout(self.shared.limits.handshake_timeout, accept).await {
            Ok(Ok((Some(peer), stream))) => Ok((peer, stream)),
            Ok(Ok((None, _))) => Err("no_certificate"),
            Ok(Err(error)) => Err(error.reason()),
            Err(_) => Err("timeout"),
        }
    }

    async fn tcp(&self, known: Known) {
        let Known { stream, registered, trace, .. } = known;
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

    async fn relay(&self, stream: Stream, live: &Live, trace: &Trace) -> CloseCause {
        let socket = match connect(self.application, self.shared.limits.connect_timeout).await {
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

    async fn http(&self, known: Known) {
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

impl Accept for Inbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        self.shared.metrics.live.inc();
        self.run(socket, from).await;
        self.shared.metrics.live.dec();
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        let refusal = Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit));
        self.trace(&socket, from).denied(refusal);
        // Fails only where the client is gone already.
        let _ = socket.set_zero_linger();
    }
}

/// Joins two connections until they end or are cut, and says why they ended.
pub(crate) async fn relay(source: Stream, destination: Stream, live: &Live, trace: &Trace) -> CloseCause {
    let mut relay = Relay::new(source, destination);
    tokio::select! {
        biased;
        cut = live.wait_cut() => {
            trace.cut(cut);
            relay.reset_on_close();
            record::cause(cut)
        }
        result = relay.run(&live.activity) => match result {
            Ok(()) => CloseCause::Finished,
            Err(RelayError::Source(_)) => CloseCause::SourceFailed,
            Err(RelayError::Destination(_)) => CloseCause::DestinationFailed,
        },
    }
}

pub(crate) fn cause_of(ended: &Ended, live: &Live) -> CloseCause {
    match (ended, live.cut_reason()) {
        (Ended::Finished | Ended::Cut, None | Some(Cut::Expired(Expired::Lingering)))
            if live.is_retired() =>
        {
            CloseCause::PeerExpired
        }
        (_, Some(cut)) => record::cause(cut),
        (Ended::Finished | Ended::Cut, None) => CloseCause::Finished,
        (Ended::Failed(error), None) => {
            tracing::debug!(%error, "HTTP connection broke");
            CloseCause::SourceFailed
        }
    }
}

/// Connects within a time limit.
pub(crate) async fn connect(
    address: SocketAddr,
    limit: std::time::Duration,
) -> Result<TcpStream, ConnectError> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(socket)) => {
            listener::prepare(&socket);
            Ok(socket)
        }
        Ok(Err(error)) => Err(ConnectError::Io(error)),
        Err(_) => Err(ConnectError::TimedOut),
    }
}

/// Why nobody answers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(std::io::Error),
    #[error("connecting took too long")]
    TimedOut,
}

impl ConnectError {
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Io(_) => "connect_failed",
            Self::TimedOut => "connect_timeout",
        }
    }
}

/// Connects a pool to the application.
struct Application {
    application: SocketAddr,
    limit: std::time::Duration,
    unreachable: Arc<Unreachable>,
}

impl Dial for Application {
    fn key(&self) -> Result<PoolKey, DialError> {
        Ok(PoolKey::Application)
    }

    fn dial(&self) -> std::pin::Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send + '_>> {
        Box::pin(async {
            let connected = connect(self.application, self.limit).await;
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

fn refuse_handshake(trace: &Trace, reason: &'static str) {
    trace.denied(Refusal::plain(Stage::Handshake, Reason::HandshakeFailed(reason)));
}

/// Puts an allowed connection on record, and what a shadow policy would have said.
fn open(trace: &Trace, effective: &Effective, allowed: &Allowed) {
    if let Some(denial) = &allowed.shadow {
        let generation = Arc::clone(&effective.generation);
        trace.denied(Refusal::by_policy(Stage::Connect, denial, generation).shadow());
    }
    trace.opened(allowed.rule.as_ref(), Arc::clone(&effective.generation));
}

pub(crate) fn decide_tcp(effective: &Effective, connection: &policy::Connection<'_>) -> Decision {
    match &effective.policies {
        Some(policies) => policies.decide_tcp(connection),
        None => Decision::Deny(unavailable()),
    }
}

/// Says whether any request on the connection could be allowed.
pub(crate) fn at_connect(effective: &Effective, connection: &policy::Connection<'_>) -> Result<(), Denial> {
    match effective.policies.as_ref().map(|policies| policies.at_connect(connection)) {
        Some(AtConnect::Residual(_)) => Ok(()),
        Some(AtConnect::Deny(denial)) => Err(denial),
        None => Err(unavailable()),
    }
}

/// No good policies have been loaded: everything is refused.
pub(crate) fn unavailable() -> Denial {
    Denial { reason: policy::DenyReason::PolicyUnavailable, rule: None, near_misses: Vec::new() }
}

/// Adds the allow rules that came nearest.
pub(crate) fn explained(
    effective: &Effective,
    connection: &policy::Connection<'_>,
    traffic: Traffic<'_>,
    mut denial: Denial,
) -> Denial {
    if let Some(policies) = &effective.policies {
        denial.near_misses = policies.nearest(connection, &traffic);
    }
    denial
}
