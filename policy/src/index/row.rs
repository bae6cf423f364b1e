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
        self.meet(from, out, |word, bits| *word |= bits);
    }

    /// Whether it has a rule of `out`.
    pub(crate) fn meets(&self, from: usize, out: &mut [u64]) -> bool {
        let mut met = 0;
        self.meet(from, out, |word, bits| met |= *word & bits);
        met != 0
    }

    /// Takes its rules out of `out`.
    pub(crate) fn remove_from(&self, from: usize, out: &mut [u64]) {
        self.meet(from, out, |word, bits| *word &= !bits);
    }

    /// Shows bits of the set with the words of `out` that they belong to. A word may come several times, with other bits each time.
    fn meet(&self, from: usize, out: &mut [u64], mut see: impl FnMut(&mut u64, u64)) {
        match self {
            Self::Sparse(rules) => {
                let begin = if from == 0 { 0 } else { rules.partition_point(|rule| word_of(*rule) < from) };
                for rule in rules.get(begin..).unwrap_or_default() {
                    let Some(word) = out.get_mut(word_of(*rule) - from) else { break };
                    see(word, bit_of(*rule));
                }
            }
            Self::Dense { first, words } => {
                let (before, words) = window(from, *first, words);
                let inside = out.get_mut(before..).unwrap_or_default();
                for (word, bits) in inside.iter_mut().zip(words) {
                    see(word, *bits);
                }
            }
        }
    }
}

/// The part of a dense set from the word `from` on, and how many words of the window come before it.
fn window(from: usize, first: usize, words: &[u64]) -> (usize, &[u64]) {
    (first.saturating_sub(from), words.get(from.saturating_sub(first)..).unwrap_or_default())
}

/// The sets that fit in one dimension: what is in any of them fits.
///
/// Passes over the words are what a decision costs, so those that one set or a few rules make superfluous are left out.
pub(crate) struct Rows<'r, 's> {
    from: usize,
    few: [Option<&'r Row>; FEW],
    count: usize,
    spare: &'s mut [u64],
    /// Whether some sets were written to `spare`, to make room in `few`.
    spilt: bool,
}

impl<'r, 's> Rows<'r, 's> {
    /// No sets. `spare` is as long as the window they will be kept in, which begins with the word `from`.
    pub(crate) fn new(from: usize, spare: &'s mut [u64]) -> Self {
        Self { from, few: [None; FEW], count: 0, spare, spilt: false }
    }

    pub(crate) fn add(&mut self, row: &'r Row) {
        if row.is_empty() {
            return;
        }
        if self.count == FEW {
            self.spill();
        }
        if let Some(free) = self.few.get_mut(self.count) {
            *free = Some(row);
            self.count += 1;
        }
    }

    /// Takes out of `out` what is in none of the sets.
    pub(crate) fn keep_in(mut self, out: &mut [u64]) {
        if out.len() <= TINY && !self.spilt {
            return self.keep_in_tiny(out);
        }
        match self.few {
            [Some(Row::Dense { first, words }), None, ..] if !self.spilt => {
                keep_dense(self.from, *first, words, out)
            }
            [
                Some(Row::Dense { first: one, words: ones }),
                Some(Row::Dense { first: other, words: others }),
                None,
                ..,
            ] if !self.spilt => {
                keep_both(window(self.from, *one, ones), window(self.from, *other, others), out);
            }
            _ if !self.spilt && keep_sparse(self.from, self.few.iter().flatten().copied(), out) => {}
            _ => {
                self.spill();
                for (word, fitting) in out.iter_mut().zip(self.spare.iter()) {
                    *word &= *fitting;
                }
            }
        }
    }

    // A few words need no thought about which passes can be left out.
    fn keep_in_tiny(&self, out: &mut [u64]) {
        let mut fitting = [0u64; TINY];
        for row in self.few.iter().flatten() {
            match row {
                Row::Dense { first, words } if *first >= self.from => {
                    let part = fitting.get_mut(first - self.from..).unwrap_or_default();
                    part.iter_mut().zip(words).for_each(|(word, bits)| *word |= bits);
                }
                row => row.add_to(self.from, &mut fitting),
            }
        }
        for (word, fitting) in out.iter_mut().zip(fitting) {
            *word &= fitting;
        }
    }

