//! One automaton over the segments of every pattern.
//!
//! A name is walked once, whatever the number of patterns. Both the literal and the wildcard way are followed, so a
//! walk visits at most as many nodes as patterns share prefixes with the name; the name's length adds nothing.

use std::collections::HashMap;
use std::sync::Arc;

use super::hashing::ShortHash;
use crate::pattern::{Segment, Segments, next_segment};

/// Values kept at patterns of segments.
#[derive(Debug)]
pub(crate) struct Trie<V> {
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    literals: HashMap<Arc<str>, usize, ShortHash>,
    any: Option<usize>,
    /// Kept for names that end here.
    exact: Option<V>,
    /// Kept for names that end or go on here.
    rest: Option<V>,
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
                Segment::Literal(text) => *node.literals.entry(Arc::clone(text)).or_insert(fresh),
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
        if let Some(value) = &node.rest {
            see(value);
        }
        let Some(text) = left else {
            if let Some(value) = &node.exact {
                see(value);
            }
            return;
        };
        if node.literals.is_empty() && node.any.is_none() {
            return;
        }
        let (segment, next) = next_segment(text);
        if let Some(child) = node.literals.get(segment).and_then(|child| self.nodes.get(*child)) {
            self.walk(child, next, see);
        }
        if let (false, Some(child)) = (segment.is_empty(), node.any.and_then(|child| self.nodes.get(child))) {
            self.walk(child, next, see);
        }
    }
}

impl<V> Node<V> {
    fn new() -> Self {
        Self { literals: HashMap::default(), any: None, exact: None, rest: None }
    }
}
