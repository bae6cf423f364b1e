//! From the strict tree to [`Config`]: each key once, each problem at its place.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use identity::TrustDomain;
use policy::{
    Moment,
    service::Service,
    strict::{Fields, Node, Problems, Reader, Source as Text},
};

use super::{
    Admin, Audit, AuditTarget, Calls, Config, DRAIN, IdentitySource, Inbound, Limits, MAX_ENDPOINTS,
    MAX_EXPECTED, MAX_LISTENERS, Outbound, PemFiles, PolicySource, Protocol, WORKERS,
};
use crate::workers::MAX_WORKERS;

pub(super) fn config(text: &Text) -> Result<Config, Problems> {
    let (mut read, root) = Reader::open(text);
    let config = root.as_ref().and_then(|root| document(root, &mut read, text));
    read.finish()?;
    // A document that could not be read has left a problem behind.
    config.ok_or_else(|| {
        let mut read = Reader::new(text);
        if let Some(root) = &root {
            read.problem(root, "the configuration cannot be read", None);
        }
        read.finish().err().unwrap_or_default()
    })
}

fn document(root: &Node, read: &mut Reader<'_>, text: &Text) -> Option<Config> {
    let mut map = read.map(root)?;
    let version = map.version("proxy/v1", read);
    let identity =
        map.optional("identity").map(|node| read.parsed(node, "a SPIFFE ID like spiffe://prod.test/web"));
    let source = map.optional("source").map(|node| self::source(node, read));
    let policies = map.optional("policies").map(|node| self::policies(node, read));
    let istio = map.optional("istio").map(|node| super::istio::read(node, read));
    let jwt = map.optional("jwt").map(|node| super::jwt::read(node, read));
    let inbound = listeners(&mut map, "inbound", read, self::inbound);
    let outbound = listeners(&mut map, "outbound", read, self::outbound);
    let services = super::services::read(&mut map, read);
    let transparent = map.optional("transparent").map(|node| super::transparent::read(node, read));
    let tunnel = map.optional("tunnel").map(|node| super::tunnel::read(node, read));
    let probes = map.optional("probes").map(|node| super::transparent::probes(node, read));
    let admin = map.optional("admin").map(|node| self::admin(node, read));
    let telemetry = map.optional("telemetry").map(|node| super::telemetry::read(node, read));
    let audit = map.optional("audit").map(|node| self::audit(node, read));
    let drain = map.optional("drain").map(|node| read.duration_within(node, Duration::ZERO..=MAX_TIME));
    let lifecycle = super::lifecycle::read(&mut map, read, text);
    let hardening = map.optional("hardening").map(|node| super::hardening::read(node, read));
    let limits = map.optional("limits").map(|node| self::limits(node, read));
    let on_peer_expiry = map
        .optional("on_peer_expiry")
        .map(|node| read.one_of(node, &["drain", "cut"]).map(|word| word == "cut"));
    let max_connection_age =
        map.optional("max_connection_age").map(|node| read.duration_within(node, SHORTEST_AGE..=MAX_TIME));
    let workers = map.optional("workers").map(|node| read.integer(node, 0..=MAX_WORKERS as u64));
    let span = map.span();
    map.finish(read);
    let config = Config {
        identity: present(identity)?,
        source: present(source)?.unwrap_or(IdentitySource::Environment),
        policies: present(policies)?,
        istio: present(istio)?.unwrap_or_default(),
        jwt: present(jwt)?.unwrap_or_default(),
        inbound: inbound?,
        outbound: outbound?,
        services: services?,
        transparent: present(transparent)?,
        tunnel: present(tunnel)?,
        probes: present(probes)?.unwrap_or_default(),
        admin: present(admin)?.unwrap_or_default(),
        telemetry: present(telemetry)?.unwrap_or_default(),
        audit: present(audit)?.unwrap_or_else(default_audit),
        drain: present(drain)?.unwrap_or(DRAIN),
        lifecycle: lifecycle?,
        hardening: present(hardening)?.unwrap_or_default(),
        limits: Limits {
            cut_at_peer_expiry: present(on_peer_expiry)?.unwrap_or(false),
            max_connection_age: present(max_connection_age)?,
            ..present(limits)?.unwrap_or_default()
        },
        workers: present(workers)?.and_then(|count| usize::try_from(count).ok()).unwrap_or(WORKERS),
    };
    if let Some(message) = conflict(&config) {
        read.place(span, message, None);
    }
    version.map(|()| config)
}

