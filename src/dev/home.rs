//! The directory of the tour: private, new, and removed at the end unless it is to be kept.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use identity::{crypto, durable};

use super::plan::{AGENT_ADMIN_SOCKET, PORTS, Plan};

/// Why the tour has nowhere to live.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// The directory holds something.
    #[error("{} is not empty: name a new or an empty directory", dir.display())]
    NotEmpty { dir: PathBuf },
    /// Unix sockets below it would have names that the kernel does not take.
    #[error("{} is too long a name for the sockets below it: at most {LONGEST_DIR} bytes", dir.display())]
    TooLong { dir: PathBuf },
    /// Files cannot be made.
    #[error("cannot make {}", path.display())]
    Make {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] durable::DurableError),
    /// There is no randomness for a name.
    #[error(transparent)]
    Random(#[from] crypto::CryptoError),
    /// Ports are taken.
    #[error("ports {base} to {last} on {address} are not all free")]
    Taken { address: IpAddr, base: u16, last: u16 },
    /// No free ports were found.
    #[error("no {PORTS} free ports in a row found on {address}")]
    NoPorts { address: IpAddr },
    /// Others than this machine could reach the address.
    #[error("{address} is not a loopback address: this set-up is for development on one machine only")]
    NotLoopback { address: IpAddr },
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Home {
    dir: PathBuf,
    kept: bool,
}

impl Home {
    /// Makes the directory: `keep`, to be left where it is, or a new one in the temporary directory.
    pub(crate) fn make(keep: Option<&Path>) -> Result<Self, HomeError> {
        let dir = match keep {
            Some(dir) => dir.to_owned(),
            None => std::env::temp_dir().join(format!("vouchsafe-{}", crypto::hex(&crypto::random::<6>()?))),
        };
        let made = |cause| HomeError::Make { path: dir.clone(), cause };
        match private_dir(&dir) {
            Err(cause) if keep.is_some() && cause.kind() == io::ErrorKind::AlreadyExists => empty(&dir)?,
            other => other.map_err(made)?,
        }
        // What the kernel says about an executable's path has no symbolic links in it.
        let home = Self { dir: dir.canonicalize().map_err(made)?, kept: keep.is_some() };
        match home.dir.as_os_str().len() > LONGEST_DIR {
            true => Err(HomeError::TooLong { dir: home.dir.clone() }),
            false => Ok(home),
        }
    }

    /// Where it is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it stays.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Makes the directories and files of the plan.
    pub(crate) fn furnish(&self, plan: &Plan) -> Result<(), HomeError> {
        for path in plan.directories() {
            private_dir(&path).map_err(|cause| HomeError::Make { path, cause })?;
        }
        for (name, text) in plan.files() {
            durable::write(&plan.path(name), 0o600, text.as_bytes())?;
        }
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.kept
            && let Err(cause) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %cause, "directory of the tour cannot be removed");
        }
    }
}

/// Copies the binary to the path of a workload.
pub(crate) fn copy(binary: &Path, to: &Path) -> Result<(), HomeError> {
    fs::copy(binary, to).map(drop).map_err(|cause| HomeError::Make { path: to.to_owned(), cause })
}

/// Finds as many free ports in a row as the plan takes, or checks the ones asked for.
///
/// They lie below the range that the kernel hands out by itself, so that nothing takes one by
/// chance between this look and the daemon's own.
pub(crate) fn ports(address: IpAddr, wanted: Option<u16>) -> Result<u16, HomeError> {
    if !address.is_loopback() {
        return Err(HomeError::NotLoopback { address });
    }
    if let Some(base) = wanted {
        let last = base.saturating_add(PORTS - 1);
        return match free(address, base) {
            true => Ok(base),
            false => Err(HomeError::Taken { address, base, last }),
        };
    }
    let blocks = (LAST_PORT - FIRST_PORT) / PORTS;
    let start = u16::from_be_bytes(crypto::random::<2>()?) % blocks;
    (0..blocks)
        .map(|block| FIRST_PORT + (start + block) % blocks * PORTS)
        .find(|&base| free(address, base))
        .ok_or(HomeError::NoPorts { address })
}

fn free(address: IpAddr, base: u16) -> bool {
    let Some(last) = base.checked_add(PORTS - 1) else {
        return false;
    };
    (base..=last).all(|port| TcpListener::bind(SocketAddr::new(address, port)).is_ok())
}

fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn empty(dir: &Path) -> Result<(), HomeError> {
    let make = |cause| HomeError::Make { path: dir.to_owned(), cause };
    if fs::read_dir(dir).map_err(make)?.next().is_some() {
        return Err(HomeError::NotEmpty { dir: dir.to_owned() });
    }
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(dir, private).map_err(make)
}

/// The longest directory name: the kernel takes 107 bytes for a socket's path.
const LONGEST_DIR: usize = 107 - 1 - AGENT_ADMIN_SOCKET.len();

/// The first port that is looked at.
const FIRST_PORT: u16 = 20_000;

/// Linux hands out ports from 32768 on.
const LAST_PORT: u16 = 32_000;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_is_private_and_leaves_with_its_home() {
        let home = Home::make(None).unwrap();
        let dir = home.dir().to_owned();

        let mode = fs::metadata(&dir).unwrap().permissions().mode();
        drop(home);

        assert_eq!(mode & 0o777, 0o700);
        assert!(!dir.exists());
    }

    #[test]
    fn a_kept_directory_stays() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("kept");

        drop(Home::make(Some(&dir)).unwrap());

        assert!(dir.exists());
    }

    #[test]
    fn a_directory_with_files_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();

        let refused = Home::make(Some(dir.path()));

        assert!(matches!(refused, Err(HomeError::NotEmpty { .. })));
        assert!(dir.path().join("precious").exists());
    }

    #[test]
    fn a_directory_whose_sockets_would_not_fit_is_refused() {
        let dir = tempfile::tempdir().unwrap();

        let refused = Home::make(Some(&dir.path().join("x".repeat(LONGEST_DIR))));

        assert!(matches!(refused, Err(HomeError::TooLong { .. })));
    }

    #[test]
    fn the_world_cannot_be_listened_to() {
        for address in ["0.0.0.0", "10.0.0.1", "::", "192.168.1.1"] {
            let refused = ports(address.parse().unwrap(), None);
            assert!(matches!(refused, Err(HomeError::NotLoopback { .. })), "{address}");
        }
    }

    #[test]
    fn a_port_in_use_is_not_chosen() {
        let base = ports(Ipv4Addr::LOCALHOST.into(), None).unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, base + PORTS - 1)).unwrap();

        let refused = ports(Ipv4Addr::LOCALHOST.into(), Some(base));

        assert!(matches!(refused, Err(HomeError::Taken { .. })));
    }
}
