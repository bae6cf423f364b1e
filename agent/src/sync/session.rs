//! One connection to the CA: taking changes, asking for SVIDs, renewing the node's own.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use identity::rotation::Backoff;
use identity::tls::TlsError;
use identity::{PrivateKey, TrustBundle, X509Svid};
use proto::vouchsafe::v1::AuthorizedEntries;
use tokio::time::Interval;
use tonic::Streaming;

use super::Synchroniser;
use crate::health::CaLink;
use crate::node::{Credential, Node};
use crate::state::Phase;
use crate::upstream::{CALL_TIMEOUT, CallError, ConnectError, Known, Trust, Upstream};

/// How often a CA that does not push is asked, as spire-agent does.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Between which times bundles are fetched from a CA that pushes, whatever its refresh hint says. The CA pushes its
/// own bundle; fetching it too finds out that a silent connection is dead.
pub(super) const REFRESH_RANGE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How long to wait before a failed renewal of the node's own SVID is tried again.
pub(super) const RENEW_RETRY: Duration = Duration::from_secs(30);

/// The longest sleep. The wall clock may be set, which timers do not notice.
pub(super) const MAX_SLEEP: Duration = Duration::from_secs(300);

/// How a session ended.
pub(super) enum Ended {
    /// What the node proves itself with, or recognises the CA by, changed.
    Reconnect,
    /// A call failed.
    Failed(CallError),
    /// There was no connection.
    NotConnected(NotConnected),
}

