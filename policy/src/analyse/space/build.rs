//! From rules to the space in which they differ: everything they name is collected first, then taken apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::headers::{Conditions, Coverage, HeaderDimension};
use super::tokens::{Standing, TokenDimension, names};
use super::{AbsentAtom, Acts, Addresses, FIXED, Space, Texts};
use crate::access::CONNECT;
use crate::analyse::blocks::Block;
use crate::analyse::budget::{Budget, Spent};
use crate::analyse::language::{Pattern, Universe, bounds, partition};
use crate::analyse::lines::{Line, Stretch};
use crate::document::{ConnectionCondition, HttpLimits, Kinds, Layer, Limit, RequestCondition, Rule};
use crate::net::Network;
use crate::pattern::IdPattern;

/// Everything that the rules of a question name.
#[derive(Debug, Default)]
pub(crate) struct Survey<'r> {
    rules: Vec<&'r Rule>,
    ids: Vec<&'r IdPattern>,
    tokens_matter: bool,
}

impl<'r> Survey<'r> {
    /// Notes a rule.
    pub(crate) fn rule(&mut self, rule: &'r Rule) {
        self.rules.push(rule);
    }

    /// Notes callers that are asked about.
    pub(crate) fn caller(&mut self, id: &'r IdPattern) {
        self.ids.push(id);
    }

    /// Notes that a token matters though no rule looks at it.
    pub(crate) fn tokens(&mut self) {
        self.tokens_matter = true;
    }

    /// Takes everything apart.
    pub(crate) fn space(&self, budget: &mut Budget) -> Result<Space, Spent> {
        let loose_paths = self.rules.iter().any(|rule| compares_texts_of_paths(rule));
        let mut named = Named { loose_paths, ..Named::default() };
        for rule in &self.rules {
            budget.spend(1)?;
            named.rule(rule);
        }
        self.ids.iter().for_each(|id| named.peers.add(Pattern::ids(id)));
        named.methods.add(Pattern::exact(CONNECT));
        named.space(self.tokens_matter, budget)
    }
}

fn compares_texts_of_paths(rule: &Rule) -> bool {
    rule.at_request.iter().any(|condition| matches!(condition, RequestCondition::Path { .. }))
}

#[derive(Default)]
struct Named {
    loose_paths: bool,
    peers: Patterns,
    paths: Patterns,
    authorities: Patterns,
    server_names: Patterns,
    methods: Patterns,
    ports: Vec<Stretch>,
    tunnels: Vec<Stretch>,
    sources: Vec<Network>,
    destinations: Vec<Network>,
    protocols: BTreeSet<Arc<str>>,
    headers: BTreeMap<Arc<str>, Conditions>,
    tokens: Conditions,
}

#[derive(Default)]
struct Patterns {
    numbers: HashMap<Pattern, u32>,
    list: Vec<Pattern>,
}

impl Patterns {
    fn add(&mut self, pattern: Pattern) {
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        if !self.numbers.contains_key(&pattern) {
            self.list.push(pattern.clone());
            self.numbers.insert(pattern, next);
        }
    }

    fn texts(self, universe: Universe, absent: AbsentAtom, budget: &mut Budget) -> Result<Texts, Spent> {
        let partition = partition(universe, &self.list, budget)?;
        Ok(Texts { numbers: self.numbers, partition, absent })
    }
}

impl Named {
    fn rule(&mut self, rule: &Rule) {
        rule.from.patterns.iter().chain(&rule.except).for_each(|id| self.peers.add(Pattern::ids(id)));
        if let Limit::Only(networks) = &rule.source_net {
            self.sources.extend(networks);
        }
        if let Limit::Only(ranges) = &rule.ports {
            self.ports.extend(ranges.iter().map(stretch));
        }
        if let Layer::Http(limits) = &rule.layer {
            self.http(limits);
        }
        rule.at_connect.iter().for_each(|condition| self.connection(condition));
        rule.at_request.iter().for_each(|condition| self.request(condition));
    }

    fn http(&mut self, limits: &HttpLimits) {
        if let Limit::Only(methods) = &limits.methods {
            methods.iter().for_each(|method| self.methods.add(Pattern::exact(method)));
        }
        if let Limit::Only(hosts) = &limits.hosts {
            hosts.iter().for_each(|host| self.authorities.add(Pattern::authorities(host)));
        }
        if let Limit::Only(paths) = &limits.paths {
            let loose = self.loose_paths;
            paths.iter().for_each(|path| self.paths.add(super::rules::path_pattern(path, loose)));
        }
        match &limits.kinds {
            Kinds::Plain | Kinds::Every => {}
            Kinds::Connect { to_ports: Limit::Only(ranges) } => {
                self.tunnels.extend(ranges.iter().map(stretch))
            }
            Kinds::Upgrade { protocols: Limit::Only(protocols) } => {
                self.protocols.extend(protocols.iter().cloned());
            }
            Kinds::Connect { to_ports: Limit::Any } | Kinds::Upgrade { protocols: Limit::Any } => {}
        }
    }

    fn connection(&mut self, condition: &ConnectionCondition) {
        match condition {
            ConnectionCondition::Peer { any_of, .. } => {
                any_of.iter().for_each(|text| self.peers.add(Pattern::texts(text)));
            }
            ConnectionCondition::Source { any_of, .. } => self.sources.extend(any_of),
            ConnectionCondition::Destination { any_of, .. } => self.destinations.extend(any_of),
            ConnectionCondition::Port { any_of, .. } => self.ports.extend(any_of.iter().map(stretch)),
            ConnectionCondition::Sni { any_of, .. } => {
                any_of.iter().for_each(|text| self.server_names.add(Pattern::texts(text)));
            }
            ConnectionCondition::Http => {}
        }
    }

