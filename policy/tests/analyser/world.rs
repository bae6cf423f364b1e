//! Random policies over the whole language and accesses to try them with, out of a small world, so that they meet often.

use policy::analyse::{Witness, WitnessRequest, WitnessToken};
use policy::strict::Source;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const IDS: [&str; 6] = [
    "spiffe://a.test/ns/x",
    "spiffe://a.test/ns/y",
    "spiffe://a.test/ns/x/sa",
    "spiffe://a.test/ns/zz",
    "spiffe://b.test/ns/x",
    "spiffe://a.test",
];

const PATTERNS: [&str; 8] = [
    "spiffe://a.test/ns/x",
    "spiffe://a.test/ns/y",
    "spiffe://b.test/**",
    "spiffe://a.test/**",
    "spiffe://a.test/ns/*",
    "spiffe://a.test/*/x",
    "spiffe://a.test/ns/x/**",
    "spiffe://a.test/*/*/**",
];

const PROTECTED: [&str; 4] =
    ["spiffe://a.test/ns/x", "spiffe://a.test/ns/y", "spiffe://a.test/ns/*", "spiffe://b.test/**"];

fn some_of(values: &'static [&'static str], most: usize) -> impl Strategy<Value = Value> {
    prop::collection::btree_set(prop::sample::select(values), 1..=most).prop_map(|values| json!(values))
}

fn some_keys(
    keys: Vec<(&'static str, f64, BoxedStrategy<Value>)>,
) -> impl Strategy<Value = Map<String, Value>> {
    let each: Vec<_> = keys
        .into_iter()
        .map(|(key, weight, value)| prop::option::weighted(weight, value).prop_map(move |value| (key, value)))
        .collect();
    each.prop_map(|found| {
        found.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    })
}

fn ports() -> BoxedStrategy<Value> {
    prop_oneof![Just(json!([80])), Just(json!([443])), Just(json!(["80-90", 443])), Just(json!(["81-1000"]))]
        .boxed()
}

fn headers() -> BoxedStrategy<Value> {
    let values = || prop_oneof![some_of(&["v", "w", "u"], 2), Just(json!("any"))].boxed();
    some_keys(vec![("x-a", 0.8, values()), ("x-b", 0.4, values())])
        .prop_filter_map("there is a header", |map| (!map.is_empty()).then(|| Value::Object(map)))
        .boxed()
}

fn layer() -> impl Strategy<Value = (&'static str, Value)> {
    let methods = || some_of(&["GET", "POST"], 2).boxed();
    let hosts = || some_of(&["h.test", "*.h.test", "o.test"], 2).boxed();
    let paths = || some_of(&["/", "/**", "/a", "/a/*", "/a/**", "/*/b"], 2).boxed();
    let http = some_keys(vec![
        ("methods", 0.4, methods()),
        ("hosts", 0.3, hosts()),
        ("paths", 0.6, paths()),
        ("headers", 0.3, headers()),
    ]);
    let upgrade = some_keys(vec![
        ("protocols", 0.7, some_of(&["websocket", "chat"], 2).boxed()),
        ("paths", 0.3, paths()),
    ]);
    let connect = some_keys(vec![("hosts", 0.5, hosts()), ("to_ports", 0.6, ports())]);
    let wrapped = |name: &'static str| {
        move |(map, ports): (Map<String, Value>, Option<Value>)| {
            let mut map = map;
            match ports {
                Some(ports) => map.insert("ports".to_owned(), ports),
                None => map.insert("port".to_owned(), json!("any")),
            };
            (name, Value::Object(map))
        }
    };
    let ported = || prop::option::weighted(0.6, ports());
    prop_oneof![
        6 => (http, ported()).prop_map(wrapped("http")),
        3 => (Just(Map::new()), ported()).prop_map(wrapped("tcp")),
        1 => (upgrade, ported()).prop_map(wrapped("upgrade")),
        1 => (connect, ported()).prop_map(wrapped("connect")),
    ]
}

fn jwt() -> BoxedStrategy<Value> {
    let claims = some_keys(vec![
        ("scope", 0.6, some_of(&["read", "write"], 2).boxed()),
        ("team", 0.4, some_of(&["a", "b"], 1).boxed()),
    ]);
    (
        prop::sample::select(&["https://i.test", "https://j.test"]),
        prop::option::weighted(0.3, Just("aud")),
        claims,
    )
        .prop_map(|(issuer, audience, claims)| {
            let mut jwt = Map::from_iter([("issuer".to_owned(), json!(issuer))]);
            jwt.insert("audience".to_owned(), json!(audience.unwrap_or("any")));
            if !claims.is_empty() {
                jwt.insert("claims".to_owned(), Value::Object(claims));
            }
            Value::Object(jwt)
        })
        .boxed()
}

