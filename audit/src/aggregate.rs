//! Many events as few records: bounded in keys, exact in counts.
//!
//! Events are counted under the finest of three keys that there is room for, and never dropped: the
//! last key is made of enumerations only, so there is always room for it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::SystemTime,
};

use crate::{
    event::{Decision, Endpoint, Event, Kind, Stage},
    id::DenialId,
};

/// Events counted under their keys.
#[derive(Debug, Default)]
pub(crate) struct Aggregates {
    by_key: HashMap<Key, Aggregate>,
}

/// The events of one key.
#[derive(Debug)]
pub(crate) struct Aggregate {
    /// The first of them, less what the key does not tell apart.
    pub(crate) sample: Event,
    /// What they have in common.
    pub(crate) scope: Scope,
    /// How many they are.
    pub(crate) count: u64,
    /// The time of the first.
    pub(crate) start: SystemTime,
    /// The time of the last.
    pub(crate) end: SystemTime,
    /// What the last refused client was told.
    pub(crate) last_denial: Option<DenialId>,
}

/// What the events of one aggregate have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Source, destination, rule, reason and method; for allowed requests the path too.
    Flow,
    /// Destination, rule and reason.
    Rule,
    /// Decision, stage and reason.
    Reason,
}

impl Aggregates {
    /// Counts one event.
    pub(crate) fn add(&mut self, event: Event) {
        self.merge(Aggregate::of(event));
    }

    /// Counts what one aggregate has counted, under the finest key with room.
    pub(crate) fn merge(&mut self, mut aggregate: Aggregate) {
        loop {
            let key = Key::of(&aggregate.sample, aggregate.scope);
            let room = self.by_key.len() < aggregate.scope.room();
            match self.by_key.get_mut(&key) {
                Some(known) => return known.take(aggregate),
                None if room => {
                    self.by_key.insert(key, aggregate);
                    return;
                }
                None => aggregate.widen(),
            }
        }
    }

    /// Returns whether nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Returns how many events were counted.
    pub(crate) fn total(&self) -> u64 {
        self.by_key.values().map(|aggregate| aggregate.count).sum()
    }

    /// Returns the aggregates, the earliest first.
    pub(crate) fn into_sorted(self) -> Vec<Aggregate> {
        let mut all: Vec<_> = self.by_key.into_values().collect();
        all.sort_by_key(|aggregate| aggregate.start);
        all
    }
}

impl Aggregate {
    /// Makes an aggregate of one.
    pub(crate) fn of(sample: Event) -> Self {
        let last_denial = match &sample.kind {
            Kind::Denied(denial) => Some(denial.id),
            Kind::Opened | Kind::Closed(_) | Kind::Allowed | Kind::Lifecycle(_) => None,
        };
        let (start, end) = (sample.time, sample.time);
        Self { sample, scope: Scope::Flow, count: 1, start, end, last_denial }
    }

    fn take(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.start = self.start.min(other.start);
        if other.end >= self.end {
            self.end = other.end;
            self.last_denial = other.last_denial;
        }
        if let (Kind::Closed(sum), Kind::Closed(more)) = (&mut self.sample.kind, &other.sample.kind) {
            sum.bytes_in = sum.bytes_in.saturating_add(more.bytes_in);
            sum.bytes_out = sum.bytes_out.saturating_add(more.bytes_out);
            sum.duration = sum.duration.saturating_add(more.duration);
        }
    }

    /// Drops from the sample what the next wider key does not tell apart.
    fn widen(&mut self) {
        self.scope = match self.scope {
            Scope::Flow => Scope::Rule,
            Scope::Rule | Scope::Reason => Scope::Reason,
        };
        self.sample.source = Endpoint::default();
        self.sample.tls = None;
        self.sample.http = None;
        self.sample.jwt = None;
        self.sample.near_misses = Vec::new();
        if self.scope == Scope::Reason {
            self.sample.destination = Endpoint::default();
            self.sample.policy = None;
            self.sample.original_port = None;
            self.sample.generation = Arc::default();
        }
    }
}

impl Scope {
    /// Returns the name the record carries.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Rule => "rule",
            Self::Reason => "reason",
        }
    }

    /// Returns how many keys may exist when one of this scope is added.
    const fn room(self) -> usize {
        match self {
            Self::Flow => MAX_FLOW_KEYS,
            Self::Rule => MAX_FLOW_KEYS + MAX_RULE_KEYS,
            Self::Reason => usize::MAX,
        }
    }
}

/// What tells aggregates apart.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    scope: Scope,
    decision: Decision,
    reason: Option<&'static str>,
    stage: Stage,
    lifecycle: Option<&'static str>,
    source: Option<Source>,
    destination: Option<Arc<str>>,
    port: Option<u16>,
    rule: Option<(Arc<str>, Arc<str>)>,
    method: Option<Box<str>>,
    path: Option<Box<str>>,
}

/// Who called: an identity, or else a network.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Source {
    Id(Arc<str>),
    Net(IpAddr),
}

impl Key {
    fn of(event: &Event, scope: Scope) -> Self {
        let mut key = Self {
            scope,
            decision: event.decision(),
            reason: event.reason().map(|reason| reason.as_str()),
            stage: event.stage,
            lifecycle: None,
            source: None,
            destination: None,
            port: None,
            rule: None,
            method: None,
            path: None,
        };
        if let Kind::Lifecycle(change) = &event.kind {
            key.lifecycle = Some(change.as_str());
        }
        if scope != Scope::Reason {
            key.destination = event.destination.id.clone().or_else(|| event.destination.name.clone());
            key.port = event.destination.port;
            key.rule = event.policy.as_ref().map(|rule| (rule.file.clone(), rule.rule.clone()));
        }
        if scope == Scope::Flow {
            key.flow_of(event);
        }
        key
    }

    fn flow_of(&mut self, event: &Event) {
        self.source = match (&event.source.id, event.source.ip) {
            (Some(id), _) => Some(Source::Id(id.clone())),
            (None, Some(ip)) => Some(Source::Net(network(ip).0)),
            (None, None) => None,
        };
        let Some(http) = &event.http else { return };
        self.method = Some(http.method.as_str().into());
        if let Kind::Allowed = event.kind {
            self.path = Some(http.path.as_str().into());
        }
    }
}

/// Returns the /24 or /64 that an address belongs to, and the length of its prefix.
pub(crate) fn network(ip: IpAddr) -> (IpAddr, u8) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => (Ipv4Addr::from_bits(v4.to_bits() & V4_MASK).into(), 24),
        IpAddr::V6(v6) => (Ipv6Addr::from_bits(v6.to_bits() & V6_MASK).into(), 64),
    }
}

/// How many flows are told apart.
pub(crate) const MAX_FLOW_KEYS: usize = 4_096;
/// How many destinations and rules are told apart once there is no room for more flows.
pub(crate) const MAX_RULE_KEYS: usize = 1_024;
/// The first 24 bits of an IPv4 address.
const V4_MASK: u32 = 0xffff_ff00;
/// The first 64 bits of an IPv6 address.
const V6_MASK: u128 = !0 << 64;

#[cfg(test)]
mod tests;
