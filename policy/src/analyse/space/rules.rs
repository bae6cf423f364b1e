//! Rules as products of atom sets.

use super::build::stretch;
use super::{ACT, AUTHORITY, Act, DESTINATION, FIXED, PATH, PEER, PORT, SNI, SOURCE, Space, TUNNEL, Texts};
use crate::access::RequestKind;
use crate::analyse::blocks::Block;
use crate::analyse::language::{Pattern, bounds};
use crate::analyse::lines::Stretch;
use crate::analyse::sets::AtomSet;
use crate::document::{
    Absent, ConnectionCondition, Effect, HttpLimits, Kinds, Layer, Limit, RequestCondition, Rule, Sense,
};
use crate::net::Network;
use crate::pattern::{IdPattern, PathPattern, TextPattern};

/// A pattern of paths as the space compares them.
pub(super) fn path_pattern(path: &PathPattern, loose: bool) -> Pattern {
    if loose { Pattern::loose_paths(path) } else { Pattern::paths(path) }
}

impl Space {
    /// The accesses that a rule matches, as products; none of them is empty.
    pub(crate) fn blocks(&self, rule: &Rule) -> Vec<Block> {
        let base = self.connection(rule);
        let http_only =
            rule.at_connect.iter().any(|condition| matches!(condition, ConnectionCondition::Http));
        let opaque = self.acts.those(|act| *act == Act::Tcp);
        let mut blocks = Vec::new();
        match (&rule.layer, rule.effect) {
            (Layer::Tcp, Effect::Allow) => blocks.extend((!http_only).then(|| with(&base, ACT, &opaque))),
            (Layer::Tcp, Effect::Deny) => {
                blocks.push(if http_only { with(&base, ACT, &self.http()) } else { base });
            }
            (Layer::Http(limits), effect) => {
                let requests = self.requests(&base, limits, rule);
                // Requests cannot be seen on opaque TCP, so that a denial of some is one of all.
                let everything = requests == [with(&base, ACT, &self.http())];
                match (effect, http_only) {
                    (Effect::Deny, false) if everything => blocks.push(base),
                    (Effect::Deny, false) => {
                        blocks.push(with(&base, ACT, &opaque));
                        blocks.extend(requests);
                    }
                    (Effect::Deny, true) | (Effect::Allow, _) => blocks.extend(requests),
                }
            }
        }
        blocks.retain(|block| !block.is_empty());
        blocks
    }

    /// Requests with a token that proves nothing.
    pub(crate) fn invalid_tokens(&self) -> Option<Block> {
        let bare = self.tokens.first()?;
        let mut block = with(&self.whole(), ACT, &self.http());
        block.replace(FIXED + self.headers.len(), bare.with_standing(super::tokens::Standing::Invalid));
        Some(block)
    }

    /// The callers with these IDs.
    pub(crate) fn callers(&self, id: &IdPattern) -> AtomSet {
        self.peers.any_of([Pattern::ids(id)].iter())
    }

    /// Callers without an identity.
    pub(crate) fn unauthenticated(&self) -> AtomSet {
        self.peers.absent()
    }

    /// Tunnels to a port of no host.
    pub(super) fn tunnels_to_nowhere(&self) -> Block {
        let mut block = with(&self.whole(), ACT, &self.acts.those(|act| *act == Act::Connect));
        block.narrow(AUTHORITY, &self.authorities.absent());
        let size = self.tunnels.stretches().len() + 1;
        block.narrow(TUNNEL, &AtomSet::All.minus(&AtomSet::of([0], size), size));
        block
    }

    fn http(&self) -> AtomSet {
        self.acts.those(|act| *act != Act::Tcp)
    }

