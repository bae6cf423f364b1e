//! The synchroniser: the one task that talks to the CA and writes the state of the node.
//!
//! It lets the node in, keeps its own SVID fresh, takes entries and bundles, and has an SVID for every entry before
//! anybody asks. While the CA cannot be reached it changes nothing: what is held is served until it expires.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use identity::rotation::Backoff;
use identity::{CredentialsError, KeyError, PrivateKey, TrustBundle, TrustDomain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, AdmissionError, AdmitError};
use crate::config::{Bootstrap, CaAddress, Config, SecretSource};
use crate::health::{CaLink, Health, chain};
use crate::node::Node;
use crate::renewal::Refusals;
use crate::services::Followers;
use crate::state::{Phase, State};
use crate::store::{Found, Store, StoreError};
use crate::upstream::{CallError, Refusal};

mod apply;
mod issue;
mod persist;
mod session;

pub(crate) use persist::persist;

use session::Ended;

/// The shortest wait before the CA is tried again, doubled with each failure and jittered.
pub(crate) const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait before the CA is tried again.
pub(crate) const LAST_WAIT: Duration = Duration::from_secs(60);

/// Keeps the state of the node in step with the CA.
pub(crate) struct Synchroniser {
    config: Config,
    store: Arc<Store>,
    state: watch::Sender<Arc<State>>,
    sets: Arc<Followers>,
    health: Health,
    refusals: Refusals,
    admission: Option<Arc<Admission>>,
    federated_asked: BTreeSet<TrustDomain>,
    /// Since when nothing worked between this node and the CA.
    away_since: Option<Instant>,
}

impl Synchroniser {
    /// Creates the synchroniser, the only one that sends to `state`.
    pub(crate) fn new(
        config: Config,
        store: Arc<Store>,
        state: watch::Sender<Arc<State>>,
        sets: Arc<Followers>,
        health: Health,
    ) -> Self {
        Self {
            config,
            store,
            state,
            sets,
            health,
            refusals: Refusals::default(),
            admission: None,
            federated_asked: BTreeSet::new(),
            away_since: None,
        }
    }

