//! The agent's directory, and the lock that keeps a second agent out of it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, setrlimit};

/// The directory of a running agent. The lock ends with the value, and with the process.
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory if there is none, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o750).create(path).map_err(failed)?;
        let mode = std::fs::metadata(path).map_err(failed)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(DataDirError::Open { path: path.to_owned(), mode });
        }
        let mut options = OpenOptions::new();
        let lock = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// Lets the agent open as many descriptors as it is allowed to. A connection takes two, and the usual soft limit,
/// which exists for programs that use select(2), is soon reached.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be made or written to.
    #[error("cannot use the directory {}", path.display())]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could put in the identity and the trust bundle of a CA of their own.
    #[error("the directory {} can be written to by other users (mode {mode:03o}): run `chmod go-w` on it", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another agent uses it.
    #[error("another agent uses the directory {}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();

        for mode in [0o777, 0o770, 0o1777] {
            set_permissions(home.path(), Permissions::from_mode(mode)).unwrap();
            assert!(matches!(DataDir::lock(home.path()), Err(DataDirError::Open { .. })), "{mode:o}");
        }
        set_permissions(home.path(), Permissions::from_mode(0o750)).unwrap();
        assert!(DataDir::lock(home.path()).is_ok());
    }
}
