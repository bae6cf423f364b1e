//! The rules that have to be looked at themselves, beside what the index knows of them.

use std::sync::Arc;

use super::numbered;
use super::row::Row;
use crate::document::Rule;

/// The rules that ask for more than the index looks up, as bits.
#[derive(Debug)]
pub(super) struct Conditional(Box<[u64]>);

impl Conditional {
    /// The rules for which `is` says so. Empty where there is none: most sets have none.
    pub(super) fn of(slots: &[Option<Arc<Rule>>], is: impl Fn(&Rule) -> bool) -> Self {
        let rules = numbered(slots).filter(|(_, rule)| is(rule)).map(|(number, _)| number);
        let row = Row::new(rules.collect());
        let mut words = vec![0; if row.is_empty() { 0 } else { slots.len() / 64 }];
        row.add_to(0, &mut words);
        Self(words.into())
    }

    /// Whether the rule is one of them.
    pub(super) fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Takes out of `words` the rules of this set that do not fit.
    pub(super) fn retain(&self, from: usize, words: &mut [u64], fits: impl Fn(usize) -> bool) {
        for ((at, word), asking) in (from..).zip(words).zip(self.0.iter().skip(from)) {
            let mut left = *word & asking;
            while left != 0 {
                let bit = usize::try_from(left.trailing_zeros()).unwrap_or_default();
                if !fits(at * 64 + bit) {
                    *word &= !(1 << bit);
                }
                left &= left - 1;
            }
        }
    }
}
