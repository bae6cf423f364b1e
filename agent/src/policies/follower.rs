//! Follows the CA's sets of one kind for as long as there is a connection, and tells it what became of them.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::manifest::Kind;
use identity::rotation::Backoff;
use identity::{Anchors, TrustDomain};
use proto::vouchsafe::v1::PolicyUpdate;
use proto::vouchsafe::v1::policy_update::Step;
use tokio::sync::watch;

use super::{Assembly, HeldSet, Known, Policies, PoliciesRecord, Refused, Sidecars, TakeError};
use crate::health::{Figures, chain};
use crate::state::State;
use crate::store::{Found, Store, StoreError};
use crate::sync::{FIRST_WAIT, LAST_WAIT, fraction};
use crate::upstream::{CallError, Upstream};
use crate::wire::{policies, unix_seconds};

/// How long reports are gathered before the CA is told.
const REPORT_PAUSE: Duration = Duration::from_millis(200);

/// The one that knows of central policies, or of central services.
pub(crate) struct Follower {
    kind: Kind,
    trust_domain: TrustDomain,
    store: Arc<Store>,
    state: watch::Receiver<Arc<State>>,
    known: watch::Sender<Arc<Known>>,
    sidecars: Sidecars,
    figures: Figures,
}

/// Why the CA is not followed for a while.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("cannot get a set from the CA")]
    Call(#[from] CallError),
    #[error("the set from the CA is refused")]
    Take(#[from] TakeError),
}

impl Follower {
    /// Follows policies.
    #[cfg(test)]
    pub(crate) fn open(
        trust_domain: TrustDomain,
        store: Arc<Store>,
        state: watch::Receiver<Arc<State>>,
        figures: Figures,
    ) -> Self {
        Self::of(Kind::Policies, trust_domain, store, state, figures)
    }

    /// Begins with what was kept on disk, which is handed out at once.
    pub(crate) fn of(
        kind: Kind,
        trust_domain: TrustDomain,
        store: Arc<Store>,
        state: watch::Receiver<Arc<State>>,
        figures: Figures,
    ) -> Self {
        let known = match store.load_set(kind) {
            Found::Nothing => Ok(Known::default()),
            Found::Unusable(error) => Err(error),
            Found::Record(record) => record.known(kind).map_err(StoreError::from),
        };
        let known = known.unwrap_or_else(|error| {
            tracing::error!(
                ?kind,
                error = %chain(&error),
                "the stored set cannot be used; an older one would be taken from the CA"
            );
            Known::default()
        });
        if let Some(set) = known.policies.set() {
            tracing::info!(?kind, number = set.manifest.number(), "handing out the stored set");
        }
        let known = watch::Sender::new(Arc::new(known));
        let follower =
            Self { kind, trust_domain, store, state, known, sidecars: Sidecars::default(), figures };
        follower.count();
        follower
    }

    /// What is known, as it changes.
    pub(crate) fn known(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    /// The sidecars of the node.
    pub(crate) fn sidecars(&self) -> &Sidecars {
        &self.sidecars
    }

    /// What the sets consist of.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Forgets how new a set has to be: an administrator let this node in afresh, at a CA that may have been set back.
    pub(crate) async fn begin_anew(&self) {
        self.change(|known| known.seen = None).await;
    }

    /// Forgets everything: the node was banned, and what was on disk is removed by whoever found out.
    pub(crate) fn forget(&self) {
        self.known.send_replace(Arc::new(Known::default()));
    }

    /// Follows the CA at the other end of `upstream`, and never returns. A CA without such a service is not asked again
    /// on this connection.
    pub(crate) async fn follow(&self, upstream: &Upstream) -> Infallible {
        tokio::select! {
            never = self.take_all(upstream) => never,
            never = self.tell_all(upstream) => never,
        }
    }

    async fn take_all(&self, upstream: &Upstream) -> Infallible {
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        loop {
            match self.take_from(upstream, &mut backoff).await {
                Ok(never) => match never {},
                Err(FollowError::Call(CallError::Unimplemented)) => {
                    self.not_offered().await;
                    return pending().await;
                }
                Err(FollowError::Call(error)) => {
                    tracing::debug!(kind = ?self.kind, error = %chain(&error), "the stream of sets ended");
                }
                Err(FollowError::Take(error)) => self.refuse(&error),
            }
            tokio::time::sleep(backoff.next(fraction())).await;
        }
    }

    async fn take_from(&self, upstream: &Upstream, backoff: &mut Backoff) -> Result<Infallible, FollowError> {
        let held = self.known.borrow().policies.set().map(policies::hashes).unwrap_or_default();
        let mut stream = upstream.watch_sets(self.kind, held).await?;
        let mut assembly = Assembly::new(self.kind, &self.trust_domain);
        loop {
            let update = stream.message().await.map_err(CallError::from)?;
            let Some(PolicyUpdate { step }) = update else {
                return Err(CallError::Unexpected { what: "the end of the stream of sets" }.into());
            };
            if self.take(&mut assembly, step).await? {
                backoff.reset();
            }
        }
    }

    /// Takes one message. Tells whether it settled what is handed out.
    async fn take(&self, assembly: &mut Assembly<'_>, step: Option<Step>) -> Result<bool, FollowError> {
        let (known, now) = (self.known.borrow().clone(), SystemTime::now());
        match step.ok_or(CallError::Unexpected { what: "an empty message" })? {
            Step::None(_) => {
                self.none("the CA hands out no sets of this kind").await;
                return Ok(true);
            }
            Step::Manifest(signed) => {
                let anchors = Anchors::new(&self.state.borrow().bundles);
                assembly.begin(policies::signed(signed), &anchors, &known, now)?;
            }
            Step::File(file) => assembly.file(file.name, file.content)?,
            Step::End(end) => {
                let begun = assembly.end(end.number)?;
                let finished = tokio::task::spawn_blocking(move || begun.finish(&known, now)).await;
                let cut = |_| CallError::Unexpected { what: "a set while the agent goes down" };
                self.hold(finished.map_err(cut)??).await;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Hands out `set`. What is handed out already, with the very same proof, is nobody's news.
    pub(crate) async fn hold(&self, set: HeldSet) {
        let known = self.known.borrow().clone();
        let held = known.policies.set();
        if known.refused.is_none() && held.is_some_and(|held| held.signed == set.signed) {
            return;
        }
        let (number, generation) = (set.manifest.number(), set.manifest.generation());
        if held.is_some_and(|held| held.manifest.seen() == set.manifest.seen()) {
            tracing::debug!(kind = ?self.kind, number, generation, "set signed again");
        } else {
            tracing::info!(kind = ?self.kind, number, generation, files = set.files.len(), "set taken from the CA");
        }
        self.change(|known| {
            known.seen = Some(set.manifest.seen());
            known.policies = Policies::Set(Arc::new(set));
            known.refused = None;
        })
        .await;
    }

    /// A CA that knows nothing of such sets takes away none that is held: only our own CA says in so many words that
    /// there are none.
    async fn not_offered(&self) {
        let held = self.known.borrow().policies.set().is_some();
        if held {
            tracing::warn!(kind = ?self.kind, "the CA does not hand out such sets; the one that is held stays");
        } else {
            self.none("the CA does not know of sets of this kind").await;
        }
    }

    async fn none(&self, sentence: &'static str) {
        if !matches!(self.known.borrow().policies, Policies::None) {
            tracing::info!(kind = ?self.kind, "{sentence}");
        }
        self.change(|known| (known.policies, known.refused) = (Policies::None, None)).await;
    }

    fn refuse(&self, error: &TakeError) {
        let reason = chain(error);
        self.figures.of_sets(self.kind).refused.inc();
        let known = self.known.borrow().clone();
        if known.refused.as_ref().is_some_and(|refused| refused.reason == reason) {
            return;
        }
        tracing::error!(kind = ?self.kind, error = %reason, "a set from the CA is refused; what is held stays");
        let offered = error.offered().cloned();
        let refused = Some(Refused { offered, reason, since: unix_seconds(SystemTime::now()) });
        self.known.send_replace(Arc::new(Known { refused, ..Known::clone(&known) }));
    }

    /// Keeps the change on disk, then shows it: what sidecars saw must not be forgotten in a restart.
    async fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = Known::clone(&self.known.borrow());
        change(&mut known);
        let known = Arc::new(known);
        let (kind, store, record) = (self.kind, self.store.clone(), PoliciesRecord::of(&known));
        let kept = tokio::task::spawn_blocking(move || store.save_set(kind, &record)).await;
        if let Ok(Err(error)) = kept {
            tracing::error!(?kind, error = %chain(&error), "cannot keep the set on disk; after a restart an older one would be taken");
        }
        self.known.send_replace(known);
        self.count();
    }

    fn count(&self) {
        let number = self.known.borrow().policies.set().map_or(0, |set| set.manifest.number());
        self.figures.of_sets(self.kind).number.set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    async fn tell_all(&self, upstream: &Upstream) -> Infallible {
        let (mut known, mut sidecars) = (self.known.subscribe(), self.sidecars.subscribe());
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        loop {
            let report = policies::report(&known.borrow_and_update(), &sidecars.borrow_and_update());
            match upstream.report_sets(self.kind, report).await {
                Ok(()) => backoff.reset(),
                Err(CallError::Unimplemented) => return pending().await,
                Err(error) => {
                    tracing::debug!(kind = ?self.kind, error = %chain(&error), "the CA was not told which sets run here");
                    tokio::time::sleep(backoff.next(fraction())).await;
                    continue;
                }
            }
            tokio::select! {
                changed = known.changed() => if changed.is_err() { return pending().await },
                changed = sidecars.changed() => if changed.is_err() { return pending().await },
            }
            tokio::time::sleep(REPORT_PAUSE).await;
        }
    }
}
