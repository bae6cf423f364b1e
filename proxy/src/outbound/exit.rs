//! The ways out to services: one for each service on each thread, with the connections that it keeps.

use std::{
    collections::HashMap,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use audit::CloseCause;
use policy::service::Protocol;

use super::{Onward, dial::Dialler, gate::OutboundGate};
use crate::{
    activity::{self, Expired, Waiting},
    balance::Via,
    config::Tunnelling,
    detect::{self, Found, Ways},
    http1::{self, Dial, DialError, Dialled, PoolKey},
    http2,
    live::{Cut, Entry, Key, Live, Registered, Role},
    record::Trace,
    relay::relay,
    services::{Call, Held, Service},
    shared::Shared,
    stream::Stream,
    tunnel::Tunnels,
};

/// The ways out of one thread.
pub(crate) struct Exits {
    all: Mutex<HashMap<Where, Arc<Exit>>>,
    tunnels: Arc<Tunnels>,
    shared: Arc<Shared>,
}

/// Which way out it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Where {
    service: Arc<str>,
    tunnelling: Tunnelling,
}

impl Exits {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { all: Mutex::default(), tunnels: Arc::new(Tunnels::new(Arc::clone(&shared))), shared }
    }

    /// Returns the way to the service of a name, where there is one.
    pub(crate) fn named(&self, name: &str, tunnelling: Tunnelling) -> Option<Arc<Exit>> {
        self.shared.services.named(name).map(|service| self.to(&service, tunnelling))
    }

    /// Returns the way to a service.
    pub(crate) fn to(&self, service: &Arc<Service>, tunnelling: Tunnelling) -> Arc<Exit> {
        let mut all = lock(&self.all);
        let key = Where { service: Arc::clone(service.name()), tunnelling };
        if let Some(exit) = all.get(&key)
            && Arc::ptr_eq(&exit.dialler.service, service)
        {
            return Arc::clone(exit);
        }
        if all.len() >= MAX_EXITS {
            // Those that carry something are kept by what they carry.
            all.clear();
        }
        let exit = Arc::new(Exit::new(service, tunnelling, &self.tunnels, &self.shared));
        self.shared.services.look_after(&exit);
        all.insert(key, Arc::clone(&exit));
        exit
    }
}

/// The way out to one service.
pub(crate) struct Exit {
    dialler: Arc<Dialler>,
    /// The connections that are kept to each endpoint.
    ways: Mutex<HashMap<(SocketAddr, Via), Ways>>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Exit").field("service", self.dialler.service.name()).finish_non_exhaustive()
    }
}

