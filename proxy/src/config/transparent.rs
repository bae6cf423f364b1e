//! Interception: what is brought to the sidecar by the rules of the network namespace, and what becomes of it.

mod probe;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::SystemTime,
};

use ipnet::IpNet;
use policy::strict::{Fields, Node, Reader};

pub use probe::Probe;
pub(super) use probe::probes;

use super::{Config, Protocol, Tunnelling, reading::present, tunnel};
use crate::intercept::{self, Callers, Cgroup, Mark, Mode, Namespace, Own, Plan, Ports, Udp, Who};

/// Interception of the workload's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transparent {
    /// How callers come to the sidecar.
    pub mode: Mode,
    /// How the sidecar's own sockets are told from its workload's.
    pub own: Own,
    /// Calls to the workload.
    pub inbound: Option<Called>,
    /// Calls of the workload.
    pub outbound: Option<Calling>,
    /// What becomes of calls to where no service is.
    pub outbound_unknown: Unknown,
}

/// Calls to the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Where the rules bring them: a wildcard address, so that every address of the host is meant.
    pub listen: SocketAddr,
    /// What is known of single ports.
    pub ports: Vec<CalledPort>,
    /// Whether only those ports are captured.
    pub capture: Capture,
    /// What every other port speaks.
    pub default_protocol: Protocol,
    /// TCP ports that everybody reaches past the sidecar.
    pub danger_open_ports: BTreeSet<u16>,
    /// UDP ports that everybody reaches.
    pub danger_open_udp_ports: BTreeSet<u16>,
}

/// Which ports are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// All.
    All,
    /// Those of the list.
    Listed,
}

/// One port of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalledPort {
    /// The port.
    pub port: u16,
    /// Its name in records and metrics.
    pub name: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Until when callers that prove nothing are let in, for a migration.
    pub danger_permissive_until: Option<SystemTime>,
}

/// Calls of the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calling {
    /// Where the rules bring them, on loopback: one address of each family.
    pub listen: Vec<SocketAddr>,
    /// Whose calls are captured.
    pub who: Who,
    /// The CA, which is always reached directly.
    pub ca: BTreeSet<SocketAddr>,
    /// TCP ports that are called past the sidecar.
    pub danger_exempt_ports: BTreeSet<u16>,
    /// Networks that are called past the sidecar.
    pub danger_exempt_networks: BTreeSet<IpNet>,
    /// What becomes of UDP other than DNS.
    pub udp: Udp,
    /// Whether services are reached through tunnels.
    pub tunnel: Tunnelling,
}

/// What becomes of calls to where no service is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are reset, and recorded.
    #[default]
    Deny,
    /// They are carried as they are, in plaintext, to whoever answers.
    DangerPassthrough,
}

impl Transparent {
    /// Returns the mark of the sidecar's own sockets.
    pub(crate) fn mark(&self) -> Option<Mark> {
        match self.own {
            Own::Mark(mark) => Some(mark),
            Own::Owner { .. } => None,
        }
    }

    /// Returns what the rules of the network namespace are to do.
    pub fn plan(&self, config: &Config) -> Plan {
        let tunnel = config.tunnel.iter().map(|tunnel| tunnel.listen);
        let reached = config.inbound.iter().map(|listener| listener.listen).chain(tunnel);
        let own = reached.filter(|address| !address.ip().is_loopback()).map(|address| address.port());
        let calls = self.inbound.as_ref().map(|called| intercept::Calls {
            to: called.listen.port(),
            ports: match called.capture {
                Capture::All => Ports::All,
                Capture::Listed => Ports::Only(called.ports.iter().map(|port| port.port).collect()),
            },
            own: own.collect(),
            danger_open_ports: called.danger_open_ports.clone(),
            danger_open_udp_ports: called.danger_open_udp_ports.clone(),
        });
        let callers = self.outbound.as_ref().map(|calling| Callers {
            to: calling.listen.first().map_or(OUTBOUND_PORT, SocketAddr::port),
            who: calling.who.clone(),
            ca: calling.ca.clone(),
            danger_exempt_ports: calling.danger_exempt_ports.clone(),
            danger_exempt_networks: calling.danger_exempt_networks.clone(),
            udp: calling.udp.clone(),
        });
        Plan { mode: self.mode, own: self.own.clone(), calls, callers }
    }

