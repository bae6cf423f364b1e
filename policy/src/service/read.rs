//! Strict reading of services files. Every problem of a file is found at once, each with its place.

use std::net::{IpAddr, Ipv6Addr};

use identity::{SpiffeId, TrustDomain};
use serde::Serialize;

use super::{
    Address, Balance, Breakers, Ejection, Endpoint, Entry, Health, Inbound, MAX_AUDIENCE, MAX_ENDPOINTS,
    MAX_ENTRIES, MAX_EXPECTED, MAX_HOSTS, MAX_LOCALITY, MAX_NAME, MAX_PORTS, MAX_WEIGHT, Protocol, Retries,
    Service, Sidecar, Timeouts,
};
use crate::host::CanonicalHost;
use crate::pattern::IdPattern;
use crate::strict::{Fields, Node, Problem, Problems, Reader, Source, Span};

/// A file with one entry, as it is written.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    vouchsafe: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<[&'a Service; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecars: Option<[&'a Sidecar; 1]>,
}

impl<'a> Document<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let (services, sidecars) = match entry {
            Entry::Service(service) => (Some([service.as_ref()]), None),
            Entry::Sidecar(sidecar) => (None, Some([sidecar])),
        };
        Self { vouchsafe: VERSION, services, sidecars }
    }
}

/// Reads the one entry of a file that says everything itself.
pub(super) fn canonical(source: &Source) -> Result<Entry, Problems> {
    let mut entries = document(source, Missing::Flaw)?;
    match (entries.pop(), entries.is_empty()) {
        (Some((entry, _)), true) => Ok(entry),
        (Some(_), false) | (None, _) => {
            Err(Problems::from(Problem::in_file(&source.name, "expected one entry", None)))
        }
    }
}

/// Reads every entry of an operator's file.
pub(super) fn operators(source: &Source, trust_domain: &TrustDomain) -> Result<Vec<(Entry, Span)>, Problems> {
    document(source, Missing::Everybody(trust_domain))
}

/// What it means that nothing is said of who may see a service.
#[derive(Clone, Copy)]
pub(super) enum Missing<'a> {
    /// Everybody in this trust domain may, and nobody outside.
    Everybody(&'a TrustDomain),
    /// It has to be said.
    Flaw,
    /// Nothing may be said: it is for one sidecar, whose own configuration it is part of.
    Own,
}

fn document(source: &Source, missing: Missing<'_>) -> Result<Vec<(Entry, Span)>, Problems> {
    let (mut read, root) = Reader::open(source);
    let entries = root.as_ref().and_then(|root| {
        let mut map = read.map(root)?;
        map.version(VERSION, &mut read);
        let services = map.optional("services");
        let sidecars = map.optional("sidecars");
        if services.is_none() && sidecars.is_none() {
            let cure = "list services under \"services\", and what workloads serve under \"sidecars\"";
            read.place(map.span(), "there is neither \"services\" nor \"sidecars\"", Some(cure.to_owned()));
        }
        let mut entries = list(services, &mut read, |read, node| {
            service(node, missing, read).map(|service| Entry::Service(Box::new(service)))
        });
        entries
            .extend(list(sidecars, &mut read, |read, node| sidecar(node, missing, read).map(Entry::Sidecar)));
        map.finish(&mut read);
        Some(entries)
    });
    read.finish()?;
    Ok(entries.unwrap_or_default())
}