fn callers() -> impl Strategy<Value = Map<String, Value>> {
    let from = prop_oneof![
        6 => some_of(&PATTERNS, 3),
        2 => Just(json!(["anyone"])),
        1 => Just(json!(["unauthenticated", "spiffe://a.test/ns/x"])),
    ];
    let limits = some_keys(vec![
        ("except", 0.2, some_of(&PATTERNS, 2).boxed()),
        ("source_net", 0.2, some_of(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "2001:db8::/32"], 2).boxed()),
    ]);
    (from, limits).prop_map(|(from, mut limits)| {
        limits.insert("from".to_owned(), from);
        limits
    })
}

/// A rule without its name.
fn rule() -> impl Strategy<Value = Map<String, Value>> {
    let sni = prop::option::weighted(0.1, some_of(&["s.test", "t.test"], 2));
    (callers(), layer(), sni, prop::option::weighted(0.15, jwt())).prop_map(
        |(mut rule, (kind, layer), sni, jwt)| {
            rule.insert(kind.to_owned(), layer);
            if let Some(sni) = sni {
                rule.insert("sni".to_owned(), sni);
            }
            if let (Some(jwt), false) = (jwt, kind == "tcp") {
                rule.insert("jwt".to_owned(), jwt);
            }
            rule
        },
    )
}

/// What a guarantee forbids, in the keys of a rule.
pub(crate) fn region() -> impl Strategy<Value = Map<String, Value>> {
    (callers(), prop::option::of(layer())).prop_map(|(mut region, layer)| {
        if let Some((kind, layer)) = layer {
            region.insert(kind.to_owned(), layer);
        }
        region
    })
}

#[derive(Clone)]
pub(crate) struct PolicyModel {
    pub(crate) protects: Value,
    pub(crate) shadow: bool,
    pub(crate) allow: Vec<Map<String, Value>>,
    pub(crate) deny: Vec<Map<String, Value>>,
}

impl std::fmt::Debug for PolicyModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = json!({
            "protects": self.protects, "shadow": self.shadow, "allow": self.allow, "deny": self.deny,
        });
        write!(f, "{shown}")
    }
}

fn policy() -> impl Strategy<Value = PolicyModel> {
    let rules = |most: usize| prop::collection::vec(rule(), 0..most);
    (some_of(&PROTECTED, 2), prop::bool::weighted(0.2), rules(5), rules(4))
        .prop_map(|(protects, shadow, allow, deny)| PolicyModel { protects, shadow, allow, deny })
}

pub(crate) fn policies() -> impl Strategy<Value = Vec<PolicyModel>> {
    prop::collection::vec(policy(), 1..4)
}

/// Two sets: sometimes unrelated, mostly the second made out of the first by a few changes.
pub(crate) fn change() -> impl Strategy<Value = (Vec<PolicyModel>, Vec<PolicyModel>)> {
    let edited = (policies(), prop::collection::vec((0u8..4, any::<prop::sample::Index>(), rule()), 0..3))
        .prop_map(|(old, edits)| {
            let mut new = old.clone();
            for (kind, at, rule) in edits {
                let policy = at.index(new.len());
                let PolicyModel { allow, deny, .. } = &mut new[policy];
                match kind {
                    0 => allow.push(rule),
                    1 => deny.push(rule),
                    2 => drop(allow.pop()),
                    _ => drop(deny.pop()),
                }
            }
            (old, new)
        });
    prop_oneof![4 => edited, 1 => (policies(), policies())]
}

// A keyword is written without quotes: in quotes it is a value.
fn written(root: &Value) -> String {
    root.to_string().replace(":\"any\"", ": any")
}

/// Writes policies as people would, though in JSON, which is YAML.
pub(crate) fn sources(policies: &[PolicyModel], guarantee: Option<&Map<String, Value>>) -> Vec<Source> {
    let one = |(number, policy): (usize, &PolicyModel)| {
        let named = |prefix: &str, rules: &[Map<String, Value>]| -> Value {
            let named = rules.iter().enumerate().map(|(number, rule)| {
                let mut rule = rule.clone();
                rule.insert("name".to_owned(), json!(format!("{prefix}{number}")));
                Value::Object(rule)
            });
            named.collect()
        };
        let mut root = Map::from_iter([
            ("vouchsafe".to_owned(), json!("policy/v1")),
            ("name".to_owned(), json!(format!("p{number}"))),
            ("protects".to_owned(), policy.protects.clone()),
        ]);
        if policy.shadow {
            root.insert("mode".to_owned(), json!("shadow"));
            root.insert("until".to_owned(), json!("1990-01-01"));
        }
        for (key, rules) in [("allow", &policy.allow), ("deny", &policy.deny)] {
            if !rules.is_empty() {
                root.insert(key.to_owned(), named(key, rules));
            }
        }
        if number == 0 {
            let issuer = |name: &str| json!({"issuer": name, "keys": {"url": format!("{name}/keys")}});
            root.insert("issuers".to_owned(), json!([issuer("https://i.test"), issuer("https://j.test")]));
            if let Some(region) = guarantee {
                root.insert("guarantees".to_owned(), json!([{ "never": region }]));
            }
        }
        Source::new(format!("p{number}.yaml"), written(&Value::Object(root)))
    };
    policies.iter().enumerate().map(one).collect()
}

