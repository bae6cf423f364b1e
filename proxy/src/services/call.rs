//! One call on its way: where it has been tried, how much time it has left, and what it may still do.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Service, Spec, spec::Connect};
use crate::balance::{self, Ask, HashBy, Load, Method, NoEndpoint, Outcome, Picked, Via};

/// One request or connection of our workload.
#[derive(Debug)]
pub(crate) struct Call {
    service: Arc<Service>,
    spec: Arc<Spec>,
    key: Option<u64>,
    tried: Vec<SocketAddr>,
    retries: u32,
    began: Instant,
    _room: Option<Room>,
}

/// Why a call goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no endpoint to go to.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
    /// A breaker is open: too much is under way.
    #[error("too many {} are under way", .0.as_str())]
    Overloaded(Load),
}

impl CallError {
    /// Returns the word that answers and metrics use.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::NoEndpoint(_) => "no_endpoint",
            Self::Overloaded(_) => "overloaded",
        }
    }
}

/// Room for one more of a kind; free again when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    service: Arc<Service>,
    load: Load,
}

impl Room {
    /// Takes room, where the service's breaker leaves some.
    pub(crate) fn take(service: &Arc<Service>, load: Load) -> Result<Self, CallError> {
        match service.balance(|balancer, _| balancer.add(load)) {
            Ok(()) => Ok(Self { service: Arc::clone(service), load }),
            Err(load) => {
                service.counts.overloaded(load);
                Err(CallError::Overloaded(load))
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.service.balance(|balancer, _| balancer.end(self.load));
    }
}

/// The endpoint of a try. It counts as busy with it until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    service: Arc<Service>,
    picked: Picked,
    began: Instant,
}

impl Call {
    /// A connection that is carried as it is.
    pub(crate) fn connection(service: &Arc<Service>, from: Option<IpAddr>) -> Self {
        Self::new(service, from, |_| None, None)
    }

    /// A request. `header` returns the value of a header.
    pub(crate) fn request<'h>(
        service: &Arc<Service>,
        from: Option<IpAddr>,
        header: impl FnOnce(&str) -> Option<&'h [u8]>,
    ) -> Result<Self, CallError> {
        let room = Room::take(service, Load::Request)?;
        Ok(Self::new(service, from, header, Some(room)))
    }

    fn new<'h>(
        service: &Arc<Service>,
        from: Option<IpAddr>,
        header: impl FnOnce(&str) -> Option<&'h [u8]>,
        room: Option<Room>,
    ) -> Self {
        let (spec, began) = (service.spec(), Instant::now());
        let source = || from.map(|from| balance::hash(from.to_canonical().to_string().as_bytes()));
        let key = match &spec.settings.method {
            Method::RingHash(HashBy::Source) => source(),
            Method::RingHash(HashBy::Header(name)) => header(name).map(balance::hash).or_else(source),
            Method::RoundRobin | Method::LeastRequest | Method::PeakEwma => None,
        };
        service.balance(|balancer, _| balancer.called(began));
        service.counts.called();
        Self { service: Arc::clone(service), spec, key, tried: Vec::new(), retries: 0, began, _room: room }
    }

    pub(crate) fn spec(&self) -> &Arc<Spec> {
        &self.spec
    }

    /// Chooses where to go next: not where the call has been.
    pub(crate) fn next(&mut self) -> Result<Held, CallError> {
        let ask = Ask { key: self.key, tried: &self.tried };
        let now = Instant::now();
        let picked = self.service.balance(|balancer, draw| balancer.pick(ask, now, draw))?;
        self.tried.push(picked.address);
        Ok(Held { service: Arc::clone(&self.service), picked, began: now })
    }

    /// Says whether the call may be tried again, and waits before it is. Whether that is safe is for the caller to know.
    pub(crate) async fn retry(&mut self) -> bool {
        let Some(wait) = self.again() else { return false };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        true
    }

    fn again(&mut self) -> Option<Duration> {
        let retries = &self.spec.settings.retries;
        if self.retries >= retries.attempts || !self.has_elsewhere() {
            return None;
        }
        let now = Instant::now();
        let (granted, wait) = self
            .service
            .balance(|balancer, draw| (balancer.retry(now), balance::wait(retries, self.retries + 1, draw)));
        if self.time_left().is_some_and(|left| left <= wait) {
            return None;
        }
        self.service.counts.retried(granted);
        if !granted {
            return None;
        }
        self.retries += 1;
        Some(wait)
    }

    /// Whether there is an endpoint that has not been tried.
    fn has_elsewhere(&self) -> bool {
        self.service.balance(|balancer, _| balancer.addresses().any(|address| !self.tried.contains(&address)))
    }

    /// What is left of the time that the whole request may take, where that is limited.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.spec.timeouts.request.map(|limit| limit.saturating_sub(self.began.elapsed()))
    }

    /// How long the present try may take to connect, and to do its handshake where that has a time of its own.
    pub(crate) fn connect_limits(&self, handshake: Duration) -> (Duration, Option<Duration>) {
        let (connect, own) = match self.spec.timeouts.connect {
            Connect::Each(limit) => (limit, None),
            Connect::Shared(whole) => {
                let left = whole.saturating_sub(self.began.elapsed());
                let further = self.service.balance(|balancer, _| {
                    balancer.addresses().filter(|address| !self.tried.contains(address)).count()
                });
                let further = u32::try_from(further).unwrap_or(u32::MAX);
                let further = further.min(self.spec.settings.retries.attempts.saturating_sub(self.retries));
                // One that does not answer leaves time for the others.
                ((left / further.saturating_add(1)).max(SHORTEST_TRY.min(whole)), Some(handshake))
            }
        };
        match self.time_left() {
            Some(left) => (connect.min(left), own.map(|own| own.min(left))),
            None => (connect, own),
        }
    }
}

impl Held {
    pub(crate) fn address(&self) -> SocketAddr {
        self.picked.address
    }

    pub(crate) fn via(&self) -> Via {
        self.picked.via
    }

    /// The endpoint did what was asked.
    pub(crate) fn answered(&self) {
        self.report(Outcome::Answered(self.began.elapsed()));
    }

    /// The endpoint did not answer, or that it cannot.
    pub(crate) fn failed(&self) {
        self.report(Outcome::Failed(self.began.elapsed()));
    }

    /// The endpoint proved another identity than the service's.
    pub(crate) fn is_impostor(&self) {
        self.report(Outcome::Impostor);
    }

    fn report(&self, outcome: Outcome) {
        let now = Instant::now();
        self.service.balance(|balancer, draw| balancer.report(&self.picked, outcome, now, draw));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.service.balance(|balancer, _| balancer.release(&self.picked));
    }
}

/// However many tries share the time, each gets at least this.
const SHORTEST_TRY: Duration = Duration::from_millis(250);
