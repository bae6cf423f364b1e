//! Every access that rules can tell apart: the dimensions, their atoms, and each rule as products of them.

mod build;
mod extent;
mod headers;
mod rules;
mod tokens;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

pub(crate) use build::Survey;
pub use extent::{Extent, MAX_EXAMPLES};
pub(crate) use tokens::SampleToken;

use super::blocks::Block;
use super::language::{Partition, Pattern};
use super::lines::{Line, Stretch};
use super::sample::Sample;
use super::sets::AtomSet;
use headers::HeaderDimension;
use tokens::TokenDimension;

/// The workload's port.
pub(crate) const PORT: usize = 0;
/// Opaque TCP, or the kind and method of a request.
pub(crate) const ACT: usize = 1;
/// The peer.
pub(crate) const PEER: usize = 2;
/// The path.
pub(crate) const PATH: usize = 3;
/// The authority.
pub(crate) const AUTHORITY: usize = 4;
/// The address of the socket's other end.
pub(crate) const SOURCE: usize = 5;
/// The address that was connected to.
pub(crate) const DESTINATION: usize = 6;
/// The server name of the handshake.
pub(crate) const SNI: usize = 7;
/// The port that a tunnel is asked to.
pub(crate) const TUNNEL: usize = 8;
/// Headers come from here on, then tokens.
const FIXED: usize = 9;

/// All accesses, taken apart.
#[derive(Debug)]
pub(crate) struct Space {
    ports: Line,
    acts: Acts,
    peers: Texts,
    paths: Texts,
    authorities: Texts,
    sources: Addresses,
    destinations: Addresses,
    server_names: Texts,
    tunnels: Line,
    headers: Vec<HeaderDimension>,
    tokens: Vec<TokenDimension>,
    loose_paths: bool,
    sizes: Vec<usize>,
    /// What cannot occur: tokens that are absent in one dimension and verified in another.
    impossible: Vec<Block>,
    /// The dimensions of which not every combination was looked at, in words.
    unsettled: BTreeSet<String>,
}

impl Space {
    /// The number of atoms of each dimension.
    pub(crate) fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    pub(crate) fn impossible(&self) -> &[Block] {
        &self.impossible
    }

    pub(crate) fn unsettled(&self) -> &BTreeSet<String> {
        &self.unsettled
    }

    pub(crate) fn whole(&self) -> Block {
        Block::whole(self.sizes.len())
    }

    /// An access of a block: of each dimension the first atom.
    pub(crate) fn sample(&self, block: &Block) -> Option<Sample> {
        let first = |dimension: usize| block.get(dimension).first();
        let act = self.acts.list.get(at(first(ACT)?))?.clone();
        let mut headers = Vec::new();
        for (number, header) in self.headers.iter().enumerate() {
            let lines = header.lines(first(FIXED + number)?)?;
            headers.extend(lines.iter().map(|line| (header.name.to_string(), line.clone())));
        }
        let mut claims = tokens::Sampled::default();
        for (number, token) in self.tokens.iter().enumerate() {
            claims.add(token.sample(first(FIXED + self.headers.len() + number)?)?);
        }
        Some(Sample {
            port: u16::try_from(self.ports.stretches().get(at(first(PORT)?)).map(familiar_port)?).ok()?,
            peer: self.peers.text(first(PEER)?)?,
            source: self.sources.address(first(SOURCE)?)?,
            destination: self.destinations.address(first(DESTINATION)?)?,
            sni: self.server_names.text(first(SNI)?)?,
            path: self.paths.text(first(PATH)?)??,
            authority: self.authorities.text(first(AUTHORITY)?)?,
            tunnel: match first(TUNNEL)? {
                0 => None,
                number => {
                    let stretch = self.tunnels.stretches().get(at(number - 1))?;
                    u16::try_from(stretch.low).ok()
                }
            },
            act,
            headers,
            token: claims.finish(),
        })
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Opaque TCP.
    Tcp,
    /// An answer to a request with this method.
    Plain(String),
    /// A tunnel.
    Connect,
    /// Another protocol.
    Upgrade { protocol: String, method: String },
}

#[derive(Debug)]
struct Acts {
    list: Vec<Act>,
    methods: Texts,
}

impl Acts {
    fn new(methods: Texts, protocols: Vec<Arc<str>>) -> Self {
        let witnesses = || methods.partition.atoms.iter().map(|atom| atom.witness.clone());
        let plain = || witnesses().filter(|method| method != crate::access::CONNECT);
        // The most usual first: it is the first that an answer shows.
        let mut list: Vec<Act> = plain().map(Act::Plain).collect();
        list.extend([Act::Tcp, Act::Connect]);
        let other = protocols.iter().all(|protocol| &**protocol != WEBSOCKET);
        let unnamed = if other { WEBSOCKET } else { "other" };
        for protocol in offers(&protocols, unnamed) {
            list.extend(plain().map(|method| Act::Upgrade { protocol: protocol.clone(), method }));
        }
        Self { list, methods }
    }

