//! One header: the lists of field lines that its conditions can tell apart.
//!
//! A condition looks at every value, at any, or at all of them joined. So the atoms are found by trying lists of values,
//! one of each kind that the patterns distinguish, on the conditions themselves. As many values as there are conditions
//! are enough: each condition has one value that makes it hold or fail. Of native conditions far fewer lists are needed,
//! see `telling`.

use std::collections::HashMap;
use std::sync::Arc;

use super::at;
use crate::access::{Request, Token};
use crate::analyse::budget::{Budget, Spent};
use crate::analyse::language::{Pattern, Universe, partition};
use crate::analyse::sets::AtomSet;
use crate::document::{HeaderReading, RequestCondition};
use crate::path::CanonicalPath;
use crate::pattern::TextPattern;

/// The lists that matter to native conditions; none where there are others, or too many.
///
/// An access is looked for that one allow rule grants and that others do not, or that another set refuses. With more
/// values, more conditions on every value fail and more of those on any value hold. So if a list does, the longest list
/// does as well of which the granting rule takes each value, and the deny rules that must not match none. Where none must
/// fail, one value or none is enough.
fn telling(
    name: &Arc<str>,
    classes: &[String],
    conditions: &Conditions,
    budget: &mut Budget,
) -> Result<Option<Vec<Vec<String>>>, Spent> {
    let (mut granting, mut denying) = (vec![vec![true; classes.len()]], Vec::new());
    for condition in &conditions.list {
        let RequestCondition::Header { reading, .. } = condition else { return Ok(None) };
        budget.spend(classes.len())?;
        let alone = |class: &String| vec![(name.to_string(), class.clone())];
        let taken =
            classes.iter().map(|class| with_request(condition, &alone(class), Token::Absent)).collect();
        match reading {
            HeaderReading::Every => granting.push(taken),
            HeaderReading::Any => denying.push(taken),
            HeaderReading::Joined(_) | HeaderReading::JoinedOrAny(_) => return Ok(None),
        }
    }
    for denied in denying {
        let without =
            |taken: &Vec<bool>| taken.iter().zip(&denied).map(|(taken, denied)| *taken && !denied).collect();
        let spared: Vec<Vec<bool>> = granting.iter().map(without).collect();
        granting.extend(spared);
        granting.sort_unstable();
        granting.dedup();
        if granting.len() > MAX_LISTS {
            return Ok(None);
        }
    }
    let list = |taken: &Vec<bool>| -> Vec<String> {
        classes.iter().zip(taken).filter(|(_, taken)| **taken).map(|(class, _)| class.clone()).collect()
    };
    let alone = classes.iter().map(|class| vec![class.clone()]);
    Ok(Some([Vec::new()].into_iter().chain(alone).chain(granting.iter().map(list)).collect()))
}

/// Conditions, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Conditions {
    numbers: HashMap<String, usize>,
    pub(super) list: Vec<RequestCondition>,
}

impl Conditions {
    pub(super) fn add(&mut self, condition: &RequestCondition) {
        let next = self.list.len();
        if *self.numbers.entry(key(condition)).or_insert(next) == next {
            self.list.push(condition.clone());
        }
    }

    pub(super) fn number(&self, condition: &RequestCondition) -> Option<usize> {
        self.numbers.get(&key(condition)).copied()
    }
}

fn key(condition: &RequestCondition) -> String {
    format!("{condition:?}")
}

/// The atoms of one header.
#[derive(Debug)]
pub(super) struct HeaderDimension {
    pub(super) name: Arc<str>,
    lists: Vec<Vec<String>>,
    conditions: Conditions,
    holding: Vec<AtomSet>,
}

/// Whether every combination was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    Whole,
    Part,
}

impl HeaderDimension {
    pub(super) fn new(
        name: &Arc<str>,
        conditions: Conditions,
        budget: &mut Budget,
    ) -> Result<(Self, Coverage), Spent> {
        let texts = conditions.list.iter().flat_map(|condition| match condition {
            RequestCondition::Header { any_of, .. } => any_of.as_slice(),
            RequestCondition::Method { .. }
            | RequestCondition::Authority { .. }
            | RequestCondition::Path { .. }
            | RequestCondition::Principal { .. }
            | RequestCondition::Claim { .. }
            | RequestCondition::Token(_) => &[],
        });
        let classes = classes(texts, &[], budget)?;
        let (lists, coverage) = match telling(name, &classes, &conditions, budget)? {
            Some(lists) => (lists, Coverage::Whole),
            None => subsets(&classes, conditions.list.len()),
        };
        let mut atoms = Atoms::default();
        for list in lists {
            budget.spend(conditions.list.len())?;
            for list in [list.iter().rev().cloned().collect(), list] {
                let lines: Vec<(String, String)> =
                    list.iter().map(|value: &String| (name.to_string(), value.clone())).collect();
                let held =
                    conditions.list.iter().map(|condition| with_request(condition, &lines, Token::Absent));
                atoms.add(held.collect(), list);
            }
        }
        let (lists, holding) = atoms.finish(conditions.list.len());
        Ok((Self { name: Arc::clone(name), lists, conditions, holding }, coverage))
    }

