//! One stream of the Workload API: waits for what is news to its process, and says when there is nothing more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::attested::{Attested, Open, check_phase, no_identity, starting, stopping};
use crate::state::State;
use crate::view::{self, Verdict, View};

/// How long a process with identities waits for one more that is being issued, so that it gets them together.
pub(super) const PARTIAL_PATIENCE: Duration = Duration::from_secs(1);

/// How long a process waits for its first SVID before it is told to come again.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The longest sleep. The wall clock may be set, which timers do not notice.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(300);

/// What a stream is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// SVIDs with bundles.
    Svids,
    /// Bundles alone.
    Bundles,
}

/// One stream.
pub(super) struct Subscription {
    state: watch::Receiver<Arc<State>>,
    attested: Attested,
    subject: Subject,
    _open: Open,
    sent: Option<View>,
    pending_since: Option<Instant>,
}

/// What to do next.
enum Step {
    Send(View),
    /// Until the state changes, or at most this long.
    Wait(Duration),
}

impl Subscription {
    pub(super) fn new(
        state: watch::Receiver<Arc<State>>,
        attested: Attested,
        subject: Subject,
        open: Open,
    ) -> Self {
        Self { state, attested, subject, _open: open, sent: None, pending_since: None }
    }

    /// Attests the caller for the first time, and refuses one that nothing is to be had for.
    pub(super) async fn open(&mut self) -> Result<(), Status> {
        let state = self.state.borrow_and_update().clone();
        check_phase(&state)?;
        self.attested.attest(&state).await?;
        let result = match view::decide(&state, self.attested.seen(), SystemTime::now()) {
            Verdict::NotReady(_) => "failed",
            Verdict::NoIdentity => "no_identity",
            Verdict::Granted(_) => "granted",
        };
        self.attested.figures().attested(result);
        tracing::debug!(pid = self.attested.pid(), result, "workload attested");
        self.state.mark_changed();
        Ok(())
    }

    /// Waits for the next message, or for the reason why there is none.
    pub(super) async fn next(&mut self) -> Result<View, Status> {
        loop {
            let state = self.state.borrow_and_update().clone();
            match self.step(&state).await? {
                Step::Send(view) => {
                    self.sent = Some(view.clone());
                    return Ok(view);
                }
                Step::Wait(pause) => tokio::select! {
                    changed = self.state.changed() => changed.map_err(|_| stopping())?,
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
    }

    async fn step(&mut self, state: &State) -> Result<Step, Status> {
        check_phase(state)?;
        let now = SystemTime::now();
        if !self.has_news(state, now) {
            return Ok(Step::Wait(self.pause(self.sent.as_ref(), now)));
        }
        self.attested.attest(state).await?;
        match view::decide(state, self.attested.seen(), now) {
            Verdict::NotReady(_) => Err(starting()),
            Verdict::NoIdentity => Err(no_identity()),
            Verdict::Granted(view) => self.offer(view, now),
        }
    }

    /// Tells whether the process has to be looked at again: what is known of it may give it something else.
    fn has_news(&self, state: &State, now: SystemTime) -> bool {
        let Some(sent) = &self.sent else { return true };
        if !self.attested.covers(state) || self.pending_since.is_some() {
            return true;
        }
        match view::decide(state, self.attested.seen(), now) {
            Verdict::Granted(view) => view.pending > 0 || !self.is_old_news(&view, sent),
            Verdict::NotReady(_) | Verdict::NoIdentity => true,
        }
    }

    fn is_old_news(&self, view: &View, sent: &View) -> bool {
        match self.subject {
            Subject::Svids => view.says_the_same_as(sent),
            Subject::Bundles => view.has_same_bundles(sent),
        }
    }

    fn offer(&mut self, view: View, now: SystemTime) -> Result<Step, Status> {
        let waited = match (self.subject, view.pending) {
            (Subject::Bundles, _) | (Subject::Svids, 0) => {
                self.pending_since = None;
                None
            }
            (Subject::Svids, _) => Some(self.pending_since.get_or_insert_with(Instant::now).elapsed()),
        };
        if let Some(waited) = waited {
            let patience = if view.identities.is_empty() { PATIENCE } else { PARTIAL_PATIENCE };
            if let Some(rest) = patience.checked_sub(waited).filter(|rest| !rest.is_zero()) {
                return Ok(Step::Wait(rest));
            }
            if view.identities.is_empty() {
                return Err(Status::unavailable(
                    "the SVID is not issued: the agent cannot reach its CA; try again",
                ));
            }
        }
        if self.sent.as_ref().is_some_and(|sent| self.is_old_news(&view, sent)) {
            return Ok(Step::Wait(self.pause(Some(&view), now)));
        }
        Ok(Step::Send(view))
    }

    /// Returns how long nothing changes by itself.
    fn pause(&self, view: Option<&View>, now: SystemTime) -> Duration {
        let expires = view.and_then(|view| view.expires);
        // An expiry that has passed was looked at; only a change brings something else.
        let left =
            expires.and_then(|expires| expires.duration_since(now).ok()).filter(|left| !left.is_zero());
        left.unwrap_or(MAX_SLEEP).min(MAX_SLEEP)
    }
}
