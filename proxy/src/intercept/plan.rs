//! What is to be captured: typed, bounded and checked for contradictions.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
};

use ipnet::IpNet;

use super::{Cgroup, Namespace, ROUTE_MARK};

/// What is to be captured, and what is let past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How callers come to the sidecar.
    pub mode: Mode,
    /// How the sidecar's own traffic is told from its workload's.
    pub own: Own,
    /// Calls to the workload.
    pub calls: Option<Calls>,
    /// Calls of the workload.
    pub callers: Option<Callers>,
}

/// How callers come to the sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The destination is rewritten. The application sees calls from its own host.
    #[default]
    Redirect,
    /// The socket is chosen. The application sees the caller's address.
    Tproxy,
}

/// How the sidecar's own traffic is told from its workload's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// By a mark, which takes `CAP_NET_ADMIN` to set: no application can forge it without.
    Mark(Mark),
    /// By who owns the sockets: enough where the application can never run as one of them.
    Owner {
        /// Users.
        uids: BTreeSet<u32>,
        /// Groups.
        gids: BTreeSet<u32>,
    },
}

/// A mark of sockets and packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(NonZeroU32);

impl Mark {
    /// The usual one.
    pub const DEFAULT: Self = Self(DEFAULT_MARK);

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:#x}", self.0)
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let number = match text.strip_prefix("0x") {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                u32::from_str_radix(digits, 16).ok()
            }
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
            Some(_) | None => None,
        };
        let mark = number.and_then(NonZeroU32::new).ok_or(MarkError::Number)?;
        if mark.get() == ROUTE_MARK { Err(MarkError::Taken) } else { Ok(Self(mark)) }
    }
}

/// Why a text is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// It is no number from 1 to 0xffffffff.
    #[error("it is not a number from 1 to 0xffffffff")]
    Number,
    /// Packets that keep their caller's address have it.
    #[error("the rules use 0x111 themselves")]
    Taken,
}

/// Calls to the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// The port where the sidecar takes them.
    pub to: u16,
    /// Which are captured.
    pub ports: Ports,
    /// Ports of the sidecar itself that other hosts may call: they speak mutual TLS there.
    pub own: BTreeSet<u16>,
    /// TCP ports that everybody reaches past the sidecar.
    pub danger_open_ports: BTreeSet<u16>,
    /// UDP ports that everybody reaches.
    pub danger_open_udp_ports: BTreeSet<u16>,
}

/// Which ports of the workload are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ports {
    /// All: for a namespace of its own.
    All,
    /// These.
    Only(BTreeSet<u16>),
}

/// Calls of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callers {
    /// The port where the sidecar takes them.
    pub to: u16,
    /// Whose are captured.
    pub who: Who,
    /// The CA, which is always reached directly. Where none is named, its usual port.
    pub ca: BTreeSet<SocketAddr>,
    /// TCP ports that are called past the sidecar.
    pub danger_exempt_ports: BTreeSet<u16>,
    /// Networks that are called past the sidecar.
    pub danger_exempt_networks: BTreeSet<IpNet>,
    /// What becomes of UDP other than DNS.
    pub udp: Udp,
}

/// Whose calls are captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Everybody's: for a namespace of its own.
    Everyone,
    /// Those of these users.
    Users(BTreeSet<u32>),
    /// Those of the processes of a cgroup.
    Cgroup(Cgroup),
}

/// What becomes of UDP other than DNS: QUIC, first of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Udp {
    /// It is refused, as everything that is no TCP.
    #[default]
    Drop,
    /// These ports may be called.
    DangerPorts(BTreeSet<u16>),
    /// All may.
    DangerLeave,
}

impl Plan {
    /// Says whether traffic is captured that is named by nobody.
    pub fn captures_everything(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| calls.ports == Ports::All)
            || self.callers.as_ref().is_some_and(|callers| callers.who == Who::Everyone)
    }

    pub(super) fn cgroup(&self) -> Option<&Cgroup> {
        match &self.callers.as_ref()?.who {
            Who::Cgroup(cgroup) => Some(cgroup),
            Who::Everyone | Who::Users(_) => None,
        }
    }

    /// Refuses what contradicts itself, or would lock people out.
    pub fn check(&self, namespace: Namespace) -> Result<(), PlanError> {
        if self.calls.is_none() && self.callers.is_none() {
            return Err(PlanError::Nothing);
        }
        match (&self.own, self.mode) {
            (Own::Owner { .. }, Mode::Tproxy) => return Err(PlanError::TproxyNeedsMark),
            (Own::Owner { uids, gids }, Mode::Redirect) if uids.is_empty() && gids.is_empty() => {
                return Err(PlanError::NoOwner);
            }
            (Own::Owner { .. } | Own::Mark(_), _) => {}
        }
        if self.mode == Mode::Tproxy && self.calls.is_none() {
            return Err(PlanError::TproxyNeedsCalls);
        }
        if let (Some(calls), Some(callers)) = (&self.calls, &self.callers)
            && calls.to == callers.to
        {
            return Err(PlanError::OnePort { port: calls.to });
        }
        self.calls.as_ref().map_or(Ok(()), |calls| calls.check(namespace))?;
        let own = match &self.own {
            Own::Owner { uids, .. } => uids.clone(),
            Own::Mark(_) => BTreeSet::new(),
        };
        self.callers.as_ref().map_or(Ok(()), |callers| callers.check(namespace, &own))
    }
}

