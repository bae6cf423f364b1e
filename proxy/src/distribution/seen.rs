//! The highest number that was taken, in memory and, where a directory is given, on disk.
//!
//! A file that cannot be read is no reason to forget: until it is mended, nothing new is taken.

use std::{io, path::Path, path::PathBuf};

use identity::{
    TrustDomain,
    durable::{self, DurableError},
    manifest::{Kind, Seen},
};
use serde::{Deserialize, Serialize, de::Error as _};
use tokio::task::spawn_blocking;

/// The newest set that was taken, and where it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    kind: Kind,
    path: Option<PathBuf>,
    loaded: bool,
    seen: Option<Seen>,
}

/// The file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    vouchsafe: Version,
    trust_domain: TrustDomain,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    #[serde(rename = "policy-seen/v1")]
    One,
    #[serde(rename = "service-seen/v1")]
    Services,
}

impl Version {
    const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Policies => Self::One,
            Kind::Services => Self::Services,
        }
    }
}

/// Why the number cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeptError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not what was kept there: if it is beyond repair, remove it")]
    Content { path: PathBuf, source: serde_json::Error },
    #[error("cannot make the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot keep the number")]
    Write(#[from] DurableError),
    #[error("the writing was given up")]
    Task(#[from] tokio::task::JoinError),
}

impl Kept {
    #[cfg(test)]
    pub(super) fn new(directory: Option<&Path>) -> Self {
        Self::of(Kind::Policies, directory)
    }

    pub(super) fn of(kind: Kind, directory: Option<&Path>) -> Self {
        let file = match kind {
            Kind::Policies => FILE,
            Kind::Services => SERVICES_FILE,
        };
        Self { kind, path: directory.map(|directory| directory.join(file)), loaded: false, seen: None }
    }

    /// Reads what an earlier run has kept about `own`, once.
    pub(super) async fn load(&mut self, own: &TrustDomain) -> Result<(), KeptError> {
        if let (false, Some(path)) = (self.loaded, self.path.clone()) {
            let version = Version::of(self.kind);
            let line = spawn_blocking(move || read(&path, version)).await??;
            // What another trust domain has numbered says nothing about this one.
            self.seen = line.filter(|line| line.trust_domain == *own).map(|line| line.seen);
        }
        self.loaded = true;
        Ok(())
    }

    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    /// Keeps a newer number.
    pub(super) async fn keep(&mut self, own: &TrustDomain, seen: Seen) -> Result<(), KeptError> {
        if self.seen.as_ref() == Some(&seen) {
            return Ok(());
        }
        self.seen = Some(seen.clone());
        let Some(path) = self.path.clone() else { return Ok(()) };
        let line = Line { vouchsafe: Version::of(self.kind), trust_domain: own.clone(), seen };
        spawn_blocking(move || write(&path, &line)).await?
    }
}

fn read(path: &Path, version: Version) -> Result<Option<Line>, KeptError> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice::<Line>(&bytes) {
            Ok(line) if line.vouchsafe == version => Ok(Some(line)),
            Ok(_) => {
                let source = serde_json::Error::custom("it was kept of sets of another kind");
                Err(KeptError::Content { path: path.to_owned(), source })
            }
            Err(source) => Err(KeptError::Content { path: path.to_owned(), source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeptError::Read { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, line: &Line) -> Result<(), KeptError> {
    use std::os::unix::fs::DirBuilderExt;

    if let Some(directory) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| KeptError::Directory { path: directory.to_owned(), source })?;
    }
    // Names, numbers and a hash can always be written as JSON.
    let bytes = serde_json::to_vec(line).unwrap_or_default();
    Ok(durable::write(path, 0o600, &bytes)?)
}

/// The name of the file in the directory.
pub(super) const FILE: &str = "policy-seen.json";
/// The same for services.
const SERVICES_FILE: &str = "service-seen.json";
