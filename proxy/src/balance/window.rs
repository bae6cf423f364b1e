//! What happened in the last ten seconds, in one bucket for each.

use std::time::Instant;

/// Two sums over the last ten seconds.
#[derive(Debug, Clone)]
pub(super) struct Window {
    began: Instant,
    second: u64,
    buckets: [Counts; SECONDS],
}

/// How many of a kind there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u32,
    /// Those of them that count for the question asked: successes, or retries.
    pub(super) marked: u32,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, second: 0, buckets: [Counts::default(); SECONDS] }
    }

    pub(super) fn add(&mut self, counts: Counts, now: Instant) {
        self.advance(now);
        if let Some(bucket) = self.buckets.get_mut(slot(self.second)) {
            bucket.all = bucket.all.saturating_add(counts.all);
            bucket.marked = bucket.marked.saturating_add(counts.marked);
        }
    }

    pub(super) fn sums(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.buckets.iter().fold(Counts::default(), |sum, bucket| Counts {
            all: sum.all.saturating_add(bucket.all),
            marked: sum.marked.saturating_add(bucket.marked),
        })
    }

    pub(super) fn clear(&mut self) {
        self.buckets = [Counts::default(); SECONDS];
    }

    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for step in 1..=passed {
            if let Some(bucket) = self.buckets.get_mut(slot(self.second + step)) {
                *bucket = Counts::default();
            }
        }
        self.second = self.second.max(second);
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}

/// How far back it looks.
pub(super) const SECONDS: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_last_ten_seconds(
            steps in proptest::collection::vec((0u64..4_000, 0u32..9), 1..60)
        ) {
            let start = Instant::now();
            let mut window = Window::new(start);
            let (mut elapsed, mut log) = (0, Vec::new());

            for (wait, count) in steps {
                elapsed += wait;
                let now = start + Duration::from_millis(elapsed);
                window.add(Counts { all: count, marked: count / 2 }, now);
                log.push((elapsed / 1_000, count));

                let first = (elapsed / 1_000).saturating_sub(SECONDS as u64 - 1);
                let recent: Vec<u32> =
                    log.iter().filter(|(at, _)| *at >= first).map(|(_, count)| *count).collect();
                let all = recent.iter().sum();
                let marked = recent.iter().map(|count| count / 2).sum();
                prop_assert_eq!(window.sums(now), Counts { all, marked });
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let start = Instant::now();
        let mut window = Window::new(start);
        window.add(Counts { all: 3, marked: 1 }, start + Duration::from_secs(5));

        window.add(Counts { all: 1, marked: 1 }, start + Duration::from_secs(4));

        assert_eq!(window.sums(start + Duration::from_secs(5)), Counts { all: 4, marked: 2 });
    }
}
