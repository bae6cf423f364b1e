//! `PeerAuthentication`: on which ports callers must prove an identity.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::SystemTime;

use super::resource::{Metadata, Name};
use super::scope::{Scope, Within, read_scope};
use super::{MAX_ENTRIES, plain};
use crate::decision::RulePlace;
use crate::document::{Effect, Layer, Limit, Mode, Peers, Policy, Rule, Stance};
use crate::mesh::{Mesh, Workload};
use crate::strict::{Node, Reader, quote};

/// A `PeerAuthentication`.
#[derive(Clone, Debug)]
pub(crate) struct PeerAuthentication {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    pub(crate) created: Option<SystemTime>,
    pub(crate) mtls: Mtls,
    pub(crate) ports: Vec<(u16, Mtls)>,
}

/// What is asked of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mtls {
    /// What the next wider scope asks.
    Inherit,
    /// Nothing. An identity that is proved all the same counts.
    Permissive,
    /// An identity.
    Strict,
}

/// Reads a `spec`.
pub(super) fn read(
    metadata: Metadata,
    spec: &Node,
    mesh: &Mesh,
    read: &mut Reader<'_>,
) -> Option<PeerAuthentication> {
    let mut fields = read.map(spec)?;
    let scope = read_scope(&mut fields, &metadata.name, mesh, read);
    let mtls = match fields.optional("mtls") {
        Some(node) => read_mtls(node, read),
        None => Some(Mtls::Inherit),
    };
    let ports_node = fields.optional("portLevelMtls");
    let ports = match ports_node {
        Some(node) => read_ports(node, read),
        None => Some(Vec::new()),
    };
    fields.finish(read);
    let (scope, ports) = (scope?, ports?);
    if let (true, Some(node)) = (scope.is_everywhere_in_it(), ports_node) {
        let cure = "add \"selector\" with the labels of the workload whose ports are meant";
        read.problem(node, "\"portLevelMtls\" needs a selector", Some(cure));
        return None;
    }
    if scope.within == Within::Mesh && !scope.is_everywhere_in_it() {
        let cure = "put it into the namespace of the workload, or remove the selector";
        let message = "a PeerAuthentication with a selector has no effect in the root namespace";
        read.warn(metadata.name.at, message, cure);
    }
    Some(PeerAuthentication { name: metadata.name, scope, created: metadata.created, mtls: mtls?, ports })
}

