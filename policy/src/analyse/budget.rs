//! How much work a question may cost: a counter, so that the same question has the same answer on every machine.

/// The work that one question may cost, in steps of comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    steps: u64,
}

impl Budget {
    /// As many steps.
    pub fn steps(steps: u64) -> Self {
        Self { steps }
    }

    /// Takes steps away, and says so if there are not as many left.
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), Spent> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        match self.steps.checked_sub(steps) {
            Some(left) => {
                self.steps = left;
                Ok(())
            }
            None => {
                self.steps = 0;
                Err(Spent)
            }
        }
    }

    /// Takes a share out, so that one hard part cannot starve the others; what is left of it is given back.
    pub(crate) fn share<T>(&mut self, answer: impl FnOnce(&mut Self) -> T) -> T {
        let given = self.steps / SHARE;
        let mut part = Self { steps: given };
        let value = answer(&mut part);
        self.steps -= given - part.steps;
        value
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: DEFAULT_STEPS }
    }
}

/// The work cap is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent;

/// Steps that a question may cost unless told otherwise: some seconds of work.
pub const DEFAULT_STEPS: u64 = 400_000_000;

// One part of a question may use this fraction of what is left.
const SHARE: u64 = 4;

#[cfg(test)]
mod tests {
    use super::{Budget, Spent};

    #[test]
    fn what_is_not_there_cannot_be_spent() {
        let mut budget = Budget::steps(3);

        assert_eq!(budget.spend(2), Ok(()));
        assert_eq!(budget.spend(2), Err(Spent));
        assert_eq!(budget.spend(1), Err(Spent), "nothing is left once a step was refused");
    }

    #[test]
    fn a_part_takes_its_share_at_most_and_gives_back_what_it_did_not_use() {
        let mut budget = Budget::steps(100);

        assert_eq!(budget.share(|part| part.spend(26)), Err(Spent));
        assert_eq!(budget, Budget::steps(75));
        assert_eq!(budget.share(|part| part.spend(1)), Ok(()));
        assert_eq!(budget, Budget::steps(74));
    }
}
