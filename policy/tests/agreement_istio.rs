//! Istio's policies as they are compiled agree with a plain evaluator on random policies and accesses.
//!
//! The reference below is written from what Istio documents and generates, straight on the JSON of the policies. It shares no
//! code with the crate. `PROPTEST_CASES` makes the run longer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as promised"
)]

use std::collections::BTreeMap;
use std::time::SystemTime;

use identity::SpiffeId;
use policy::strict::Source;
use policy::{CanonicalPath, Claims, Connection, PeerIdentity, Request, Token, Workload, compile};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
struct Access {
    peer: Option<&'static str>,
    source: &'static str,
    port: u16,
    sni: Option<&'static str>,
    request: Option<Asked>,
}

#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    path: &'static str,
    host: Option<&'static str>,
    headers: Vec<(String, String)>,
    claims: Option<Value>,
}

/// Fields of a source, with values to draw from.
const SOURCE: [(&str, &[&str]); 4] = [
    (
        "principals",
        &[
            "cluster.local/ns/foo/sa/a",
            "cluster.local/ns/foo/*",
            "*/sa/b",
            "*",
            "td.test/ns/bar/sa/b",
            "cluster.local/ns/fo*",
        ],
    ),
    ("namespaces", &["foo", "bar", "fo*", "*"]),
    ("ipBlocks", &["10.0.0.0/8", "10.1.2.3", "192.0.2.0/24"]),
    ("requestPrincipals", &["i/s", "*", "i/*", "*/t"]),
];

/// Fields of an operation.
const OPERATION: [(&str, &[&str]); 4] = [
    ("ports", &["80", "443"]),
    ("methods", &["GET", "POST", "P*", "*"]),
    ("paths", &["/a", "/a*", "*.html", "*", "/a/{*}/c", "/a/{**}", "/a/{**}/c"]),
    ("hosts", &["a.test", "*.a.test", "A.test", "a.test:*", "*"]),
];

/// Keys of conditions.
const WHEN: [(&str, &[&str]); 8] = [
    ("request.headers[x-a]", &["red", "bl*", "*ue", "*", "red,blue"]),
    ("source.namespace", &["foo", "ba*"]),
    ("source.principal", &["cluster.local/ns/foo/sa/a", "*"]),
    ("source.ip", &["10.0.0.0/8"]),
    ("destination.port", &["80"]),
    ("connection.sni", &["a.test", "*.test", "*"]),
    ("request.auth.claims[role]", &["admin", "adm*", "*"]),
    ("request.auth.claims[realm][role]", &["admin"]),
];

const HTTP_ONLY: [&str; 4] = ["requestPrincipals", "methods", "paths", "hosts"];

fn negated(name: &str) -> String {
    format!("not{}{}", name[..1].to_uppercase(), &name[1..])
}

fn some_of(values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::collection::vec(prop::sample::select(values), 1..3).prop_map(|mut values| {
        values.dedup();
        json!(values)
    })
}

fn fields(all: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = Value> {
    let one = prop::sample::select(all)
        .prop_flat_map(|(name, values)| (Just(name), prop::bool::weighted(0.3), some_of(values)));
    prop::collection::vec(one, 1..3).prop_map(|fields| {
        let name = |name: &str, not: bool| if not { negated(name) } else { name.to_owned() };
        Value::Object(fields.into_iter().map(|(field, not, values)| (name(field, not), values)).collect())
    })
}

fn rule() -> impl Strategy<Value = Value> {
    let wrapped = |all, name: &'static str| {
        prop::option::of(prop::collection::vec(
            fields(all).prop_map(move |fields| json!({ name: fields })),
            1..3,
        ))
    };
    let condition = prop::sample::select(&WHEN[..]).prop_flat_map(|(key, values)| {
        (prop::bool::weighted(0.3), some_of(values)).prop_map(move |(not, values)| {
            let field = if not { "notValues" } else { "values" };
            json!({"key": key, field: values})
        })
    });
    let when = prop::option::of(prop::collection::vec(condition, 1..3));
    (wrapped(&SOURCE, "source"), wrapped(&OPERATION, "operation"), when).prop_map(|(from, to, when)| {
        let parts = [("from", from), ("to", to), ("when", when)];
        let given =
            parts.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), json!(value))));
        Value::Object(given.collect())
    })
}