/// Absent is fine, unreadable is not.
#[expect(
    clippy::option_option,
    reason = "the outer option is whether the key is there, the inner one whether it reads"
)]
pub(super) fn present<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        None => Some(None),
        Some(None) => None,
        Some(Some(value)) => Some(Some(value)),
    }
}

fn conflict(config: &Config) -> Option<String> {
    if let Some(problem) = super::transparent::conflict(config).or_else(|| super::tunnel::conflict(config)) {
        return Some(problem);
    }
    if config.inbound.is_empty() && config.outbound.is_empty() && config.transparent.is_none() {
        return Some("there is neither an inbound nor an outbound listener".to_owned());
    }
    if !config.inbound.is_empty() && config.policies.is_none() {
        return Some("inbound listeners need \"policies\", a directory".to_owned());
    }
    if matches!(config.policies, Some(PolicySource::Agent { .. }))
        && matches!(config.source, IdentitySource::Pem(_))
    {
        let message = "policies from the agent need an agent: \"source\" names PEM files";
        return Some(message.to_owned());
    }
    if config.services.from == super::ServicesFrom::Agent && matches!(config.source, IdentitySource::Pem(_)) {
        return Some("services from the agent need an agent: \"source\" names PEM files".to_owned());
    }
    // The agent hands over what concerns the workload: that nothing selects it cannot be told from a part.
    if matches!(config.policies, Some(PolicySource::Agent { .. }))
        && config.istio.mesh.unselected == policy::Unselected::Allow
    {
        let message = "\"danger_allow_unselected\" needs policies that stand alone: a directory";
        return Some(message.to_owned());
    }
    if let Some(message) = super::services::conflict(&config.services, &config.outbound) {
        return Some(message);
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let inbound = config.inbound.iter().map(|listener| (&listener.name, listener.listen));
    let outbound = config.outbound.iter().map(|listener| (&listener.name, listener.listen));
    for (name, address) in inbound.chain(outbound) {
        if !names.insert(name) {
            return Some(format!("two listeners are named \"{name}\""));
        }
        if address.port() != 0 && !addresses.insert(address) {
            return Some(format!("two listeners listen on {address}"));
        }
    }
    if let Some(address) = config.admin.listen
        && addresses.contains(&address)
    {
        return Some(format!("a listener and the admin interface listen on {address}"));
    }
    // An application behind our own listener would be called by itself for ever.
    config
        .inbound
        .iter()
        .find(|listener| addresses.contains(&listener.application))
        .map(|listener| format!("the application of \"{}\" is a listener of this proxy", listener.name))
}

fn source(node: &Node, read: &mut Reader<'_>) -> Option<IdentitySource> {
    let mut map = read.map(node)?;
    let endpoint = map.optional("workload_api");
    let pem = map.optional("pem");
    let source = match (endpoint, pem) {
        (Some(node), None) => read
            .parsed(node, "a socket like unix:///run/vouchsafe/agent.sock")
            .map(IdentitySource::WorkloadApi),
        (None, Some(node)) => self::pem(node, read).map(IdentitySource::Pem),
        (None, None) | (Some(_), Some(_)) => {
            read.problem(node, "expected exactly one of \"workload_api\" and \"pem\"", None);
            None
        }
    };
    map.finish(read);
    source
}

/// A directory, or `{from: agent}` with what goes with it.
fn policies(node: &Node, read: &mut Reader<'_>) -> Option<PolicySource> {
    if !node.is_map() {
        return read.path(node).map(PolicySource::Directory);
    }
    let mut map = read.map(node)?;
    let from = map.required("from", read).and_then(|node| read.one_of(node, &["agent"]));
    let local = map.optional("local").map(|node| read.path(node));
    let state_dir = map.optional("state_dir").map(|node| read.path(node));
    map.finish(read);
    from.and(Some(PolicySource::Agent { local: present(local)?, state_dir: present(state_dir)? }))
}

fn pem(node: &Node, read: &mut Reader<'_>) -> Option<PemFiles> {
    let mut map = read.map(node)?;
    let certificate = map.required("certificate", read).and_then(|node| read.path(node));
    let key = map.required("key", read).and_then(|node| read.path(node));
    let bundle = map.required("bundle", read).and_then(|node| read.path(node));
    let federated = match map.optional("federated") {
        None => Some(Vec::new()),
        Some(node) => self::federated(node, read),
    };
    map.finish(read);
    Some(PemFiles { certificate: certificate?, key: key?, bundle: bundle?, federated: federated? })
}

fn federated(node: &Node, read: &mut Reader<'_>) -> Option<Vec<(TrustDomain, std::path::PathBuf)>> {
    let entries = read.entries(node)?;
    let mut bundles = Vec::new();
    for (name, node) in entries {
        match TrustDomain::parse(name) {
            Ok(trust_domain) => bundles.push((trust_domain, read.path(node)?)),
            Err(error) => {
                read.problem(node, format!("\"{name}\" is not a trust domain: {error}"), None);
                return None;
            }
        }
    }
    Some(bundles)
}

fn listeners<'n, T>(
    map: &mut Fields<'n>,
    key: &'static str,
    read: &mut Reader<'_>,
    one: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    match map.optional(key) {
        None => Some(Vec::new()),
        Some(node) => each(node, read, one),
    }
}

