//! How many calls of a service may be tried again: a share of its calls, and a few a second beside.
//!
//! Retries that are not bounded so turn the failure of one endpoint into the overload of all others.

use std::time::Instant;

use super::{
    settings::Retries,
    window::{Counts, SECONDS, Window},
};

/// The retries of one service.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    window: Window,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { window: Window::new(now) }
    }

    /// Notes a call.
    pub(super) fn called(&mut self, now: Instant) {
        self.window.add(Counts { all: 1, marked: 0 }, now);
    }

    /// Takes a retry, if there is one left.
    pub(super) fn take(&mut self, retries: &Retries, now: Instant) -> bool {
        let sums = self.window.sums(now);
        let earned = u64::from(sums.all) * u64::from(retries.ratio) / 100;
        let given = u64::from(retries.per_second) * SECONDS as u64;
        if u64::from(sums.marked) >= earned + given {
            return false;
        }
        self.window.add(Counts { all: 0, marked: 1 }, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fifth_of_the_calls_and_a_few_beside_may_be_retried() {
        let now = Instant::now();
        let retries = Retries { ratio: 20, per_second: 1, ..Retries::default() };
        let mut budget = Budget::new(now);
        for _ in 0..100 {
            budget.called(now);
        }

        let taken = (0..100).filter(|_| budget.take(&retries, now)).count();

        assert_eq!(taken, 30);
        assert!(budget.take(&retries, now + Duration::from_secs(10)), "a new window");
    }

    proptest! {
        #[test]
        fn retries_of_ten_seconds_never_exceed_what_their_calls_earn(
            events in proptest::collection::vec((0u64..300, any::<bool>()), 1..400)
        ) {
            let start = Instant::now();
            let retries = Retries { ratio: 30, per_second: 2, ..Retries::default() };
            let mut budget = Budget::new(start);
            let (mut elapsed, mut calls, mut granted) = (0, Vec::new(), Vec::new());

            for (wait, is_retry) in events {
                elapsed += wait;
                let now = start + Duration::from_millis(elapsed);
                if is_retry {
                    if budget.take(&retries, now) { granted.push(elapsed / 1_000) }
                } else {
                    budget.called(now);
                    calls.push(elapsed / 1_000);
                }
                let first = (elapsed / 1_000).saturating_sub(9);
                let recent = |times: &[u64]| times.iter().filter(|at| **at >= first).count() as u64;
                // What was granted before calls fell out of the window may still be in it.
                let most = calls.len() as u64 * 30 / 100 + 20;
                prop_assert!(recent(&granted) <= most);
            }
        }
    }
}