/// Why there was no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotConnected {
    #[error("cannot connect to the CA")]
    Connect(#[from] ConnectError),
    #[error("cannot configure TLS")]
    Tls(#[from] TlsError),
}

/// How changes come.
enum Feed {
    Push(Box<Streaming<AuthorizedEntries>>),
    Poll(Interval),
}

/// What woke the session.
enum Event {
    Pushed(AuthorizedEntries),
    PollDue,
    Timer,
}

impl Synchroniser {
    pub(super) async fn session(
        &mut self,
        node: &mut Node,
        mut credential: Credential,
        backoff: &mut Backoff,
    ) -> Ended {
        let upstream = match self.connect(node, &credential).await {
            Ok(upstream) => upstream,
            Err(error) => return Ended::NotConnected(error),
        };
        let sets = self.sets.clone();
        let ended = tokio::select! {
            ended = self.follow(node, &mut credential, &upstream, backoff) => ended,
            never = sets.follow(&upstream) => match never {},
        };
        match ended {
            Ok(()) => Ended::Reconnect,
            Err(error) => Ended::Failed(error),
        }
    }

    async fn connect(&self, node: &Node, credential: &Credential) -> Result<Upstream, NotConnected> {
        let trust = Trust::mutual(&credential.credentials)?;
        Ok(Upstream::connect(self.ca(node), trust).await?)
    }

    /// Follows the CA until the node has to reconnect.
    async fn follow(
        &mut self,
        node: &mut Node,
        credential: &mut Credential,
        upstream: &Upstream,
        backoff: &mut Backoff,
    ) -> Result<(), CallError> {
        let mut feed = Feed::open(upstream).await?;
        self.own(credential);
        let mut refresh_at = SystemTime::now();
        let mut synced = false;
        loop {
            let next_issue = if synced { self.issue(upstream).await? } else { None };
            if synced && next_issue.is_none_or(|next| next > SystemTime::now()) {
                self.note_synced(&feed, backoff);
            }
            let wake = if synced {
                [next_issue, Some(refresh_at), Some(credential.renew_at)].into_iter().flatten().min()
            } else {
                Some(SystemTime::now() + CALL_TIMEOUT)
            };
            let event = feed.next(wake).await?;
            let changed = match event {
                Event::Pushed(update) => {
                    synced = true;
                    self.apply(update, node)
                }
                Event::PollDue => {
                    let known = self.state.borrow().clone();
                    let mut update = upstream.entries(Known(&known.entries)).await?;
                    let received = upstream.bundle(&self.config.trust_domain).await?;
                    synced = true;
                    let changed = self.take_bundle(received, node);
                    update.bundle = None;
                    self.apply(update, node) | changed
                }
                Event::Timer if !synced => return Err(CallError::Timeout),
                Event::Timer => false,
            };
            self.health.figures.heard(SystemTime::now());
            if changed {
                self.keep_bundle(node).await;
                return Ok(());
            }
            if credential.renew_at <= SystemTime::now() && self.renew(node, credential, upstream).await? {
                return Ok(());
            }
            if refresh_at <= SystemTime::now() || self.lacks_federated() {
                refresh_at = SystemTime::now() + self.refresh(upstream, &feed, node).await?;
            }
        }
    }

    fn own(&self, credential: &Credential) {
        let svid = credential.credentials.svid();
        self.health.figures.own_expiry.set(crate::wire::unix_seconds(svid.not_after()));
        if self.state.borrow().agent_id.as_ref() != Some(svid.id()) {
            self.modify(|state| state.agent_id = Some(svid.id().clone()));
        }
        for (_, bundle) in credential.credentials.bundles().iter() {
            if self.state.borrow().bundles.get(bundle.trust_domain().as_str()).is_none() {
                self.modify(|state| state.bundles.insert(bundle.clone()));
            }
        }
    }

    fn note_synced(&mut self, feed: &Feed, backoff: &mut Backoff) {
        backoff.reset();
        self.note_back();
        self.health.set_link(match feed {
            Feed::Push(_) => CaLink::Pushing,
            Feed::Poll(_) => CaLink::Polling,
        });
        if self.state.borrow().phase == Phase::Starting {
            self.modify(|state| state.phase = Phase::Serving);
        }
    }

    /// Renews the node's own SVID. A failure other than a refusal is tried again later; the old SVID is good until it
    /// expires, and the CA takes it until the new one is used.
    async fn renew(
        &self,
        node: &mut Node,
        credential: &mut Credential,
        upstream: &Upstream,
    ) -> Result<bool, CallError> {
        let key = Arc::new(PrivateKey::generate()?);
        let svid = match upstream.renew(&key).await {
            Ok(svid) => svid,
            Err(error @ CallError::Refused(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(error = %crate::health::chain(&error), "cannot renew the node's SVID; trying again");
                credential.renew_at = SystemTime::now() + RENEW_RETRY;
                return Ok(false);
            }
        };
        let renewed = Node { key, svid: Some(Arc::new(svid)), ..node.clone() };
        if let Err(error) = self.keep(&renewed).await {
            tracing::error!(error = %crate::health::chain(&error), "cannot keep the node's new SVID on disk");
            // The CA forgets the old SVID once the new one is used; with that one lost in a restart the node would be
            // shut out. What cannot be kept is used only when the old one is about to end anyway.
            if let Some(again) = keep_again_at(credential.credentials.svid(), SystemTime::now()) {
                credential.renew_at = again;
                return Ok(false);
            }
        }
        *node = renewed;
        tracing::info!("node's SVID renewed");
        Ok(true)
    }

    async fn keep_bundle(&self, node: &Node) {
        if let Err(error) = self.keep(node).await {
            tracing::error!(error = %crate::health::chain(&error), "cannot keep the trust bundle on disk");
        }
    }

    /// Fetches bundles, and returns after how long to do so again.
    async fn refresh(
        &mut self,
        upstream: &Upstream,
        feed: &Feed,
        node: &mut Node,
    ) -> Result<Duration, CallError> {
        if let Feed::Push(_) = feed {
            let received = upstream.bundle(&self.config.trust_domain).await?;
            if self.take_bundle(received, node) {
                self.keep_bundle(node).await;
            }
        }
        self.refresh_federated(upstream).await;
        let hint = node.bundle.as_ref().and_then(|bundle| TrustBundle::refresh_hint(bundle));
        Ok(hint.unwrap_or(identity::bundle::DEFAULT_REFRESH_HINT).clamp(REFRESH_RANGE.0, REFRESH_RANGE.1))
    }
}

/// Returns when to try once more to renew `svid` and keep the new one; `None` in the last quarter of its life.
fn keep_again_at(svid: &X509Svid, now: SystemTime) -> Option<SystemTime> {
    let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
    let left = svid.not_after().duration_since(now).unwrap_or_default();
    (left > lifetime / 4).then(|| now + RENEW_RETRY.min(left / 4))
}

impl Feed {
    /// Asks for the push stream, and polls where there is none.
    async fn open(upstream: &Upstream) -> Result<Self, CallError> {
        match upstream.watch().await {
            Ok(stream) => Ok(Self::Push(Box::new(stream))),
            Err(CallError::Unimplemented) => {
                let mut interval = tokio::time::interval(POLL_INTERVAL);
                interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                Ok(Self::Poll(interval))
            }
            Err(error) => Err(error),
        }
    }

    /// Waits for the next change, or until `wake`. Changes that are there already come as one.
    async fn next(&mut self, wake: Option<SystemTime>) -> Result<Event, CallError> {
        let pause = wake.map_or(MAX_SLEEP, |wake| wake.duration_since(SystemTime::now()).unwrap_or_default());
        tokio::select! {
            biased;
            event = self.ready() => event,
            () = tokio::time::sleep(pause.min(MAX_SLEEP)) => Ok(Event::Timer),
        }
    }

    async fn ready(&mut self) -> Result<Event, CallError> {
        let stream = match self {
            Self::Poll(interval) => {
                interval.tick().await;
                return Ok(Event::PollDue);
            }
            Self::Push(stream) => stream,
        };
        let mut update = pushed(stream.message().await?)?;
        for _ in 0..MAX_COALESCED {
            match stream.message().now_or_never() {
                Some(more) => merge(&mut update, pushed(more?)?),
                None => break,
            }
        }
        Ok(Event::Pushed(update))
    }
}

fn pushed(update: Option<AuthorizedEntries>) -> Result<AuthorizedEntries, CallError> {
    update.ok_or(CallError::Unexpected { what: "the end of the stream of changes" })
}

/// Adds `later` to `update`, so that applying the sum is applying both.
fn merge(update: &mut AuthorizedEntries, later: AuthorizedEntries) {
    let bundle = later.bundle.clone().or_else(|| update.bundle.take());
    if later.complete {
        *update = later;
    } else {
        update.changed.retain(|entry| !later.removed.contains(&entry.id));
        let changed: std::collections::BTreeSet<&str> =
            later.changed.iter().map(|entry| entry.id.as_str()).collect();
        update.changed.retain(|entry| !changed.contains(entry.id.as_str()));
        update.removed.retain(|id| !changed.contains(id.as_str()));
        update.removed.extend(later.removed);
        update.changed.extend(later.changed);
    }
    update.bundle = bundle;
}

/// How many waiting changes are taken as one.
const MAX_COALESCED: usize = 256;

#[cfg(test)]
mod tests;