fn list(
    node: Option<&Node>,
    read: &mut Reader<'_>,
    one: impl Fn(&mut Reader<'_>, &Node) -> Option<Entry>,
) -> Vec<(Entry, Span)> {
    let read_one = |read: &mut Reader<'_>, node: &Node| one(read, node).map(|entry| (entry, node.span()));
    node.and_then(|node| read.each(node, MAX_ENTRIES, read_one)).unwrap_or_default()
}

pub(super) fn service(node: &Node, missing: Missing<'_>, read: &mut Reader<'_>) -> Option<Service> {
    let mut map = read.map(node)?;
    let name = map.required("name", read).and_then(|node| name(node, read));
    let hosts = map.optional("hosts").map(|node| read.each(node, MAX_HOSTS, host));
    let ports = map.required("ports", read).and_then(|node| read.each(node, MAX_PORTS, port));
    let protocol = map.required("protocol", read).and_then(|node| protocol(node, read));
    let expect = map.required("expect", read).and_then(|node| read.each(node, MAX_EXPECTED, id));
    let endpoints = map.optional("endpoints").map(|node| endpoints(node, read));
    let balance = map.optional("balance").map(|node| Balance::read(node, read));
    let timeouts = map.optional("timeouts").map(|node| Timeouts::read(node, read));
    let retries = map.optional("retries").map(|node| Retries::read(node, read));
    let ejection = map.optional("ejection").map(|node| Ejection::read(node, read));
    let breakers = map.optional("breakers").map(|node| Breakers::read(node, read));
    let health = map.optional("health").map(|node| Health::read(node, read));
    let visible_to = visible_to(&mut map, missing, read);
    map.finish(read);
    let (hosts, ports) = (hosts.unwrap_or(Some(Vec::new()))?, ports?);
    once(node, &hosts, "host", read)?;
    once(node, &ports, "port", read)?;
    Some(Service {
        name: name?,
        hosts,
        ports,
        protocol: protocol?,
        expect: expect?,
        endpoints: endpoints.unwrap_or(Some(Vec::new()))?,
        balance: balance.unwrap_or_else(|| Some(Balance::default()))?,
        timeouts: timeouts.unwrap_or_else(|| Some(Timeouts::default()))?,
        retries: retries.unwrap_or_else(|| Some(Retries::default()))?,
        ejection: ejection.unwrap_or_else(|| Some(Ejection::default()))?,
        breakers: breakers.unwrap_or_else(|| Some(Breakers::default()))?,
        health: health.map_or(Some(None), |health| health.map(Some))?,
        visible_to: visible_to?,
    })
}

fn sidecar(node: &Node, missing: Missing<'_>, read: &mut Reader<'_>) -> Option<Sidecar> {
    let mut map = read.map(node)?;
    let name = map.required("name", read).and_then(|node| name(node, read));
    let applies_to = map.required("applies_to", read).and_then(|node| audience(node, missing, read));
    let inbound = map.required("inbound", read).and_then(|node| read.each(node, MAX_PORTS, inbound));
    map.finish(read);
    let inbound = inbound?;
    let ports: Vec<u16> = inbound.iter().map(|inbound| inbound.port).collect();
    once(node, &ports, "port", read)?;
    Some(Sidecar { name: name?, applies_to: applies_to?, inbound })
}

fn inbound(read: &mut Reader<'_>, node: &Node) -> Option<Inbound> {
    let mut map = read.map(node)?;
    let port = map.required("port", read).and_then(|node| port(read, node));
    let protocol = map.required("protocol", read).and_then(|node| protocol(node, read));
    map.finish(read);
    Some(Inbound { port: port?, protocol: protocol? })
}

fn endpoints(node: &Node, read: &mut Reader<'_>) -> Option<Vec<Endpoint>> {
    let endpoints = read.each(node, MAX_ENDPOINTS, endpoint)?;
    let addresses: Vec<&Address> = endpoints.iter().map(|endpoint| &endpoint.address).collect();
    once(node, &addresses, "address", read)?;
    Some(endpoints)
}

fn endpoint(read: &mut Reader<'_>, node: &Node) -> Option<Endpoint> {
    let mut map = read.map(node)?;
    let address = map
        .required("address", read)
        .and_then(|node| read.parsed(node, "an address such as 10.0.0.1:8443 or shop.internal:8443"));
    let weight = map.optional("weight").map(|node| read.integer(node, 1..=u64::from(MAX_WEIGHT)));
    let locality = map.optional("locality").map(|node| locality(node, read));
    let tunnel = map.optional("tunnel").map(|node| read.boolean(node));
    map.finish(read);
    Some(Endpoint {
        address: address?,
        weight: u32::try_from(weight.unwrap_or(Some(1))?).ok()?,
        locality: locality.map_or(Some(None), |locality| locality.map(Some))?,
        tunnel: tunnel.unwrap_or(Some(false))?,
    })
}

fn visible_to(map: &mut Fields<'_>, missing: Missing<'_>, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    if matches!(missing, Missing::Own) {
        let (why, cure) =
            ("has no place in a sidecar's own configuration", "remove it: nobody else gets the service");
        return (!map.misplaced("visible_to", why, cure, read)).then(Vec::new);
    }
    match (map.optional("visible_to"), missing) {
        (Some(node), _) => audience(node, missing, read),
        (None, Missing::Everybody(trust_domain)) => {
            IdPattern::parse(&format!("spiffe://{trust_domain}/**")).ok().map(|all| vec![all])
        }
        (None, Missing::Flaw | Missing::Own) => {
            read.place(map.span(), "the key \"visible_to\" is missing", None);
            None
        }
    }
}

fn audience(node: &Node, missing: Missing<'_>, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    read.each(node, MAX_AUDIENCE, |read, node| {
        let pattern: IdPattern =
            read.parsed(node, "a SPIFFE ID or a pattern such as spiffe://prod.example/shop/**")?;
        match missing {
            Missing::Everybody(trust_domain) if !belongs(&pattern, trust_domain) => {
                let message = format!("workloads outside of {trust_domain} are handed nothing by its CA");
                read.problem(node, message, Some("name workloads of the CA's own trust domain"));
                None
            }
            Missing::Everybody(_) | Missing::Flaw | Missing::Own => Some(pattern),
        }
    })
}

