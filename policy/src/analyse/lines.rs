//! Numbers taken apart by ranges: ports, and addresses of one family.

/// Neighbouring numbers that the same ranges hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) low: u128,
    pub(crate) high: u128,
}

/// All numbers of a kind, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    stretches: Vec<Stretch>,
}

impl Line {
    /// Takes the numbers from `whole.low` to `whole.high` apart; those of `hole` do not occur.
    pub(crate) fn new(whole: Stretch, hole: Option<Stretch>, ranges: &[Stretch]) -> Self {
        let mut starts = vec![whole.low];
        for range in ranges.iter().chain(hole.as_ref()) {
            starts.push(range.low.max(whole.low));
            starts.extend(range.high.checked_add(1).filter(|next| *next <= whole.high));
        }
        starts.sort_unstable();
        starts.dedup();
        let ends = starts.iter().skip(1).map(|next| next - 1).chain([whole.high]);
        let stretches = starts.iter().zip(ends).map(|(low, high)| Stretch { low: *low, high });
        let outside =
            |stretch: &Stretch| hole.is_none_or(|hole| stretch.high < hole.low || hole.high < stretch.low);
        Self { stretches: stretches.filter(outside).collect() }
    }

    pub(crate) fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The numbers of the stretches that a range holds; its ends were among the ranges.
    pub(crate) fn within(&self, range: Stretch) -> std::ops::Range<u32> {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let first = self.stretches.partition_point(|stretch| stretch.low < range.low);
        let end = self.stretches.partition_point(|stretch| stretch.low <= range.high);
        number(first)..number(end.max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::{Line, Stretch};

    fn stretch(low: u128, high: u128) -> Stretch {
        Stretch { low, high }
    }

    #[test]
    fn a_line_falls_apart_at_the_ends_of_ranges() {
        let line = Line::new(stretch(1, 100), None, &[stretch(10, 20), stretch(15, 100)]);

        let expected = [stretch(1, 9), stretch(10, 14), stretch(15, 20), stretch(21, 100)];
        assert_eq!(line.stretches(), expected);
        assert_eq!(line.within(stretch(10, 20)), 1..3);
        assert_eq!(line.within(stretch(15, 100)), 2..4);
    }

    #[test]
    fn a_hole_belongs_to_nothing() {
        let line = Line::new(stretch(0, u128::MAX), Some(stretch(5, 9)), &[stretch(0, u128::MAX)]);

        assert_eq!(line.stretches(), [stretch(0, 4), stretch(10, u128::MAX)]);
        assert_eq!(line.within(stretch(0, u128::MAX)), 0..2);
    }
}
