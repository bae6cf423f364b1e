//! The keys of a mapping while it is read: none comes twice.

use std::collections::HashMap;

use super::Reader;
use super::problem::quote;
use super::tree::{Entry, Span};

/// The keys of an open mapping by the lines on which they are, once there are many; until then they are looked for one by one.
#[derive(Default)]
pub(super) struct Keys(HashMap<String, u32>);

impl Keys {
    /// Whether the key is not yet among the entries; if it is, that is a problem.
    pub(super) fn admit(
        &mut self,
        key: &str,
        span: Span,
        entries: &[Entry],
        reader: &mut Reader<'_>,
    ) -> bool {
        if entries.len() >= MANY_KEYS && self.0.is_empty() {
            self.0.extend(entries.iter().map(|entry| (entry.key.clone(), entry.span.start.line)));
        }
        let first = if self.0.is_empty() {
            entries.iter().find(|entry| entry.key == key).map(|entry| entry.span.start.line)
        } else {
            self.0.get(key).copied()
        };
        if let Some(first) = first {
            let message = format!("the key {} is already given on line {first}", quote(key));
            reader.place(span, message, Some("keep one of the two".to_owned()));
            return false;
        }
        if !self.0.is_empty() {
            self.0.insert(key.to_owned(), span.start.line);
        }
        true
    }
}

/// From this many keys on they are hashed.
const MANY_KEYS: usize = 16;
