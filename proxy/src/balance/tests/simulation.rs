//! A service in simulated time: callers at a constant rate, endpoints that are slow, die, hang or answer 503.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;

/// What an endpoint does with a call that reaches it at some second.
type Behaviour = fn(u64) -> (Duration, Result<(), ()>);

/// What came of the calls.
#[derive(Debug, Default)]
struct Report {
    calls: usize,
    answered: usize,
    /// Tries at each endpoint.
    tries: BTreeMap<u16, usize>,
    /// Failed tries at each endpoint.
    failures: BTreeMap<u16, usize>,
    retries: usize,
    ejections: usize,
    longest: Duration,
}

impl Report {
    fn success_rate(&self) -> f64 {
        self.answered as f64 / self.calls as f64
    }
}

/// The end of a try.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    at: Instant,
    number: usize,
}

struct Try {
    picked: Picked,
    tried: Vec<SocketAddr>,
    began: Instant,
    called: Instant,
    result: Result<(), ()>,
}

/// Runs `rate` calls a second for so many seconds.
fn run(settings: Settings, behaviours: &[Behaviour], rate: u64, seconds: u64) -> Report {
    let start = Instant::now();
    let count = u16::try_from(behaviours.len()).unwrap();
    let mut balancer = balancer(settings, &members(count), start);
    let (mut draw, mut report) = (Draw::new(11), Report::default());
    let (mut ends, mut tries): (BinaryHeap<Reverse<End>>, Vec<Option<Try>>) = Default::default();
    let begin = |balancer: &mut Balancer,
                 draw: &mut Draw,
                 report: &mut Report,
                 tries: &mut Vec<Option<Try>>,
                 ends: &mut BinaryHeap<Reverse<End>>,
                 (tried, now, called): (Vec<SocketAddr>, Instant, Instant)| {
        let Ok(picked) = balancer.pick(Ask { key: None, tried: &tried }, now, draw) else { return };
        let number = picked.address.port() - 1_000;
        *report.tries.entry(number).or_default() += 1;
        let (takes, result) = behaviours[usize::from(number)]((now - start).as_secs());
        ends.push(Reverse(End { at: now + takes, number: tries.len() }));
        tries.push(Some(Try { picked, tried, began: now, called, result }));
    };
    for call in 0..rate * seconds {
        let now = start + Duration::from_nanos(call * 1_000_000_000 / rate);
        while ends.peek().is_some_and(|Reverse(end)| end.at <= now)
            || (call + 1 == rate * seconds && !ends.is_empty())
        {
            let Reverse(end) = ends.pop().unwrap();
            let ended = tries[end.number].take().unwrap();
            let elapsed = end.at - ended.began;
            let outcome = match ended.result {
                Ok(()) => Outcome::Answered(elapsed),
                Err(()) => Outcome::Failed(elapsed),
            };
            balancer.report(&ended.picked, outcome, end.at, &mut draw);
            balancer.release(&ended.picked);
            if ended.result.is_ok() {
                report.answered += 1;
                report.longest = report.longest.max(end.at - ended.called);
                continue;
            }
            *report.failures.entry(ended.picked.address.port() - 1_000).or_default() += 1;
            let attempts = balancer.settings().retries.attempts as usize;
            if ended.tried.len() < attempts && balancer.retry(end.at) {
                report.retries += 1;
                let retry = u32::try_from(ended.tried.len() + 1).unwrap();
                let wait = wait(&balancer.settings().retries, retry, &mut draw);
                let tried = [ended.tried, vec![ended.picked.address]].concat();
                let next = (tried, end.at + wait, ended.called);
                begin(&mut balancer, &mut draw, &mut report, &mut tries, &mut ends, next);
            }
        }
        report.calls += 1;
        balancer.called(now);
        let first = (Vec::new(), now, now);
        begin(&mut balancer, &mut draw, &mut report, &mut tries, &mut ends, first);
    }
    // The last calls have not ended.
    report.calls -= tries.iter().flatten().count();
    let ejected = |change: &Change| matches!(change, Change::Ejected { .. });
    report.ejections = balancer.changes().iter().filter(|change| ejected(change)).count();
    report
}

fn good(_: u64) -> (Duration, Result<(), ()>) {
    (Duration::from_millis(5), Ok(()))
}

fn slow(_: u64) -> (Duration, Result<(), ()>) {
    (Duration::from_millis(100), Ok(()))
}

/// Refuses connections.
fn dead(_: u64) -> (Duration, Result<(), ()>) {
    (Duration::from_micros(50), Err(()))
}

/// Never answers: the caller's limit ends the try.
fn hangs(_: u64) -> (Duration, Result<(), ()>) {
    (Duration::from_secs(1), Err(()))
}

fn unavailable(_: u64) -> (Duration, Result<(), ()>) {
    (Duration::from_millis(2), Err(()))
}

/// Dies after ten seconds and comes back after thirty.
fn pauses(second: u64) -> (Duration, Result<(), ()>) {
    if (10..30).contains(&second) { dead(second) } else { good(second) }
}

#[test]
fn a_dead_endpoint_costs_no_call_and_few_tries() {
    for method in [Method::RoundRobin, Method::LeastRequest, Method::PeakEwma] {
        let report = run(settings(method), &[good, good, dead], 200, 60);

        assert_eq!(report.answered, report.calls, "{report:?}");
        // Five at first, then one after 10, 20 and 40 seconds.
        assert!(report.failures[&2] <= 8, "{report:?}");
    }
}

#[test]
fn an_endpoint_that_hangs_costs_time_but_no_call() {
    let report = run(settings(Method::LeastRequest), &[good, good, hangs], 100, 60);

    assert!(report.success_rate() > 0.999, "{report:?}");
    assert!(report.longest < Duration::from_millis(1_100), "{report:?}");
    assert!(report.failures[&2] < 30, "{report:?}");
}

#[test]
fn two_bad_ones_of_four_leave_all_calls_answered() {
    let report = run(settings(Method::LeastRequest), &[good, good, unavailable, dead], 400, 60);

    assert_eq!(report.answered, report.calls, "{report:?}");
}

#[test]
fn whoever_recovers_is_called_again() {
    let report = run(settings(Method::RoundRobin), &[good, good, pauses], 200, 90);

    assert_eq!(report.answered, report.calls, "{report:?}");
    // A third of the calls of 10 and about 50 seconds.
    assert!(report.tries[&2] > 3_000, "{report:?}");
}

#[test]
fn a_slow_endpoint_gets_few_calls_by_latency_and_fewer_than_its_turn_by_load() {
    let share = |method| {
        let report = run(settings(method), &[good, good, slow], 300, 30);
        report.tries.get(&2).copied().unwrap_or(0) as f64 / report.calls as f64
    };

    assert!((0.32..0.35).contains(&share(Method::RoundRobin)));
    assert!(share(Method::LeastRequest) < 0.2);
    assert!(share(Method::PeakEwma) < 0.05);
}

#[test]
fn when_everything_fails_the_budget_holds() {
    let report = run(settings(Method::RoundRobin), &[dead, dead, dead], 1_000, 30);

    assert_eq!(report.answered, 0);
    // A fifth of the calls, and ten a second.
    let most = report.calls / 5 + 10 * 30 + 100;
    assert!(report.retries <= most, "{report:?}");
    assert!(report.ejections > 0);
}

#[test]
fn good_endpoints_are_left_alone() {
    let report = run(settings(Method::PeakEwma), &[good, slow, good], 300, 30);

    assert_eq!((report.ejections, report.retries), (0, 0), "{report:?}");
    assert_eq!(report.answered, report.calls);
}
