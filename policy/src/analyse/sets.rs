//! Sets of the atoms of one dimension.

/// A set of atoms, which are the numbers below the size of the dimension.
///
/// A set of every atom is always `All`, so that being whole need not be counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AtomSet {
    /// Every atom.
    All,
    /// Ascending numbers.
    Few(Box<[u32]>),
    /// Bits.
    Many(Box<[u64]>),
}

impl AtomSet {
    /// Makes a set out of atoms in any order.
    pub(crate) fn of(atoms: impl IntoIterator<Item = u32>, size: usize) -> Self {
        let mut atoms: Vec<u32> = atoms.into_iter().collect();
        atoms.sort_unstable();
        atoms.dedup();
        if atoms.len() >= size {
            return Self::All;
        }
        if atoms.len() <= FEW {
            return Self::Few(atoms.into());
        }
        let mut words = vec![0u64; size.div_ceil(64)];
        for atom in atoms {
            if let Some(word) = words.get_mut(word_of(atom)) {
                *word |= bit_of(atom);
            }
        }
        Self::Many(words.into())
    }

    pub(crate) fn none() -> Self {
        Self::Few(Box::default())
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Few(atoms) => atoms.is_empty(),
            Self::Many(words) => words.iter().all(|word| *word == 0),
        }
    }

    pub(crate) fn first(&self) -> Option<u32> {
        match self {
            Self::All => Some(0),
            Self::Few(atoms) => atoms.first().copied(),
            Self::Many(words) => bits(words).next(),
        }
    }

    pub(crate) fn has(&self, atom: u32) -> bool {
        match self {
            Self::All => true,
            Self::Few(atoms) => atoms.binary_search(&atom).is_ok(),
            Self::Many(words) => words.get(word_of(atom)).is_some_and(|word| word & bit_of(atom) != 0),
        }
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, set) | (set, Self::All) => !set.is_empty(),
            (Self::Few(atoms), set) | (set, Self::Few(atoms)) => atoms.iter().any(|atom| set.has(*atom)),
            (Self::Many(one), Self::Many(two)) => one.iter().zip(two).any(|(one, two)| one & two != 0),
        }
    }

    pub(crate) fn within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, Self::Few(_) | Self::Many(_)) => false,
            (Self::Few(atoms), set) => atoms.iter().all(|atom| set.has(*atom)),
            (Self::Many(words), Self::Few(atoms)) => {
                let count: u32 = words.iter().map(|word| word.count_ones()).sum();
                usize::try_from(count).is_ok_and(|count| count <= atoms.len())
                    && bits(words).all(|atom| other.has(atom))
            }
            (Self::Many(one), Self::Many(two)) => one.iter().zip(two).all(|(one, two)| one & !two == 0),
        }
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, set) | (set, Self::All) => set.clone(),
            (Self::Few(atoms), set) | (set, Self::Few(atoms)) => {
                Self::Few(atoms.iter().copied().filter(|atom| set.has(*atom)).collect())
            }
            (Self::Many(one), Self::Many(two)) => {
                Self::Many(one.iter().zip(two).map(|(one, two)| one & two).collect())
            }
        }
    }

    pub(crate) fn or(&self, other: &Self, size: usize) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (one, two) => Self::of(one.atoms(size).chain(two.atoms(size)).collect::<Vec<_>>(), size),
        }
    }

    pub(crate) fn minus(&self, other: &Self, size: usize) -> Self {
        match (self, other) {
            (_, Self::All) => Self::none(),
            (Self::Few(atoms), set) => {
                Self::Few(atoms.iter().copied().filter(|atom| !set.has(*atom)).collect())
            }
            (Self::All | Self::Many(_), set) if set.is_empty() => self.clone(),
            (Self::All | Self::Many(_), Self::Few(atoms)) => {
                let mut words = self.words(size);
                atoms.iter().for_each(|atom| clear(&mut words, *atom));
                Self::Many(words)
            }
            (Self::All | Self::Many(_), set) => {
                let mut words = self.words(size);
                for (word, taken) in words.iter_mut().zip(&set.words(size)) {
                    *word &= !taken;
                }
                Self::Many(words)
            }
        }
    }

    /// The atoms, ascending.
    pub(crate) fn atoms(&self, size: usize) -> Box<dyn Iterator<Item = u32> + '_> {
        match self {
            Self::All => Box::new(0..u32::try_from(size).unwrap_or(u32::MAX)),
            Self::Few(atoms) => Box::new(atoms.iter().copied()),
            Self::Many(words) => Box::new(bits(words)),
        }
    }

    fn words(&self, size: usize) -> Box<[u64]> {
        match self {
            Self::Many(words) => words.clone(),
            Self::All | Self::Few(_) => {
                let mut words = vec![0u64; size.div_ceil(64)];
                for atom in self.atoms(size) {
                    if let Some(word) = words.get_mut(word_of(atom)) {
                        *word |= bit_of(atom);
                    }
                }
                words.into()
            }
        }
    }
}

fn clear(words: &mut [u64], atom: u32) {
    if let Some(word) = words.get_mut(word_of(atom)) {
        *word &= !bit_of(atom);
    }
}

fn bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    (0u32..).zip(words).filter(|(_, word)| **word != 0).flat_map(|(number, word)| {
        (0..64u32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| number * 64 + bit)
    })
}

fn word_of(atom: u32) -> usize {
    usize::try_from(atom / 64).unwrap_or(usize::MAX)
}

fn bit_of(atom: u32) -> u64 {
    1 << (atom % 64)
}

/// Up to so many atoms are kept as a list.
const FEW: usize = 24;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::AtomSet;

    const SIZE: usize = 150;

    fn atoms() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            prop::collection::btree_set(0u32..150, 0..8),
            prop::collection::btree_set(0u32..150, 20..150),
            Just((0..150).collect()),
        ]
    }

    fn listed(set: &AtomSet) -> BTreeSet<u32> {
        set.atoms(SIZE).collect()
    }

    proptest! {
        #[test]
        fn sets_of_atoms_behave_as_sets(one in atoms(), two in atoms()) {
            let (a, b) = (AtomSet::of(one.clone(), SIZE), AtomSet::of(two.clone(), SIZE));

            prop_assert_eq!(listed(&a.and(&b)), &one & &two);
            prop_assert_eq!(listed(&a.minus(&b, SIZE)), &one - &two);
            prop_assert_eq!(listed(&a.or(&b, SIZE)), &one | &two);
            prop_assert_eq!(a.meets(&b), !one.is_disjoint(&two));
            prop_assert_eq!(a.within(&b), one.is_subset(&two));
            prop_assert_eq!(a.first(), one.first().copied());
            prop_assert_eq!(a.is_empty(), one.is_empty());
            prop_assert_eq!(a.minus(&b, SIZE).within(&b), one.is_subset(&two));
        }
    }
}
