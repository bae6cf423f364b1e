//! When a signing authority is made, put to work and dropped: a pure function over values and `now`.
//!
//! An authority is published before it signs (spiffe.md 1.8 point 67) and stays published until
//! everything it signed has expired. The fractions are SPIRE's (spiffe.md 2.2), and hold for a
//! lifetime of a minute as for one of years.

use std::time::{Duration, SystemTime};

use crate::issue::BACKDATE;

/// What an authority is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Published, not signing.
    Prepared,
    /// The one that signs.
    Active,
    /// Published for what it signed before.
    Retired,
}

/// The dates of an authority, as the schedule needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The authority's name.
    pub id: String,
    /// What it is doing.
    pub state: State,
    /// When its certificate begins.
    pub not_before: SystemTime,
    /// When its certificate ends.
    pub not_after: SystemTime,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// No authority can sign: make one and let it sign at once.
    Create,
    /// Make and publish the successor.
    Prepare,
    /// Let this one sign; whichever signed before retires.
    Activate(String),
    /// Unpublish this one.
    Prune(String),
    /// Nothing until then.
    WaitUntil(SystemTime),
    /// The active authority's certificate begins in the future: the clock is wrong, nothing may be signed.
    ClockBehind {
        /// When it begins.
        not_before: SystemTime,
    },
}

/// Returns what to do at `now`. Ask again after each step until it says to wait.
pub fn schedule(now: SystemTime, authorities: &[Term]) -> Step {
    if let Some(old) = authorities.iter().find(|term| term.state == State::Retired && now >= prune_at(term)) {
        return Step::Prune(old.id.clone());
    }
    let active = authorities.iter().find(|term| term.state == State::Active);
    let prepared =
        authorities.iter().filter(|term| term.state == State::Prepared).max_by_key(|term| term.not_after);
    let next = match (active, prepared) {
        (None, None) => return Step::Create,
        (None, Some(next)) => return successor(now, next),
        (Some(active), _) if now < active.not_before => {
            return Step::ClockBehind { not_before: active.not_before };
        }
        (Some(active), None) if now >= active.not_after => return Step::Create,
        (Some(active), None) if now >= prepare_at(active) => return Step::Prepare,
        (Some(active), None) => prepare_at(active),
        (Some(active), Some(next)) if now >= activate_at(active, next) => return successor(now, next),
        (Some(active), Some(next)) => activate_at(active, next),
    };
    let prune = authorities.iter().filter(|term| term.state == State::Retired).map(prune_at).min();
    Step::WaitUntil(prune.map_or(next, |prune| prune.min(next)))
}

fn successor(now: SystemTime, next: &Term) -> Step {
    if now >= next.not_after {
        return Step::Create;
    }
    Step::Activate(next.id.clone())
}

fn prepare_at(term: &Term) -> SystemTime {
    term.not_after - (lifetime(term) / PREPARE_FRACTION).min(MAX_PREPARE_AHEAD)
}

/// A successor that was made late, for the CA was down when it was due, is made known first all the same: SVIDs that its
/// peers cannot verify are worse than the short ones of an old authority.
fn activate_at(active: &Term, next: &Term) -> SystemTime {
    let planned = active.not_after - (lifetime(active) / ACTIVATE_FRACTION).min(MAX_ACTIVATE_AHEAD);
    let published = next.not_before + BACKDATE;
    let left = active.not_after.duration_since(published).unwrap_or_default();
    let wait = (lifetime(active) / PROPAGATION_FRACTION).min(MAX_PROPAGATION).min(left / 2);
    planned.max(published + wait)
}

fn prune_at(term: &Term) -> SystemTime {
    term.not_after + lifetime(term).min(MAX_RETENTION)
}

fn lifetime(term: &Term) -> Duration {
    term.not_after.duration_since(term.not_before).unwrap_or_default()
}

