//! An identity in files: svid.pem, key.pem and bundle.pem, always of one set.
//!
//! Each set lies in a directory of its own; the three names are links through one link, `.current`,
//! which is moved from set to set in a single step. Whoever opens a name finds a whole file of a
//! whole set, and a reader that was halfway finds the rest of what it began.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use identity::{TrustBundle, X509Svid, crypto, durable};

use crate::exit::{Exit, Failure};

/// Why a set was not written; the one before is untouched.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] durable::DurableError),
    /// There is no randomness for a name.
    #[error(transparent)]
    Random(#[from] crypto::CryptoError),
    /// A directory or link could not be made, moved or removed.
    #[error("cannot put the files into {}", dir.display())]
    Place {
        dir: PathBuf,
        #[source]
        cause: io::Error,
    },
}

impl From<SetError> for Failure {
    fn from(cause: SetError) -> Self {
        Self::new(Exit::Failed, cause)
    }
}

/// Puts a new set into `dir`.
pub(super) fn write(dir: &Path, svid: &X509Svid, bundle: &TrustBundle) -> Result<(), SetError> {
    let place = |cause| SetError::Place { dir: dir.to_owned(), cause };
    let set = format!("{SET}{}", crypto::hex(&crypto::random::<8>()?));
    fs::create_dir_all(dir).map_err(place)?;
    fs::DirBuilder::new().mode(0o755).create(dir.join(&set)).map_err(place)?;
    let file =
        |name: &str, mode, text: &str| durable::write(&dir.join(&set).join(name), mode, text.as_bytes());
    file("svid.pem", 0o644, &svid.chain_pem())?;
    file("key.pem", 0o600, &svid.key().to_pem())?;
    file("bundle.pem", 0o644, &bundle.to_pem())?;
    link(dir, CURRENT, Path::new(&set)).map_err(place)?;
    for name in NAMES {
        link(dir, name, &Path::new(CURRENT).join(name)).map_err(place)?;
    }
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(place)?;
    sweep(dir, &set).map_err(place)
}

/// Removes every set and the names that lead to them.
pub(super) fn remove(dir: &Path) -> Result<(), SetError> {
    let place = |cause| SetError::Place { dir: dir.to_owned(), cause };
    for name in NAMES.into_iter().chain([CURRENT]) {
        match fs::remove_file(dir.join(name)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(place(cause)),
            Ok(()) | Err(_) => {}
        }
    }
    sweep(dir, "").map_err(place)
}

/// Makes `name` lead to `target`, whatever it was before, in one step.
fn link(dir: &Path, name: &str, target: &Path) -> io::Result<()> {
    let path = dir.join(name);
    if fs::read_link(&path).is_ok_and(|leads_to| leads_to == target) {
        return Ok(());
    }
    let fresh = dir.join(format!(".{name}.new"));
    match fs::remove_file(&fresh) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        Ok(()) | Err(_) => {}
    }
    symlink(target, &fresh)?;
    fs::rename(&fresh, &path)
}

/// Removes the sets that are not `kept`.
fn sweep(dir: &Path, kept: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_set = name.to_str().is_some_and(|name| name.starts_with(SET) && name != kept);
        if is_set && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The link that every name goes through.
const CURRENT: &str = ".current";

/// What the directories of the sets are called, before a random end.
const SET: &str = ".set-";

/// The files of a set.
const NAMES: [&str; 3] = ["svid.pem", "key.pem", "bundle.pem"];

#[cfg(test)]
mod tests;