fn each<T>(
    node: &Node,
    read: &mut Reader<'_>,
    mut one: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let items = read.list(node)?;
    if items.len() > MAX_LISTENERS {
        read.problem(node, format!("more than {MAX_LISTENERS} listeners"), None);
        return None;
    }
    let all: Vec<Option<T>> = items.iter().map(|item| one(read, item)).collect();
    all.into_iter().collect()
}

fn inbound(read: &mut Reader<'_>, node: &Node) -> Option<Inbound> {
    let mut map = read.map(node)?;
    let name = name(&mut map, read);
    let listen =
        map.required("listen", read).and_then(|node| read.parsed(node, "an address like 0.0.0.0:8443"));
    let protocol = protocol(&mut map, read);
    let application = map.required("application", read).and_then(|node| {
        let address: SocketAddr = read.parsed(node, "an address like 127.0.0.1:8080")?;
        loopback(address, node, read)
            .filter(|address| address.port() != 0)
            .or_else(|| none(read, node, "the application needs a port"))
    });
    let permissive = map.optional("danger_permissive").map(|node| permissive(node, read));
    map.finish(read);
    Some(Inbound {
        name: name?,
        listen: listen?,
        protocol: protocol?,
        application: application?,
        danger_permissive_until: present(permissive)?,
    })
}

/// Letting callers in that prove nothing is for a migration: it ends.
pub(super) fn permissive(node: &Node, read: &mut Reader<'_>) -> Option<SystemTime> {
    let mut map = read.map(node)?;
    let until = map.required("until", read).and_then(|node| read.parsed::<Moment>(node, Moment::WANTED));
    map.finish(read);
    until.map(|Moment(until)| until)
}

