//! Allow rules proposed for calls that were refused.
//!
//! A proposal grants what was seen and nothing else: this caller, this port, these methods on these paths of this host. The one
//! exception has its reason written beside it: paths that differ in one segment only, where each has a number or an
//! identifier of a kind, become one pattern once there are [`GROUPED_FROM`] of them.

mod shapes;
mod text;

use std::collections::{BTreeMap, BTreeSet};

use identity::SpiffeId;

use crate::host::CanonicalHost;
use crate::pattern::PathPattern;

pub use text::Proposal;

/// A call that was refused, as a log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedCall {
    /// Who called.
    pub from: SpiffeId,
    /// Who was called.
    pub to: SpiffeId,
    /// At which port.
    pub port: u16,
    /// What was asked; absent for a connection.
    pub request: Option<RefusedRequest>,
    /// How many such calls the record stands for.
    pub count: u64,
}

/// A request that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRequest {
    /// The method.
    pub method: String,
    /// The host, if it named one.
    pub host: Option<String>,
    /// The path in its canonical form.
    pub path: String,
}

/// A rule that would allow what was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedRule {
    /// Its name.
    pub name: String,
    /// Who may call.
    pub from: SpiffeId,
    /// At which port.
    pub port: u16,
    /// Which requests; absent for a connection.
    pub http: Option<ProposedRequests>,
    /// How many refused calls it is for.
    pub calls: u64,
    /// Why it is as it is, a sentence each.
    pub reasons: Vec<String>,
}

/// The requests that a rule would allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProposedRequests {
    /// The methods.
    pub methods: Vec<String>,
    /// The host; absent where the requests named none.
    pub host: Option<String>,
    /// The paths and patterns.
    pub paths: Vec<String>,
}

/// What a log teaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// By the workload called, the rules.
    pub proposals: Vec<Proposal>,
    /// What nothing is proposed for, and why.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Collects refused calls. What it holds is bounded: what goes beyond is counted as left out.
#[derive(Debug, Default)]
pub struct Lessons {
    flows: BTreeMap<Flow, Calls>,
    kept: usize,
    left_out: BTreeMap<&'static str, u64>,
}

/// Between whom, and at which port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    to: SpiffeId,
    from: SpiffeId,
    port: u16,
}

/// What requests ask for: a path of a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    host: Option<String>,
    path: String,
}

#[derive(Debug, Default)]
struct Calls {
    connections: u64,
    requests: BTreeMap<Target, BTreeMap<String, u64>>,
}

impl Lessons {
    /// Takes a call in.
    pub fn take(&mut self, call: RefusedCall) {
        let flaw = call.request.as_ref().and_then(unwritable);
        if let Some(reason) = flaw {
            return self.leave_out(reason, call.count);
        }
        let key = Flow { to: call.to, from: call.from, port: call.port };
        let calls = match self.flows.get_mut(&key) {
            Some(calls) => calls,
            None if self.kept >= MAX_KEPT => return self.leave_out(TOO_MANY, call.count),
            None => {
                self.kept += 1;
                self.flows.entry(key).or_default()
            }
        };
        let Some(request) = call.request else {
            calls.connections = calls.connections.saturating_add(call.count);
            return;
        };
        let methods = calls.requests.entry(Target { host: request.host, path: request.path }).or_default();
        match methods.get_mut(&request.method) {
            Some(count) => *count = count.saturating_add(call.count),
            None if self.kept >= MAX_KEPT => self.leave_out(TOO_MANY, call.count),
            None => {
                self.kept += 1;
                methods.insert(request.method, call.count);
            }
        }
    }

    /// Notes calls for which nothing is proposed.
    pub fn leave_out(&mut self, reason: &'static str, count: u64) {
        let sum = self.left_out.entry(reason).or_default();
        *sum = sum.saturating_add(count);
    }

    /// What was learned, in the order of the workloads' IDs.
    pub fn propose(self) -> Learned {
        let mut by_workload: BTreeMap<SpiffeId, Vec<ProposedRule>> = BTreeMap::new();
        for (flow, calls) in self.flows {
            let rules = by_workload.entry(flow.to).or_default();
            propose_for(&flow.from, flow.port, calls, rules);
        }
        let proposals = by_workload.into_iter().flat_map(|(to, rules)| Proposal::all(&to, rules)).collect();
        Learned { proposals: Proposal::with_names_apart(proposals), left_out: self.left_out }
    }
}

fn unwritable(request: &RefusedRequest) -> Option<&'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if request.method == crate::access::CONNECT {
        return Some("tunnels are to be allowed by hand");
    }
    if request.method.is_empty() || !request.method.bytes().all(token) {
        return Some("the method cannot be written in a rule");
    }
    if PathPattern::parse(&request.path).is_err() || request.path.contains('*') {
        return Some("the path cannot be written in a rule");
    }
    let host = request.host.as_deref();
    let written =
        host.is_none_or(|host| CanonicalHost::parse(host).is_ok_and(|known| known.as_str() == host));
    (!written).then_some("the host cannot be written in a rule")
}

// Requests to one host with the same methods share a rule, so that no method is granted on a path on which it was not seen.
fn propose_for(from: &SpiffeId, port: u16, calls: Calls, rules: &mut Vec<ProposedRule>) {
    if calls.connections > 0 {
        rules.push(ProposedRule {
            name: name(rules.len()),
            from: from.clone(),
            port,
            http: None,
            calls: calls.connections,
            reasons: vec![format!("connected to port {port}, refused {}", times(calls.connections))],
        });
    }
    let mut alike: BTreeMap<(Option<String>, BTreeSet<String>), BTreeMap<String, u64>> = BTreeMap::new();
    for (Target { host, path }, methods) in calls.requests {
        let count = methods.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        let names: BTreeSet<String> = methods.into_keys().collect();
        if !names.is_empty() {
            alike.entry((host, names)).or_default().insert(path, count);
        }
    }
    for ((host, methods), paths) in alike {
        for part in shapes::grouped(paths).chunks(crate::MAX_PATHS) {
            let calls = part.iter().fold(0_u64, |sum, shape| sum.saturating_add(shape.calls));
            let mut reasons = vec![format!("asked for these paths, refused {}", times(calls))];
            reasons.extend(part.iter().filter_map(shapes::Shape::reason));
            rules.push(ProposedRule {
                name: name(rules.len()),
                from: from.clone(),
                port,
                http: Some(ProposedRequests {
                    methods: methods.iter().cloned().collect(),
                    host: host.clone(),
                    paths: part.iter().map(|shape| shape.pattern.clone()).collect(),
                }),
                calls,
                reasons,
            });
        }
    }
}

fn name(before: usize) -> String {
    format!("learned-{}", before.saturating_add(1))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// How many paths of a shape there are before they become a pattern.
pub const GROUPED_FROM: usize = 4;

/// Most callers, ports and requests kept apart.
pub const MAX_KEPT: usize = 100_000;

const TOO_MANY: &str = "there are more kinds of calls than are kept apart";

#[cfg(test)]
mod tests;
