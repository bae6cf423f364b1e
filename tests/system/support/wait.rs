//! Waiting for conditions.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails: far more than it needs on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(20);

/// Returns what `probe` finds, or fails saying what was waited for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, probe)
}

/// `eventually` with a deadline of its own.
#[track_caller]
pub(crate) fn within<T>(limit: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    polled(POLL, limit, what, probe)
}

/// `within` with a pause of its own between two probes, for probes that weigh on what they probe.
#[track_caller]
pub(crate) fn polled<T>(
    pause: Duration,
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} for this: {what}");
        std::thread::sleep(pause);
    }
}

/// Fails when a condition that must keep holding stops to, within `span`.
#[track_caller]
pub(crate) fn throughout(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(holds(), "stopped to hold: {what}");
        std::thread::sleep(POLL);
    }
}