fn belongs(pattern: &IdPattern, trust_domain: &TrustDomain) -> bool {
    let rest = pattern.as_str().strip_prefix("spiffe://");
    rest.and_then(|rest| rest.split('/').next()) == Some(trust_domain.as_str())
}

fn name(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let name = read.string(node)?;
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_');
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if name.len() > MAX_NAME || !begins || !name.bytes().all(fits) {
        let message =
            format!("expected a name of 1 to {MAX_NAME} small letters, digits, dots, dashes and underscores");
        read.problem(node, message, None);
        return None;
    }
    Some(name.to_owned())
}

fn host(read: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = read.string(node)?;
    // One address is one host, with brackets or without, and mapped into IPv6 or not.
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Some(match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        });
    }
    match CanonicalHost::parse(text) {
        Ok(host) if host.port().is_none() => Some(host.as_str().to_owned()),
        Ok(_) => {
            read.problem(node, "a host has no port", Some("name the port under \"ports\""));
            None
        }
        Err(error) => {
            read.problem(node, format!("it is no host: {error}"), None);
            None
        }
    }
}

fn locality(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let text = read.string(node)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let part = |part: &str| !part.is_empty() && part.bytes().all(fits);
    if text.len() > MAX_LOCALITY || !text.split('/').all(part) {
        read.problem(node, "it is no place such as eu-west/a", None);
        return None;
    }
    Some(text.to_owned())
}

fn port(read: &mut Reader<'_>, node: &Node) -> Option<u16> {
    read.integer(node, 1..=u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
}

fn protocol(node: &Node, read: &mut Reader<'_>) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Http, Protocol::Auto];
    let word = read.one_of(node, &all.map(Protocol::as_str))?;
    all.into_iter().find(|protocol| protocol.as_str() == word)
}

fn id(read: &mut Reader<'_>, node: &Node) -> Option<SpiffeId> {
    read.parsed(node, "a SPIFFE ID like spiffe://prod.example/shop")
}

/// Notes what stands twice.
fn once<T: Ord + std::fmt::Display>(
    node: &Node,
    values: &[T],
    what: &str,
    read: &mut Reader<'_>,
) -> Option<()> {
    let mut sorted: Vec<&T> = values.iter().collect();
    sorted.sort();
    let twice = sorted.windows(2).find(|pair| matches!(pair, [a, b] if a == b));
    match twice.and_then(<[&T]>::first) {
        None => Some(()),
        Some(value) => {
            read.problem(node, format!("the {what} {value} stands here twice"), None);
            None
        }
    }
}

/// What the first key of a file says.
const VERSION: &str = "services/v1";
