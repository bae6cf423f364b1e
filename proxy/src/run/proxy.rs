//! One running proxy: the one place where sockets, listeners and configuration change, one change after the other.

use std::{future::pending, io, sync::Arc, time::Duration};

use audit::{Lifecycle, Side, Writer};
use serde_json::Value;
use tokio::{
    net::{UnixListener, UnixStream},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Outside, Ready, RunError, arriving,
    change::Change,
    effective,
    ending::{self, Patience},
    keeping::{self, Keeping},
    serving::Serving,
    sockets::{self, Bound},
};
use crate::{
    admin::{self, Admin},
    config::{Config, HANDOVER_DRAIN},
    confine::{confine, explain},
    control::Settings,
    handover::{Giving, HandoverError},
    lifecycle::{AskConfig, Reconfigured},
    policies::describe,
    shared::Shared,
    state::Part,
    telemetry::Telemetry,
    workers::Workers,
};

/// Everything that runs.
struct Proxy {
    config: Config,
    sockets: Vec<Bound>,
    serving: Serving,
    shared: Arc<Shared>,
    outside: Outside,
    hangup: Signal,
    /// Has the policies looked at.
    look: Arc<Notify>,
    asked: mpsc::Receiver<AskConfig>,
    /// The configuration as the admin interface tells it.
    told: watch::Sender<Value>,
    handover: Option<UnixListener>,
    /// What keeps the snapshot.
    keeping: JoinSet<()>,
    keep: CancellationToken,
    /// The admin interface.
    admin: JoinSet<()>,
}

/// Why nothing is accepted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody wants it.
    Stopped,
    /// Another process accepts.
    Succeeded,
}

/// Runs a proxy to its end.
pub(super) async fn run(config: Config, outside: Outside, ready: impl FnOnce(Ready)) -> Result<(), RunError> {
    let mut taking = arriving::take_over(&config, outside.take_over).await?;
    let given = match &mut taking {
        Some(taking) => taking.sockets().await?,
        None => Vec::new(),
    };
    let sockets = sockets::fit(&config, given).await?;
    let hangup = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
    // Whatever starts from here on inherits it.
    let unconfined = confine(&config, &outside.confining);
    let (log, prepared) = audit::prepare(keeping::audit_config(&config));
    let (telemetry, sending) = Telemetry::start(&config.telemetry).map_err(RunError::Telemetry)?;
    let shared = Arc::new(keeping::shared(&config, log, telemetry));
    shared.state.set_problem(Part::Confinement, unconfined);
    let workers = Workers::start(config.workers).map_err(RunError::Workers)?;
    let settings = watch::channel(Settings { limits: config.limits.clone(), pools: Vec::new() });
    let keep = CancellationToken::new();
    let keeping = keeping::start(&config, &shared, settings.1, keep.clone());
    let writer = match &mut taking {
        None => prepared.start()?,
        Some(taking) => {
            arriving::could_serve(&shared, taking, &outside.stop).await?;
            taking.ready().await?;
            prepared.start()?
        }
    };
    shared.log.open(keeping::lifecycle(&shared, Lifecycle::Started));
    let sending = tokio::spawn(sending);
    let serving = Serving::new(workers.runtimes(), Arc::clone(&shared), settings.0);
    let mut proxy = Proxy::new((config, outside), serving, shared, (hangup, sockets), (keeping, keep))?;
    if let Some(taking) = taking {
        arriving::settle(taking).await?;
    }
    ready(sockets::ready(&proxy.config, &proxy.sockets));
    let end = proxy.live().await;
    proxy.finish(end).await;
    drop(workers);
    sending.abort();
    proxy.close(end, writer).await
}

impl Proxy {
    /// Opens everything to callers.
    fn new(
        (config, outside): (Config, Outside),
        mut serving: Serving,
        shared: Arc<Shared>,
        (hangup, sockets): (Signal, Vec<Bound>),
        (keeping, keep): (Keeping, CancellationToken),
    ) -> Result<Self, RunError> {
        let prepared = serving.prepare(&config, &sockets).map_err(RunError::Workers)?;
        serving.commit(&config, prepared, &sockets);
        let (told, tells) = watch::channel(effective::describe(&config));
        let (changes, asked) = mpsc::channel(ASKS);
        let stop = outside.stop.clone();
        let Keeping { tasks, look, asks } = keeping;
        let interface = Arc::new(Admin { shared: Arc::clone(&shared), config: tells, asks, changes, stop });
        let mut admin = JoinSet::new();
        for socket in sockets::admin(&sockets).map_err(RunError::Workers)? {
            admin.spawn(admin::serve(socket, Arc::clone(&interface), keep.clone()));
        }
        let handover = sockets::handover(&sockets).map_err(RunError::Workers)?;
        Ok(Self {
            config,
            sockets,
            serving,
            shared,
            outside,
            hangup,
            look,
            asked,
            told,
            handover,
            keeping: tasks,
            keep,
            admin,
        })
    }

