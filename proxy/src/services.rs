//! Where calls may go: every service by name, by address and by host, from the configuration, a directory, the agent and
//! DNS.
//!
//! One task, the keeper, writes; everything else reads one immutable table. A service that stays keeps what is known of
//! its endpoints, and its connections: a change ends only those that lead to nobody it names.

mod call;
pub(crate) mod central;
mod counts;
mod directory;
mod health;
mod keeper;
mod names;
mod service;
mod spec;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use policy::service::Service as Described;
use tokio::sync::Notify;

pub(crate) use call::{Call, CallError, Held, Room};
pub(crate) use counts::Counted;
pub(crate) use keeper::Keeper;
pub(crate) use service::{Listed, Service};
pub(crate) use spec::{Set, Spec};

use spec::Host;

use crate::{
    balance::{Locality, Member},
    config::{self, Calls, Config},
    outbound::Exit,
};

/// Who names services. Of two that name the same one, the first in this order is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The configuration file.
    File,
    /// The directory of services.
    Directory,
    /// The CA, through the agent.
    Agent,
}

/// Every service that calls may go to.
#[derive(Debug)]
pub(crate) struct Services {
    table: ArcSwap<Table>,
    known: Mutex<Known>,
    config: config::Services,
    connect: Duration,
    changed: Notify,
    /// What keeps connections to endpoints for further requests.
    exits: Mutex<Vec<Weak<Exit>>>,
}

/// The services of one moment.
#[derive(Debug, Default)]
pub(crate) struct Table {
    services: BTreeMap<Arc<str>, Arc<Service>>,
    addresses: HashMap<SocketAddr, Arc<Service>>,
}

impl Table {
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }
}

/// What the table is made of.
#[derive(Debug, Default)]
struct Known {
    sets: BTreeMap<Origin, Set>,
    names: HashMap<Arc<str>, Vec<IpAddr>>,
    /// Whether the addresses of hosts are looked up, so that calls are known by them.
    hosts: Hosts,
}

/// Whether calls are known by the addresses of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Hosts {
    /// Calls come with a name, or by a listener of their own.
    #[default]
    ByName,
    /// Calls are intercepted, and have only an address.
    LookedUp,
}

impl Default for Services {
    /// No services.
    fn default() -> Self {
        Self {
            table: ArcSwap::default(),
            known: Mutex::default(),
            config: config::Services::default(),
            connect: config::CONNECT_TIMEOUT,
            changed: Notify::new(),
            exits: Mutex::default(),
        }
    }
}

impl Services {
    /// The services of a configuration; what others name comes later.
    pub(crate) fn new(config: &Config) -> Self {
        let connect = config.limits.connect_timeout;
        let services = Self { config: config.services.clone(), connect, ..Self::default() };
        services.configure(config);
        services
    }

    /// Takes the services that a configuration describes itself.
    pub(crate) fn configure(&self, config: &Config) {
        let described = config.outbound.iter().filter_map(|listener| match &listener.calls {
            Calls::Here(service) => Some(service.as_ref()),
            Calls::To(_) => None,
        });
        let own: Vec<&Described> = config.services.own.iter().chain(described).collect();
        let set = self.set(Origin::File, &own);
        self.put(Origin::File, set, Instant::now());
    }

    /// Makes a set of what somebody describes.
    pub(crate) fn set(&self, origin: Origin, services: &[&Described]) -> Set {
        Set::new(origin, services, self.here(), self.connect)
    }

    pub(crate) fn here(&self) -> Option<&Locality> {
        self.config.locality.as_ref()
    }

    pub(crate) fn now(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Returns the service of a name.
    pub(crate) fn named(&self, name: &str) -> Option<Arc<Service>> {
        self.table.load().services.get(name).cloned()
    }

    /// Returns the service that is called at an address.
    pub(crate) fn find(&self, called: SocketAddr) -> Option<Arc<Service>> {
        let called = SocketAddr::new(called.ip().to_canonical(), called.port());
        self.table.load().addresses.get(&called).cloned()
    }

    /// Has the addresses of hosts looked up from now on.
    pub(crate) fn look_up_hosts(&self) {
        self.lock().hosts = Hosts::LookedUp;
        self.changed.notify_one();
    }

    /// Waits until somebody names other services.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Has idle connections looked after.
    pub(crate) fn look_after(&self, exit: &Arc<Exit>) {
        let mut exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner);
        exits.retain(|exit| exit.strong_count() > 0);
        exits.push(Arc::downgrade(exit));
    }

    /// Closes connections that are idle for too long, or lead where nobody calls any more.
    pub(crate) fn sweep(&self) {
        let exits = self.exits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for exit in exits.iter().filter_map(Weak::upgrade) {
            exit.sweep();
        }
    }

    /// Puts the services that `origin` names in the place of those it named before.
    pub(crate) fn put(&self, origin: Origin, set: Set, now: Instant) {
        let mut known = self.lock();
        known.sets.insert(origin, set);
        self.rebuild(&known, now);
        self.changed.notify_one();
    }

