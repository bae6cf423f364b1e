//! The catalogue of services: what operators applied, kept in the database, and handed out as a signed set of its own.
//!
//! One keeper changes it. A change is made whole, in one transaction, or not at all; what is acknowledged has its number and is
//! shown to agents before the operator hears of it.

use std::{sync::Arc, time::SystemTime};

use identity::{crypto::Sha256, manifest::Seen};
use policy::{
    service::{Entry, EntryKind},
    strict::{Problems, Source},
};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    authority::rotation::Signing,
    health::{Health, Part},
    model::unix_seconds,
    policies::{Press, Published, SignSetError, Signer},
    store::{CatalogueChange, CatalogueRecord, PolicySetRecord, ServiceRecord, Store, StoreError},
    watching::POLL,
};

mod plan;

pub use plan::{Change, Conflict, Outcome, Prune, Wish};
pub(crate) use plan::{Plan, Stored, plan};

/// The catalogue. Clones share it.
#[derive(Clone)]
pub(crate) struct Catalogue(Arc<Mutex<Keeper>>);

struct Keeper {
    press: Press,
    store: Store,
    signing: watch::Receiver<Arc<Signing>>,
    head: Option<(Seen, i64)>,
    entries: Vec<Stored>,
    /// Why what is stored cannot be read. Nothing is handed out then, which takes nothing away from agents, and nothing is changed:
    /// identities are worth more than services, so the CA runs all the same.
    broken: Option<String>,
}

/// The catalogue at one moment.
pub(crate) struct Listing {
    /// The set in force; none where nothing was ever applied.
    pub(crate) set: Option<Seen>,
    /// Every entry, by kind and name.
    pub(crate) entries: Vec<Stored>,
}

/// What became of a wish.
pub(crate) struct Applied {
    /// The set in force after it.
    pub(crate) set: Option<Seen>,
    /// What became of each entry.
    pub(crate) outcomes: Vec<Outcome>,
    /// Why nothing was changed.
    pub(crate) conflicts: Vec<Conflict>,
}

/// Why the catalogue cannot be begun with, or changed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored entry cannot be read.
    #[error("the stored {kind} \"{name}\" cannot be read: {problems}")]
    Entry {
        /// What kind of entry.
        kind: String,
        /// What it is called.
        name: String,
        /// What is wrong.
        problems: Problems,
    },
    /// What is stored could not be read at the start.
    #[error("{0}: restore the database, or run the version that wrote it")]
    Broken(String),
    /// No name was drawn for an entry.
    #[error("there is no randomness")]
    Random(#[from] identity::crypto::CryptoError),
    /// The set cannot be signed.
    #[error("the services cannot be handed out: {0}")]
    Sign(String),
    /// The CA is stopping.
    #[error("the CA is stopping")]
    Stopped,
}

impl From<SignSetError> for CatalogueError {
    fn from(error: SignSetError) -> Self {
        Self::Sign(crate::chain(&error))
    }
}

impl Catalogue {
    /// Begins with what is stored, which is handed out again at once.
    pub(crate) fn start(
        signer: Signer,
        store: Store,
        signing: watch::Receiver<Arc<Signing>>,
        stored: CatalogueRecord,
    ) -> (Self, watch::Receiver<Published>) {
        let read = stored.entries.into_iter().map(Stored::read).collect::<Result<Vec<_>, _>>();
        let (entries, broken) = match read {
            Ok(entries) => (entries, None),
            Err(error) => (Vec::new(), Some(crate::chain(&error))),
        };
        let head = stored.head.map(|(number, generation, since)| (Seen { number, generation }, since));
        let set = head.as_ref().filter(|_| broken.is_none());
        let set = set.map(|(seen, since)| record(seen.clone(), *since, &entries));
        let first = if broken.is_none() { Published::None } else { Published::Pending };
        let (press, published) = Press::new(signer, first, set);
        let mut keeper = Keeper { press, store, signing, head, entries, broken };
        if let Err(error) = keeper.publish(SystemTime::now()) {
            tracing::error!(error = %crate::chain(&error), "the services in force cannot be handed out");
        }
        (Self(Arc::new(Mutex::new(keeper))), published)
    }

    /// Everything there is.
    pub(crate) async fn list(&self) -> Result<Listing, CatalogueError> {
        let keeper = self.0.lock().await;
        keeper.check()?;
        Ok(Listing { set: keeper.seen(), entries: keeper.entries.clone() })
    }

