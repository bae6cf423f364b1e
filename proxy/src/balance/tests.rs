//! Choosing and recovering, in simulated time.

mod simulation;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 1_000 + number))
}

fn member(number: u16) -> Member {
    Member { address: address(number), weight: 1, distance: Distance::ELSEWHERE, via: Via::Connection }
}

fn near_by() -> Distance {
    let here = "eu/a".parse().unwrap();
    Distance::between(Some(&here), Some(&here))
}

fn members(count: u16) -> Vec<Member> {
    (0..count).map(member).collect()
}

fn settings(method: Method) -> Settings {
    Settings { method, ..Settings::default() }
}

fn balancer(settings: Settings, members: &[Member], now: Instant) -> Balancer {
    let mut balancer = Balancer::new(settings.clone(), now);
    balancer.update(settings, members, now);
    balancer
}

/// Picks so often, releasing at once, and counts by port.
fn counts(balancer: &mut Balancer, calls: usize, now: Instant) -> BTreeMap<u16, usize> {
    let (mut draw, mut counts) = (Draw::new(7), BTreeMap::new());
    for _ in 0..calls {
        let picked = balancer.pick(Ask::default(), now, &mut draw).unwrap();
        balancer.release(&picked);
        *counts.entry(picked.address.port() - 1_000).or_default() += 1;
    }
    counts
}

fn fail(balancer: &mut Balancer, number: u16, times: usize, now: Instant) {
    let picked = pick_only(balancer, number, now);
    for _ in 0..times {
        balancer.report(&picked, Outcome::Failed(Duration::ZERO), now, &mut Draw::new(3));
    }
}

/// Picks until it is this one's turn.
fn pick_only(balancer: &mut Balancer, number: u16, now: Instant) -> Picked {
    let others: Vec<SocketAddr> = balancer.addresses().filter(|other| *other != address(number)).collect();
    let picked =
        balancer.pick(Ask { key: None, tried: &others }, now, &mut Draw::new(1)).expect("it can be called");
    balancer.release(&picked);
    picked
}

#[test]
fn turns_are_taken_as_weights_say() {
    let now = Instant::now();
    let mut even = balancer(settings(Method::RoundRobin), &members(3), now);
    let mut heavy = members(3);
    heavy[1].weight = 4;
    let mut weighted = balancer(settings(Method::RoundRobin), &heavy, now);

    assert_eq!(counts(&mut even, 300, now), BTreeMap::from([(0, 100), (1, 100), (2, 100)]));
    assert_eq!(counts(&mut weighted, 600, now), BTreeMap::from([(0, 100), (1, 400), (2, 100)]));
}

#[test]
fn weighted_turns_do_not_come_in_bursts() {
    let now = Instant::now();
    let mut heavy = members(2);
    heavy[0].weight = 3;
    let mut balancer = balancer(settings(Method::RoundRobin), &heavy, now);

    let order: Vec<u16> = (0..8)
        .map(|_| balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap().address.port() - 1_000)
        .collect();

    assert_eq!(order, [0, 0, 1, 0, 0, 0, 1, 0]);
}

#[test]
fn the_one_of_two_with_less_to_do_is_taken() {
    let now = Instant::now();
    let mut balancer = balancer(settings(Method::LeastRequest), &members(2), now);
    let mut draw = Draw::new(5);

    for _ in 0..100 {
        balancer.pick(Ask::default(), now, &mut draw).unwrap();
    }

    assert_eq!(balancer.views(now).iter().map(|view| view.active).collect::<Vec<_>>(), [50, 50]);
}

#[test]
fn drawing_goes_by_weight_where_nobody_is_busy() {
    let now = Instant::now();
    let mut heavy = members(3);
    heavy[2].weight = 2;
    let mut balancer = balancer(settings(Method::LeastRequest), &heavy, now);

    let counts = counts(&mut balancer, 8_000, now);

    assert!(counts[&0].abs_diff(2_000) < 200 && counts[&2].abs_diff(4_000) < 200, "{counts:?}");
}

