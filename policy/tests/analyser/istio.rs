//! Random files of Istio's, out of the same small world.

use policy::strict::Source;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn some_of(values: &'static [&'static str]) -> BoxedStrategy<Value> {
    prop::collection::btree_set(prop::sample::select(values), 1..=2).prop_map(|values| json!(values)).boxed()
}

/// Some of the keys, at least one.
fn some_keys(keys: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let each: Vec<_> = keys
        .into_iter()
        .map(|(key, value)| prop::option::weighted(0.35, value).prop_map(move |value| (key, value)))
        .collect();
    each.prop_filter_map("nothing is written", |found| {
        let map: Map<String, Value> =
            found.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        (!map.is_empty()).then_some(Value::Object(map))
    })
    .boxed()
}

fn source() -> BoxedStrategy<Value> {
    const PRINCIPALS: &[&str] = &["a.test/ns/x/sa/s", "a.test/ns/x", "a.test/*", "*/x", "*", "b.test/ns*"];
    const NAMESPACES: &[&str] = &["x", "y", "z*", "*"];
    const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.2.3", "2001:db8::/32"];
    some_keys(vec![
        ("principals", some_of(PRINCIPALS)),
        ("notPrincipals", some_of(PRINCIPALS)),
        ("namespaces", some_of(NAMESPACES)),
        ("notNamespaces", some_of(NAMESPACES)),
        ("ipBlocks", some_of(BLOCKS)),
        ("notIpBlocks", some_of(BLOCKS)),
        ("requestPrincipals", some_of(&["https://i.test/me", "*", "https://i.test/*"])),
    ])
}

fn operation() -> BoxedStrategy<Value> {
    const HOSTS: &[&str] = &["h.test", "*.h.test", "O.test", "o.test:*", "*"];
    const PATHS: &[&str] = &["/a", "/a*", "*/b", "/a/{*}", "/{**}/c", "*", "/"];
    const METHODS: &[&str] = &["GET", "P*", "*T"];
    const PORTS: &[&str] = &["80", "443", "8080"];
    some_keys(vec![
        ("hosts", some_of(HOSTS)),
        ("notHosts", some_of(HOSTS)),
        ("paths", some_of(PATHS)),
        ("notPaths", some_of(PATHS)),
        ("methods", some_of(METHODS)),
        ("notMethods", some_of(METHODS)),
        ("ports", some_of(PORTS)),
        ("notPorts", some_of(PORTS)),
    ])
}

fn condition() -> BoxedStrategy<Value> {
    const HEADER: &[&str] = &["v", "v*", "*w", "*"];
    const CLAIM: &[&str] = &["read", "w*", "*"];
    let key = prop_oneof![
        (Just("request.headers[x-a]"), some_of(HEADER)),
        (Just("request.auth.claims[scope]"), some_of(CLAIM)),
        (Just("request.auth.claims[team]"), some_of(&["a", "b"])),
        (Just("connection.sni"), some_of(&["s.test", "*.test"])),
        (Just("source.ip"), some_of(&["10.0.0.0/8", "192.0.2.1"])),
        (Just("source.namespace"), some_of(&["x", "y"])),
    ];
    (key, prop::sample::select(&["values", "notValues"]))
        .prop_map(|((key, values), sense)| json!({"key": key, sense: values}))
        .boxed()
}

fn rule() -> BoxedStrategy<Value> {
    let list = |each: BoxedStrategy<Value>, key: &'static str| {
        prop::collection::vec(each.prop_map(move |each| json!({ key: each })), 1..3)
            .prop_map(|list| json!(list))
            .boxed()
    };
    let when = prop::collection::vec(condition(), 1..3).prop_map(|list| json!(list)).boxed();
    let clauses = some_keys(vec![
        ("from", list(source(), "source")),
        ("to", list(operation(), "operation")),
        ("when", when),
    ]);
    prop_oneof![6 => clauses, 1 => Just(json!({}))].boxed()
}

fn policy() -> impl Strategy<Value = Value> {
    let selector = prop::option::weighted(0.4, prop::sample::select(&[("app", "a"), ("tier", "t")]));
    (
        prop::sample::select(&["x", "y", "istio-system"]),
        prop::sample::select(&["ALLOW", "ALLOW", "DENY"]),
        prop::collection::vec(rule(), 1..3),
        selector,
    )
        .prop_map(|(namespace, action, rules, selector)| {
            let mut spec = json!({"action": action, "rules": rules});
            if let Some((name, value)) = selector {
                spec["selector"] = json!({"matchLabels": {name: value}});
            }
            json!({
                "apiVersion": "security.istio.io/v1",
                "kind": "AuthorizationPolicy",
                "metadata": {"name": "p", "namespace": namespace},
                "spec": spec,
            })
        })
}

fn strict() -> impl Strategy<Value = Value> {
    prop::sample::select(&["x", "istio-system"]).prop_map(|namespace| {
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": {"name": "strict", "namespace": namespace},
            "spec": {"mtls": {"mode": "STRICT"}},
        })
    })
}

fn sources(resources: &[Value], peers: Option<&Value>) -> Vec<Source> {
    let mut files = Vec::new();
    for (number, resource) in resources.iter().chain(peers).enumerate() {
        let mut resource = resource.clone();
        resource["metadata"]["name"] = json!(format!("p{number}"));
        files.push(Source::new(format!("p{number}.yaml"), resource.to_string()));
    }
    files
}

/// Two sets, the second made out of the first by changing one resource.
pub(crate) fn change() -> impl Strategy<Value = (Vec<Source>, Vec<Source>)> {
    let resources = prop::collection::vec(policy(), 1..4);
    (resources, policy(), any::<prop::sample::Index>(), prop::option::weighted(0.2, strict())).prop_map(
        |(old, changed, at, peers)| {
            let mut new = old.clone();
            let at = at.index(new.len());
            new[at] = changed;
            (sources(&old, peers.as_ref()), sources(&new, None))
        },
    )
}
