//! The entries directory: read as a whole, and kept in the registry as a whole.
//!
//! A file that cannot be read or parsed changes nothing: what the directory said last stays, and
//! log and health say so until it is mended.

use std::{
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{TrustDomain, crypto::Sha256};
use policy::strict::{Problem, Problems, Source};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::parse_all;
use crate::{
    health::{Health, Part},
    model::{EntrySpec, unix_seconds},
    store::{ReconcileError, Reconciled, Store},
    watching::{POLL, SETTLE, watch},
};

/// Reads every `*.yaml` and `*.yml` file of `directory`, in the order of their names.
pub fn load(directory: &Path, trust_domain: &TrustDomain) -> Result<Vec<EntrySpec>, Problems> {
    parse_all(&read(directory)?, trust_domain)
}

fn read(directory: &Path) -> Result<Vec<Source>, Problems> {
    let listing = std::fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let mut paths = Vec::new();
    for file in listing {
        let path = file.map_err(|error| unreadable(directory, &error))?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden {
            paths.push(path);
        }
    }
    paths.sort();
    let mut problems = Problems::default();
    let mut sources = Vec::new();
    for path in paths {
        let read = std::fs::read(&path).map_err(|error| unreadable(&path, &error));
        match read.and_then(|bytes| Source::from_bytes(path.display().to_string(), bytes)) {
            Ok(source) => sources.push(source),
            Err(flaws) => problems.extend(flaws),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    let cure = "check that it exists and that this user may read it".to_owned();
    Problems::from(Problem::in_file(
        &path.display().to_string(),
        format!("cannot be read: {error}"),
        Some(cure),
    ))
}

/// Why the directory changed nothing.
#[derive(Debug, thiserror::Error)]
enum DirectoryError {
    /// The files are flawed.
    #[error("{0}")]
    Files(Problems),
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] ReconcileError),
    /// The CA is stopping.
    #[error("the CA is stopping")]
    Stopped,
}

/// Follows `directory` until `stop`: at once where the system tells of changes, and every few seconds anyway.
pub(crate) async fn follow(
    directory: PathBuf,
    trust_domain: &TrustDomain,
    store: &Store,
    health: &Health,
    stop: &CancellationToken,
) {
    let (bell, mut rings) = mpsc::channel(1);
    // Held until the end: dropping it ends the watch.
    let _watcher = watch(&directory, bell);
    let mut applied = None;
    let mut last = String::new();
    loop {
        let outcome = reconcile(&directory, trust_domain, store, applied).await;
        let flaw = outcome.as_ref().err().map(|error| crate::chain(error)).unwrap_or_default();
        if flaw != last {
            report(&directory, &flaw, health);
        }
        last = flaw;
        // What failed is tried again, also when the files stay as they are.
        applied = outcome.ok();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL) => {}
            // Editors and copies write in several steps: look when they have settled.
            Some(()) = rings.recv() => tokio::time::sleep(SETTLE).await,
        }
    }
}

/// Makes the entries from files exactly what `directory` says, or changes nothing. Files that were `applied` already are not
/// parsed again. Returns what tells these files from others.
async fn reconcile(
    directory: &Path,
    trust_domain: &TrustDomain,
    store: &Store,
    applied: Option<[u8; 32]>,
) -> Result<[u8; 32], DirectoryError> {
    let (directory, trust_domain) = (directory.to_owned(), trust_domain.clone());
    let loaded = tokio::task::spawn_blocking(move || {
        let sources = read(&directory)?;
        let found = fingerprint(&sources);
        let fresh = applied != Some(found);
        Ok((found, fresh.then(|| parse_all(&sources, &trust_domain)).transpose()?))
    });
    let (found, wanted) =
        loaded.await.map_err(|_| DirectoryError::Stopped)?.map_err(DirectoryError::Files)?;
    if let Some(wanted) = wanted {
        let done = store.reconcile_files(wanted, unix_seconds(SystemTime::now())).await?;
        if done.created + done.updated + done.deleted > 0 {
            let Reconciled { created, updated, deleted, .. } = done;
            tracing::info!(created, updated, deleted, "entries directory applied");
        }
    }
    Ok(found)
}

fn fingerprint(sources: &[Source]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for source in sources {
        for part in [&source.name, &source.text] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part.as_bytes());
        }
    }
    hash.finish()
}

fn report(directory: &Path, flaw: &str, health: &Health) {
    if flaw.is_empty() {
        tracing::info!(directory = %directory.display(), "entries directory is sound");
        health.mend(Part::EntriesDirectory);
    } else {
        tracing::error!(directory = %directory.display(), "entries directory not applied, the last good entries stay\n{flaw}");
        health.flaw(Part::EntriesDirectory, flaw);
    }
}