    /// Works until `shutdown`, or until the node can do nothing any more.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), SyncError> {
        let ended = shutdown.run_until_cancelled(self.work()).await;
        self.modify(|state| state.phase = Phase::Stopping);
        ended.unwrap_or(Ok(()))
    }

    async fn work(&mut self) -> Result<(), SyncError> {
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        let mut node = self.load();
        self.restore(node.as_ref());
        loop {
            match self.step(&mut node, &mut backoff).await? {
                Next::AtOnce => backoff.reset(),
                Next::AfterWait => tokio::time::sleep(backoff.next(fraction())).await,
            }
        }
    }

    async fn step(&mut self, node: &mut Option<Node>, backoff: &mut Backoff) -> Result<Next, SyncError> {
        let credential = match node.as_ref() {
            Some(node) => node.credential(jitter(), SystemTime::now())?,
            None => None,
        };
        let (Some(attested), Some(credential)) = (node.as_mut(), credential) else {
            return self.let_in(node).await;
        };
        match self.session(attested, credential, backoff).await {
            Ended::Reconnect => Ok(Next::AtOnce),
            Ended::Failed(CallError::Refused(Refusal::Banned)) => Err(self.end_banned()),
            Ended::Failed(CallError::Refused(refusal)) => {
                tracing::error!(%refusal, "the CA refuses this node; attesting anew with a fresh token, if there is one");
                self.let_in(node).await
            }
            Ended::Failed(error) => {
                self.note_lost(&error);
                Ok(Next::AfterWait)
            }
            Ended::NotConnected(error) => {
                self.note_lost(&error);
                Ok(Next::AfterWait)
            }
        }
    }

    /// Attests the node. A failure that only a person can mend ends an agent that serves nothing, and is told of by
    /// one that serves what it holds.
    async fn let_in(&mut self, node: &mut Option<Node>) -> Result<Next, SyncError> {
        let error = match self.admit(node).await {
            Ok(()) => return Ok(Next::AtOnce),
            Err(error) => error,
        };
        if error.is_final() {
            if self.state.borrow().phase == Phase::Starting {
                return Err(SyncError::NotLetIn { source: error });
            }
            self.away_since.get_or_insert_with(Instant::now);
            tracing::error!(error = %chain(&error), cure = CURE, "this node cannot be attested");
            self.health.set_link(CaLink::Refused { cure: format!("{}; {CURE}", chain(&error)) });
        } else {
            self.note_lost(&error);
        }
        Ok(Next::AfterWait)
    }

    async fn admit(&mut self, node: &mut Option<Node>) -> Result<(), LetInError> {
        let admission = self.admission().await?;
        let token_hash = admission.token_hash();
        let key = match node.as_ref().filter(|node| node.token_hash == token_hash) {
            Some(node) if node.svid.is_some() => return Err(LetInError::SpentToken),
            // The answer to this token was lost: only the same key may spend it again.
            Some(node) => node.key.clone(),
            None => Arc::new(PrivateKey::generate()?),
        };
        let upstream = admission.connect(&self.config.trust_domain).await?;
        let mut admitted =
            Node { ca: admission.ca.clone(), key: key.clone(), svid: None, token_hash, bundle: None };
        self.keep(&admitted).await?;
        *node = Some(admitted.clone());
        let svid = upstream.attest(admission.token.expose(), &key).await.map_err(AdmitError::from)?;
        let received = upstream.bundle(&self.config.trust_domain).await.map_err(AdmitError::from)?;
        tracing::info!(agent = %svid.id(), ca = %admitted.ca, "node attested");
        admitted.svid = Some(Arc::new(svid));
        admitted.bundle = Some(Arc::new(received.bundle));
        self.keep(&admitted).await?;
        self.begin_anew(&admitted);
        self.sets.begin_anew().await;
        *node = Some(admitted);
        Ok(())
    }

    /// Takes the bundle that came with a fresh token, whatever its number: the administrator vouches for this CA, which may
    /// have been set back to a backup.
    fn begin_anew(&self, node: &Node) {
        let Some(bundle) = &node.bundle else { return };
        self.modify(|state| apply::replace_bundle(state, bundle.clone(), &BTreeSet::new()));
    }

    /// Reads the token again, for it may be a fresh one; only standard input cannot be read twice.
    async fn admission(&mut self) -> Result<Arc<Admission>, LetInError> {
        if let (Bootstrap::JoinString(SecretSource::StandardInput), Some(admission))
        | (Bootstrap::Token { token: SecretSource::StandardInput, .. }, Some(admission)) =
            (&self.config.bootstrap, &self.admission)
        {
            return Ok(admission.clone());
        }
        let config = self.config.clone();
        let read = tokio::task::spawn_blocking(move || Admission::read(&config)).await;
        let admission = Arc::new(read.map_err(|_| LetInError::Stopped)??);
        self.admission = Some(admission.clone());
        Ok(admission)
    }

    fn load(&self) -> Option<Node> {
        let node = match self.store.load_node() {
            Found::Nothing => return None,
            Found::Unusable(error) => Err(error),
            Found::Record(record) => record.node(&self.config.trust_domain).map_err(StoreError::from),
        };
        node.inspect_err(|error| {
            tracing::warn!(error = %chain(error), "the node's stored identity cannot be used; starting without it");
        })
        .ok()
    }

    /// Serves at once what was served before a restart, and takes the newer of both stored bundles.
    fn restore(&self, node: Option<&Node>) {
        let restored = match self.store.load_cache() {
            Found::Nothing => return,
            Found::Unusable(error) => Err(error),
            Found::Record(record) => record
                .state(self.config.trust_domain.clone(), jitter(), SystemTime::now())
                .map_err(StoreError::from),
        };
        let mut restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the stored SVIDs cannot be used; starting without them");
                return;
            }
        };
        if let Some(bundle) = node.and_then(|node| node.bundle.as_ref())
            && restored
                .bundles
                .get(bundle.trust_domain().as_str())
                .is_none_or(|held| apply::is_successor(bundle, held))
        {
            restored.bundles.insert(bundle.clone());
        }
        if restored.bundles.get(self.config.trust_domain.as_str()).is_some() && restored.agent_id.is_some() {
            tracing::info!(
                svids = restored.svids.len(),
                entries = restored.entries.len(),
                "serving the stored SVIDs"
            );
            restored.phase = Phase::Serving;
            self.publish(restored);
        }
    }

    fn ca<'a>(&'a self, node: &'a Node) -> &'a str {
        match &self.config.ca {
            CaAddress::At(address) => address,
            CaAddress::FromJoinString => &node.ca,
        }
    }

    async fn keep(&self, node: &Node) -> Result<(), StoreError> {
        let (store, record) = (self.store.clone(), crate::store::NodeRecord::of(node));
        let kept = tokio::task::spawn_blocking(move || store.save_node(&record)).await;
        kept.unwrap_or(Err(StoreError::NoKey))
    }

    fn end_banned(&mut self) -> SyncError {
        let empty = State::empty(self.config.trust_domain.clone());
        self.publish(State { phase: Phase::Stopping, ..empty });
        self.sets.forget();
        if let Err(error) = self.store.wipe() {
            tracing::error!(%error, "cannot remove the stored identities of a banned node");
        }
        SyncError::Banned
    }

    fn note_lost(&mut self, error: &(dyn std::error::Error + 'static)) {
        let reason = chain(error);
        self.away_since.get_or_insert_with(Instant::now);
        self.health.figures.ca_failures.inc();
        tracing::warn!(error = %reason, "no connection to the CA; serving what is held until it expires");
        self.health.set_link(CaLink::Lost { reason });
    }

    /// Says that an outage is over, once.
    fn note_back(&mut self) {
        if let Some(since) = self.away_since.take() {
            let away = since.elapsed().as_secs();
            tracing::info!(away_seconds = away, "connected to the CA again");
        }
    }

    fn publish(&self, state: State) {
        let figures = &self.health.figures;
        figures.entries.set(count(state.entries.len()));
        figures.svids.set(count(state.svids.len()));
        if let Some(sequence) =
            state.bundles.get(state.trust_domain.as_str()).and_then(|b| TrustBundle::sequence(b))
        {
            figures.bundle_sequence.set(i64::try_from(sequence).unwrap_or(i64::MAX));
        }
        self.state.send_replace(Arc::new(state));
    }

    fn modify(&self, change: impl FnOnce(&mut State)) {
        let mut state = State::clone(&self.state.borrow());
        change(&mut state);
        self.publish(state);
    }
}