impl Calls {
    fn check(&self, namespace: Namespace) -> Result<(), PlanError> {
        let sets = [&self.own, &self.danger_open_ports, &self.danger_open_udp_ports];
        let only = match &self.ports {
            Ports::All => None,
            Ports::Only(ports) => Some(ports),
        };
        if sets.into_iter().chain(only).any(|set| set.len() > MAX_PORTS) {
            return Err(PlanError::TooMany { what: "ports", most: MAX_PORTS });
        }
        if only.is_some_and(BTreeSet::is_empty) {
            return Err(PlanError::Nothing);
        }
        let open = self.own.union(&self.danger_open_ports);
        if let Some(port) =
            open.copied().find(|port| *port == self.to || only.is_some_and(|only| only.contains(port)))
        {
            return Err(PlanError::CapturedAndOpen { port });
        }
        // Who captures SSH on a host needs another way in to undo it.
        if namespace == Namespace::Shared && only.is_some_and(|only| only.contains(&SSH)) {
            return Err(PlanError::Ssh);
        }
        Ok(())
    }
}

impl Callers {
    fn check(&self, namespace: Namespace, own: &BTreeSet<u32>) -> Result<(), PlanError> {
        let udp = match &self.udp {
            Udp::DangerPorts(ports) => ports.len(),
            Udp::Drop | Udp::DangerLeave => 0,
        };
        if self.danger_exempt_ports.len().max(udp) > MAX_PORTS {
            return Err(PlanError::TooMany { what: "ports", most: MAX_PORTS });
        }
        if self.danger_exempt_networks.len().max(self.ca.len()) > MAX_NETWORKS {
            return Err(PlanError::TooMany { what: "networks", most: MAX_NETWORKS });
        }
        let Who::Users(users) = &self.who else { return Ok(()) };
        if users.is_empty() {
            return Err(PlanError::Nothing);
        }
        if users.len() > MAX_PORTS {
            return Err(PlanError::TooMany { what: "users", most: MAX_PORTS });
        }
        if namespace == Namespace::Shared && users.contains(&0) {
            return Err(PlanError::Root);
        }
        match users.intersection(own).next() {
            Some(&uid) => Err(PlanError::CapturedOwner { uid }),
            None => Ok(()),
        }
    }

    /// The addresses of the CA, or none where its usual port is meant.
    pub(super) fn ca_of(&self, v6: bool) -> impl Iterator<Item = (IpAddr, u16)> {
        self.ca
            .iter()
            .map(|address| (address.ip().to_canonical(), address.port()))
            .filter(move |(ip, _)| ip.is_ipv6() == v6)
    }
}

/// Why a plan cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is to be captured.
    #[error("nothing is to be captured: name what is called, who calls, or both")]
    Nothing,
    /// More than is accepted.
    #[error("more than {most} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        most: usize,
    },
    /// Both listeners have one port.
    #[error("calls in both directions are to come to port {port}")]
    OnePort {
        /// The port.
        port: u16,
    },
    /// A port cannot be captured and open.
    #[error("port {port} is to be captured and open")]
    CapturedAndOpen {
        /// The port.
        port: u16,
    },
    /// Keeping the caller's address takes a privilege with which the mark can be set, too.
    #[error("tproxy works with the mark, not with the owner of the sockets")]
    TproxyNeedsMark,
    /// Only calls to the workload have an address to keep.
    #[error("tproxy is for calls to the workload, and none are captured")]
    TproxyNeedsCalls,
    /// The sidecar's own traffic would come back to it.
    #[error("the sidecar's user or group is not named, and its own traffic would come back to it")]
    NoOwner,
    /// The sidecar's own traffic would come back to it.
    #[error("user {uid} is the sidecar's, whose calls cannot be captured")]
    CapturedOwner {
        /// The user.
        uid: u32,
    },
    /// Who works on the host would lose it.
    #[error("port 22 is never captured in a shared namespace")]
    Ssh,
    /// The agent, the package manager and everybody's shell run as root.
    #[error("the calls of user 0 are never captured in a shared namespace")]
    Root,
    /// The agent has to reach the CA.
    #[error("user {uid} is the agent's, whose calls are never captured")]
    Agent {
        /// The user.
        uid: u32,
    },
}

/// 0x539, as in other meshes.
const DEFAULT_MARK: NonZeroU32 = NonZeroU32::new(0x539).unwrap();
/// Most ports, or users, of one kind.
pub const MAX_PORTS: usize = 1_024;
/// Most networks.
const MAX_NETWORKS: usize = 1_024;
/// SSH.
pub(super) const SSH: u16 = 22;
/// The CA, where its address is not named.
pub(super) const CA: u16 = 8081;
