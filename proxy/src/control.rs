//! The one writer: takes what the identity source and the policy loader say, swaps the snapshot, and has the live
//! connections decided again.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use audit::{Event, Lifecycle};
use identity::Credentials;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Limits,
    http1::Pool,
    inbound,
    live::Sentence,
    policies::{Candidate, LoadError, Loaded, Occasion, describe, losses},
    reload::{Losses, Outcome},
    shared::Shared,
    source::Update,
    state::{self, Effective, Identity, Part},
};

/// What connections are looked after by. It changes with the configuration.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    /// What keeps connections to the application for further requests.
    pub(crate) pools: Vec<Weak<Pool>>,
}

/// What the writer knows beside the snapshot.
pub(crate) struct Control {
    shared: Arc<Shared>,
    settings: watch::Receiver<Settings>,
    set: Option<Candidate>,
    /// Whether there is a listener that policies decide about.
    protects: bool,
    /// Credentials that are not valid yet by this host's clock.
    early: Option<Arc<Credentials>>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>, settings: watch::Receiver<Settings>) -> Self {
        Self { shared, settings, set: None, protects: true, early: None }
    }

    /// Says that there is no inbound listener: policies decide about nothing.
    pub(crate) fn outbound_only(mut self) -> Self {
        self.protects = false;
        self.shared.state.set_problem(Part::Policies, None);
        self
    }

    /// Runs until `stop`.
    pub(crate) async fn run(
        mut self,
        mut identities: mpsc::Receiver<Update>,
        mut policies: mpsc::Receiver<Loaded>,
        stop: CancellationToken,
    ) {
        let mut sweep = tokio::time::interval(self.sweep_every());
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(RECHECK);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(update) = identities.recv() => self.identity(update),
                Some(loaded) = policies.recv() => self.policies(loaded),
                _ = sweep.tick() => self.sweep(),
                // Policies change with time too: a shadow policy enforces from its date on.
                _ = again.tick() => self.recheck(),
            }
        }
    }

    fn identity(&mut self, update: Update) {
        match update {
            Update::Credentials(credentials) => self.renew(credentials),
            Update::Crowded { credentials, offered } => {
                self.renew(credentials);
                self.crowded(&describe(&offered));
            }
            Update::Withdrawn(error) => self.withdraw(&describe(&error)),
            Update::Failed(error) => self.failed(&describe(&error)),
        }
    }

    /// Puts credentials in force, unless their SVID is not valid: a peer would refuse it.
    fn renew(&mut self, credentials: Arc<Credentials>) {
        self.early = None;
        let (svid, now) = (credentials.svid(), SystemTime::now());
        if let Ok(since) = now.duration_since(svid.not_after()) {
            let ago = since.as_secs();
            return self.failed(&format!("the SVID expired {ago} s ago by the clock of this host"));
        }
        if let Ok(until) = svid.not_before().duration_since(now).map(|until| until.as_secs())
            && now < svid.not_before()
        {
            self.failed(&format!("the SVID is not valid for another {until} s by the clock of this host"));
            self.early = Some(credentials);
            return;
        }
        let identity = match Identity::new(Arc::clone(&credentials)) {
            Ok(identity) => Arc::new(identity),
            Err(error) => return self.failed(&describe(&error)),
        };
        let shared = &self.shared;
        let before = shared.state.now();
        shared.log.identify(identity.id().as_str());
        shared.state.store(state::with_identity(&before, self.set.as_ref(), Some(Arc::clone(&identity))));
        shared.state.set_problem(Part::Identity, None);
        shared.state.set_problem(Part::IdentityUpdate, None);
        shared.metrics.identity_updated(true);
        shared.metrics.svid_not_after.set(seconds(credentials.svid().not_after()));
        tracing::info!(id = %identity.id(), serial = credentials.svid().serial(), "identity in use");
        self.record(Lifecycle::IdentityRotated, None);
        if let Some(before) = &before.identity {
            let cut = state::recheck_trust(&shared.registry, &before.credentials, &credentials);
            report(cut, "connections cut: their trust was withdrawn");
            if before.id() != identity.id() {
                // Another workload: other policies protect it.
                self.recheck();
            }
        }
    }

    /// The identity in use stays, but the next start could not choose it.
    fn crowded(&self, reason: &str) {
        let shared = &self.shared;
        if shared.state.now().identity.is_some() {
            shared.state.set_problem(Part::IdentityUpdate, Some(reason.to_owned()));
            tracing::warn!(reason, "several identities are offered, the one in use stays");
        }
    }

    fn withdraw(&self, reason: &str) {
        let shared = &self.shared;
        let before = shared.state.now();
        shared.state.store(state::with_identity(&before, self.set.as_ref(), None));
        shared.state.set_problem(Part::Identity, Some(reason.to_owned()));
        shared.metrics.identity_updated(false);
        tracing::error!(reason, "no identity: nothing passes");
        if before.identity.is_some() {
            state::withdraw(&shared.registry);
        }
    }

    /// The identity in use stays while it is valid; without one there is nothing to stay.
    fn failed(&self, reason: &str) {
        let shared = &self.shared;
        shared.metrics.identity_updated(false);
        if shared.state.now().identity.is_some() {
            shared.state.set_problem(Part::IdentityUpdate, Some(reason.to_owned()));
            tracing::warn!(reason, "no new identity, the last good one stays in use");
        } else {
            shared.state.set_problem(Part::Identity, Some(reason.to_owned()));
            tracing::error!(reason, "no identity: nothing passes");
        }
    }

    fn policies(&mut self, loaded: Loaded) {
        let Loaded { result, occasion, standing, reply } = loaded;
        let outcome = match result {
            Ok(candidate) => self.put_in_force(candidate, occasion, standing),
            Err(error) => self.refuse(&error, occasion),
        };
        if let Some(reply) = reply {
            // Whoever asked may be gone.
            let _ = reply.send(outcome);
        }
    }

    fn put_in_force(
        &mut self,
        candidate: Candidate,
        occasion: Occasion,
        standing: Option<String>,
    ) -> Outcome {
        let shared = &self.shared;
        let before = shared.state.now();
        let after = state::with_policies(&before, &candidate);
        let (previous, generation) = (before.name(), after.name());
        let changed = before.generation != after.generation;
        shared.state.store(after);
        shared.state.set_problem(Part::Policies, None);
        shared.state.set_problem(Part::PolicyReload, standing);
        shared.metrics.policies_loaded(true);
        self.note_use(candidate.set.is_empty());
        self.set = Some(candidate);
        let losses = self.cut(&before);
        tracing::info!(
            generation = generation.as_deref(),
            previous = previous.as_deref(),
            occasion = occasion.as_str(),
            cut = losses.cut,
            "policies in force"
        );
        self.record(Lifecycle::PolicyChanged, Some(losses.cut));
        Outcome { accepted: true, changed, generation, previous, losses, ..Outcome::default() }
    }

    fn refuse(&self, error: &LoadError, occasion: Occasion) -> Outcome {
        let shared = &self.shared;
        let reason = describe(error);
        let occasion = occasion.as_str();
        shared.metrics.policies_loaded(false);
        if !self.protects {
            tracing::warn!(
                reason,
                occasion,
                "policies refused: this proxy has no inbound listener and needs none"
            );
            shared.state.set_problem(Part::PolicyUse, Some(reason.clone()));
        } else if self.set.is_some() {
            tracing::error!(reason, occasion, "policies refused, the last good ones stay in force");
            shared.state.set_problem(Part::PolicyReload, Some(reason.clone()));
        } else {
            tracing::error!(reason, occasion, "policies refused: everything is denied");
            shared.state.set_problem(Part::Policies, Some(reason.clone()));
        }
        self.record(Lifecycle::PolicyRefused, None);
        let previous = shared.state.now().name();
        Outcome { refusal: Some(reason), previous, ..Outcome::default() }
    }

    /// Warns where everything is refused because nobody has written a policy.
    fn note_use(&self, empty: bool) {
        let unprotected = (empty && self.protects).then(|| NO_POLICY.to_owned());
        if let Some(reason) = &unprotected {
            tracing::warn!(reason, "no policy protects any workload");
        }
        self.shared.state.set_problem(Part::PolicyUse, unprotected);
    }

    fn recheck(&self) {
        let judged = inbound::judge(&self.shared.registry, &self.shared.state.now());
        report(end(judged), "connections cut: policy forbids them");
    }

    /// Cuts what the snapshot in force forbids, and tells what lived by the one `before`.
    fn cut(&self, before: &Effective) -> Losses {
        let registry = &self.shared.registry;
        let connections = registry.inbound();
        let judged = inbound::judge(registry, &self.shared.state.now());
        let losses = losses(&judged, before, connections);
        Losses { cut: end(judged), ..losses }
    }

    fn record(&self, change: Lifecycle, cut: Option<usize>) {
        let generation = Arc::clone(&self.shared.state.now().generation);
        let mut event = Event::lifecycle(SystemTime::now(), change, generation);
        event.cut = cut.and_then(|cut| u64::try_from(cut).ok());
        self.shared.log.open(event);
    }

    fn sweep(&mut self) {
        if let Some(early) = self.early.take_if(|early| early.svid().not_before() <= SystemTime::now()) {
            self.renew(early);
        }
        let shared = &self.shared;
        {
            let settings = self.settings.borrow();
            let limits = &settings.limits;
            shared.registry.sweep(&limits.live(), &limits.ages(), SystemTime::now());
            settings.pools.iter().filter_map(Weak::upgrade).for_each(|pool| pool.sweep());
        }
        if let Some(identity) = &shared.state.now().identity
            && identity.credentials.svid().not_after() <= SystemTime::now()
        {
            shared.state.set_problem(Part::Identity, Some("the SVID in use has expired".to_owned()));
        }
    }

    /// Often enough that the shortest limit is exceeded by a quarter at most.
    fn sweep_every(&self) -> Duration {
        let limits = self.shared.limits.live();
        let shortest = limits.idle.min(limits.head).min(limits.stall).min(limits.relay_idle);
        (shortest.min(limits.half_closed) / 4).clamp(SHORTEST_SWEEP, LONGEST_SWEEP)
    }
}

/// Ends what was judged; returns how many lived until then.
fn end(judged: Vec<Sentence>) -> usize {
    judged.into_iter().filter_map(|sentence| sentence.carry_out().then_some(())).count()
}

fn report(cut: usize, message: &'static str) {
    if cut > 0 {
        tracing::info!(count = cut, "{message}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs() as f64)
}

const NO_POLICY: &str = "no policy file: everything is refused";
/// How late a date in a policy takes effect on live connections.
const RECHECK: Duration = Duration::from_secs(10);
const SHORTEST_SWEEP: Duration = Duration::from_millis(5);
const LONGEST_SWEEP: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
