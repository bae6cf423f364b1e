//! Random policies and accesses out of a small world, so that they meet often.

use proptest::prelude::*;
use serde_json::{Value, json};

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
    pub(crate) sni: Option<Vec<String>>,
    pub(crate) jwt: Option<JwtModel>,
    pub(crate) layer: LayerModel,
}

#[derive(Clone, Debug)]
pub(crate) enum LayerModel {
    Tcp,
    Http {
        methods: Option<Vec<String>>,
        hosts: Option<Vec<String>>,
        paths: Option<Vec<String>>,
        headers: HeadersModel,
    },
    Grpc {
        services: Option<Vec<String>>,
        methods: Option<Vec<String>>,
        hosts: Option<Vec<String>>,
        headers: HeadersModel,
    },
    Connect {
        hosts: Option<Vec<String>>,
        to_ports: Option<Vec<(u16, u16)>>,
    },
    Upgrade {
        protocols: Option<Vec<String>>,
        hosts: Option<Vec<String>>,
        paths: Option<Vec<String>>,
        headers: HeadersModel,
    },
}

/// Names of headers, each with its values; none means any value.
pub(crate) type HeadersModel = Vec<(String, Option<Vec<String>>)>;

#[derive(Clone, Debug)]
pub(crate) struct JwtModel {
    pub(crate) issuer: String,
    pub(crate) audience: AudienceModel,
    pub(crate) claims: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug)]
pub(crate) enum AudienceModel {
    Unsaid,
    Any,
    Only(Vec<String>),
}

#[derive(Clone, Debug)]
pub(crate) enum KindModel {
    Plain,
    Connect { port: Option<u16> },
    Upgrade { protocol: String },
}

#[derive(Clone, Debug)]
pub(crate) enum TokenModel {
    Absent,
    Invalid,
    Verified(Value),
}

#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) to: String,
    pub(crate) from: Option<String>,
    pub(crate) source: String,
    pub(crate) port: u16,
    pub(crate) day: u64,
    pub(crate) sni: Option<String>,
    pub(crate) request: Option<RequestModel>,
}

#[derive(Clone, Debug)]
pub(crate) struct RequestModel {
    pub(crate) method: String,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) kind: KindModel,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) token: TokenModel,
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

const PATHS: [&str; 20] = [
    "/s.A/Get",
    "/s.A/Put",
    "/t.B/Get",
    "/s.A/Get/x",
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

/// The issuers that the policies declare, and for whom their tokens are.
pub(crate) const ISSUERS: [(&str, &[&str]); 2] =
    [("https://i.test", &["x"]), ("https://j.test", &["api", "web"])];

const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
const HEADERS: [&str; 3] = ["x-a", "x-b", "cookie"];
const VALUES: [&str; 5] = ["red", "blue", "a=1", "\"red", "blue\""];
const LINES: [&str; 14] = [
    "red",
    "blue",
    "green",
    "red,blue",
    "blue , red",
    "red, red",
    "",
    " red ",
    "\"red,blue\"",
    "\"red",
    "RED",
    "a=1; b=2",
    "red;blue",
    "a=1",
];
const PROTOCOLS: [&str; 7] = ["websocket", "WebSocket", "x/1", "websocket, x/1", "websocket/13", "", "x"];

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

fn hosts() -> impl Strategy<Value = Option<Vec<String>>> {
    let patterns = &["a.example", "*.example", "*.a.example", "example", "10.0.0.1"];
    prop::option::weighted(0.3, some_of(patterns, 2))
}

fn headers() -> impl Strategy<Value = HeadersModel> {
    let values = prop::option::weighted(0.8, some_of(&VALUES, 2));
    let one = (prop::sample::select(&HEADERS).prop_map(str::to_owned), values);
    prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec(one, 1..3).prop_map(|mut headers| {
            headers.sort_by(|(a, _), (b, _)| a.cmp(b));
            headers.dedup_by(|(a, _), (b, _)| a == b);
            headers
        }),
    ]
}

fn layer() -> impl Strategy<Value = LayerModel> {
    let paths = || prop::option::weighted(0.7, some_of(&PATH_PATTERNS, 3));
    let http = (prop::option::of(some_of(&["GET", "POST", "HEAD"], 2)), hosts(), paths(), headers())
        .prop_map(|(methods, hosts, paths, headers)| LayerModel::Http { methods, hosts, paths, headers });
    let grpc = (
        prop::option::weighted(0.7, some_of(&["s.A", "t.B"], 2)),
        prop::option::of(some_of(&["Get", "Put"], 2)),
        hosts(),
        headers(),
    )
        .prop_map(|(services, methods, hosts, headers)| LayerModel::Grpc {
            services,
            methods,
            hosts,
            headers,
        });
    let connect = (hosts(), ports()).prop_map(|(hosts, to_ports)| LayerModel::Connect { hosts, to_ports });
    let upgrade =
        (prop::option::of(some_of(&["websocket", "x/1", "x"], 2)), hosts(), paths(), headers()).prop_map(
            |(protocols, hosts, paths, headers)| LayerModel::Upgrade { protocols, hosts, paths, headers },
        );
    prop_oneof![8 => Just(LayerModel::Tcp), 10 => http, 2 => grpc, 2 => connect, 2 => upgrade]
}

