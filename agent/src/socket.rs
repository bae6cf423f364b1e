//! Unix sockets: taken over only from the dead, and reachable only with their final permissions.
//!
//! A socket is bound beside its place, given its mode, and then moved there, so that it is never open wider than
//! meant. Its directory must not let anybody else put a socket of their own in its place.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The longest path of a socket, in bytes: what the kernel's address holds, less the name it is bound under first.
pub(crate) const MAX_SOCKET_PATH_BYTES: usize = 90;

/// How a socket may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every local process.
    Everybody,
    /// The agent's own user and group.
    Group,
}

/// A socket that listens, and is removed when dropped.
pub(crate) struct BoundSocket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl BoundSocket {
    /// Binds the socket at `path`, and makes its directory if there is none.
    pub(crate) fn bind(path: &Path, reach: Reach) -> Result<Self, SocketError> {
        let directory = directory(path)?;
        make_directory(directory, reach)?;
        clear(path)?;
        let failed = |source| SocketError::Bind { path: path.to_owned(), source };
        let first = first_path(path);
        let _ = fs::remove_file(&first);
        let listener = UnixListener::bind(&first).map_err(failed)?;
        let moved = fs::set_permissions(&first, Permissions::from_mode(reach.mode())).and_then(|()| {
            let metadata = fs::symlink_metadata(&first)?;
            fs::rename(&first, path)?;
            Ok((metadata.dev(), metadata.ino()))
        });
        let inode = moved.inspect_err(|_| drop(fs::remove_file(&first))).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), inode })
    }

    /// Returns the listener.
    pub(crate) fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        // A socket that somebody else bound here in the meantime is not ours to remove.
        if fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Reach {
    fn mode(self) -> u32 {
        match self {
            Self::Everybody => 0o777,
            Self::Group => 0o770,
        }
    }

    fn directory_mode(self) -> u32 {
        match self {
            Self::Everybody => 0o755,
            Self::Group => 0o750,
        }
    }
}

/// Reports what is wrong with `path` as the place of a socket, and changes nothing. That somebody serves it is not.
pub(crate) fn check(path: &Path) -> Result<(), SocketError> {
    let directory = directory(path)?;
    if directory.exists() {
        check_directory(directory)?;
    }
    // A socket that is served is most likely the agent's of this very configuration.
    occupant(path).map(|_| ())
}

fn directory(path: &Path) -> Result<&Path, SocketError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        return Err(SocketError::TooLong { path: path.to_owned() });
    }
    path.parent()
        .filter(|_| path.file_name().is_some())
        .ok_or_else(|| SocketError::NoName { path: path.to_owned() })
}

fn make_directory(directory: &Path, reach: Reach) -> Result<(), SocketError> {
    let failed = |source| SocketError::Directory { path: directory.to_owned(), source };
    if !directory.exists() {
        DirBuilder::new().recursive(true).mode(reach.directory_mode()).create(directory).map_err(failed)?;
        // The umask may have closed it to the processes it is for.
        fs::set_permissions(directory, Permissions::from_mode(reach.directory_mode())).map_err(failed)?;
    }
    check_directory(directory)
}

fn check_directory(directory: &Path) -> Result<(), SocketError> {
    let metadata = fs::metadata(directory)
        .map_err(|source| SocketError::Directory { path: directory.to_owned(), source })?;
    let ours = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    let sticky = metadata.mode() & 0o1000 != 0;
    let writable_by_others = metadata.mode() & 0o022 != 0;
    if ours && (!writable_by_others || sticky) {
        Ok(())
    } else {
        Err(SocketError::OpenDirectory { path: directory.to_owned() })
    }
}

enum Occupant {
    Nobody,
    Stale,
    Alive,
}

fn occupant(path: &Path) -> Result<Occupant, SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::Nobody),
        Err(source) => return Err(SocketError::Bind { path: path.to_owned(), source }),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Occupant::Stale),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Occupant::Nobody),
        // An error such as "permission denied" does not prove that nobody listens.
        Ok(_) | Err(_) => Ok(Occupant::Alive),
    }
}

fn clear(path: &Path) -> Result<(), SocketError> {
    match occupant(path)? {
        Occupant::Nobody => Ok(()),
        Occupant::Stale => {
            fs::remove_file(path).map_err(|source| SocketError::Bind { path: path.to_owned(), source })
        }
        Occupant::Alive => Err(SocketError::InUse { path: path.to_owned() }),
    }
}

/// Short, for the address of a socket is.
fn first_path(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{:x}", std::process::id()))
}

/// Why a socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path does not fit into the address of a socket.
    #[error("path of the socket is longer than {MAX_SOCKET_PATH_BYTES} bytes: {}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The path names no file.
    #[error("{} does not name a socket", path.display())]
    NoName {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be made or looked at.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could put a socket of their own in place of this one.
    #[error(
        "the directory {} can be written to by other users, who could serve false identities from it; \
         make it yours with mode 0755", path.display()
    )]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Something that is no socket has the path.
    #[error("{} exists and is not a socket; it was left alone", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("another process serves {}; stop it first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Binding failed.
    #[error("cannot bind {}", path.display())]
    Bind {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn sockets_and_their_directories_get_their_modes_whatever_the_umask() {
        let home = tempfile::tempdir().unwrap();
        let (public, private) = (home.path().join("a/b/s"), home.path().join("c/s"));

        let _public = BoundSocket::bind(&public, Reach::Everybody).unwrap();
        let _private = BoundSocket::bind(&private, Reach::Group).unwrap();

        assert_eq!((mode(&public), mode(public.parent().unwrap())), (0o777, 0o755));
        assert_eq!((mode(&private), mode(private.parent().unwrap())), (0o770, 0o750));
        assert_eq!(
            fs::read_dir(public.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside the socket"
        );
        assert!(UnixStream::connect(&public).is_ok());
    }

    #[tokio::test]
    async fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let bound = BoundSocket::bind(&path, Reach::Everybody).unwrap();

        assert!(matches!(BoundSocket::bind(&path, Reach::Everybody), Err(SocketError::InUse { .. })));
        assert!(check(&path).is_ok(), "a path in use is sound");
        assert!(UnixStream::connect(&path).is_ok(), "the refused attempt left the live socket alone");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        fs::write(&path, "precious").unwrap();

        assert!(matches!(BoundSocket::bind(&path, Reach::Everybody), Err(SocketError::NotASocket { .. })));

        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_symbolic_link_in_the_place_of_the_socket_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let (target, path) = (home.path().join("t"), home.path().join("s"));
        drop(std::os::unix::net::UnixListener::bind(&target).unwrap());
        std::os::unix::fs::symlink(&target, &path).unwrap();

        assert!(matches!(BoundSocket::bind(&path, Reach::Everybody), Err(SocketError::NotASocket { .. })));

        assert!(target.exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();

        let refused = BoundSocket::bind(&home.path().join("s"), Reach::Everybody);

        assert!(matches!(refused, Err(SocketError::OpenDirectory { .. })));
    }

    #[tokio::test]
    async fn a_path_that_no_address_holds_is_refused_by_name() {
        let path = PathBuf::from(format!("/{}", "a".repeat(MAX_SOCKET_PATH_BYTES)));

        assert!(matches!(BoundSocket::bind(&path, Reach::Everybody), Err(SocketError::TooLong { .. })));
    }

    #[tokio::test]
    async fn a_socket_that_somebody_else_bound_later_is_not_removed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let bound = BoundSocket::bind(&path, Reach::Everybody).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();

        drop(bound);

        assert!(path.exists());
    }
}
