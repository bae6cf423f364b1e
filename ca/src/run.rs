//! The daemon: puts the parts together, in the order in which each may rely on the others, and takes them down again.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use policy::strict::Problems;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    authority::{
        keys::{KeyFileError, KeyStore, SealKeyError, Sealing},
        rotation::{Rotation, RotationError, Settings, Signing},
    },
    entries::directory,
    health::{Health, Part},
    lock::{DataDir, LockError},
    metrics::{self, Metrics},
    registry::SharedRegistry,
    serve::{self, admin::AdminSocketError},
    services::Core,
    store::{Loaded, OpenError, Store, StoreError, Writer},
};

/// What is open once the CA serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The TLS listener, with the port that was given for 0.
    pub listen: SocketAddr,
    /// The admin socket.
    pub admin_socket: PathBuf,
    /// The metrics listener, if there is one.
    pub metrics: Option<SocketAddr>,
}

/// Why the CA does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] LockError),
    /// The sealing key.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    /// The directory of keys.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The database.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The authorities.
    #[error(transparent)]
    Authorities(#[from] RotationError),
    /// The CA's own identity.
    #[error("the trust domain is too long for the CA's own SPIFFE ID")]
    ServerId(#[from] identity::ParseIdError),
    /// A listener.
    #[error(
        "cannot listen on {address}: check that no other process does and that the address is this host's"
    )]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The admin socket.
    #[error(transparent)]
    AdminSocket(#[from] AdminSocketError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] identity::tls::TlsError),
    /// A server that broke down.
    #[error("the gRPC server failed")]
    Serve(#[from] tonic::transport::Error),
    /// A part that ended unasked.
    #[error("a part of the CA ended unexpectedly")]
    Died,
}

/// Runs the CA until `shutdown`. `ready` is called once, when every listener is open.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    // Held to the end of this function: one CA per data directory.
    let _data_dir = DataDir::take(&config.data_dir)?;
    let (state, writer) = open(&config).await?;
    let served = serve_all(&config, state, shutdown, ready).await;
    // Every handle on the store is gone; what was acknowledged is on disk, and the file is closed in order.
    let closed = tokio::task::spawn_blocking(|| writer.join());
    if closed.await.is_err() {
        tracing::error!("the store could not be closed");
    }
    served
}

/// What is there before anybody can connect.
struct State {
    store: Store,
    registry: SharedRegistry,
    rotation: Rotation,
    signing: watch::Receiver<Arc<Signing>>,
    settings: OwnId,
}

struct OwnId(identity::SpiffeId);

async fn open(config: &Config) -> Result<(State, Writer), RunError> {
    let server_id = crate::model::server_id(&config.trust_domain)?;
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let sealing = Sealing::find(credentials.as_deref(), config.seal_key_file.as_deref())?;
    let keys = KeyStore::open(config.data_dir.join("keys"), sealing)?;
    let registry = SharedRegistry::default();
    let published = registry.clone();
    let path = config.data_dir.join(DATABASE);
    let (store, writer, Loaded { changes, authorities }) =
        Store::open(&path, &config.trust_domain, move |changes| published.apply(changes))?;
    registry.apply(changes);
    let settings = Settings {
        trust_domain: config.trust_domain.clone(),
        server_id: server_id.clone(),
        ca_ttl: config.ca_ttl,
        server_ttl: config.agent_svid_ttl,
        refresh_hint: (config.ca_ttl / HINT_FRACTION).clamp(Duration::from_secs(1), LONGEST_HINT),
    };
    let (rotation, signing) =
        Rotation::start(store.clone(), keys, settings, authorities, SystemTime::now()).await?;
    Ok((State { store, registry, rotation, signing, settings: OwnId(server_id) }, writer))
}