    pub(super) fn size(&self) -> usize {
        self.lists.len()
    }

    /// The field lines of an atom.
    pub(super) fn lines(&self, atom: u32) -> Option<&[String]> {
        self.lists.get(at(atom)).map(Vec::as_slice)
    }

    pub(super) fn where_holds(&self, condition: &RequestCondition) -> AtomSet {
        let held = self.conditions.number(condition).and_then(|number| self.holding.get(number));
        held.cloned().unwrap_or_else(AtomSet::none)
    }
}

/// Samples by which conditions hold of them, the first of each.
#[derive(Debug)]
pub(super) struct Atoms<T> {
    seen: HashMap<Vec<bool>, ()>,
    list: Vec<(Vec<bool>, T)>,
}

impl<T> Default for Atoms<T> {
    fn default() -> Self {
        Self { seen: HashMap::new(), list: Vec::new() }
    }
}

impl<T> Atoms<T> {
    pub(super) fn add(&mut self, held: Vec<bool>, sample: T) {
        if self.seen.insert(held.clone(), ()).is_none() {
            self.list.push((held, sample));
        }
    }

    /// The samples, and for each condition the atoms of which it holds.
    pub(super) fn finish(self, conditions: usize) -> (Vec<T>, Vec<AtomSet>) {
        let size = self.list.len();
        let holding = (0..conditions).map(|condition| {
            let holds = |held: &Vec<bool>| held.get(condition).copied().unwrap_or_default();
            let atoms = (0u32..).zip(&self.list).filter(|(_, (held, _))| holds(held));
            AtomSet::of(atoms.map(|(number, _)| number), size)
        });
        let holding = holding.collect();
        (self.list.into_iter().map(|(_, sample)| sample).collect(), holding)
    }
}

/// A text for each combination of patterns that a text can satisfy.
pub(super) fn classes<'p>(
    texts: impl Iterator<Item = &'p TextPattern>,
    exact: &[Arc<str>],
    budget: &mut Budget,
) -> Result<Vec<String>, Spent> {
    let patterns: std::collections::HashSet<Pattern> =
        texts.map(Pattern::texts).chain(exact.iter().map(|text| Pattern::exact(text))).collect();
    let mut patterns: Vec<Pattern> = patterns.into_iter().collect();
    patterns.sort_by_cached_key(|pattern| format!("{pattern:?}"));
    let mut classes: Vec<String> =
        partition(Universe::Texts, &patterns, budget)?.atoms.into_iter().map(|atom| atom.witness).collect();
    classes.sort();
    Ok(classes)
}

/// Every list of different classes with up to `most` of them, the shorter ones first; beyond a cap only some.
pub(super) fn subsets(classes: &[String], most: usize) -> (Vec<Vec<String>>, Coverage) {
    let mut lists: Vec<Vec<usize>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..most.min(classes.len()) {
        let end = lists.len();
        for number in from..end {
            let Some(list) = lists.get(number).cloned() else { continue };
            for next in list.last().map_or(0, |last| last + 1)..classes.len() {
                if lists.len() >= MAX_LISTS {
                    return (named(classes, &lists), Coverage::Part);
                }
                lists.push(list.iter().copied().chain([next]).collect());
            }
        }
        from = end;
    }
    (named(classes, &lists), Coverage::Whole)
}

fn named(classes: &[String], lists: &[Vec<usize>]) -> Vec<Vec<String>> {
    lists.iter().map(|list| list.iter().filter_map(|class| classes.get(*class).cloned()).collect()).collect()
}

/// Whether a condition on headers or tokens holds of them.
pub(super) fn with_request(
    condition: &RequestCondition,
    headers: &Vec<(String, String)>,
    token: Token<'_>,
) -> bool {
    let Ok(path) = CanonicalPath::parse("/") else { return false };
    condition.holds(&Request { headers, token, ..Request::new("GET", None, &path) })
}

// Most lists of values that are tried for one header or claim.
const MAX_LISTS: usize = 4_096;
