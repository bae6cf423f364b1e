//! What is written of a service, in the form that calls use.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use identity::SpiffeId;
use policy::service::{self as described, Protocol, Service as Described};

use super::{Hosts, Origin};
use crate::balance::{
    Breakers, Check, Distance, Ejection, HashBy, Health, Locality, Method, Probe, Retries, Settings, Via,
};
use crate::config::ON_UNAVAILABLE;

/// What one origin names: each service once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Set(BTreeMap<Arc<str>, Arc<Spec>>);

impl Set {
    /// Takes what somebody describes. Of a name that stands twice, the first counts; readers refuse that before.
    pub(crate) fn new(
        origin: Origin,
        services: &[&Described],
        here: Option<&Locality>,
        connect: Duration,
    ) -> Self {
        let mut set = BTreeMap::new();
        for service in services {
            let spec = Spec::new(origin, service, here, connect);
            set.entry(Arc::clone(&spec.name)).or_insert_with(|| Arc::new(spec));
        }
        Self(set)
    }

    pub(super) fn specs(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.0.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A service as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) hosts: Vec<Host>,
    pub(crate) ports: Vec<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) expect: Arc<[SpiffeId]>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) settings: Settings,
    pub(crate) timeouts: Timeouts,
}

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(Arc<str>),
}

impl Host {
    fn parse(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        match bare.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical()),
            Err(_) => Self::Name(Arc::from(text)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(out, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(out, "{address}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}

/// One place where a service is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) weight: u32,
    pub(crate) distance: Distance,
    pub(crate) via: Via,
}

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) connect: Connect,
    /// For a whole request, retries included, up to the head of its answer.
    pub(crate) request: Option<Duration>,
    /// Without a byte on a connection.
    pub(crate) idle: Option<Duration>,
}

/// How long connecting may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connect {
    /// All tries of one call share this time; each handshake has its own.
    Shared(Duration),
    /// Each try, with its handshake.
    Each(Duration),
}

impl Spec {
    fn new(origin: Origin, service: &Described, here: Option<&Locality>, connect: Duration) -> Self {
        let endpoint = |endpoint: &described::Endpoint| {
            let there = endpoint.locality.as_ref().and_then(|text| text.parse::<Locality>().ok());
            Endpoint {
                host: Host::parse(endpoint.address.host()),
                port: endpoint.address.port(),
                weight: endpoint.weight.max(1),
                distance: Distance::between(here, there.as_ref()),
                via: if endpoint.tunnel { Via::Tunnel } else { Via::Connection },
            }
        };
        if service.retries.on_unavailable == Some(true) {
            tracing::warn!(
                service = service.name,
                reason = ON_UNAVAILABLE,
                "a setting of a service has no effect"
            );
        }
        let timeouts = &service.timeouts;
        Self {
            name: Arc::from(service.name.as_str()),
            origin,
            hosts: service.hosts.iter().map(|host| Host::parse(host)).collect(),
            ports: service.ports.clone(),
            protocol: service.protocol,
            expect: Arc::from(service.expect.as_slice()),
            endpoints: service.endpoints.iter().map(endpoint).collect(),
            settings: settings(service),
            timeouts: Timeouts {
                connect: timeouts.connect.map_or(Connect::Shared(connect), Connect::Each),
                request: timeouts.request,
                idle: timeouts.idle,
            },
        }
    }

    /// The names that have to be looked up.
    pub(super) fn names(&self, hosts: Hosts) -> Vec<Arc<str>> {
        let called = self.hosts.iter().filter(|_| hosts == Hosts::LookedUp);
        let all = self.endpoints.iter().map(|endpoint| &endpoint.host).chain(called);
        let name = |host: &Host| match host {
            Host::Name(name) => Some(Arc::clone(name)),
            Host::Address(_) => None,
        };
        all.filter_map(name).collect()
    }

    /// The endpoints as they are written, for a log line.
    pub(crate) fn places(&self) -> String {
        let place = |endpoint: &Endpoint| match endpoint.host {
            Host::Address(address) => SocketAddr::new(address, endpoint.port).to_string(),
            Host::Name(ref name) => format!("{name}:{}", endpoint.port),
        };
        let named: Vec<String> = self.endpoints.iter().take(MOST_NAMED).map(place).collect();
        let more = if self.endpoints.len() > MOST_NAMED { ", ..." } else { "" };
        named.join(", ") + more
    }
}

fn settings(service: &Described) -> Settings {
    let (retries, ejection, breakers) = (&service.retries, &service.ejection, &service.breakers);
    let (tries, out, room) = (Retries::default(), Ejection::default(), Breakers::default());
    Settings {
        method: method(service),
        ejection: Ejection {
            failures: ejection.failures.unwrap_or(out.failures),
            success_rate: ejection.success_rate.unwrap_or(out.success_rate),
            calls: ejection.calls.unwrap_or(out.calls),
            base: ejection.base.unwrap_or(out.base),
            longest: ejection.longest.unwrap_or(out.longest).max(ejection.base.unwrap_or(out.base)),
            share: ejection.share.unwrap_or(out.share),
        },
        breakers: Breakers {
            connections: breakers.connections.unwrap_or(room.connections),
            pending: breakers.pending.unwrap_or(room.pending),
            requests: breakers.requests.unwrap_or(room.requests),
        },
        retries: Retries {
            attempts: retries.attempts.unwrap_or(tries.attempts),
            ratio: retries.ratio.unwrap_or(tries.ratio),
            per_second: retries.per_second.unwrap_or(tries.per_second),
            base: retries.base.unwrap_or(tries.base),
            longest: retries.longest.unwrap_or(tries.longest).max(retries.base.unwrap_or(tries.base)),
        },
        health: service.health.as_ref().map_or(Health::ByCalls, |health| Health::Checked(check(health))),
    }
}

fn method(service: &Described) -> Method {
    match (service.balance.method, &service.balance.header) {
        (Some("least_request"), _) => Method::LeastRequest,
        (Some("peak_ewma"), _) => Method::PeakEwma,
        (Some("ring_hash"), Some(header)) => Method::RingHash(HashBy::Header(header.clone())),
        (Some("ring_hash"), None) => Method::RingHash(HashBy::Source),
        (Some(_) | None, _) => Method::RoundRobin,
    }
}

fn check(health: &described::Health) -> Check {
    let usual = Check::new(match &health.probe {
        described::Probe::Connect => Probe::Connect,
        described::Probe::Http { path } => Probe::Http { path: path.clone() },
    });
    Check {
        every: health.every.unwrap_or(usual.every),
        timeout: health.timeout.unwrap_or(usual.timeout),
        unhealthy: health.unhealthy.unwrap_or(usual.unhealthy),
        healthy: health.healthy.unwrap_or(usual.healthy),
        ..usual
    }
}

/// Endpoints that a log line names.
const MOST_NAMED: usize = 8;
