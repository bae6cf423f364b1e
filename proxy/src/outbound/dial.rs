//! Connects to one of a service's endpoints and has it prove an expected identity.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use audit::{CloseCause, DenialId, Reason, Stage};
use identity::{
    Peer, SpiffeId,
    tls::HandshakeError,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::DROPPED;
use crate::{
    activity::Waiting,
    config::{self, HostPort},
    http1::{Dial, DialError, Dialled, PoolKey},
    live::{Entry, Key, Live, Proof, Registered, Role},
    record::{self, Refusal, Trace},
    shared::Shared,
    state::{self, Identity},
    stream::Stream,
    tls::{self, Met},
    unreachable::Unreachable,
};

/// Connects to one service.
pub(super) struct Dialler {
    name: Arc<str>,
    expected: Arc<[SpiffeId]>,
    endpoints: Vec<HostPort>,
    next: AtomicUsize,
    unreachable: Unreachable,
    shared: Arc<Shared>,
}

/// A connection to a peer that proved an expected identity.
pub(super) struct Reached {
    pub(super) stream: Stream,
    pub(super) opened: Opened,
    pub(super) generation: u64,
}

/// Keeps a connection to a peer in the registry, and puts its end on record.
pub(crate) struct Opened {
    trace: Trace,
    registered: Registered,
    cause: Option<CloseCause>,
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
    #[error("no endpoint can be connected to")]
    Connect(#[source] std::io::Error),
    #[error("connecting took too long")]
    TimedOut,
    #[error("endpoint proved no expected identity: {reason}")]
    Rejected { reason: &'static str, denial: DenialId },
    #[error("handshake failed: {reason}")]
    Handshake { reason: &'static str },
}

impl ReachError {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoIdentity => "no_identity",
            Self::Connect(_) => "connect_failed",
            Self::TimedOut => "connect_timeout",
            Self::Rejected { .. } => "peer_rejected",
            Self::Handshake { .. } => "handshake_failed",
        }
    }
}

impl Dialler {
    pub(super) fn new(config: &config::Outbound, shared: Arc<Shared>) -> Self {
        let endpoints = config.endpoints.clone();
        let (name, next) = (Arc::from(config.name.as_str()), AtomicUsize::new(0));
        let expected = Arc::from(config.expect.as_slice());
        Self { name, expected, endpoints, next, unreachable: Unreachable::new(&config.name), shared }
    }

    /// Begins the records of a call.
    pub(super) fn trace(&self, from: Option<SocketAddr>) -> Trace {
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), from);
        let trace = trace.to(&self.name, None);
        match &self.shared.state.now().identity {
            Some(identity) => trace.by_workload(identity.id()),
            None => trace,
        }
    }

    /// Connects to the endpoint whose turn it is, or to the next that answers, and does the handshake.
    pub(super) async fn dial(
        &self,
        from: Option<SocketAddr>,
        waiting: Waiting,
    ) -> Result<Reached, ReachError> {
        let reached = self.reach(from, waiting).await;
        match &reached {
            Ok(_) | Err(ReachError::NoIdentity) => {}
            Err(error) => {
                let endpoints: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
                self.unreachable.tell(endpoints.join(", "), error);
            }
        }
        reached
    }

    async fn reach(&self, from: Option<SocketAddr>, waiting: Waiting) -> Result<Reached, ReachError> {
        let identity = self.shared.state.now().identity.clone().ok_or(ReachError::NoIdentity)?;
        let socket = self.connect().await?;
        let address = socket.peer_addr().ok();
        let trace = self.trace(from).to(&self.name, address);
        let Met { peer, chain, stream, .. } = self.handshake(&identity, socket, &trace).await?;
        let trace = trace.answered_by(&peer);
        let port = address.map_or(0, |address| address.port());
        let key = Key::new(Role::Outbound, Some(peer.id().clone()), None, port);
        let entry = Entry { key, proof: Some(Proof { peer, chain }), opened: trace.opened_at(), waiting };
        let registered = self.shared.registry.register(entry);
        self.check_trust(&identity, &registered, &trace)?;
        trace.opened(None, Arc::default());
        let opened = Opened { trace, registered, cause: None };
        let generation = identity.credentials.generation();
        Ok(Reached { stream: Stream::Tls(stream), opened, generation })
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
        Err(ReachError::Rejected { reason: "trust_withdrawn", denial })
    }

    async fn handshake(
        &self,
        identity: &Identity,
        socket: TcpStream,
        trace: &Trace,
    ) -> Result<Met<Peer>, ReachError> {
        let config = identity.client(&self.expected, false).map_err(|_| ReachError::NoIdentity)?;
        let limit = self.shared.limits.handshake_timeout;
        let connecting = tls::connect(&config, socket);
        match tokio::time::timeout(limit, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(HandshakeError::Rejected(error))) => {
                let reason = error.reason();
                let refusal = Refusal::plain(Stage::Handshake, Reason::HandshakeFailed(reason));
                Err(ReachError::Rejected { reason, denial: trace.denied(refusal) })
            }
            Ok(Err(error)) => {
                tracing::debug!(service = %self.name, %error, "handshake with an endpoint failed");
                Err(ReachError::Handshake { reason: error.reason() })
            }
            Err(_) => Err(ReachError::Handshake { reason: "timeout" }),
        }
    }

    /// Tries each endpoint once, beginning with the one whose turn it is, within one time limit.
    async fn connect(&self) -> Result<TcpStream, ReachError> {
        let deadline = Instant::now() + self.shared.limits.connect_timeout;
        let first = self.next.fetch_add(1, Ordering::Relaxed) % self.endpoints.len().max(1);
        let mut error = ReachError::TimedOut;
        let (before, after) = self.endpoints.split_at_checked(first).unwrap_or((&[], &self.endpoints));
        for (tried, endpoint) in after.iter().chain(before).enumerate() {
            // One that does not answer leaves time for the others.
            let left = u32::try_from(self.endpoints.len() - tried).unwrap_or(u32::MAX).max(1);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout_at(Instant::now() + share.max(SHORTEST_TRY), self.connect_to(endpoint)).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(failed)) => error = ReachError::Connect(failed),
                Err(_) => error = ReachError::TimedOut,
            }
        }
        Err(error)
    }

    async fn connect_to(&self, endpoint: &HostPort) -> std::io::Result<TcpStream> {
        self.shared.way.connect_host(endpoint.host(), endpoint.port()).await
    }
}

/// Connects a pool to the service.
pub(super) struct Pooled(pub(super) Arc<Dialler>);

impl Dial for Pooled {
    fn key(&self) -> Result<PoolKey, DialError> {
        let now = self.0.shared.state.now();
        let identity = now.identity.as_ref().ok_or(DialError::NoIdentity)?;
        let generation = identity.credentials.generation();
        Ok(PoolKey::Mutual { own: identity.id().clone(), generation })
    }

    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send + '_>> {
        Box::pin(async {
            let PoolKey::Mutual { own, .. } = self.key()? else { return Err(DialError::NoIdentity) };
            let reached = self.0.dial(None, Waiting::Nothing).await?;
            let key = PoolKey::Mutual { own, generation: reached.generation };
            Ok(Dialled { stream: reached.stream, key, opened: Some(reached.opened) })
        })
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
        }
    }
}

/// However many endpoints share the time, each gets at least this.
const SHORTEST_TRY: Duration = Duration::from_millis(250);
