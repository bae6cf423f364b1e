//! When a connection last moved and what it waits for: one cell per connection, read by one sweeper.
//!
//! No connection owns a timer: a sweep over all of them twice a second is cheaper than arming and cancelling
//! one per request, and an idle connection costs no memory for it.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// What a connection waits for from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Waiting {
    /// Nothing that has a limit.
    Nothing = 0,
    /// A new request.
    Request = 1,
    /// The rest of a head.
    Head = 2,
    /// The rest of a body.
    Body = 3,
    /// Any byte in either direction of a relayed connection.
    Relay = 4,
    /// The rest of a relayed connection of which one half has ended.
    Half = 5,
    /// The client's end of a connection that has been answered for good.
    Close = 6,
}

/// The time limits of live connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Until the next request on a kept-alive connection.
    pub(crate) idle: Duration,
    /// For a whole head, from its first byte.
    pub(crate) head: Duration,
    /// Without a byte of a body, or without a byte taken of a response.
    pub(crate) stall: Duration,
    /// Without a byte on a relayed connection.
    pub(crate) relay_idle: Duration,
    /// Without a byte on a relayed connection of which one half has ended.
    pub(crate) half_closed: Duration,
}

/// What a connection is doing, for the sweeper.
#[derive(Debug)]
pub(crate) struct Activity {
    waiting: AtomicU8,
    since: AtomicU64,
    blocked: AtomicU64,
    busy: AtomicBool,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Activity {
    pub(crate) fn new(waiting: Waiting) -> Self {
        Self {
            waiting: AtomicU8::new(waiting as u8),
            since: AtomicU64::new(now()),
            blocked: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Says what is awaited. The clock starts when this changes, and with every byte unless a head is awaited.
    pub(crate) fn wait(&self, waiting: Waiting) {
        if self.waiting.swap(waiting as u8, Ordering::Relaxed) != waiting as u8 {
            self.since.store(now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) != Waiting::Head as u8 {
            self.since.store(now(), Ordering::Relaxed);
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.blocked.store(0, Ordering::Relaxed);
        if self.waiting.load(Ordering::Relaxed) != Waiting::Head as u8 {
            self.since.store(now(), Ordering::Relaxed);
        }
    }

    /// The client does not take what is written to it.
    pub(crate) fn blocked(&self) {
        // An earlier time stays: the first failed attempt counts.
        let _ = self.blocked.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Says whether this is awaited.
    pub(crate) fn is(&self, waiting: Waiting) -> bool {
        self.waiting.load(Ordering::Relaxed) == waiting as u8
    }

    /// A request is being answered: its client is not idle.
    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
        self.since.store(now(), Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Returns the bytes received from and sent to the client.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// Returns the limit that has passed, if one has.
    pub(crate) fn expired(&self, limits: &Limits) -> Option<Expired> {
        let now = now();
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked != 0 && older(now, blocked, limits.stall) {
            return Some(Expired::Stalled);
        }
        let (limit, expired) = match self.waiting.load(Ordering::Relaxed) {
            REQUEST if self.is_busy() => return None,
            REQUEST => (limits.idle, Expired::Idle),
            HEAD => (limits.head, Expired::Head),
            BODY => (limits.stall, Expired::Stalled),
            RELAY => (limits.relay_idle, Expired::Idle),
            HALF => (limits.half_closed, Expired::HalfClosed),
            CLOSE => (LINGER, Expired::Lingering),
            _ => return None,
        };
        older(now, self.since.load(Ordering::Relaxed), limit).then_some(expired)
    }
}

/// Which limit a connection exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    Idle,
    Head,
    Stalled,
    HalfClosed,
    /// Our end is closed and the client's is not: nobody waits for it any longer.
    Lingering,
    /// The peer's certificate expired.
    Peer,
    /// The connection is as old as one may be.
    Age,
}

impl Expired {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Idle => "idle_timeout",
            Self::Head => "header_timeout",
            Self::Stalled => "stall_timeout",
            Self::HalfClosed => "half_close_timeout",
            Self::Lingering => "linger_timeout",
            Self::Peer => "peer_expired",
            Self::Age => "max_connection_age",
        }
    }
}

fn older(now: u64, since: u64, limit: Duration) -> bool {
    u128::from(now.saturating_sub(since)) >= limit.as_millis()
}

/// Milliseconds since the process first asked, never nought.
fn now() -> u64 {
    static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(EPOCH.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// For a client to read its last answer and close.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
const REQUEST: u8 = Waiting::Request as u8;
const HEAD: u8 = Waiting::Head as u8;
const BODY: u8 = Waiting::Body as u8;
const RELAY: u8 = Waiting::Relay as u8;
const HALF: u8 = Waiting::Half as u8;
const CLOSE: u8 = Waiting::Close as u8;

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(millis: u64) -> Limits {
        let limit = Duration::from_millis(millis);
        let long = Duration::from_secs(60);
        Limits { idle: long, head: limit, stall: long, relay_idle: long, half_closed: long }
    }

    #[test]
    fn bytes_that_drip_do_not_lengthen_the_time_for_a_head() {
        let activity = Activity::new(Waiting::Head);

        std::thread::sleep(Duration::from_millis(30));
        activity.received(1);

        assert_eq!(activity.expired(&limits(20)), Some(Expired::Head));
    }

    #[test]
    fn a_client_that_waits_for_its_answer_is_not_idle() {
        let activity = Activity::new(Waiting::Request);
        let none = Limits { idle: Duration::ZERO, ..limits(0) };
        activity.set_busy(true);

        let (busy, idle) = (activity.expired(&none), {
            activity.set_busy(false);
            activity.expired(&none)
        });

        assert_eq!((busy, idle), (None, Some(Expired::Idle)));
    }

    #[test]
    fn a_client_that_does_not_read_stalls() {
        let activity = Activity::new(Waiting::Nothing);
        activity.blocked();

        let expired = activity.expired(&Limits { stall: Duration::ZERO, ..limits(0) });

        assert_eq!(expired, Some(Expired::Stalled));
    }
}