    /// Every address where interception listens.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let inbound = self.inbound.iter().map(|called| called.listen);
        inbound.chain(self.outbound.iter().flat_map(|calling| calling.listen.iter().copied()))
    }
}

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Transparent> {
    let mut map = read.map(node)?;
    let mode = map.optional("mode").map(|node| read.one_of(node, &["redirect", "tproxy"]));
    let mark = map.optional("mark").map(|node| read.parsed::<Mark>(node, "a mark like 0x539"));
    let owner = map.optional("owner").map(|node| self::owner(node, read));
    let inbound = map.optional("inbound").map(|node| called(node, read));
    let outbound = map.optional("outbound").map(|node| calling(node, read));
    let unknown =
        map.optional("outbound_unknown").map(|node| read.one_of(node, &["deny", "danger_passthrough"]));
    map.finish(read);
    let own = match (present(mark)?, present(owner)?) {
        (mark, None) => Own::Mark(mark.unwrap_or(Mark::DEFAULT)),
        (None, Some(owner)) => owner,
        (Some(_), Some(_)) => {
            read.problem(node, "expected \"mark\" or \"owner\", not both", None);
            return None;
        }
    };
    let mode = if present(mode)? == Some("tproxy") { Mode::Tproxy } else { Mode::Redirect };
    let outbound_unknown = match present(unknown)? {
        Some("danger_passthrough") => Unknown::DangerPassthrough,
        Some(_) | None => Unknown::Deny,
    };
    Some(Transparent {
        mode,
        own,
        inbound: present(inbound)?,
        outbound: present(outbound)?,
        outbound_unknown,
    })
}

/// Says what about interception does not go together with itself or the rest.
pub(super) fn conflict(config: &Config) -> Option<String> {
    let Some(transparent) = &config.transparent else {
        let unused = !config.probes.is_empty();
        return unused.then(|| "\"probes\" need \"transparent\" with \"inbound\"".to_owned());
    };
    if transparent.inbound.is_none() && !config.probes.is_empty() {
        return Some("\"probes\" need \"transparent\" with \"inbound\"".to_owned());
    }
    if transparent.inbound.is_some() && config.policies.is_none() {
        return Some("calls to the workload need \"policies\", a directory".to_owned());
    }
    let ours: BTreeSet<u16> = transparent.addresses().map(|address| address.port()).collect();
    let inbound = config.inbound.iter().map(|listener| listener.listen);
    let outbound = config.outbound.iter().map(|listener| listener.listen);
    let tunnel = config.tunnel.iter().map(|tunnel| tunnel.listen);
    let others = inbound.chain(outbound).chain(tunnel).chain(config.admin.listen);
    if let Some(taken) = others.into_iter().find(|address| ours.contains(&address.port())) {
        return Some(format!("interception and another listener have port {}", taken.port()));
    }
    // Whether the namespace is shared is known where the rules are installed.
    let problem = transparent.plan(config).check(Namespace::Own).err()?;
    Some(format!("\"transparent\": {problem}"))
}

fn owner(node: &Node, read: &mut Reader<'_>) -> Option<Own> {
    let mut map = read.map(node)?;
    let uids = ids(&mut map, "uids", read);
    let gids = ids(&mut map, "gids", read);
    map.finish(read);
    Some(Own::Owner { uids: uids?, gids: gids? })
}