    fn request(&mut self, condition: &RequestCondition) {
        match condition {
            RequestCondition::Method { any_of, .. } => {
                any_of.iter().for_each(|text| self.methods.add(Pattern::texts(text)));
            }
            RequestCondition::Authority { any_of, .. } => {
                any_of.iter().for_each(|text| self.authorities.add(Pattern::texts(text)));
            }
            RequestCondition::Path { any_of, .. } => {
                any_of.iter().for_each(|text| self.paths.add(Pattern::texts(text)));
            }
            RequestCondition::Header { name, .. } => {
                self.headers.entry(Arc::clone(name)).or_default().add(condition);
            }
            RequestCondition::Principal { .. }
            | RequestCondition::Claim { .. }
            | RequestCondition::Token(_) => {
                self.tokens.add(condition);
            }
        }
    }

    fn space(self, tokens_matter: bool, budget: &mut Budget) -> Result<Space, Spent> {
        let mut unsettled = BTreeSet::new();
        let mut headers = Vec::new();
        for (name, conditions) in self.headers {
            let (header, coverage) = HeaderDimension::new(&name, conditions, budget)?;
            if coverage == Coverage::Part {
                unsettled.insert(format!("combinations of values of the header {name}"));
            }
            headers.push(header);
        }
        let mut tokens = Vec::new();
        if tokens_matter || !self.tokens.list.is_empty() {
            tokens.push(TokenDimension::bare());
        }
        for (token, coverage) in TokenDimension::groups(&self.tokens, budget)? {
            if coverage == Coverage::Part {
                unsettled.insert(format!("combinations of the claims {}", names(&self.tokens)));
            }
            tokens.push(token);
        }
        let path_universe = if self.loose_paths { Universe::LoosePaths } else { Universe::Paths };
        let acts = Acts::new(
            self.methods.texts(Universe::Methods, AbsentAtom::None, budget)?,
            self.protocols.into_iter().collect(),
        );
        let mut space = Space {
            ports: Line::new(PORTS, None, &self.ports),
            acts,
            peers: self.peers.texts(Universe::Ids, AbsentAtom::Last, budget)?,
            paths: self.paths.texts(path_universe, AbsentAtom::None, budget)?,
            authorities: self.authorities.texts(Universe::Authorities, AbsentAtom::First, budget)?,
            sources: addresses(&self.sources, AbsentAtom::None),
            destinations: addresses(&self.destinations, AbsentAtom::First),
            server_names: self.server_names.texts(Universe::ServerNames, AbsentAtom::First, budget)?,
            tunnels: Line::new(PORTS, None, &self.tunnels),
            headers,
            tokens,
            loose_paths: self.loose_paths,
            sizes: Vec::new(),
            impossible: Vec::new(),
            unsettled,
        };
        space.sizes = sizes(&space);
        space.impossible = impossible(&space);
        Ok(space)
    }
}

fn sizes(space: &Space) -> Vec<usize> {
    let mut sizes = vec![
        space.ports.stretches().len(),
        space.acts.list.len(),
        space.peers.size(),
        space.paths.size(),
        space.authorities.size(),
        space.sources.size(),
        space.destinations.size(),
        space.server_names.size(),
        space.tunnels.stretches().len() + 1,
    ];
    sizes.extend(space.headers.iter().map(HeaderDimension::size));
    sizes.extend(space.tokens.iter().map(TokenDimension::size));
    sizes
}

// The first token dimension says whether there is one, the others must agree.
fn impossible(space: &Space) -> Vec<Block> {
    let first = FIXED + space.headers.len();
    let mut blocks = vec![space.tunnels_to_nowhere()];
    let Some((bare, others)) = space.tokens.split_first() else { return blocks };
    for (number, other) in (first + 1..).zip(others) {
        for standing in Standing::ALL {
            let mut block = space.whole();
            block.replace(first, bare.with_standing(standing));
            let disagreeing =
                crate::analyse::sets::AtomSet::All.minus(&other.with_standing(standing), other.size());
            block.replace(number, disagreeing);
            blocks.push(block);
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

fn addresses(networks: &[Network], absent: AbsentAtom) -> Addresses {
    let ranges = |family: bool| -> Vec<Stretch> {
        let bounds = networks.iter().map(|network| bounds(*network));
        bounds.filter(|(v4, ..)| *v4 == family).map(|(_, low, high)| Stretch { low, high }).collect()
    };
    let v4 = Line::new(Stretch { low: 0, high: u128::from(u32::MAX) }, None, &ranges(true));
    let v6 = Line::new(Stretch { low: 0, high: u128::MAX }, Some(MAPPED), &ranges(false));
    Addresses { v4, v6, absent }
}

pub(super) fn stretch(range: &RangeInclusive<u16>) -> Stretch {
    Stretch { low: u128::from(*range.start()), high: u128::from(*range.end()) }
}

const PORTS: Stretch = Stretch { low: 1, high: 65_535 };

// IPv4 addresses mapped into IPv6: they are taken for IPv4.
const MAPPED: Stretch = Stretch { low: 0xffff << 32, high: 0xffff << 32 | 0xffff_ffff };
