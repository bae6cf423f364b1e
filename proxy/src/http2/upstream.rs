//! One connection to the application or to a peer, shared by the requests of a thread and moved by a task of its own.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::Request;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    limits::{self, LOOK, MAX_STREAMS, SIGN, SILENT},
    pool::Pool,
    wire::{Side, Signals, Wire},
};
use crate::{
    http1::{Dialled, HeadLimits, PoolKey},
    live::Live,
    outbound::Opened,
};

/// A connection on which requests are sent.
pub(super) struct Upstream {
    sender: Mutex<SendRequest<Bytes>>,
    pub(super) key: PoolKey,
    live: Option<Arc<Live>>,
    /// Requests it carries.
    load: AtomicUsize,
    /// It has answered: how many requests it takes is known.
    settled: AtomicBool,
    ended: AtomicBool,
    withdrawn: AtomicBool,
}

/// A request's place on a connection; free again when dropped.
pub(super) struct Place(Arc<Upstream>);

/// What moves the bytes of a connection until it ends.
pub(super) struct Driver {
    connection: Connection<Wire, Bytes>,
    upstream: Weak<Upstream>,
    signals: Arc<Signals>,
    opened: Option<Opened>,
    life: Life,
}

/// Whether the other end still lives.
struct Life {
    pings: Option<PingPong>,
    /// When a sign of life was asked for, and none has come.
    asked: Option<Instant>,
    received: u64,
    heard: Instant,
}

impl Upstream {
    /// Begins to speak on a new connection.
    pub(super) async fn start(dialled: Dialled, heads: HeadLimits) -> Result<(Arc<Self>, Driver), h2::Error> {
        let signals = Arc::new(Signals::default());
        let live = dialled.opened.as_ref().map(|opened| Arc::clone(opened.live()));
        let wire = Wire::new(dialled.stream, Side::Client, live.clone(), Arc::clone(&signals));
        let (sender, mut connection) = limits::client(heads).handshake(wire).await?;
        let life = Life::new(connection.ping_pong());
        let upstream = Arc::new(Self {
            sender: Mutex::new(sender),
            key: dialled.key,
            live,
            load: AtomicUsize::new(0),
            settled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            withdrawn: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&upstream);
        Ok((upstream, Driver { connection, upstream: weak, signals, opened: dialled.opened, life }))
    }

    /// Takes a place for a request, where there is one.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        if !self.is_usable() || self.load() >= self.room() {
            return None;
        }
        self.load.fetch_add(1, Ordering::Relaxed);
        Some(Place(Arc::clone(self)))
    }

    /// Says whether requests may still be sent here.
    pub(super) fn is_usable(&self) -> bool {
        let given_up = self.live.as_ref().is_some_and(|live| live.is_cut() || live.is_retired());
        !given_up && !self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// How many requests it takes. One that has not said it yet is given them all: the library sends what it may, and keeps
    /// the others until it says more.
    fn room(&self) -> usize {
        let most = MAX_STREAMS as usize;
        if self.settled.load(Ordering::Relaxed) {
            most.min(self.sender().current_max_send_streams())
        } else {
            most
        }
    }

    fn sender(&self) -> std::sync::MutexGuard<'_, SendRequest<Bytes>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request was not put on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsent {
    /// The connection takes no more requests.
    Ended,
    /// The other end does not speak what the request asks for.
    Unsupported,
}

impl Place {
    /// Sends the head of a request.
    pub(super) fn send(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Unsent> {
        // A sender of its own: a shared one takes no request while another waits for its turn.
        let mut sender = self.0.sender().clone();
        if request.extensions().get::<h2::ext::Protocol>().is_some()
            && !sender.is_extended_connect_protocol_enabled()
        {
            return Err(Unsent::Unsupported);
        }
        sender.send_request(request, end).map_err(|_| {
            self.give_up();
            Unsent::Ended
        })
    }

    /// Notes that the connection has answered.
    pub(super) fn settle(&self) {
        self.0.settled.store(true, Ordering::Relaxed);
    }

    /// Notes that the connection is to get no more requests.
    pub(super) fn give_up(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }

    /// Says whether the peer's identity is no longer accepted.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.0.withdrawn.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Driver {
    /// Moves the connection until it ends. It leaves its pool when it is idle for long, or was made under other trust.
    pub(super) async fn run(mut self, pool: Weak<Pool>) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        poll_fn(|cx| self.poll(cx, &mut looks, &pool)).await;
        if let Some(upstream) = self.upstream.upgrade() {
            upstream.ended.store(true, Ordering::Relaxed);
            if let Some(pool) = pool.upgrade() {
                pool.forget(&upstream);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, looks: &mut Interval, pool: &Weak<Pool>) -> Poll<()> {
        if let Some(opened) = &self.opened
            && opened.live().poll_cut(cx).is_ready()
        {
            if let Some(upstream) = self.upstream.upgrade() {
                upstream.withdrawn.store(true, Ordering::Relaxed);
            }
            self.signals.reset();
            return Poll::Ready(());
        }
        while looks.poll_tick(cx).is_ready() {
            if self.look(cx, pool).is_ready() {
                self.signals.reset();
                return Poll::Ready(());
            }
        }
        if self.signals.is_flooded() {
            self.signals.reset();
            return Poll::Ready(());
        }
        // What went wrong shows in the responses.
        Pin::new(&mut self.connection).poll(cx).map(|_| ())
    }

    /// Looks after the connection; ready when the other end does not live.
    fn look(&mut self, cx: &mut Context<'_>, pool: &Weak<Pool>) -> Poll<()> {
        let Some(upstream) = self.upstream.upgrade() else { return Poll::Pending };
        if let Some(pool) = pool.upgrade() {
            pool.look(&upstream);
        }
        let Some(live) = &upstream.live else { return Poll::Pending };
        if upstream.load() == 0 {
            self.life.rest();
            return Poll::Pending;
        }
        self.life.poll(cx, live.activity.totals().0)
    }
}

impl Life {
    fn new(pings: Option<PingPong>) -> Self {
        Self { pings, asked: None, received: 0, heard: Instant::now() }
    }

    /// Nothing is owed: silence means nothing.
    fn rest(&mut self) {
        self.heard = Instant::now();
    }

    /// Ready when nothing was heard for too long, a sign of life included.
    fn poll(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked.is_some() && pings.poll_pong(cx).is_ready() {
            (self.asked, self.heard) = (None, Instant::now());
        }
        if received != self.received {
            (self.received, self.heard) = (received, Instant::now());
        }
        match self.asked {
            Some(asked) if asked.elapsed() >= SIGN && self.heard <= asked => return Poll::Ready(()),
            Some(_) => {}
            None if self.heard.elapsed() >= SILENT => {
                // Fails only where the connection has ended, which its own poll tells.
                self.asked = pings.send_ping(Ping::opaque()).is_ok().then(Instant::now);
            }
            None => {}
        }
        Poll::Pending
    }
}
