//! Random policies and accesses out of a small world, so that they meet often.

use policy::strict::Source;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug)]
pub(crate) struct PolicyModel {
    pub(crate) name: String,
    pub(crate) protects: Vec<String>,
    pub(crate) shadow_until: Option<u64>,
    pub(crate) allow: Vec<RuleModel>,
    pub(crate) deny: Vec<RuleModel>,
}

#[derive(Clone, Debug)]
pub(crate) struct RuleModel {
    pub(crate) name: String,
    pub(crate) from: Vec<String>,
    pub(crate) except: Vec<String>,
    pub(crate) nets: Option<Vec<String>>,
    pub(crate) ports: Option<Vec<(u16, u16)>>,
    pub(crate) http: Option<HttpModel>,
}

#[derive(Clone, Debug)]
pub(crate) struct HttpModel {
    pub(crate) methods: Option<Vec<String>>,
    pub(crate) hosts: Option<Vec<String>>,
    pub(crate) paths: Option<Vec<String>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) to: String,
    pub(crate) from: Option<String>,
    pub(crate) source: String,
    pub(crate) port: u16,
    pub(crate) day: u64,
    pub(crate) request: Option<RequestModel>,
}

#[derive(Clone, Debug)]
pub(crate) struct RequestModel {
    pub(crate) method: String,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
}

const IDS: [&str; 8] = [
    "spiffe://a.test",
    "spiffe://a.test/ns",
    "spiffe://a.test/ns/x",
    "spiffe://a.test/ns/y",
    "spiffe://a.test/ns/x/sa",
    "spiffe://a.test/ns/xx",
    "spiffe://b.test/ns/x",
    "spiffe://b.test/ns/x/sa",
];

const PATTERNS: [&str; 16] = [
    "spiffe://a.test",
    "spiffe://a.test/ns/x",
    "spiffe://a.test/ns/y",
    "spiffe://a.test/ns/x/sa",
    "spiffe://b.test/ns/x",
    "spiffe://a.test/**",
    "spiffe://b.test/**",
    "spiffe://a.test/*",
    "spiffe://a.test/ns/*",
    "spiffe://a.test/*/x",
    "spiffe://a.test/ns/x/**",
    "spiffe://a.test/*/*/**",
    "spiffe://a.test/*/*",
    "spiffe://b.test/*/x/*",
    "spiffe://a.test/ns/xx",
    "spiffe://a.test/*/**",
];

const NETS: [&str; 9] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "192.0.2.1/32",
    "::ffff:10.1.2.0/120",
    "2001:db8::1/128",
    "128.0.0.0/1",
];

const SOURCES: [&str; 8] = [
    "10.1.2.3",
    "10.2.0.1",
    "192.0.2.1",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "2001:db9::1",
    "203.0.113.9",
    "::1",
];

const PATH_PATTERNS: [&str; 14] = [
    "/", "/**", "/*", "/a", "/a/", "/a/*", "/a/**", "/*/b", "/*/b/**", "/a/b", "/a/*/c", "/a@b", "/a%20b",
    "/a/b/**",
];

const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/b/c",
    "/b",
    "//a",
    "/a/./b",
    "/x/../a",
    "/%61",
    "/a%40b",
    "/a%20b?q=1",
    "/c/b",
    "/A",
    "/*",
];

const PORTS: [u16; 7] = [1, 80, 443, 8000, 8005, 8010, 65535];

fn some_of(values: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(values), 1..=most)
        .prop_map(|values| values.into_iter().map(str::to_owned).collect())
}

fn peers() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        6 => some_of(&PATTERNS, 3),
        2 => Just(vec!["anyone".to_owned()]),
        1 => Just(vec!["unauthenticated".to_owned()]),
        1 => some_of(&PATTERNS, 2).prop_map(|mut peers| {
            peers.push("unauthenticated".to_owned());
            peers
        }),
    ]
}

fn ports() -> impl Strategy<Value = Option<Vec<(u16, u16)>>> {
    let one = (prop::sample::select(&PORTS), prop::sample::select(&PORTS), prop::bool::ANY)
        .prop_map(|(a, b, range)| if range { (a.min(b), a.max(b)) } else { (a, a) });
    prop::option::weighted(0.8, prop::collection::vec(one, 1..3))
}

fn http() -> impl Strategy<Value = HttpModel> {
    (
        prop::option::of(some_of(&["GET", "POST", "HEAD"], 2)),
        prop::option::weighted(
            0.3,
            some_of(&["a.example", "*.example", "*.a.example", "example", "10.0.0.1"], 2),
        ),
        prop::option::weighted(0.7, some_of(&PATH_PATTERNS, 3)),
    )
        .prop_map(|(methods, hosts, paths)| HttpModel { methods, hosts, paths })
}

