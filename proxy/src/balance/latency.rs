//! How long an endpoint takes to answer: slow answers count at once, and are forgotten slowly.

use std::time::{Duration, Instant};

/// A peak-sensitive moving average (Finagle's peak EWMA).
#[derive(Debug, Clone)]
pub(super) struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// An endpoint of which nothing is known is neither sought nor avoided.
    pub(super) fn new(now: Instant) -> Self {
        Self { seconds: UNKNOWN.as_secs_f64(), at: now }
    }

    pub(super) fn observe(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        let kept = self.kept(now);
        self.seconds =
            if sample > self.seconds * kept { sample } else { self.seconds * kept + sample * (1.0 - kept) };
        self.at = self.at.max(now);
    }

    /// What a call is expected to take. Without calls this falls, so that an endpoint gets another chance.
    pub(super) fn expected(&self, now: Instant) -> f64 {
        (self.seconds * self.kept(now)).max(LEAST.as_secs_f64())
    }

    fn kept(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at).as_secs_f64();
        (-age / MEMORY.as_secs_f64()).exp()
    }
}

/// Before the first answer.
const UNKNOWN: Duration = Duration::from_millis(30);
/// So that the number of calls under way always counts.
const LEAST: Duration = Duration::from_micros(100);
/// After this time a third of what was known is left.
const MEMORY: Duration = Duration::from_secs(10);
/// A call that failed counts as one that took at least this long: who fails at once must not seem fast.
pub(super) const FAILED: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let start = Instant::now();
        let mut latency = Latency::new(start);
        for step in 0..50 {
            latency.observe(Duration::from_millis(5), start + Duration::from_secs(step));
        }
        let calm = start + Duration::from_secs(50);
        assert!(latency.expected(calm) < 0.010, "{latency:?}");

        latency.observe(Duration::from_secs(2), calm);

        assert!((latency.expected(calm) - 2.0).abs() < 1e-9);
        latency.observe(Duration::from_millis(5), calm + Duration::from_secs(1));
        assert!(latency.expected(calm + Duration::from_secs(1)) > 1.5);
        assert!(latency.expected(calm + Duration::from_secs(61)) < 0.01);
    }

    #[test]
    fn many_answers_at_one_moment_do_not_erase_the_past() {
        let start = Instant::now();
        let mut latency = Latency::new(start);
        latency.observe(Duration::from_secs(1), start);

        for _ in 0..1_000 {
            latency.observe(Duration::from_millis(1), start + Duration::from_millis(1));
        }

        assert!(latency.expected(start + Duration::from_millis(1)) > 0.9);
    }
}