fn outbound(read: &mut Reader<'_>, node: &Node) -> Option<Outbound> {
    let mut map = read.map(node)?;
    let name = name(&mut map, read);
    let listen = map.required("listen", read).and_then(|node| {
        let address: SocketAddr = read.parsed(node, "an address like 127.0.0.1:9001")?;
        loopback(address, node, read)
    });
    let tunnel = super::tunnel::tunnelling(&mut map, read);
    if let Some(node) = map.optional("service") {
        let service = read.string(node).map(str::to_owned);
        map.finish(read);
        return Some(Outbound { name: name?, listen: listen?, calls: Calls::To(service?), tunnel: tunnel? });
    }
    let service = described(&mut map, name.as_deref(), read);
    map.finish(read);
    Some(Outbound { name: name?, listen: listen?, calls: Calls::Here(Box::new(service?)), tunnel: tunnel? })
}

/// A service that a listener describes itself: it is called by that listener alone.
fn described(map: &mut Fields<'_>, name: Option<&str>, read: &mut Reader<'_>) -> Option<Service> {
    let protocol = protocol(map, read);
    let endpoints = map.required("endpoints", read).and_then(|node| {
        read.each(node, MAX_ENDPOINTS, |read, item| {
            let address = read.parsed::<policy::service::Address>(item, "an endpoint like web:8443")?;
            Some(policy::service::Endpoint { address, weight: 1, locality: None, tunnel: false })
        })
    });
    let expect = map.required("expect", read).and_then(|node| {
        read.each(node, MAX_EXPECTED, |read, item| {
            read.parsed(item, "a SPIFFE ID like spiffe://prod.test/web")
        })
    });
    Some(Service {
        name: name?.to_owned(),
        hosts: Vec::new(),
        ports: Vec::new(),
        protocol: match protocol? {
            Protocol::Tcp => policy::service::Protocol::Tcp,
            Protocol::Http => policy::service::Protocol::Http,
            Protocol::Auto => policy::service::Protocol::Auto,
        },
        expect: expect?,
        endpoints: endpoints?,
        balance: Default::default(),
        timeouts: Default::default(),
        retries: Default::default(),
        ejection: Default::default(),
        breakers: Default::default(),
        health: None,
        visible_to: Vec::new(),
    })
}

