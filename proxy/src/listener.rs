//! Accepts connections: bounded in number, never spinning, never dying of a full descriptor table.

mod full;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::net::SocketFlags;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::full::Full;
use crate::{config::Limits, metrics::Metrics};

/// The places for the connections of one listener, some of those of all. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    listener: Arc<Semaphore>,
}

/// A place for one connection; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _listener: OwnedSemaphorePermit,
}

impl Places {
    pub(crate) fn new(limits: &Limits) -> Self {
        let all = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let listener = Arc::new(Semaphore::new(limits.connections_per_listener.min(Semaphore::MAX_PERMITS)));
        Self { all, listener }
    }

    /// Returns the places of another listener.
    pub(crate) fn for_listener(&self, limits: &Limits) -> Self {
        Self { all: Arc::clone(&self.all), ..Self::new(limits) }
    }

    /// Takes a place, or names the limit that leaves none.
    pub(crate) fn take(&self) -> Result<Place, &'static str> {
        let listener =
            Arc::clone(&self.listener).try_acquire_owned().map_err(|_| "connections_per_listener")?;
        let all = Arc::clone(&self.all).try_acquire_owned().map_err(|_| "connections")?;
        Ok(Place { _all: all, _listener: listener })
    }
}

/// What is done with an accepted connection.
pub(crate) trait Accept: Send + Sync + 'static {
    /// Serves a connection to its end.
    fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        from: SocketAddr,
        place: Place,
    ) -> impl Future<Output = ()> + Send;
    /// Turns away a connection for which there is no place.
    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str);
}

/// Ends the work of a listener; its connections go on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    now: CancellationToken,
    hands_on: Arc<AtomicBool>,
}

impl Stop {
    /// Nobody accepts from the socket after this: who waits there is taken along.
    pub(crate) fn close(&self) {
        self.now.cancel();
    }

    /// Waits for the end of the listener's work.
    pub(crate) async fn stopped(&self) {
        self.now.cancelled().await;
    }

    /// Somebody else accepts from the socket, and has who waits there.
    pub(crate) fn hand_on(&self) {
        self.hands_on.store(true, Ordering::Release);
        self.now.cancel();
    }
}

/// Opens a listener.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepts and serves until `stop`, then waits for the connections that are left.
pub(crate) async fn serve<A: Accept>(
    listener: TcpListener,
    accept: Arc<A>,
    places: Places,
    metrics: Arc<Metrics>,
    stop: Stop,
) {
    let mut connections = JoinSet::new();
    let mut full = Full::new();
    // Accepted connections inherit it: nothing is left to do for each.
    notice_the_dead(SockRef::from(&listener));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.now.cancelled() => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                full.is_over();
                take(&accept, &places, &mut connections, accepted);
            }
            // The client gave up before we came to it: nothing is wrong with the listener.
            Err(error) if is_of_client(&error) => metrics.accept_failed(),
            Err(error) => {
                metrics.accept_failed();
                full.failed(&error);
                if !full.turn_away(&listener, &error) {
                    full.pause().await;
                }
            }
        }
    }
    if !stop.hands_on.load(Ordering::Acquire) {
        // Closing a socket resets whoever waits at it.
        for waiting in waiting(&listener).take(BACKLOG) {
            take(&accept, &places, &mut connections, waiting);
        }
    }
    drop((listener, full));
    while connections.join_next().await.is_some() {}
}

fn take<A: Accept>(
    accept: &Arc<A>,
    places: &Places,
    connections: &mut JoinSet<()>,
    (socket, from): (TcpStream, SocketAddr),
) {
    match places.take() {
        Ok(place) => {
            connections.spawn(Arc::clone(accept).serve(socket, from, place));
        }
        Err(limit) => accept.turn_away(socket, from, limit),
    }
}

/// Whoever waits to be accepted at this moment.
fn waiting(listener: &TcpListener) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    std::iter::from_fn(move || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = std::net::TcpStream::from(rustix::net::accept_with(listener, flags).ok()?);
        let from = socket.peer_addr().ok()?;
        Some((TcpStream::from_std(socket).ok()?, from))
    })
}

/// Sends small messages at once and notices peers that are gone.
pub(crate) fn prepare(socket: &TcpStream, to: SocketAddr) {
    // It only improves a connection that works without it.
    let _ = socket.set_nodelay(true);
    crate::stream::bound_within_host(socket, to.ip());
    // On this host nobody goes without a word.
    if !to.ip().to_canonical().is_loopback() {
        notice_the_dead(SockRef::from(socket));
    }
}

fn notice_the_dead(socket: SockRef<'_>) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    // Both only improve a connection that works without them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
}

/// Why nobody answers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(io::Error),
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

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// As many as may wait in the queue of a socket.
const BACKLOG: usize = 4_096;
/// Together, a dead peer is noticed after half an hour.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(180);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(180);
const KEEPALIVE_RETRIES: u32 = 9;