    /// Makes the catalogue hold what is wished for.
    pub(crate) async fn apply(&self, wish: Wish) -> Result<Applied, CatalogueError> {
        let mut keeper = self.0.clone().lock_owned().await;
        // Somebody who hangs up must not leave the database ahead of what is shown.
        let applied = tokio::spawn(async move { keeper.apply(wish, SystemTime::now()).await });
        applied.await.map_err(|_| CatalogueError::Stopped)?
    }

    /// Signs again whenever the signer needs a new certificate, until `stop`.
    pub(crate) async fn run(&self, health: &Health, stop: &CancellationToken) {
        let mut signing = self.0.lock().await.signing.clone();
        loop {
            let (outcome, renewal) = {
                let mut keeper = self.0.lock().await;
                signing.mark_unchanged();
                let outcome = keeper.publish(SystemTime::now());
                (outcome, keeper.press.renewal(&keeper.signing.borrow().active))
            };
            match outcome {
                Ok(()) => health.mend(Part::Services),
                Err(error) => health.flaw(Part::Services, crate::chain(&error)),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = renewal => {}
                Ok(()) = signing.changed() => {}
            }
        }
    }
}

impl Keeper {
    fn check(&self) -> Result<(), CatalogueError> {
        self.broken.clone().map_or(Ok(()), |reason| Err(CatalogueError::Broken(reason)))
    }

    fn seen(&self) -> Option<Seen> {
        self.head.as_ref().map(|(seen, _)| seen.clone())
    }

    async fn apply(&mut self, wish: Wish, now: SystemTime) -> Result<Applied, CatalogueError> {
        self.check()?;
        let (present, since, dry_run) = (self.entries.clone(), unix_seconds(now), wish.dry_run);
        let planned = tokio::task::spawn_blocking(move || plan(present, wish, since)).await;
        let Plan { entries, change, outcomes, conflicts } =
            planned.map_err(|_| CatalogueError::Stopped)??;
        let unchanged = change == CatalogueChange::default();
        if dry_run || !conflicts.is_empty() || unchanged {
            return Ok(Applied { set: self.seen(), outcomes, conflicts });
        }
        self.put(entries, change, now).await?;
        Ok(Applied { set: self.seen(), outcomes, conflicts })
    }

    async fn put(
        &mut self,
        entries: Vec<Stored>,
        change: CatalogueChange,
        now: SystemTime,
    ) -> Result<(), CatalogueError> {
        let (generation, since) = (content_hash(&entries), unix_seconds(now));
        let trial = Seen { number: u64::MAX, generation: generation.clone() };
        let mut set = self.press.trial(record(trial, since, &entries), now)?;
        let (number, updated) = (self.store.change_services(change, generation.clone(), since).await?, now);
        set.seen.number = number;
        self.head = Some((set.seen.clone(), since));
        self.entries = entries;
        self.press.put(set);
        tracing::info!(number, %generation, entries = self.entries.len(), "services in force");
        // It is stored and has its number: that it cannot be signed at this moment is for the one who signs again.
        if let Err(error) = self.publish(updated) {
            tracing::error!(error = %crate::chain(&error), "the services in force cannot be handed out");
        }
        Ok(())
    }

    fn publish(&mut self, now: SystemTime) -> Result<(), CatalogueError> {
        self.check()?;
        let signing = self.signing.borrow().clone();
        Ok(self.press.publish(&signing.active, now)?)
    }
}

impl Stored {
    fn read(record: ServiceRecord) -> Result<Self, CatalogueError> {
        let ServiceRecord { id, kind, name, document, changed_at } = record;
        let entry = read(&document);
        let entry = entry.map_err(|problems| CatalogueError::Entry { kind, name, problems })?;
        Ok(Self { id, entry: Arc::new(entry), document, changed_at })
    }
}

/// Reads one entry as it is stored and sent.
pub(crate) fn read(document: &str) -> Result<Entry, Problems> {
    policy::service::entry(&Source::new("entry", document))
}

fn record(seen: Seen, since: i64, entries: &[Stored]) -> PolicySetRecord {
    let mut files: Vec<Source> =
        entries.iter().map(|entry| Source::new(&*entry.id, &*entry.document)).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    PolicySetRecord { number: seen.number, generation: seen.generation, since, files }
}

fn content_hash(entries: &[Stored]) -> String {
    let mut hash = Sha256::new();
    for entry in entries {
        for part in [&entry.id, &entry.document] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    identity::crypto::hex(&hash.finish())
}

/// The kind and the name of an entry, which tell it from all others.
pub type Key = (EntryKind, String);

#[cfg(test)]
mod tests;
