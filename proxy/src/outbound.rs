//! Calls of our workload: plaintext in on loopback, mutual TLS out to a service that proves an expected identity.

mod dial;
mod gate;

use std::{net::SocketAddr, sync::Arc};

use audit::{CloseCause, Reason, Stage};
use tokio::net::TcpStream;

use dial::Dialler;
pub(crate) use dial::Opened;

use crate::{
    activity::Waiting,
    config::{self, Protocol},
    http1::{self, Pool, Session},
    listener::{Accept, Place},
    live::{Entry, Key, Role},
    record::{Refusal, Trace},
    relay::relay,
    shared::Shared,
    stream::Stream,
};

/// One outbound listener.
pub(crate) struct Outbound {
    name: Arc<str>,
    port: u16,
    protocol: Protocol,
    dialler: Arc<Dialler>,
    pool: Arc<Pool>,
    shared: Arc<Shared>,
}

impl Outbound {
    pub(crate) fn new(config: &config::Outbound, port: u16, shared: Arc<Shared>) -> Self {
        let dialler = Arc::new(Dialler::new(config, Arc::clone(&shared)));
        let pool = Arc::new(Pool::new(dial::Pooled(Arc::clone(&dialler)), shared.limits.head()));
        Self { name: Arc::from(config.name.as_str()), port, protocol: config.protocol, dialler, pool, shared }
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    async fn run(&self, socket: TcpStream, from: SocketAddr) {
        match self.protocol {
            Protocol::Tcp => self.tcp(socket, from).await,
            Protocol::Http => self.http(socket, from).await,
        }
    }

    async fn tcp(&self, socket: TcpStream, from: SocketAddr) {
        let mut source = Stream::Plain(socket);
        let dialled = match self.dialler.dial(Some(from), Waiting::Relay).await {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::debug!(listener = %self.name, %error, "cannot reach the service");
                self.shared.metrics.upstream_failed(error.code());
                source.reset_on_close();
                return;
            }
        };
        let opened = dialled.opened;
        let cause = relay(source, dialled.stream, opened.live(), opened.trace()).await;
        opened.close(cause);
    }

    async fn http(&self, socket: TcpStream, from: SocketAddr) {
        let trace = self.trace(from);
        let key = Key::new(Role::Outbound, None, Some(from.ip().to_canonical()), self.port);
        let entry = Entry { key, proof: None, opened: trace.opened_at(), waiting: Waiting::Request };
        let registered = self.shared.registry.register(entry);
        let gate = gate::OutboundGate::new(Arc::clone(&self.shared), trace);
        let session = Session::new(gate, Arc::clone(&self.pool), Arc::clone(registered.live()));
        let stream = Stream::Plain(socket);
        http1::serve(stream, self.shared.limits.head(), Arc::new(session), &self.shared.drain).await;
    }

    fn trace(&self, from: SocketAddr) -> Trace {
        self.dialler.trace(Some(from))
    }
}

impl Accept for Outbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        self.shared.metrics.live.inc();
        self.run(socket, from).await;
        self.shared.metrics.live.dec();
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        let refusal = Refusal::plain(Stage::Connect, Reason::LimitExceeded(limit));
        self.trace(from).denied(refusal);
        // Fails only where the application is gone already.
        let _ = socket.set_zero_linger();
    }
}

/// The end of a connection to a peer that nobody closed in order.
const DROPPED: CloseCause = CloseCause::Finished;
