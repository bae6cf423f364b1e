//! Each condition refuses what is beside it.

use super::*;
use crate::{
    Kind, Reason, Record, Stage,
    aggregate::Aggregate,
    chain::Link,
    fixtures::{at, denied, endpoint, http, product, rule},
    record::{Product, Subject},
};

fn record() -> Record {
    let mut event = denied(Reason::MalformedRequest("bare_lf"));
    event.stage = Stage::Request;
    event.http = Some(http("GET", "/v1/accounts/42"));
    event.policy = Some(rule("reads"));
    of(&event)
}

fn of(event: &crate::Event) -> Record {
    let product = Product::new(&product());
    Record::of_event(event, &subject(&product))
}

fn subject(product: &Product) -> Subject<'_> {
    Subject { product, chain: "c", sequence: 1, prev: Link::START }
}

fn with(set: impl FnOnce(&mut Filter)) -> bool {
    let mut filter = Filter::default();
    set(&mut filter);
    filter.matches(&record())
}

#[test]
fn no_condition_matches_everything() {
    assert!(with(|_| ()));
}

#[test]
fn time_is_compared_to_the_millisecond_at_both_ends() {
    assert!(with(|filter| filter.since = Some(at(0))));
    assert!(with(|filter| filter.until = Some(at(0))));
    assert!(!with(|filter| filter.since = Some(at(1))));
    assert!(!with(|filter| filter.until = Some(at(0) - std::time::Duration::from_millis(1))));
}

#[test]
fn an_aggregate_matches_while_any_of_its_time_is_inside() {
    let mut aggregate = Aggregate::of(denied(Reason::NoPolicy));
    (aggregate.start, aggregate.end) = (at(10), at(20));
    let product = Product::new(&product());
    let record = Record::of_aggregate(&aggregate, &subject(&product));
    let within = |since, until| {
        Filter { since: Some(at(since)), until: Some(at(until)), ..Filter::default() }.matches(&record)
    };

    assert!(within(0, 10) && within(12, 15) && within(20, 30));
    assert!(!within(0, 9) && !within(21, 30));
}

#[test]
fn who_called_is_matched_by_pattern() {
    assert!(with(|filter| filter.from = "spiffe://*/web".parse().ok()));
    assert!(with(|filter| filter.to = "spiffe://prod.test/**".parse().ok()));
    for other in
        ["spiffe://prod.test", "spiffe://other.test/**", "spiffe://prod.test/web/*", "unauthenticated"]
    {
        assert!(!with(|filter| filter.from = other.parse().ok()), "{other}");
        assert!(!with(|filter| filter.to = other.parse().ok()), "{other}");
    }
}

#[test]
fn callers_without_identity_are_found_by_word_and_by_no_pattern() {
    let mut event = denied(Reason::Unauthenticated);
    event.source = endpoint([10, 0, 0, 1], 1, None);
    let record = of(&event);
    let from = |text: &str| Filter { from: text.parse().ok(), ..Filter::default() }.matches(&record);

    assert!(from("unauthenticated"));
    assert!(!from("spiffe://*/**") && !from("*/**"));
}

#[test]
fn rules_and_policies_are_found_by_either_name() {
    for name in ["reads", "db.yaml#reads"] {
        assert!(with(|filter| filter.rule = Some(name.into())), "{name}");
    }
    for name in ["db", "db.yaml"] {
        assert!(with(|filter| filter.policy = Some(name.into())), "{name}");
    }
    for other in ["", "read", "reads2", "other.yaml#reads"] {
        assert!(!with(|filter| filter.rule = Some(other.into())), "{other}");
        assert!(!with(|filter| filter.policy = Some(other.into())), "{other}");
    }
}

#[test]
fn reasons_are_found_by_name_and_by_code() {
    assert!(with(|filter| filter.reason = Some("malformed_request".into())));
    assert!(with(|filter| filter.reason = Some("bare_lf".into())));
    assert!(!with(|filter| filter.reason = Some("bare".into())));
    assert!(!with(|filter| filter.reason = Some("no_policy".into())));
}

#[test]
fn any_of_several_decisions_matches() {
    assert!(with(|filter| filter.decisions = vec![Decision::Opened, Decision::Denied]));
    assert!(!with(|filter| filter.decisions = vec![Decision::Opened, Decision::WouldDeny]));
}

#[test]
fn port_and_path_must_both_be_right() {
    assert!(with(|filter| (filter.port, filter.path) = (Some(8_443), "/v1/**".parse().ok())));
    assert!(!with(|filter| filter.port = Some(8_444)));
    assert!(!with(|filter| filter.path = "/v2/**".parse().ok()));
    assert!(!with(|filter| (filter.port, filter.path) = (Some(8_443), "/v1".parse().ok())));
}

#[test]
fn a_record_without_a_request_has_no_path() {
    let filter = Filter { path: "/**".parse().ok(), ..Filter::default() };

    assert!(!filter.matches(&of(&denied(Reason::NoPolicy))));
}

#[test]
fn a_denial_is_found_by_what_the_client_was_told_and_by_its_connection() {
    let event = denied(Reason::NoPolicy);
    let Kind::Denied(denial) = event.kind else { unreachable!() };
    let by = |denial, connection| Filter { denial, connection, ..Filter::default() }.matches(&of(&event));

    assert!(by(Some(denial.id), None) && by(None, Some(event.connection)));
    assert!(!by(Some(DenialId::new(at(0))), None));
    assert!(!by(None, Some(ConnectionId::new(at(0)))));
}

#[test]
fn the_last_denial_of_an_aggregate_is_found_too() {
    let mut aggregate = Aggregate::of(denied(Reason::NoPolicy));
    let last = DenialId::new(at(5));
    aggregate.last_denial = Some(last);
    let product = Product::new(&product());

    let record = Record::of_aggregate(&aggregate, &subject(&product));

    assert!(Filter { denial: Some(last), ..Filter::default() }.matches(&record));
}
