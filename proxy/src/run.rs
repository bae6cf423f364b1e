//! Starts everything, waits for the stop, drains, and ends with the audit log on disk.

mod effective;
mod listeners;

use std::{
    io,
    net::{SocketAddr, TcpListener as Listening},
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use audit::{Event, Lifecycle, Product};
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin},
    config::{AuditTarget, Config, IdentitySource, PolicySource},
    control::Control,
    distribution::Receiver,
    handshakes::Handshakes,
    inbound::{Door, Inbound},
    jwt,
    listener::{self, Accept, Places},
    live::{Cut, Registry},
    metrics::Metrics,
    outbound::Outbound,
    policies::{self, LoadError, Supply},
    shared::Shared,
    source::{self, SourceError},
    state::{Part, State},
    transparent::{Destinations, TransparentInbound, TransparentOutbound, Way},
    workers::{Workers, listener_on},
};

use listeners::Listeners;

/// Where a started proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Each inbound listener's name and address.
    pub inbound: Vec<(String, SocketAddr)>,
    /// Each outbound listener's name and address.
    pub outbound: Vec<(String, SocketAddr)>,
    /// The admin interface, for probes and scrapers.
    pub admin: Option<SocketAddr>,
    /// The admin interface, for operators.
    pub admin_socket: Option<PathBuf>,
}