enum Next {
    AtOnce,
    AfterWait,
}

fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

/// A random number from 0 to 1. Without random numbers all waits are the longest, which harms nobody.
pub(crate) fn fraction() -> f64 {
    identity::crypto::random_fraction().unwrap_or(1.0)
}

/// A random number from -1 to 1.
fn jitter() -> f64 {
    fraction().mul_add(2.0, -1.0)
}

const CURE: &str =
    "make a new token on the CA with \"vouchsafe ca token create\" and put it in place of the old one";

/// Why the agent ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The CA banned the node; everything it held was removed.
    #[error(
        "the CA banned this node, and its SVIDs were removed; to let it in again, remove it on the CA with \
         \"vouchsafe ca agent evict ID\" and make a new token with \"vouchsafe ca token create\""
    )]
    Banned,
    /// The node cannot be attested, and has nothing to serve.
    #[error("this node cannot be attested; {CURE}")]
    NotLetIn {
        /// Why.
        source: LetInError,
    },
    /// The node's own identity cannot be used.
    #[error("the node's own identity cannot be used")]
    Credentials(#[from] CredentialsError),
}

/// Why the node was not let in.
#[derive(Debug, thiserror::Error)]
pub enum LetInError {
    /// There is nothing to be let in with.
    #[error("nothing to be let in with")]
    Admission(#[from] AdmissionError),
    /// The CA did not let it in.
    #[error("not let in")]
    Admit(#[from] AdmitError),
    /// The token is the one that let this node in before.
    #[error("the join token was spent by this node before, and is of no use again")]
    SpentToken,
    /// There is no key.
    #[error("cannot make a key")]
    Key(#[from] KeyError),
    /// The key cannot be kept, so that the token was not sent.
    #[error("cannot keep the node's key")]
    Store(#[from] StoreError),
    /// The agent is going down.
    #[error("the agent is going down")]
    Stopped,
}

impl LetInError {
    fn is_final(&self) -> bool {
        match self {
            Self::Admission(_) | Self::SpentToken | Self::Key(_) | Self::Store(_) => true,
            Self::Admit(error) => error.is_final(),
            Self::Stopped => false,
        }
    }
}
