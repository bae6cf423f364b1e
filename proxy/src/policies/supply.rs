//! The one loader: watches the files, hears the agent, answers operators, and hands what is good to the writer.
//!
//! Of the two parts that a set is made of, files of this host and what the CA has signed, a new one is always joined with
//! the last good other one: a broken file here holds up no withdrawal of a right there.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::SystemTime};

use policy::Mesh;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};

use super::{
    Candidate, LoadError, Loaded, Occasion, Selectors,
    compiling::{Central, Input},
    describe, losses,
    reading::{self, Snapshot},
};
use crate::{
    config::{Config, PolicySource},
    inbound,
    reload::{Asked, Files, Outcome},
    shared::Shared,
    state,
    watching::{SETTLE, Watching},
};

/// What an operator asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) asked: Asked,
    /// Files to look at instead of those of the directory, for a preview.
    pub(crate) files: Option<Files>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// What the agent handed out.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) central: Arc<Central>,
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// Everything that loading goes by.
pub(crate) struct Supply {
    directory: Option<PathBuf>,
    /// Whether the files of this host are all there is.
    alone: bool,
    config: Arc<Config>,
    shared: Arc<Shared>,
    control: mpsc::Sender<Loaded>,
    /// A look at the directory that has not come back.
    looking: Option<JoinHandle<Result<Snapshot, LoadError>>>,
    /// What the last look found, good or bad.
    seen: Option<Seen>,
    /// Why the files of this host as they are cannot be taken.
    local_flaw: Option<String>,
    /// What was warned of.
    ignored: Arc<Vec<String>>,
    good_local: Option<Snapshot>,
    good_central: Option<Arc<Central>>,
}

/// What a look at the directory found.
#[derive(Debug)]
enum Seen {
    Files(Snapshot),
    Failed(String),
}

impl Seen {
    fn of(look: &Result<Snapshot, LoadError>) -> Self {
        match look {
            Ok(snapshot) => Self::Files(snapshot.clone()),
            Err(error) => Self::Failed(describe(error)),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Files(one), Self::Files(other)) => one.is(other),
            (Self::Failed(one), Self::Failed(other)) => one == other,
            (Self::Files(_), Self::Failed(_)) | (Self::Failed(_), Self::Files(_)) => false,
        }
    }
}

impl Supply {
    pub(crate) fn new(config: Arc<Config>, shared: Arc<Shared>, control: mpsc::Sender<Loaded>) -> Self {
        let source = config.policies.as_ref();
        let directory = source.and_then(PolicySource::directory).map(ToOwned::to_owned);
        let alone = !matches!(source, Some(PolicySource::Agent { .. }));
        let good_local = directory.is_none().then(Snapshot::default);
        Self {
            directory,
            alone,
            config,
            shared,
            control,
            looking: None,
            seen: None,
            local_flaw: None,
            ignored: Arc::default(),
            good_local,
            good_central: None,
        }
    }

    /// Runs until nobody listens. `reload` asks for a look at once.
    pub(crate) async fn run(
        mut self,
        reload: Arc<Notify>,
        mut asks: mpsc::Receiver<Ask>,
        mut deliveries: mpsc::Receiver<Delivered>,
    ) {
        let control = self.control.clone();
        let watching = Watching::directories(&self.directory.iter().cloned().collect::<BTreeSet<_>>());
        let mut identities = self.shared.state.changes();
        self.look(Stamps::Ignored).await;
        loop {
            tokio::select! {
                () = control.closed() => return,
                Some(ask) = asks.recv() => self.answer(ask).await,
                Some(delivered) = deliveries.recv() => self.take(delivered).await,
                () = watching.wait() => self.look(Stamps::Believed).await,
                () = reload.notified() => self.look(Stamps::Ignored).await,
                // Files of a mesh wait for its trust domain to be known.
                Ok(()) = identities.changed(), if self.seen.is_none() => self.look(Stamps::Ignored).await,
            }
        }
    }

    /// Looks at the directory, and loads it where it has changed.
    async fn look(&mut self, stamps: Stamps) {
        if self.directory.is_none() {
            return;
        }
        let look = self.settled(stamps).await;
        let seen = Seen::of(&look);
        if self.seen.as_ref().is_some_and(|last| last.is(&seen)) {
            return;
        }
        self.warn_of_ignored(&look);
        let Some(result) = self.candidate(look, None, Emptied::Refused).await else {
            // What the agent handed out may have been refused for the files as they were.
            self.shared.state.files().notify_one();
            return;
        };
        self.seen = Some(seen);
        self.local_flaw = result.as_ref().err().map(|error| describe(error));
        self.hand_on(result, Occasion::Files, None).await;
    }

