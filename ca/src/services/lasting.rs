//! An agent's standing over a stream: the gate looked once, and a stream lasts.

use std::time::{Duration, SystemTime};

use identity::{Peer, SpiffeId};
use proto::spire::api::types::permission_denied_details::Reason;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::{Core, calling_agent, gate::agent_message};
use crate::{
    access::{self, Origin, Refusal},
    registry::{SharedRegistry, Subscription},
    wire::denied,
};

/// The agent at the other end of a stream.
pub(super) struct Lasting {
    pub(super) agent: SpiffeId,
    registry: SharedRegistry,
    subscription: Subscription,
    serial: String,
    /// When the certificate of the connection ends.
    ends: SystemTime,
    stop: CancellationToken,
}

impl Lasting {
    /// The agent that calls.
    pub(super) fn of<T>(core: &Core, request: &Request<T>) -> Result<Self, Status> {
        let (agent, serial) = calling_agent(request)?;
        let ends = match request.extensions().get::<Origin>() {
            Some(Origin::Remote { peer: Some(peer), .. }) => Peer::not_after(peer),
            Some(Origin::Remote { peer: None, .. } | Origin::Local { .. }) | None => SystemTime::now(),
        };
        Ok(Self {
            subscription: core.registry.subscribe(&agent),
            registry: core.registry.clone(),
            stop: core.stop.clone(),
            agent,
            serial,
            ends,
        })
    }

    /// Tells whether the agent may still be answered.
    pub(super) fn check(&self) -> Result<(), Status> {
        match access::agent(&self.agent, &self.serial, self.ends, &self.registry, SystemTime::now()) {
            Ok(_) => Ok(()),
            Err(Refusal::Agent(Reason::AgentExpired)) => Err(expired()),
            Err(Refusal::Agent(reason)) => Err(denied(reason, agent_message(reason))),
            Err(Refusal::Unknown | Refusal::NotAllowed) => Err(Status::permission_denied("agents only")),
        }
    }

    /// Waits until something about the agent or its entries changed, or the stream has to end.
    pub(super) async fn changed(&mut self) -> Result<(), Status> {
        let left = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = self.subscription.changed() => Ok(()),
            () = self.stop.cancelled() => Err(stopping()),
            () = tokio::time::sleep(left) => Err(expired()),
        }
    }
}

pub(super) fn stopping() -> Status {
    Status::unavailable("the CA is shutting down")
}

/// Not a denial: the agent may hold a newer certificate and only has to connect with it.
fn expired() -> Status {
    Status::unavailable("the certificate of this connection has expired: connect anew")
}

/// Changes that come together are told together.
pub(super) const GATHER: Duration = Duration::from_millis(10);