fn called(node: &Node, read: &mut Reader<'_>) -> Option<Called> {
    let mut map = read.map(node)?;
    let listen = map.optional("listen").map(|node| wildcard(node, read));
    let ports = match map.optional("ports") {
        None => Some(Vec::new()),
        Some(node) => read.each(node, MAX_PORTS, called_port),
    };
    let capture = map.optional("capture").map(|node| read.one_of(node, &["all", "listed"]));
    let default = map.optional("default_protocol").map(|node| protocol(node, read));
    let open = self::ports(&mut map, "danger_open_ports", read);
    let open_udp = self::ports(&mut map, "danger_open_udp_ports", read);
    map.finish(read);
    let capture = if present(capture)? == Some("listed") { Capture::Listed } else { Capture::All };
    let ports = ports?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = ports.iter().find(|port| !seen.insert(port.port)) {
        read.problem(node, format!("port {} is listed twice", twice.port), None);
        return None;
    }
    Some(Called {
        listen: present(listen)?.unwrap_or(SocketAddr::from((Ipv6Addr::UNSPECIFIED, INBOUND_PORT))),
        ports,
        capture,
        default_protocol: present(default)?.unwrap_or(DEFAULT_PROTOCOL),
        danger_open_ports: open?,
        danger_open_udp_ports: open_udp?,
    })
}

fn called_port(read: &mut Reader<'_>, node: &Node) -> Option<CalledPort> {
    let mut map = read.map(node)?;
    let port = map.required("port", read).and_then(|node| self::port(node, read));
    let name = map.optional("name").map(|node| super::reading::label(node, read));
    let protocol = map.required("protocol", read).and_then(|node| self::protocol(node, read));
    let permissive = map.optional("danger_permissive").map(|node| super::reading::permissive(node, read));
    map.finish(read);
    let (port, name) = (port?, present(name)?);
    let name = name.unwrap_or_else(|| format!("port-{port}"));
    Some(CalledPort { port, name, protocol: protocol?, danger_permissive_until: present(permissive)? })
}

fn calling(node: &Node, read: &mut Reader<'_>) -> Option<Calling> {
    let mut map = read.map(node)?;
    let listen = map.optional("listen").map(|node| outbound_listen(node, read));
    let who = map.optional("capture").map(|node| self::who(node, read));
    let ca = set(&mut map, "ca", "an address like 192.0.2.1:8081", read);
    let ports = self::ports(&mut map, "danger_exempt_ports", read);
    let networks = set(&mut map, "danger_exempt_networks", "a network like 10.0.0.0/8", read);
    let udp = map.optional("danger_udp").map(|node| udp(node, read));
    let tunnel = tunnel::tunnelling(&mut map, read);
    map.finish(read);
    let usual = || {
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(|ip: IpAddr| (ip, OUTBOUND_PORT).into())
    };
    Some(Calling {
        listen: present(listen)?.unwrap_or_else(|| usual().to_vec()),
        who: present(who)?.unwrap_or(Who::Everyone),
        ca: ca?,
        danger_exempt_ports: ports?,
        danger_exempt_networks: networks?,
        udp: present(udp)?.unwrap_or_default(),
        tunnel: tunnel?,
    })
}

/// One address of each family on loopback, with one port: where the kernel brings redirected calls.
fn outbound_listen(node: &Node, read: &mut Reader<'_>) -> Option<Vec<SocketAddr>> {
    let addresses =
        read.each(node, 2, |read, node| read.parsed::<SocketAddr>(node, "an address like 127.0.0.1:15001"))?;
    let ports: BTreeSet<u16> = addresses.iter().map(SocketAddr::port).collect();
    let families: BTreeSet<bool> = addresses.iter().map(SocketAddr::is_ipv6).collect();
    let redirected = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    let good = addresses.iter().all(|address| redirected.contains(&address.ip()));
    if good && ports.len() == 1 && !ports.contains(&0) && families.len() == 2 {
        return Some(addresses);
    }
    read.problem(
        node,
        "expected 127.0.0.1 and [::1], both with the same port: the rules bring calls there",
        None,
    );
    None
}

