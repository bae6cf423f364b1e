//! How long to wait before a call is tried again.

use std::time::Duration;

use super::{draw::Draw, settings::Retries};

/// Returns the wait before retry number `retry`, the first being 1: none before the first, which goes elsewhere;
/// then about `base`, doubled each time. Half of each wait is left to chance, so that callers come apart.
pub(crate) fn wait(retries: &Retries, retry: u32, draw: &mut Draw) -> Duration {
    let Some(doublings) = retry.checked_sub(2) else { return Duration::ZERO };
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let whole = retries.base.saturating_mul(factor).min(retries.longest);
    whole.mul_f64(0.5 + draw.fraction() / 2.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_retry_does_not_wait_and_the_others_double() {
        let retries = Retries {
            base: Duration::from_millis(20),
            longest: Duration::from_millis(70),
            ..Retries::default()
        };
        let range = |retry| {
            let waits: Vec<u128> =
                (0..200).map(|seed| wait(&retries, retry, &mut Draw::new(seed)).as_micros()).collect();
            (waits.iter().min().copied().unwrap() / 1_000, waits.iter().max().copied().unwrap() / 1_000)
        };

        assert_eq!(range(1), (0, 0));
        assert_eq!(range(2), (10, 19));
        assert_eq!(range(3), (20, 39));
        assert_eq!(range(4), (35, 69));
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_longest(retry in any::<u32>(), seed in any::<u64>()) {
            let retries = Retries::default();

            prop_assert!(wait(&retries, retry, &mut Draw::new(seed)) <= retries.longest);
        }
    }
}
