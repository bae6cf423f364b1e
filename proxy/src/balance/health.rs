//! What the regular questions to an endpoint say: it takes several answers in a row to change one's mind.

use std::time::Duration;

use super::{draw::Draw, settings::Check};

/// What is known from the questions so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Checked {
    verdict: Verdict,
    /// Answers in a row that contradict the verdict.
    against: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Verdict {
    /// An endpoint works until the contrary is proved: a start must not wait for questions.
    #[default]
    Healthy,
    Unhealthy,
}

impl Checked {
    pub(super) fn is_healthy(self) -> bool {
        self.verdict == Verdict::Healthy
    }

    /// Notes an answer, or that there was none; says whether the verdict changed.
    pub(super) fn note(&mut self, passed: bool, check: &Check) -> bool {
        if passed == self.is_healthy() {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if passed { check.healthy } else { check.unhealthy };
        if self.against < needed {
            return false;
        }
        self.verdict = if passed { Verdict::Healthy } else { Verdict::Unhealthy };
        self.against = 0;
        true
    }
}

/// Returns the wait before the next question: a tenth of it is left to chance, so that sidecars come apart.
pub(crate) fn next_question(check: &Check, draw: &mut Draw) -> Duration {
    check.every.mul_f64(0.95 + draw.fraction() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Probe;

    #[test]
    fn three_failures_in_a_row_end_health_and_two_answers_in_a_row_restore_it() {
        let check = Check::new(Probe::Connect);
        let mut checked = Checked::default();
        let mut note = |passed| {
            checked.note(passed, &check);
            checked.is_healthy()
        };

        assert_eq!(
            [false, false, true, false, false, false].map(&mut note),
            [true, true, true, true, true, false]
        );
        assert_eq!([true, false, true, true].map(&mut note), [false, false, false, true]);
    }

    #[test]
    fn questions_are_asked_about_as_often_as_configured() {
        let check = Check { every: Duration::from_secs(10), ..Check::new(Probe::Connect) };

        for seed in 0..1_000 {
            let wait = next_question(&check, &mut Draw::new(seed));
            assert!((9_500..=10_500).contains(&wait.as_millis()), "{wait:?}");
        }
    }
}
