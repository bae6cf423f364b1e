//! The time that policies are decided by, which never goes back: a shadow that has ended stays ended, whatever happens to the
//! clock of this host.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The moment that a decision of this process is made at.
pub(crate) fn decided_at() -> SystemTime {
    LATEST.not_before(SystemTime::now())
}

/// The latest second that any decision was made at.
static LATEST: Latest = Latest(AtomicU64::new(0));

struct Latest(AtomicU64);

impl Latest {
    /// Takes the later of `now` and what it was before, to the second.
    fn not_before(&self, now: SystemTime) -> SystemTime {
        // A clock before 1970 tells nothing.
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let latest = self.0.load(Ordering::Relaxed);
        if second > latest {
            self.0.fetch_max(second, Ordering::Relaxed);
        }
        if second < latest { UNIX_EPOCH + Duration::from_secs(latest) } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_decisions_follows_the_clock_forwards_and_never_back() {
        let latest = Latest(AtomicU64::new(0));
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);

        let told = [100, 101, 40, 101, 3_600, 200].map(|second| latest.not_before(at(second)));

        assert_eq!(told, [100, 101, 101, 101, 3_600, 3_600].map(at));
        assert_eq!(latest.not_before(UNIX_EPOCH - Duration::from_secs(9)), at(3_600));
    }

    #[test]
    fn a_decision_is_made_at_the_time_of_this_host() {
        let before = SystemTime::now();

        let told = decided_at();

        assert!(
            before <= told + Duration::from_secs(1) && told <= SystemTime::now() + Duration::from_secs(1)
        );
    }
}