    fn connection(&self, rule: &Rule) -> Block {
        let mut block = self.whole();
        block.narrow(PEER, &self.peers(rule));
        if let Limit::Only(networks) = &rule.source_net {
            block.narrow(SOURCE, &self.sources_in(networks));
        }
        if let Limit::Only(ranges) = &rule.ports {
            block.narrow(PORT, &self.ports_in(ranges));
        }
        for condition in &rule.at_connect {
            match condition {
                ConnectionCondition::Peer { any_of, sense } => {
                    block.narrow(PEER, &sensed(&self.peers, any_of, *sense));
                }
                ConnectionCondition::Source { any_of, sense } => {
                    let size = self.sources.size();
                    block.narrow(SOURCE, &as_sensed(self.sources_in(any_of), *sense, size));
                }
                ConnectionCondition::Destination { any_of, sense } => {
                    let size = self.destinations.size();
                    let within = any_of.iter().flat_map(|network| {
                        let (v4, low, high) = bounds(*network);
                        self.destinations.within(v4, Stretch { low, high })
                    });
                    block.narrow(DESTINATION, &as_sensed(AtomSet::of(within, size), *sense, size));
                }
                ConnectionCondition::Port { any_of, sense } => {
                    let size = self.ports.stretches().len();
                    block.narrow(PORT, &as_sensed(self.ports_in(any_of), *sense, size));
                }
                ConnectionCondition::Sni { any_of, sense, absent } => {
                    let named = texts(&self.server_names, any_of);
                    let size = self.server_names.size();
                    let present = as_sensed(named, *sense, size).and(&self.server_names.present());
                    let whole = match absent {
                        Absent::Holds => present.or(&self.server_names.absent(), size),
                        Absent::Fails => present,
                    };
                    block.narrow(SNI, &whole);
                }
                ConnectionCondition::Http => {}
            }
        }
        block
    }

    fn peers(&self, rule: &Rule) -> AtomSet {
        let (size, absent) = (self.peers.size(), self.peers.absent());
        let ids = |patterns: &[IdPattern]| {
            let patterns: Vec<Pattern> = patterns.iter().map(Pattern::ids).collect();
            self.peers.any_of(patterns.iter())
        };
        let mut named = if rule.from.anyone { self.peers.present() } else { ids(&rule.from.patterns) };
        if !rule.except.is_empty() {
            named = named.minus(&ids(&rule.except), size);
        }
        // "anyone" refuses those without an identity too, and grants nothing to them.
        if rule.from.unauthenticated || (rule.from.anyone && rule.effect == Effect::Deny) {
            named = named.or(&absent, size);
        }
        named
    }

    fn sources_in(&self, networks: &[Network]) -> AtomSet {
        let within = networks.iter().flat_map(|network| {
            let (v4, low, high) = bounds(*network);
            self.sources.within(v4, Stretch { low, high })
        });
        AtomSet::of(within, self.sources.size())
    }

    fn ports_in(&self, ranges: &[std::ops::RangeInclusive<u16>]) -> AtomSet {
        let within = ranges.iter().flat_map(|range| self.ports.within(stretch(range)));
        AtomSet::of(within, self.ports.stretches().len())
    }

    // A tunnel has no path. What is absent grants nothing and escapes no denial of ours; of Istio's conditions it satisfies
    // the negative ones only.
    fn requests(&self, base: &Block, limits: &HttpLimits, rule: &Rule) -> Vec<Block> {
        let mut request = self.request(base, limits, rule);
        let conditions: Vec<(&[TextPattern], Sense)> =
            rule.at_request.iter().filter_map(RequestCondition::on_path).collect();
        let mut tunnels_fit = conditions.iter().all(|(_, sense)| *sense == Sense::IsNot);
        let mut named = AtomSet::All;
        if let Limit::Only(paths) = &limits.paths {
            tunnels_fit &= rule.effect == Effect::Deny;
            let patterns: Vec<Pattern> =
                paths.iter().map(|path| path_pattern(path, self.loose_paths)).collect();
            named = self.paths.any_of(patterns.iter());
        } else if conditions.is_empty() {
            return vec![request];
        }
        let tunnel = with(&request, ACT, &self.acts.those(|act| *act == Act::Connect));
        request.narrow(ACT, &self.acts.those(|act| *act != Act::Connect));
        request.narrow(PATH, &named);
        for (any_of, sense) in &conditions {
            request.narrow(PATH, &sensed(&self.paths, any_of, *sense));
        }
        if tunnels_fit { vec![request, tunnel] } else { vec![request] }
    }

    fn request(&self, base: &Block, limits: &HttpLimits, rule: &Rule) -> Block {
        let mut block = with(base, ACT, &self.acts(limits, rule.effect));
        if let Limit::Only(hosts) = &limits.hosts {
            let patterns: Vec<Pattern> = hosts.iter().map(Pattern::authorities).collect();
            let named = self.authorities.any_of(patterns.iter());
            // What is absent grants nothing, and escapes no denial.
            let whole = match rule.effect {
                Effect::Allow => named,
                Effect::Deny => named.or(&self.authorities.absent(), self.authorities.size()),
            };
            block.narrow(AUTHORITY, &whole);
        }
        if let Kinds::Connect { to_ports: Limit::Only(ranges) } = &limits.kinds {
            let within = ranges.iter().flat_map(|range| self.tunnels.within(stretch(range)));
            let atoms = within.map(|atom| atom + 1).chain((rule.effect == Effect::Deny).then_some(0));
            block.narrow(TUNNEL, &AtomSet::of(atoms, self.tunnels.stretches().len() + 1));
        }
        for condition in &rule.at_request {
            self.narrow(&mut block, condition);
        }
        block
    }

