//! Texts taken apart by what patterns say of them.
//!
//! Every pattern over a dimension becomes a part of one automaton. Walking it with every text at once, shortest first,
//! finds each combination of patterns that some text satisfies: an atom, with the shortest such text. Patterns of one
//! text each are kept as a trie beside the automaton, so that ten thousand of them cost no more than their letters.

mod automaton;
mod forms;
mod universe;

use std::collections::HashMap;

pub(crate) use automaton::Automaton;
pub(crate) use forms::{Class, Pattern, Step, bounds};
pub(crate) use universe::Universe;

use super::budget::{Budget, Spent};
use crate::pattern::Case;
use automaton::Place;
use universe::State;

/// Texts that satisfy the same patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Atom {
    /// One of them.
    pub(crate) witness: String,
    /// The patterns, ascending.
    pub(crate) patterns: Vec<u32>,
}

/// The texts of a universe, taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partition {
    pub(crate) atoms: Vec<Atom>,
    /// By pattern, the atoms whose texts satisfy it.
    pub(crate) by_pattern: Vec<Vec<u32>>,
}

/// Takes the texts of a universe apart by patterns.
pub(crate) fn partition(
    universe: Universe,
    patterns: &[Pattern],
    budget: &mut Budget,
) -> Result<Partition, Spent> {
    let mut search = Search::new(universe, patterns);
    let mut at = 0;
    while let Some(found) = search.found.get(at).copied() {
        search.visit(at, found, budget)?;
        at += 1;
    }
    let Search { mut automaton, atoms, by_patterns, .. } = search;
    let mut partition = Partition { atoms, by_pattern: vec![Vec::new(); patterns.len()] };
    make_familiar(universe, patterns, &mut automaton, &by_patterns, &mut partition, budget)?;
    for (number, atom) in (0u32..).zip(&partition.atoms) {
        for pattern in &atom.patterns {
            if let Some(atoms) =
                usize::try_from(*pattern).ok().and_then(|at| partition.by_pattern.get_mut(at))
            {
                atoms.push(number);
            }
        }
    }
    Ok(partition)
}

struct Search {
    universe: Universe,
    automaton: Automaton,
    found: Vec<Found>,
    seen: HashMap<(State, Place), ()>,
    atoms: Vec<Atom>,
    by_patterns: HashMap<Vec<u32>, usize>,
    kept: usize,
}

// A place first reached from another one by a byte.
#[derive(Clone, Copy)]
struct Found {
    state: State,
    place: Place,
    from: u32,
    byte: u8,
}

impl Search {
    fn new(universe: Universe, patterns: &[Pattern]) -> Self {
        let mut automaton = Automaton::new(patterns);
        let (state, place) = (universe.start(), automaton.start());
        Self {
            universe,
            automaton,
            found: vec![Found { state, place, from: 0, byte: 0 }],
            seen: HashMap::from([((state, place), ())]),
            atoms: Vec::new(),
            by_patterns: HashMap::new(),
            kept: 0,
        }
    }

    fn visit(&mut self, at: usize, found: Found, budget: &mut Budget) -> Result<(), Spent> {
        if self.universe.accepts(found.state) {
            let patterns = self.automaton.accepted(found.place);
            budget.spend(patterns.len())?;
            if !self.by_patterns.contains_key(&patterns) {
                self.kept = self.kept.saturating_add(patterns.len());
                self.by_patterns.insert(patterns.clone(), self.atoms.len());
                self.atoms.push(Atom { witness: self.text(at), patterns });
            }
        }
        let mut named = [false; 256];
        let mut bytes = self.automaton.named(found.place, &mut named);
        for group in self.universe.groups(found.state) {
            let unnamed = |byte: &&u8| !named.get(usize::from(**byte)).copied().unwrap_or(true);
            bytes.extend(group.iter().find(unnamed));
        }
        // The unnamed ones first, then small letters before capitals: what is found first is shown.
        bytes.sort_by_key(|byte| (named.get(usize::from(*byte)).copied(), byte.is_ascii_uppercase(), *byte));
        budget.spend(bytes.len() + 1)?;
        if self.found.len() > MAX_PLACES || self.automaton.kept() + self.kept > MAX_KEPT {
            return Err(Spent);
        }
        let from = u32::try_from(at).map_err(|_| Spent)?;
        for byte in bytes {
            let Some(state) = self.universe.step(found.state, byte) else { continue };
            let place = self.automaton.step(found.place, byte);
            if self.seen.insert((state, place), ()).is_none() {
                self.found.push(Found { state, place, from, byte });
            }
        }
        Ok(())
    }

    fn text(&self, at: usize) -> String {
        let mut bytes = Vec::new();
        let mut at = at;
        while at != 0 {
            let Some(found) = self.found.get(at) else { break };
            bytes.push(found.byte);
            at = usize::try_from(found.from).unwrap_or_default();
        }
        bytes.reverse();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

// Replaces a witness by a text that says the same and is easier to read.
fn make_familiar(
    universe: Universe,
    patterns: &[Pattern],
    automaton: &mut Automaton,
    by_patterns: &HashMap<Vec<u32>, usize>,
    partition: &mut Partition,
    budget: &mut Budget,
) -> Result<(), Spent> {
    let mut replaced = vec![false; partition.atoms.len()];
    let wide = patterns.iter().filter(|pattern| pattern.literal().is_none()).take(MAX_FAMILIAR);
    let filled = wide.flat_map(|pattern| WORDS.iter().filter_map(|word| fill(pattern, word)));
    let listed = universe.familiar().iter().map(|text| (*text).to_owned());
    for text in listed.chain(filled) {
        budget.spend(text.len())?;
        let Some(found) = classify(universe, automaton, &text) else { continue };
        let Some(number) = by_patterns.get(&found) else { continue };
        let (Some(atom), Some(replaced)) = (partition.atoms.get_mut(*number), replaced.get_mut(*number))
        else {
            continue;
        };
        if !*replaced {
            *replaced = true;
            atom.witness = text;
        }
    }
    Ok(())
}

fn classify(universe: Universe, automaton: &mut Automaton, text: &str) -> Option<Vec<u32>> {
    let (mut state, mut place) = (universe.start(), automaton.start());
    for byte in text.bytes() {
        state = universe.step(state, byte)?;
        place = automaton.step(place, byte);
    }
    universe.accepts(state).then(|| automaton.accepted(place))
}

fn fill(pattern: &Pattern, word: &str) -> Option<String> {
    let mut text = String::new();
    for step in pattern.alternatives.first()? {
        match step {
            Step::Text(part) => text.push_str(part),
            Step::Any(Class::Slash | Class::Digit) => {}
            Step::Some(Class::Slash) => text.push('/'),
            Step::Some(Class::Digit) => text.push_str("8080"),
            Step::Any(Class::Byte | Class::NotSlash | Class::Label)
            | Step::Some(Class::Byte | Class::NotSlash | Class::Label) => text.push_str(word),
        }
    }
    match pattern.case {
        Case::Sensitive => {}
        Case::Insensitive => text.make_ascii_lowercase(),
    }
    Some(text)
}

// Most places that are visited: patterns that multiply with each other would have more than memory can hold.
const MAX_PLACES: usize = 1_000_000;

// Most numbers that sets of nodes and of patterns may hold together.
const MAX_KEPT: usize = 8_000_000;

// Words that stand for a wildcard.
const WORDS: [&str; 2] = ["other", "x"];

// Of so many patterns with wildcards a readable text is tried.
const MAX_FAMILIAR: usize = 2_000;

#[cfg(test)]
mod tests;
