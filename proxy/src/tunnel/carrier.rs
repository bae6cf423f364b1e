//! One tunnel of ours: the connection to a peer that carries connections of our workload.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use identity::tls::{ALPN_H2, HandshakeError};
use tokio::{net::TcpStream, time::timeout};

use super::{
    CONNECTION_WINDOW, FRAME, HEADER_LIST, MAX_STREAMS, SEND_BUFFER, SMALL_FRAMES, STREAM_WINDOW,
    opening::{Call, OpenError, Patience},
    pulse::{Beat, Pulse},
};
use crate::{
    activity::Waiting,
    listener::ConnectError,
    live::{Entry, Key, Live, Proof, Registered, Role},
    shared::Shared,
    state,
    tls::{self, Met, TlsStream},
};

/// A tunnel that takes streams until it retires.
#[derive(Debug)]
pub(super) struct Carrier {
    sender: Mutex<Option<SendRequest<Bytes>>>,
    streams: AtomicUsize,
    registered: Registered,
}

/// A place for one stream; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Carrier>);

impl Slot {
    pub(super) fn carrier(&self) -> &Carrier {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Carrier {
    /// The tunnel itself.
    pub(super) fn live(&self) -> &Arc<Live> {
        self.registered.live()
    }

    /// Returns what opens a stream, unless the tunnel takes none any more.
    pub(super) fn sender(&self) -> Option<SendRequest<Bytes>> {
        self.lock().clone()
    }

    /// Says whether the tunnel takes further streams.
    pub(super) fn is_usable(&self) -> bool {
        let live = self.live();
        if live.is_cut() || live.is_retired() {
            return false;
        }
        // After a GOAWAY it is not ready for anything.
        let mut cx = Context::from_waker(Waker::noop());
        let ready = self.lock().as_mut().map(|sender| sender.poll_ready(&mut cx));
        !matches!(ready, None | Some(std::task::Poll::Ready(Err(_))))
    }

    /// Takes a place where one is free.
    pub(super) fn take(self: &Arc<Self>) -> Option<Slot> {
        let most = self.lock().as_ref().map_or(0, SendRequest::current_max_send_streams).min(MAX_STREAMS);
        let taken = self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
            (streams < most).then_some(streams + 1)
        });
        taken.is_ok().then(|| Slot(Arc::clone(self)))
    }

    /// Takes no further stream. The connection ends with its last one.
    pub(super) fn retire(&self) {
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tunnel that was just made, and what drives it.
pub(super) struct Made {
    pub(super) carrier: Arc<Carrier>,
    pub(super) connection: Connection<Box<TlsStream>, Bytes>,
}

/// Connects, proves both sides to each other, and registers the tunnel.
pub(super) async fn make(shared: &Shared, call: &Call) -> Result<Made, OpenError> {
    let opened = SystemTime::now();
    let limits =
        Patience { connect: shared.limits.connect_timeout, handshake: shared.limits.handshake_timeout };
    let address = SocketAddr::new(call.endpoint.ip(), call.port);
    let socket = shared.way.connect(address, limits.connect).await.map_err(|error| match error {
        ConnectError::Io(error) => OpenError::Connect(Arc::new(error)),
        ConnectError::TimedOut => OpenError::TimedOut,
    })?;
    let Met { peer, chain, alpn, stream, .. } = meet(call, socket, limits).await?;
    if alpn.as_deref() != Some(ALPN_H2) {
        return Err(OpenError::NoTunnel);
    }
    let key = Key::new(Role::Tunnel, Some(peer.id().clone()), None, call.port);
    let entry = Entry { key, proof: Some(Proof { peer, chain }), opened, waiting: Waiting::Nothing };
    let registered = shared.registry.register(entry);
    check_trust(shared, call, &registered)?;
    let (sender, connection) = timeout(limits.handshake, builder().handshake(stream))
        .await
        .map_err(|_| OpenError::TimedOut)?
        .map_err(|error| OpenError::Broken(Arc::new(error)))?;
    let sender = Mutex::new(Some(sender));
    let carrier = Arc::new(Carrier { sender, streams: AtomicUsize::new(0), registered });
    Ok(Made { carrier, connection })
}

async fn meet(call: &Call, socket: TcpStream, limits: Patience) -> Result<Met<identity::Peer>, OpenError> {
    let connector = call
        .identity
        .client(&call.expected, true)
        .map_err(|_| OpenError::Handshake { reason: "tls_configuration" })?;
    match timeout(limits.handshake, tls::connect(&connector, socket)).await {
        Ok(Ok(met)) => Ok(met),
        Ok(Err(HandshakeError::Rejected(error))) => Err(OpenError::Rejected { reason: error.reason() }),
        // Whoever has TLS for something else says so: it has no protocol in common with us.
        Ok(Err(HandshakeError::Alert(rustls::AlertDescription::NoApplicationProtocol))) => {
            Err(OpenError::NoTunnel)
        }
        Ok(Err(error)) => Err(OpenError::Handshake { reason: error.reason() }),
        Err(_) => Err(OpenError::Handshake { reason: "timeout" }),
    }
}

/// A bundle withdrawn between the handshake and the registration has to be noticed here.
fn check_trust(shared: &Shared, call: &Call, registered: &Registered) -> Result<(), OpenError> {
    let used = call.identity.credentials.generation();
    let trusted = match (&shared.state.now().identity, &registered.live().proof) {
        (Some(identity), _) if identity.credentials.generation() == used => true,
        (Some(identity), Some(proof)) => state::holds(proof, &identity.credentials, registered.live().opened),
        (Some(_), None) | (None, _) => false,
    };
    if trusted { Ok(()) } else { Err(OpenError::Rejected { reason: "trust_withdrawn" }) }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(MAX_STREAMS)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES)
        .enable_push(false);
    builder
}

/// Runs a tunnel until its last stream has ended after it retired, or it breaks.
pub(super) async fn drive(shared: Arc<Shared>, made: Made, generation: u64) {
    let Made { carrier, mut connection } = made;
    let mut pulse = Pulse::new(connection.ping_pong());
    let mut connection = std::pin::pin!(connection);
    let mut changes = shared.state.changes();
    loop {
        tokio::select! {
            biased;
            // Dropped, the connection takes its streams along.
            _ = carrier.live().wait_cut() => break,
            result = &mut connection => {
                if let Err(error) = result {
                    tracing::debug!(%error, "tunnel broke");
                }
                break;
            }
            Ok(()) = changes.changed() => {
                let now = shared.state.now();
                let now = now.identity.as_ref().map(|identity| identity.credentials.generation());
                if now != Some(generation) {
                    carrier.retire();
                }
            }
            () = carrier.live().wait_retired(), if carrier.lock().is_some() => carrier.retire(),
            () = pulse.next() => match pulse.beat(carrier.streams.load(Ordering::Relaxed), Instant::now()) {
                Beat::Alive => {}
                Beat::Idle => carrier.retire(),
                Beat::Dead => break,
            },
        }
    }
    carrier.retire();
}
