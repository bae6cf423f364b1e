//! Which door an authority leads to: the address has to be the one that was called, the port one of our workload's.
//!
//! An authority is never dialled. It chooses among the doors there are, so that no caller reaches an address of its choice.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use super::authority;
use crate::inbound::Door;

/// The doors that tunnels lead to, by the ports that callers name.
pub(super) struct Destinations {
    /// By the port of the listener, which is how policies name the door.
    listening: HashMap<u16, Arc<Door>>,
    /// By the port of the application, as callers name it that know of no listener; none where two doors share it.
    application: HashMap<u16, Option<Arc<Door>>>,
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
    pub(super) fn new(doors: &[Arc<Door>], own: &[IpAddr]) -> Self {
        let listening = doors.iter().map(|door| (door.port, Arc::clone(door))).collect();
        let mut application = HashMap::new();
        for door in doors {
            let port = door.application().port();
            application.entry(port).and_modify(|door| *door = None).or_insert(Some(Arc::clone(door)));
        }
        Self { listening, application, own: own.iter().map(IpAddr::to_canonical).collect() }
    }

    /// Finds the door that `authority` names on a tunnel that arrived at `called`.
    pub(super) fn find(&self, authority: &str, called: IpAddr) -> Result<&Arc<Door>, Astray> {
        let wanted = authority::parse(authority).ok_or(Astray::Unreadable)?;
        let (ip, called) = (wanted.ip(), called.to_canonical());
        if is_forbidden(ip, called) {
            return Err(Astray::Forbidden);
        }
        if ip != called && !self.own.contains(&ip) {
            return Err(Astray::OtherAddress);
        }
        let of_application = || self.application.get(&wanted.port()).and_then(Option::as_ref);
        self.listening.get(&wanted.port()).or_else(of_application).ok_or(Astray::NoDoor)
    }
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
