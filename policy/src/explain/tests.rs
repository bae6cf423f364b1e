use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use serde_json::json;

use super::Verdict;
use crate::strict::Source;
use crate::{
    CanonicalPath, Claims, Connection, Decision, Dimension, MAX_NEAR_MISSES, PeerIdentity, Request,
    RequestKind, Token, Traffic, WorkloadPolicies, compile,
};

fn workload(rest: &str) -> WorkloadPolicies {
    let text = format!("vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/web\n{rest}");
    let set = compile(&[Source::new("p.yaml", text)]).unwrap_or_else(|problems| panic!("{problems}"));
    set.for_workload(&SpiffeId::parse("spiffe://a.test/web").unwrap())
}

fn near(rest: &str, from: &str, line: &str) -> Vec<String> {
    let peer = SpiffeId::parse(from).unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&peer),
        "10.0.0.7".parse().unwrap(),
        80,
        SystemTime::UNIX_EPOCH,
    );
    let (method, path) = line.split_once(' ').unwrap();
    let path = CanonicalPath::parse(path).unwrap();
    let traffic = Traffic::HttpRequest(Request::new(method, None, &path));
    let explanation = workload(rest).explain(&connection, &traffic);
    let decision = explanation.decision.expect("a request is decided");
    let denial = decision.denial().expect("a denial").clone();
    denial.near_misses.iter().map(ToString::to_string).collect()
}

#[test]
fn each_dimension_is_named_as_what_failed() {
    let x = "spiffe://a.test/x";
    for (rule, expected) in [
        ("from: [spiffe://a.test/x], tcp: {port: 80}", "protocol is http, the rule wants tcp"),
        ("from: [spiffe://a.test/x], http: {ports: [81, 90-95]}", "port is 80, the rule wants 81, 90-95"),
        (
            "from: [spiffe://a.test/y, unauthenticated], http: {port: 80}",
            "from is spiffe://a.test/x, the rule wants unauthenticated, spiffe://a.test/y",
        ),
        (
            "from: [anyone], except: [spiffe://a.test/*], http: {port: 80}",
            "except is spiffe://a.test/x, the rule wants none of spiffe://a.test/*",
        ),
        (
            "from: [anyone], source_net: [10.1.0.0/16], http: {port: 80}",
            "source_net is 10.0.0.7, the rule wants 10.1.0.0/16",
        ),
        (
            "from: [anyone], http: {port: 80, methods: [GET, HEAD]}",
            "method is POST, the rule wants GET, HEAD",
        ),
        ("from: [anyone], http: {port: 80, hosts: [a.example]}", "host is absent, the rule wants a.example"),
        ("from: [anyone], http: {port: 80, paths: [/a/*]}", "path is /b, the rule wants /a/*"),
    ] {
        let said = near(&format!("allow:\n  - {{name: r, {rule}}}\n"), x, "POST /b");
        assert_eq!(said, [format!("p/r (p.yaml:5): {expected}")], "{rule}");
    }
}

#[test]
fn a_rule_in_shadow_is_near_when_only_its_mode_is_missing() {
    let text = |name: &str, rest: &str| {
        Source::new(
            format!("{name}.yaml"),
            format!("vouchsafe: policy/v1\nname: {name}\nprotects: spiffe://a.test/web\n{rest}"),
        )
    };
    let set = compile(&[
        text("p", ""),
        text("q", "mode: shadow\nuntil: 2027-01-31\nallow: [{name: r, from: [anyone], tcp: {port: 80}}]\n"),
    ])
    .unwrap();
    let peer = SpiffeId::parse("spiffe://a.test/x").unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&peer),
        "10.0.0.7".parse().unwrap(),
        80,
        SystemTime::UNIX_EPOCH,
    );

    let near = set
        .for_workload(&SpiffeId::parse("spiffe://a.test/web").unwrap())
        .nearest(&connection, &Traffic::Tcp);

    assert_eq!(near.len(), 1);
    assert_eq!(near[0].failed, Dimension::Mode);
    assert_eq!(near[0].found, "shadow until 2027-01-31T00:00:00Z");
}

