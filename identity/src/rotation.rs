//! When to renew and when to try again: pure functions of times and random numbers.

use std::time::{Duration, SystemTime};

/// Returns when to renew what is valid in this time: at its half-life, moved by up to a tenth of that.
///
/// `jitter` lies between -1 and 1; what lies outside is cut off. A lifetime of nothing is renewed at its beginning.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let half = not_after.duration_since(not_before).unwrap_or_default() / 2;
    let jitter = if jitter.is_finite() { jitter.clamp(-1.0, 1.0) } else { 0.0 };
    not_before + half.mul_f64(1.0 + JITTER * jitter)
}

/// Waits between attempts that grow from failure to failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts with a wait of `first`, which doubles up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest: longest.max(first), failures: 0 }
    }

    /// Returns how long to wait after one more failure: between half and all of the wait. `random` lies between 0 and 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait =
            self.first.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.longest);
        self.failures = (self.failures + 1).min(MOST_DOUBLINGS);
        let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
        // Halved first: the product of the longest duration and 1.0 would not fit into a duration.
        let half = wait / 2;
        half + half.mul_f64(random)
    }

    /// Forgets the failures, after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Returns how many failures there were since the last success, counted up to the point where waits stop growing.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// The part of the half-life by which renewals are spread to either side.
const JITTER: f64 = 0.1;

/// More doublings than this overflow the factor.
const MOST_DOUBLINGS: u32 = 31;

#[cfg(test)]
mod tests;