    async fn answer(&mut self, ask: Ask) {
        let look = match (ask.files, &self.directory) {
            (Some(files), _) => Snapshot::sent(files),
            (None, Some(_)) => self.settled(Stamps::Ignored).await,
            (None, None) => Ok(Snapshot::default()),
        };
        let seen = Seen::of(&look);
        let ignored = look.as_ref().map(|snapshot| snapshot.ignored.to_vec()).unwrap_or_default();
        let emptied = match ask.asked {
            Asked::ReloadEmpty => Emptied::Accepted,
            Asked::Preview | Asked::Reload => Emptied::Refused,
        };
        let Some(result) = self.candidate(look, None, emptied).await else {
            let refusal = Some("the trust domain is not known before there is an identity".to_owned());
            // Whoever asked may be gone.
            let _ = ask.reply.send(Outcome { refusal, ..Outcome::default() });
            return;
        };
        let mut outcome = match ask.asked {
            Asked::Preview => self.preview(&result),
            Asked::Reload | Asked::ReloadEmpty => {
                let same = self.seen.as_ref().is_some_and(|last| last.is(&seen)) && result.is_ok();
                self.seen = Some(seen);
                self.local_flaw = result.as_ref().err().map(|error| describe(error));
                if same && self.in_force(&result) {
                    Outcome { dry_run: false, ..self.preview(&result) }
                } else {
                    self.ask_control(result).await
                }
            }
        };
        outcome.ignored = ignored;
        let _ = ask.reply.send(outcome);
    }

    /// Takes what the agent handed out.
    async fn take(&mut self, delivered: Delivered) {
        let local = match (&self.good_local, &self.directory) {
            (Some(good), _) => Ok(good.clone()),
            (None, Some(_)) => self.settled(Stamps::Ignored).await,
            (None, None) => Ok(Snapshot::default()),
        };
        if self.good_local.is_none() {
            self.seen = Some(Seen::of(&local));
        }
        // An identity was there before the agent handed out anything.
        if let Some(result) = self.candidate(local, Some(delivered.central), Emptied::Refused).await {
            self.hand_on(result, Occasion::Delivery, Some(delivered.reply)).await;
        }
    }

    /// Compiles what was found; nothing where that has to wait.
    async fn candidate(
        &mut self,
        local: Result<Snapshot, LoadError>,
        central: Option<Arc<Central>>,
        emptied: Emptied,
    ) -> Option<Result<(Candidate, Input), LoadError>> {
        let central = central.or_else(|| self.good_central.clone());
        if !self.alone && central.is_none() {
            return None;
        }
        let local = match local {
            Ok(local) => local,
            Err(error) => return Some(Err(error)),
        };
        if let Some(path) = self.emptied(&local)
            && emptied == Emptied::Refused
        {
            return Some(Err(LoadError::Emptied { path }));
        }
        let input = Input { central, local };
        let mesh = self.mesh(&input)?;
        let compiled = input.clone();
        Some(match spawn_blocking(move || compiled.compile(mesh)).await {
            Ok(Ok(set)) => Ok((self.selected(set, &input), input)),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(LoadError::Compiler(error)),
        })
    }

    fn selected(&self, set: policy::PolicySet, input: &Input) -> Candidate {
        let attested = input.central.as_ref().map(|central| central.attested()).unwrap_or_default();
        let selectors = Selectors::new(Arc::new(self.config.istio.clone()), attested);
        Candidate { set: Arc::new(set), selectors: Arc::new(selectors) }
    }

    /// The directory that had policies and has none, if so.
    fn emptied(&self, local: &Snapshot) -> Option<PathBuf> {
        let had = self.good_local.as_ref().is_some_and(Snapshot::has_policies);
        self.directory.clone().filter(|_| had && !local.has_policies())
    }

    /// The settings of the mesh; nothing where they matter and its trust domain is not known.
    fn mesh(&self, input: &Input) -> Option<Mesh> {
        let istio = &self.config.istio;
        let now = self.shared.state.now();
        let in_use = now.identity.as_ref().map(|identity| identity.id().trust_domain());
        let configured = self.config.identity.as_ref().map(identity::SpiffeId::trust_domain);
        match istio.trust_domain.clone().or(configured).or(in_use) {
            Some(own) => Some(istio.mesh(&own)),
            None if input.needs_mesh() => None,
            None => Some(istio.mesh.clone()),
        }
    }

