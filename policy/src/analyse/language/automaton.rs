//! The automaton of all patterns at once, made deterministic as far as it is walked.
//!
//! A place in it is a node of the trie of literal texts, or none, and a set of nodes of the others. Patterns share the
//! nodes of a common beginning, so that sets stay small.

use std::collections::HashMap;

use super::forms::{Class, Pattern, Step};
use crate::pattern::Case;

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    literal: u32,
    set: u32,
}

/// All patterns at once.
#[derive(Debug)]
pub(crate) struct Automaton {
    literals: Literals,
    nodes: Vec<Node>,
    edges: HashMap<(u32, Edge), u32>,
    sets: Vec<NodeSet>,
    numbers: HashMap<Box<[u32]>, u32>,
    steps: HashMap<(u32, u8), u32>,
    kept: usize,
}

#[derive(Debug, Default)]
struct Node {
    /// Bytes that lead on, and where.
    bytes: Vec<(u8, u32)>,
    /// Nodes reached by a byte of a class.
    runs: Vec<(Class, u32)>,
    /// Nodes reached by nothing.
    free: Vec<u32>,
    /// The class whose bytes stay here.
    stays: Option<Class>,
    accepts: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Edge {
    Byte(u8),
    AnyCase(u8),
    Some(Class),
    Any(Class),
}

#[derive(Debug)]
struct NodeSet {
    nodes: Box<[u32]>,
    accepts: Box<[u32]>,
}

impl Automaton {
    pub(crate) fn new(patterns: &[Pattern]) -> Self {
        let mut automaton = Self {
            literals: Literals::new(),
            nodes: vec![Node::default()],
            edges: HashMap::new(),
            sets: Vec::new(),
            numbers: HashMap::new(),
            steps: HashMap::new(),
            kept: 0,
        };
        for (number, pattern) in (0u32..).zip(patterns) {
            match pattern.literal() {
                Some(text) => automaton.literals.insert(text, number),
                None => automaton.insert(pattern, number),
            }
        }
        automaton.intern(Vec::new());
        automaton
    }

    pub(crate) fn start(&mut self) -> Place {
        Place { literal: LITERAL_ROOT, set: self.intern(vec![0]) }
    }

    pub(crate) fn step(&mut self, place: Place, byte: u8) -> Place {
        let literal = self.literals.step(place.literal, byte);
        if place.set == EMPTY_SET {
            return Place { literal, set: EMPTY_SET };
        }
        let set = match self.steps.get(&(place.set, byte)) {
            Some(set) => *set,
            None => {
                let next = self.next(place.set, byte);
                let set = self.intern(next);
                self.steps.insert((place.set, byte), set);
                set
            }
        };
        Place { literal, set }
    }

    /// How many numbers the sets hold.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// The patterns that a text satisfies which ends here, ascending.
    pub(crate) fn accepted(&self, place: Place) -> Vec<u32> {
        let mut patterns: Vec<u32> = self.set(place.set).map(|set| set.accepts.to_vec()).unwrap_or_default();
        patterns.extend(self.literals.accepts(place.literal));
        patterns.sort_unstable();
        patterns
    }

    /// The bytes that some pattern names here; also noted in `named`.
    pub(crate) fn named(&self, place: Place, named: &mut [bool; 256]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut note = |byte: u8| {
            if let Some(flag) = named.get_mut(usize::from(byte))
                && !*flag
            {
                *flag = true;
                bytes.push(byte);
            }
        };
        self.literals.children(place.literal, &mut note);
        for node in self.set(place.set).map(|set| &*set.nodes).unwrap_or_default() {
            let Some(node) = self.node(*node) else { continue };
            node.bytes.iter().for_each(|(byte, _)| note(*byte));
        }
        bytes
    }

    fn insert(&mut self, pattern: &Pattern, number: u32) {
        for steps in &pattern.alternatives {
            let mut at = 0;
            for step in steps {
                at = match step {
                    Step::Text(text) => {
                        text.bytes().fold(at, |at, byte| self.follow(at, edge_of(byte, pattern.case)))
                    }
                    Step::Any(class) => self.follow(at, Edge::Any(*class)),
                    Step::Some(class) => self.follow(at, Edge::Some(*class)),
                };
            }
            if let Some(node) = self.node_mut(at)
                && !node.accepts.contains(&number)
            {
                node.accepts.push(number);
            }
        }
    }

    fn follow(&mut self, at: u32, edge: Edge) -> u32 {
        if let Some(node) = self.edges.get(&(at, edge)) {
            return *node;
        }
        let fresh = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.edges.insert((at, edge), fresh);
        let stays = match edge {
            Edge::Byte(_) | Edge::AnyCase(_) => None,
            Edge::Some(class) | Edge::Any(class) => Some(class),
        };
        self.nodes.push(Node { stays, ..Node::default() });
        if let Some(node) = self.node_mut(at) {
            match edge {
                Edge::Byte(byte) => node.bytes.push((byte, fresh)),
                Edge::AnyCase(byte) => {
                    node.bytes.push((byte, fresh));
                    node.bytes.push((byte.to_ascii_uppercase(), fresh));
                }
                Edge::Some(class) => node.runs.push((class, fresh)),
                Edge::Any(_) => node.free.push(fresh),
            }
        }
        fresh
    }

