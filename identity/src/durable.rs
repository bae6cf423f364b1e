//! Files that are whole or not there: written beside their place, flushed, and moved over it.
//!
//! The file never has more permissions than it ends with, and a failure leaves neither a changed nor an extra file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::crypto;

/// Puts `bytes` into the file at `path` with exactly the permissions `mode`, whatever was there before.
pub fn write(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), DurableError> {
    let name = path.file_name().ok_or_else(|| DurableError::NoFileName { path: path.into() })?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let random: [u8; 8] = crypto::random().map_err(|_| DurableError::Random)?;
    let temporary =
        Temporary(directory.join(format!(".{}.{}.tmp", name.to_string_lossy(), crypto::hex(&random))));
    let failed = |source| DurableError::Write { path: path.into(), source };
    fill(&temporary.0, mode, bytes).map_err(failed)?;
    fs::rename(&temporary.0, path).map_err(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The path names no file.
    #[error("{} does not name a file", path.display())]
    NoFileName {
        /// The path.
        path: PathBuf,
    },
    /// No random name could be made.
    #[error("system random number generator failed")]
    Random,
    /// The file system refused.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

fn fill(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path, mode)?;
    // The umask may have taken permissions away; it never adds any.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// `create_new` follows no link and takes over no file that somebody else put there.
fn create(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Removes the file when it goes out of scope.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a success the file is gone from here, and its random name belongs to nobody else.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests;
