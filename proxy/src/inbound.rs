//! Calls to our workload: mutual TLS in, decision, plaintext to the application.

mod beyond;
mod door;
mod entrance;
mod gate;
mod plaintext;
mod recheck;
mod refused;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use audit::{CloseCause, Stage};
use policy::{Allowed, AtConnect, Decision, Denial, Traffic};
use tokio::net::TcpStream;

pub(crate) use door::{Door, Known};
pub(crate) use entrance::Entrance;
pub(crate) use gate::unread;
pub(crate) use recheck::{judge, rule_of};

use crate::{
    activity::Expired,
    detect::Ended,
    http1, http2,
    listener::{Accept, Place},
    live::{Cut, Live},
    record::{self, Refusal, Trace},
    shared::Shared,
    state::Effective,
};

/// One inbound listener: it leads to one door.
pub(crate) struct Inbound {
    door: Arc<Door>,
    shared: Arc<Shared>,
}

impl Inbound {
    pub(crate) fn new(door: Arc<Door>, shared: Arc<Shared>) -> Self {
        Self { door, shared }
    }

    fn entrance(&self) -> Entrance<'_> {
        Entrance { shared: &self.shared, door: &self.door }
    }
}

impl Accept for Inbound {
    async fn serve(self: Arc<Self>, socket: TcpStream, from: SocketAddr, place: Place) {
        self.shared.metrics.live.inc();
        // Boxed: a handshake gives back the room it took.
        let entered = Box::pin(self.entrance().identify(socket, from)).await;
        if let Some(served) = entered.map(|known| self.door.serve(known)) {
            served.await;
        }
        self.shared.metrics.live.dec();
        drop(place);
    }

    fn turn_away(&self, socket: TcpStream, from: SocketAddr, limit: &'static str) {
        self.entrance().turn_away(socket, from, limit);
    }
}

pub(crate) fn cause_of(ended: &Ended, live: &Live) -> CloseCause {
    match (ended, live.cut_reason()) {
        (ended, None | Some(Cut::Expired(Expired::Lingering))) if live.is_retired() && !ended.is_failed() => {
            CloseCause::PeerExpired
        }
        (_, Some(cut)) => record::cause(cut),
        (
            Ended::Http1(http1::Ended::Finished | http1::Ended::Cut)
            | Ended::Http2(http2::Ended::Finished | http2::Ended::Cut),
            None,
        ) => CloseCause::Finished,
        (Ended::Http1(http1::Ended::Failed(error)), None) => {
            tracing::debug!(%error, "HTTP connection broke");
            CloseCause::SourceFailed
        }
        (Ended::Http2(http2::Ended::Failed), None) => CloseCause::SourceFailed,
    }
}

/// Puts an allowed connection on record, and what a shadow policy would have said.
fn open(trace: &Trace, effective: &Effective, allowed: &Allowed) {
    if let Some(denial) = &allowed.shadow {
        let generation = Arc::clone(&effective.generation);
        trace.denied(Refusal::by_policy(Stage::Connect, denial, generation).shadow());
    }
    trace.opened(allowed.rule.as_ref(), Arc::clone(&effective.generation));
}

pub(crate) fn decide_tcp(effective: &Effective, connection: &policy::Connection<'_>) -> Decision {
    match &effective.policies {
        Some(policies) => policies.decide_tcp(connection),
        None => Decision::Deny(unavailable()),
    }
}

/// Says whether any request on the connection could be allowed.
pub(crate) fn at_connect(effective: &Effective, connection: &policy::Connection<'_>) -> Result<(), Denial> {
    match effective.policies.as_ref().map(|policies| policies.at_connect(connection)) {
        Some(AtConnect::Residual(_)) => Ok(()),
        Some(AtConnect::Deny(denial)) => Err(denial),
        None => Err(unavailable()),
    }
}

/// No good policies have been loaded: everything is refused.
pub(crate) fn unavailable() -> Denial {
    Denial { reason: policy::DenyReason::PolicyUnavailable, rule: None, near_misses: Vec::new() }
}

/// Adds the allow rules that came nearest.
pub(crate) fn explained(
    effective: &Effective,
    connection: &policy::Connection<'_>,
    traffic: Traffic<'_>,
    mut denial: Denial,
) -> Denial {
    if let Some(policies) = &effective.policies {
        denial.near_misses = policies.nearest(connection, &traffic);
    }
    denial
}
