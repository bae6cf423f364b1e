//! The tunnels of one thread, by whom they lead to.
//!
//! A connection goes through a tunnel only if a tunnel made for it now would be the same: the same identity of ours under the
//! same generation of trust, the same expected peers, the same endpoint. The address that the peer's policies see as its
//! source is then the same as well.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Method, Request, StatusCode, Uri};
use identity::SpiffeId;
use tokio::{task::JoinSet, time::timeout};

pub(super) use super::carrier::Slot;
use super::{
    carrier::{self, Carrier},
    opening::{Call, OpenError},
    stream::TunnelStream,
};
use crate::{
    live::Proof,
    record::{Refusal, Trace},
    shared::Shared,
    stream::Stream,
};

/// The tunnels of one thread.
#[derive(Debug)]
pub(crate) struct Tunnels {
    shared: Arc<Shared>,
    routes: Mutex<HashMap<Route, Arc<Lane>>>,
    drivers: Mutex<JoinSet<()>>,
}

/// What tunnels have in common that are as good as each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    own: SpiffeId,
    generation: u64,
    expected: Arc<[SpiffeId]>,
    /// The endpoint, by the port of its tunnels: one leads to all of its ports.
    to: SocketAddr,
}

/// The tunnels of one route.
#[derive(Debug, Default)]
struct Lane {
    carriers: Mutex<Vec<Arc<Carrier>>>,
    /// Held while a tunnel is made: whoever comes meanwhile waits for that one.
    making: tokio::sync::Mutex<()>,
    failed: Mutex<Failed>,
}

/// How attempts to make a tunnel have failed.
#[derive(Debug, Default)]
struct Failed {
    attempts: u64,
    last: Option<OpenError>,
}

/// A connection through a tunnel, let through by the other side.
pub(crate) struct Carried {
    pub(crate) stream: Stream,
    /// What the peer at the end proved.
    pub(crate) proof: Arc<Proof>,
}

impl Tunnels {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, routes: Mutex::default(), drivers: Mutex::default() }
    }

    /// Opens a connection, in a tunnel that is there or in a new one. Whoever is refused, the peer by us or we by the peer,
    /// is on record before this returns.
    pub(crate) async fn open(&self, call: &Call, trace: &Trace) -> Result<Carried, OpenError> {
        let opened = self.try_open(call).await;
        if let Err(error) = &opened
            && let Some((stage, reason)) = error.refusal()
        {
            trace.denied(Refusal::plain(stage, reason));
        }
        opened
    }

    async fn try_open(&self, call: &Call) -> Result<Carried, OpenError> {
        let lane = self.lane(call);
        let mut retried = false;
        loop {
            let slot = match lane.pick() {
                Some(slot) => slot,
                // Boxed: a handshake gives back the room it took.
                None => Box::pin(self.make(&lane, call)).await?,
            };
            match begin(&self.shared, call, slot).await {
                // The tunnel went away as the stream began: nobody has decided anything.
                Err(error) if error.is_of_the_tunnel() && !retried => retried = true,
                outcome => return outcome,
            }
        }
    }

    fn lane(&self, call: &Call) -> Arc<Lane> {
        let own = call.identity.id().clone();
        let generation = call.identity.credentials.generation();
        let to = SocketAddr::new(call.endpoint.ip(), call.port);
        let route = Route { own, generation, expected: Arc::clone(&call.expected), to };
        let mut routes = lock(&self.routes);
        if let Some(lane) = routes.get(&route) {
            return Arc::clone(lane);
        }
        if routes.len() >= MAX_ROUTES {
            // One that somebody waits for is kept by whoever waits.
            routes.retain(|_, lane| lane.is_used());
        }
        routes.retain(|route, _| route.generation == generation);
        Arc::clone(routes.entry(route).or_default())
    }

    /// Makes a tunnel, or waits for the one that is being made.
    async fn make(&self, lane: &Lane, call: &Call) -> Result<Slot, OpenError> {
        let before = lock(&lane.failed).attempts;
        let _turn = lane.making.lock().await;
        if let Some(slot) = lane.pick() {
            return Ok(slot);
        }
        if let Some(error) = lane.failed_since(before) {
            return Err(error);
        }
        match carrier::make(&self.shared, call).await {
            Ok(made) => {
                let slot = made.carrier.take().ok_or(OpenError::Outdated)?;
                lock(&lane.carriers).push(Arc::clone(&made.carrier));
                let generation = call.identity.credentials.generation();
                let mut drivers = lock(&self.drivers);
                while drivers.try_join_next().is_some() {}
                drivers.spawn(carrier::drive(Arc::clone(&self.shared), made, generation));
                Ok(slot)
            }
            Err(error) => {
                let mut failed = lock(&lane.failed);
                failed.attempts += 1;
                failed.last = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl Lane {
    /// Takes a place in the first tunnel that has one, and forgets those that are gone.
    fn pick(&self) -> Option<Slot> {
        let mut carriers = lock(&self.carriers);
        carriers.retain(|carrier| carrier.is_usable());
        carriers.iter().find_map(Carrier::take)
    }

    fn is_used(&self) -> bool {
        let mut carriers = lock(&self.carriers);
        carriers.retain(|carrier| carrier.is_usable());
        !carriers.is_empty()
    }

    /// Returns why an attempt failed that began after somebody began to wait.
    fn failed_since(&self, before: u64) -> Option<OpenError> {
        let failed = lock(&self.failed);
        (failed.attempts > before).then(|| failed.last.clone()).flatten()
    }
}

/// Asks the other side to let a connection through.
async fn begin(shared: &Shared, call: &Call, slot: Slot) -> Result<Carried, OpenError> {
    let broken = |error| OpenError::Broken(Arc::new(error));
    let mut sender = slot.carrier().sender().ok_or(OpenError::Outdated)?;
    std::future::poll_fn(|cx| sender.poll_ready(cx)).await.map_err(broken)?;
    let (response, send) = sender.send_request(request(call.endpoint), false).map_err(broken)?;
    drop(sender);
    let limit = shared.limits.connect_timeout.saturating_add(AWAY);
    let response = timeout(limit, response).await.map_err(|_| OpenError::TimedOut)?.map_err(broken)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(OpenError::Denied),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            return Err(OpenError::Unreachable);
        }
        other => return Err(OpenError::Refused { status: other.as_u16() }),
    }
    // Every tunnel is made with a proof.
    let proof = slot.carrier().live().proof.clone().ok_or(OpenError::Outdated)?;
    let stream = TunnelStream::let_through(response.into_body(), send, slot);
    Ok(Carried { stream: Stream::Other(Box::new(stream)), proof })
}

/// The one frame that a connection costs. Nothing of what others add is needed to be understood.
fn request(endpoint: SocketAddr) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority(endpoint);
    request
}

#[expect(clippy::unwrap_used, reason = "an address with a port is an authority")]
fn authority(endpoint: SocketAddr) -> Uri {
    let canonical = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
    Uri::builder().authority(canonical.to_string()).build().unwrap()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change behind these locks is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Routes remembered before those without a tunnel are forgotten.
const MAX_ROUTES: usize = 4096;
/// For the other side to connect to its application takes as long as it does here, and there is the way.
const AWAY: Duration = Duration::from_secs(2);