    fn spill(&mut self) {
        if !self.spilt {
            self.spare.fill(0);
            self.spilt = true;
        }
        for row in self.few.iter_mut().filter_map(Option::take) {
            row.add_to(self.from, self.spare);
        }
        self.count = 0;
    }
}

fn keep_dense(from: usize, first: usize, words: &[u64], out: &mut [u64]) {
    let (before, words) = window(from, first, words);
    let mut out = Left(out);
    out.clear(before);
    out.keep(words.iter().copied());
    out.clear(usize::MAX);
}

/// Keeps the rules of either of two sets in one pass.
fn keep_both<'w>(one: (usize, &'w [u64]), other: (usize, &'w [u64]), out: &mut [u64]) {
    let ((begin, ones), (later, others)) = if one.0 <= other.0 { (one, other) } else { (other, one) };
    let alone = (later - begin).min(ones.len());
    let (first, both) = ones.split_at(alone);
    let (both_others, last) = others.split_at(both.len().min(others.len()));
    let (both_ones, rest) = both.split_at(both_others.len());
    let mut out = Left(out);
    out.clear(begin);
    out.keep(first.iter().copied());
    out.clear(later - begin - alone);
    out.keep(both_ones.iter().zip(both_others).map(|(one, other)| one | other));
    // One of the two is empty.
    out.keep(rest.iter().copied());
    out.keep(last.iter().copied());
    out.clear(usize::MAX);
}

/// What is left of a window.
struct Left<'o>(&'o mut [u64]);

impl<'o> Left<'o> {
    fn take(&mut self, count: usize) -> &'o mut [u64] {
        let all = std::mem::take(&mut self.0);
        let (taken, left) = all.split_at_mut(count.min(all.len()));
        self.0 = left;
        taken
    }

    fn clear(&mut self, count: usize) {
        self.take(count).fill(0);
    }

    fn keep(&mut self, words: impl ExactSizeIterator<Item = u64>) {
        for (word, fitting) in self.take(words.len()).iter_mut().zip(words) {
            *word &= fitting;
        }
    }
}

/// Keeps the rules of some lists, if they are lists and short.
fn keep_sparse<'r>(from: usize, rows: impl Iterator<Item = &'r Row>, out: &mut [u64]) -> bool {
    let (mut kept, mut count) = ([(0usize, 0u64); LISTED], 0);
    for row in rows {
        let Row::Sparse(rules) = row else { return false };
        let begin = rules.partition_point(|rule| word_of(*rule) < from);
        for rule in rules.iter().skip(begin) {
            let at = word_of(*rule) - from;
            let Some(word) = out.get(at) else { break };
            let Some(free) = kept.get_mut(count) else { return false };
            *free = (at, *word & bit_of(*rule));
            count += 1;
        }
    }
    out.fill(0);
    for (at, bit) in kept.iter().take(count) {
        if let Some(word) = out.get_mut(*at) {
            *word |= bit;
        }
    }
    true
}

/// Sets remembered before they are written out.
const FEW: usize = 4;

/// Words that are too few to leave any out.
const TINY: usize = 4;

/// Rules of short lists remembered before the words are emptied.
const LISTED: usize = 16;

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

    use super::{Row, Rows};

    fn rules() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![
            prop::collection::vec(0u32..2_000, 0..12),
            prop::collection::vec(0u32..2_000, 0..300),
            (0u32..1_000, 64u32..900).prop_map(|(first, count)| (first..first + count).collect()),
        ]
    }

    proptest! {
        #[test]
        fn rows_keep_exactly_what_is_in_one_of_them(
            rows in prop::collection::vec(rules(), 0..7),
            before in rules(),
            from in 0usize..32,
            length in 0usize..32,
        ) {
            let sets: Vec<Row> = rows.iter().cloned().map(Row::new).collect();
            let (mut out, mut spare) = (vec![0u64; length], vec![u64::MAX; length]);
            Row::new(before.clone()).add_to(from, &mut out);

            let mut fitting = Rows::new(from, &mut spare);
            sets.iter().for_each(|row| fitting.add(row));
            fitting.keep_in(&mut out);

            for rule in (0..2_048u32).filter(|rule| (from..from + length).contains(&(*rule as usize / 64))) {
                let set = out[rule as usize / 64 - from] >> (rule % 64) & 1 == 1;
                let expected = before.contains(&rule) && rows.iter().any(|row| row.contains(&rule));
                prop_assert_eq!(set, expected, "{}", rule);
            }
        }

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