#[test]
fn the_nearest_rules_are_those_with_the_fewest_failures_and_the_latest_first_one() {
    let rules = "allow:\n\
        \x20 - {name: far, from: [spiffe://a.test/y], http: {port: 81, paths: [/a]}}\n\
        \x20 - {name: port, from: [anyone], http: {port: 81}}\n\
        \x20 - {name: path, from: [anyone], http: {port: 80, paths: [/a]}}\n\
        \x20 - {name: path-too, from: [anyone], http: {port: 80, paths: [/c]}}\n\
        \x20 - {name: farther, from: [spiffe://a.test/y], tcp: {port: 81}}\n";

    let said = near(rules, "spiffe://a.test/x", "GET /b");

    assert_eq!(said.len(), MAX_NEAR_MISSES);
    let names: Vec<&str> = said.iter().map(|near| near.split([' ', '/']).nth(1).unwrap()).collect();
    assert_eq!(names, ["path", "path-too", "port"]);
}

#[test]
fn the_whole_walk_is_shown_with_places() {
    let policies = workload(
        "allow:\n  - {name: reads, from: [spiffe://a.test/x], http: {port: 80, methods: [GET]}}\n\
         deny:\n  - {name: admin, from: [anyone], http: {port: 80, paths: [/admin/**]}}\n",
    );
    let peer = SpiffeId::parse("spiffe://a.test/x").unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&peer),
        "10.0.0.7".parse().unwrap(),
        80,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1),
    );
    let path = CanonicalPath::parse("/admin/x").unwrap();
    let request = Request::new("GET", None, &path);

    let denied = policies.explain(&connection, &Traffic::HttpRequest(request));
    let open = policies.explain(&connection, &Traffic::HttpConnection);

    assert_eq!(
        denied.to_string(),
        "deny (explicit_deny) by p/admin (p.yaml:7)\npolicy p (p.yaml, enforce)\n  line 7     deny  admin: matches\n  \
         line 5     allow reads: matches"
    );
    assert_eq!(open.decision, None);
    assert!(open.steps.iter().all(|step| step.verdict == Verdict::DependsOnRequest));
    let json = serde_json::to_value(&denied).unwrap();
    assert_eq!(json["decision"]["deny"]["reason"], "explicit_deny");
    assert_eq!(json["steps"][0]["rule"]["line"], 7);
}

#[test]
fn a_long_list_is_cut_in_what_a_rule_wants() {
    let ids: Vec<String> = (0..9).map(|number| format!("spiffe://a.test/y{number}")).collect();

    let said = near(
        &format!("allow: [{{name: r, from: [{}], http: {{port: 80}}}}]\n", ids.join(", ")),
        "spiffe://a.test/x",
        "GET /",
    );

    assert!(said[0].ends_with("spiffe://a.test/y4 and 4 more"), "{}", said[0]);
}

#[test]
fn an_allowed_access_is_explained_by_its_rule() {
    let policies = workload("allow: [{name: all, from: [anyone], tcp: {port: any}}]\n");
    let peer = SpiffeId::parse("spiffe://a.test/x").unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&peer),
        "10.0.0.7".parse().unwrap(),
        80,
        SystemTime::UNIX_EPOCH,
    );

    let explanation = policies.explain(&connection, &Traffic::Tcp);

    assert!(matches!(explanation.decision, Some(Decision::Allow(_))));
    assert!(explanation.to_string().starts_with("allow by p/all (p.yaml:4)\n"), "{explanation}");
}

/// What may be changed about a plain request.
#[derive(Default)]
struct Change<'a> {
    sni: Option<&'a str>,
    kind: Option<RequestKind<'a>>,
    method: Option<&'a str>,
    headers: Vec<(String, String)>,
    token: Option<Token<'a>>,
}

/// What is said of the only rule: the first thing that fails.
fn said(rule: &str, change: Change<'_>) -> String {
    let issuers =
        "issuers: [{issuer: 'https://i.test', audiences: [api], keys: {url: 'https://i.test/keys'}}]\n";
    let policies = workload(&format!("{issuers}allow: [{{name: r, from: [anyone], {rule}}}]\n"));
    let peer = SpiffeId::parse("spiffe://a.test/x").unwrap();
    let (peer, source) = (PeerIdentity::Authenticated(&peer), "10.0.0.7".parse().unwrap());
    let connection =
        Connection { sni: change.sni, ..Connection::new(peer, source, 80, SystemTime::UNIX_EPOCH) };
    let path = CanonicalPath::parse("/b").unwrap();
    let request = Request {
        kind: change.kind.unwrap_or(RequestKind::Plain),
        headers: &change.headers,
        token: change.token.unwrap_or(Token::Absent),
        ..Request::new(change.method.unwrap_or("GET"), None, &path)
    };
    let near = policies.nearest(&connection, &Traffic::HttpRequest(request));
    let near = near.first().map(ToString::to_string).unwrap_or_default();
    near.strip_prefix("p/r (p.yaml:5): ").unwrap_or(&near).to_owned()
}