/// Why a proxy cannot start, or did not end in order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The audit log cannot be written.
    #[error("cannot start the audit log")]
    Audit(#[from] audit::StartError),
    /// The audit log was not written to its end.
    #[error("cannot finish the audit log")]
    AuditClose(#[from] audit::CloseError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} for {name}")]
    Listen {
        /// The listener's name.
        name: String,
        /// Where it was to listen.
        address: String,
        /// What went wrong.
        source: io::Error,
    },
    /// SIGHUP cannot be waited for.
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    /// The threads of the data path cannot be started.
    #[error("cannot start the threads of the data path")]
    Workers(#[source] io::Error),
}

/// What is wrong with what a configuration names.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The policies cannot be loaded.
    #[error("policies in {path} cannot be loaded")]
    Policies {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        source: LoadError,
    },
    /// The PEM files make no identity.
    #[error("identity cannot be read from the PEM files")]
    Identity(#[source] SourceError),
    /// No Workload API socket is named.
    #[error("no identity source")]
    Source(#[source] SourceError),
}

/// Looks at everything a configuration names that can be looked at without starting: policies, PEM files, the
/// environment. Returns every problem found.
pub fn check(config: &Config) -> Vec<CheckError> {
    let mut problems = Vec::new();
    if let Some(source) = &config.policies
        && let Some(path) = source.directory()
    {
        let own = config.identity.as_ref().map(identity::SpiffeId::trust_domain);
        let alone = matches!(source, PolicySource::Directory(_));
        if let Err(source) = policies::check(path, &config.istio, own.as_ref(), alone) {
            problems.push(CheckError::Policies { path: path.to_owned(), source });
        }
    }
    match &config.source {
        IdentitySource::Pem(files) => {
            if let Err(error) = source::load_pem(files, config.identity.as_ref()) {
                problems.push(CheckError::Identity(error));
            }
        }
        IdentitySource::Environment => {
            if let Err(error) = crate::workload_api::Endpoint::from_environment() {
                problems.push(CheckError::Source(error.into()));
            }
        }
        IdentitySource::WorkloadApi(_) => {}
    }
    problems
}

/// Runs a proxy until `shutdown`, then drains it. `ready` is called once every listener is open; whether the proxy
/// may serve is another question, which `/readyz` answers.
///
/// SIGHUP has the policies looked at at once.
pub async fn run(
    config: Config,
    shutdown: CancellationToken,
    ready: impl FnOnce(Ready),
) -> Result<(), RunError> {
    let listeners = Listeners::open(&config).await?;
    let reload = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    let (log, writer) = audit::start(audit_config(&config))?;
    let shared = Arc::new(shared(&config, log));
    let addresses = listeners.addresses(&config);
    let workers = Workers::start(config.workers).map_err(RunError::Workers)?;
    let proxy = Proxy::start(&config, listeners, &workers, Arc::clone(&shared), reload)?;
    ready(addresses);
    shutdown.cancelled().await;
    proxy.drain(config.drain, &shared).await;
    drop(workers);
    shared.log.open(lifecycle(&shared, Lifecycle::Stopped));
    if let Some(path) = &config.admin.socket {
        // A socket file left behind is removed at the next start.
        let _ = std::fs::remove_file(path);
    }
    let closed = tokio::task::spawn_blocking(move || writer.close()).await;
    // A writer that panicked has lost what it held: that is an unfinished log.
    closed.map_err(|error| RunError::Signal(io::Error::other(error)))??;
    Ok(())
}

/// Everything that runs.
struct Proxy {
    /// The listeners and their connections.
    serving: JoinSet<()>,
    /// What keeps the snapshot, and the admin interface.
    keeping: JoinSet<()>,
    accept: CancellationToken,
    keep: CancellationToken,
}

impl Proxy {
    fn start(
        config: &Config,
        listeners: Listeners,
        workers: &Workers,
        shared: Arc<Shared>,
        mut hangup: tokio::signal::unix::Signal,
    ) -> Result<Self, RunError> {
        let (accept, keep) = (CancellationToken::new(), CancellationToken::new());
        let (mut serving, mut keeping) = (JoinSet::new(), JoinSet::new());
        shared.log.open(lifecycle(&shared, Lifecycle::Started));
        let reload = Arc::new(Notify::new());
        let serve = Serve { config, shared: &shared, places: places(config), accept: &accept };
        let mut pools = Vec::new();
        for runtime in workers.runtimes() {
            pools.extend(serve.on(&runtime, &listeners, &mut serving).map_err(RunError::Workers)?);
        }
        let mut control = Control::new(Arc::clone(&shared), pools);
        if !config.is_called() {
            control = control.outbound_only();
        }
        let (identities, identity_updates) = mpsc::channel(UPDATES);
        let (sets, policy_updates) = mpsc::channel(UPDATES);
        let (asks, asked) = mpsc::channel(ASKS);
        let (deliveries, delivered) = mpsc::channel(1);
        keeping.spawn(control.run(identity_updates, policy_updates, keep.clone()));
        keeping.spawn(source::watch(config.source.clone(), config.identity.clone(), identities));
        let (state, metrics) = (Arc::clone(&shared.state), Arc::clone(&shared.metrics));
        let tokens = jwt::run(state, config.jwt.clone(), shared.way, metrics);
        keeping.spawn(tokens);
        let shared_config = Arc::new(config.clone());
        if config.policies.is_some() {
            let supply = Supply::new(Arc::clone(&shared_config), Arc::clone(&shared), sets);
            keeping.spawn(supply.run(Arc::clone(&reload), asked, delivered));
        }
        if let Some(PolicySource::Agent { state_dir, .. }) = &config.policies {
            let receiver = Receiver::new(state_dir.as_deref(), Arc::clone(&shared), deliveries);
            keeping.spawn(receiver.run(config.source.clone()));
        }
        keeping.spawn(async move {
            while hangup.recv().await.is_some() {
                tracing::info!("reload asked for");
                reload.notify_one();
            }
        });
        let admin = Arc::new(Admin { shared, config: effective::describe(config), asks });
        for socket in listeners.admin {
            keeping.spawn(admin::serve(socket, Arc::clone(&admin), keep.clone()));
        }
        Ok(Self { serving, keeping, accept, keep })
    }

    /// Stops accepting, lets what is in flight finish within `limit`, and cuts the rest.
    async fn drain(mut self, limit: std::time::Duration, shared: &Shared) {
        shared.state.set_problem(Part::Draining, Some("the proxy is stopping".to_owned()));
        tracing::info!(connections = shared.registry.len(), "draining");
        self.accept.cancel();
        shared.drain.cancel();
        let finished = timeout(limit, async { while self.serving.join_next().await.is_some() {} }).await;
        if finished.is_err() {
            tracing::warn!(connections = shared.registry.len(), "cutting what did not finish in time");
            shared.registry.cut_all(|| Cut::Drained);
            let cut = timeout(LAST_WORDS, async { while self.serving.join_next().await.is_some() {} }).await;
            if cut.is_err() {
                self.serving.abort_all();
            }
        }
        self.keep.cancel();
        self.keeping.shutdown().await;
    }
}

/// What every listener needs.
struct Serve<'p> {
    config: &'p Config,
    shared: &'p Arc<Shared>,
    places: Vec<Places>,
    accept: &'p CancellationToken,
}

impl Serve<'_> {
    /// Has a runtime accept on every listener; returns its pools.
    fn on(
        &self,
        runtime: &Handle,
        listeners: &Listeners,
        serving: &mut JoinSet<()>,
    ) -> io::Result<Vec<Arc<crate::http1::Pool>>> {
        let mut pools = Vec::new();
        let mut places = self.places.iter().cloned();
        for (config, socket) in self.config.inbound.iter().zip(&listeners.inbound) {
            let door = Arc::new(Door::new(config, port(socket, config.listen), Arc::clone(self.shared)));
            pools.push(Arc::clone(door.pool()));
            let inbound = Arc::new(Inbound::new(door, Arc::clone(self.shared)));
            let listener = listener_on(runtime, socket)?;
            serving.spawn_on(self.accepting(listener, inbound, places.next()), runtime);
        }
        let mut destinations = Destinations::default();
        for (config, socket) in self.config.outbound.iter().zip(&listeners.outbound) {
            let port = port(socket, config.listen);
            let outbound = Arc::new(Outbound::new(config, port, Arc::clone(self.shared)));
            pools.push(Arc::clone(outbound.pool()));
            config.addresses().for_each(|address| destinations.add(address, &outbound));
            let listener = listener_on(runtime, socket)?;
            serving.spawn_on(self.accepting(listener, outbound, places.next()), runtime);
        }
        self.captured(runtime, listeners, serving, destinations, places)?;
        Ok(pools)
    }

    /// Has a runtime accept what the rules of the network namespace bring.
    fn captured(
        &self,
        runtime: &Handle,
        listeners: &Listeners,
        serving: &mut JoinSet<()>,
        destinations: Destinations,
        mut places: impl Iterator<Item = Places>,
    ) -> io::Result<()> {
        if let Some(inbound) = TransparentInbound::new(self.config, Arc::clone(self.shared)).map(Arc::new) {
            for socket in &listeners.called {
                let listener = listener_on(runtime, socket)?;
                serving.spawn_on(self.accepting(listener, Arc::clone(&inbound), places.next()), runtime);
            }
        }
        let outbound = TransparentOutbound::new(self.config, destinations, Arc::clone(self.shared));
        if let Some(outbound) = outbound.map(Arc::new) {
            for socket in &listeners.calling {
                let listener = listener_on(runtime, socket)?;
                serving.spawn_on(self.accepting(listener, Arc::clone(&outbound), places.next()), runtime);
            }
        }
        Ok(())
    }

    fn accepting<A: Accept>(
        &self,
        listener: TcpListener,
        accept: Arc<A>,
        places: Option<Places>,
    ) -> impl Future<Output = ()> + Send + use<A> {
        let places = places.unwrap_or_else(|| Places::new(&self.shared.limits));
        listener::serve(listener, accept, places, Arc::clone(&self.shared.metrics), self.accept.clone())
    }
}

fn port(socket: &Listening, configured: SocketAddr) -> u16 {
    socket.local_addr().map_or(configured.port(), |address| address.port())
}

/// The places of each listener, in the order of the configuration. Its threads share them.
fn places(config: &Config) -> Vec<Places> {
    let all = Places::new(&config.limits);
    let captured = config.transparent.iter().flat_map(crate::config::Transparent::addresses).count();
    let listeners = config.inbound.len() + config.outbound.len() + captured;
    (0..listeners).map(|_| all.for_listener(&config.limits)).collect()
}

fn shared(config: &Config, log: audit::Log) -> Shared {
    let state = State::default();
    state.set_problem(Part::Identity, Some("no identity has arrived".to_owned()));
    if config.policies.is_some() {
        state.set_problem(Part::Policies, Some("no policies have been loaded".to_owned()));
    }
    Shared {
        state: Arc::new(state),
        registry: Registry::default(),
        log,
        metrics: Arc::new(Metrics::new()),
        limits: config.limits.clone(),
        handshakes: Handshakes::new(&config.limits),
        way: Way::of(config),
        drain: CancellationToken::new(),
    }
}

fn audit_config(config: &Config) -> audit::Config {
    let id = config.identity.as_ref().map(|id| id.as_str().to_owned());
    let product = Product { daemon: "proxy".to_owned(), id, version: env!("CARGO_PKG_VERSION").to_owned() };
    let mut log = match &config.audit.target {
        AuditTarget::File(path) => audit::Config::file(path, product),
        AuditTarget::Stdout => audit::Config::stdout(product),
    };
    log.rotate_bytes = config.audit.rotate_size;
    log.rotate_age = config.audit.rotate_age;
    log.keep_files = config.audit.keep;
    log
}

fn lifecycle(shared: &Shared, change: Lifecycle) -> Event {
    Event::lifecycle(SystemTime::now(), change, Arc::clone(&shared.state.now().generation))
}

/// Updates waiting for the writer; the sources wait beyond that.
const UPDATES: usize = 4;
/// Operators that wait for an answer about policies; more are told to come again.
const ASKS: usize = 4;
/// For the records of connections that were cut at the end of the drain.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);
