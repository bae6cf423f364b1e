//! Groups honour counts and stay bounded.

use super::*;
use crate::{
    Reason,
    aggregate::Aggregate,
    chain::Link,
    fixtures::{at, denied, http, product, rule},
    record::{Product, Subject},
};

fn record(from: &str, count: u64) -> Record {
    let mut event = denied(Reason::NoPolicy);
    event.source.id = Some(from.into());
    event.http = Some(http("GET", "/x"));
    event.policy = Some(rule("r"));
    let mut aggregate = Aggregate::of(event);
    (aggregate.count, aggregate.end) = (count, at(count));
    let product = Product::new(&product());
    Record::of_aggregate(
        &aggregate,
        &Subject { product: &product, chain: "c", sequence: 1, prev: Link::START },
    )
}

#[test]
fn groups_add_up_events_not_records_and_the_largest_comes_first() {
    let mut groups = Groups::by(vec![Field::From, Field::Reason]);
    for (from, count) in [("a", 2), ("b", 100), ("a", 3)] {
        groups.add(&record(from, count));
    }

    let (top, found) = groups.top(10);

    let seen: Vec<_> = top.iter().map(|group| (group.values.join(" "), group.count, group.records)).collect();
    assert_eq!(seen, [("b no_policy".to_owned(), 100, 1), ("a no_policy".to_owned(), 5, 2)]);
    assert_eq!(found, 2);
    assert_eq!(top[1].last, crate::record::millis(at(3)));
}

#[test]
fn only_the_top_is_returned_and_how_many_there_were() {
    let mut groups = Groups::by(vec![Field::From]);
    ["a", "b", "c"].iter().for_each(|from| groups.add(&record(from, 1)));

    let (top, found) = groups.top(2);

    assert_eq!((top.len(), found), (2, 3));
}

#[test]
fn groups_beyond_the_limit_are_counted_as_other() {
    let mut groups = Groups::by(vec![Field::From]);
    let mut one = record("x", 2);
    for n in 0..MAX_GROUPS + 10 {
        one.src_endpoint.as_mut().unwrap().uid = Some(n.to_string());
        groups.add(&one);
    }

    let (top, found) = groups.top(1);

    assert_eq!(found, MAX_GROUPS + 1);
    assert_eq!((top[0].values[0].as_str(), top[0].count), ("(other)", 20));
}

#[test]
fn every_field_has_a_value_and_a_name_that_parses() {
    let record = record("spiffe://prod.test/web", 1);

    let values: Vec<_> = Field::ALL.iter().map(|field| format!("{field}={}", field.of(&record))).collect();

    assert_eq!(
        values,
        [
            "from=spiffe://prod.test/web",
            "to=spiffe://prod.test/db",
            "rule=db.yaml#r",
            "policy=db",
            "reason=no_policy",
            "code=-",
            "decision=denied",
            "stage=connect",
            "port=8443",
            "method=GET",
            "path=/x",
            "source_ip=10.0.0.7",
            "generation=g1",
        ]
    );
    assert!(Field::ALL.iter().all(|field| field.as_str().parse() == Ok(*field)));
}

#[test]
fn an_unknown_field_is_refused_with_the_known_ones() {
    let refused = "form".parse::<Field>().unwrap_err().to_string();

    assert!(refused.contains("`form`") && refused.contains("from, to, rule"), "{refused}");
}