fn policies() -> impl Strategy<Value = Vec<Value>> {
    let one = (
        prop::sample::select(vec!["foo", "foo", "bar", "istio-system"]),
        prop::sample::select(vec![
            json!(null),
            json!({"app": "web"}),
            json!({"app": "db"}),
            json!({"app": "web", "v": "2"}),
        ]),
        prop::sample::select(vec![None, Some("ALLOW"), Some("DENY")]),
        prop::collection::vec(rule(), 0..3),
    );
    prop::collection::vec(one, 1..4).prop_map(|all| {
        let build =
            |(number, (namespace, labels, action, rules)): (usize, (_, Value, Option<&str>, Vec<Value>))| {
                let mut spec = Map::new();
                if !labels.is_null() {
                    spec.insert("selector".to_owned(), json!({ "matchLabels": labels }));
                }
                if let Some(action) = action {
                    spec.insert("action".to_owned(), json!(action));
                }
                // Without rules an ALLOW policy allows nothing; a DENY policy without is refused.
                let rules = if rules.is_empty() && action == Some("DENY") { vec![json!({})] } else { rules };
                if !rules.is_empty() {
                    spec.insert("rules".to_owned(), json!(rules));
                }
                json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": format!("p{number}"), "namespace": namespace}, "spec": spec})
            };
        all.into_iter().enumerate().map(build).collect()
    })
}

fn access() -> impl Strategy<Value = Access> {
    let claims = prop::sample::select(vec![
        None,
        Some(json!({"iss": "i", "sub": "s", "role": "admin"})),
        Some(json!({"iss": "j", "sub": "t", "role": ["x", "admin"]})),
        Some(json!({"iss": "i", "sub": "t", "realm": {"role": ["admin"]}})),
        Some(json!({"iss": "i", "role": "x admin"})),
    ]);
    let lines =
        prop::collection::vec(prop::sample::select(vec!["red", "blue", "red,blue", "", "green"]), 0..3);
    let request = (
        prop::sample::select(vec!["GET", "POST", "PUT"]),
        prop::sample::select(vec!["/a", "/ab", "/a/b/c", "/a/b/x/c", "/x.html", "/a/", "/"]),
        prop::sample::select(vec![
            None,
            Some("a.test"),
            Some("A.TEST"),
            Some("x.a.test"),
            Some("a.test:80"),
            Some("b.test"),
        ]),
        lines,
        claims,
    )
        .prop_map(|(method, path, host, lines, claims)| {
            let headers = lines.into_iter().map(|line| ("X-A".to_owned(), line.to_owned())).collect();
            Asked { method, path, host, headers, claims }
        });
    (
        prop::sample::select(vec![
            None,
            Some("spiffe://cluster.local/ns/foo/sa/a"),
            Some("spiffe://cluster.local/ns/bar/sa/b"),
            Some("spiffe://td.test/ns/bar/sa/b"),
            Some("spiffe://cluster.local/ns/foobar/sa/a"),
        ]),
        prop::sample::select(vec!["10.1.2.3", "10.9.9.9", "192.0.2.7", "::ffff:10.1.2.3", "2001:db8::1"]),
        prop::sample::select(vec![80u16, 443, 8080]),
        prop::sample::select(vec![None, Some("a.test"), Some("b.example")]),
        prop::option::weighted(0.75, request),
    )
        .prop_map(|(peer, source, port, sni, request)| Access { peer, source, port, sni, request })
}

/// What Istio decides.
fn allows(policies: &[Value], access: &Access) -> bool {
    let selected = |policy: &&Value| {
        let (namespace, spec) = (&policy["metadata"]["namespace"], &policy["spec"]);
        let labels = |(key, value): (&String, &Value)| key == "app" && value == "web";
        let here = *namespace == "foo" || *namespace == "istio-system";
        here && spec["selector"]["matchLabels"].as_object().is_none_or(|wanted| wanted.iter().all(labels))
    };
    let pool: Vec<&Value> = policies.iter().filter(selected).collect();
    let (deny, allow): (Vec<&Value>, Vec<&Value>) =
        pool.into_iter().partition(|policy| policy["spec"]["action"] == "DENY");
    let matches = |policy: &&Value, denies: bool| {
        let rules = policy["spec"]["rules"].as_array();
        rules.is_some_and(|rules| rules.iter().any(|rule| rule_matches(rule, access, denies)))
    };
    if deny.iter().any(|policy| matches(policy, true)) {
        return false;
    }
    allow.is_empty() || allow.iter().any(|policy| matches(policy, false))
}

