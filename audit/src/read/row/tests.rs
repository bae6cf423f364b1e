//! A row is one line that says what happened and does nothing.

use crate::{
    Event, Kind, NearMiss, Reason, Record, Stage,
    chain::Link,
    fixtures::{closed, connection, denied, endpoint, http, product, rule},
    read::row,
    record::{Change, Product, Subject},
    text::acts,
};

fn shown(event: &Event) -> String {
    let product = Product::new(&product());
    row(&Record::of_event(event, &Subject { product: &product, chain: "c", sequence: 12, prev: Link::START }))
}

#[test]
fn a_denied_request_is_told_in_one_line() {
    let mut event = denied(Reason::NoAllowMatched);
    event.http = Some(http("POST", "/v1/rates"));
    event.near_misses = vec![NearMiss {
        rule: rule("reads"),
        failed: "method".to_owned(),
        wanted: "GET".to_owned(),
        found: "POST".to_owned(),
    }];
    let Kind::Denied(denial) = event.kind else { unreachable!() };

    assert_eq!(
        shown(&event),
        format!(
            "2027-01-15T08:00:00.000000Z denied no_allow_matched \
             spiffe://prod.test/web(10.0.0.7) -> spiffe://prod.test/db:8443 POST /v1/rates \
             nearest=db.yaml#reads failed=method denial={} conn={} seq=12",
            denial.id, event.connection
        )
    );
}

#[test]
fn a_caller_without_identity_is_called_unauthenticated() {
    let mut event = denied(Reason::Unauthenticated);
    event.source = endpoint([10, 0, 0, 1], 1, None);

    assert!(shown(&event).contains(" unauthenticated(10.0.0.1) -> "));
}

#[test]
fn a_closed_connection_says_why() {
    assert!(shown(&closed(1, 2)).contains(" closed=finished "));
}

#[test]
fn a_change_of_the_log_says_what_and_for_which_file() {
    let product = Product::new(&product());
    let subject = Subject { product: &product, chain: "c", sequence: 3, prev: Link::START };
    let change = Change { what: "log_rotated".to_owned(), file: Some("a b".to_owned()), ..Change::default() };

    let line = row(&Record::of_log(crate::fixtures::at(0), change, &subject));

    assert_eq!(line, "2027-01-15T08:00:00.000000Z lifecycle log_rotated file=\"a b\" seq=3");
}

#[test]
fn nothing_a_caller_sends_can_act_or_forge_a_second_field() {
    let mut event = connection(Kind::Opened, Stage::Request);
    event.http = Some(http("GET\nX", "/a rule=forged\u{1b}[2J\u{202e}"));

    let line = shown(&event);

    assert!(!line.contains(acts), "{line:?}");
    assert!(line.contains("GET\\nX") && line.contains("\"/a rule=forged\\u{1b}[2J\\u{202e}\""), "{line}");
}
