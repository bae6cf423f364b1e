//! Aggregates lose nothing and stay bounded.

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;
use crate::{
    Reason,
    fixtures::{at, closed, connection, denied, endpoint, http, rule},
};

fn all(events: impl IntoIterator<Item = Event>) -> Vec<Aggregate> {
    let mut aggregates = Aggregates::default();
    events.into_iter().for_each(|event| aggregates.add(event));
    aggregates.into_sorted()
}

fn from(id: &str) -> Event {
    let mut event = denied(Reason::NoPolicy);
    event.source.id = Some(id.into());
    event
}

#[test]
fn events_of_one_flow_are_one_aggregate() {
    let mut late = from("spiffe://prod.test/a");
    late.time = at(9);
    late.source.port = Some(1);
    let Kind::Denied(last) = late.kind else { unreachable!() };

    let found = all([from("spiffe://prod.test/a"), late]);

    assert_eq!(found.len(), 1);
    assert_eq!((found[0].count, found[0].start, found[0].end), (2, at(0), at(9)));
    assert_eq!(found[0].last_denial, Some(last.id));
}

#[test]
fn what_differs_in_any_part_of_the_key_is_counted_apart() {
    let base = from("spiffe://prod.test/a");
    let mut variants = vec![base.clone(), from("spiffe://prod.test/b"), denied(Reason::ExplicitDeny)];
    for change in [
        (|event| event.destination.port = Some(1)) as fn(&mut Event),
        |event| event.destination.id = Some("spiffe://prod.test/x".into()),
        |event| event.policy = Some(rule("r")),
        |event| event.stage = Stage::Reevaluate,
        |event| event.http = Some(http("GET", "/")),
        |event| event.http = Some(http("PUT", "/")),
        |event| event.kind = Kind::Opened,
    ] {
        let mut variant = base.clone();
        change(&mut variant);
        variants.push(variant);
    }
    let expected = variants.len();

    assert_eq!(all(variants).len(), expected);
}

#[test]
fn paths_tell_allowed_requests_apart_and_denials_not() {
    let request = |kind: Kind, path: &str| {
        let mut event = connection(kind, Stage::Request);
        event.http = Some(http("GET", path));
        event
    };
    let denial = || denied(Reason::NoPolicy).kind;

    assert_eq!(all([request(Kind::Allowed, "/a"), request(Kind::Allowed, "/b")]).len(), 2);
    assert_eq!(all([request(denial(), "/a"), request(denial(), "/b")]).len(), 1);
}

#[test]
fn callers_without_identity_are_counted_by_network() {
    let unknown = |ip: [u8; 4]| {
        let mut event = denied(Reason::Unauthenticated);
        event.source = endpoint(ip, 1, None);
        event
    };
    let mut mapped = unknown([0; 4]);
    mapped.source.ip = Some(Ipv4Addr::new(10, 0, 0, 99).to_ipv6_mapped().into());

    assert_eq!(all([unknown([10, 0, 0, 1]), unknown([10, 0, 0, 200]), mapped]).len(), 1);
    assert_eq!(all([unknown([10, 0, 0, 1]), unknown([10, 0, 1, 1])]).len(), 2);
}

#[test]
fn ipv6_networks_are_64_bits() {
    let ip = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 3, 4, 5, 6);

    assert_eq!(network(ip.into()), (Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, 0).into(), 64));
}

#[test]
fn closed_connections_add_up_what_they_carried() {
    let found = all([closed(1, 10), closed(2, 20)]);

    let Kind::Closed(sum) = found[0].sample.kind else { panic!("not closed") };
    assert_eq!((sum.bytes_in, sum.bytes_out), (3, 30));
}

#[test]
fn the_number_of_keys_is_bounded_and_every_event_counted() {
    let many = MAX_FLOW_KEYS + MAX_RULE_KEYS + 1_000;
    let events = (0..many).map(|n| {
        let mut event = from(&format!("spiffe://prod.test/{n}"));
        event.destination.id = Some(format!("spiffe://prod.test/to/{n}").into());
        event
    });

    let found = all(events);

    assert_eq!(found.iter().map(|aggregate| aggregate.count).sum::<u64>(), many as u64);
    assert_eq!(found.len(), MAX_FLOW_KEYS + MAX_RULE_KEYS + 1);
}

#[test]
fn an_aggregate_of_many_flows_names_no_single_one() {
    let mut events: Vec<_> = (0..=MAX_FLOW_KEYS).map(|n| from(&format!("spiffe://prod.test/{n}"))).collect();
    events.iter_mut().for_each(|event| event.http = Some(http("GET", "/")));

    let found = all(events);

    let wide: Vec<_> = found.iter().filter(|aggregate| aggregate.scope == Scope::Rule).collect();
    assert_eq!(wide.len(), 1);
    assert_eq!(wide[0].sample.source, Endpoint::default());
    assert!(wide[0].sample.http.is_none() && wide[0].sample.tls.is_none());
    assert_eq!(wide[0].sample.destination.port, Some(8_443));
}

fn any_event() -> impl Strategy<Value = Event> {
    let reason = prop_oneof![
        Just(Reason::NoPolicy),
        Just(Reason::ExplicitDeny),
        Just(Reason::HandshakeFailed("expired")),
        Just(Reason::HandshakeFailed("wrong_trust_domain")),
    ];
    (reason, 0_u32..20_000, 0_u16..50, 0_u8..4, 0_u64..100).prop_map(|(reason, from, port, kind, time)| {
        let mut event = denied(reason);
        match kind {
            0 => event.kind = Kind::Opened,
            1 => event.kind = Kind::Allowed,
            _ => {}
        }
        event.time = at(time);
        event.source.id = Some(format!("spiffe://prod.test/{from}").into());
        event.destination.port = Some(port);
        event
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn whatever_is_counted_and_merged_again_adds_up(events in prop::collection::vec(any_event(), 0..6_000)) {
        let mut expected: HashMap<_, u64> = HashMap::new();
        let (mut first, mut second) = (Aggregates::default(), Aggregates::default());
        for (n, event) in events.into_iter().enumerate() {
            *expected.entry((event.decision(), event.reason().map(|reason| reason.as_str()))).or_default() += 1;
            if n % 3 == 0 { first.add(event) } else { second.add(event) }
        }

        second.into_sorted().into_iter().for_each(|aggregate| first.merge(aggregate));

        prop_assert_eq!(first.total(), expected.values().sum::<u64>());
        let mut found: HashMap<_, u64> = HashMap::new();
        for aggregate in first.into_sorted() {
            let key = (aggregate.sample.decision(), aggregate.sample.reason().map(|reason| reason.as_str()));
            *found.entry(key).or_default() += aggregate.count;
            prop_assert!(aggregate.start <= aggregate.end);
        }
        prop_assert_eq!(found, expected);
    }
}