fn rule() -> impl Strategy<Value = RuleModel> {
    let except = prop_oneof![3 => Just(Vec::new()), 1 => some_of(&PATTERNS, 2)];
    let nets = prop::option::weighted(0.3, some_of(&NETS, 2));
    (peers(), except, nets, ports(), prop::option::weighted(0.6, http())).prop_map(
        |(from, except, nets, ports, http)| {
            let except = if from == ["unauthenticated"] { Vec::new() } else { except };
            RuleModel { name: String::new(), from, except, nets, ports, http }
        },
    )
}

fn rules(prefix: &'static str) -> impl Strategy<Value = Vec<RuleModel>> {
    prop::collection::vec(rule(), 0..5).prop_map(move |mut rules| {
        for (number, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("{prefix}{number}");
        }
        rules
    })
}

/// Up to five policies; half of the sets are all in shadow or all enforcing, the others mixed.
pub(crate) fn policies() -> impl Strategy<Value = Vec<PolicyModel>> {
    let until = prop_oneof![3 => Just(None), 2 => (1u64..4).prop_map(Some)];
    let one = (some_of(&PATTERNS, 2), until, rules("allow-"), rules("deny-"));
    prop::collection::vec(one, 0..6).prop_map(|parts| {
        let build = |(number, (protects, shadow_until, allow, deny)): (usize, _)| PolicyModel {
            name: format!("policy-{number}"),
            protects,
            shadow_until,
            allow,
            deny,
        };
        parts.into_iter().enumerate().map(build).collect()
    })
}

pub(crate) fn access() -> impl Strategy<Value = Access> {
    let id = || prop::sample::select(&IDS).prop_map(str::to_owned);
    let host = prop::sample::select(vec![
        "a.example",
        "B.a.Example:80",
        "example.",
        "c.example",
        "10.0.0.1",
        "x.10.example",
    ]);
    let request = (
        prop::sample::select(vec!["GET", "POST", "HEAD", "get", "CONNECT", "PATCH"]).prop_map(str::to_owned),
        prop::option::weighted(0.8, host.prop_map(str::to_owned)),
        prop::sample::select(&PATHS).prop_map(str::to_owned),
    )
        .prop_map(|(method, host, path)| RequestModel { method, host, path });
    (
        id(),
        prop::option::weighted(0.85, id()),
        prop::sample::select(&SOURCES).prop_map(str::to_owned),
        prop_oneof![prop::sample::select(&PORTS), 1u16..=65535, 7998u16..=8012],
        0u64..5,
        prop::option::weighted(0.65, request),
    )
        .prop_map(|(to, from, source, port, day, request)| Access {
            to,
            from,
            source,
            port,
            day,
            request,
        })
}

/// Writes a policy as people would, though in JSON, which is YAML.
pub(crate) fn source(policy: &PolicyModel) -> Source {
    let mut root = Map::new();
    root.insert("vouchsafe".to_owned(), json!("policy/v1"));
    root.insert("name".to_owned(), json!(policy.name));
    root.insert("protects".to_owned(), json!(policy.protects));
    if let Some(day) = policy.shadow_until {
        root.insert("mode".to_owned(), json!("shadow"));
        root.insert("until".to_owned(), json!(format!("1970-01-0{}", day + 1)));
    }
    for (key, rules) in [("allow", &policy.allow), ("deny", &policy.deny)] {
        if !rules.is_empty() {
            root.insert(key.to_owned(), rules.iter().map(rule_value).collect());
        }
    }
    Source::new(format!("{}.yaml", policy.name), Value::Object(root).to_string())
}

fn rule_value(rule: &RuleModel) -> Value {
    let mut value = Map::new();
    value.insert("name".to_owned(), json!(rule.name));
    value.insert("from".to_owned(), json!(rule.from));
    if !rule.except.is_empty() {
        value.insert("except".to_owned(), json!(rule.except));
    }
    if let Some(nets) = &rule.nets {
        value.insert("source_net".to_owned(), json!(nets));
    }
    let mut layer = Map::new();
    match &rule.ports {
        None => layer.insert("port".to_owned(), json!("any")),
        Some(ports) => layer.insert("ports".to_owned(), ports.iter().map(port_value).collect()),
    };
    if let Some(http) = &rule.http {
        for (key, values) in [("methods", &http.methods), ("hosts", &http.hosts), ("paths", &http.paths)] {
            if let Some(values) = values {
                layer.insert(key.to_owned(), json!(values));
            }
        }
    }
    let kind = if rule.http.is_some() { "http" } else { "tcp" };
    value.insert(kind.to_owned(), Value::Object(layer));
    Value::Object(value)
}

fn port_value((low, high): &(u16, u16)) -> Value {
    if low == high { json!(low) } else { json!(format!("{low}-{high}")) }
}
