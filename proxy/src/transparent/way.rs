//! How the sidecar's own sockets are made: with the mark that tells them from its workload's, and, where the application
//! is to see its caller, from the caller's address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};

use crate::{
    config::Config,
    intercept::Mark,
    listener::{self, ConnectError},
};

/// How sockets are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Way {
    mark: Option<Mark>,
    /// Whose address is called from, where it is not our own.
    from: Option<IpAddr>,
}

impl Way {
    /// Returns the way of a proxy's own sockets.
    pub(crate) fn of(config: &Config) -> Self {
        Self { mark: config.transparent.as_ref().and_then(crate::config::Transparent::mark), from: None }
    }

    /// Calls from this address, which is another host's.
    pub(crate) fn from(self, address: IpAddr) -> Self {
        Self { from: Some(address.to_canonical()), ..self }
    }

    /// What our own sockets are marked with.
    pub(crate) fn marked(&self) -> Option<u32> {
        self.mark.map(Mark::get)
    }

    /// Marks a socket as ours.
    pub(crate) fn mark(&self, socket: SockRef<'_>) -> io::Result<()> {
        self.mark.map_or(Ok(()), |mark| socket.set_mark(mark.get()).map_err(privileged))
    }

    /// Connects within a time limit.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        limit: Duration,
    ) -> Result<TcpStream, ConnectError> {
        match timeout(limit, self.connect_to(address)).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => Err(ConnectError::Io(error)),
            Err(_) => Err(ConnectError::TimedOut),
        }
    }

    /// Connects to the first address of a host that answers.
    pub(crate) async fn connect_host(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((host, port)).await? {
            match self.connect_to(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.mark(SockRef::from(&socket))?;
        if let Some(from) = self.from {
            transparent(SockRef::from(&socket), address.is_ipv4())?;
            socket.bind(SocketAddr::from((from, 0)))?;
        }
        let stream = socket.connect(address).await?;
        listener::prepare(&stream, address);
        Ok(stream)
    }
}

/// Lets a socket have addresses that are not this host's.
pub(super) fn transparent(socket: SockRef<'_>, v4: bool) -> io::Result<()> {
    let set = if v4 { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) };
    set.map_err(privileged)
}

/// Says which right is missing: the kernel's words are those of any forbidden thing.
fn privileged(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => io::Error::other(NEEDS_RIGHT),
        _ => error,
    }
}

const NEEDS_RIGHT: &str = "interception by mark needs CAP_NET_ADMIN for as long as the sidecar runs; without it name the \
    sidecar's user in `transparent: {owner: {uids: [...]}}`";