    /// Takes the addresses of a name.
    pub(crate) fn resolved(&self, name: &Arc<str>, addresses: Vec<IpAddr>, now: Instant) {
        let mut known = self.lock();
        if known.names.get(name) == Some(&addresses) {
            return;
        }
        known.names.insert(Arc::clone(name), addresses);
        self.rebuild(&known, now);
    }

    /// Returns the names whose addresses are wanted, and forgets the others.
    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        let mut known = self.lock();
        let lookup = known.hosts;
        let mut names: Vec<Arc<str>> = effective(&known.sets).flat_map(|spec| spec.names(lookup)).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(MAX_NAMES);
        known.names.retain(|name, _| names.binary_search(name).is_ok());
        names
    }

    fn rebuild(&self, known: &Known, now: Instant) {
        let before = self.table.load_full();
        let mut table = Table::default();
        for spec in effective(&known.sets) {
            let members = members(spec, &known.names);
            let service = match before.services.get(&spec.name) {
                Some(service) => {
                    service.update(spec, &members, now);
                    Arc::clone(service)
                }
                None => Arc::new(Service::new(spec, &members, now)),
            };
            table.services.insert(Arc::clone(&spec.name), service);
        }
        for (name, service) in &before.services {
            if !table.services.contains_key(name) {
                service.withdraw(now);
            }
        }
        table.index(known);
        self.table.store(Arc::new(table));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic elsewhere leaves it whole: every change is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Notes by what each service is called. What is written counts before what DNS says, and what two services claim alike
    /// leads to neither.
    fn index(&mut self, known: &Known) {
        let (mut written, mut looked_up) = (Claims::default(), Claims::default());
        for spec in effective(&known.sets) {
            let Some(service) = self.services.get(&spec.name) else { continue };
            for host in &spec.hosts {
                match host {
                    Host::Address(address) => written.add_all(*address, spec, service),
                    Host::Name(name) if known.hosts == Hosts::LookedUp => {
                        let addresses = known.names.get(name).into_iter().flatten();
                        addresses.for_each(|address| looked_up.add_all(*address, spec, service));
                    }
                    Host::Name(_) => {}
                }
            }
        }
        self.addresses = looked_up.undisputed();
        self.addresses.extend(written.undisputed());
    }
}

/// Who claims which address.
#[derive(Debug, Default)]
struct Claims(HashMap<SocketAddr, Option<Arc<Service>>>);

impl Claims {
    fn add_all(&mut self, address: IpAddr, spec: &Spec, service: &Arc<Service>) {
        for port in &spec.ports {
            self.add(SocketAddr::new(address, *port), service);
        }
    }

    fn add(&mut self, address: SocketAddr, service: &Arc<Service>) {
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&address) {
            return;
        }
        let claim = self.0.entry(address).or_insert_with(|| Some(Arc::clone(service)));
        if claim.as_ref().is_some_and(|other| !Arc::ptr_eq(other, service)) {
            tracing::warn!(%address, service = %service.name(), "two services are called at one address: calls go to neither");
            *claim = None;
        }
    }

    fn undisputed(self) -> HashMap<SocketAddr, Arc<Service>> {
        self.0.into_iter().filter_map(|(address, claim)| claim.map(|service| (address, service))).collect()
    }
}

/// Each service once, as the first says who names it.
fn effective(sets: &BTreeMap<Origin, Set>) -> impl Iterator<Item = &Arc<Spec>> {
    let mut merged: BTreeMap<&Arc<str>, &Arc<Spec>> = BTreeMap::new();
    for spec in sets.values().flat_map(Set::specs) {
        merged.entry(&spec.name).or_insert(spec);
    }
    merged.into_values()
}

/// The endpoints of a service by their addresses.
fn members(spec: &Spec, names: &HashMap<Arc<str>, Vec<IpAddr>>) -> Vec<Member> {
    let mut members = Vec::with_capacity(spec.endpoints.len());
    for endpoint in &spec.endpoints {
        let addresses = match &endpoint.host {
            Host::Address(address) => std::slice::from_ref(address),
            Host::Name(name) => names.get(name).map_or(&[][..], Vec::as_slice),
        };
        members.extend(addresses.iter().map(|address| Member {
            address: SocketAddr::new(*address, endpoint.port),
            weight: endpoint.weight,
            distance: endpoint.distance,
            via: endpoint.via,
        }));
    }
    members.truncate(MAX_MEMBERS);
    members
}

/// Endpoints of one service by their addresses: as many as its file may name.
const MAX_MEMBERS: usize = policy::service::MAX_ENDPOINTS;
/// Names whose addresses are kept.
const MAX_NAMES: usize = 4_096;
/// Addresses by which services are called.
const MAX_ADDRESSES: usize = 262_144;
