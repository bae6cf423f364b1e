//! Records have the shape that is promised, whatever goes in.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    Close, CloseCause, ConnectionId, DenialId, Effect, Event, Http, Kind, Lifecycle, Reason, Stage,
    aggregate::Aggregates,
    chain::{self, Link},
    fixtures::{at, closed, connection, denied, endpoint, full, http, product, rule},
    read,
    text::acts,
};

fn subject(product: &Product) -> Subject<'_> {
    Subject { product, chain: "01ARZ3NDEKTSV4RRFFQ69G5FAV", sequence: 1, prev: Link::START }
}

fn record(event: &Event) -> Record {
    Record::of_event(event, &subject(&Product::new(&product())))
}

fn line(record: &Record) -> String {
    let mut line = Vec::new();
    write_line(record, Link::START, &mut line);
    String::from_utf8(line).unwrap()
}

fn json(event: &Event) -> Value {
    serde_json::from_str(&line(&record(event))).unwrap()
}

fn shadow(reason: Reason) -> Event {
    let mut event = denied(reason);
    if let Kind::Denied(denial) = &mut event.kind {
        denial.effect = Effect::Shadow;
    }
    event
}

fn aggregates(events: impl IntoIterator<Item = Event>) -> Vec<Record> {
    let mut aggregates = Aggregates::default();
    events.into_iter().for_each(|event| aggregates.add(event));
    let product = Product::new(&product());
    let sorted = aggregates.into_sorted();
    sorted.iter().map(|aggregate| Record::of_aggregate(aggregate, &subject(&product))).collect()
}

/// One record of every sort there is.
fn one_of_each() -> Vec<Record> {
    let events = [every_denial(), every_method(), every_close(), every_lifecycle(), odd_events()];
    let mut records: Vec<_> = events.iter().flatten().map(record).collect();
    let product = Product::new(&product());
    records.extend(every_change().map(|change| Record::of_log(at(0), change, &subject(&product))));
    let mut unknown = denied(Reason::Unauthenticated);
    unknown.source = endpoint([10, 0, 0, 7], 1, None);
    records.extend(aggregates([unknown.clone(), unknown, closed(1, 2)]));
    records
}

fn every_denial() -> Vec<Event> {
    let reasons = [
        Reason::ExplicitDeny,
        Reason::NoAllowMatched,
        Reason::NoPolicy,
        Reason::Unauthenticated,
        Reason::JwtInvalid,
        Reason::MalformedRequest("bare_lf"),
        Reason::PolicyUnavailable,
        Reason::HandshakeFailed("expired"),
        Reason::TrustWithdrawn,
        Reason::LimitExceeded("connections"),
        Reason::NotPermitted("not_an_agent"),
    ];
    reasons.into_iter().flat_map(|reason| [denied(reason), shadow(reason)]).collect()
}

fn every_method() -> Vec<Event> {
    let names = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH", "BREW"];
    let request = |name| {
        let mut event = denied(Reason::NoAllowMatched);
        event.http = Some(http(name, "/x"));
        event
    };
    names.map(request).into()
}

fn every_close() -> Vec<Event> {
    let causes = [
        CloseCause::Finished,
        CloseCause::SourceFailed,
        CloseCause::DestinationFailed,
        CloseCause::PolicyChanged,
        CloseCause::TrustWithdrawn,
        CloseCause::PeerExpired,
        CloseCause::Refused,
        CloseCause::TimedOut,
        CloseCause::Draining,
    ];
    let close = |cause| Close { bytes_in: 0, bytes_out: u64::MAX, duration: Duration::MAX, cause };
    causes.map(|cause| connection(Kind::Closed(close(cause)), Stage::Connect)).into()
}

fn every_lifecycle() -> Vec<Event> {
    let changes = [
        Lifecycle::Started,
        Lifecycle::Stopped,
        Lifecycle::PolicyChanged,
        Lifecycle::PolicyRefused,
        Lifecycle::IdentityRotated,
    ];
    changes.map(|change| Event::lifecycle(at(0), change, "g1".into())).into()
}

/// With all there is, with nothing there is, and what has no denial.
fn odd_events() -> Vec<Event> {
    vec![
        full("x"),
        full("\u{1b}"),
        full("é"),
        Event::new(at(0), Kind::Opened, Stage::Connect, ConnectionId::new(at(0))),
        connection(Kind::Opened, Stage::Connect),
        connection(Kind::Allowed, Stage::Request),
    ]
}

fn every_change() -> [Change; 5] {
    [OPENED, CLOSED, ROTATED, REMOVED, GAP].map(|what| Change {
        what: what.to_owned(),
        file: Some("audit.jsonl".to_owned()),
        unclean_shutdown: Some(true),
        torn_bytes: Some(3),
        aggregated: Some(0),
        since: Some(1),
        error: Some("no space left on device".to_owned()),
        cut: Some(2),
    })
}