fn jwt() -> impl Strategy<Value = JwtModel> {
    let claim = (
        prop::sample::select(&["role", "scope", "deep.role"][..]),
        some_of(&["admin", "5", "true", "a b"], 2),
    );
    (
        prop::sample::select(&ISSUERS[..]),
        prop_oneof![
            Just(AudienceModel::Unsaid),
            Just(AudienceModel::Any),
            some_of(&["api", "web"], 2).prop_map(AudienceModel::Only),
        ],
        prop::collection::vec(claim, 0..2),
    )
        .prop_map(|((issuer, _), audience, claims)| JwtModel {
            issuer: issuer.to_owned(),
            audience,
            claims: claims.into_iter().map(|(name, values)| (name.to_owned(), values)).collect(),
        })
}

fn rule() -> impl Strategy<Value = RuleModel> {
    let except = prop_oneof![3 => Just(Vec::new()), 1 => some_of(&PATTERNS, 2)];
    let nets = prop::option::weighted(0.3, some_of(&NETS, 2));
    let asked =
        (prop::option::weighted(0.15, some_of(&NAMES, 2)), prop::option::weighted(0.2, jwt()), layer());
    (peers(), except, nets, ports(), asked).prop_map(|(from, except, nets, ports, (sni, jwt, layer))| {
        let except = if from == ["unauthenticated"] { Vec::new() } else { except };
        let jwt = jwt.filter(|_| !matches!(layer, LayerModel::Tcp));
        RuleModel { name: String::new(), from, except, nets, ports, sni, jwt, layer }
    })
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
        (
            prop::option::weighted(0.8, prop::sample::select(&PORTS)),
            prop::option::weighted(0.15, prop::sample::select(&PROTOCOLS)),
        ),
        lines(),
        token(),
    )
        .prop_map(|(method, host, path, (port, protocol), headers, token)| {
            let kind = match (method.as_str(), protocol) {
                ("CONNECT", _) => KindModel::Connect { port },
                (_, Some(protocol)) => KindModel::Upgrade { protocol: protocol.to_owned() },
                (_, None) => KindModel::Plain,
            };
            RequestModel { method, host, path, kind, headers, token }
        });
    (
        id(),
        prop::option::weighted(0.85, id()),
        prop::sample::select(&SOURCES).prop_map(str::to_owned),
        prop_oneof![prop::sample::select(&PORTS), 1u16..=65535, 7998u16..=8012],
        0u64..5,
        prop::option::weighted(0.8, prop::sample::select(&NAMES).prop_map(str::to_owned)),
        prop::option::weighted(0.75, request),
    )
        .prop_map(|(to, from, source, port, day, sni, request)| Access {
            to,
            from,
            source,
            port,
            day,
            sni,
            request,
        })
}

fn lines() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = prop::sample::select(vec!["x-a", "X-A", "x-b", "cookie", "x-c"]).prop_map(str::to_owned);
    let line = prop::sample::select(&LINES).prop_map(str::to_owned);
    prop::collection::vec((name, line), 0..5)
}

fn token() -> impl Strategy<Value = TokenModel> {
    let audience = prop::sample::select(vec![
        json!("api"),
        json!(["x", "web"]),
        json!("x"),
        json!([]),
        Value::Null,
        json!({"api": 1}),
    ]);
    let claim = || {
        prop::sample::select(vec![
            Value::Null,
            json!("admin"),
            json!("user"),
            json!(["user", "admin"]),
            json!("b admin"),
            json!("a b"),
            json!(5),
            json!(5.0),
            json!(5.5),
            json!(true),
            json!([]),
            json!([false]),
            json!([["admin"]]),
            json!({"admin": 1}),
        ])
    };
    let issuer = prop::sample::select(vec!["https://i.test", "https://j.test"]);
    let verified = (issuer, audience, claim(), claim(), claim(), prop::bool::ANY).prop_map(
        |(issuer, audience, role, scope, deep, flat)| {
            let deep = if flat { deep } else { json!({ "role": deep }) };
            json!({"iss": issuer, "aud": audience, "role": role, "scope": scope, "deep": deep})
        },
    );
    prop_oneof![
        2 => Just(TokenModel::Absent),
        1 => Just(TokenModel::Invalid),
        4 => verified.prop_map(TokenModel::Verified),
    ]
}
