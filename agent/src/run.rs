//! Starting and stopping the agent: everything that listens, and the one task that writes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use identity::SpiffeId;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attestor::Attestor;
use crate::config::{Config, Metrics};
use crate::health::Health;
use crate::limits::{Gate, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID};
use crate::monitor::{self, Monitor};
use crate::policy_delivery::Deliverer;
use crate::prepare::{self, DataDir, DataDirError};
use crate::server;
use crate::services::Followers;
use crate::socket::{BoundSocket, Reach, SocketError};
use crate::state::{Phase, State};
use crate::store::{SealKeyError, Store};
use crate::sync::{SyncError, Synchroniser, persist};
use crate::whoami::{Scope, WhoAmI};
use crate::workload_api::WorkloadApi;

/// How long streams have to end once the agent stops.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a started agent tells: it answers workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The agent's own SPIFFE ID.
    pub spiffe_id: SpiffeId,
    /// The socket of the Workload API.
    pub socket: PathBuf,
    /// The socket for administrators.
    pub admin_socket: PathBuf,
    /// Where health and metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
}

/// Runs an agent until `shutdown`; calls `ready` once workloads are answered, from what the CA said or from what was
/// stored. Fails at once where a socket or the directory cannot be used, where the node cannot be let in and holds
/// nothing to serve, and whenever the CA bans the node.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    if let Some(finding) = crate::check::kernel() {
        return Err(RunError::Kernel { problem: finding.problem });
    }
    prepare::raise_descriptor_limit();
    let _directory = DataDir::lock(&config.data_dir)?;
    let credentials = config.credentials_directory.as_deref();
    let store = Arc::new(Store::open(&config.data_dir, credentials, config.trust_domain.clone())?);
    let listeners = Listeners::bind(&config).await?;
    let stop = shutdown.child_token();
    let (state, watched) = watch::channel(Arc::new(State::empty(config.trust_domain.clone())));
    let mut registry = Registry::default();
    let health = Health::new(&mut registry);
    let domain = config.trust_domain.clone();
    let sets = Arc::new(Followers::open(&domain, &store, &watched, &health.figures));

    let mut tasks = JoinSet::new();
    let metrics = listeners.metrics_address();
    listeners.spawn(
        &mut tasks,
        &config,
        watched.clone(),
        (Monitor { health: health.clone(), registry, state: watched.clone() }, sets.clone()),
        &stop,
    );
    tasks.spawn(finish(persist(store.clone(), watched.clone(), stop.clone())));
    let synchroniser = Synchroniser::new(config.clone(), store.clone(), state, sets, health);
    let synchronising = stop.clone();
    tasks.spawn(async move { Ok(synchroniser.run(synchronising).await?) });

    let result = supervise(&mut tasks, watched, |spiffe_id| {
        ready(Ready {
            spiffe_id,
            socket: config.socket.clone(),
            admin_socket: config.admin_socket.clone(),
            metrics,
        });
    })
    .await;
    stop.cancel();
    drain(&mut tasks).await;
    if let Err(RunError::Sync(SyncError::Banned)) = &result
        && let Err(error) = store.wipe()
    {
        // A write that was under way may have outlived the first removal.
        tracing::error!(%error, "cannot remove the stored identities of a banned node");
    }
    result
}

/// Waits until the first task ends. A task that ends before shutdown takes the others with it.
async fn supervise(
    tasks: &mut JoinSet<Result<(), RunError>>,
    mut state: watch::Receiver<Arc<State>>,
    ready: impl FnOnce(SpiffeId),
) -> Result<(), RunError> {
    let serving = async {
        let state = state.wait_for(|state| state.phase == Phase::Serving && state.agent_id.is_some()).await;
        state.ok().and_then(|state| state.agent_id.clone())
    };
    let first = tokio::select! {
        biased;
        ended = tasks.join_next() => ended,
        id = serving => {
            if let Some(id) = id {
                tracing::info!(agent = %id, "agent ready");
                ready(id);
            }
            tasks.join_next().await
        }
    };
    match first {
        Some(Ok(result)) => result,
        Some(Err(source)) => Err(RunError::Task { source }),
        None => Ok(()),
    }
}

async fn drain(tasks: &mut JoinSet<Result<(), RunError>>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, all).await.is_err() {
        tracing::warn!("connections did not end in time; cutting them");
        tasks.shutdown().await;
    }
}

/// Everything that listens. Bound before anything else is done, so that a conflict is found at once.
struct Listeners {
    socket: BoundSocket,
    admin_socket: BoundSocket,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<Self, RunError> {
        let metrics = match config.metrics {
            Metrics::Off => None,
            Metrics::Listen(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| RunError::Metrics { address, source })?)
            }
        };
        Ok(Self {
            admin_socket: BoundSocket::bind(&config.admin_socket, Reach::Group)?,
            socket: BoundSocket::bind(&config.socket, Reach::Everybody)?,
            metrics,
        })
    }

    fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    fn spawn(
        self,
        tasks: &mut JoinSet<Result<(), RunError>>,
        config: &Config,
        state: watch::Receiver<Arc<State>>,
        (monitor, sets): (Monitor, Arc<Followers>),
        stop: &CancellationToken,
    ) {
        let attestor = Attestor::new(config.attestor);
        let whoami = |scope| WhoAmI::new(state.clone(), attestor.clone(), scope).into_service();
        let workload_api = WorkloadApi::new(state.clone(), attestor.clone(), monitor.health.figures.clone());
        let routes =
            tonic::service::Routes::new(workload_api.into_service()).add_service(whoami(Scope::Caller));
        let routes = sets.all().into_iter().fold(routes, |routes, follower| {
            let figures = monitor.health.figures.clone();
            Deliverer::new(state.clone(), follower, attestor.clone(), figures).serve(routes)
        });
        tasks.spawn(serve(self.socket, routes, stop.clone()));
        tasks.spawn(serve(
            self.admin_socket,
            tonic::service::Routes::new(whoami(Scope::Anybody)),
            stop.clone(),
        ));
        if let Some(listener) = self.metrics {
            let stop = stop.clone();
            tasks.spawn(async move {
                stop.run_until_cancelled(monitor::serve(listener, Arc::new(monitor))).await;
                Ok(())
            });
        }
    }
}

async fn serve(
    socket: BoundSocket,
    routes: tonic::service::Routes,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let gate = Gate::new(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_UID);
    let incoming = server::incoming(socket.listener(), gate);
    server::grpc()
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .map_err(|source| RunError::Serve { source })
}

async fn finish(task: impl Future<Output = ()>) -> Result<(), RunError> {
    task.await;
    Ok(())
}

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The kernel lacks what the workload attestor needs; nobody could be served.
    #[error("{problem}")]
    Kernel {
        /// What is missing.
        problem: String,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// There is no sealing key.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// A socket cannot be bound.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The address for metrics cannot be bound.
    #[error("cannot listen on {address} for metrics")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The CA and this node do not get on.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A socket stopped being served.
    #[error("a socket stopped being served")]
    Serve {
        /// Why.
        source: tonic::transport::Error,
    },
    /// A task died.
    #[error("a task of the agent died")]
    Task {
        /// How.
        source: tokio::task::JoinError,
    },
}

#[cfg(test)]
mod tests;