#[test]
fn every_sort_of_record_is_valid_by_the_schema() {
    let schema: Value = serde_json::from_str(include_str!("../../schema/record.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();

    for record in one_of_each() {
        let line: Value = serde_json::from_str(&line(&record)).unwrap();

        let errors: Vec<_> =
            validator.iter_errors(&line).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert!(errors.is_empty(), "{errors:#?} in {line:#}");
    }
}

#[test]
fn the_schema_refuses_what_is_not_a_record() {
    let schema: Value = serde_json::from_str(include_str!("../../schema/record.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let good = json(&denied(Reason::NoPolicy));
    assert!(validator.is_valid(&good));

    for (pointer, value) in [
        ("/action_id", Value::from(9)),
        ("/class_uid", Value::from(4003)),
        ("/status_detail", Value::from("because")),
        ("/metadata/version", Value::from("1.9.0")),
        ("/metadata/sequence", Value::from(0)),
        ("/src_endpoint/uid", Value::from("")),
        ("/type_uid", Value::from(400_203)),
        ("/unmapped/vouchsafe/hash", Value::from("00")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;

        assert!(!validator.is_valid(&bad), "{pointer}");
    }
}

#[test]
fn class_category_activity_and_type_agree() {
    for record in one_of_each() {
        assert_eq!(record.type_uid, record.class_uid * 100 + record.activity_id);
        assert_eq!(record.category_uid, record.class_uid / 1000);
    }
}

#[test]
fn an_enforced_denial_of_a_connection_is_a_refusal() {
    let found = record(&denied(Reason::NoAllowMatched));

    assert_eq!((found.class_uid, found.activity_id, found.type_uid), (4001, 5, 400_105));
    assert_eq!((found.action_id, found.disposition_id, found.status_id), (Some(2), Some(2), 2));
    assert_eq!(found.status_detail.as_deref(), Some("no_allow_matched"));
    assert_eq!(found.unmapped.vouchsafe.shadow, None);
}

#[test]
fn a_denial_of_a_request_is_http_activity() {
    let mut event = denied(Reason::ExplicitDeny);
    event.http = Some(http("GET", "/admin"));

    let found = record(&event);

    assert_eq!((found.class_uid, found.activity_id), (4002, 3));
    assert_eq!(found.http_request.unwrap().url.path, "/admin");
}

#[test]
fn a_shadow_denial_is_observed_and_logged_never_blocked() {
    let found = record(&shadow(Reason::ExplicitDeny));

    assert_eq!((found.action_id, found.disposition_id), (Some(3), Some(17)));
    assert_eq!(found.unmapped.vouchsafe.shadow, Some(true));
    assert_eq!(found.unmapped.vouchsafe.decision, "would_deny");
}

#[test]
fn a_caller_without_identity_has_no_uid() {
    let mut event = denied(Reason::Unauthenticated);
    for id in [None, Some("".into())] {
        event.source.id = id;

        assert_eq!(json(&event).pointer("/src_endpoint/uid"), None);
    }
}

#[test]
fn nothing_is_said_of_a_rule_where_the_default_decided() {
    let found = json(&denied(Reason::NoAllowMatched));

    assert!(found.get("policy").is_none() && found.get("firewall_rule").is_none());
    assert_eq!(found.pointer("/unmapped/vouchsafe/generation").unwrap(), "g1");
}

#[test]
fn the_rule_that_decided_is_named_with_file_line_and_generation() {
    let mut event = denied(Reason::ExplicitDeny);
    event.policy = Some(rule("no-admin"));

    let found = record(&event);

    assert_eq!(found.firewall_rule.unwrap().uid, "db.yaml#no-admin");
    assert_eq!(found.policy.unwrap().version.as_deref(), Some("g1"));
    assert_eq!(found.unmapped.vouchsafe.rule_line, Some(7));
}

#[test]
fn a_query_is_never_kept() {
    let mut event = denied(Reason::ExplicitDeny);
    let path_raw = Some(b"/a/../b?token=hunter2".to_vec());
    event.http = Some(Http { path_raw, ..http("GET", "/b?token=hunter2") });

    let found = record(&event);

    assert_eq!(found.http_request.as_ref().unwrap().url.path, "/b");
    assert_eq!(found.unmapped.vouchsafe.path_raw_b64.as_deref(), Some("L2EvLi4vYg=="));
    assert!(!line(&found).contains("hunter2"));
}

#[test]
fn a_user_agent_is_cut_at_256_bytes_and_the_record_says_so() {
    let mut event = denied(Reason::ExplicitDeny);
    for (length, cut) in [(256, None), (257, Some(true))] {
        event.http = Some(Http { user_agent: Some("a".repeat(length)), ..http("GET", "/") });

        let found = record(&event);

        assert_eq!(found.http_request.unwrap().user_agent.unwrap().len(), 256);
        assert_eq!(found.metadata.is_truncated, cut);
    }
}

#[test]
fn a_token_is_shown_by_its_issuer_its_key_and_its_flaw() {
    let mut event = denied(Reason::JwtInvalid);
    event.jwt = Some(crate::Jwt {
        issuer: Some("https://login.test".to_owned()),
        key_id: Some("one".to_owned()),
        flaw: Some("expired"),
    });

    let found = serde_json::to_value(record(&event)).unwrap();

    let jwt = &found["unmapped"]["vouchsafe"]["jwt"];
    assert_eq!(*jwt, json!({ "iss": "https://login.test", "kid": "one", "flaw": "expired" }));
}

#[test]
fn near_misses_beyond_the_third_are_left_out() {
    assert_eq!(record(&full("x")).unmapped.vouchsafe.near_miss.len(), 3);
}

#[test]
fn the_largest_record_fits_a_line() {
    for text in ["\u{1}", "\u{85}", "\u{2028}", "\u{1b}", "\"", "x", "😀"] {
        let largest = line(&record(&full(text)));

        assert!(largest.len() <= MAX_LINE, "{} bytes of {text:?}", largest.len());
        assert!(read::parse(largest.trim_end().as_bytes()).is_ok());
    }
}

#[test]
fn the_hash_is_the_last_thing_in_every_line() {
    for record in one_of_each() {
        let line = line(&record);
        let sealed = line.strip_suffix('\n').unwrap();

        let hash = chain::verify(sealed.as_bytes(), Link::START).unwrap();

        assert!(sealed.ends_with(&format!("\"hash\":\"{}\"}}}}}}", hash.to_hex())), "{sealed}");
    }
}

#[test]
fn a_time_before_1970_is_negative_and_still_a_time() {
    let mut event = denied(Reason::NoPolicy);
    event.time = UNIX_EPOCH - Duration::from_millis(1_500);

    let found = record(&event);

    assert_eq!(found.time, -1_500);
    assert_eq!(found.metadata.original_time, "1969-12-31T23:59:58.500000Z");
}

#[test]
fn an_address_mapped_into_ipv6_is_written_as_ipv4() {
    let mut event = denied(Reason::NoPolicy);
    event.source.ip = Some("::ffff:10.1.2.3".parse().unwrap());

    assert_eq!(record(&event).src_endpoint.unwrap().ip.as_deref(), Some("10.1.2.3"));
}

#[test]
fn an_aggregate_says_how_many_from_when_to_when_and_from_which_network() {
    let unknown = |time| {
        let mut event = denied(Reason::Unauthenticated);
        event.time = at(time);
        event.source = endpoint([10, 0, 0, 7], 1_234, None);
        event
    };

    let found = aggregates([unknown(5), unknown(3), unknown(9)]).pop().unwrap();

    assert_eq!(found.count, Some(3));
    assert_eq!((found.start_time, found.end_time), (Some(millis(at(3))), Some(millis(at(9)))));
    assert_eq!(found.src_endpoint.unwrap().port, None);
    assert_eq!(found.unmapped.vouchsafe.conn_id, None);
    let note = found.unmapped.vouchsafe.aggregate.unwrap();
    assert_eq!((note.key.as_str(), note.source_net.as_deref()), ("flow", Some("10.0.0.0/24")));
}

fn any_denial() -> impl Strategy<Value = Event> {
    let text = || prop_oneof![any::<String>(), "[\\x00-\\x1f\\x7f-\\u{9f}\u{202e}\u{2028}\"\\\\]{0,40}"];
    let raw = prop::option::of(prop::collection::vec(any::<u8>(), 0..64));
    (text(), text(), text(), prop::option::of(text()), raw, any::<[u8; 16]>(), any::<u16>(), any::<u32>())
        .prop_map(|(method, host, path, user_agent, path_raw, ip, port, time)| {
            let mut event = denied(Reason::MalformedRequest("bad"));
            event.time = UNIX_EPOCH + Duration::from_millis(time.into());
            event.source.ip = Some(ip.into());
            event.source.port = Some(port);
            event.source.id = Some(host.as_str().into());
            event.http = Some(Http { method, host, path, user_agent, path_raw });
            event
        })
}

proptest! {
    #[test]
    fn a_record_reads_back_as_it_was_written(event in any_denial()) {
        let written = record(&event);

        let mut read = read::parse(line(&written).trim_end_matches('\n').as_bytes()).unwrap();

        read.unmapped.vouchsafe.hash = written.unmapped.vouchsafe.hash.clone();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn hostile_text_stays_one_line_of_json_that_does_nothing(event in any_denial()) {
        let line = line(&record(&event));

        let inside = line.strip_suffix('\n').unwrap();
        prop_assert!(!inside.contains(acts), "{}", inside);
        prop_assert!(serde_json::from_str::<Value>(inside).is_ok());
        prop_assert!(line.len() <= MAX_LINE);
    }

    #[test]
    fn every_kind_of_denial_id_in_a_record_is_the_one_the_client_got(seed in any::<u32>()) {
        let mut event = denied(Reason::NoPolicy);
        let id = DenialId::new(UNIX_EPOCH + Duration::from_secs(seed.into()));
        if let Kind::Denied(denial) = &mut event.kind {
            denial.id = id;
        }

        prop_assert_eq!(record(&event).unmapped.vouchsafe.denial_id, Some(id.to_string()));
    }
}