    fn acts(&self, limits: &HttpLimits, effect: Effect) -> AtomSet {
        let methods = match &limits.methods {
            Limit::Any => AtomSet::All,
            Limit::Only(methods) => {
                let patterns: Vec<Pattern> = methods.iter().map(|method| Pattern::exact(method)).collect();
                self.with_methods(&self.acts.methods.any_of(patterns.iter()))
            }
        };
        let kinds = self.acts.those(|act| match (&limits.kinds, act) {
            (_, Act::Tcp) => false,
            (Kinds::Connect { .. }, act) => *act == Act::Connect,
            (kinds, Act::Plain(_)) => kinds.fit(RequestKind::Plain, effect),
            (kinds, Act::Connect) => kinds.fit(RequestKind::Connect { port: None }, effect),
            (kinds, Act::Upgrade { protocol, .. }) => kinds.fit(RequestKind::Upgrade { protocol }, effect),
        });
        kinds.and(&methods)
    }

    /// The requests with methods of these atoms.
    fn with_methods(&self, atoms: &AtomSet) -> AtomSet {
        let numbered = (0u32..).zip(&self.acts.methods.partition.atoms);
        let named: std::collections::HashSet<&str> = numbered
            .filter(|(number, _)| atoms.has(*number))
            .map(|(_, atom)| atom.witness.as_str())
            .collect();
        self.acts.those(|act| match act {
            Act::Tcp => false,
            Act::Plain(method) | Act::Upgrade { method, .. } => named.contains(method.as_str()),
            Act::Connect => named.contains(crate::access::CONNECT),
        })
    }

    fn narrow(&self, block: &mut Block, condition: &RequestCondition) {
        match condition {
            RequestCondition::Method { any_of, sense } => {
                let atoms = sensed(&self.acts.methods, any_of, *sense);
                block.narrow(ACT, &self.with_methods(&atoms));
            }
            RequestCondition::Authority { any_of, sense } => {
                block.narrow(AUTHORITY, &sensed(&self.authorities, any_of, *sense));
            }
            RequestCondition::Path { .. } => {}
            RequestCondition::Header { name, .. } => {
                let found = (FIXED..).zip(&self.headers).find(|(_, header)| header.name == *name);
                if let Some((dimension, header)) = found {
                    block.narrow(dimension, &header.where_holds(condition));
                }
            }
            RequestCondition::Principal { .. }
            | RequestCondition::Claim { .. }
            | RequestCondition::Token(_) => {
                for (dimension, token) in (FIXED + self.headers.len()..).zip(&self.tokens) {
                    if let Some(holding) = token.where_holds(condition) {
                        block.narrow(dimension, &holding);
                    }
                }
            }
        }
    }
}

impl RequestCondition {
    fn on_path(&self) -> Option<(&[TextPattern], Sense)> {
        match self {
            Self::Path { any_of, sense } => Some((any_of, *sense)),
            Self::Method { .. }
            | Self::Authority { .. }
            | Self::Header { .. }
            | Self::Principal { .. }
            | Self::Claim { .. }
            | Self::Token(_) => None,
        }
    }
}

fn with(block: &Block, dimension: usize, set: &AtomSet) -> Block {
    let mut block = block.clone();
    block.narrow(dimension, set);
    block
}

fn texts(dimension: &Texts, any_of: &[TextPattern]) -> AtomSet {
    let patterns: Vec<Pattern> = any_of.iter().map(Pattern::texts).collect();
    dimension.any_of(patterns.iter())
}

// What is absent satisfies no positive condition, and every negative one.
fn sensed(dimension: &Texts, any_of: &[TextPattern], sense: Sense) -> AtomSet {
    match sense {
        Sense::Is => texts(dimension, any_of),
        Sense::IsNot => dimension.not(&texts(dimension, any_of)),
    }
}

fn as_sensed(found: AtomSet, sense: Sense, size: usize) -> AtomSet {
    match sense {
        Sense::Is => found,
        Sense::IsNot => AtomSet::All.minus(&found, size),
    }
}