    /// Serves until nothing is to be accepted any more.
    async fn live(&mut self) -> End {
        loop {
            tokio::select! {
                biased;
                () = self.outside.stop.cancelled() => return End::Stopped,
                Some(()) = self.hangup.recv() => {
                    tracing::info!("reload asked for");
                    self.look.notify_one();
                    self.reconfigure(false).await;
                }
                Some(AskConfig { dry_run, reply }) = self.asked.recv() => {
                    let outcome = self.reconfigure(dry_run).await;
                    // Whoever asked may be gone.
                    let _ = reply.send(outcome);
                }
                stream = accept(self.handover.as_ref()) => {
                    if self.give(stream).await {
                        return End::Succeeded;
                    }
                }
                Some(_) = self.serving.tasks.join_next(), if !self.serving.tasks.is_empty() => {}
            }
        }
    }

    /// Reads the configuration again and puts it in force, as one change: all of it, or nothing.
    async fn reconfigure(&mut self, dry_run: bool) -> Reconfigured {
        let previous = self.config.lifecycle.generation.to_string();
        let outcome = Reconfigured { dry_run, previous, ..Reconfigured::default() };
        let changed = match self.read_again().await {
            Err(refusal) => Err(refusal),
            Ok(wanted) => {
                let change = Change::of(&self.config, &wanted);
                let told = outcome.clone().telling(&change);
                if dry_run { Ok(told) } else { self.apply(change).await.map(|()| told) }
            }
        };
        if !dry_run {
            self.note(&changed);
        }
        changed.unwrap_or_else(|refusal| Reconfigured { refusal: Some(refusal), ..outcome })
    }

    async fn read_again(&self) -> Result<Config, String> {
        let Some(again) = self.outside.again.clone() else {
            return Err("this sidecar has no file to read again".to_owned());
        };
        // A file system that does not answer holds nothing up for good.
        match timeout(READ_LIMIT, spawn_blocking(move || (again.0)())).await {
            Ok(Ok(read)) => read.map_err(|problems| problems.to_string()),
            Ok(Err(error)) => Err(describe(&error)),
            Err(_) => Err(format!("the file cannot be read within {} s", READ_LIMIT.as_secs())),
        }
    }

    async fn apply(&mut self, change: Change) -> Result<(), String> {
        if change.is_any() {
            let have: io::Result<Vec<Bound>> = self.sockets.iter().map(Bound::try_clone).collect();
            let have = have.map_err(|error| describe(&error))?;
            let opened = sockets::fit(&change.config, have).await;
            let sockets = opened.map_err(|error| explain(&error, &self.outside.confining))?;
            let prepared =
                self.serving.prepare(&change.config, &sockets).map_err(|error| describe(&error))?;
            // Nothing fails from here on.
            self.shared.services.configure(&change.config);
            self.serving.commit(&change.config, prepared, &sockets);
            self.sockets = sockets;
        }
        self.config = change.config;
        self.told.send_replace(effective::describe(&self.config));
        Ok(())
    }

    fn note(&self, changed: &Result<Reconfigured, String>) {
        self.shared.metrics.config_loaded(changed.is_ok());
        let problem = match changed {
            Ok(told) => {
                let Reconfigured { added, removed, changed_listeners, settings, needs_restart, .. } = told;
                let generation = &*self.config.lifecycle.generation;
                tracing::info!(generation, ?added, ?removed, changed = ?changed_listeners, ?settings, "configuration in force");
                let waits = needs_restart.join(", ");
                (!waits.is_empty()).then(|| format!("waits for a restart: {waits}"))
            }
            Err(refusal) => Some(refusal.clone()),
        };
        if let Some(problem) = &problem {
            tracing::warn!(reason = problem, "configuration is not in force, or not all of it");
        }
        self.shared.state.set_problem(Part::ConfigReload, problem);
    }

