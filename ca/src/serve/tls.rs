//! The TLS listener. Handshakes run beside the accept loop, so many at once and no longer than a moment each.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use identity::{
    Credentials,
    tls::{ALPN_H2, ClientAuth, HandshakeError, TlsError, accept, server_config},
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::server::TlsStream;

use super::Connection;
use crate::{access::Origin, metrics::Metrics, services::Core};

/// Accepts connections and hands those with a sound handshake to `connections`, until the CA stops.
pub(crate) async fn run(
    listener: TcpListener,
    connections: mpsc::Sender<Connection<TlsStream<TcpStream>>>,
    core: Arc<Core>,
) -> Result<(), TlsError> {
    let mut signing = core.signing.clone();
    let mut config = configure(&signing.borrow_and_update().credentials)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(%source, limit = MAX_CONNECTIONS, "connection refused, too many are open");
            continue;
        };
        let handshake = Handshake { config: config.clone(), source, place, metrics: core.metrics.clone() };
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
    place: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Handshake {
    async fn run(self, stream: TcpStream) -> Option<Connection<TlsStream<TcpStream>>> {
        let source = self.source;
        // Small messages both ways: waiting to fill a packet only costs time.
        let _ = stream.set_nodelay(true);
        let failure = match tokio::time::timeout(HANDSHAKE_TIMEOUT, accept(self.config, stream)).await {
            Ok(Ok((peer, stream))) => {
                let origin = Origin::Remote { source, peer };
                return Some(Connection { stream, origin, _place: self.place });
            }
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

/// Connections held at once. An agent needs one.
const MAX_CONNECTIONS: usize = 16_384;
/// Handshakes at once; more wait in the kernel.
const MAX_HANDSHAKES: usize = 256;
/// How long one may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed accept: mostly there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
