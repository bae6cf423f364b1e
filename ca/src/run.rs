//! The daemon: puts the parts together, in the order in which each may rely on the others, and takes them down again.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{SpiffeId, manifest::Kind};
use policy::strict::Problems;
use tokio::{
    net::{TcpListener, UnixListener},
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
    catalogue::Catalogue,
    entries::directory,
    health::{Health, Part},
    lock::{DataDir, LockError},
    metrics::{self, Metrics},
    policies::{self, Published, Publisher, Signer, SignerError},
    registry::SharedRegistry,
    serve::{self, admin::AdminSocketError},
    services::{Core, MAX_BATCHES_PER_AGENT, Sets},
    shares::Shares,
    store::{Loaded, OpenError, Store, Writer},
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
    /// The policy signer.
    #[error(transparent)]
    Signer(#[from] SignerError),
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
    server_id: SpiffeId,
    store: Store,
    registry: SharedRegistry,
    rotation: Rotation,
    signing: watch::Receiver<Arc<Signing>>,
    policies: Policies,
    catalogue: Catalogue,
    services: watch::Receiver<Published>,
}

/// Who publishes policies, and where they are read.
struct Policies {
    publisher: Option<Publisher>,
    published: watch::Receiver<Published>,
}

async fn open(config: &Config) -> Result<(State, Writer), RunError> {
    if config.svid_ttl > config.ca_ttl / GUARANTEED_FRACTION {
        tracing::warn!(
            "svid_ttl is over a sixth of ca_ttl, SVIDs issued late in an authority's life are shorter"
        );
    }
    let server_id = crate::model::server_id(&config.trust_domain)?;
    let sealing = Sealing::find(credentials_directory().as_deref(), config.seal_key_file.as_deref())?;
    let keys = KeyStore::open(config.data_dir.join("keys"), sealing)?;
    let signer = || Signer::open(&keys, config.trust_domain.clone(), config.ca_ttl);
    let (of_services, of_policies) =
        (signer()?.of(Kind::Services), config.policies.as_ref().map(|_| signer()).transpose()?);
    let registry = SharedRegistry::default();
    let published = registry.clone();
    let path = config.data_dir.join(DATABASE);
    let (store, writer, Loaded { changes, authorities, policies, services }) =
        Store::open(&path, &config.trust_domain, move |changes| published.apply(changes))?;
    registry.apply(changes);
    if config.entries_dir.is_none() {
        let entries = store.release_files().await.map_err(RotationError::Store)?;
        if entries > 0 {
            tracing::info!(entries, "no entries directory is configured, its entries can be changed by hand");
        }
    }
    let settings = Settings {
        trust_domain: config.trust_domain.clone(),
        server_id: server_id.clone(),
        ca_ttl: config.ca_ttl,
        server_ttl: config.agent_svid_ttl,
        refresh_hint: (config.ca_ttl / HINT_FRACTION).clamp(Duration::from_secs(1), LONGEST_HINT),
    };
    let (rotation, signing) =
        Rotation::start(store.clone(), keys, settings, authorities, SystemTime::now()).await?;
    let policies = match of_policies {
        Some(signer) => {
            let (publisher, published) = Publisher::start(signer, store.clone(), signing.clone(), policies);
            Policies { publisher: Some(publisher), published }
        }
        None => Policies { publisher: None, published: watch::channel(Published::None).1 },
    };
    let (catalogue, services) = Catalogue::start(of_services, store.clone(), signing.clone(), services);
    Ok((State { server_id, store, registry, rotation, signing, policies, catalogue, services }, writer))
}

struct Listeners {
    tls: TcpListener,
    admin: UnixListener,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config) -> Result<(Self, Ready), RunError> {
        let (tls, bound) = listen(config.listen).await?;
        let (metrics, scraped) = match config.metrics {
            Some(address) => Some(listen(address).await?).unzip(),
            None => (None, None),
        };
        let admin = serve::admin::bind(&config.admin_socket)?;
        let ready = Ready { listen: bound, admin_socket: config.admin_socket.clone(), metrics: scraped };
        Ok((Self { tls, admin, metrics }, ready))
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve_all(
    config: &Config,
    state: State,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    let (listeners, opened) = Listeners::bind(config).await?;
    // When one part ends, all end: half a CA is worse than none.
    let stop = shutdown.child_token();
    let core = Arc::new(Core {
        trust_domain: config.trust_domain.clone(),
        server_id: state.server_id,
        registry: state.registry,
        store: state.store,
        signing: state.signing,
        policies: Sets { published: state.policies.published, board: policies::status::Board::default() },
        services: Sets { published: state.services, board: policies::status::Board::default() },
        catalogue: state.catalogue,
        svid_ttl: config.svid_ttl,
        ca_ttl: config.ca_ttl,
        agent_svid_ttl: config.agent_svid_ttl,
        attestations: std::sync::Mutex::default(),
        batches: Shares::new(usize::MAX, MAX_BATCHES_PER_AGENT),
        signers: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        metrics: Metrics::default(),
        health: Health::default(),
        stop: stop.clone(),
    });
    let mut parts = JoinSet::new();
    spawn_listeners(&mut parts, listeners, &core);
    spawn_upkeep(&mut parts, state.rotation, config, &core);
    if let (Some(publisher), Some(path)) = (state.policies.publisher, config.policies.clone()) {
        let shared = core.clone();
        parts.spawn(async move {
            publisher.run(path, &shared.health, &shared.stop).await;
            Ok(())
        });
    }
    drop(core);
    tracing::info!(listen = %opened.listen, admin = %opened.admin_socket.display(), trust_domain = %config.trust_domain, "CA is ready");
    ready(opened);
    wait(parts, &stop).await
}

fn spawn_listeners(parts: &mut JoinSet<Result<(), RunError>>, listeners: Listeners, core: &Arc<Core>) {
    let (accepted, queue) = mpsc::channel(QUEUE);
    let shared = core.clone();
    parts.spawn(async move { Ok(serve::tls::run(listeners.tls, accepted, shared).await?) });
    let shared = core.clone();
    parts.spawn(async move { Ok(serve::serve(serve::tls::incoming(queue), &shared).await?) });
    let shared = core.clone();
    parts.spawn(async move { Ok(serve::serve(serve::admin::incoming(listeners.admin), &shared).await?) });
    if let Some(listener) = listeners.metrics {
        let shared = core.clone();
        parts.spawn(async move {
            metrics::serve(listener, shared).await;
            Ok(())
        });
    }
}

fn spawn_upkeep(
    parts: &mut JoinSet<Result<(), RunError>>,
    rotation: Rotation,
    config: &Config,
    core: &Arc<Core>,
) {
    let shared = core.clone();
    parts.spawn(async move {
        rotation.run(&shared.health, &shared.stop).await;
        Ok(())
    });
    let shared = core.clone();
    parts.spawn(async move {
        shared.catalogue.run(&shared.health, &shared.stop).await;
        Ok(())
    });
    let shared = core.clone();
    parts.spawn(async move {
        prune(&shared.store, &shared.health, &shared.stop).await;
        Ok(())
    });
    if let Some(path) = config.entries_dir.clone() {
        let shared = core.clone();
        parts.spawn(async move {
            directory::follow(path, &shared.trust_domain, &shared.store, &shared.health, &shared.stop).await;
            Ok(())
        });
    }
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

/// Removes what has expired, every few seconds, which also shows whether the database still takes writes.
async fn prune(store: &Store, health: &Health, stop: &CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PRUNE_PERIOD) => {}
        }
        match store.prune(crate::wire::now_seconds()).await {
            Ok(entries) => {
                health.mend(Part::Database);
                if entries > 0 {
                    tracing::info!(entries, "expired entries removed");
                }
            }
            Err(error) => health.flaw(Part::Database, crate::chain(&error)),
        }
    }
}

fn credentials_directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// What a configuration that could be read still lacks.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The files of the entries directory are flawed.
    #[error("{0}")]
    Entries(Problems),
    /// The files of the policy directory are flawed.
    #[error("{0}")]
    Policies(Problems),
    /// The sealing key.
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
}

/// Looks at what the configuration points to, without starting or changing anything. Returns how many entries the files hold.
pub fn check(config: &Config) -> Result<usize, CheckError> {
    Sealing::find(credentials_directory().as_deref(), config.seal_key_file.as_deref())?;
    if let Some(path) = &config.policies {
        policies::directory::load(path).map_err(CheckError::Policies)?;
    }
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
/// spiffe.md 2.2: what an SVID is sure to get of an authority's life.
const GUARANTEED_FRACTION: u32 = 6;
/// A tenth of an authority's life leaves four looks between its publication and its first signature.
const HINT_FRACTION: u32 = 10;
/// spiffe.md 1.7 point 52.
const LONGEST_HINT: Duration = Duration::from_secs(300);
