//! One automaton over the segments of every pattern.
//!
//! A name is walked once, whatever the number of patterns. Both the literal and the wildcard way are followed, so a
//! walk visits at most as many nodes as patterns share prefixes with the name; the name's length adds nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::hashing::ShortHash;
use crate::pattern::{Segment, Segments};

/// Values kept at patterns of segments.
#[derive(Debug)]
pub(crate) struct Trie<V> {
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    literals: Literals,
    any: Option<usize>,
    /// Kept for names that end here.
    exact: Option<V>,
    /// Kept for names that end or go on here.
    rest: Option<V>,
}

/// The nodes below one, by the next segment. Where there are few, comparing is quicker than hashing.
#[derive(Debug)]
enum Literals {
    Few(Vec<(Arc<str>, usize)>),
    Many(HashMap<Arc<str>, usize, ShortHash>),
}

impl Literals {
    /// The node at a segment, which is `fresh` if there is none.
    fn at(&mut self, text: &Arc<str>, fresh: usize) -> usize {
        match self {
            Self::Few(few) => {
                if let Some((_, child)) = few.iter().find(|(literal, _)| literal == text) {
                    return *child;
                }
                few.reserve_exact(1);
                few.push((Arc::clone(text), fresh));
                if few.len() > FEW {
                    *self = Self::Many(few.drain(..).collect());
                }
                fresh
            }
            Self::Many(many) => *many.entry(Arc::clone(text)).or_insert(fresh),
        }
    }

    /// The node at the first segment of `text`, and what follows it.
    fn find<'n>(&self, text: &'n str) -> Option<(usize, Option<&'n str>)> {
        match self {
            Self::Few(few) => few.iter().find_map(|(literal, child)| Some((*child, after(text, literal)?))),
            Self::Many(many) => {
                let (segment, next) = split(text);
                many.get(segment).map(|child| (*child, next))
            }
        }
    }
}

/// What follows in `text` if its first segment is `segment`.
fn after<'n>(text: &'n str, segment: &str) -> Option<Option<&'n str>> {
    let left = text.strip_prefix(segment)?;
    if left.is_empty() { Some(None) } else { left.strip_prefix('/').map(Some) }
}

/// The first segment, and what follows it.
fn split(text: &str) -> (&str, Option<&str>) {
    // Segments are short: a loop over bytes is quicker than a search that has to be set up.
    let end = text.bytes().position(|byte| byte == b'/');
    match end.and_then(|end| text.split_at_checked(end)) {
        Some((segment, next)) => (segment, next.get(1..)),
        None => (text, None),
    }
}

impl<V: Default> Trie<V> {
    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node::new()] }
    }

    /// The value at a pattern, made if there is none.
    pub(crate) fn at(&mut self, pattern: &Segments) -> Option<&mut V> {
        let mut at = 0;
        for step in &pattern.steps {
            let fresh = self.nodes.len();
            let node = self.nodes.get_mut(at)?;
            at = match step {
                Segment::Literal(text) => node.literals.at(text, fresh),
                Segment::Any => *node.any.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::new());
            }
        }
        let node = self.nodes.get_mut(at)?;
        let value = if pattern.rest { &mut node.rest } else { &mut node.exact };
        Some(value.get_or_insert_default())
    }
}

impl<V> Trie<V> {
    /// Turns every value into another.
    pub(crate) fn map<W>(self, turn: impl Fn(V) -> W) -> Trie<W> {
        let node = |node: Node<V>| Node {
            literals: node.literals,
            any: node.any,
            exact: node.exact.map(&turn),
            rest: node.rest.map(&turn),
        };
        Trie { nodes: self.nodes.into_iter().map(node).collect() }
    }

    /// Shows the value of every pattern that matches the name.
    pub(crate) fn visit<'t>(&'t self, name: &str, see: &mut dyn FnMut(&'t V)) {
        if let Some(root) = self.nodes.first() {
            self.walk(root, Some(name), see);
        }
    }

    // As deep as the longest pattern, which has at most `MAX_SEGMENTS`.
    fn walk<'t>(&'t self, node: &'t Node<V>, left: Option<&str>, see: &mut dyn FnMut(&'t V)) {
        let (mut node, mut left) = (node, left);
        loop {
            if let Some(value) = &node.rest {
                see(value);
            }
            let Some(text) = left else {
                if let Some(value) = &node.exact {
                    see(value);
                }
                return;
            };
            if let Some(child) = node.any.and_then(|child| self.nodes.get(child)) {
                let (segment, next) = split(text);
                if !segment.is_empty() {
                    self.walk(child, next, see);
                }
            }
            let Some((child, next)) = node.literals.find(text) else { return };
            let Some(child) = self.nodes.get(child) else { return };
            (node, left) = (child, next);
        }
    }
}

impl<V> Node<V> {
    fn new() -> Self {
        Self { literals: Literals::Few(Vec::new()), any: None, exact: None, rest: None }
    }
}

/// Most segments that are compared one by one.
const FEW: usize = 3;