fn name(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<String> {
    let node = map.required("name", read)?;
    label(node, read)
}

pub(super) fn label(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let name = read.string(node)?;
    let plain = name.len() <= MAX_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain {
        return Some(name.to_owned());
    }
    none(read, node, "a name has at most 63 letters, digits, dots, dashes and underscores")
}

fn protocol(map: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Protocol> {
    let node = map.required("protocol", read)?;
    protocol_word(node, read)
}

pub(super) fn protocol_word(node: &Node, read: &mut Reader<'_>) -> Option<Protocol> {
    read.one_of(node, &["tcp", "http", "auto"]).map(|word| match word {
        "tcp" => Protocol::Tcp,
        "http" => Protocol::Http,
        _ => Protocol::Auto,
    })
}

fn loopback(address: SocketAddr, node: &Node, read: &mut Reader<'_>) -> Option<SocketAddr> {
    if address.ip().to_canonical().is_loopback() {
        return Some(address);
    }
    read.problem(
        node,
        format!("{address} is not on loopback"),
        Some("plaintext stays on this host: use 127.0.0.1 or [::1]"),
    );
    None
}

fn admin(node: &Node, read: &mut Reader<'_>) -> Option<Admin> {
    let mut map = read.map(node)?;
    let listen = map.optional("listen").map(|node| {
        let address: SocketAddr = read.parsed(node, "an address like 127.0.0.1:15000")?;
        loopback(address, node, read)
    });
    let socket = map.optional("socket").map(|node| read.path(node));
    map.finish(read);
    if listen.is_none() && socket.is_none() {
        return none(read, node, "expected \"listen\", \"socket\" or both");
    }
    Some(Admin { listen: present(listen)?, socket: present(socket)? })
}

fn audit(node: &Node, read: &mut Reader<'_>) -> Option<Audit> {
    let mut map = read.map(node)?;
    let file = map.optional("file");
    let stdout = map.optional("stdout").map(|node| read.boolean(node));
    let target = match (file, present(stdout)?) {
        (Some(node), None | Some(false)) => read.path(node).map(AuditTarget::File),
        (None, Some(true)) => Some(AuditTarget::Stdout),
        (None, None | Some(false)) | (Some(_), Some(true)) => {
            none(read, node, "expected either \"file\" or \"stdout: true\"")
        }
    };
    let rotate_size = map.optional("rotate_size").map(|node| read.size(node));
    let rotate_age = map.optional("rotate_age").map(|node| read.duration(node));
    let keep = map.optional("keep").map(|node| read.integer(node, 1..=MAX_KEPT));
    map.finish(read);
    let default = default_audit();
    Some(Audit {
        target: target?,
        rotate_size: present(rotate_size)?.unwrap_or(default.rotate_size),
        rotate_age: present(rotate_age)?.unwrap_or(default.rotate_age),
        keep: present(keep)?.and_then(|keep| usize::try_from(keep).ok()).unwrap_or(default.keep),
    })
}

fn default_audit() -> Audit {
    Audit {
        target: AuditTarget::Stdout,
        rotate_size: audit::DEFAULT_ROTATE_BYTES,
        rotate_age: audit::DEFAULT_ROTATE_AGE,
        keep: audit::DEFAULT_KEEP_FILES,
    }
}

fn limits(node: &Node, read: &mut Reader<'_>) -> Option<Limits> {
    let mut map = read.map(node)?;
    let mut limits = Limits::default();
    let counts = [
        ("connections", &mut limits.connections, 1..=1_000_000),
        ("connections_per_listener", &mut limits.connections_per_listener, 1..=1_000_000),
        ("handshakes", &mut limits.handshakes, 1..=1_000_000),
        ("header_count", &mut limits.header_count, 1..=1_000),
    ];
    for (key, value, range) in counts {
        if let Some(found) = map.optional(key).and_then(|node| read.integer(node, range)) {
            *value = usize::try_from(found).unwrap_or(usize::MAX);
        }
    }
    if let Some(node) = map.optional("header_size")
        && let Some(size) = read.size(node)
    {
        match usize::try_from(size) {
            Ok(size) if (MIN_HEADER_SIZE..=MAX_HEADER_SIZE).contains(&size) => limits.header_size = size,
            _ => read.problem(node, "expected a size from 1KiB to 256KiB", None),
        }
    }
    let times = [
        ("handshake_timeout", &mut limits.handshake_timeout),
        ("header_timeout", &mut limits.header_timeout),
        ("connect_timeout", &mut limits.connect_timeout),
        ("idle_timeout", &mut limits.idle_timeout),
        ("stall_timeout", &mut limits.stall_timeout),
        ("tcp_idle_timeout", &mut limits.tcp_idle_timeout),
        ("half_close_timeout", &mut limits.half_close_timeout),
        ("detect_timeout", &mut limits.detect_timeout),
    ];
    for (key, value) in times {
        if let Some(found) =
            map.optional(key).and_then(|node| read.duration_within(node, MIN_TIME..=MAX_TIME))
        {
            *value = found;
        }
    }
    map.finish(read);
    Some(limits)
}

fn none<T>(read: &mut Reader<'_>, node: &Node, message: &str) -> Option<T> {
    read.problem(node, message, None);
    None
}

/// A label of a metric: as long as a DNS label.
const MAX_NAME: usize = 63;
const MAX_KEPT: u64 = 10_000;
const MIN_HEADER_SIZE: usize = 1024;
const MAX_HEADER_SIZE: usize = 256 * 1024;
/// Connections that live for less would only be made again and again.
const SHORTEST_AGE: Duration = Duration::from_secs(1);
const MIN_TIME: Duration = Duration::from_millis(10);
const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);