    /// Hands a result to the writer, and remembers the parts of a good one.
    async fn hand_on(
        &mut self,
        result: Result<(Candidate, Input), LoadError>,
        occasion: Occasion,
        reply: Option<oneshot::Sender<Outcome>>,
    ) {
        // Policies that the agent hands out come into force beside the last good files.
        let standing = self.local_flaw.clone().filter(|_| occasion == Occasion::Delivery);
        let result = result.map(|(candidate, input)| {
            self.good_local = Some(input.local);
            self.good_central = input.central;
            candidate
        });
        // The writer is gone only when everything ends.
        let _ = self.control.send(Loaded { result, occasion, standing, reply }).await;
    }

    async fn ask_control(&mut self, result: Result<(Candidate, Input), LoadError>) -> Outcome {
        let (reply, told) = oneshot::channel();
        self.hand_on(result, Occasion::Asked, Some(reply)).await;
        told.await.unwrap_or_default()
    }

    fn in_force(&self, result: &Result<(Candidate, Input), LoadError>) -> bool {
        let now = self.shared.state.now();
        matches!(result, Ok((candidate, _)) if candidate.set.generation() == &*now.generation)
    }

    /// Says what a result would come to.
    fn preview(&self, result: &Result<(Candidate, Input), LoadError>) -> Outcome {
        let before = self.shared.state.now();
        let outcome = Outcome { dry_run: true, previous: before.name(), ..Outcome::default() };
        match result {
            Err(error) => Outcome { refusal: Some(describe(error)), ..outcome },
            Ok((candidate, _)) => {
                let after = self.shared.state.complete(state::with_policies(&before, candidate));
                let judged = inbound::judge(&self.shared.registry, &after);
                let connections = self.shared.registry.inbound();
                Outcome {
                    accepted: true,
                    changed: after.generation != before.generation,
                    generation: after.name(),
                    losses: losses(&judged, &before, connections),
                    ..outcome
                }
            }
        }
    }

    /// Looks at the directory until it has come to rest: a half-written file is no policy, nor is half a directory.
    async fn settled(&mut self, stamps: Stamps) -> Result<Snapshot, LoadError> {
        let known = match (&self.seen, stamps) {
            (Some(Seen::Files(seen)), Stamps::Believed) => Some(seen.clone()),
            (_, Stamps::Believed | Stamps::Ignored) => None,
        };
        let mut look = self.read(known).await;
        for _ in 0..LOOKS {
            if matches!(&look, Ok(found) if found.is_at_rest(SystemTime::now()) || self.is_in_use(found)) {
                return look;
            }
            tokio::time::sleep(SETTLE).await;
            let again = self.read(None).await;
            if Seen::of(&look).is(&Seen::of(&again)) {
                return again;
            }
            look = again;
        }
        Err(LoadError::Restless { path: self.directory.clone().unwrap_or_default() })
    }

    /// What is in force was whole when it was taken.
    fn is_in_use(&self, found: &Snapshot) -> bool {
        self.good_local.as_ref().is_some_and(|good| good.is(found))
    }

    /// Reads the directory. A file system that does not answer keeps one thread at most.
    async fn read(&mut self, known: Option<Snapshot>) -> Result<Snapshot, LoadError> {
        let path = self.directory.clone().unwrap_or_default();
        let directory = path.clone();
        let looking = self.looking.get_or_insert_with(|| {
            spawn_blocking(move || match known {
                // To read all files every time would cost more than to look at their stamps.
                Some(known) if known.is_untouched(&directory) => Ok(known),
                Some(_) | None => reading::read(&directory),
            })
        });
        match timeout(READ_LIMIT, looking).await {
            Err(_) => Err(LoadError::Slow { path }),
            Ok(read) => {
                self.looking = None;
                read.map_err(LoadError::Compiler)?
            }
        }
    }

    fn warn_of_ignored(&mut self, look: &Result<Snapshot, LoadError>) {
        let Ok(found) = look else { return };
        if !found.ignored.is_empty() && self.ignored != found.ignored {
            let names = audit::shown(&found.ignored.join(", "));
            tracing::warn!(
                names,
                "only *.yaml, *.yml and *.json are read in the policy directory, and no folders"
            );
        }
        self.ignored = Arc::clone(&found.ignored);
    }
}

/// Whether a file with the stamps of the one that was read is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamps {
    Believed,
    Ignored,
}

/// What is made of a directory that had policies and has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emptied {
    Refused,
    Accepted,
}

/// Reading the largest directory takes a second.
pub(crate) const READ_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Looks at a directory that never rests, before that is a reason to refuse it.
const LOOKS: usize = 40;
