//! Which entries a process matches, and which it nearly matches. Pure.

use std::sync::Arc;
use std::time::SystemTime;

use crate::entry::{Entries, Entry};
use crate::selector::{Selector, SelectorSet};

/// How many near misses are told, nearest first.
pub const MAX_NEAR_MISSES: usize = 10;

/// Returns the entries that a process with the selectors `seen` gets, oldest first.
///
/// The first one is the default identity, so the order must not depend on when the entries came to this agent.
pub fn matches(entries: &Entries, seen: &SelectorSet, now: SystemTime) -> Vec<Arc<Entry>> {
    let mut found: Vec<_> = entries.iter().filter(|entry| entry.matches(seen, now)).cloned().collect();
    found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    found
}

/// An entry that a process does not get, and what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The entry.
    pub entry: Arc<Entry>,
    /// The selectors that the process lacks: at least one.
    pub missing: Vec<Selector>,
}

/// Which entries count as near.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// At least one selector is there: what any process may learn about itself.
    SharesSelector,
    /// Every served entry, nearest first: for an administrator.
    Any,
}

/// Returns the entries that a process nearly gets: fewest missing selectors first, then most selectors in common.
pub fn near_misses(
    entries: &Entries,
    seen: &SelectorSet,
    nearness: Nearness,
    now: SystemTime,
) -> Vec<NearMiss> {
    let mut found: Vec<_> = entries
        .iter()
        .filter(|entry| entry.is_served(now))
        .map(|entry| NearMiss {
            entry: entry.clone(),
            missing: entry.selectors.missing_from(seen).cloned().collect(),
        })
        .filter(|miss| !miss.missing.is_empty())
        .filter(|miss| nearness == Nearness::Any || miss.present() > 0)
        .collect();
    found.sort_by(|a, b| a.distance().cmp(&b.distance()));
    found.truncate(MAX_NEAR_MISSES);
    found
}

impl NearMiss {
    fn present(&self) -> usize {
        self.entry.selectors.len().saturating_sub(self.missing.len())
    }

    fn distance(&self) -> (usize, std::cmp::Reverse<usize>, &str) {
        (self.missing.len(), std::cmp::Reverse(self.present()), &self.entry.id)
    }
}

#[cfg(test)]
mod tests;
