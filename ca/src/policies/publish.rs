//! Follows the policy directory and the authorities, and publishes the set in force with a signature that verifies.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use identity::crypto::Sha256;
use policy::strict::{Problems, Source};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Numbered, Press, Published, SignSetError, Signer, directory};
use crate::{
    authority::rotation::Signing,
    health::{Health, Part},
    model::unix_seconds,
    store::{PolicySetRecord, Store, StoreError},
    watching::{self, POLL, SETTLE},
};

/// The one that publishes.
pub(crate) struct Publisher {
    press: Press,
    store: Store,
    signing: watch::Receiver<Arc<Signing>>,
    /// The last look at the directory, and what was wrong there.
    looked: Option<(Snapshot, Result<(), String>)>,
    flaw: Option<String>,
}

/// What tells one look at the directory from another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Snapshot {
    Files([u8; 32]),
    Refused(String),
}

/// Why the files in the directory are not handed out.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    /// The files are flawed.
    #[error("{0}")]
    Files(String),
    /// The directory does not come to rest.
    #[error("the policy directory changes all the time")]
    Restless,
    /// The set was not signed.
    #[error(transparent)]
    Sign(#[from] SignSetError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA is stopping.
    #[error("the CA is stopping")]
    Stopped,
}

impl Publisher {
    /// Begins with the set that was in force before, which is handed out again at once.
    pub(crate) fn start(
        signer: Signer,
        store: Store,
        signing: watch::Receiver<Arc<Signing>>,
        stored: Option<PolicySetRecord>,
    ) -> (Self, watch::Receiver<Published>) {
        let (press, receiver) = Press::new(signer, Published::Pending, stored);
        let mut publisher = Self { press, store, signing, looked: None, flaw: None };
        if let Err(error) = publisher.publish(SystemTime::now()) {
            tracing::error!(error = %crate::chain(&error), "the policies in force cannot be handed out");
        }
        (publisher, receiver)
    }

    /// Follows `directory` until `stop`.
    pub(crate) async fn run(mut self, directory: PathBuf, health: &Health, stop: &CancellationToken) {
        let (bell, mut rings) = mpsc::channel(1);
        // Held until the end: dropping it ends the watch.
        let _watcher = watching::watch(&directory, bell);
        loop {
            let taken = self.take(&directory).await;
            let outcome = taken.and_then(|()| Ok(self.publish(SystemTime::now())?));
            self.note(&directory, outcome.err(), health);
            let renewal = self.renewal();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = renewal => {}
                Ok(()) = self.signing.changed() => {}
                Some(()) = rings.recv() => {}
            }
        }
    }

    /// Looks at the directory, and puts in force what is new and good there. What was looked at before is not compiled again.
    async fn take(&mut self, directory: &Path) -> Result<(), PublishError> {
        let (snapshot, files) = settled(directory, self.looked.as_ref().map(|(last, _)| last)).await?;
        if let Some((last, verdict)) = &self.looked
            && *last == snapshot
        {
            return verdict.clone().map_err(PublishError::Files);
        }
        self.looked = None;
        let verdict = match compile(files).await? {
            Ok((generation, files)) => {
                self.number(generation, files).await?;
                Ok(())
            }
            Err(problems) => Err(problems.to_string()),
        };
        self.looked = Some((snapshot, verdict.clone()));
        verdict.map_err(PublishError::Files)
    }

    async fn number(&mut self, generation: String, files: Vec<Source>) -> Result<(), PublishError> {
        if self.press.set().is_some_and(|held| held.seen.generation == generation) {
            return Ok(());
        }
        let now = SystemTime::now();
        let since = unix_seconds(now);
        let trial = self.press.trial(PolicySetRecord { number: u64::MAX, generation, since, files }, now)?;
        let files = trial.files.into_iter().map(|(_, file)| file).collect();
        let record = self.store.put_policies(trial.seen.generation, files, since).await?;
        let set = Numbered::of(record);
        tracing::info!(number = set.seen.number, generation = %set.seen.generation, files = set.files.len(), "policies in force");
        self.press.put(set);
        Ok(())
    }

    fn publish(&mut self, now: SystemTime) -> Result<(), SignSetError> {
        let signing = self.signing.borrow_and_update().clone();
        self.press.publish(&signing.active, now)
    }

    /// Waits until the signer needs a new certificate.
    fn renewal(&self) -> impl Future<Output = ()> + use<> {
        self.press.renewal(&self.signing.borrow().active)
    }

    fn note(&mut self, directory: &Path, error: Option<PublishError>, health: &Health) {
        let flaw = error.map(|error| crate::chain(&error));
        if flaw == self.flaw {
            return;
        }
        match &flaw {
            None => {
                tracing::info!(directory = %directory.display(), "policy directory is sound");
                health.mend(Part::Policies);
            }
            Some(flaw) => {
                tracing::error!(directory = %directory.display(), "policies refused, the last good ones stay in force\n{flaw}");
                health.flaw(Part::Policies, flaw);
            }
        }
        self.flaw = flaw;
    }
}

/// Reads until two readings agree. What agrees with the `last` look needs no second reading.
async fn settled(
    directory: &Path,
    last: Option<&Snapshot>,
) -> Result<(Snapshot, Result<Vec<Source>, Problems>), PublishError> {
    let (mut snapshot, mut files) = read(directory).await?;
    if last == Some(&snapshot) {
        return Ok((snapshot, files));
    }
    for _ in 0..MAX_READINGS {
        tokio::time::sleep(SETTLE).await;
        let (again, fresh) = read(directory).await?;
        let agree = again == snapshot;
        (snapshot, files) = (again, fresh);
        if agree {
            return Ok((snapshot, files));
        }
    }
    Err(PublishError::Restless)
}

async fn read(directory: &Path) -> Result<(Snapshot, Result<Vec<Source>, Problems>), PublishError> {
    let directory = directory.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let files = directory::read(&directory);
        let snapshot = match &files {
            Ok(files) => Snapshot::Files(fingerprint(files)),
            Err(problems) => Snapshot::Refused(problems.to_string()),
        };
        (snapshot, files)
    });
    read.await.map_err(|_| PublishError::Stopped)
}

async fn compile(
    files: Result<Vec<Source>, Problems>,
) -> Result<Result<(String, Vec<Source>), Problems>, PublishError> {
    let compiled = tokio::task::spawn_blocking(move || {
        let files = files?;
        let set = directory::compile(&files)?;
        for warning in set.warnings().iter() {
            let line = warning.position.map_or(0, |place| place.line);
            tracing::warn!(file = %warning.file, line, flaw = %warning.message, "policy file says what is hardly meant");
        }
        Ok((set.generation().to_owned(), files))
    });
    compiled.await.map_err(|_| PublishError::Stopped)
}

fn fingerprint(files: &[Source]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        for part in [&file.name, &file.text] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finish()
}

/// Readings of a directory that somebody writes to, before the next look.
const MAX_READINGS: usize = 20;

#[cfg(test)]
mod tests;
