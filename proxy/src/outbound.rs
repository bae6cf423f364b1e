//! Calls of our workload: plaintext in on loopback, mutual TLS out to a service that proves an expected identity.

mod dial;
mod exit;
mod gate;
mod probe;
mod trip;

use std::{net::SocketAddr, sync::Arc};

use audit::{CloseCause, Reason, Stage};
use tokio::net::TcpStream;

pub(crate) use dial::{Blame, Opened};
pub(crate) use exit::{Exit, Exits};
pub(crate) use probe::probe;
pub(crate) use trip::{Onward, Way};

use crate::{
    config::{self, Tunnelling},
    listener::{Accept, Place},
    record::{Refusal, Trace},
    shared::Shared,
    stream::Stream,
};

/// One outbound listener.
pub(crate) struct Outbound {
    service: Arc<str>,
    port: u16,
    tunnelling: Tunnelling,
    exits: Arc<Exits>,
    shared: Arc<Shared>,
}

impl Outbound {
    pub(crate) fn new(config: &config::Outbound, port: u16, exits: &Arc<Exits>, shared: Arc<Shared>) -> Self {
        let service = Arc::from(config.calls.service());
        Self { service, port, tunnelling: config.tunnel, exits: Arc::clone(exits), shared }
    }

    async fn run(&self, socket: TcpStream, from: SocketAddr) {
        match self.exits.named(&self.service, self.tunnelling) {
            Some(exit) => exit.serve(Stream::Plain(socket), from, self.port).await,
            None => {
                tracing::debug!(service = %self.service, "nobody names the service");
                self.shared.metrics.upstream_failed("no_service");
                // Fails only where the application is gone already.
                let _ = socket.set_zero_linger();
            }
        }
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
        let trace = Trace::begin(self.shared.log.clone(), Arc::clone(&self.shared.metrics), Some(from));
        trace.to(&self.service, None).denied(refusal);
        // Fails only where the application is gone already.
        let _ = socket.set_zero_linger();
    }
}

/// The end of a connection to a peer that nobody closed in order.
const DROPPED: CloseCause = CloseCause::Finished;
