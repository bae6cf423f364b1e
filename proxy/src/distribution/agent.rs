//! The agent, as far as it hands out sets of one kind.

use std::time::Duration;

use identity::manifest::{Kind, MAX_MANIFEST_BYTES};
use proto::vouchsafe::v1::{
    Delivery, DeliveryReport, PolicyStatus, WatchDeliveryRequest, delivery::Step,
    policy_delivery_client::PolicyDeliveryClient, service_delivery_client::ServiceDeliveryClient,
};
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

use super::{
    ReceiveError,
    assembly::{DeliveryFlaw, Held},
};
use crate::{
    config::IdentitySource,
    state::Identity,
    workload_api::{Endpoint, SECURITY_HEADER, channel},
};

/// A connection to the agent.
pub(super) enum Agent {
    /// For policies.
    Policies(PolicyDeliveryClient<Channel>),
    /// For services.
    Services(ServiceDeliveryClient<Channel>),
}

impl Agent {
    pub(super) async fn connect(kind: Kind, source: &IdentitySource) -> Result<Self, ReceiveError> {
        let endpoint = match source {
            IdentitySource::WorkloadApi(endpoint) => endpoint.clone(),
            // The configuration allows no PEM files beside what an agent hands out.
            IdentitySource::Environment | IdentitySource::Pem(_) => Endpoint::from_environment()?,
        };
        let channel = channel(&endpoint).await?;
        Ok(match kind {
            Kind::Policies => {
                Self::Policies(PolicyDeliveryClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
            }
            Kind::Services => {
                Self::Services(ServiceDeliveryClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
            }
        })
    }

    pub(super) async fn watch(&mut self, held: &Held) -> Result<Streaming<Delivery>, ReceiveError> {
        let request = marked(WatchDeliveryRequest { held: held.hashes() });
        let stream = match self {
            Self::Policies(client) => client.watch(request).await,
            Self::Services(client) => client.watch(request).await,
        };
        Ok(stream.map_err(refusal)?.into_inner())
    }

    /// Tells the agent what became of a set. That it does not hear it changes nothing here.
    pub(super) async fn report(&mut self, identity: &Identity, status: PolicyStatus) {
        let spiffe_id = identity.id().as_str().to_owned();
        let report = marked(DeliveryReport { spiffe_id, status: Some(status) });
        let telling = async {
            match self {
                Self::Policies(client) => client.report(report).await,
                Self::Services(client) => client.report(report).await,
            }
        };
        match tokio::time::timeout(REPORT_LIMIT, telling).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the agent does not hear what became of a set"),
            Err(_) => tracing::debug!("the agent does not hear in time what became of a set"),
        }
    }
}

fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    request
}

/// Waits for the next message.
pub(super) async fn next(stream: &mut Streaming<Delivery>) -> Result<Step, ReceiveError> {
    let message = stream.message().await.map_err(refusal)?.ok_or(ReceiveError::Ended)?;
    Ok(message.step.ok_or(DeliveryFlaw::Empty)?)
}

fn refusal(status: Status) -> ReceiveError {
    ReceiveError::Agent { code: status.code(), message: status.message().to_owned() }
}

/// A manifest beside the names of all its files.
const MAX_MESSAGE: usize = 2 * MAX_MANIFEST_BYTES;
const REPORT_LIMIT: Duration = Duration::from_secs(5);
