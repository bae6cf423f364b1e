//! One service while the sidecar runs: what is written of it, what is known of its endpoints, and who calls it.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::{Spec, counts::Counts, spec::Connect};
use crate::{
    balance::{Balancer, Change, Draw, Load, Member, View},
    live::{Cut, Live},
    unreachable::Unreachable,
};

/// A service.
#[derive(Debug)]
pub(crate) struct Service {
    spec: ArcSwap<Spec>,
    balancer: Mutex<Balancer>,
    lives: Mutex<Lives>,
    pub(super) counts: Counts,
    pub(crate) unreachable: Unreachable,
    name: Arc<str>,
}

/// The connections to the endpoints of one service.
#[derive(Debug, Default)]
struct Lives {
    next: u64,
    all: HashMap<u64, (SocketAddr, Arc<Live>)>,
}

/// Keeps a connection in the list of its service.
#[derive(Debug)]
pub(crate) struct Listed {
    service: Arc<Service>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.service.lives).all.remove(&self.number);
    }
}

impl Service {
    pub(super) fn new(spec: &Arc<Spec>, members: &[Member], now: Instant) -> Self {
        let mut balancer = Balancer::new(spec.settings.clone(), now);
        balancer.update(spec.settings.clone(), members, now);
        Self {
            spec: ArcSwap::new(Arc::clone(spec)),
            balancer: Mutex::new(balancer),
            lives: Mutex::default(),
            counts: Counts::default(),
            unreachable: Unreachable::new(&spec.name),
            name: Arc::clone(&spec.name),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    /// Takes what is written now. Connections to endpoints that stay go on; those to others finish what they are doing and
    /// take no further request; and those to a peer that may no longer answer for the service are cut.
    pub(super) fn update(&self, spec: &Arc<Spec>, members: &[Member], now: Instant) {
        let gone = lock(&self.balancer).update(spec.settings.clone(), members, now);
        let before = self.spec.swap(Arc::clone(spec));
        let narrower = before.expect.iter().any(|id| !spec.expect.contains(id));
        if gone.is_empty() && !narrower {
            return;
        }
        for (address, live) in self.connections() {
            let expected = live.key.peer.as_ref().is_some_and(|peer| spec.expect.contains(peer));
            if !expected {
                live.cut(Cut::Trust);
            } else if gone.contains(&address) {
                live.retire();
            }
        }
        if !gone.is_empty() {
            tracing::info!(service = %self.name, gone = gone.len(), endpoints = members.len(), "endpoints changed");
        }
    }

    /// Has the connections of a service that nobody names any more finish.
    pub(super) fn withdraw(&self, now: Instant) {
        let settings = self.spec().settings.clone();
        lock(&self.balancer).update(settings, &[], now);
        for (_, live) in self.connections() {
            live.retire();
        }
        tracing::info!(service = %self.name, "service withdrawn");
    }

    /// Notes a connection to an endpoint.
    pub(crate) fn list(self: &Arc<Self>, address: SocketAddr, live: &Arc<Live>) -> Listed {
        let mut lives = lock(&self.lives);
        let number = lives.next;
        lives.next += 1;
        lives.all.insert(number, (address, Arc::clone(live)));
        drop(lives);
        // A change that came before this was not told of the connection.
        let expected = live.key.peer.as_ref().is_some_and(|peer| self.spec.load().expect.contains(peer));
        if !expected {
            live.cut(Cut::Trust);
        } else if !self.has(address) {
            live.retire();
        }
        Listed { service: Arc::clone(self), number }
    }

    /// Whether an endpoint is one of the service's.
    pub(crate) fn has(&self, address: SocketAddr) -> bool {
        lock(&self.balancer).has(address)
    }

    /// How long one try to connect may take, and its handshake where that has a time of its own.
    pub(crate) fn try_limits(&self, handshake: Duration) -> (Duration, Option<Duration>) {
        let spec = self.spec();
        match spec.timeouts.connect {
            Connect::Each(limit) => (limit, None),
            Connect::Shared(whole) => {
                let endpoints = lock(&self.balancer).addresses().count();
                let tries = u32::try_from(endpoints).unwrap_or(u32::MAX);
                // One that does not answer leaves time for the others.
                (whole / tries.clamp(1, spec.settings.retries.attempts.saturating_add(1)), Some(handshake))
            }
        }
    }

    pub(crate) fn views(&self, now: Instant) -> Vec<View> {
        lock(&self.balancer).views(now)
    }

    pub(crate) fn under_way(&self, load: Load) -> u32 {
        lock(&self.balancer).under_way(load)
    }

    /// Asks or tells the balancer, and tells the log and the counters what that changed.
    pub(super) fn balance<T>(&self, act: impl FnOnce(&mut Balancer, &mut Draw) -> T) -> T {
        let mut draw = draw();
        let mut balancer = lock(&self.balancer);
        let result = act(&mut balancer, &mut draw);
        let changes = balancer.changes();
        drop(balancer);
        for change in changes {
            self.tell(change);
        }
        result
    }

    fn tell(&self, change: Change) {
        let service = &self.name;
        match change {
            Change::Ejected { address, cause, lasting } => {
                let (cause, seconds) = (cause.as_str(), lasting.as_secs_f64());
                tracing::warn!(%service, %address, cause, seconds, "endpoint ejected");
            }
            Change::Returned { address } => tracing::info!(%service, %address, "endpoint is tried again"),
            Change::Unhealthy { address } => tracing::warn!(%service, %address, "endpoint is unhealthy"),
            Change::Healthy { address } => tracing::info!(%service, %address, "endpoint is healthy"),
        }
        self.counts.changed(change);
    }

    fn connections(&self) -> Vec<(SocketAddr, Arc<Live>)> {
        lock(&self.lives).all.values().cloned().collect()
    }
}

/// Chance: a seed of each thread's own, which nobody outside can know.
fn draw() -> Draw {
    thread_local! {
        static SEED: Cell<u64> = Cell::new(RandomState::new().hash_one(0));
    }
    let seed = SEED.with(|seed| {
        let number = seed.get().wrapping_add(1);
        seed.set(number);
        number
    });
    let mut draw = Draw::new(seed);
    draw.number();
    draw
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these whole: every change to them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
