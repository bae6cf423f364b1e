//! The admin socket: a Unix socket that its file permissions protect.
//!
//! It appears whole: bound under another name, restricted, then moved to its place. What stands there
//! already is replaced only if it is a socket that nobody listens on.

use std::{
    io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{Connection, Lasts};
use crate::access::Origin;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Somebody listens there.
    #[error("{} is in use by another process: stop it or set another admin_socket", path.display())]
    InUse {
        /// Which file or directory.
        path: PathBuf,
    },
    /// Something stands there that is no socket.
    #[error("{} exists and is not a socket: move it away or set another admin_socket", path.display())]
    NotASocket {
        /// Which file or directory.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot open the admin socket {}: check that the directory exists and that this user may write there", path.display())]
    Open {
        /// Which file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Opens the socket at `path`, for its user and group.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, AdminSocketError> {
    let failed = |source| AdminSocketError::Open { path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(failed)?;
    check_free(path)?;
    // Sockets have short names at most; the process number keeps two starts apart.
    let temporary = directory.join(format!(".{}", std::process::id()));
    // Left over only by a process of the same number that died between these lines.
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(failed)?;
    let placed = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = placed {
        // The error at hand is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        return Err(failed(error));
    }
    Ok(listener)
}

fn check_free(path: &Path) -> Result<(), AdminSocketError> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(AdminSocketError::Open { path: path.to_owned(), source }),
    };
    if !kind.is_socket() {
        return Err(AdminSocketError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) | Err(_) => Err(AdminSocketError::InUse { path: path.to_owned() }),
    }
}

/// The connections of `listener`. One whose caller the kernel does not name is dropped.
pub(crate) fn incoming(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<Connection<UnixStream, OwnedSemaphorePermit>>> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    stream::unfold((listener, places), |(listener, places)| async move {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return None };
            let accepted = listener.accept().await.and_then(|(stream, _)| {
                let caller = stream.peer_cred()?;
                Ok((stream, caller))
            });
            match accepted {
                Ok((stream, caller)) => {
                    let origin = Origin::Local { uid: caller.uid(), gid: caller.gid() };
                    return Some((
                        Ok(Connection { stream, origin, lasts: Lasts::Open, _place: place }),
                        (listener, places),
                    ));
                }
                Err(error) => {
                    tracing::warn!(%error, "no admin connection could be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

/// Its user and group, nobody else.
const MODE: u32 = 0o770;
/// Operators at once.
const MAX_CONNECTIONS: usize = 64;
/// Rest after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_its_user_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/admin.sock");

        let _listener = bind(&path).unwrap();

        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o770);
        assert!(UnixStream::connect(&path).await.is_ok());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");

        let live = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(AdminSocketError::InUse { .. })));
        drop(live);
        assert!(bind(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "precious").unwrap();

        assert!(matches!(bind(&path), Err(AdminSocketError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