fn rule_matches(rule: &Value, access: &Access, denies: bool) -> bool {
    // What a connection without requests cannot show: an ALLOW rule is dropped, of a DENY rule the field alone.
    if access.request.is_none() && !denies && asks_http(rule) {
        return false;
    }
    let part = |part: &str, inner: &str| {
        let one = |element: &Value| {
            element[inner]
                .as_object()
                .unwrap()
                .iter()
                .all(|(field, values)| field_matches(field, values, access))
        };
        rule[part].as_array().is_none_or(|elements| elements.iter().any(one))
    };
    let conditions = rule["when"].as_array();
    part("from", "source")
        && part("to", "operation")
        && conditions
            .is_none_or(|all| all.iter().all(|condition| condition_matches(condition, access, denies)))
}

fn asks_http(rule: &Value) -> bool {
    let fields = |part: &str, inner: &str| -> bool {
        let elements = rule[part].as_array().into_iter().flatten();
        let mut names = elements.flat_map(|element| element[inner].as_object().unwrap().keys().cloned());
        names.any(|name| HTTP_ONLY.iter().any(|field| name == *field || name == negated(field)))
    };
    let keys = rule["when"].as_array().into_iter().flatten().any(|condition| {
        let key = condition["key"].as_str().unwrap();
        key.starts_with("request.")
    });
    fields("from", "source") || fields("to", "operation") || keys
}

fn field_matches(field: &str, values: &Value, access: &Access) -> bool {
    let values: Vec<&str> = values.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect();
    let known = SOURCE.iter().chain(&OPERATION).map(|(name, _)| *name);
    let (name, not) =
        known.map(|name| (name, field == negated(name))).find(|(name, not)| *not || field == *name).unwrap();
    if access.request.is_none() && HTTP_ONLY.contains(&name) {
        return true;
    }
    values.iter().any(|value| value_matches(name, value, access)) != not
}

fn value_matches(name: &str, value: &str, access: &Access) -> bool {
    let request = access.request.as_ref();
    match name {
        "principals" => access.peer.is_some_and(|peer| glob(value, peer.strip_prefix("spiffe://").unwrap())),
        "namespaces" => access.peer.is_some_and(|peer| {
            let namespace = peer.split("/ns/").nth(1).unwrap().split('/').next().unwrap();
            glob(value, namespace)
        }),
        "ipBlocks" => within(value, access.source),
        "requestPrincipals" => request.and_then(|request| request.claims.as_ref()).is_some_and(|claims| {
            let (Some(issuer), Some(subject)) = (claims["iss"].as_str(), claims["sub"].as_str()) else {
                return false;
            };
            let (wanted_issuer, wanted_subject) = value.rsplit_once('/').unwrap_or(("*", "*"));
            glob(wanted_issuer, issuer) && glob(wanted_subject, subject)
        }),
        "ports" => value == access.port.to_string(),
        "methods" => glob(value, request.unwrap().method),
        "paths" => path(value, request.unwrap().path),
        "hosts" => {
            request.unwrap().host.is_some_and(|host| glob(&value.to_lowercase(), &host.to_lowercase()))
        }
        other => panic!("{other}"),
    }
}

