//! Sets of rules, by number: as a list where few, as bits where many.

/// A set of rule numbers that does not change.
#[derive(Clone, Debug)]
pub(crate) enum Row {
    /// Ascending numbers.
    Sparse(Box<[u32]>),
    /// Bits from the word `first` on.
    Dense { first: usize, words: Box<[u64]> },
}

impl Row {
    /// Makes a set out of numbers in any order.
    pub(crate) fn new(mut rules: Vec<u32>) -> Self {
        rules.sort_unstable();
        rules.dedup();
        let (Some(low), Some(high)) = (rules.first(), rules.last()) else {
            return Self::Sparse(Box::default());
        };
        let (first, last) = (word_of(*low), word_of(*high));
        if rules.len() < (last - first + 1).max(SPARSE) {
            return Self::Sparse(rules.into());
        }
        let mut words = vec![0u64; last - first + 1];
        for rule in rules {
            if let Some(word) = words.get_mut(word_of(rule) - first) {
                *word |= bit_of(rule);
            }
        }
        Self::Dense { first, words: words.into() }
    }

    /// Whether there is no rule in it.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Sparse(rules) => rules.is_empty(),
            Self::Dense { .. } => false,
        }
    }

    /// Adds the set to `out`, whose first word is the word `from` of the whole.
    pub(crate) fn add_to(&self, from: usize, out: &mut [u64]) {
        match self {
            Self::Sparse(rules) => {
                let begin = rules.partition_point(|rule| word_of(*rule) < from);
                for rule in rules.iter().skip(begin) {
                    let Some(word) = out.get_mut(word_of(*rule) - from) else { break };
                    *word |= bit_of(*rule);
                }
            }
            Self::Dense { first, words } => {
                let target = out.iter_mut().skip(first.saturating_sub(from));
                let source = words.iter().skip(from.saturating_sub(*first));
                for (out, word) in target.zip(source) {
                    *out |= word;
                }
            }
        }
    }
}

/// The word that holds a rule's bit.
pub(crate) fn word_of(rule: u32) -> usize {
    usize::try_from(rule / 64).unwrap_or(usize::MAX)
}

fn bit_of(rule: u32) -> u64 {
    1 << (rule % 64)
}

/// Below this many rules a list is never worse than bits.
const SPARSE: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Row;

    proptest! {
        #[test]
        fn a_row_adds_exactly_its_rules_to_any_window(
            rules in prop::collection::vec(0u32..2_000, 0..200),
            from in 0usize..32,
            length in 0usize..32,
        ) {
            let mut out = vec![0u64; length];

            Row::new(rules.clone()).add_to(from, &mut out);

            for rule in 0..2_048u32 {
                let word = (rule / 64) as usize;
                if (from..from + length).contains(&word) {
                    let set = out[word - from] >> (rule % 64) & 1 == 1;
                    prop_assert_eq!(set, rules.contains(&rule), "{}", rule);
                }
            }
        }
    }
}
