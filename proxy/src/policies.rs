//! Loads the policy directory as one transaction: all files by content, compiled together, or nothing.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use policy::{
    PolicySet,
    strict::{Problems, Source},
};
use tokio::sync::{Notify, mpsc};

use crate::watching::Watching;

/// What an attempt to load came to.
#[derive(Debug)]
pub(crate) enum Loaded {
    /// A good set.
    Set(Arc<PolicySet>),
    /// What is wrong with the directory.
    Refused(LoadError),
}

/// Why a policy directory cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or the directory cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// There are more files than are looked at.
    #[error("{path} holds more than {MAX_FILES} policy files")]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
    /// The files together are larger than is looked at.
    #[error("the policy files in {path} have more than {MAX_TOTAL} bytes")]
    TooLarge {
        /// The directory.
        path: PathBuf,
    },
    /// The policies are wrong.
    #[error("{0}")]
    Problems(Problems),
}

/// Reads and compiles a policy directory once.
pub(crate) fn load(directory: &Path) -> Result<PolicySet, LoadError> {
    compile(&read(directory)?)
}

fn compile(files: &[(String, Vec<u8>)]) -> Result<PolicySet, LoadError> {
    let sources = files
        .iter()
        .map(|(name, bytes)| Source::from_bytes(name.clone(), bytes.clone()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(LoadError::Problems)?;
    policy::compile(&sources).map_err(LoadError::Problems)
}

/// Loads the directory, and again whenever its content changes, until nobody listens.
///
/// `reload` asks for a look at once. A change counts when two readings agree: a half-written file is not a policy.
pub(crate) async fn watch(directory: PathBuf, reload: Arc<Notify>, updates: mpsc::Sender<Loaded>) {
    let watching = Watching::directories(&BTreeSet::from([directory.clone()]));
    let mut last: Option<Snapshot> = None;
    loop {
        let mut snapshot = take(&directory).await;
        while last.is_some() && last.as_ref() != Some(&snapshot) {
            watching.settle().await;
            let again = take(&directory).await;
            if again == snapshot {
                break;
            }
            snapshot = again;
        }
        if last.as_ref() != Some(&snapshot) {
            let loaded = attempt(&directory, &snapshot).await;
            if updates.send(loaded).await.is_err() {
                return;
            }
            last = Some(snapshot);
        }
        tokio::select! {
            () = watching.wait() => {}
            () = reload.notified() => {}
            () = updates.closed() => return,
        }
    }
}

/// The content of a directory, or why it could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Snapshot {
    Files(Arc<Vec<(String, Vec<u8>)>>),
    Unreadable(String),
}

async fn take(directory: &Path) -> Snapshot {
    let directory = directory.to_owned();
    match tokio::task::spawn_blocking(move || read(&directory)).await {
        Ok(Ok(files)) => Snapshot::Files(Arc::new(files)),
        Ok(Err(error)) => Snapshot::Unreadable(describe(&error)),
        Err(error) => Snapshot::Unreadable(error.to_string()),
    }
}

async fn attempt(directory: &Path, snapshot: &Snapshot) -> Loaded {
    let files = match snapshot {
        Snapshot::Files(files) => Arc::clone(files),
        Snapshot::Unreadable(message) => {
            let source = io::Error::other(message.clone());
            return Loaded::Refused(LoadError::Read { path: directory.to_owned(), source });
        }
    };
    match tokio::task::spawn_blocking(move || compile(&files)).await {
        Ok(Ok(set)) => Loaded::Set(Arc::new(set)),
        Ok(Err(error)) => Loaded::Refused(error),
        Err(error) => {
            Loaded::Refused(LoadError::Read { path: directory.to_owned(), source: io::Error::other(error) })
        }
    }
}

/// Describes an error with its causes, for a log line or a readiness reason.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Reads `*.yaml` and `*.yml`, sorted by name. Links are followed: Kubernetes mounts files so. Names that begin with
/// a dot are not looked at: editors and mounts keep their own things there.
fn read(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, LoadError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| LoadError::Read { path, source }
    };
    let mut files = Vec::new();
    let mut total = 0;
    for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let policy = Path::new(&name).extension().is_some_and(|kind| kind == "yaml" || kind == "yml");
        if name.starts_with('.') || !policy {
            continue;
        }
        if files.len() >= MAX_FILES {
            return Err(LoadError::TooMany { path: directory.to_owned() });
        }
        let bytes = read_file(&path).map_err(failed(&path))?;
        total += bytes.len();
        if total > MAX_TOTAL {
            return Err(LoadError::TooLarge { path: directory.to_owned() });
        }
        files.push((name, bytes));
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for without end, and no later change would be seen.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    let mut bytes = Vec::new();
    // One byte more than the reader of the language accepts, so that it can say so with the file's name.
    File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Files of one directory.
pub(crate) const MAX_FILES: usize = 20_000;
/// Bytes of all files of one directory.
pub(crate) const MAX_TOTAL: usize = 64 * 1024 * 1024;
const MAX_FILE: usize = policy::strict::MAX_BYTES;

#[cfg(test)]
mod tests;
