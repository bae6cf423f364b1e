//! The TLS listener. Handshakes run beside the accept loop, so many at once and no longer than a moment each.

use std::{
    io,
    net::SocketAddr,
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
use crate::{access::Origin, metrics::Metrics, services::Core};

/// Accepts connections and hands those with a sound handshake to `connections`, until the CA stops.
pub(crate) async fn run(
    listener: TcpListener,
    connections: mpsc::Sender<Connection<TlsStream<TcpStream>>>,
    core: Arc<Core>,
) -> Result<(), TlsError> {
    let mut signing = core.signing.clone();
    let mut config = configure(&signing.borrow_and_update().credentials)?;
    let (agents, strangers) = (places(MAX_CONNECTIONS), places(MAX_STRANGERS));
    let turns = Arc::new(Semaphore::new(MAX_HANDSHAKES));
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
        let handshake = Handshake {
            config: config.clone(),
            source,
            agents: agents.clone(),
            strangers: strangers.clone(),
            metrics: core.metrics.clone(),
        };
        let connections = connections.clone();
        handshakes.spawn(async move {
            if let Some(connection) = handshake.run(stream).await {
                // A closed queue means that the server has stopped.
                let _ = connections.send(connection).await;
            }
            drop(turn);
        });
    }
}

fn places(limit: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(limit))
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
    agents: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    metrics: Metrics,
}

impl Handshake {
    async fn run(self, stream: TcpStream) -> Option<Connection<TlsStream<TcpStream>>> {
        let source = self.source;
        // Small messages both ways: waiting to fill a packet only costs time.
        let _ = stream.set_nodelay(true);
        let failure = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept(self.config.clone(), stream)).await
        {
            Ok(Ok((peer, stream))) => match self.place(peer.as_ref()) {
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

impl Handshake {
    /// Who proves an identity has a place until that ends. Who does not has come to attest, which takes a moment.
    fn place(&self, peer: Option<&Peer>) -> Option<(OwnedSemaphorePermit, Duration)> {
        let (places, life) = match peer {
            Some(peer) => {
                (&self.agents, peer.not_after().duration_since(SystemTime::now()).unwrap_or_default())
            }
            None => (&self.strangers, STRANGER_LIFE),
        };
        Some((places.clone().try_acquire_owned().ok()?, life))
    }
}

fn configure(credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    server_config(credentials, ClientAuth::Optional, &[ALPN_H2])
}

/// The connections of `queue` as the server wants them.
pub(crate) fn incoming(
    queue: mpsc::Receiver<Connection<TlsStream<TcpStream>>>,
) -> impl Stream<Item = io::Result<Connection<TlsStream<TcpStream>>>> {
    stream::unfold(
        queue,
        |mut queue| async move { queue.recv().await.map(|connection| (Ok(connection), queue)) },
    )
}

/// Connections held at once of those that prove an identity. An agent needs one.
const MAX_CONNECTIONS: usize = 12_288;
/// Connections held at once of those that prove nothing.
const MAX_STRANGERS: usize = 2048;
/// How long they are held.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Handshakes at once; more wait in the kernel.
const MAX_HANDSHAKES: usize = 256;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed accept: mostly there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
