//! What runs beside the data path: it keeps the snapshot of identity and policies, and everything else that changes.

use std::{sync::Arc, time::SystemTime};

use audit::{Event, Lifecycle, Product};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{AuditTarget, Config, PolicySource, ServicesFrom},
    control::{Control, Settings},
    distribution::Receiver,
    handshakes::Handshakes,
    jwt,
    live::Registry,
    metrics::Metrics,
    policies::{Ask, Supply},
    services::{Keeper, Services},
    shared::Shared,
    source,
    state::{Part, State},
    telemetry::Telemetry,
    transparent::Way,
};

/// What was started.
pub(super) struct Keeping {
    pub(super) tasks: JoinSet<()>,
    /// Has the policies looked at.
    pub(super) look: Arc<Notify>,
    /// Where operators ask about policies.
    pub(super) asks: mpsc::Sender<Ask>,
}

/// Starts what keeps the snapshot.
pub(super) fn start(
    config: &Config,
    shared: &Arc<Shared>,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
) -> Keeping {
    let mut tasks = JoinSet::new();
    let look = Arc::new(Notify::new());
    let mut control = Control::new(Arc::clone(shared), settings);
    if !config.is_called() {
        control = control.outbound_only();
    }
    let (identities, identity_updates) = mpsc::channel(UPDATES);
    let (sets, policy_updates) = mpsc::channel(UPDATES);
    let (asks, asked) = mpsc::channel(ASKS);
    let (deliveries, delivered) = mpsc::channel(1);
    tasks.spawn(control.run(identity_updates, policy_updates, stop));
    tasks.spawn(source::watch(config.source.clone(), config.identity.clone(), identities));
    let (state, metrics) = (Arc::clone(&shared.state), Arc::clone(&shared.metrics));
    tasks.spawn(jwt::run(state, config.jwt.clone(), shared.way, metrics));
    if config.services.from == ServicesFrom::Agent {
        let receiver = Receiver::services(config.services_state_dir(), Arc::clone(shared));
        tasks.spawn(receiver.run(config.source.clone()));
    }
    tasks.spawn(Keeper::new(&config.services, Arc::clone(shared)).run());
    if config.policies.is_some() {
        let supply = Supply::new(Arc::new(config.clone()), Arc::clone(shared), sets);
        tasks.spawn(supply.run(Arc::clone(&look), asked, delivered));
    }
    if let Some(PolicySource::Agent { state_dir, .. }) = &config.policies {
        let receiver = Receiver::new(state_dir.as_deref(), Arc::clone(shared), deliveries);
        tasks.spawn(receiver.run(config.source.clone()));
    }
    Keeping { tasks, look, asks }
}

/// What every listener shares, before anything has come.
pub(super) fn shared(config: &Config, log: audit::Log, telemetry: Telemetry) -> Shared {
    let state = State::default();
    state.set_problem(Part::Identity, Some("no identity has arrived".to_owned()));
    if config.policies.is_some() {
        state.set_problem(Part::Policies, Some("no policies have been loaded".to_owned()));
    }
    let (services, metrics) = (Arc::new(Services::new(config)), Arc::new(Metrics::new()));
    metrics.count_services(&services);
    Shared {
        state: Arc::new(state),
        registry: Registry::default(),
        services,
        log,
        metrics,
        telemetry: Arc::new(telemetry),
        limits: config.limits.clone(),
        handshakes: Arc::new(Handshakes::new(&config.limits)),
        way: Way::of(config),
        drain: CancellationToken::new(),
    }
}

/// How the audit log is kept.
pub(super) fn audit_config(config: &Config) -> audit::Config {
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

/// A change of the proxy itself, for the record.
pub(super) fn lifecycle(shared: &Shared, change: Lifecycle) -> Event {
    Event::lifecycle(SystemTime::now(), change, Arc::clone(&shared.state.now().generation))
}

/// Updates waiting for the writer; the sources wait beyond that.
const UPDATES: usize = 4;
/// Operators that wait for an answer about policies; more are told to come again.
const ASKS: usize = 4;
