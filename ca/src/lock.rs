//! One CA per data directory: a lock that the kernel gives back when the process ends, however it ends.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

/// Holds the data directory until dropped.
pub(crate) struct DataDir(#[expect(dead_code, reason = "the open file is the lock")] File);

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be made or written.
    #[error("cannot use the data directory {}: check that it exists and that this user may write there", path.display())]
    Directory {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Others may put keys and a database of their own there.
    #[error("the data directory {} can be written to by other users (mode {mode:03o}): run `chmod go-w` on it", path.display())]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another CA has it.
    #[error("{} is in use by another vouchsafe ca (process {holder}): stop that one or set another data_dir", path.display())]
    Held {
        /// Which file or directory.
        path: PathBuf,
        /// Its process number.
        holder: String,
    },
}

impl DataDir {
    /// Makes the directory 0700 if it is missing, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Directory { path: path.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mode = std::fs::metadata(path).map_err(failed)?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(LockError::Open { path: path.to_owned(), mode });
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path.join(LOCK)).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // Only for the message: a holder that has not written its number is still a holder.
            let _ = file.take(20).read_to_string(&mut holder);
            return Err(LockError::Held { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        file.set_len(0).map_err(failed)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        Ok(Self(file))
    }
}

const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");

        let first = DataDir::take(&path).unwrap();
        let refused = DataDir::take(&path).err().unwrap().to_string();
        drop(first);

        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert!(DataDir::take(&path).is_ok());
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();

        for mode in [0o777, 0o770, 0o1777] {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(DataDir::take(dir.path()), Err(LockError::Open { .. })), "{mode:o}");
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(DataDir::take(dir.path()).is_ok());
    }

    #[test]
    fn a_path_that_is_no_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();

        let refused = DataDir::take(&path).err().unwrap();

        assert!(refused.to_string().contains(path.to_str().unwrap()));
    }
}
