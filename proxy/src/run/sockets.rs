//! Every socket that a proxy listens on, by what it is for: opened, kept over a change of the configuration, or handed on
//! from process to process.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use super::{Ready, RunError};
use crate::{
    admin,
    config::Config,
    intercept::Mode,
    listener,
    transparent::{self, Way},
};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Callers of the workload.
    Inbound,
    /// Calls of the workload.
    Outbound,
    /// Tunnels of callers.
    Tunnel,
    /// Calls to the workload that the kernel redirects.
    Called,
    /// The same, with their addresses kept.
    CalledTransparently,
    /// Calls of the workload that the kernel brings.
    Calling,
    /// The admin interface, for probes and scrapers.
    Admin,
    /// The admin interface, for operators.
    AdminSocket,
    /// Whoever is to take over.
    Handover,
}

/// What a socket is for, and where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// As the configuration has it: its port may be 0.
    pub(crate) address: String,
    /// What the socket is marked with.
    pub(crate) mark: Option<u32>,
}

/// An open socket.
#[derive(Debug)]
pub(crate) enum Opened {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An open socket with what it is for.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) place: Place,
    pub(crate) opened: Opened,
}

impl Kind {
    fn is_unix(self) -> bool {
        match self {
            Self::AdminSocket | Self::Handover => true,
            Self::Inbound
            | Self::Outbound
            | Self::Tunnel
            | Self::Called
            | Self::CalledTransparently
            | Self::Calling
            | Self::Admin => false,
        }
    }

    /// Whether a socket for the one can be used for the other.
    fn is_like(self, other: Self) -> bool {
        let plain = |kind| matches!(kind, Self::Inbound | Self::Outbound | Self::Tunnel);
        self == other || (plain(self) && plain(other))
    }
}

impl Place {
    fn is_like(&self, other: &Self) -> bool {
        self.kind.is_like(other.kind) && self.address == other.address && self.mark == other.mark
    }
}

impl Opened {
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }

    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Bound {
    /// Takes a socket from another process, if it is what it is called.
    pub(crate) fn received(place: Place, socket: OwnedFd) -> Result<Self, &'static str> {
        if sockopt::socket_acceptconn(&socket) != Ok(true)
            || sockopt::socket_type(&socket) != Ok(SocketType::STREAM)
        {
            return Err("nobody can connect to it");
        }
        let domain = sockopt::socket_domain(&socket).map_err(|_| "it is no socket")?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|_| "it cannot be waited on")?;
        let opened = match (place.kind.is_unix(), domain) {
            (true, AddressFamily::UNIX) => Opened::Unix(UnixListener::from(socket)),
            (false, AddressFamily::INET | AddressFamily::INET6) => Opened::Tcp(TcpListener::from(socket)),
            (true | false, _) => return Err("it is of another family"),
        };
        let bound = Self { place, opened };
        if bound.is_in_place() { Ok(bound) } else { Err("it is bound elsewhere") }
    }

    fn is_in_place(&self) -> bool {
        match &self.opened {
            Opened::Tcp(socket) => {
                let (Ok(bound), Ok(wanted)) = (socket.local_addr(), self.place.address.parse::<SocketAddr>())
                else {
                    return false;
                };
                bound.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == bound.port())
            }
            Opened::Unix(socket) => {
                let bound = socket.local_addr().ok();
                bound.is_some_and(|bound| bound.as_pathname() == Some(Path::new(&self.place.address)))
            }
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { place: self.place.clone(), opened: self.opened.try_clone()? })
    }

    /// The port that is listened on.
    pub(super) fn port(&self) -> u16 {
        self.opened.address().map_or(0, |address| address.port())
    }

    /// The socket of a listener for connections over TCP.
    pub(super) fn tcp(&self) -> Option<&TcpListener> {
        match &self.opened {
            Opened::Tcp(socket) => Some(socket),
            Opened::Unix(_) => None,
        }
    }
}

/// Names every socket that a configuration wants.
pub(super) fn wanted(config: &Config) -> Vec<Place> {
    let mark = Way::of(config).marked();
    let marked = |kind, name: &str, address: SocketAddr| Place {
        kind,
        name: name.to_owned(),
        address: address.to_string(),
        mark,
    };
    let inbound = config.inbound.iter().map(|one| marked(Kind::Inbound, &one.name, one.listen));
    let outbound = config.outbound.iter().map(|one| marked(Kind::Outbound, &one.name, one.listen));
    let mut wanted: Vec<Place> = inbound.chain(outbound).collect();
    if let Some(transparent) = &config.transparent {
        let kind = match transparent.mode {
            Mode::Tproxy => Kind::CalledTransparently,
            Mode::Redirect => Kind::Called,
        };
        wanted.extend(transparent.inbound.iter().map(|called| marked(kind, TRANSPARENT, called.listen)));
        let calling = transparent.outbound.iter().flat_map(|calling| calling.listen.iter());
        wanted.extend(calling.map(|address| marked(Kind::Calling, TRANSPARENT, *address)));
    }
    wanted.extend(config.tunnel.iter().map(|tunnel| marked(Kind::Tunnel, "tunnel", tunnel.listen)));
    let own = |kind, address: String| Place { kind, name: "admin".to_owned(), address, mark: None };
    let path = |path: &Path| path.display().to_string();
    wanted.extend(config.admin.listen.map(|address| own(Kind::Admin, address.to_string())));
    wanted.extend(config.admin.socket.as_deref().map(|socket| own(Kind::AdminSocket, path(socket))));
    let handover = config.lifecycle.handover.as_ref().map(|handover| path(&handover.socket));
    wanted.extend(handover.map(|address| Place {
        kind: Kind::Handover,
        name: "handover".to_owned(),
        address,
        mark: None,
    }));
    wanted
}