#[test]
fn kinds_and_server_names_are_said_in_words() {
    let tunnel = |port| RequestKind::Connect { port };
    let upgrade = RequestKind::Upgrade { protocol: "x" };
    for (rule, kind, expected) in [
        ("http: {port: 80}", tunnel(Some(22)), "kind is connect to port 22, the rule wants plain"),
        ("http: {port: 80}", upgrade, "kind is upgrade to x, the rule wants plain"),
        (
            "connect: {port: 80, to_ports: [22, 80-90]}",
            tunnel(None),
            "kind is connect without a port, the rule wants connect to port 22, 80-90",
        ),
        ("connect: {port: 80}", RequestKind::Plain, "kind is plain, the rule wants connect"),
        (
            "upgrade: {port: 80, protocols: [websocket]}",
            upgrade,
            "kind is upgrade to x, the rule wants upgrade to websocket",
        ),
        ("upgrade: {port: 80, paths: [/a]}", upgrade, "path is /b, the rule wants /a"),
        ("connect: {port: 80}", tunnel(Some(1)), ""),
    ] {
        assert_eq!(said(rule, Change { kind: Some(kind), ..Change::default() }), expected, "{rule}");
    }
    let rule = "sni: [a.example], http: {port: 80}";
    assert_eq!(said(rule, Change::default()), "sni is absent, the rule wants a.example");
    let other = Change { sni: Some("b.example"), ..Change::default() };
    assert_eq!(said(rule, other), "sni is b.example, the rule wants a.example");
}

#[test]
fn the_value_of_a_header_is_never_said() {
    let secret = || Change { headers: vec![("x-role".to_owned(), "s3cret".to_owned())], ..Change::default() };
    let rule = "http: {port: 80, headers: {x-role: [admin, ops], x-env: any}}";

    assert_eq!(said(rule, Change::default()), "header is absent, the rule wants x-role: admin, ops");
    assert_eq!(said(rule, secret()), "header is present, other value, the rule wants x-role: admin, ops");
    let any = "http: {port: 80, headers: {x-env: any}}";
    assert_eq!(said(any, secret()), "header is absent, the rule wants x-env: any");
}

#[test]
fn what_is_in_a_token_is_never_said() {
    fn with(token: Token<'_>) -> String {
        let token_of = "jwt: {issuer: 'https://i.test', audience: api, claims: {realm: {role: [admin]}}}";
        said(&format!("{token_of}, http: {{port: 80}}"), Change { token: Some(token), ..Change::default() })
    }

    assert_eq!(with(Token::Absent), "jwt is absent, the rule wants a valid token of https://i.test");
    assert_eq!(with(Token::Invalid), "jwt is invalid, the rule wants a valid token of https://i.test");
    for (value, expected) in [
        (
            json!({"iss": "s3cret"}),
            "jwt is of another issuer, the rule wants a valid token of https://i.test",
        ),
        (
            json!({"iss": "https://i.test", "aud": "s3cret"}),
            "jwt is for another audience, the rule wants audience: api",
        ),
        (
            json!({"iss": "https://i.test", "aud": "api", "realm": {"role": "s3cret"}}),
            "jwt is present, other value, the rule wants claim realm.role: admin",
        ),
        (
            json!({"iss": "https://i.test", "aud": "api", "sub": "s3cret"}),
            "jwt is a token without the claim, the rule wants claim realm.role: admin",
        ),
        (json!({"iss": "https://i.test", "aud": "api", "realm": {"role": ["admin"]}}), ""),
    ] {
        let claims = Claims::verified(value.as_object().unwrap().clone());
        assert_eq!(with(Token::Verified(&claims)), expected, "{value}");
    }
}

#[test]
fn what_is_said_is_cut_where_a_record_would_grow() {
    let name = "a".repeat(5_000);

    let text = said("http: {port: 80, methods: [POST]}", Change { method: Some(&name), ..Change::default() });

    assert!(text.len() < 600 && text.ends_with("…, the rule wants POST"), "{text}");
}