fn read_mtls(node: &Node, read: &mut Reader<'_>) -> Option<Mtls> {
    let mut fields = read.map(node)?;
    let mode = fields.optional("mode");
    fields.finish(read);
    let Some(node) = mode else { return Some(Mtls::Inherit) };
    match read.one_of(node, &["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])? {
        "UNSET" => Some(Mtls::Inherit),
        "DISABLE" => {
            let cure = "write \"mode: PERMISSIVE\"; on links without TLS nobody has an identity anyhow";
            read.warn(node.span(), "DISABLE is read as PERMISSIVE: an identity that is proved counts", cure);
            Some(Mtls::Permissive)
        }
        "PERMISSIVE" => Some(Mtls::Permissive),
        _ => Some(Mtls::Strict),
    }
}

fn read_ports(node: &Node, read: &mut Reader<'_>) -> Option<Vec<(u16, Mtls)>> {
    let entries = read.entries(node)?;
    if entries.is_empty() || entries.len() > MAX_ENTRIES {
        let message = format!("expected from 1 to {MAX_ENTRIES} ports, found {}", entries.len());
        read.problem(node, message, Some("leave the key out, or name at least one"));
        return None;
    }
    let each: Vec<Option<(u16, Mtls)>> = entries
        .into_iter()
        .map(|(key, node)| {
            let mtls = read_mtls(node, read);
            let port = key.parse::<u16>().ok().filter(|port| *port != 0 && port.to_string() == key);
            if port.is_none() {
                read.problem(node, format!("{} is not a port from 1 to 65535", quote(key)), None);
            }
            Some((port?, mtls?))
        })
        .collect();
    each.into_iter().collect()
}

/// The policy that refuses callers without identity at a workload, if its ports ask for one.
pub(crate) fn resolved(all: &[PeerAuthentication], workload: &Workload) -> Option<Policy> {
    let oldest = |fits: &dyn Fn(&PeerAuthentication) -> bool| {
        all.iter()
            .filter(|policy| policy.scope.selects(workload) && fits(policy))
            .min_by_key(|policy| policy.age())
    };
    let mesh = oldest(&|policy| policy.scope.within == Within::Mesh && policy.scope.is_everywhere_in_it());
    let namespace =
        oldest(&|policy| policy.scope.within != Within::Mesh && policy.scope.is_everywhere_in_it());
    let own = oldest(&|policy| policy.scope.within != Within::Mesh && !policy.scope.is_everywhere_in_it());
    let by_width = [own, namespace, mesh];
    let general = by_width.into_iter().flatten().find(|policy| policy.mtls != Mtls::Inherit);
    let set = own.map(|policy| policy.ports.as_slice()).unwrap_or_default();
    let set: Vec<(u16, Mtls)> = set.iter().copied().filter(|(_, mtls)| *mtls != Mtls::Inherit).collect();
    let strict: Vec<u16> =
        set.iter().filter(|(_, mtls)| *mtls == Mtls::Strict).map(|(port, _)| *port).collect();
    let mut rules = Vec::new();
    if let (Some(policy), false) = (own, strict.is_empty()) {
        let ports = Limit::Only(strict.into_iter().map(|port| port..=port).collect());
        rules.push(policy.refusal(ports));
    }
    if let Some(policy) = general.filter(|policy| policy.mtls == Mtls::Strict) {
        rules.extend(all_but(set.iter().map(|(port, _)| *port).collect()).map(|ports| policy.refusal(ports)));
    }
    let name = own.filter(|_| !set.is_empty()).or(general)?;
    if rules.is_empty() {
        return None;
    }
    Some(Policy { rules, ..plain(&name.name, Stance::Open, Mode::Enforce) })
}

// Every port but these; none where nothing is left.
fn all_but(mut ports: Vec<u16>) -> Option<Limit<RangeInclusive<u16>>> {
    if ports.is_empty() {
        return Some(Limit::Any);
    }
    ports.sort_unstable();
    let mut ranges = Vec::new();
    let mut next: Option<u16> = Some(0);
    for port in ports {
        let Some(from) = next else { break };
        if let Some(to) = port.checked_sub(1).filter(|to| *to >= from) {
            ranges.push(from..=to);
        }
        next = port.checked_add(1);
    }
    ranges.extend(next.map(|from| from..=u16::MAX));
    (!ranges.is_empty()).then_some(Limit::Only(ranges))
}

impl PeerAuthentication {
    // The oldest counts, then the first by name. One that does not say when it was made is older than any that does, as in Kubernetes.
    fn age(&self) -> (Option<SystemTime>, &str, &str) {
        (self.created, &self.name.name, &self.name.namespace)
    }

    fn refusal(&self, ports: Limit<RangeInclusive<u16>>) -> Arc<Rule> {
        Arc::new(Rule {
            reference: RulePlace {
                policy: self.name.full(),
                rule: RULE.into(),
                file: Arc::clone(&self.name.file),
                line: self.name.at.start.line,
            }
            .into(),
            effect: Effect::Deny,
            mode: Mode::Enforce,
            from: Peers { anyone: false, unauthenticated: true, patterns: Vec::new() },
            except: Vec::new(),
            source_net: Limit::Any,
            ports,
            layer: Layer::Tcp,
            at_connect: Vec::new(),
            at_request: Vec::new(),
        })
    }
}

// What records call the rule.
const RULE: &str = "PeerAuthentication";