/// The successor is made when this part of the lifetime is left: a half.
const PREPARE_FRACTION: u32 = 2;
/// The successor signs when this part of the lifetime is left: a sixth.
const ACTIVATE_FRACTION: u32 = 6;
/// A successor is published for this part of the lifetime before it signs: a third, which is three refresh hints.
const PROPAGATION_FRACTION: u32 = 3;
/// But not longer than three times the longest refresh hint, and never longer than half of what is left.
const MAX_PROPAGATION: Duration = Duration::from_secs(15 * 60);
/// But not earlier than 30 days before the end.
const MAX_PREPARE_AHEAD: Duration = Duration::from_secs(30 * 24 * 3600);
/// And not earlier than 7 days before the end.
const MAX_ACTIVATE_AHEAD: Duration = Duration::from_secs(7 * 24 * 3600);
/// An expired authority stays published for its own lifetime again, at most this long.
const MAX_RETENTION: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_creates() {
        assert_eq!(schedule(at(0), &[]), Step::Create);
    }

    #[test]
    fn a_day_long_authority_prepares_at_12_h_and_activates_at_20_h() {
        let a = term("a", State::Active, 0, 24 * HOUR);
        assert_eq!(schedule(at(12 * HOUR - 1), std::slice::from_ref(&a)), Step::WaitUntil(at(12 * HOUR)));
        assert_eq!(schedule(at(12 * HOUR), std::slice::from_ref(&a)), Step::Prepare);

        let b = term("b", State::Prepared, 12 * HOUR, 36 * HOUR);
        assert_eq!(schedule(at(12 * HOUR), &[a.clone(), b.clone()]), Step::WaitUntil(at(20 * HOUR)));
        assert_eq!(schedule(at(20 * HOUR), &[a, b]), Step::Activate("b".into()));
    }

    #[test]
    fn a_successor_that_was_made_late_is_published_for_a_while_before_it_signs() {
        let a = term("a", State::Active, 0, 24 * HOUR);
        let made_at = |made: u64| term("b", State::Prepared, made - BACKDATE.as_secs(), made + 24 * HOUR);
        let step = |now, b: &Term| schedule(at(now), &[a.clone(), b.clone()]);

        let late = made_at(22 * HOUR);
        assert_eq!(step(22 * HOUR, &late), Step::WaitUntil(at(22 * HOUR + 900)));
        assert_eq!(step(22 * HOUR + 900, &late), Step::Activate("b".into()));
        let latest = made_at(24 * HOUR - 10);
        assert_eq!(step(24 * HOUR - 10, &latest), Step::WaitUntil(at(24 * HOUR - 5)));
    }

    #[test]
    fn a_two_minute_authority_keeps_the_same_fractions() {
        let a = term("a", State::Active, 0, 120);
        assert_eq!(schedule(at(59), std::slice::from_ref(&a)), Step::WaitUntil(at(60)));
        assert_eq!(schedule(at(60), std::slice::from_ref(&a)), Step::Prepare);

        let b = term("b", State::Prepared, 60, 180);
        assert_eq!(schedule(at(99), &[a.clone(), b.clone()]), Step::WaitUntil(at(100)));
        assert_eq!(schedule(at(100), &[a, b]), Step::Activate("b".into()));
    }

    #[test]
    fn a_ten_year_authority_prepares_30_days_and_activates_7_days_before_its_end() {
        let end = 3650 * 24 * HOUR;
        let a = term("a", State::Active, 0, end);
        assert_eq!(schedule(at(0), std::slice::from_ref(&a)), Step::WaitUntil(at(end - 30 * 24 * HOUR)));

        let b = term("b", State::Prepared, end - 30 * 24 * HOUR, 2 * end);
        assert_eq!(schedule(at(end - 30 * 24 * HOUR), &[a, b]), Step::WaitUntil(at(end - 7 * 24 * HOUR)));
    }

    #[test]
    fn nothing_signs_before_it_was_published() {
        let a = term("a", State::Active, 0, 24 * HOUR);
        assert_eq!(schedule(at(21 * HOUR), &[a]), Step::Prepare);
    }

    #[test]
    fn a_retired_authority_stays_until_all_it_signed_expired_and_a_day_more() {
        let old = term("a", State::Retired, 0, 24 * HOUR);
        let active = term("b", State::Active, 20 * HOUR, 144 * HOUR);
        assert_eq!(
            schedule(at(48 * HOUR - 1), &[old.clone(), active.clone()]),
            Step::WaitUntil(at(48 * HOUR))
        );
        assert_eq!(schedule(at(48 * HOUR), &[old, active]), Step::Prune("a".into()));
    }

    #[test]
    fn short_lived_authorities_do_not_pile_up_for_a_day() {
        let old = term("a", State::Retired, 0, 120);
        let active = term("b", State::Active, 200, 320);
        assert_eq!(schedule(at(240), &[old, active]), Step::Prune("a".into()));
    }

    #[test]
    fn after_a_long_stop_an_expired_authority_is_replaced_at_once() {
        let a = term("a", State::Active, 0, 120);
        assert_eq!(schedule(at(5000), std::slice::from_ref(&a)), Step::Create);

        let b = term("b", State::Prepared, 60, 180);
        assert_eq!(schedule(at(150), &[a.clone(), b.clone()]), Step::Activate("b".into()));
        assert_eq!(schedule(at(5000), &[a, b]), Step::Create);
    }

    #[test]
    fn a_clock_before_the_authority_signs_nothing() {
        let a = term("a", State::Active, 1000, 2000);
        assert_eq!(schedule(at(999), &[a]), Step::ClockBehind { not_before: at(1000) });
    }

    #[test]
    fn a_prepared_authority_takes_over_when_nothing_is_active() {
        let b = term("b", State::Prepared, 0, 120);
        assert_eq!(schedule(at(10), &[b]), Step::Activate("b".into()));
    }

    fn term(id: &str, state: State, not_before: u64, not_after: u64) -> Term {
        Term { id: id.into(), state, not_before: at(not_before), not_after: at(not_after) }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    const HOUR: u64 = 3600;
}