impl Exit {
    fn new(
        service: &Arc<Service>,
        tunnelling: Tunnelling,
        tunnels: &Arc<Tunnels>,
        shared: &Arc<Shared>,
    ) -> Self {
        let (service, tunnels, shared) = (Arc::clone(service), Arc::clone(tunnels), Arc::clone(shared));
        let dialler = Arc::new(Dialler { service, tunnelling, tunnels, shared: Arc::clone(&shared) });
        Self { dialler, ways: Mutex::default(), shared }
    }

    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.dialler.service
    }

    /// Returns the connections to the endpoint of a call.
    pub(super) fn ways_to(&self, held: &Held) -> Ways {
        let at = (held.address(), held.via());
        let heads = self.shared.limits.head();
        let ways = || {
            let to = Pooled { dialler: Arc::clone(&self.dialler), at };
            Ways { http1: Arc::new(http1::Pool::new(to.clone(), heads)), http2: http2::Pool::new(to, heads) }
        };
        lock(&self.ways).entry(at).or_insert_with(ways).clone()
    }

    /// Closes connections that have been idle for too long.
    pub(crate) fn sweep(&self) {
        let mut ways = lock(&self.ways);
        for way in ways.values() {
            way.http1.sweep();
        }
        // What is under way there keeps what it needs.
        ways.retain(|(address, _), _| self.dialler.service.has(*address));
    }

    /// Carries a connection of our workload, which called `port`.
    pub(crate) async fn serve(self: &Arc<Self>, stream: Stream, from: SocketAddr, port: u16) {
        match self.dialler.service.spec().protocol {
            Protocol::Http => {
                let (registered, trace) = self.register(from, port);
                Box::pin(self.http(stream, registered, trace)).await;
            }
            Protocol::Tcp => Box::pin(self.tcp(stream, from)).await,
            Protocol::Auto => Box::pin(self.any(stream, from, port)).await,
        }
    }

    async fn tcp(&self, mut source: Stream, from: SocketAddr) {
        let mut call = Call::connection(&self.dialler.service, Some(from.ip()));
        // Boxed: a handshake gives back the room it took.
        let reaching = Box::pin(self.dialler.reach(&mut call, Some(from), Waiting::Relay));
        let (reached, held) = match reaching.await {
            Ok(reached) => reached,
            Err(error) => {
                tracing::debug!(service = %self.dialler.service.name(), %error, "cannot reach the service");
                self.shared.metrics.upstream_failed(error.code());
                source.reset_on_close();
                return;
            }
        };
        held.answered();
        let opened = reached.opened;
        let idle = call.spec().timeouts.idle;
        drop(call);
        let carried = relay(source, reached.stream, opened.live(), opened.trace());
        let cause = match idle {
            None => carried.await,
            Some(idle) => {
                let limits = activity::Limits { relay_idle: idle, ..self.shared.limits.live() };
                self.within(carried, opened.live(), limits).await
            }
        };
        drop(held);
        opened.close(cause);
    }

    /// Carries a connection until it has been idle for longer than the service allows.
    async fn within(
        &self,
        carried: impl Future<Output = CloseCause>,
        live: &Arc<Live>,
        limits: activity::Limits,
    ) -> CloseCause {
        let mut carried = std::pin::pin!(carried);
        loop {
            tokio::select! {
                cause = &mut carried => return cause,
                () = tokio::time::sleep(limits.relay_idle / 4) => {
                    if live.activity.expired(&limits).is_some() {
                        // The carrier sees it, and ends as it does for every limit.
                        live.cut(Cut::Expired(Expired::Idle));
                    }
                }
            }
        }
    }

    /// Finds out what our workload speaks.
    async fn any(self: &Arc<Self>, stream: Stream, from: SocketAddr, port: u16) {
        let (registered, trace) = self.register(from, port);
        let waits = (self.shared.limits.detect_timeout, &self.shared.drain);
        let Some((found, stream)) = detect::detect(stream, registered.live(), waits).await else { return };
        match found {
            Found::Http1 | Found::Http2 => Box::pin(self.http(stream, registered, trace)).await,
            Found::Opaque => {
                drop(registered);
                Box::pin(self.tcp(stream, from)).await;
            }
        }
    }

    /// Puts a connection of our workload into the registry.
    fn register(&self, from: SocketAddr, port: u16) -> (Registered, Trace) {
        let trace = self.trace(from);
        let key = Key::new(Role::Outbound, None, Some(from.ip().to_canonical()), port);
        let entry = Entry { key, proof: None, opened: trace.opened_at(), waiting: Waiting::Request };
        (self.shared.registry.register(entry), trace)
    }

    async fn http(self: &Arc<Self>, stream: Stream, registered: Registered, trace: Trace) {
        let gate = OutboundGate::new(Arc::clone(&self.shared), trace);
        // How it ended is told by the requests.
        let onward = Onward::Service(Arc::clone(self));
        let _ = detect::http(stream, gate, onward, registered.live(), &self.shared).await;
    }

    pub(crate) fn trace(&self, from: SocketAddr) -> Trace {
        self.dialler.trace(Some(from))
    }
}

/// Connects a pool to one endpoint.
#[derive(Clone)]
struct Pooled {
    dialler: Arc<Dialler>,
    at: (SocketAddr, Via),
}

impl Dial for Pooled {
    fn key(&self) -> Result<PoolKey, DialError> {
        let now = self.dialler.shared.state.now();
        let identity = now.identity.as_ref().ok_or(DialError::NoIdentity)?;
        let generation = identity.credentials.generation();
        let expected = Arc::clone(&self.dialler.service.spec().expect);
        Ok(PoolKey::Mutual { own: identity.id().clone(), expected, generation })
    }

    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Dialled, DialError>> + Send + '_>> {
        Box::pin(async {
            let PoolKey::Mutual { own, expected, .. } = self.key()? else {
                return Err(DialError::NoIdentity);
            };
            let (address, via) = self.at;
            let reached = self.dialler.connect_for_pool(address, via).await?;
            let key = PoolKey::Mutual { own, expected, generation: reached.generation };
            Ok(Dialled { stream: reached.stream, key, opened: Some(reached.opened) })
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves the map whole: every change to it is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ways out that one thread remembers.
const MAX_EXITS: usize = 4_096;
