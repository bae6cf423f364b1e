//! `vouchsafe.v1.PolicyDelivery` and `ServiceDelivery`: hands each sidecar the policies that protect it and the services that
//! it may see, and hears what became of them.
//!
//! The caller is attested like one of the Workload API: when it asks, and again before every delivery.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::{self, Stream};
use identity::crypto::hex;
use identity::manifest::Kind;
use proto::vouchsafe::v1::policy_delivery_server::{PolicyDelivery, PolicyDeliveryServer};
use proto::vouchsafe::v1::service_delivery_server::{ServiceDelivery, ServiceDeliveryServer};
use proto::vouchsafe::v1::{Delivery, DeliveryReport, DeliveryReportResponse, WatchDeliveryRequest};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::attested::{Attested, Open, caller, check_phase, no_identity};
use crate::attestor::Attestor;
use crate::health::{Figures, chain};
use crate::limits::{Gate, MAX_STREAMS, MAX_STREAMS_PER_UID};
use crate::matching;
use crate::policies::{Follower, Known};
use crate::state::State;
use crate::wire::{policies, unix_seconds};

mod handout;
mod parcel;

use handout::Handout;

/// The largest request, in bytes: the hashes of as many files as a set can have.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;

/// Serves sets of one kind to sidecars.
pub(crate) struct Deliverer {
    state: watch::Receiver<Arc<State>>,
    known: watch::Receiver<Arc<Known>>,
    follower: Arc<Follower>,
    attestor: Attestor,
    figures: Figures,
    streams: Gate,
}

impl Deliverer {
    /// Creates the service.
    pub(crate) fn new(
        state: watch::Receiver<Arc<State>>,
        follower: Arc<Follower>,
        attestor: Attestor,
        figures: Figures,
    ) -> Self {
        let streams = Gate::new(MAX_STREAMS, MAX_STREAMS_PER_UID);
        Self { state, known: follower.known(), follower, attestor, figures, streams }
    }

    /// Adds the gRPC service of its kind, with its limits.
    pub(crate) fn serve(self, routes: Routes) -> Routes {
        match self.follower.kind() {
            Kind::Policies => routes.add_service(self.into_service()),
            Kind::Services => routes
                .add_service(ServiceDeliveryServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)),
        }
    }

    /// Returns the gRPC service of policies with its limits.
    pub(crate) fn into_service(self) -> PolicyDeliveryServer<Self> {
        PolicyDeliveryServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn open(&self, request: Request<WatchDeliveryRequest>) -> Result<Response<Deliveries>, Status> {
        let caller = caller(&request)?;
        let held = request.into_inner().held;
        if held.len() > identity::manifest::MAX_FILES || held.iter().any(|hash| hash.len() != 32) {
            return Err(Status::invalid_argument("held: not a list of SHA-256"));
        }
        let held: HashSet<String> = held.iter().map(|hash| hex(hash)).collect();
        let open = Open::enter(&self.streams, &caller, self.figures.clone())?;
        let mut attested = Attested::new(self.attestor.clone(), caller, self.figures.clone());
        let state = self.state.borrow().clone();
        check_phase(&state)?;
        attested.attest(&state).await?;
        let first = matching::matches(&state.entries, attested.seen(), SystemTime::now());
        let first = first.first().ok_or_else(no_identity)?;
        let presence = self.follower.sidecars().enter(attested.pid(), first.spiffe_id.clone());
        let handout =
            Handout::new(attested, (self.state.clone(), self.known.clone()), &held, (open, presence));
        let steps = stream::unfold(Some(handout), async |handout| {
            let mut handout = handout?;
            match handout.next().await {
                Ok(step) => Some((Ok(Delivery { step: Some(step) }), Some(handout))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(steps)))
    }

    async fn hear(
        &self,
        request: Request<DeliveryReport>,
    ) -> Result<Response<DeliveryReportResponse>, Status> {
        let mut attested = Attested::new(self.attestor.clone(), caller(&request)?, self.figures.clone());
        let (id, report) =
            policies::told(request.into_inner()).map_err(|error| Status::invalid_argument(chain(&error)))?;
        let state = self.state.borrow().clone();
        check_phase(&state)?;
        attested.attest(&state).await?;
        let now = SystemTime::now();
        let entries = matching::matches(&state.entries, attested.seen(), now);
        if !entries.iter().any(|entry| entry.spiffe_id == id) {
            return Err(Status::permission_denied(format!("the caller is not {id}")));
        }
        if self.follower.sidecars().tell(attested.pid(), id, report, unix_seconds(now)) {
            Ok(Response::new(DeliveryReportResponse {}))
        } else {
            Err(Status::failed_precondition("only a process with an open stream of such sets may report"))
        }
    }
}

/// The messages of a stream.
type Deliveries = Pin<Box<dyn Stream<Item = Result<Delivery, Status>> + Send>>;

#[tonic::async_trait]
impl PolicyDelivery for Deliverer {
    type WatchStream = Deliveries;

    async fn watch(
        &self,
        request: Request<WatchDeliveryRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.open(request).await
    }

    async fn report(
        &self,
        request: Request<DeliveryReport>,
    ) -> Result<Response<DeliveryReportResponse>, Status> {
        self.hear(request).await
    }
}

#[tonic::async_trait]
impl ServiceDelivery for Deliverer {
    type WatchStream = Deliveries;

    async fn watch(
        &self,
        request: Request<WatchDeliveryRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.open(request).await
    }

    async fn report(
        &self,
        request: Request<DeliveryReport>,
    ) -> Result<Response<DeliveryReportResponse>, Status> {
        self.hear(request).await
    }
}

#[cfg(test)]
mod tests;