/// One policy that refuses what a guarantee forbids, to everybody, and allows everything else.
pub(crate) fn forbidding(region: &Map<String, Value>) -> Vec<Source> {
    let mut all = vec![];
    let kinds = ["tcp", "http", "connect", "upgrade"];
    let given = kinds.iter().any(|kind| region.contains_key(*kind));
    for kind in if given { vec![""] } else { vec!["tcp", "http"] } {
        let mut rule = region.clone();
        rule.insert("name".to_owned(), json!(format!("never-{kind}")));
        if !given {
            rule.insert(kind.to_owned(), json!({"port": "any"}));
        }
        all.push(Value::Object(rule));
    }
    let root = json!({
        "vouchsafe": "policy/v1", "name": "never", "deny": all,
        "protects": ["spiffe://a.test/**", "spiffe://b.test/**"],
    });
    vec![Source::new("never.yaml", written(&root))]
}

fn request() -> impl Strategy<Value = WitnessRequest> {
    let fields = prop::collection::vec(
        (prop::sample::select(&["x-a", "x-b"]), prop::sample::select(&["v", "w", "z", "v,w", "v, z"])),
        0..3,
    );
    let upgrade =
        prop::option::weighted(0.2, prop::sample::select(&["websocket", "chat", "other", "websocket, chat"]));
    let hosts =
        prop::option::of(prop::sample::select(&["h.test", "a.h.test", "o.test:80", "n.test", "h.test:443"]));
    let claims = some_keys(vec![
        (
            "iss",
            0.9,
            prop::sample::select(&["https://i.test", "https://j.test"]).prop_map(|text| json!(text)).boxed(),
        ),
        ("aud", 0.5, prop::sample::select(&["aud", "other"]).prop_map(|text| json!(text)).boxed()),
        (
            "scope",
            0.6,
            prop_oneof![
                Just(json!("read")),
                Just(json!("read write")),
                Just(json!(["write", "z"])),
                Just(json!("z"))
            ]
            .boxed(),
        ),
        ("team", 0.6, prop_oneof![Just(json!("a")), Just(json!(["a", "b"])), Just(json!("c"))].boxed()),
    ]);
    let token = prop_oneof![
        3 => Just(WitnessToken::Absent),
        1 => Just(WitnessToken::Invalid),
        2 => claims.prop_map(WitnessToken::Verified),
    ];
    (
        prop::sample::select(&["GET", "POST", "PATCH", "CONNECT"]),
        hosts,
        prop::sample::select(&["/", "/a", "/a/", "/a/b", "/a/b/c", "/c/b", "/d"]),
        fields,
        upgrade,
        token,
    )
        .prop_map(|(method, host, path, fields, upgrade, token)| {
            let mut headers: Vec<(String, String)> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            headers.extend(upgrade.map(|protocol| ("upgrade".to_owned(), protocol.to_owned())));
            let host = host.map(str::to_owned);
            WitnessRequest { method: method.to_owned(), host, path: path.to_owned(), headers, token }
        })
}

/// An access to one of the workloads.
fn access() -> impl Strategy<Value = Witness> {
    let id = || prop::sample::select(&IDS).prop_map(|text| text.parse().unwrap());
    (
        id(),
        prop::option::weighted(0.85, id()),
        prop::sample::select(&["10.1.2.3", "10.9.0.1", "192.0.2.1", "2001:db8::1", "2001:db9::1"]),
        prop::sample::select(&[80u16, 81, 90, 443, 1000, 8080]),
        prop::option::weighted(0.3, prop::sample::select(&["s.test", "t.test", "u.test"])),
        prop::option::weighted(0.7, request()),
        prop::option::of(prop::sample::select(&[("app", "a"), ("app", "b"), ("tier", "t")])),
    )
        .prop_map(|(to, peer, source, port, sni, http, labels)| Witness {
            to,
            labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            peer,
            source: source.parse().unwrap(),
            destination: None,
            port,
            sni: sni.map(str::to_owned),
            http,
        })
}

/// Accesses to try, of which a report shows the number only: the failing one is named by the test.
pub(crate) struct Accesses(pub(crate) Vec<Witness>);

impl std::fmt::Debug for Accesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} accesses", self.0.len())
    }
}

pub(crate) fn accesses() -> impl Strategy<Value = Accesses> {
    prop::collection::vec(access(), 150).no_shrink().prop_map(Accesses)
}