async fn serve_all(
    config: &Config,
    state: State,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    let State { store, registry, rotation, signing, settings } = state;
    let health = Health::default();
    health.flaw(Part::Startup, "listeners are not open");
    let listener = listen(config.listen).await?;
    let admin = serve::admin::bind(&config.admin_socket)?;
    let metrics = match config.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let opened = Ready {
        listen: address(&listener, config.listen)?,
        admin_socket: config.admin_socket.clone(),
        metrics: metrics.as_ref().map(|metrics| address(metrics, config.listen)).transpose()?,
    };
    let core = Arc::new(Core {
        trust_domain: config.trust_domain.clone(),
        server_id: settings.0,
        registry,
        store,
        signing: signing.clone(),
        svid_ttl: config.svid_ttl,
        agent_svid_ttl: config.agent_svid_ttl,
        attestations: std::sync::Mutex::default(),
        signers: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        metrics: Metrics::default(),
    });

    // When one part ends, all end: half a CA is worse than none.
    let stop = shutdown.child_token();
    let mut parts: JoinSet<Result<(), RunError>> = JoinSet::new();
    let (accepted, queue) = mpsc::channel(QUEUE);
    let (counts, token) = (core.metrics.clone(), stop.clone());
    parts.spawn(async move { Ok(serve::tls::run(listener, signing, accepted, counts, token).await?) });
    let (shared, token) = (core.clone(), stop.clone());
    parts.spawn(async move { Ok(serve::serve(serve::tls::incoming(queue), &shared, token).await?) });
    let (shared, token) = (core.clone(), stop.clone());
    parts.spawn(async move { Ok(serve::serve(serve::admin::incoming(admin), &shared, token).await?) });
    let token = stop.clone();
    parts.spawn(async move {
        rotation.run(token).await;
        Ok(())
    });
    let (store, token) = (core.store.clone(), stop.clone());
    parts.spawn(async move {
        prune(&store, &token).await;
        Ok(())
    });
    if let Some(listener) = metrics {
        let (shared, health, token) = (core.clone(), health.clone(), stop.clone());
        parts.spawn(async move {
            metrics::serve(listener, shared, health, token).await;
            Ok(())
        });
    }
    if let Some(path) = config.entries_dir.clone() {
        let (shared, health, token) = (core.clone(), health.clone(), stop.clone());
        parts.spawn(async move {
            directory::follow(&path, &shared.trust_domain, &shared.store, &health, &token).await;
            Ok(())
        });
    }
    drop(core);
    health.mend(Part::Startup);
    tracing::info!(listen = %opened.listen, admin = %opened.admin_socket.display(), trust_domain = %config.trust_domain, "CA is ready");
    ready(opened);
    wait(parts, &stop).await
}

/// Waits for the order to stop, or for the first part that ends without it, and then for all the others.
async fn wait(mut parts: JoinSet<Result<(), RunError>>, stop: &CancellationToken) -> Result<(), RunError> {
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        let asked = stop.is_cancelled();
        let ended = match ended {
            Ok(Ok(())) if asked => Ok(()),
            Ok(Ok(())) | Err(_) => Err(RunError::Died),
            Ok(Err(error)) => Err(error),
        };
        if outcome.is_ok() {
            outcome = ended;
        }
        stop.cancel();
    }
    tracing::info!("CA has stopped");
    outcome
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })
}

fn address(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, RunError> {
    listener.local_addr().map_err(|source| RunError::Listen { address, source })
}

/// Removes what has expired, every few seconds.
async fn prune(store: &Store, shutdown: &CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PRUNE_PERIOD) => {}
        }
        match store.prune(crate::wire::now_seconds()).await {
            Ok(0) | Err(StoreError::Closed) => {}
            Ok(entries) => tracing::info!(entries, "expired entries removed"),
            Err(error) => tracing::error!(error = %crate::chain(&error), "expired entries were not removed"),
        }
    }
}

/// What a configuration that could be read still lacks.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The files of the entries directory are flawed.
    #[error("{0}")]
    Entries(Problems),
    /// The sealing key.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
}

/// Looks at what the configuration points to, without starting or changing anything. Returns how many entries the files hold.
pub fn check(config: &Config) -> Result<usize, CheckError> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Sealing::find(credentials.as_deref(), config.seal_key_file.as_deref())?;
    match &config.entries_dir {
        Some(path) => directory::load(path, &config.trust_domain)
            .map(|entries| entries.len())
            .map_err(CheckError::Entries),
        None => Ok(0),
    }
}

/// The database's name in the data directory.
const DATABASE: &str = "ca.db";
/// Accepted connections that wait for the server.
const QUEUE: usize = 64;
/// How often expired entries are looked for.
const PRUNE_PERIOD: Duration = Duration::from_secs(5);
/// A tenth of an authority's life leaves four looks between its publication and its first signature.
const HINT_FRACTION: u32 = 10;
/// spiffe.md 1.7 point 52.
const LONGEST_HINT: Duration = Duration::from_secs(300);
