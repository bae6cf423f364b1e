//! `vouchsafe.v1.Registry`: an agent's entries and the trust bundle, pushed when they change.
//!
//! The stream subscribes before it first looks, so nothing falls between; many changes in one
//! moment make one message.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{Stream, stream};
use identity::{Peer, SpiffeId};
use proto::{
    spire::api::types::permission_denied_details::Reason,
    vouchsafe::v1::{AuthorizedEntries, WatchAuthorizedEntriesRequest, registry_server::Registry},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Core, calling_agent, gate::agent_message};
use crate::{
    access::{self, Origin, Refusal},
    authority::rotation::Signing,
    model::{Entry, EntryId},
    registry::{SharedRegistry, Subscription},
    wire::{bundle_to_wire, denied, entry_to_wire},
};

/// What one agent is told.
pub(crate) struct Pushes(Pin<Box<dyn Stream<Item = Result<AuthorizedEntries, Status>> + Send>>);

impl Stream for Pushes {
    type Item = Result<AuthorizedEntries, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

#[tonic::async_trait]
impl Registry for Core {
    type WatchAuthorizedEntriesStream = Pushes;

    async fn watch_authorized_entries(
        &self,
        request: Request<WatchAuthorizedEntriesRequest>,
    ) -> Result<Response<Self::WatchAuthorizedEntriesStream>, Status> {
        let (agent, serial) = calling_agent(&request)?;
        let ends = match request.extensions().get::<Origin>() {
            Some(Origin::Remote { peer: Some(peer), .. }) => Peer::not_after(peer),
            Some(Origin::Remote { peer: None, .. } | Origin::Local { .. }) | None => SystemTime::now(),
        };
        let watcher = Watcher {
            subscription: self.registry.subscribe(&agent),
            registry: self.registry.clone(),
            signing: self.signing.clone(),
            stop: self.stop.clone(),
            agent,
            serial,
            ends,
            told: Told::default(),
        };
        let stream = stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(news) => Some((Ok(news), Some(watcher))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Pushes(Box::pin(stream))))
    }
}

struct Watcher {
    subscription: Subscription,
    registry: SharedRegistry,
    signing: watch::Receiver<Arc<Signing>>,
    stop: CancellationToken,
    agent: SpiffeId,
    serial: String,
    /// When the certificate of the connection ends.
    ends: SystemTime,
    told: Told,
}

impl Watcher {
    async fn next(&mut self) -> Result<AuthorizedEntries, Status> {
        loop {
            self.check()?;
            let signing = self.signing.borrow_and_update().clone();
            let entries = self.registry.read(|registry| registry.authorised(&self.agent));
            if let Some(mut news) = self.told.news(entries, signing.bundle.sequence()) {
                if self.told.bundle_is_news {
                    news.bundle = Some(bundle_to_wire(&signing.bundle, None));
                }
                return Ok(news);
            }
            self.wait().await?;
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let left = self.ends.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::select! {
            () = self.subscription.changed() => {}
            changed = self.signing.changed() => changed.map_err(|_| stopping())?,
            () = self.stop.cancelled() => return Err(stopping()),
            () = tokio::time::sleep(left) => return Err(expired()),
        }
        tokio::time::sleep(GATHER).await;
        Ok(())
    }

    /// The gate looked once; a stream lasts.
    fn check(&self) -> Result<(), Status> {
        match access::agent(&self.agent, &self.serial, self.ends, &self.registry, SystemTime::now()) {
            Ok(_) => Ok(()),
            Err(Refusal::Agent(Reason::AgentExpired)) => Err(expired()),
            Err(Refusal::Agent(reason)) => Err(denied(reason, agent_message(reason))),
            Err(Refusal::Unknown | Refusal::NotAllowed) => Err(Status::permission_denied("agents only")),
        }
    }
}

fn stopping() -> Status {
    Status::unavailable("the CA is shutting down")
}

/// Not a denial: the agent may hold a newer certificate and only has to connect with it.
fn expired() -> Status {
    Status::unavailable("the certificate of this connection has expired: connect anew")
}

/// What the agent knows.
#[derive(Default)]
struct Told {
    entries: Option<BTreeMap<EntryId, Arc<Entry>>>,
    bundle: Option<u64>,
    bundle_is_news: bool,
}

impl Told {
    /// Returns what is new, if anything is, and takes it as told.
    fn news(
        &mut self,
        entries: BTreeMap<EntryId, Arc<Entry>>,
        bundle: Option<u64>,
    ) -> Option<AuthorizedEntries> {
        let empty = BTreeMap::new();
        let complete = self.entries.is_none();
        let known = self.entries.as_ref().unwrap_or(&empty);
        let differs = |entry: &&Arc<Entry>| {
            known.get(&entry.id).is_none_or(|old| !Arc::ptr_eq(old, entry) && old != *entry)
        };
        let changed: Vec<_> =
            entries.values().filter(differs).map(|entry| entry_to_wire(entry, None)).collect();
        let removed: Vec<_> =
            known.keys().filter(|id| !entries.contains_key(*id)).map(ToString::to_string).collect();
        self.bundle_is_news = complete || bundle != self.bundle;
        self.bundle = bundle;
        self.entries = Some(entries);
        let news = self.bundle_is_news || !changed.is_empty() || !removed.is_empty();
        news.then_some(AuthorizedEntries { complete, changed, removed, bundle: None })
    }
}

/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(10);
