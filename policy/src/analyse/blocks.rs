//! Products of atom sets, and what is left of one after others are taken away.

use std::ops::ControlFlow;

use super::budget::{Budget, Spent};
use super::sets::AtomSet;

/// A product: one set of atoms for each dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block {
    sets: Box<[AtomSet]>,
}

impl Block {
    /// Everything there is in so many dimensions.
    pub(crate) fn whole(dimensions: usize) -> Self {
        Self { sets: vec![AtomSet::All; dimensions].into() }
    }

    pub(crate) fn get(&self, dimension: usize) -> &AtomSet {
        self.sets.get(dimension).unwrap_or(&AtomSet::All)
    }

    /// Keeps, of one dimension, the atoms in `set`.
    pub(crate) fn narrow(&mut self, dimension: usize, set: &AtomSet) {
        if let Some(own) = self.sets.get_mut(dimension) {
            *own = own.and(set);
        }
    }

    pub(crate) fn replace(&mut self, dimension: usize, set: AtomSet) {
        if let Some(own) = self.sets.get_mut(dimension) {
            *own = set;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sets.iter().any(AtomSet::is_empty)
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.sets.iter().zip(&other.sets).all(|(own, other)| own.meets(other))
    }

    pub(crate) fn within(&self, other: &Self) -> bool {
        self.sets.iter().zip(&other.sets).all(|(own, other)| own.within(other))
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        Self { sets: self.sets.iter().zip(&other.sets).map(|(own, other)| own.and(other)).collect() }
    }
}

/// Shows disjoint blocks that make up what is left of `whole` once `taken` is taken away, until `see` breaks off.
///
/// Each step costs budget: the number of blocks left can grow with the product of the dimensions.
pub(crate) fn remainders(
    whole: &Block,
    taken: &[&Block],
    sizes: &[usize],
    budget: &mut Budget,
    see: &mut dyn FnMut(&Block) -> ControlFlow<()>,
) -> Result<(), Spent> {
    budget.spend(taken.len() + 1)?;
    if whole.is_empty() {
        return Ok(());
    }
    let meeting: Vec<&Block> = taken.iter().copied().filter(|taken| whole.meets(taken)).collect();
    if meeting.iter().any(|taken| whole.within(taken)) {
        return Ok(());
    }
    let mut open = vec![(whole.clone(), 0)];
    while let Some((piece, from)) = open.pop() {
        let rest = meeting.get(from..).unwrap_or_default();
        let next = rest.iter().position(|taken| piece.meets(taken));
        budget.spend(next.unwrap_or(rest.len()) + 1)?;
        match next.and_then(|skipped| rest.get(skipped).map(|taken| (skipped, taken))) {
            Some((skipped, taken)) => {
                split(piece, taken, sizes, budget, &mut |part| open.push((part, from + skipped + 1)))?;
            }
            None => {
                if see(&piece).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Finds a block of what is left, if anything is.
pub(crate) fn remainder(
    whole: &Block,
    taken: &[&Block],
    sizes: &[usize],
    budget: &mut Budget,
) -> Result<Option<Block>, Spent> {
    let mut found = None;
    remainders(whole, taken, sizes, budget, &mut |block| {
        found = Some(block.clone());
        ControlFlow::Break(())
    })?;
    Ok(found)
}

// One part for each dimension in which the piece reaches beyond what is taken: beyond it there, and within it in the
// dimensions before.
fn split(
    mut piece: Block,
    taken: &Block,
    sizes: &[usize],
    budget: &mut Budget,
    see: &mut dyn FnMut(Block),
) -> Result<(), Spent> {
    for (dimension, size) in sizes.iter().enumerate() {
        let (own, other) = (piece.get(dimension), taken.get(dimension));
        if own.within(other) {
            continue;
        }
        budget.spend(size.div_ceil(64) + 1)?;
        let (beyond, inside) = (own.minus(other, *size), own.and(other));
        let mut part = piece.clone();
        part.replace(dimension, beyond);
        see(part);
        piece.replace(dimension, inside);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::{Block, remainder, remainders};
    use crate::analyse::budget::{Budget, Spent};
    use crate::analyse::sets::AtomSet;

    const SIZES: [usize; 3] = [4, 3, 5];

    fn block() -> impl Strategy<Value = Block> {
        let set = |size: usize| {
            let number = u32::try_from(size).unwrap();
            prop_oneof![
                1 => Just(AtomSet::All),
                3 => prop::collection::btree_set(0..number, 0..size).prop_map(move |atoms| AtomSet::of(atoms, size)),
            ]
        };
        (set(4), set(3), set(5)).prop_map(|(a, b, c)| {
            let mut block = Block::whole(3);
            for (dimension, set) in [a, b, c].into_iter().enumerate() {
                block.replace(dimension, set);
            }
            block
        })
    }

    fn points(block: &Block) -> BTreeSet<[u32; 3]> {
        let mut points = BTreeSet::new();
        for a in block.get(0).atoms(4) {
            for b in block.get(1).atoms(3) {
                points.extend(block.get(2).atoms(5).map(|c| [a, b, c]));
            }
        }
        points
    }

    proptest! {
        #[test]
        fn what_is_left_is_exactly_what_was_not_taken(
            whole in block(),
            taken in prop::collection::vec(block(), 0..6),
        ) {
            let taken: Vec<&Block> = taken.iter().collect();
            let mut left = BTreeSet::new();
            let mut disjoint = true;

            remainders(&whole, &taken, &SIZES, &mut Budget::default(), &mut |block| {
                for point in points(block) {
                    disjoint &= left.insert(point);
                }
                ControlFlow::Continue(())
            })
            .unwrap();

            let mut expected = points(&whole);
            for taken in &taken {
                expected = &expected - &points(taken);
            }
            prop_assert!(disjoint);
            prop_assert_eq!(&left, &expected);
            let one = remainder(&whole, &taken, &SIZES, &mut Budget::default()).unwrap();
            prop_assert_eq!(one.is_some(), !expected.is_empty());
        }
    }

    #[test]
    fn what_costs_more_than_the_budget_is_not_answered() {
        let whole = Block::whole(3);
        let mut part = Block::whole(3);
        part.replace(0, AtomSet::of([1], 4));

        assert_eq!(remainder(&whole, &[&part], &SIZES, &mut Budget::steps(1)), Err(Spent));
        assert!(remainder(&whole, &[&part], &SIZES, &mut Budget::steps(100)).unwrap().is_some());
    }
}
