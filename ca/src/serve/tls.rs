//! The TLS listener. Handshakes run beside the accept loop, so many at once and no longer than a moment each.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, stream};
use identity::{
    Credentials, Peer,
    tls::{ALPN_H2, ClientAuth, HandshakeError, TlsError, accept, server_config},
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;

use super::{Connection, Lasts};
use crate::{
    access::Origin,
    metrics::Metrics,
    model::unix_seconds,
    rate::network,
    registry::SharedRegistry,
    services::Core,
    shares::{Client, Share, Shares},
};

/// Accepts connections and hands those with a sound handshake to `connections`, until the CA stops.
pub(crate) async fn run(
    listener: TcpListener,
    connections: mpsc::Sender<Connection<TlsStream<TcpStream>, Share>>,
    core: Arc<Core>,
) -> Result<(), TlsError> {
    let mut signing = core.signing.clone();
    let mut config = configure(&signing.borrow_and_update().credentials)?;
    let places = Places::new(core.registry.clone());
    let turns = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let handshaking = Shares::new(MAX_HANDSHAKES, MAX_HANDSHAKES_PER_NETWORK);
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = core.stop.cancelled() => return Ok(()),
            changed = signing.changed() => {
                // Without a sender the CA is about to stop, and says so itself.
                if changed.is_err() {
                    return Ok(());
                }
                config = configure(&signing.borrow_and_update().credentials)?;
                continue;
            }
            Some(_) = handshakes.join_next() => continue,
            accepted = next(&listener, &turns) => accepted,
        };
        let (stream, source, turn) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(share) = handshaking.take(Client::Network(network(source.ip()))) else {
            tracing::debug!(%source, "connection refused, too many handshakes of its network are under way");
            core.metrics.handshake_failed();
            continue;
        };
        let handshake = Handshake {
            config: config.clone(),
            source,
            places: places.clone(),
            metrics: core.metrics.clone(),
        };
        let connections = connections.clone();
        handshakes.spawn(async move {
            if let Some(connection) = handshake.run(stream).await {
                // A closed queue means that the server has stopped.
                let _ = connections.send(connection).await;
            }
            drop((share, turn));
        });
    }
}

/// A turn comes first: while all are taken, strangers wait in the kernel's queue.
async fn next(
    listener: &TcpListener,
    turns: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let turn = turns.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, source) = listener.accept().await?;
    Ok((stream, source, turn))
}

struct Handshake {
    config: Arc<ServerConfig>,
    source: SocketAddr,
    places: Places,
    metrics: Metrics,
}

impl Handshake {
    async fn run(self, stream: TcpStream) -> Option<Connection<TlsStream<TcpStream>, Share>> {
        let source = self.source;
        // Small messages both ways: waiting to fill a packet only costs time.
        let _ = stream.set_nodelay(true);
        let failure = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept(self.config.clone(), stream)).await
        {
            Ok(Ok((peer, stream))) => match self.places.take(source.ip(), peer.as_ref()) {
                Some((place, life)) => {
                    let lasts = Lasts::Until(Box::pin(tokio::time::sleep(life)));
                    let origin = Origin::Remote { source, peer };
                    return Some(Connection { stream, origin, lasts, _place: place });
                }
                None => {
                    tracing::warn!(%source, "connection refused, too many are open");
                    "too_many_connections"
                }
            },
            Ok(Err(HandshakeError::Io(_))) => "connection_failed",
            Ok(Err(error)) => {
                tracing::info!(%source, reason = error.reason(), error = %crate::chain(&error), "TLS handshake refused");
                error.reason()
            }
            Err(_) => "timeout",
        };
        tracing::debug!(%source, reason = failure, "TLS handshake failed");
        self.metrics.handshake_failed();
        None
    }
}

/// The places for connections.
#[derive(Clone)]
struct Places {
    known: Shares,
    strangers: Shares,
    registry: SharedRegistry,
}

impl Places {
    fn new(registry: SharedRegistry) -> Self {
        Self {
            known: Shares::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_IDENTITY),
            strangers: Shares::new(MAX_STRANGERS, MAX_STRANGERS_PER_NETWORK),
            registry,
        }
    }

    /// An agent or an administrator has a place until its certificate ends. Whoever else comes can only attest or ask for
    /// the bundle, which takes a moment: other identities an agent has as many of as it has entries.
    fn take(&self, source: IpAddr, peer: Option<&Peer>) -> Option<(Share, Duration)> {
        let now = SystemTime::now();
        let known = peer.filter(|peer| {
            let (id, now) = (peer.id(), unix_seconds(now));
            self.registry.read(|registry| registry.node(id).is_some() || registry.is_admin(id, now))
        });
        match known {
            Some(peer) => {
                let life = peer.not_after().duration_since(now).unwrap_or_default();
                Some((self.known.take(Client::Identity(peer.id().clone()))?, life))
            }
            None => Some((self.strangers.take(Client::Network(network(source)))?, STRANGER_LIFE)),
        }
    }
}

fn configure(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(credentials, ClientAuth::Optional, &[ALPN_H2])
}

/// The connections of `queue` as the server wants them.
pub(crate) fn incoming(
    queue: mpsc::Receiver<Connection<TlsStream<TcpStream>, Share>>,
) -> impl Stream<Item = io::Result<Connection<TlsStream<TcpStream>, Share>>> {
    stream::unfold(
        queue,
        |mut queue| async move { queue.recv().await.map(|connection| (Ok(connection), queue)) },
    )
}

/// Connections of agents and administrators held at once. An agent needs one.
const MAX_CONNECTIONS: usize = 12_288;
/// Connections of one of them: it may leave some behind when its network fails.
const MAX_CONNECTIONS_PER_IDENTITY: usize = 16;
/// Connections of all others held at once.
const MAX_STRANGERS: usize = 2048;
/// Connections of others from one network: the nodes behind one address attest one after the other.
const MAX_STRANGERS_PER_NETWORK: usize = 128;
/// How long they are held.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Handshakes at once; more wait in the kernel.
const MAX_HANDSHAKES: usize = 256;
/// Handshakes at once of one network; more are broken off, so that the others need not wait.
const MAX_HANDSHAKES_PER_NETWORK: usize = 64;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed accept: mostly there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
