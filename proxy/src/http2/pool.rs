//! The connections to one service from one thread. Requests share them: what several have to say leaves together.
//!
//! A connection takes only requests for which it would be made again now: the key holds both identities and the generation
//! of the trust it was made under. Those in flight on any other finish.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::StatusCode;
use tokio::task::JoinSet;

use super::{
    limits::{IDLE, MAX_CONNECTIONS},
    upstream::{Place, Upstream},
};
use crate::{
    http1::{Dial, DialError, HeadLimits},
    outbound::{Blame, Way},
};

/// The connections of one listener.
pub(crate) struct Pool {
    dial: Box<dyn Dial>,
    limits: HeadLimits,
    kept: Mutex<Vec<Kept>>,
    /// Who dials holds it; what came of it stays in it.
    dialling: tokio::sync::Mutex<Dialling>,
    drivers: Mutex<JoinSet<()>>,
}

struct Kept {
    upstream: Arc<Upstream>,
    /// Since when it carries nothing.
    idle: Option<Instant>,
}

#[derive(Default)]
struct Dialling {
    /// Counts the attempts that are over.
    attempts: u64,
    failed: Option<Unreached>,
}

/// Why there is no connection to send a request on, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreached {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) denial: Option<audit::DenialId>,
    pub(super) blame: Blame,
}

/// A place that is being looked for.
pub(super) type Seeking = Pin<Box<dyn Future<Output = (Result<Place, Unreached>, Way)> + Send>>;

impl Pool {
    pub(crate) fn new(dial: impl Dial, limits: HeadLimits) -> Arc<Self> {
        let (kept, dialling, drivers) = (Mutex::default(), tokio::sync::Mutex::default(), Mutex::default());
        Arc::new(Self { dial: Box::new(dial), limits, kept, dialling, drivers })
    }

    /// Returns a place on a kept connection, where there is one.
    pub(super) fn try_get(&self) -> Result<Option<Place>, Unreached> {
        let key = self.dial.key().map_err(|error| Unreached::from(&error))?;
        let kept = lock(&self.kept);
        // The first one with room: the fuller a connection, the more leaves in one write.
        let mut usable = kept.iter().filter(|kept| kept.upstream.key == key);
        Ok(usable.find_map(|kept| kept.upstream.take()))
    }

    async fn get(self: Arc<Self>) -> Result<Place, Unreached> {
        let before = self.dialling.try_lock().map_or(None, |dialling| Some(dialling.attempts));
        let mut dialling = self.dialling.lock().await;
        if let Some(place) = self.try_get()? {
            return Ok(place);
        }
        // Those that waited for an attempt share its failure: nobody waits for as many attempts as there are requests.
        if before != Some(dialling.attempts)
            && let Some(failed) = dialling.failed
        {
            return Err(failed);
        }
        let dialled = self.dial().await;
        dialling.attempts += 1;
        dialling.failed = dialled.as_ref().err().copied();
        drop(dialling);
        dialled
    }

    async fn dial(self: &Arc<Self>) -> Result<Place, Unreached> {
        if lock(&self.kept).len() >= MAX_CONNECTIONS {
            return Err(Unreached {
                status: StatusCode::SERVICE_UNAVAILABLE,
                error: "overloaded",
                denial: None,
                blame: Blame::Nobody,
            });
        }
        let dialled = self.dial.dial().await.map_err(|error| Unreached::from(&error))?;
        let ended = Unreached {
            status: StatusCode::BAD_GATEWAY,
            error: "upstream_failed",
            denial: None,
            blame: Blame::Endpoint,
        };
        let (upstream, driver) = Upstream::start(dialled, self.limits).await.map_err(|_| ended)?;
        let place = upstream.take().ok_or(ended)?;
        lock(&self.kept).push(Kept { upstream, idle: None });
        let mut drivers = lock(&self.drivers);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(driver.run(Arc::downgrade(self)));
        Ok(place)
    }

    /// Lets go of a connection that is idle for long, or was made under other trust. It ends with its last request.
    pub(super) fn look(&self, upstream: &Arc<Upstream>) {
        let wanted = self.dial.key().is_ok_and(|key| key == upstream.key) && upstream.is_usable();
        lock(&self.kept).retain_mut(|kept| {
            if !Arc::ptr_eq(&kept.upstream, upstream) {
                return true;
            }
            kept.idle = if upstream.load() == 0 { kept.idle.or_else(|| Some(Instant::now())) } else { None };
            wanted && kept.idle.is_none_or(|since| since.elapsed() < IDLE)
        });
    }

    /// Lets go of a connection that has ended.
    pub(super) fn forget(&self, upstream: &Arc<Upstream>) {
        lock(&self.kept).retain(|kept| !Arc::ptr_eq(&kept.upstream, upstream));
    }
}

/// Returns a place on a new connection to where a request goes, or on one that others made meanwhile. Where nobody is
/// reached there, it goes elsewhere as far as that is allowed.
pub(super) fn seek(mut way: Way) -> Seeking {
    Box::pin(async move {
        loop {
            let unreached = match way.http2().get().await {
                Ok(place) => return (Ok(place), way),
                Err(unreached) => unreached,
            };
            if !way.unreached(unreached.blame).await {
                return (Err(unreached), way);
            }
        }
    })
}

impl From<&DialError> for Unreached {
    fn from(error: &DialError) -> Self {
        let blame = Blame::of(error);
        let (status, error, denial) = match error {
            DialError::NoIdentity => (StatusCode::SERVICE_UNAVAILABLE, "no_identity", None),
            DialError::Connect(_) => (StatusCode::BAD_GATEWAY, "connect_failed", None),
            DialError::TimedOut => (StatusCode::GATEWAY_TIMEOUT, "connect_timeout", None),
            DialError::Rejected { denial, .. } => (StatusCode::BAD_GATEWAY, "peer_rejected", Some(*denial)),
            DialError::Handshake { .. } => (StatusCode::BAD_GATEWAY, "handshake_failed", None),
            DialError::Unavailable { reason } => (StatusCode::SERVICE_UNAVAILABLE, *reason, None),
        };
        Self { status, error, denial, blame }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these lists whole: every change to them is one call.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
