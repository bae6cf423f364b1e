//! Where calls may go: the services of the configuration itself, and where others come from.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf};

use policy::{
    service::Service,
    strict::{Fields, Node, Reader},
};

use super::Outbound;
use crate::balance::Locality;

/// Where calls may go.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// Those of the configuration itself.
    pub own: Vec<Service>,
    /// A directory of `services/v1` files.
    pub directory: Option<PathBuf>,
    /// Who else names services.
    pub from: ServicesFrom,
    /// Where the highest number of a set of the CA's services is kept, so that no restart forgets it.
    pub state_dir: Option<PathBuf>,
    /// Where this sidecar is, so that calls can stay near.
    pub locality: Option<Locality>,
    /// Who is asked for the addresses of names.
    pub dns: Dns,
}

/// Who names services beside the configuration and its directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ServicesFrom {
    /// Nobody.
    #[default]
    Nobody,
    /// The CA, through the agent whose socket the identity comes from.
    Agent,
}

/// Who is asked for the addresses of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dns {
    /// The servers in the host's `/etc/resolv.conf`, with its search list.
    #[default]
    System,
    /// These servers; names are asked for as they stand.
    Servers(Vec<SocketAddr>),
}

/// What the calls of an outbound listener go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// A service by its name. While nobody has named one, calls fail.
    To(String),
    /// A service that the listener describes itself.
    Here(Box<Service>),
}

impl Calls {
    /// Returns the name of the service.
    pub fn service(&self) -> &str {
        match self {
            Self::To(name) => name,
            Self::Here(service) => &service.name,
        }
    }
}

impl Services {
    /// Whether services may come to be while the sidecar runs.
    fn may_grow(&self) -> bool {
        self.directory.is_some() || self.from == ServicesFrom::Agent
    }
}

pub(super) fn read(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Services> {
    let own = match map.optional("services") {
        None => Some(Vec::new()),
        Some(node) => read.each(node, MAX_SERVICES, |read, node| policy::service::own(node, read)),
    };
    let directory = map.optional("services_dir").map(|node| read.path(node));
    let from = map.optional("services_from").map(|node| read.one_of(node, &["agent"]));
    let state_dir = map.optional("services_state_dir").map(|node| read.path(node));
    let locality = map.optional("locality").map(|node| {
        read.parsed::<Locality>(node, "a place such as eu-west/a, from the largest part to the smallest")
    });
    let dns = map.optional("dns").map(|node| self::dns(node, read));
    let from = match super::reading::present(from)? {
        Some(_) => ServicesFrom::Agent,
        None => ServicesFrom::Nobody,
    };
    Some(Services {
        own: own?,
        directory: super::reading::present(directory)?,
        from,
        state_dir: super::reading::present(state_dir)?,
        locality: super::reading::present(locality)?,
        dns: super::reading::present(dns)?.unwrap_or_default(),
    })
}

fn dns(node: &Node, read: &mut Reader<'_>) -> Option<Dns> {
    let mut map = read.map(node)?;
    let servers = map.required("servers", read).and_then(|node| {
        read.each(node, MAX_SERVERS, |read, node| read.parsed(node, "an address like 10.0.0.2:53"))
    });
    map.finish(read);
    servers.map(Dns::Servers)
}

/// Says what in several keys cannot stand together.
pub(super) fn conflict(services: &Services, outbound: &[Outbound]) -> Option<String> {
    let mut named: Vec<&str> = services.own.iter().map(|service| service.name.as_str()).collect();
    for listener in outbound {
        match &listener.calls {
            Calls::Here(service) => named.push(&service.name),
            Calls::To(name) if services.may_grow() || named.contains(&name.as_str()) => {}
            Calls::To(name) => {
                return Some(format!("there is no service \"{name}\", and nobody else names services"));
            }
        }
    }
    if let Some(service) = services.own.iter().find(|service| service.retries.on_unavailable == Some(true)) {
        return Some(format!("service \"{}\": {ON_UNAVAILABLE}", service.name));
    }
    let mut called = BTreeSet::new();
    for service in &services.own {
        for host in &service.hosts {
            let taken = service.ports.iter().find(|port| !called.insert((host.as_str(), **port)));
            if let Some(port) = taken {
                return Some(format!("two services are called as {host}:{port}"));
            }
        }
    }
    named.sort_unstable();
    let twice = named.windows(2).find(|pair| matches!(pair, [one, other] if one == other));
    twice.and_then(<[&str]>::first).map(|name| format!("two services are named \"{name}\""))
}

/// Most services of one configuration file; a directory may hold more.
pub(crate) const MAX_SERVICES: usize = 1_024;
/// A key that the language has, and no listener serves.
pub(crate) const ON_UNAVAILABLE: &str =
    "\"on_unavailable: true\" is not supported: an answer 503 is passed on to the application";
/// Name servers, as many as are worth asking.
const MAX_SERVERS: usize = 8;
