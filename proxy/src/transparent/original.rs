//! Where a connection wanted to go before the kernel brought it here, and what of that is believed.
//!
//! A destination that cannot be read is refused, and so is one that leads back to us: a connection that nobody brought
//! here shows our own address as its destination.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{config::Config, intercept::Mode};

/// Why a connection's destination is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// The kernel knows of none: nothing of ours brought it here.
    Unknown,
    /// It is a port of this sidecar.
    OwnPort,
    /// It is no address of this host, and we carry to no other.
    Elsewhere,
    /// It is an address of this host, or none that can be called.
    Here,
}

impl Astray {
    /// Returns the code that records carry.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Unknown => "no_original_destination",
            Self::OwnPort => "own_port",
            Self::Elsewhere => "not_an_address_of_this_host",
            Self::Here => "loop",
        }
    }
}

/// Reads the destination of a connection.
pub(super) fn read(socket: &TcpStream, mode: Mode) -> Result<SocketAddr, Astray> {
    let local = socket.local_addr().map_err(|_| Astray::Unknown)?;
    match mode {
        // The socket was chosen for its destination: that is its own address.
        Mode::Tproxy => Ok(canonical(local)),
        Mode::Redirect => redirected(socket, local).map_err(|_| Astray::Unknown),
    }
}

fn redirected(socket: &TcpStream, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let v4 = local.ip().to_canonical().is_ipv4();
    let original = if v4 { socket.original_dst_v4() } else { socket.original_dst_v6() }?;
    let original = original.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    Ok(canonical(original))
}

/// An IPv4 address that came in by an IPv6 socket is an IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// The ports where this sidecar listens.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnPorts(BTreeSet<u16>);

impl OwnPorts {
    pub(super) fn of(config: &Config) -> Self {
        let listeners = config.inbound.iter().map(|listener| listener.listen);
        let outbound = config.outbound.iter().map(|listener| listener.listen);
        let transparent = config.transparent.iter().flat_map(crate::config::Transparent::addresses);
        let tunnel = config.tunnel.iter().map(|tunnel| tunnel.listen);
        let all = listeners.chain(outbound).chain(config.admin.listen).chain(transparent).chain(tunnel);
        Self(all.map(|address| address.port()).filter(|port| *port != 0).collect())
    }

    /// Believes the destination of a call to the workload: an address of this host, and no port of ours.
    pub(super) fn called(&self, to: SocketAddr, is_ours: impl FnOnce(IpAddr) -> bool) -> Result<(), Astray> {
        let ip = to.ip();
        if self.0.contains(&to.port()) {
            return Err(Astray::OwnPort);
        }
        if to.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            return Err(Astray::Here);
        }
        if is_ours(ip) { Ok(()) } else { Err(Astray::Elsewhere) }
    }

    /// Believes the destination of a call of the workload: another host.
    pub(super) fn calling(&self, to: SocketAddr, is_ours: impl FnOnce(IpAddr) -> bool) -> Result<(), Astray> {
        let ip = to.ip();
        let here =
            to.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || is_ours(ip);
        match (here, self.0.contains(&to.port())) {
            (true, true) => Err(Astray::OwnPort),
            (true, false) => Err(Astray::Here),
            (false, _) => Ok(()),
        }
    }
}

/// Says whether an address is one of this host's: only those can be bound to.
pub(super) fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::from((ip, 0))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> OwnPorts {
        OwnPorts([15001, 15006, 15008, 15000].into())
    }

    fn to(text: &str) -> SocketAddr {
        canonical(text.parse().unwrap())
    }

    #[test]
    fn calls_to_the_workload_are_for_this_host_and_never_for_a_port_of_ours() {
        for port in [15001, 15006, 15008, 15000] {
            for ip in ["10.9.0.1", "127.0.0.1", "[fd00::1]", "[::1]", "[::ffff:10.9.0.1]"] {
                assert_eq!(
                    own().called(to(&format!("{ip}:{port}")), |_| true),
                    Err(Astray::OwnPort),
                    "{ip}:{port}"
                );
            }
        }
        for astray in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "10.9.0.1:0",
            "224.0.0.1:8080",
        ] {
            assert_eq!(own().called(to(astray), |_| true), Err(Astray::Here), "{astray}");
        }
        assert_eq!(own().called(to("10.9.0.2:8080"), |_| false), Err(Astray::Elsewhere));
        for good in ["10.9.0.1:8080", "[fd00::1]:8080", "[::ffff:10.9.0.1]:8080"] {
            assert_eq!(own().called(to(good), |_| true), Ok(()), "{good}");
        }
    }

    #[test]
    fn calls_of_the_workload_are_for_other_hosts() {
        assert_eq!(own().calling(to("192.0.2.1:443"), |_| false), Ok(()));
        assert_eq!(
            own().calling(to("192.0.2.1:15008"), |_| false),
            Ok(()),
            "another sidecar's port is not ours"
        );
        assert_eq!(own().calling(to("10.9.0.1:15001"), |_| true), Err(Astray::OwnPort));
        assert_eq!(own().calling(to("127.0.0.1:15001"), |_| false), Err(Astray::OwnPort));
        assert_eq!(own().calling(to("10.9.0.1:80"), |_| true), Err(Astray::Here));
        assert_eq!(own().calling(to("[::1]:80"), |_| false), Err(Astray::Here));
    }

    #[test]
    fn addresses_of_this_host_are_told_from_others() {
        assert!(is_ours("127.0.0.1".parse().unwrap()));
        assert!(!is_ours("192.0.2.1".parse().unwrap()));
        assert!(!is_ours("2001:db8::1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_connection_that_nobody_brought_here_has_no_destination_or_our_own() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let own = OwnPorts([address.port()].into());

        let believed = read(&socket, Mode::Redirect).and_then(|to| own.called(to, |_| true));
        let chosen = read(&socket, Mode::Tproxy).and_then(|to| own.called(to, |_| true));

        assert!(matches!(believed, Err(Astray::Unknown | Astray::OwnPort)), "{believed:?}");
        assert_eq!(chosen, Err(Astray::OwnPort));
    }
}