    /// Gives the sockets to a new process. Says whether it serves; otherwise everything is as it was.
    async fn give(&mut self, stream: UnixStream) -> bool {
        let offered = async {
            let mut giving = Giving::meet(stream).await?;
            tracing::info!(successor = giving.successor(), "another process asks to take over");
            giving.offer(&self.sockets).await?;
            Ok::<_, HandoverError>(giving)
        };
        let offered = tokio::select! {
            biased;
            () = self.outside.stop.cancelled() => return false,
            offered = offered => offered,
        };
        let released = match offered {
            Ok(giving) => self.release(giving).await,
            Err(error) => Err(describe(&error)),
        };
        if let Err(reason) = &released {
            tracing::warn!(reason, "nobody has taken over, going on");
        }
        released.is_ok()
    }

    /// Lets go of everything that two processes cannot have, in order, and gets it back where that was in vain.
    async fn release(&mut self, mut giving: Giving) -> Result<(), String> {
        if let Err(reason) = self.write(Side::Beside).await {
            giving.refuse(&reason).await;
            return Err(reason);
        }
        if let Err(error) = giving.release().await {
            if let Err(reason) = self.write(Side::Main).await {
                tracing::error!(reason, "the audit log is written beside its file until the next start");
            }
            return Err(describe(&error));
        }
        // The service manager has to know before this process ends.
        if let Some(succeeded) = &self.outside.succeeded {
            succeeded(giving.successor());
        }
        self.serving.close(true);
        self.admin.abort_all();
        self.handover = None;
        if let Err(error) = giving.leave().await {
            tracing::warn!(reason = describe(&error), "the process that takes over was not told that it has");
        }
        Ok(())
    }

    async fn write(&self, side: Side) -> Result<(), String> {
        let log = self.shared.log.clone();
        match spawn_blocking(move || log.turn(side)).await {
            Ok(turned) => turned.map_err(|error| describe(&error)),
            Err(error) => Err(describe(&error)),
        }
    }

    /// Has every connection finish.
    async fn finish(&mut self, end: End) {
        let lifecycle = &self.config.lifecycle;
        let patience = Patience { delay: lifecycle.drain_delay, drain: self.config.drain };
        let (stop, hurry) = (&self.outside.stop, &self.outside.hurry);
        match end {
            End::Stopped => {
                ending::announce(&self.shared, patience, hurry).await;
                self.serving.close(false);
                // Whoever comes later is refused at once.
                self.sockets.clear();
                ending::drain(&mut self.serving, &self.shared, patience, hurry).await;
            }
            End::Succeeded => {
                self.sockets.clear();
                let all = lifecycle.handover.as_ref().map_or(HANDOVER_DRAIN, |handover| handover.drain);
                ending::outlive(&mut self.serving, &self.shared, (all, patience), (stop, hurry)).await;
            }
        }
        self.keep.cancel();
        self.keeping.shutdown().await;
        self.admin.shutdown().await;
    }

    /// Ends with the audit log on disk.
    async fn close(self, end: End, writer: Writer) -> Result<(), RunError> {
        self.shared.log.open(keeping::lifecycle(&self.shared, Lifecycle::Stopped));
        if end == End::Stopped {
            let handover = self.config.lifecycle.handover.as_ref().map(|handover| &handover.socket);
            for path in self.config.admin.socket.iter().chain(handover) {
                // A socket file left behind is removed at the next start.
                let _ = std::fs::remove_file(path);
            }
        }
        let closed = spawn_blocking(move || writer.close()).await;
        // A writer that panicked has lost what it held: that is an unfinished log.
        closed.map_err(|error| RunError::Signal(io::Error::other(error)))??;
        Ok(())
    }
}

impl Reconfigured {
    fn telling(self, change: &Change) -> Self {
        let words = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Self {
            accepted: true,
            changed: change.is_any(),
            generation: Some(change.config.lifecycle.generation.to_string()),
            added: change.added.clone(),
            removed: change.removed.clone(),
            changed_listeners: change.changed.clone(),
            settings: words(&change.settings),
            needs_restart: words(&change.restart),
            ..self
        }
    }
}

/// Waits for somebody who wants to take over.
async fn accept(listener: Option<&UnixListener>) -> UnixStream {
    let Some(listener) = listener else { return pending().await };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept whoever is to take over");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// Operators that wait for an answer about the configuration; more are told to come again.
const ASKS: usize = 4;
/// For one small file.
const READ_LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