fn condition_matches(condition: &Value, access: &Access, denies: bool) -> bool {
    let key = condition["key"].as_str().unwrap();
    let (values, not) = match condition["values"].as_array() {
        Some(values) => (values, false),
        None => (condition["notValues"].as_array().unwrap(), true),
    };
    let values: Vec<&str> = values.iter().map(|value| value.as_str().unwrap()).collect();
    if access.request.is_none() && key.starts_with("request.") {
        return true;
    }
    let any = |matches: &dyn Fn(&str) -> bool| values.iter().any(|value| matches(value)) != not;
    match key {
        "source.namespace" => any(&|value| value_matches("namespaces", value, access)),
        "source.principal" => any(&|value| value_matches("principals", value, access)),
        "source.ip" => any(&|value| value_matches("ipBlocks", value, access)),
        "destination.port" => any(&|value| value_matches("ports", value, access)),
        "connection.sni" => any(&|value| access.sni.is_some_and(|name| glob(value, name))),
        "request.headers[x-a]" => header(&values, not, access.request.as_ref().unwrap(), denies),
        key => {
            let claims = access.request.as_ref().unwrap().claims.as_ref();
            let pointer = if key.contains("[realm]") { "/realm/role" } else { "/role" };
            let claim = claims.and_then(|claims| claims.pointer(pointer));
            any(&|value| match claim {
                Some(Value::String(text)) => glob(value, text),
                Some(Value::Array(items)) => items.iter().any(|item| glob(value, item.as_str().unwrap())),
                _ => false,
            })
        }
    }
}

/// Joined, or, where that is safer than what Istio does, any line or value of it.
fn header(values: &[&str], not: bool, request: &Asked, denies: bool) -> bool {
    let lines: Vec<&str> = request.headers.iter().map(|(_, line)| line.as_str()).collect();
    let one = |text: &str| values.iter().any(|value| *value == "*" || glob(value, text));
    let joined = !lines.is_empty() && one(&lines.join(","));
    let single = lines.iter().any(|line| one(line) || line.split(',').any(|value| one(value.trim())));
    let single = single || lines.len() > 1 && one(&lines.join(", "));
    match (denies, not) {
        (false, false) => joined,
        (true, false) => joined || single,
        (false, true) => !joined && !single,
        (true, true) => !joined,
    }
}

fn glob(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return !text.is_empty();
    }
    match (pattern.strip_suffix('*'), pattern.strip_prefix('*')) {
        (Some(start), _) => text.starts_with(start),
        (None, Some(end)) => text.ends_with(end),
        (None, None) => pattern == text,
    }
}

fn path(pattern: &str, path: &str) -> bool {
    match pattern {
        "/a/{*}/c" => path.split('/').collect::<Vec<_>>()[..] == ["", "a", "b", "c"],
        "/a/{**}" => path.starts_with("/a/"),
        "/a/{**}/c" => path.strip_prefix("/a/").is_some_and(|rest| rest.ends_with("/c")),
        other => glob(other, path),
    }
}

fn within(block: &str, source: &str) -> bool {
    let source = source.strip_prefix("::ffff:").unwrap_or(source);
    match block {
        "10.0.0.0/8" => source.starts_with("10."),
        "192.0.2.0/24" => source.starts_with("192.0.2."),
        one => source == one,
    }
}

/// What the crate decides.
fn decided(policies: &[Value], access: &Access) -> bool {
    let files: Vec<Source> = policies
        .iter()
        .map(|policy| {
            Source::new(format!("{}.yaml", policy["metadata"]["name"].as_str().unwrap()), policy.to_string())
        })
        .collect();
    let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
    let workload = set.protecting(&Workload {
        id: SpiffeId::parse("spiffe://cluster.local/ns/foo/sa/web").unwrap(),
        namespace: "foo".to_owned(),
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned()), ("v".to_owned(), "1".to_owned())]),
    });
    let peer = access.peer.map(|peer| SpiffeId::parse(peer).unwrap());
    let peer = peer.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
    let source = access.source.parse().unwrap();
    let connection =
        Connection { sni: access.sni, ..Connection::new(peer, source, access.port, SystemTime::UNIX_EPOCH) };
    let Some(asked) = &access.request else { return workload.decide_tcp(&connection).is_allowed() };
    let path = CanonicalPath::parse(asked.path).unwrap();
    let claims = asked.claims.as_ref().map(|claims| Claims::verified(claims.as_object().unwrap().clone()));
    let request = Request {
        authority: asked.host,
        headers: &asked.headers,
        token: claims.as_ref().map_or(Token::Absent, Token::Verified),
        ..Request::new(asked.method, None, &path)
    };
    workload.decide_http(&connection, &request).is_allowed()
}

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn istios_policies_decide_as_istio_does(
        policies in policies(),
        accesses in prop::collection::vec(access(), 16),
    ) {
        for access in &accesses {
            prop_assert_eq!(decided(&policies, access), allows(&policies, access), "{:?}", access);
        }
    }
}
