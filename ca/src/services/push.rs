//! `vouchsafe.v1.Registry`: an agent's entries and the trust bundle, pushed when they change.
//!
//! The stream subscribes before it first looks, so nothing falls between; many changes in one
//! moment make one message.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use proto::vouchsafe::v1::{AuthorizedEntries, WatchAuthorizedEntriesRequest, registry_server::Registry};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    Core,
    lasting::{GATHER, Lasting, stopping},
};
use crate::{
    authority::rotation::Signing,
    model::{Entry, EntryId},
    registry::SharedRegistry,
    wire::{bundle_to_wire, entry_to_wire},
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
        let watcher = Watcher {
            lasting: Lasting::of(self, &request)?,
            registry: self.registry.clone(),
            signing: self.signing.clone(),
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
    lasting: Lasting,
    registry: SharedRegistry,
    signing: watch::Receiver<Arc<Signing>>,
    told: Told,
}

impl Watcher {
    async fn next(&mut self) -> Result<AuthorizedEntries, Status> {
        loop {
            self.lasting.check()?;
            let signing = self.signing.borrow_and_update().clone();
            let entries = self.registry.read(|registry| registry.authorised(&self.lasting.agent));
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
        tokio::select! {
            changed = self.lasting.changed() => changed?,
            changed = self.signing.changed() => changed.map_err(|_| stopping())?,
        }
        tokio::time::sleep(GATHER).await;
        Ok(())
    }
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
