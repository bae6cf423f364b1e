//! What an operator may say about choosing endpoints and recovering from their failures: plain data with defaults.

use std::time::Duration;

/// How the calls of one service are spread, and what happens when they fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How the endpoint of a call is chosen.
    pub method: Method,
    /// When an endpoint is left out for a while.
    pub ejection: Ejection,
    /// How much may be under way at once.
    pub breakers: Breakers,
    /// How often a call may be tried again.
    pub retries: Retries,
    /// How endpoints are asked whether they work.
    pub health: Health,
}

/// How the endpoint of a call is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Method {
    /// One after the other, each as often as its weight says.
    #[default]
    RoundRobin,
    /// The one of two drawn at random that has less to do.
    LeastRequest,
    /// The one of two drawn at random that will probably answer first.
    PeakEwma,
    /// Always the same one for the same key, as long as it works. Localities are not looked at.
    RingHash(HashBy),
}

impl Method {
    /// Returns the word the configuration uses.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::RingHash(_) => "ring_hash",
        }
    }
}

/// What makes calls go to the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The address that the application's connection comes from.
    Source,
    /// The value of a request's header; the source address where a request has none.
    Header(String),
}

/// When an endpoint is left out for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures without a success between them.
    pub failures: u32,
    /// Percent of the calls of ten seconds that have to succeed.
    pub success_rate: u32,
    /// Calls in ten seconds without which their success rate says nothing.
    pub calls: u32,
    /// How long the first ejection lasts; each further one twice as long as the one before.
    pub base: Duration,
    /// How long one lasts at most.
    pub longest: Duration,
    /// Percent of the endpoints that may be out at once. The last one that is in is never ejected.
    pub share: u32,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: FAILURES,
            success_rate: SUCCESS_RATE,
            calls: CALLS,
            base: BASE_EJECTION,
            longest: LONGEST_EJECTION,
            share: EJECTED_SHARE,
        }
    }
}

/// How an endpoint is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Via {
    /// Over a connection of its own, with mutual TLS.
    #[default]
    Connection,
    /// Over a tunnel that is shared with other calls.
    Tunnel,
}

/// How much may be under way at once for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakers {
    /// Connections to its endpoints.
    pub connections: u32,
    /// Connections that are being made.
    pub pending: u32,
    /// Requests without a whole response.
    pub requests: u32,
}

impl Default for Breakers {
    fn default() -> Self {
        Self { connections: UNDER_WAY, pending: UNDER_WAY, requests: UNDER_WAY }
    }
}

/// How often a call may be tried again, where that is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Tries of one call after the first.
    pub attempts: u32,
    /// Percent of the calls of ten seconds that may be retries.
    pub ratio: u32,
    /// Retries a second that are always allowed.
    pub per_second: u32,
    /// The wait before the second retry is about this long, and doubles; the first retry does not wait.
    pub base: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: ATTEMPTS,
            ratio: RETRY_RATIO,
            per_second: RETRIES_PER_SECOND,
            base: BASE_WAIT,
            longest: LONGEST_WAIT,
        }
    }
}

/// How endpoints are asked whether they work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Health {
    /// Not at all: calls tell.
    #[default]
    ByCalls,
    /// Regularly, beside the calls.
    Checked(Check),
}

/// A regular question to each endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// From one question to the next.
    pub every: Duration,
    /// For the whole question.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is out.
    pub unhealthy: u32,
    /// Successes in a row after which it is in again.
    pub healthy: u32,
}

impl Check {
    /// A question with the usual times and thresholds.
    pub fn new(probe: Probe) -> Self {
        Self { probe, every: CHECK_EVERY, timeout: CHECK_TIMEOUT, unhealthy: UNHEALTHY, healthy: HEALTHY }
    }
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// To connect, and to prove an expected identity.
    Connect,
    /// Beside that, to answer a GET for this path with 2xx.
    Http {
        /// The path, with its leading slash.
        path: String,
    },
}

/// Failures in a row: one is a coincidence, five are not.
const FAILURES: u32 = 5;
/// Percent: an endpoint that fails every second call is worse than none.
const SUCCESS_RATE: u32 = 50;
/// Calls without which a rate says nothing.
const CALLS: u32 = 20;
/// The first ejection.
const BASE_EJECTION: Duration = Duration::from_secs(10);
/// The longest ejection.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);
/// Percent: the other half has to carry all calls.
const EJECTED_SHARE: u32 = 50;
/// More than one sidecar carries (`limits.connections`): a breaker trips where somebody has set it.
const UNDER_WAY: u32 = 10_000;
/// Tries after the first.
const ATTEMPTS: u32 = 2;
/// Percent: retries add a fifth to the load of a service that is failing already, and no more.
const RETRY_RATIO: u32 = 20;
/// So that a service with few calls has retries at all.
const RETRIES_PER_SECOND: u32 = 10;
/// The first wait.
const BASE_WAIT: Duration = Duration::from_millis(25);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// From one question to the next.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// For one question.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// Failed questions in a row.
const UNHEALTHY: u32 = 3;
/// Answered questions in a row.
const HEALTHY: u32 = 2;
