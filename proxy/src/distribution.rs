//! Central sets, of policies and of services: what the CA has signed, handed out by the agent on the socket of the Workload
//! API.
//!
//! Nothing is believed for coming from the agent: the manifest has to be signed by the trust domain's policy signer, for sets of
//! this kind, every file has to be the one that the manifest names, and no number is taken that is lower than the highest one
//! taken before. What cannot be believed, or does not come, leaves what is in force as it is.

mod agent;
mod assembly;
mod seen;
mod taker;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration, time::SystemTime};

use identity::{
    crypto,
    manifest::{Kind, Manifest, ManifestError, ReplayError},
    rotation::Backoff,
};
use proto::vouchsafe::v1::{PolicyState, PolicyStatus, delivery::Step};
use tokio::sync::{mpsc, watch};
use tonic::Code;

use self::{
    agent::{Agent, next},
    assembly::{Assembled, Assembly, DeliveryFlaw, Held},
    seen::{Kept, KeptError},
    taker::Taker,
};
use crate::{
    config::IdentitySource,
    policies::{Central, Delivered, describe},
    shared::Shared,
    state::Identity,
    workload_api::{EndpointError, WorkloadApiError},
};

/// Receives the sets of one kind that the agent hands out, for as long as the proxy runs.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    taker: Taker,
    kept: Kept,
    held: Held,
    /// What was taken last, so that the same again changes nothing.
    taken: Option<Arc<Central>>,
    /// What may be taken once another bundle, or other files of this host, have come.
    pending: Option<Assembled>,
}

