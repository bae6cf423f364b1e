//! Idle connections to one service, newest first.
//!
//! A connection serves only requests for which it would be made again now: the key holds both identities and
//! the generation of the trust it was made under.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Context,
    time::{Duration, Instant},
};

use identity::SpiffeId;

use super::{
    scanner::HeadLimits,
    upstream::{Dial, DialError, Upstream},
};

/// What a connection was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PoolKey {
    /// To our own application, in plaintext on this host.
    Application,
    /// To a peer: who we proved to be, who it may be, and under which generation of credentials.
    Mutual { own: SpiffeId, expected: std::sync::Arc<[SpiffeId]>, generation: u64 },
}

/// The idle connections of one listener.
pub(crate) struct Pool {
    dial: Box<dyn Dial>,
    limits: HeadLimits,
    idle: Mutex<VecDeque<Upstream>>,
}

impl Pool {
    pub(crate) fn new(dial: impl Dial, limits: HeadLimits) -> Self {
        Self { dial: Box::new(dial), limits, idle: Mutex::default() }
    }

    /// Returns a kept connection that is still good, if there is one.
    pub(super) fn kept(&self, cx: &mut Context<'_>) -> Result<Option<Upstream>, DialError> {
        let key = self.dial.key()?;
        while let Some(mut upstream) = self.pop(&key) {
            if upstream.poll_usable(cx) {
                return Ok(Some(upstream));
            }
        }
        Ok(None)
    }

    /// Returns a new connection.
    pub(super) async fn connect(&self) -> Result<Upstream, DialError> {
        // A key read now would be older than the dial: a connection made is checked by its own key.
        self.dial.key()?;
        Ok(Upstream::new(self.dial.dial().await?, self.limits))
    }

    /// Keeps a connection for the next request.
    pub(super) fn put(&self, mut upstream: Upstream) {
        if !upstream.is_given_up() && self.dial.key().is_ok_and(|key| key == upstream.key) {
            upstream.idle_since = Instant::now();
            upstream.used = true;
            upstream.end.out.release();
            let mut idle = self.lock();
            if idle.len() >= MAX_IDLE {
                idle.pop_front();
            }
            idle.push_back(upstream);
        }
    }

    /// Closes the connections that have been idle for too long, or were made under other trust.
    pub(crate) fn sweep(&self) {
        let key = self.dial.key().ok();
        let stale = |upstream: &Upstream| {
            upstream.idle_since.elapsed() >= IDLE || key.as_ref() != Some(&upstream.key)
        };
        self.lock().retain(|upstream| !stale(upstream));
    }

    fn pop(&self, key: &PoolKey) -> Option<Upstream> {
        let mut idle = self.lock();
        while let Some(upstream) = idle.pop_back() {
            if upstream.key == *key && upstream.idle_since.elapsed() < IDLE {
                return Some(upstream);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Upstream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shorter than any common server's own: the server must not close a connection just as a request goes out.
pub(super) const IDLE: Duration = Duration::from_secs(3);
/// Idle connections kept for one listener.
pub(super) const MAX_IDLE: usize = 256;
