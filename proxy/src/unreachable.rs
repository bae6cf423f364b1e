//! Tells the log of a service that cannot be reached: once a minute, however many calls fail.

use std::{
    error::Error,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::policies::describe;

/// What one listener's calls lead to.
#[derive(Debug)]
pub(crate) struct Unreachable {
    listener: Arc<str>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    suppressed: u64,
}

impl Unreachable {
    pub(crate) fn new(listener: &str) -> Self {
        Self { listener: Arc::from(listener), told: Mutex::default() }
    }

    /// Notes that `address` was not reached.
    pub(crate) fn tell(&self, address: impl Display, error: &dyn Error) {
        if let Some(suppressed) = self.due(Instant::now()) {
            let error = describe(error);
            tracing::warn!(listener = %self.listener, %address, error, suppressed, "cannot reach the upstream");
        }
    }

    /// Returns how many calls have failed untold since the last line, if another line is due.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            told.suppressed += 1;
            return None;
        }
        let suppressed = told.suppressed;
        *told = Told { at: Some(now), suppressed: 0 };
        Some(suppressed)
    }
}

/// The least time between two lines of one listener.
const EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_counts_what_was_left_unsaid() {
        let (unreachable, start) = (Unreachable::new("db"), Instant::now());
        let after = |seconds| unreachable.due(start + Duration::from_secs(seconds));

        assert_eq!([0, 1, 59].map(after), [Some(0), None, None]);
        assert_eq!([60, 61, 120].map(after), [Some(2), None, Some(1)]);
    }
}