/// Why nothing is received.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error("no agent is named")]
    Endpoint(#[from] EndpointError),
    #[error("the agent cannot be reached")]
    Unreachable(#[from] WorkloadApiError),
    #[error("the agent hands out no such sets ({code:?}): {message}")]
    Agent { code: Code, message: String },
    #[error("the agent ended the stream of sets")]
    Ended,
    #[error("the agent sent what is no set")]
    Flaw(#[from] DeliveryFlaw),
    #[error("the number of the newest set is not known")]
    Kept(#[from] KeptError),
}

/// Why a set is not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the set cannot be believed")]
    Manifest(#[from] ManifestError),
    #[error("the set is older than what was taken before")]
    Replay(#[from] ReplayError),
    #[error("the agent says that there are no central ones, and signed ones were taken before")]
    NoneAfterSome,
    #[error(transparent)]
    Flaw(#[from] DeliveryFlaw),
    #[error("{0}")]
    Refused(String),
}

impl TakeError {
    /// Whether another bundle may make it good, which the agent may be ahead of, or other files of this host.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::Refused(_))
    }
}

impl Receiver {
    /// Receives policies, for the one who loads them.
    pub(crate) fn new(
        state_dir: Option<&Path>,
        shared: Arc<Shared>,
        deliveries: mpsc::Sender<Delivered>,
    ) -> Self {
        Self::of(Taker::Policies(deliveries), state_dir, shared)
    }

    /// Receives services.
    pub(crate) fn services(state_dir: Option<&Path>, shared: Arc<Shared>) -> Self {
        Self::of(Taker::Services, state_dir, shared)
    }

    fn of(taker: Taker, state_dir: Option<&Path>, shared: Arc<Shared>) -> Self {
        let kept = Kept::of(taker.kind(), state_dir);
        Self { shared, taker, kept, held: Held::default(), taken: None, pending: None }
    }

    fn kind(&self) -> Kind {
        self.taker.kind()
    }

    /// Receives from the agent that the identity comes from, until nobody takes what comes.
    pub(crate) async fn run(mut self, source: IdentitySource) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let taker = self.taker.clone();
        loop {
            let error = tokio::select! {
                error = self.follow(&source, &mut backoff) => error,
                () = taker.closed() => return,
            };
            self.problem(&describe(&error));
            self.pending = None;
            // Without randomness the longest wait is the safe one: nobody is hurried.
            tokio::time::sleep(backoff.next(crypto::random_fraction().unwrap_or(1.0))).await;
        }
    }

    /// Follows one stream to its end and says why it ended.
    async fn follow(&mut self, source: &IdentitySource, backoff: &mut Backoff) -> ReceiveError {
        match self.follow_stream(source, backoff).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn follow_stream(
        &mut self,
        source: &IdentitySource,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, ReceiveError> {
        let identity = self.identity().await;
        self.kept.load(&identity.id().trust_domain()).await?;
        let mut agent = Agent::connect(self.kind(), source).await?;
        let mut stream = agent.watch(&self.held).await?;
        let mut bundles = self.shared.state.changes();
        let mut assembly = None;
        loop {
            let step = tokio::select! {
                step = next(&mut stream) => step?,
                () = self.occasion(&mut bundles), if self.pending.is_some() => {
                    if let Some(assembled) = self.pending.take() {
                        self.receive(assembled, &mut agent).await;
                    }
                    continue;
                }
            };
            backoff.reset();
            match step {
                Step::Waiting(_) => {
                    self.problem("the agent does not know yet whether there are central sets of this kind")
                }
                Step::None(_) => self.none(&mut agent).await,
                Step::Begin(begin) => assembly = Some(Assembly::begin(begin)?),
                Step::File(file) => assembly.as_mut().ok_or(DeliveryFlaw::Order)?.add(file)?,
                Step::End(end) => {
                    let assembly = assembly.take().ok_or(DeliveryFlaw::Order)?;
                    let assembled = assembly.end(end.number, &mut self.held)?;
                    // Only what changes from here on is a reason to look again.
                    bundles.mark_unchanged();
                    self.receive(assembled, &mut agent).await;
                }
            }
        }
    }

    /// Waits until what was not taken may be good: the snapshot changed, or files of this host did.
    async fn occasion(&self, snapshots: &mut watch::Receiver<()>) {
        tokio::select! {
            // The state outlives this task.
            _ = snapshots.changed() => {}
            () = self.shared.state.files().notified() => {}
        }
    }

    /// Waits until it is known who we are.
    async fn identity(&self) -> Arc<Identity> {
        let mut changes = self.shared.state.changes();
        loop {
            if let Some(identity) = &self.shared.state.now().identity {
                return Arc::clone(identity);
            }
            // The state outlives this task: a change always comes, or the wait is ended from outside.
            let _ = changes.changed().await;
        }
    }

    /// Takes a set, or says why not; the agent hears of either.
    async fn receive(&mut self, assembled: Assembled, agent: &mut Agent) {
        self.pending = None;
        let identity = self.identity().await;
        let outcome = self.take(&assembled, &identity).await;
        let status = match &outcome {
            Ok(manifest) => self.in_force(manifest),
            Err(error) => {
                let reason = describe(error);
                tracing::error!(kind = ?self.kind(), number = assembled.number, reason, "set from the agent refused");
                self.problem(&reason);
                self.shared.metrics.set_delivered(self.kind(), false);
                self.refused(assembled.number, reason)
            }
        };
        if outcome.is_err_and(|error| error.may_pass()) {
            self.pending = Some(assembled);
        }
        agent.report(&identity, status).await;
    }

    async fn take(&mut self, assembled: &Assembled, identity: &Identity) -> Result<Manifest, TakeError> {
        let own = identity.id().trust_domain();
        let anchors = identity.credentials.anchors();
        let audience = self.kind().audience();
        let manifest = assembled.manifest.verify(anchors, &own, audience, SystemTime::now())?;
        manifest.succeeds(self.kept.seen())?;
        let central = Arc::new(assembled.central(&manifest)?);
        if self.taken.as_deref() != Some(&*central) {
            self.put_in_force(&central, identity).await?;
        }
        self.taken = Some(central);
        if let Err(error) = self.kept.keep(&own, manifest.seen()).await {
            // They are in force all the same: what is lost is the memory of them after a restart.
            let reason = describe(&error);
            tracing::error!(kind = ?self.kind(), reason, "the number of the newest set cannot be kept");
        }
        Ok(manifest)
    }

    async fn put_in_force(&self, central: &Arc<Central>, identity: &Identity) -> Result<(), TakeError> {
        self.taker.take(central, identity.id(), &self.shared).await.map_err(TakeError::Refused)
    }

    /// Nobody has signed that there are none: it is believed only where there never were any.
    async fn none(&mut self, agent: &mut Agent) {
        let identity = self.identity().await;
        let central = Arc::new(Central::nobodys());
        let outcome = match (self.kept.seen(), &self.taken) {
            (Some(_), _) => Err(TakeError::NoneAfterSome),
            (None, Some(taken)) if *taken == central => Ok(()),
            (None, _) => self.put_in_force(&central, &identity).await,
        };
        let status = match outcome {
            Ok(()) => {
                self.taken = Some(central);
                self.shared.state.set_problem(self.taker.part(), None);
                PolicyStatus { state: PolicyState::None.into(), ..PolicyStatus::default() }
            }
            Err(error) => {
                let reason = describe(&error);
                tracing::error!(kind = ?self.kind(), reason, "set from the agent refused");
                self.problem(&reason);
                self.refused(0, reason)
            }
        };
        agent.report(&identity, status).await;
    }

    fn in_force(&self, manifest: &Manifest) -> PolicyStatus {
        let (number, generation) = (manifest.number(), manifest.generation().to_owned());
        self.shared.state.set_problem(self.taker.part(), None);
        self.shared.metrics.set_delivered(self.kind(), true);
        self.shared.metrics.set_number(self.kind()).set(i64::try_from(number).unwrap_or(i64::MAX));
        PolicyStatus {
            state: PolicyState::InForce.into(),
            number,
            generation: generation.clone(),
            number_in_force: number,
            generation_in_force: generation,
            ..PolicyStatus::default()
        }
    }

    fn refused(&self, number: u64, mut reason: String) -> PolicyStatus {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        let taken = self.taken.is_some().then(|| self.kept.seen().cloned()).flatten();
        PolicyStatus {
            state: PolicyState::Refused.into(),
            number,
            reason,
            number_in_force: taken.as_ref().map_or(0, |seen| seen.number),
            generation_in_force: taken.map(|seen| seen.generation).unwrap_or_default(),
            ..PolicyStatus::default()
        }
    }

    /// Tells of what is wrong; what is in force stays.
    fn problem(&self, reason: &str) {
        let (state, part) = (&self.shared.state, self.taker.part());
        if state.problems().get(&part).is_none_or(|known| known != reason) {
            tracing::warn!(kind = ?self.kind(), reason, "no set from the agent");
        }
        state.set_problem(part, Some(reason.to_owned()));
    }
}

/// As the message says.
const MAX_REASON: usize = 1024;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// An agent that comes back is noticed within this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