fn wildcard(node: &Node, read: &mut Reader<'_>) -> Option<SocketAddr> {
    let address: SocketAddr = read.parsed(node, "an address like [::]:15006")?;
    if address.ip() == Ipv6Addr::UNSPECIFIED && address.port() != 0 {
        return Some(address);
    }
    read.problem(
        node,
        format!("{address} is not the IPv6 wildcard address with a port"),
        Some("use [::]:15006, which takes IPv4 as well: callers keep the address that they called"),
    );
    None
}

fn who(node: &Node, read: &mut Reader<'_>) -> Option<Who> {
    if !node.is_map() {
        return read.one_of(node, &["all"]).map(|_| Who::Everyone);
    }
    let mut map = read.map(node)?;
    let uids = map.optional("uids").map(|node| numbers(node, read));
    let cgroup = map
        .optional("cgroup")
        .map(|node| read.parsed::<Cgroup>(node, "a path like system.slice/api.service"));
    map.finish(read);
    match (present(uids)?, present(cgroup)?) {
        (Some(uids), None) => Some(Who::Users(uids)),
        (None, Some(cgroup)) => Some(Who::Cgroup(cgroup)),
        (None, None) | (Some(_), Some(_)) => {
            read.problem(node, "expected \"all\", {uids: [...]} or {cgroup: PATH}", None);
            None
        }
    }
}

fn udp(node: &Node, read: &mut Reader<'_>) -> Option<Udp> {
    if !node.is_list() {
        return read.one_of(node, &["all"]).map(|_| Udp::DangerLeave);
    }
    let ports = read.each(node, MAX_PORTS, |read, node| port(node, read))?;
    Some(Udp::DangerPorts(ports.into_iter().collect()))
}

fn protocol(node: &Node, read: &mut Reader<'_>) -> Option<Protocol> {
    super::reading::protocol_word(node, read)
}

fn port(node: &Node, read: &mut Reader<'_>) -> Option<u16> {
    read.integer(node, 1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

fn ports(map: &mut Fields<'_>, key: &'static str, read: &mut Reader<'_>) -> Option<BTreeSet<u16>> {
    match map.optional(key) {
        None => Some(BTreeSet::new()),
        Some(node) => Some(read.each(node, MAX_PORTS, |read, node| port(node, read))?.into_iter().collect()),
    }
}

fn ids(map: &mut Fields<'_>, key: &'static str, read: &mut Reader<'_>) -> Option<BTreeSet<u32>> {
    map.optional(key).map_or_else(|| Some(BTreeSet::new()), |node| numbers(node, read))
}

fn numbers(node: &Node, read: &mut Reader<'_>) -> Option<BTreeSet<u32>> {
    // The last number stands for no user.
    let one = |read: &mut Reader<'_>, node: &Node| {
        read.integer(node, 0..=u64::from(u32::MAX - 1)).and_then(|id| u32::try_from(id).ok())
    };
    Some(read.each(node, MAX_PORTS, one)?.into_iter().collect())
}

fn set<T>(map: &mut Fields<'_>, key: &'static str, wanted: &str, read: &mut Reader<'_>) -> Option<BTreeSet<T>>
where
    T: FromStr + Ord,
    T::Err: std::fmt::Display,
{
    match map.optional(key) {
        None => Some(BTreeSet::new()),
        Some(node) => {
            Some(read.each(node, MAX_PORTS, |read, node| read.parsed(node, wanted))?.into_iter().collect())
        }
    }
}

/// Where calls to the workload come, as in other meshes.
pub const INBOUND_PORT: u16 = 15006;
/// Where calls of the workload come.
pub const OUTBOUND_PORT: u16 = 15001;
/// Without another word the first bytes say what is spoken.
const DEFAULT_PROTOCOL: Protocol = Protocol::Auto;
/// Most ports, users or networks of one list.
const MAX_PORTS: usize = crate::intercept::MAX_PORTS;
