//! Listeners to which the kernel brings connections that were made to somebody else: calls to the workload at the
//! address that was called, and calls of the workload to the service that is found there.
//!
//! What a connection wanted is read once and believed only where it leads on: a destination that cannot be read, a port
//! of our own and an address that is not ours (or, on the way out, is) are refused and recorded.

mod doors;
mod inbound;
mod original;
mod outbound;
mod probe;
mod way;

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use inbound::TransparentInbound;
pub(crate) use outbound::TransparentOutbound;
pub(crate) use way::Way;

use crate::intercept::Mode;

/// Opens a listener. Its mark is that of every socket that it accepts, and the rules let no other in its place.
pub(crate) fn listen(address: SocketAddr, mode: Mode, way: Way) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The wildcard address takes both families; loopback has a listener for each.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    way.mark(SockRef::from(&socket))?;
    if mode == Mode::Tproxy {
        way::transparent(SockRef::from(&socket), true)?;
        way::transparent(SockRef::from(&socket), false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections that wait to be accepted: what the library asks for.
const BACKLOG: i32 = 1024;