/// Has a socket for everything that is wanted: those there are stay, what is missing is opened. Where that fails, nothing is
/// open that was not.
pub(super) async fn fit(config: &Config, have: Vec<Bound>) -> Result<Vec<Bound>, RunError> {
    let mut have: Vec<Option<Bound>> = have.into_iter().map(Some).collect();
    let mut places: Vec<(Place, Option<Bound>)> =
        wanted(config).into_iter().map(|place| (place, None)).collect();
    // By name first: several listeners may have asked for any port.
    for by_name in [true, false] {
        for (place, found) in places.iter_mut().filter(|(_, found)| found.is_none()) {
            let fits = |bound: &&mut Option<Bound>| {
                let there = bound.as_ref().map(|bound| &bound.place);
                there.is_some_and(|there| there.is_like(place) && (!by_name || there.name == place.name))
            };
            *found = have.iter_mut().find(fits).and_then(Option::take);
        }
    }
    let mut all = Vec::with_capacity(places.len());
    for (place, found) in places {
        let opened = match found {
            Some(bound) => bound.opened,
            None => open(&place, config).await?,
        };
        all.push(Bound { place, opened });
    }
    Ok(all)
}

/// Where the open sockets can be called.
pub(super) fn ready(config: &Config, sockets: &[Bound]) -> Ready {
    let addresses = |kind| {
        let of_kind = sockets.iter().filter(move |bound| bound.place.kind == kind);
        of_kind.filter_map(|bound| Some((bound.place.name.clone(), bound.opened.address()?)))
    };
    Ready {
        inbound: addresses(Kind::Inbound).collect(),
        outbound: addresses(Kind::Outbound).collect(),
        tunnel: addresses(Kind::Tunnel).map(|(_, address)| address).next(),
        admin: addresses(Kind::Admin).map(|(_, address)| address).next(),
        admin_socket: config.admin.socket.clone(),
    }
}

/// The sockets of the admin interface, on this runtime.
pub(super) fn admin(sockets: &[Bound]) -> io::Result<Vec<admin::Socket>> {
    let mut admin = Vec::new();
    for bound in sockets.iter().filter(|bound| matches!(bound.place.kind, Kind::Admin | Kind::AdminSocket)) {
        admin.push(match bound.opened.try_clone()? {
            Opened::Tcp(socket) => admin::Socket::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Opened::Unix(socket) => admin::Socket::Unix(tokio::net::UnixListener::from_std(socket)?),
        });
    }
    Ok(admin)
}

/// The socket where others ask for all of them, on this runtime.
pub(super) fn handover(sockets: &[Bound]) -> io::Result<Option<tokio::net::UnixListener>> {
    match sockets.iter().find(|bound| bound.place.kind == Kind::Handover).map(|bound| &bound.opened) {
        Some(Opened::Unix(socket)) => tokio::net::UnixListener::from_std(socket.try_clone()?).map(Some),
        Some(Opened::Tcp(_)) | None => Ok(None),
    }
}

async fn open(place: &Place, config: &Config) -> Result<Opened, RunError> {
    let failed =
        |source| RunError::Listen { name: place.name.clone(), address: place.address.clone(), source };
    match place.kind {
        Kind::AdminSocket => open_socket(Path::new(&place.address), ADMIN_MODE).map_err(failed),
        Kind::Handover => open_socket(Path::new(&place.address), HANDOVER_MODE).map_err(failed),
        kind => {
            let address = place.address.parse().map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
            open_tcp(kind, address, Way::of(config)).await.map(Opened::Tcp).map_err(failed)
        }
    }
}

async fn open_tcp(kind: Kind, address: SocketAddr, way: Way) -> io::Result<TcpListener> {
    match kind {
        Kind::CalledTransparently => transparent::listen(address, Mode::Tproxy, way),
        Kind::Called | Kind::Calling => transparent::listen(address, Mode::Redirect, way),
        Kind::Admin => listener::bind(address).await?.into_std(),
        Kind::Inbound | Kind::Outbound | Kind::Tunnel | Kind::AdminSocket | Kind::Handover => {
            let socket = listener::bind(address).await?.into_std()?;
            // Its mark is that of every socket that it accepts.
            way.mark((&socket).into())?;
            Ok(socket)
        }
    }
}

/// Opens a Unix socket. One that nobody answers on is left over and replaced.
fn open_socket(path: &Path, mode: u32) -> io::Result<Opened> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    let left_over = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if left_over {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listener.set_nonblocking(true)?;
    Ok(Opened::Unix(listener))
}

/// The owner and its group may ask.
const ADMIN_MODE: u32 = 0o770;
/// Who has the sockets is the sidecar: nobody else may ask.
const HANDOVER_MODE: u32 = 0o600;
const TRANSPARENT: &str = "transparent";

#[cfg(test)]
mod tests;
