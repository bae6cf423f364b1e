//! Connects to an endpoint of a service and has it prove an expected identity.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use audit::{CloseCause, DenialId, Reason, Stage};
use identity::{Peer, tls::HandshakeError};
use tokio::net::TcpStream;

use super::DROPPED;
use crate::{
    activity::Waiting,
    balance::{Load, Via},
    config::Tunnelling,
    http1::DialError,
    listener::ConnectError,
    live::{Entry, Key, Live, Proof, Registered, Role},
    record::{self, Refusal, Trace},
    services::{Call, CallError, Held, Listed, Room, Service},
    shared::Shared,
    state::{self, Identity},
    stream::Stream,
    tls::{self, Met},
    tunnel::{self, OpenError, Tunnels},
};

/// Connects to the endpoints of one service.
pub(super) struct Dialler {
    pub(super) service: Arc<Service>,
    pub(super) tunnelling: Tunnelling,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) shared: Arc<Shared>,
}

/// A connection to a peer that proved an expected identity.
pub(super) struct Reached {
    pub(super) stream: Stream,
    pub(super) opened: Opened,
    pub(super) generation: u64,
}

/// Keeps a connection to a peer in the registry and in the list of its service, and puts its end on record.
pub(crate) struct Opened {
    trace: Trace,
    registered: Registered,
    cause: Option<CloseCause>,
    _listed: Listed,
    _room: Room,
}

impl Opened {
    pub(crate) fn live(&self) -> &Arc<Live> {
        self.registered.live()
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn close(mut self, cause: CloseCause) {
        self.cause = Some(cause);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let live = self.registered.live();
        let cut = live.cut_reason();
        let totals = live.activity.totals();
        match (self.cause, cut) {
            (Some(cause), _) => self.trace.closed(totals, cause),
            // Of a pooled connection the peer's bytes are what our workload received.
            (None, Some(cut)) => {
                self.trace.cut(cut);
                self.trace.closed((totals.1, totals.0), record::cause(cut));
            }
            (None, None) => self.trace.closed((totals.1, totals.0), DROPPED),
        }
    }
}

/// Why no endpoint was reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReachError {
    #[error("no identity to prove")]
    NoIdentity,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("no endpoint can be connected to")]
    Connect(#[source] std::io::Error),
    #[error("connecting took too long")]
    TimedOut,
    #[error("endpoint proved no expected identity: {reason}")]
    Rejected { reason: &'static str, denial: DenialId },
    #[error("handshake failed: {reason}")]
    Handshake { reason: &'static str },
    #[error("the tunnel leads nowhere")]
    Tunnel(#[source] OpenError),
}

impl ReachError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::Call(error) => error.code(),
            Self::Connect(_) => "connect_failed",
            Self::TimedOut => "connect_timeout",
            Self::Rejected { .. } => "peer_rejected",
            Self::Handshake { .. } => "handshake_failed",
            Self::Tunnel(error) => error.code(),
        }
    }
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The endpoint does not work: another one may.
    Endpoint,
    /// The endpoint is somebody else. The call ends there: it was refused.
    Impostor,
    Nobody,
}

impl ReachError {
    /// Says what the failure means for the endpoint, and whether another one may be asked.
    fn blame(&self) -> Blame {
        match self {
            Self::Connect(_) | Self::TimedOut | Self::Handshake { .. } => Blame::Endpoint,
            Self::Rejected { reason: TRUST_WITHDRAWN, .. } | Self::NoIdentity | Self::Call(_) => {
                Blame::Nobody
            }
            Self::Rejected { .. } => Blame::Impostor,
            Self::Tunnel(error) => match error {
                // A decision about the call: nobody else is asked for another one.
                OpenError::Denied | OpenError::Refused { .. } => Blame::Nobody,
                OpenError::Rejected { .. } => Blame::Impostor,
                OpenError::Connect(_)
                | OpenError::TimedOut
                | OpenError::Handshake { .. }
                | OpenError::NoTunnel
                | OpenError::Unreachable
                | OpenError::Broken(_)
                | OpenError::Outdated => Blame::Endpoint,
            },
        }
    }
}

impl Blame {
    /// Says whose fault a failure is that a pool tells of.
    pub(crate) fn of(error: &DialError) -> Self {
        match error {
            DialError::Connect(_) | DialError::TimedOut | DialError::Handshake { .. } => Self::Endpoint,
            DialError::Rejected { reason: TRUST_WITHDRAWN, .. }
            | DialError::NoIdentity
            | DialError::Unavailable { .. } => Self::Nobody,
            DialError::Rejected { .. } => Self::Impostor,
        }
    }
}

