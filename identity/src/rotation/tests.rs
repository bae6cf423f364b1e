//! Promises of renewal and backoff.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;

#[test]
fn renewal_comes_at_half_life_give_or_take_a_tenth_of_it() {
    let (start, end) = (at(1000), at(1000 + 3600));

    assert_eq!(renew_at(start, end, 0.0), at(1000 + 1800));
    assert_eq!(renew_at(start, end, -1.0), at(1000 + 1620));
    assert_eq!(renew_at(start, end, 1.0), at(1000 + 1980));
    assert_eq!(renew_at(start, end, 99.0), at(1000 + 1980));
    assert_eq!(renew_at(start, end, f64::NAN), at(1000 + 1800));
}

#[test]
fn a_life_that_ends_before_it_begins_is_renewed_at_once() {
    assert_eq!(renew_at(at(1000), at(900), 1.0), at(1000));
    assert_eq!(renew_at(at(1000), at(1000), 1.0), at(1000));
}

#[test]
fn waits_double_up_to_the_longest_and_start_again_after_a_success() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));

    let waits: Vec<u64> = (0..6).map(|_| backoff.next(1.0).as_secs()).collect();
    backoff.reset();

    assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    assert_eq!(backoff.failures(), 0);
    assert_eq!(backoff.next(1.0), Duration::from_secs(1));
}

#[test]
fn waits_never_overflow() {
    let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);

    for random in [0.0, 1.0, f64::NAN, f64::INFINITY].repeat(25) {
        assert!(backoff.next(random) >= Duration::MAX / 2);
    }
}

proptest! {
    #[test]
    fn renewal_lies_inside_the_life(start in 0u64..1 << 33, life in 0u64..1 << 33, jitter in any::<f64>()) {
        let renewal = renew_at(at(start), at(start + life), jitter);

        prop_assert!(at(start) <= renewal && renewal <= at(start + life));
    }

    #[test]
    fn a_wait_lies_between_half_and_all(failures in 0usize..50, random in 0.0f64..1.0) {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(240));
        let mut backoff = Backoff::new(first, longest);
        (0..failures).for_each(|_| { backoff.next(0.0); });
        let whole = first.saturating_mul(1 << failures.min(31)).min(longest);

        let wait = backoff.next(random);

        prop_assert!(whole / 2 <= wait && wait <= whole);
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}
