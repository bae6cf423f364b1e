//! The methods of the API, one file per service, and what they share.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use identity::{SpiffeId, TrustDomain};
use proto::{
    spire::api::server::{
        agent::v1::agent_server::AgentServer, bundle::v1::bundle_server::BundleServer,
        entry::v1::entry_server::EntryServer, svid::v1::svid_server::SvidServer,
    },
    vouchsafe::v1::{
        policy_server::PolicyServer, registry_server::RegistryServer, services_server::ServicesServer,
    },
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, service::Routes};

use crate::{
    access::{Caller, Origin},
    authority::rotation::Signing,
    catalogue::Catalogue,
    health::Health,
    issue::{IssueError, Issued, RequestedKey, Subject},
    metrics::Metrics,
    policies::{Published, status::Board},
    rate::Buckets,
    registry::SharedRegistry,
    shares::Shares,
    store::{Store, StoreError},
};

mod agent;
mod bundle;
mod catalogue;
mod entry;
mod gate;
mod lasting;
mod policy;
mod push;
mod svid;
mod sync;

pub(crate) use gate::GateLayer;

/// What every service works on. Cheap to clone through its `Arc`.
pub(crate) struct Core {
    /// Whose CA this is.
    pub(crate) trust_domain: TrustDomain,
    /// The CA's own identity.
    pub(crate) server_id: SpiffeId,
    /// Everything readable.
    pub(crate) registry: SharedRegistry,
    /// Everything writable.
    pub(crate) store: Store,
    /// What signs and what is trusted.
    pub(crate) signing: watch::Receiver<Arc<Signing>>,
    /// The policies that agents are handed.
    pub(crate) policies: Sets,
    /// The services that agents are handed.
    pub(crate) services: Sets,
    /// Where services are kept.
    pub(crate) catalogue: Catalogue,
    /// A workload's lifetime where its entry says nothing.
    pub(crate) svid_ttl: Duration,
    /// A signing authority's lifetime.
    pub(crate) ca_ttl: Duration,
    /// An agent's lifetime.
    pub(crate) agent_svid_ttl: Duration,
    /// How often an address may attest.
    pub(crate) attestations: Mutex<Buckets>,
    /// How many batches an agent has under way.
    pub(crate) batches: Shares,
    /// As many batches are signed at once as there are cores: more only wait in a worse place.
    pub(crate) signers: Arc<Semaphore>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// What is wrong.
    pub(crate) health: Health,
    /// When to stop.
    pub(crate) stop: CancellationToken,
}

/// Sets of one kind.
pub(crate) struct Sets {
    /// What agents are handed.
    pub(crate) published: watch::Receiver<Published>,
    /// What they tell of it.
    pub(crate) board: Board,
}

impl Core {
    fn signing(&self) -> Arc<Signing> {
        self.signing.borrow().clone()
    }

    /// Runs certificate work off the network's threads, and not more of it at once than there are cores.
    async fn sign<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Signing) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let stopping = || Status::unavailable("the CA is shutting down");
        let permit = self.signers.clone().acquire_owned().await.map_err(|_| stopping())?;
        let signing = self.signing();
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&signing);
            drop(permit);
            done
        });
        done.await.map_err(|_| stopping())
    }
}

/// Every service, ready to be served on any listener.
pub(crate) fn routes(core: &Arc<Core>) -> Routes {
    let mut routes = Routes::builder();
    routes
        .add_service(
            AgentServer::from_arc(core.clone()).max_decoding_message_size(MAX_STRANGERS_MESSAGE_BYTES),
        )
        .add_service(
            BundleServer::from_arc(core.clone()).max_decoding_message_size(MAX_STRANGERS_MESSAGE_BYTES),
        )
        .add_service(EntryServer::from_arc(core.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(SvidServer::from_arc(core.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(RegistryServer::from_arc(core.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(PolicyServer::from_arc(core.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(ServicesServer::from_arc(core.clone()).max_decoding_message_size(MAX_CATALOGUE_BYTES));
    routes.routes()
}

/// The agent that calls; the gate let nobody else pass.
fn calling_agent<T>(request: &Request<T>) -> Result<(SpiffeId, String), Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Agent { id, serial, .. }) => Ok((id.clone(), serial.clone())),
        Some(Caller::Local { .. } | Caller::Admin { .. } | Caller::Anybody) | None => {
            Err(Status::permission_denied("only agents may call this"))
        }
    }
}

/// Who calls, for the log.
fn caller<T>(request: &Request<T>) -> String {
    request.extensions().get::<Caller>().map_or_else(|| "nobody".into(), ToString::to_string)
}

fn source<T>(request: &Request<T>) -> Option<SocketAddr> {
    match request.extensions().get::<Origin>() {
        Some(Origin::Remote { source, .. }) => Some(*source),
        Some(Origin::Local { .. }) | None => None,
    }
}

fn issue(signing: &Signing, key: &RequestedKey, subject: &Subject) -> Result<Issued, Status> {
    signing.active.issue(key, subject, std::time::SystemTime::now()).map_err(not_issued)
}

fn store_failed(error: &StoreError) -> Status {
    match error {
        StoreError::Closed => Status::unavailable("the CA is shutting down"),
        StoreError::Database(_) | StoreError::GivenUp | StoreError::Malformed { .. } => {
            tracing::error!(error = %crate::chain(error), "a request failed in the database");
            Status::internal("the CA's database refused")
        }
    }
}

fn not_issued(error: IssueError) -> Status {
    tracing::error!(error = %crate::chain(&error), "no certificate was issued");
    match error {
        IssueError::ClockBehind | IssueError::AuthorityExpired => Status::unavailable(error.to_string()),
        IssueError::Random(_) | IssueError::Build(_) => Status::internal("the certificate could not be made"),
    }
}

fn not_served(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not served by this CA"))
}

/// Batches of one agent that are signed or wait for that. An agent asks for one after the other.
pub(crate) const MAX_BATCHES_PER_AGENT: usize = 4;
/// Longest message read: 500 requests for certificates fit four times.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Longest catalogue that is applied at once. Whoever may not apply one is refused before it is read.
const MAX_CATALOGUE_BYTES: usize = 32 * 1024 * 1024;
/// Longest message of the services that also answer those who prove nothing: a token and the longest certificate request
/// fit twice. It is held in memory until it is whole.
const MAX_STRANGERS_MESSAGE_BYTES: usize = 32 * 1024;
