//! What is proposed, and what is not.

use super::*;
use crate::strict::Source;
use crate::{CanonicalPath, Connection, PeerIdentity, PolicySet, Request, compile};

#[test]
fn a_proposal_loads_and_allows_what_was_refused_and_nothing_beside_it() {
    let learned = learn(&[http("web", "GET", "/a", 3), http("web", "POST", "/b", 1), tcp("batch", 5)]);

    let set = compiled(&learned);

    assert!(allows(&set, "web", "GET", "/a") && allows(&set, "web", "POST", "/b"));
    for (from, method, path) in [
        ("web", "POST", "/a"),
        ("web", "GET", "/b"),
        ("web", "GET", "/a/x"),
        ("web", "GET", "/"),
        ("batch", "GET", "/a"),
    ] {
        assert!(!allows(&set, from, method, path), "{from} {method} {path}");
    }
}

#[test]
fn every_rule_says_why() {
    let text = learn(&[http("web", "GET", "/a", 3)]).proposals[0].to_string();

    assert!(text.contains("  # asked for these paths, refused 3 times\n  - name: learned-1\n"), "{text}");
    assert!(text.starts_with("# Proposed from an audit log"), "{text}");
}

#[test]
fn a_pattern_is_proposed_only_for_identifiers_and_with_its_reason() {
    let calls: Vec<RefusedCall> =
        (1..=4).map(|number| http("web", "GET", &format!("/a/{number}"), 1)).collect();

    let learned = learn(&calls);

    let rule = &learned.proposals[0].rules[0];
    assert_eq!(rule.http.as_ref().unwrap().paths, ["/a/*"]);
    assert_eq!(rule.reasons[1], "/a/* is 4 paths that differ in a number only");
}

#[test]
fn methods_are_granted_on_the_paths_on_which_they_were_seen() {
    let learned =
        learn(&[http("web", "GET", "/a", 1), http("web", "POST", "/a", 1), http("web", "GET", "/b", 1)]);

    let rules = &learned.proposals[0].rules;
    let spelled: Vec<_> = rules
        .iter()
        .map(|rule| rule.http.as_ref().unwrap())
        .map(|http| (http.methods.join(","), http.paths.join(",")))
        .collect();
    assert_eq!(spelled, [("GET".to_owned(), "/b".to_owned()), ("GET,POST".to_owned(), "/a".to_owned())]);
}

#[test]
fn what_cannot_be_written_is_left_out_and_counted() {
    let host = |host: &str| {
        let mut call = http("web", "GET", "/a", 2);
        call.request.as_mut().unwrap().host = Some(host.to_owned());
        call
    };

    let learned = learn(&[
        http("web", "CONNECT", "/", 1),
        http("web", "G\"T", "/a", 1),
        http("web", "GET", "/a*", 1),
        http("web", "GET", "not a path", 1),
        host("a\", \"b"),
    ]);

    assert!(learned.proposals.is_empty(), "{learned:?}");
    assert_eq!(learned.left_out.values().sum::<u64>(), 6);
}

#[test]
fn workloads_with_the_same_end_have_policies_with_names_of_their_own() {
    let long = "x".repeat(60);
    let call = |to: String| RefusedCall { to: to.parse().unwrap(), ..tcp("web", 1) };

    let learned = learn(&[
        call(format!("spiffe://a.test/1{long}")),
        call(format!("spiffe://a.test/2{long}")),
        call("spiffe://b.test/api".to_owned()),
        call("spiffe://a.test/api".to_owned()),
    ]);

    compiled(&learned);
}

#[test]
fn no_more_is_kept_apart_than_the_limit() {
    let mut lessons = Lessons::default();
    for number in 0..=MAX_KEPT {
        lessons.take(http("web", "GET", &format!("/x{number}"), 1));
    }

    let learned = lessons.propose();

    // One for the caller and its port, one for each path.
    assert_eq!(learned.left_out.values().sum::<u64>(), 2);
}

fn learn(calls: &[RefusedCall]) -> Learned {
    let mut lessons = Lessons::default();
    calls.iter().cloned().for_each(|call| lessons.take(call));
    lessons.propose()
}

fn compiled(learned: &Learned) -> PolicySet {
    let files: Vec<Source> = learned
        .proposals
        .iter()
        .map(|proposal| Source::new(format!("{}.yaml", proposal.name), proposal.to_string()))
        .collect();
    compile(&files).unwrap_or_else(|problems| panic!("{problems}"))
}

fn allows(set: &PolicySet, from: &str, method: &str, path: &str) -> bool {
    let from = format!("spiffe://a.test/{from}").parse().unwrap();
    let path = CanonicalPath::parse(path).unwrap();
    let host = CanonicalHost::parse("api.test").unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&from),
        [10, 0, 0, 1].into(),
        8443,
        std::time::SystemTime::UNIX_EPOCH,
    );
    let policies = set.for_workload(&"spiffe://a.test/ns/shop/sa/api".parse().unwrap());
    policies.decide_http(&connection, &Request::new(method, Some(&host), &path)).is_allowed()
}

fn http(from: &str, method: &str, path: &str, count: u64) -> RefusedCall {
    let request = RefusedRequest {
        method: method.to_owned(),
        host: Some("api.test".to_owned()),
        path: path.to_owned(),
    };
    RefusedCall { request: Some(request), ..tcp(from, count) }
}

fn tcp(from: &str, count: u64) -> RefusedCall {
    RefusedCall {
        from: format!("spiffe://a.test/{from}").parse().unwrap(),
        to: "spiffe://a.test/ns/shop/sa/api".parse().unwrap(),
        port: 8443,
        request: None,
        count,
    }
}