    fn next(&self, set: u32, byte: u8) -> Vec<u32> {
        let mut next = Vec::new();
        for number in self.set(set).map(|set| &*set.nodes).unwrap_or_default() {
            let Some(node) = self.node(*number) else { continue };
            next.extend(node.bytes.iter().filter(|(named, _)| *named == byte).map(|(_, to)| *to));
            next.extend(node.runs.iter().filter(|(class, _)| class.has(byte)).map(|(_, to)| *to));
            if node.stays.is_some_and(|class| class.has(byte)) {
                next.push(*number);
            }
        }
        next
    }

    fn intern(&mut self, mut nodes: Vec<u32>) -> u32 {
        let mut at = 0;
        while let Some(number) = nodes.get(at).copied() {
            if let Some(node) = self.node(number) {
                nodes.extend_from_slice(&node.free);
            }
            at += 1;
        }
        nodes.sort_unstable();
        nodes.dedup();
        let nodes: Box<[u32]> = nodes.into();
        if let Some(number) = self.numbers.get(&nodes) {
            return *number;
        }
        let mut accepts: Vec<u32> = nodes
            .iter()
            .filter_map(|number| self.node(*number))
            .flat_map(|node| node.accepts.iter().copied())
            .collect();
        accepts.sort_unstable();
        accepts.dedup();
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.kept = self.kept.saturating_add(nodes.len() + accepts.len());
        self.numbers.insert(nodes.clone(), number);
        self.sets.push(NodeSet { nodes, accepts: accepts.into() });
        number
    }

    fn node(&self, number: u32) -> Option<&Node> {
        usize::try_from(number).ok().and_then(|at| self.nodes.get(at))
    }

    fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        usize::try_from(number).ok().and_then(|at| self.nodes.get_mut(at))
    }

    fn set(&self, number: u32) -> Option<&NodeSet> {
        usize::try_from(number).ok().and_then(|at| self.sets.get(at))
    }
}

fn edge_of(byte: u8, case: Case) -> Edge {
    match case {
        Case::Insensitive if byte.is_ascii_alphabetic() => Edge::AnyCase(byte.to_ascii_lowercase()),
        Case::Insensitive | Case::Sensitive => Edge::Byte(byte),
    }
}

/// Literal texts as a trie; the children of a node are a list.
#[derive(Debug)]
struct Literals {
    nodes: Vec<Literal>,
}

#[derive(Debug, Default)]
struct Literal {
    byte: u8,
    child: u32,
    sibling: u32,
    accepts: Vec<u32>,
}

impl Literals {
    fn new() -> Self {
        Self { nodes: vec![Literal::default(), Literal::default()] }
    }

    fn insert(&mut self, text: &str, number: u32) {
        let mut at = LITERAL_ROOT;
        for byte in text.bytes() {
            let next = self.step(at, byte);
            at = if next == NOWHERE { self.push(at, byte) } else { next };
        }
        if let Some(node) = usize::try_from(at).ok().and_then(|at| self.nodes.get_mut(at)) {
            node.accepts.push(number);
        }
    }

    fn push(&mut self, at: u32, byte: u8) -> u32 {
        let fresh = u32::try_from(self.nodes.len()).unwrap_or(NOWHERE);
        let Some(parent) = usize::try_from(at).ok().and_then(|at| self.nodes.get_mut(at)) else {
            return NOWHERE;
        };
        let sibling = std::mem::replace(&mut parent.child, fresh);
        self.nodes.push(Literal { byte, sibling, ..Literal::default() });
        fresh
    }

    fn step(&self, at: u32, byte: u8) -> u32 {
        let mut child = self.get(at).map_or(NOWHERE, |node| node.child);
        while child != NOWHERE {
            let Some(node) = self.get(child) else { return NOWHERE };
            if node.byte == byte {
                return child;
            }
            child = node.sibling;
        }
        NOWHERE
    }

    fn children(&self, at: u32, see: &mut dyn FnMut(u8)) {
        let mut child = self.get(at).map_or(NOWHERE, |node| node.child);
        while let Some(node) = self.get(child) {
            if child == NOWHERE {
                break;
            }
            see(node.byte);
            child = node.sibling;
        }
    }

    fn accepts(&self, at: u32) -> &[u32] {
        self.get(at).map(|node| node.accepts.as_slice()).unwrap_or_default()
    }

    fn get(&self, at: u32) -> Option<&Literal> {
        usize::try_from(at).ok().and_then(|at| self.nodes.get(at))
    }
}

// Off the trie. The node of this number has no children and accepts nothing.
const NOWHERE: u32 = 0;

const LITERAL_ROOT: u32 = 1;

// The set without nodes.
const EMPTY_SET: u32 = 0;