#[test]
fn a_key_stays_with_its_endpoint_until_that_is_ejected_and_comes_back_with_it() {
    let start = Instant::now();
    let mut balancer = balancer(settings(Method::RingHash(HashBy::Source)), &members(5), start);
    let at = |balancer: &mut Balancer, key: u64, now| {
        let ask = Ask { key: Some(hash(&key.to_be_bytes())), tried: &[] };
        let picked = balancer.pick(ask, now, &mut Draw::new(key)).unwrap();
        balancer.release(&picked);
        picked.address
    };
    let before: Vec<_> = (0..500).map(|key| at(&mut balancer, key, start)).collect();

    fail(&mut balancer, 2, 5, start);
    let during: Vec<_> = (0..500).map(|key| at(&mut balancer, key, start)).collect();
    let later = start + Duration::from_secs(12);
    let after: Vec<_> = (0..500).map(|key| at(&mut balancer, key, later)).collect();

    assert_eq!(before, after);
    for (before, during) in before.iter().zip(&during) {
        assert!(*during != address(2) && (before == during || *before == address(2)));
    }
    assert_eq!(during.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn what_has_been_tried_is_not_tried_again() {
    let now = Instant::now();
    for method in
        [Method::RoundRobin, Method::LeastRequest, Method::PeakEwma, Method::RingHash(HashBy::Source)]
    {
        let mut balancer = balancer(settings(method), &members(4), now);
        let mut tried = Vec::new();

        for _ in 0..4 {
            let ask = Ask { key: Some(9), tried: &tried };
            tried.push(balancer.pick(ask, now, &mut Draw::new(1)).unwrap().address);
        }

        assert_eq!(tried.iter().collect::<BTreeSet<_>>().len(), 4);
        let ask = Ask { key: Some(9), tried: &tried };
        assert_eq!(balancer.pick(ask, now, &mut Draw::new(1)), Err(NoEndpoint::Tried));
    }
}

#[test]
fn a_service_without_endpoints_has_none() {
    let now = Instant::now();
    let mut balancer = balancer(settings(Method::RoundRobin), &[], now);

    assert_eq!(balancer.pick(Ask::default(), now, &mut Draw::new(1)), Err(NoEndpoint::None));
}

#[test]
fn calls_go_further_away_as_the_near_fail() {
    let now = Instant::now();
    let mut all = members(6);
    for near in &mut all[..3] {
        near.distance = near_by();
    }
    let mut settings = settings(Method::LeastRequest);
    settings.ejection.share = 100;
    let mut balancer = balancer(settings, &all, now);
    let near = |balancer: &mut Balancer| {
        counts(balancer, 3_000, now).range(..3).map(|(_, count)| *count).sum::<usize>()
    };

    assert_eq!(near(&mut balancer), 3_000);
    fail(&mut balancer, 0, 5, now);
    assert_eq!(near(&mut balancer), 3_000);
    fail(&mut balancer, 1, 5, now);
    assert!(near(&mut balancer).abs_diff(1_500) < 150);
    fail(&mut balancer, 2, 5, now);
    assert_eq!(near(&mut balancer), 0);
}

#[test]
fn the_last_one_is_never_ejected_for_failures() {
    let now = Instant::now();
    let mut settings = settings(Method::RoundRobin);
    settings.ejection.share = 100;
    let mut balancer = balancer(settings, &members(3), now);

    for number in [0, 1, 2] {
        fail(&mut balancer, number, 50, now);
    }

    let states: Vec<_> = balancer.views(now).iter().map(|view| view.state).collect();
    assert_eq!(states, ["ejected", "ejected", "in"]);
}

#[test]
fn no_more_than_the_share_is_out() {
    let now = Instant::now();
    let mut balancer = balancer(settings(Method::RoundRobin), &members(10), now);

    for number in 0..10 {
        if balancer.views(now)[usize::from(number)].state == "in" {
            fail(&mut balancer, number, 50, now);
        }
    }

    assert_eq!(balancer.views(now).iter().filter(|view| view.state == "ejected").count(), 5);
}

#[test]
fn an_impostor_is_out_at_once_and_asked_last() {
    let now = Instant::now();
    let mut balancer = balancer(settings(Method::RoundRobin), &members(2), now);
    let impostor = pick_only(&mut balancer, 1, now);

    balancer.report(&impostor, Outcome::Impostor, now, &mut Draw::new(1));

    assert_eq!(counts(&mut balancer, 10, now), BTreeMap::from([(0, 10)]));
    assert!(matches!(balancer.changes()[..], [Change::Ejected { cause: Cause::Identity, .. }]));
    // The other one dies, but there is nobody else: an honest failure is better than a stranger.
    fail(&mut balancer, 0, 50, now);
    assert_eq!(counts(&mut balancer, 10, now), BTreeMap::from([(0, 10)]));
}

#[test]
fn a_single_impostor_is_still_asked_to_prove_itself() {
    let now = Instant::now();
    let mut balancer = balancer(settings(Method::RoundRobin), &members(1), now);
    let picked = balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap();
    balancer.report(&picked, Outcome::Impostor, now, &mut Draw::new(1));

    assert_eq!(balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap().address, address(0));
}

#[test]
fn endpoints_that_stay_keep_what_is_known_of_them() {
    let now = Instant::now();
    let settings = settings(Method::RoundRobin);
    let mut balancer = balancer(settings.clone(), &members(3), now);
    fail(&mut balancer, 1, 5, now);
    let held = balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap();

    let gone = balancer.update(settings.clone(), &[member(1), member(3)], now);

    assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([address(0), address(2)]));
    assert_eq!(balancer.views(now)[0].state, "ejected");
    // It comes again while a call to its predecessor is under way.
    balancer.update(settings, &[member(0), member(2)], now);
    let again = pick_only(&mut balancer, held.address.port() - 1_000, now);
    assert_ne!(again, held);
    balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap();
    balancer.pick(Ask::default(), now, &mut Draw::new(1)).unwrap();
    balancer.release(&held);
    assert_eq!(balancer.views(now).iter().map(|view| view.active).sum::<u32>(), 2);
}

#[test]
fn questions_take_an_endpoint_out_and_back_in() {
    let now = Instant::now();
    let settings =
        Settings { health: Health::Checked(Check::new(Probe::Connect)), ..settings(Method::RoundRobin) };
    let mut balancer = balancer(settings, &members(2), now);

    for _ in 0..3 {
        balancer.checked(address(0), false);
    }
    assert_eq!(counts(&mut balancer, 4, now), BTreeMap::from([(1, 4)]));
    for _ in 0..2 {
        balancer.checked(address(0), true);
    }

    assert_eq!(counts(&mut balancer, 4, now), BTreeMap::from([(0, 2), (1, 2)]));
    assert_eq!(
        balancer.changes(),
        [Change::Unhealthy { address: address(0) }, Change::Healthy { address: address(0) }]
    );
}

#[test]
fn where_no_endpoint_answers_questions_all_are_called() {
    let now = Instant::now();
    let settings =
        Settings { health: Health::Checked(Check::new(Probe::Connect)), ..settings(Method::RoundRobin) };
    let mut balancer = balancer(settings, &members(2), now);
    for _ in 0..3 {
        balancer.checked(address(0), false);
        balancer.checked(address(1), false);
    }

    assert_eq!(counts(&mut balancer, 200, now).len(), 2);
}

#[test]
fn an_endpoint_named_twice_is_one() {
    let now = Instant::now();
    let mut twice = members(2);
    twice.push(Member { weight: 9, ..member(0) });

    let mut balancer = balancer(settings(Method::RoundRobin), &twice, now);

    assert_eq!(counts(&mut balancer, 4, now), BTreeMap::from([(0, 2), (1, 2)]));
}

#[derive(Debug, Clone)]
enum Step {
    Pick,
    Finish { which: usize, good: bool },
    Wait(u64),
    Change(BTreeSet<u16>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Pick),
        4 => (any::<usize>(), prop::bool::weighted(0.3)).prop_map(|(which, good)| Step::Finish { which, good }),
        1 => (0u64..30_000).prop_map(Step::Wait),
        1 => proptest::collection::btree_set(0u16..8, 1..6).prop_map(Step::Change),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_somebody_can_be_called_and_every_call_is_counted(
        steps in proptest::collection::vec(step(), 1..300),
        which in 0usize..4,
        share in 0u32..=100,
        seed in any::<u64>(),
    ) {
        let method = [
            Method::RoundRobin, Method::LeastRequest, Method::PeakEwma, Method::RingHash(HashBy::Source)
        ][which].clone();
        let mut settings = settings(method);
        settings.ejection.share = share;
        let (mut now, mut draw) = (Instant::now(), Draw::new(seed));
        let mut balancer = balancer(settings.clone(), &members(4), now);
        let mut held: Vec<Picked> = Vec::new();

        for step in steps {
            match step {
                Step::Pick => {
                    let key = Some(draw.number());
                    let picked = balancer.pick(Ask { key, tried: &[] }, now, &mut draw);
                    held.push(picked.expect("there are endpoints"));
                }
                Step::Finish { which, good } if !held.is_empty() => {
                    let picked = held.swap_remove(which % held.len());
                    let elapsed = Duration::from_millis(3);
                    let outcome = if good { Outcome::Answered(elapsed) } else { Outcome::Failed(elapsed) };
                    balancer.report(&picked, outcome, now, &mut draw);
                    balancer.release(&picked);
                }
                Step::Finish { .. } => {}
                Step::Wait(millis) => now += Duration::from_millis(millis),
                Step::Change(numbers) => {
                    let members: Vec<Member> = numbers.into_iter().map(member).collect();
                    let gone = balancer.update(settings.clone(), &members, now);
                    held.retain(|picked| !gone.contains(&picked.address));
                }
            }
            let views = balancer.views(now);
            let active: u32 = views.iter().map(|view| view.active).sum();
            prop_assert_eq!(active as usize, held.len());
        }
        let picked = balancer.pick(Ask::default(), now, &mut draw);
        prop_assert!(picked.is_ok());
    }

    #[test]
    fn failures_never_take_out_more_than_the_share_nor_everybody(
        events in proptest::collection::vec((0u16..6, prop::bool::weighted(0.1), 0u64..4_000), 1..400),
        share in 0u32..=100,
    ) {
        let mut settings = settings(Method::RoundRobin);
        settings.ejection.share = share;
        let (mut now, mut draw) = (Instant::now(), Draw::new(1));
        let mut balancer = balancer(settings, &members(6), now);
        let tickets: Vec<Picked> = (0..6).map(|number| pick_only(&mut balancer, number, now)).collect();

        for (number, good, wait) in events {
            now += Duration::from_millis(wait);
            let outcome = if good { Outcome::Answered(Duration::ZERO) } else { Outcome::Failed(Duration::ZERO) };
            balancer.report(&tickets[usize::from(number)], outcome, now, &mut draw);

            let out = balancer.views(now).iter().filter(|view| view.state == "ejected").count();
            prop_assert!(out <= (6 * share as usize / 100).max(1) && out < 6);
        }
    }
}