    fn those(&self, fits: impl Fn(&Act) -> bool) -> AtomSet {
        let fitting = (0u32..).zip(&self.list).filter(|(_, act)| fits(act)).map(|(number, _)| number);
        AtomSet::of(fitting, self.list.len())
    }
}

// What a request may name to upgrade to: one protocol, one with a version, or two of which the other end chooses.
fn offers(protocols: &[Arc<str>], unnamed: &str) -> Vec<String> {
    let named = || protocols.iter().map(|protocol| protocol.to_string());
    let mut offers = vec![unnamed.to_owned()];
    offers.extend(named());
    offers.extend(named().map(|protocol| format!("{protocol}/9")));
    offers.extend(named().map(|protocol| format!("{protocol}, {unnamed}")));
    let pairs = protocols.iter().enumerate().flat_map(|(number, one)| {
        protocols.iter().skip(number + 1).map(move |other| format!("{one}, {other}"))
    });
    offers.extend(pairs.take(MAX_PAIRS));
    offers
}

const WEBSOCKET: &str = "websocket";

// Most pairs of protocols that are told apart.
const MAX_PAIRS: usize = 256;

/// Texts of one kind, and perhaps that there is none.
#[derive(Debug)]
struct Texts {
    numbers: HashMap<Pattern, u32>,
    partition: Partition,
    absent: AbsentAtom,
}

/// Where the atom of what is absent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AbsentAtom {
    None,
    First,
    Last,
}

impl Texts {
    fn size(&self) -> usize {
        self.partition.atoms.len() + usize::from(self.absent != AbsentAtom::None)
    }

    fn offset(&self) -> u32 {
        u32::from(self.absent == AbsentAtom::First)
    }

    /// The atoms that satisfy one of the patterns.
    fn any_of<'p>(&self, patterns: impl Iterator<Item = &'p Pattern>) -> AtomSet {
        let numbers = patterns.filter_map(|pattern| self.numbers.get(pattern));
        let atoms = numbers.filter_map(|number| self.partition.by_pattern.get(at(*number))).flatten();
        AtomSet::of(atoms.map(|atom| atom + self.offset()), self.size())
    }

    fn absent(&self) -> AtomSet {
        let atom = match self.absent {
            AbsentAtom::None => None,
            AbsentAtom::First => Some(0),
            AbsentAtom::Last => u32::try_from(self.partition.atoms.len()).ok(),
        };
        AtomSet::of(atom, self.size())
    }

    fn present(&self) -> AtomSet {
        AtomSet::All.minus(&self.absent(), self.size())
    }

    fn not(&self, set: &AtomSet) -> AtomSet {
        AtomSet::All.minus(set, self.size())
    }

    /// The text of an atom, or that there is none.
    fn text(&self, atom: u32) -> Option<Option<String>> {
        if self.absent().has(atom) && self.absent != AbsentAtom::None {
            return Some(None);
        }
        self.partition.atoms.get(at(atom.checked_sub(self.offset())?)).map(|atom| Some(atom.witness.clone()))
    }
}

/// Addresses of both families, and perhaps that there is none.
#[derive(Debug)]
struct Addresses {
    v4: Line,
    v6: Line,
    absent: AbsentAtom,
}

impl Addresses {
    fn size(&self) -> usize {
        self.v4.stretches().len() + self.v6.stretches().len() + usize::from(self.absent != AbsentAtom::None)
    }

    fn within(&self, v4: bool, range: Stretch) -> std::ops::Range<u32> {
        let first = u32::from(self.absent == AbsentAtom::First);
        let skipped = u32::try_from(self.v4.stretches().len()).unwrap_or(u32::MAX);
        let (line, offset) = if v4 { (&self.v4, first) } else { (&self.v6, first + skipped) };
        let within = line.within(range);
        within.start + offset..within.end + offset
    }

    fn address(&self, atom: u32) -> Option<Option<std::net::IpAddr>> {
        let atom = match (self.absent, atom) {
            (AbsentAtom::First, 0) => return Some(None),
            (AbsentAtom::First, atom) => atom - 1,
            (AbsentAtom::None | AbsentAtom::Last, atom) => atom,
        };
        let v4 = self.v4.stretches();
        match v4.get(at(atom)) {
            Some(stretch) => Some(Some(familiar_v4(stretch)?.into())),
            None => {
                let stretch = self.v6.stretches().get(at(atom).checked_sub(v4.len())?)?;
                Some(Some(std::net::Ipv6Addr::from(familiar(stretch, DOCUMENTATION_V6)).into()))
            }
        }
    }
}

fn familiar_v4(stretch: &Stretch) -> Option<std::net::Ipv4Addr> {
    u32::try_from(familiar(stretch, DOCUMENTATION_V4)).ok().map(std::net::Ipv4Addr::from)
}

fn familiar(stretch: &Stretch, wanted: u128) -> u128 {
    match (stretch.low, stretch.high) {
        (low, high) if low <= wanted && wanted <= high => wanted,
        (low, high) if low < high => low + 1,
        (low, _) => low,
    }
}

fn familiar_port(stretch: &Stretch) -> u128 {
    let among = |port: &u128| stretch.low <= *port && *port <= stretch.high;
    [8080, 443].into_iter().find(among).unwrap_or(stretch.low)
}

// Addresses reserved for documentation: 192.0.2.1 and 2001:db8::1.
const DOCUMENTATION_V4: u128 = 0xc000_0201;
const DOCUMENTATION_V6: u128 = 0x2001_0db8 << 96 | 1;

/// A number as an index; none is so large that it would not be one.
fn at(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
