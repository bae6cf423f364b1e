//! Every socket that a proxy listens on.

use std::{
    io,
    net::{SocketAddr, TcpListener as Listening},
    path::Path,
};

use tokio::net::{TcpListener, UnixListener};

use super::{Ready, RunError};
use crate::{
    admin::Socket,
    config::Config,
    listener,
    transparent::{self, Way},
};

/// Every open socket.
pub(super) struct Listeners {
    pub(super) inbound: Vec<Listening>,
    pub(super) outbound: Vec<Listening>,
    /// Where the rules of the network namespace bring calls to the workload, and calls of it.
    pub(super) called: Vec<Listening>,
    pub(super) calling: Vec<Listening>,
    pub(super) admin: Vec<Socket>,
}

impl Listeners {
    pub(super) async fn open(config: &Config) -> Result<Self, RunError> {
        let way = Way::of(config);
        let mut inbound = Vec::with_capacity(config.inbound.len());
        for listener in &config.inbound {
            inbound.push(plain(&listener.name, listener.listen, way).await?);
        }
        let mut outbound = Vec::with_capacity(config.outbound.len());
        for listener in &config.outbound {
            outbound.push(plain(&listener.name, listener.listen, way).await?);
        }
        let (called, calling) = transparent::open(config)
            .map_err(|(address, source)| failed("transparent", address, source))?;
        let mut admin = Vec::new();
        if let Some(address) = config.admin.listen {
            admin.push(Socket::Tcp(open("admin", address).await?));
        }
        if let Some(path) = &config.admin.socket {
            admin.push(Socket::Unix(open_socket(path)?));
        }
        Ok(Self { inbound, outbound, called, calling, admin })
    }

    pub(super) fn addresses(&self, config: &Config) -> Ready {
        let address = |listener: &Listening, configured| listener.local_addr().unwrap_or(configured);
        Ready {
            inbound: (config.inbound.iter().zip(&self.inbound))
                .map(|(config, listener)| (config.name.clone(), address(listener, config.listen)))
                .collect(),
            outbound: (config.outbound.iter().zip(&self.outbound))
                .map(|(config, listener)| (config.name.clone(), address(listener, config.listen)))
                .collect(),
            admin: self.admin.iter().find_map(|socket| match socket {
                Socket::Tcp(listener) => listener.local_addr().ok(),
                Socket::Unix(_) => None,
            }),
            admin_socket: config.admin.socket.clone(),
        }
    }
}

/// Opens a listener that belongs to no thread yet. Its mark is that of every socket that it accepts.
async fn plain(name: &str, address: SocketAddr, way: Way) -> Result<Listening, RunError> {
    let failed = |source| failed(name, address, source);
    let listener = open(name, address).await?.into_std().map_err(failed)?;
    way.mark((&listener).into()).map_err(failed)?;
    Ok(listener)
}

async fn open(name: &str, address: SocketAddr) -> Result<TcpListener, RunError> {
    listener::bind(address).await.map_err(|source| failed(name, address, source))
}

fn failed(name: &str, address: SocketAddr, source: io::Error) -> RunError {
    RunError::Listen { name: name.to_owned(), address: address.to_string(), source }
}

/// Opens a Unix socket for its owner and group. One that nobody answers on is left over and replaced.
fn open_socket(path: &Path) -> Result<UnixListener, RunError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    let failed =
        |source| RunError::Listen { name: "admin".to_owned(), address: path.display().to_string(), source };
    let left_over = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if left_over {
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}

/// The owner and its group may ask.
const SOCKET_MODE: u32 = 0o770;
