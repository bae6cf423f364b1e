//! Central policies: what the CA has signed, handed out by the agent on the socket of the Workload API.
//!
//! Nothing is believed for coming from the agent: the manifest has to be signed by the trust domain's policy signer, every
//! file has to be the one that the manifest names, and no number is taken that is lower than the highest one taken before.
//! What cannot be believed, or does not come, leaves what is in force as it is.

mod assembly;
mod seen;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration, time::SystemTime};

use identity::{
    crypto,
    manifest::{self, Manifest, ManifestError, ReplayError},
    rotation::Backoff,
};
use proto::vouchsafe::v1::{
    Delivery, DeliveryReport, PolicyState, PolicyStatus, WatchDeliveryRequest, delivery::Step,
    policy_delivery_client::PolicyDeliveryClient,
};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Code, Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

use self::{
    assembly::{Assembled, Assembly, DeliveryFlaw, Held},
    seen::{Kept, KeptError},
};
use crate::{
    config::IdentitySource,
    policies::{Central, Delivered, describe},
    shared::Shared,
    state::{Identity, Part},
    workload_api::{Endpoint, EndpointError, SECURITY_HEADER, WorkloadApiError, channel},
};

/// Receives what the agent hands out, for as long as the proxy runs.
pub(crate) struct Receiver {
    shared: Arc<Shared>,
    deliveries: mpsc::Sender<Delivered>,
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
    #[error("the agent hands out no policies ({code:?}): {message}")]
    Agent { code: Code, message: String },
    #[error("the agent ended the stream of policies")]
    Ended,
    #[error("the agent sent what is no set of policies")]
    Flaw(#[from] DeliveryFlaw),
    #[error("the number of the newest policies is not known")]
    Kept(#[from] KeptError),
}

/// Why a set is not taken.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error("the policies cannot be believed")]
    Manifest(#[from] ManifestError),
    #[error("the policies are older than those that were taken before")]
    Replay(#[from] ReplayError),
    #[error("the agent says that there are no central policies, and signed ones were taken before")]
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
    pub(crate) fn new(
        state_dir: Option<&Path>,
        shared: Arc<Shared>,
        deliveries: mpsc::Sender<Delivered>,
    ) -> Self {
        let kept = Kept::new(state_dir);
        Self { shared, deliveries, kept, held: Held::default(), taken: None, pending: None }
    }

    /// Receives from the agent that the identity comes from, until nobody takes what comes.
    pub(crate) async fn run(mut self, source: IdentitySource) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let deliveries = self.deliveries.clone();
        loop {
            let error = tokio::select! {
                error = self.follow(&source, &mut backoff) => error,
                () = deliveries.closed() => return,
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
        let mut agent = Agent::connect(source).await?;
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
                    self.problem("the agent does not know yet whether there are central policies")
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
                tracing::error!(number = assembled.number, reason, "policies from the agent refused");
                self.problem(&reason);
                self.shared.metrics.policies_delivered(false);
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
        let manifest = assembled.manifest.verify(anchors, &own, manifest::SIDECARS, SystemTime::now())?;
        manifest.succeeds(self.kept.seen())?;
        let central = Arc::new(assembled.central(&manifest)?);
        if self.taken.as_deref() != Some(&*central) {
            self.put_in_force(Arc::clone(&central)).await?;
        }
        self.taken = Some(central);
        if let Err(error) = self.kept.keep(&own, manifest.seen()).await {
            // They are in force all the same: what is lost is the memory of them after a restart.
            let reason = describe(&error);
            tracing::error!(reason, "the number of the newest policies cannot be kept");
        }
        Ok(manifest)
    }

    async fn put_in_force(&self, central: Arc<Central>) -> Result<(), TakeError> {
        let (reply, told) = oneshot::channel();
        let stopping = || TakeError::Refused("the sidecar is stopping".to_owned());
        self.deliveries.send(Delivered { central, reply }).await.map_err(|_| stopping())?;
        let outcome = told.await.map_err(|_| stopping())?;
        outcome.refusal.map_or(Ok(()), |reason| Err(TakeError::Refused(reason)))
    }

    /// Nobody has signed that there are none: it is believed only where there never were any.
    async fn none(&mut self, agent: &mut Agent) {
        let identity = self.identity().await;
        let central = Arc::new(Central::nobodys());
        let outcome = match (self.kept.seen(), &self.taken) {
            (Some(_), _) => Err(TakeError::NoneAfterSome),
            (None, Some(taken)) if *taken == central => Ok(()),
            (None, _) => self.put_in_force(Arc::clone(&central)).await,
        };
        let status = match outcome {
            Ok(()) => {
                self.taken = Some(central);
                self.shared.state.set_problem(Part::PolicyDelivery, None);
                PolicyStatus { state: PolicyState::None.into(), ..PolicyStatus::default() }
            }
            Err(error) => {
                let reason = describe(&error);
                tracing::error!(reason, "policies from the agent refused");
                self.problem(&reason);
                self.refused(0, reason)
            }
        };
        agent.report(&identity, status).await;
    }

    fn in_force(&self, manifest: &Manifest) -> PolicyStatus {
        let (number, generation) = (manifest.number(), manifest.generation().to_owned());
        self.shared.state.set_problem(Part::PolicyDelivery, None);
        self.shared.metrics.policies_delivered(true);
        self.shared.metrics.policy_number.set(i64::try_from(number).unwrap_or(i64::MAX));
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
        let state = &self.shared.state;
        if state.problems().get(&Part::PolicyDelivery).is_none_or(|known| known != reason) {
            tracing::warn!(reason, "no policies from the agent");
        }
        state.set_problem(Part::PolicyDelivery, Some(reason.to_owned()));
    }
}

/// The agent, as far as it hands out policies.
struct Agent {
    client: PolicyDeliveryClient<Channel>,
}

impl Agent {
    async fn connect(source: &IdentitySource) -> Result<Self, ReceiveError> {
        let endpoint = match source {
            IdentitySource::WorkloadApi(endpoint) => endpoint.clone(),
            // The configuration allows no PEM files beside policies from an agent.
            IdentitySource::Environment | IdentitySource::Pem(_) => Endpoint::from_environment()?,
        };
        let channel = channel(&endpoint).await?;
        let client = PolicyDeliveryClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { client })
    }

    async fn watch(&mut self, held: &Held) -> Result<Streaming<Delivery>, ReceiveError> {
        let request = marked(WatchDeliveryRequest { held: held.hashes() });
        Ok(self.client.watch(request).await.map_err(refusal)?.into_inner())
    }

    /// Tells the agent what became of a set. That it does not hear it changes nothing here.
    async fn report(&mut self, identity: &Identity, status: PolicyStatus) {
        let spiffe_id = identity.id().as_str().to_owned();
        let report = DeliveryReport { spiffe_id, status: Some(status) };
        let told = tokio::time::timeout(REPORT_LIMIT, self.client.report(marked(report))).await;
        match told {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the agent does not hear what became of the policies"),
            Err(_) => tracing::debug!("the agent does not hear in time what became of the policies"),
        }
    }
}

fn marked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SECURITY_HEADER, MetadataValue::from_static("true"));
    request
}

async fn next(stream: &mut Streaming<Delivery>) -> Result<Step, ReceiveError> {
    let message = stream.message().await.map_err(refusal)?.ok_or(ReceiveError::Ended)?;
    Ok(message.step.ok_or(DeliveryFlaw::Empty)?)
}

fn refusal(status: Status) -> ReceiveError {
    ReceiveError::Agent { code: status.code(), message: status.message().to_owned() }
}

/// A manifest beside the names of all its files.
const MAX_MESSAGE: usize = 2 * manifest::MAX_MANIFEST_BYTES;
/// As the message says.
const MAX_REASON: usize = 1024;
const REPORT_LIMIT: Duration = Duration::from_secs(5);
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// An agent that comes back is noticed within this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
