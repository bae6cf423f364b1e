//! How calls of a service are spread and recover from failures. What is not said is the sidecar's default.

use std::time::Duration;

use serde::Serialize;

use super::time;
use crate::strict::{Fields, Node, Reader};

/// How the endpoint of a call is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// The method; the sidecar's default where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
    /// With `ring_hash`, the header whose value keeps calls at one endpoint; else it is the source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// How long a call may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// For a connection, with its handshake.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub connect: Option<Duration>,
    /// For a whole request, retries included.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub request: Option<Duration>,
    /// Without a byte on a connection.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub idle: Option<Duration>,
}

/// When a call is tried again, where that is safe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retries {
    /// Tries after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Whether an answer 503 is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_unavailable: Option<bool>,
    /// Percent of the calls that may be retries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<u32>,
    /// Retries a second that are always allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<u32>,
    /// The first wait.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub base: Option<Duration>,
    /// The longest wait.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub longest: Option<Duration>,
}

/// When an endpoint is left out for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ejection {
    /// Failures without a success between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// Percent of the calls that have to succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<u32>,
    /// Calls without which their success rate says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
    /// How long the first ejection lasts.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub base: Option<Duration>,
    /// How long one lasts at most.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub longest: Option<Duration>,
    /// Percent of the endpoints that may be out at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
}

/// How much may be under way at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Breakers {
    /// Connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Connections that are being made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Requests without a whole response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
}

/// How endpoints are asked whether they work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// What they are asked.
    #[serde(flatten)]
    pub probe: Probe,
    /// From one question to the next.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub every: Option<Duration>,
    /// For one question.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time")]
    pub timeout: Option<Duration>,
    /// Failures in a row after which an endpoint is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unhealthy: Option<u32>,
    /// Successes in a row after which it is in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<u32>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "probe", rename_all = "snake_case")]
pub enum Probe {
    /// To connect, and to prove an expected identity.
    Connect,
    /// Beside that, to answer a GET for this path with 2xx.
    Http {
        /// The path, with its leading slash.
        path: String,
    },
}

impl Balance {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let method = map.required("method", read).and_then(|node| read.one_of(node, &METHODS));
        let header = map.optional("header").map(|node| (node, header(node, read)));
        map.finish(read);
        let method = method?;
        match header {
            None => Some(Self { method: Some(method), header: None }),
            Some((_, header)) if method == RING_HASH => {
                Some(Self { method: Some(method), header: Some(header?) })
            }
            Some((node, _)) => {
                read.problem(node, "only ring_hash looks at a header", None);
                None
            }
        }
    }
}

impl Timeouts {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let (connect, request) = (times(&mut map, "connect", read), times(&mut map, "request", read));
        let idle = times(&mut map, "idle", read);
        map.finish(read);
        Some(Self { connect, request, idle })
    }
}

impl Retries {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let retries = Self {
            attempts: number(&mut map, "attempts", 0..=MAX_ATTEMPTS, read),
            on_unavailable: map.optional("on_unavailable").and_then(|node| read.boolean(node)),
            ratio: number(&mut map, "ratio", 0..=100, read),
            per_second: number(&mut map, "per_second", 0..=MAX_PER_SECOND, read),
            base: times(&mut map, "base", read),
            longest: times(&mut map, "longest", read),
        };
        ordered(node, (retries.base, retries.longest), read);
        map.finish(read);
        Some(retries)
    }
}

impl Ejection {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let ejection = Self {
            failures: number(&mut map, "failures", 1..=MAX_COUNT, read),
            success_rate: number(&mut map, "success_rate", 0..=100, read),
            calls: number(&mut map, "calls", 1..=MAX_COUNT, read),
            base: times(&mut map, "base", read),
            longest: times(&mut map, "longest", read),
            share: number(&mut map, "share", 0..=100, read),
        };
        ordered(node, (ejection.base, ejection.longest), read);
        map.finish(read);
        Some(ejection)
    }
}

impl Breakers {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let breakers = Self {
            connections: number(&mut map, "connections", 1..=MAX_COUNT, read),
            pending: number(&mut map, "pending", 1..=MAX_COUNT, read),
            requests: number(&mut map, "requests", 1..=MAX_COUNT, read),
        };
        map.finish(read);
        Some(breakers)
    }
}

impl Health {
    pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Self> {
        let mut map = read.map(node)?;
        let probe = map.required("probe", read).and_then(|node| read.one_of(node, &["connect", "http"]));
        let probe = match probe {
            Some("http") => {
                let path = map.required("path", read).and_then(|node| path(node, read));
                path.map(|path| Probe::Http { path })
            }
            Some(_) => Some(Probe::Connect),
            None => {
                // Its flaw is noted; whether a path fits cannot be told.
                map.optional("path");
                None
            }
        };
        let every = times(&mut map, "every", read);
        let timeout = times(&mut map, "timeout", read);
        let unhealthy = number(&mut map, "unhealthy", 1..=MAX_COUNT, read);
        let healthy = number(&mut map, "healthy", 1..=MAX_COUNT, read);
        map.finish(read);
        Some(Self { probe: probe?, every, timeout, unhealthy, healthy })
    }
}

fn number(
    map: &mut Fields<'_>,
    name: &'static str,
    range: std::ops::RangeInclusive<u64>,
    read: &mut Reader<'_>,
) -> Option<u32> {
    map.optional(name)
        .and_then(|node| read.integer(node, range))
        .and_then(|number| u32::try_from(number).ok())
}

fn times(map: &mut Fields<'_>, name: &'static str, read: &mut Reader<'_>) -> Option<Duration> {
    map.optional(name).and_then(|node| read.duration_within(node, MIN_TIME..=MAX_TIME))
}

fn ordered(node: &Node, (base, longest): (Option<Duration>, Option<Duration>), read: &mut Reader<'_>) {
    if let (Some(base), Some(longest)) = (base, longest)
        && base > longest
    {
        read.problem(node, "\"base\" is longer than \"longest\"", None);
    }
}

fn header(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let name = read.string(node)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.len() > MAX_HEADER || !name.bytes().all(fits) {
        read.problem(node, "it is not the name of a header", None);
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn path(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let path = read.string(node)?;
    if path.len() > MAX_PATH || !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        read.problem(node, "it is not a path such as /healthz", None);
        return None;
    }
    Some(path.to_owned())
}

const RING_HASH: &str = "ring_hash";
const METHODS: [&str; 4] = ["round_robin", "least_request", "peak_ewma", RING_HASH];
/// The shortest time that can be asked for.
const MIN_TIME: Duration = Duration::from_millis(1);
/// The longest time that can be asked for.
const MAX_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Most tries after the first.
const MAX_ATTEMPTS: u64 = 10;
/// Most retries a second that are always allowed.
const MAX_PER_SECOND: u64 = 10_000;
/// Most of anything that is counted.
const MAX_COUNT: u64 = 1_000_000;
/// The longest name of a header.
const MAX_HEADER: usize = 128;
/// The longest path.
const MAX_PATH: usize = 1_024;