impl Dialler {
    /// Begins the records of a call.
    pub(super) fn trace(&self, from: Option<SocketAddr>) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), from);
        let trace = trace.to(self.service.name(), None);
        match &self.shared.state.now().identity {
            Some(identity) => trace.by_workload(identity.id()),
            None => trace,
        }
    }

    /// Connects to the endpoint that is chosen for a call. One that does not answer is followed by another while the call
    /// may be tried again: nothing has been sent.
    pub(super) async fn reach(
        &self,
        call: &mut Call,
        from: Option<SocketAddr>,
        waiting: Waiting,
    ) -> Result<(Reached, Held), ReachError> {
        let reached = loop {
            let held = match call.next() {
                Ok(held) => held,
                Err(error) => break Err(error.into()),
            };
            let error = match self.connect(&held, call, from, waiting).await {
                Ok(reached) => return Ok((reached, held)),
                Err(error) => error,
            };
            match error.blame() {
                Blame::Endpoint => held.failed(),
                Blame::Impostor => {
                    held.is_impostor();
                    break Err(error);
                }
                Blame::Nobody => break Err(error),
            }
            drop(held);
            if !call.retry().await {
                break Err(error);
            }
        };
        if let Err(error) = &reached
            && !matches!(error, ReachError::NoIdentity)
        {
            self.service.unreachable.tell(call.spec().places(), error);
        }
        reached
    }

    async fn connect(
        &self,
        held: &Held,
        call: &Call,
        from: Option<SocketAddr>,
        waiting: Waiting,
    ) -> Result<Reached, ReachError> {
        let (limit, handshake) = call.connect_limits(self.shared.limits.handshake_timeout);
        let connecting = self.connect_to(held.address(), held.via(), (limit, handshake), (from, waiting));
        match handshake {
            Some(_) => connecting.await,
            None => tokio::time::timeout(limit, connecting).await.unwrap_or(Err(ReachError::TimedOut)),
        }
    }

    /// Connects to one endpoint for whoever keeps the connection.
    pub(super) async fn connect_for_pool(
        &self,
        address: SocketAddr,
        via: Via,
    ) -> Result<Reached, ReachError> {
        let (limit, handshake) = self.service.try_limits(self.shared.limits.handshake_timeout);
        let connecting = self.connect_to(address, via, (limit, handshake), (None, Waiting::Nothing));
        let reached = match handshake {
            Some(_) => connecting.await,
            None => tokio::time::timeout(limit, connecting).await.unwrap_or(Err(ReachError::TimedOut)),
        };
        if let Err(error) = &reached
            && !matches!(error, ReachError::NoIdentity)
        {
            self.service.unreachable.tell(address, error);
        }
        reached
    }

    /// Connects to one endpoint: through a tunnel where that is how it is called, else directly.
    pub(super) async fn connect_to(
        &self,
        address: SocketAddr,
        via: Via,
        limits: (Duration, Option<Duration>),
        (from, waiting): (Option<SocketAddr>, Waiting),
    ) -> Result<Reached, ReachError> {
        let room = Room::take(&self.service, Load::Connection)?;
        let _pending = Room::take(&self.service, Load::Pending)?;
        let identity = self.shared.state.now().identity.clone().ok_or(ReachError::NoIdentity)?;
        let trace = self.trace(from).to(self.service.name(), Some(address));
        let how = match (self.tunnelling, via) {
            (Tunnelling::Never, Via::Tunnel) => Tunnelling::Always(tunnel::PORT),
            (how, Via::Tunnel | Via::Connection) => how,
        };
        let tunnelled = match how {
            Tunnelling::Never => None,
            Tunnelling::Always(port) => Some(self.through_tunnel(&identity, (address, port), &trace).await?),
            Tunnelling::Preferred(port) => {
                match self.through_tunnel(&identity, (address, port), &trace).await {
                    Ok(carried) => Some(carried),
                    Err(ReachError::Tunnel(error)) if error.is_no_tunnel() => None,
                    Err(error) => return Err(error),
                }
            }
        };
        let (stream, proof) = match tunnelled {
            Some(carried) => (carried.stream, carried.proof),
            None => {
                let Met { peer, chain, stream, .. } =
                    self.directly(&identity, address, limits, &trace).await?;
                (Stream::Tls(stream), Arc::new(Proof { peer, chain }))
            }
        };
        let trace = trace.answered_by(&proof.peer);
        let key = Key::new(Role::Outbound, Some(proof.peer.id().clone()), None, address.port());
        let entry = Entry { key, proof: None, opened: trace.opened_at(), waiting };
        let registered = self.shared.registry.register_of(entry, Some(proof));
        let listed = self.service.list(address, registered.live());
        self.check_trust(&identity, &registered, &trace)?;
        trace.opened(None, Arc::default());
        let opened = Opened { trace, registered, cause: None, _listed: listed, _room: room };
        Ok(Reached { stream, opened, generation: identity.credentials.generation() })
    }

    async fn through_tunnel(
        &self,
        identity: &Arc<Identity>,
        (endpoint, port): (SocketAddr, u16),
        trace: &Trace,
    ) -> Result<tunnel::Carried, ReachError> {
        let expected = Arc::clone(&self.service.spec().expect);
        let call = tunnel::Call { identity: Arc::clone(identity), expected, endpoint, port };
        self.tunnels.open(&call, trace).await.map_err(ReachError::Tunnel)
    }

    async fn directly(
        &self,
        identity: &Identity,
        address: SocketAddr,
        (connect, handshake): (Duration, Option<Duration>),
        trace: &Trace,
    ) -> Result<Met<Peer>, ReachError> {
        let socket = self.shared.way.connect(address, connect).await.map_err(|error| match error {
            ConnectError::Io(error) => ReachError::Connect(error),
            ConnectError::TimedOut => ReachError::TimedOut,
        })?;
        self.handshake(identity, socket, handshake.unwrap_or(connect), trace).await
    }

    /// A bundle withdrawn between the handshake and the registration has to be noticed here.
    fn check_trust(&self, used: &Identity, registered: &Registered, trace: &Trace) -> Result<(), ReachError> {
        let now = self.shared.state.now();
        let trusted = match (&now.identity, &registered.live().proof) {
            (Some(identity), _) if identity.credentials.generation() == used.credentials.generation() => true,
            (Some(identity), Some(proof)) => state::holds(proof, &identity.credentials, trace.opened_at()),
            (Some(_), None) | (None, _) => false,
        };
        if trusted {
            return Ok(());
        }
        let denial = trace.denied(Refusal::plain(Stage::Connect, Reason::TrustWithdrawn));
        Err(ReachError::Rejected { reason: TRUST_WITHDRAWN, denial })
    }

    async fn handshake(
        &self,
        identity: &Identity,
        socket: TcpStream,
        limit: Duration,
        trace: &Trace,
    ) -> Result<Met<Peer>, ReachError> {
        let expected = Arc::clone(&self.service.spec().expect);
        let config = identity.client(&expected, false).map_err(|_| ReachError::NoIdentity)?;
        match tokio::time::timeout(limit, tls::connect(&config, socket)).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(HandshakeError::Rejected(error))) => {
                let reason = error.reason();
                let refusal = Refusal::plain(Stage::Handshake, Reason::HandshakeFailed(reason));
                Err(ReachError::Rejected { reason, denial: trace.denied(refusal) })
            }
            Ok(Err(error)) => {
                tracing::debug!(service = %self.service.name(), %error, "handshake with an endpoint failed");
                Err(ReachError::Handshake { reason: error.reason() })
            }
            Err(_) => Err(ReachError::Handshake { reason: "timeout" }),
        }
    }
}

impl From<ReachError> for DialError {
    fn from(error: ReachError) -> Self {
        match error {
            ReachError::NoIdentity => Self::NoIdentity,
            ReachError::Connect(source) => Self::Connect(source),
            ReachError::TimedOut => Self::TimedOut,
            ReachError::Rejected { reason, denial } => Self::Rejected { reason, denial },
            ReachError::Handshake { reason } => Self::Handshake { reason },
            ReachError::Call(error) => Self::Unavailable { reason: error.code() },
            // Who decided about the call is asked no second time.
            ReachError::Tunnel(error @ (OpenError::Denied | OpenError::Refused { .. })) => {
                Self::Unavailable { reason: error.code() }
            }
            ReachError::Tunnel(error) => Self::Handshake { reason: error.code() },
        }
    }
}

/// The reason of a refusal that is no fault of the endpoint's.
const TRUST_WITHDRAWN: &str = "trust_withdrawn";
