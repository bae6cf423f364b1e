//! Whether one endpoint is left out for a while, for what it did to the calls before.

use std::time::{Duration, Instant};

use super::{
    draw::Draw,
    settings::Ejection,
    window::{Counts, Window},
};

/// What is held against an endpoint.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    failures: u32,
    window: Window,
    /// Ejections that are not made up for.
    times: u32,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In, since then; the last ejection took so long.
    In {
        since: Instant,
        after: Duration,
    },
    Out {
        until: Instant,
        lasting: Duration,
        cause: Cause,
    },
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Too many calls in a row failed.
    Failures,
    /// Too many of the calls of ten seconds failed.
    SuccessRate,
    /// It proved an identity that is not the service's.
    Identity,
}

impl Cause {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::SuccessRate => "success_rate",
            Self::Identity => "identity",
        }
    }
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        let place = Place::In { since: now, after: Duration::ZERO };
        Self { failures: 0, window: Window::new(now), times: 0, place }
    }

    pub(super) fn is_out(&self) -> bool {
        matches!(self.place, Place::Out { .. })
    }

    /// When the ejection ends, where there is one.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.place {
            Place::Out { until, .. } => Some(until),
            Place::In { .. } => None,
        }
    }

    /// Whether it is out because it proved another identity.
    pub(super) fn is_impostor(&self) -> bool {
        matches!(self.place, Place::Out { cause: Cause::Identity, .. })
    }

    pub(super) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.window.add(Counts { all: 1, marked: 1 }, now);
    }

    /// Notes a failed call; says why the endpoint is to be ejected, if it is.
    pub(super) fn failed(&mut self, rules: &Ejection, now: Instant) -> Option<Cause> {
        self.failures = self.failures.saturating_add(1);
        self.window.add(Counts { all: 1, marked: 0 }, now);
        if self.is_out() {
            return None;
        }
        if self.failures >= rules.failures {
            return Some(Cause::Failures);
        }
        let sums = self.window.sums(now);
        let (good, wanted) =
            (u64::from(sums.marked) * 100, u64::from(sums.all) * u64::from(rules.success_rate));
        (sums.all >= rules.calls && good < wanted).then_some(Cause::SuccessRate)
    }

    /// Leaves the endpoint out; returns for how long.
    pub(super) fn eject(
        &mut self,
        cause: Cause,
        rules: &Ejection,
        now: Instant,
        draw: &mut Draw,
    ) -> Duration {
        self.make_up(now);
        let doubled = 1u32.checked_shl(self.times).unwrap_or(u32::MAX);
        let lasting = rules.base.saturating_mul(doubled).min(rules.longest);
        // So that not all sidecars come back to it at the same moment.
        let until = now + lasting.mul_f64(1.0 + draw.fraction() / 10.0);
        self.times = self.times.saturating_add(1).min(MOST_COUNTED);
        self.place = Place::Out { until, lasting, cause };
        lasting
    }

    /// Ends the ejection whose time is over; says whether it did. The next failure is one too many.
    pub(super) fn come_back(&mut self, rules: &Ejection, now: Instant) -> bool {
        match self.place {
            Place::Out { until, lasting, .. } if until <= now => {
                self.place = Place::In { since: now, after: lasting };
                self.failures = rules.failures.saturating_sub(1);
                self.window.clear();
                true
            }
            Place::Out { .. } | Place::In { .. } => false,
        }
    }

    /// Each time as long as the last ejection without another makes up for one.
    fn make_up(&mut self, now: Instant) {
        if let Place::In { since, after } = self.place
            && after > Duration::ZERO
        {
            let good = now.saturating_duration_since(since).as_nanos() / after.as_nanos();
            self.times = self.times.saturating_sub(u32::try_from(good).unwrap_or(u32::MAX));
        }
    }
}

/// Doublings after which every ejection is the longest one.
const MOST_COUNTED: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn fail_until_ejected(standing: &mut Standing, rules: &Ejection, now: Instant) -> Duration {
        let cause = (0..1_000).find_map(|_| standing.failed(rules, now)).unwrap();
        standing.eject(cause, rules, now, &mut Draw::new(1))
    }

    #[test]
    fn five_failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let (rules, now) = (Ejection::default(), Instant::now());
        let mut standing = Standing::new(now);

        for _ in 0..4 {
            assert_eq!(standing.failed(&rules, now), None);
        }
        standing.succeeded(now);
        for _ in 0..4 {
            assert_eq!(standing.failed(&rules, now), None);
        }

        assert_eq!(standing.failed(&rules, now), Some(Cause::Failures));
    }

    #[test]
    fn a_success_rate_below_the_limit_ejects_once_there_are_calls_enough() {
        let (rules, now) = (Ejection::default(), Instant::now());
        let mut standing = Standing::new(now);

        let mut cause = None;
        let mut calls = 0;
        while cause.is_none() {
            // Two failures, one success: never five in a row.
            cause = standing.failed(&rules, now).or_else(|| standing.failed(&rules, now));
            standing.succeeded(now);
            calls += 3;
        }

        assert_eq!(cause, Some(Cause::SuccessRate));
        assert!((20..24).contains(&calls), "{calls}");
    }

    #[test]
    fn each_ejection_is_twice_as_long_until_time_makes_up_for_them() {
        let (rules, mut now) = (Ejection::default(), Instant::now());
        let mut standing = Standing::new(now);
        let mut lasted = Vec::new();
        for _ in 0..7 {
            lasted.push(fail_until_ejected(&mut standing, &rules, now).as_secs());
            now = standing.until().unwrap();
            assert!(standing.come_back(&rules, now));
        }
        assert_eq!(lasted, [10, 20, 40, 80, 160, 300, 300]);

        now += seconds(300 * 7);

        assert_eq!(fail_until_ejected(&mut standing, &rules, now), seconds(10));
    }

    #[test]
    fn whoever_comes_back_is_ejected_by_one_failure_and_freed_by_one_success() {
        let (rules, now) = (Ejection::default(), Instant::now());
        let mut standing = Standing::new(now);
        fail_until_ejected(&mut standing, &rules, now);
        assert!(!standing.come_back(&rules, now + seconds(9)));
        let back = now + seconds(12);
        assert!(standing.come_back(&rules, back));

        let mut freed = standing.clone();
        freed.succeeded(back);

        assert_eq!(standing.failed(&rules, back), Some(Cause::Failures));
        assert_eq!(freed.failed(&rules, back), None);
    }
}
