//! Which door an authority leads to: the address has to be the one that was called, the port one of our workload's.
//!
//! An authority is never dialled. It chooses among the doors there are, so that no caller reaches an address of its choice.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::authority;
use crate::{inbound::Door, transparent::TransparentInbound};

/// The doors that tunnels lead to, by the ports that callers name.
pub(super) struct Destinations {
    /// By the port of the listener, which is how policies name the door.
    listening: HashMap<u16, Arc<Door>>,
    /// By the port of the application, as callers name it that know of no listener; none where two doors share it.
    application: HashMap<u16, Option<Arc<Door>>>,
    /// Any other port, where calls to the workload are captured.
    captured: Option<TransparentInbound>,
    /// Other addresses by which this host is called.
    own: Vec<IpAddr>,
}

/// Why a stream leads nowhere. The texts are codes of audit records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// The authority cannot be read, or is a name.
    Unreadable,
    /// It is not the address that was called.
    OtherAddress,
    /// It is an address that nobody may be sent to.
    Forbidden,
    /// No door has the port, or two have.
    NoDoor,
}

impl Astray {
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "authority",
            Self::OtherAddress => "tunnel_address",
            Self::Forbidden => "tunnel_forbidden_address",
            Self::NoDoor => "tunnel_port",
        }
    }
}

impl Destinations {
    pub(super) fn new(doors: &[Arc<Door>], captured: Option<TransparentInbound>, own: &[IpAddr]) -> Self {
        let listening = doors.iter().map(|door| (door.port, Arc::clone(door))).collect();
        let mut application = HashMap::new();
        for door in doors {
            let port = door.application().port();
            application.entry(port).and_modify(|door| *door = None).or_insert(Some(Arc::clone(door)));
        }
        Self { listening, application, captured, own: own.iter().map(IpAddr::to_canonical).collect() }
    }

    /// Finds the door that `authority` names on a tunnel that arrived at `called`, made by `from`.
    pub(super) fn find(
        &self,
        authority: &str,
        called: IpAddr,
        from: SocketAddr,
    ) -> Result<Arc<Door>, Astray> {
        let wanted = authority::parse(authority).ok_or(Astray::Unreadable)?;
        check(wanted.ip(), called.to_canonical(), &self.own)?;
        let of_application = || self.application.get(&wanted.port()).and_then(Option::as_ref);
        if let Some(door) = self.listening.get(&wanted.port()).or_else(of_application) {
            return Ok(Arc::clone(door));
        }
        let captured = self.captured.as_ref().ok_or(Astray::NoDoor)?;
        captured.named(SocketAddr::new(called, wanted.port()), from).ok_or(Astray::NoDoor)
    }
}

/// Believes an address that a caller names: the one that was called, or another of `own`.
fn check(ip: IpAddr, called: IpAddr, own: &[IpAddr]) -> Result<(), Astray> {
    if is_forbidden(ip, called) {
        return Err(Astray::Forbidden);
    }
    if ip == called || own.contains(&ip) { Ok(()) } else { Err(Astray::OtherAddress) }
}

/// Addresses that mean something else to whoever names them than to us. Loopback is one, except on a tunnel that itself came
/// over it: such a caller is on this host.
fn is_forbidden(ip: IpAddr, called: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip == Ipv4Addr::BROADCAST,
        IpAddr::V6(_) => false,
    };
    link_local
        || ip.is_unspecified()
        || ip.is_multicast()
        || (ip.is_loopback() && (!called.is_loopback() || ip != called))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_called_address_and_our_own_are_believed() {
        let own = [ip("203.0.113.7")];

        for (named, called) in [
            ("10.9.0.2", "10.9.0.2"),
            ("203.0.113.7", "10.9.0.2"),
            ("2001:db8::2", "2001:db8::2"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "::1"),
        ] {
            assert_eq!(check(ip(named), ip(called), &own), Ok(()), "{named}");
        }
    }

    /// Attack case 19.
    #[test]
    fn no_other_address_is() {
        for (named, astray) in [
            ("127.0.0.1", Astray::Forbidden),
            ("127.0.0.53", Astray::Forbidden),
            ("::1", Astray::Forbidden),
            ("169.254.169.254", Astray::Forbidden),
            ("169.254.7.127", Astray::Forbidden),
            ("0.0.0.0", Astray::Forbidden),
            ("::", Astray::Forbidden),
            ("224.0.0.1", Astray::Forbidden),
            ("ff02::1", Astray::Forbidden),
            ("255.255.255.255", Astray::Forbidden),
            ("10.9.0.1", Astray::OtherAddress),
            ("10.9.0.3", Astray::OtherAddress),
            ("fd00:ec2::254", Astray::OtherAddress),
            ("8.8.8.8", Astray::OtherAddress),
        ] {
            assert_eq!(check(ip(named), ip("10.9.0.2"), &[]), Err(astray), "{named}");
        }
    }

    #[test]
    fn an_address_that_means_something_else_elsewhere_is_refused_though_it_was_listed() {
        for named in ["127.0.0.1", "169.254.169.254", "0.0.0.0"] {
            let refused = check(ip(named), ip("10.9.0.2"), &[ip(named)]);
            assert_eq!(refused, Err(Astray::Forbidden), "{named}");
        }
    }
}
