//! The policies and calls that are measured.
//!
//! "miss": no rule names the caller. "one": a rule of each kind does. "all": every rule names caller, port and network, and for HTTP
//! only the path, the header or the token's claim, the last thing looked at, tells them apart.

use std::hint::black_box;
use std::time::SystemTime;

use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    AtConnect, CanonicalPath, Claims, Connection, PeerIdentity, PolicySet, Request, Token, WorkloadPolicies,
    compile,
};

pub(crate) const WEB: &str = "spiffe://prod.example/ns/payments/sa/api";

/// Shows every decision for a number of policies, by its name.
pub(crate) fn each(count: usize, see: &mut dyn FnMut(&str, &dyn Fn())) {
    let (stranger, all) = (id("spiffe://prod.example/ns/none/sa/x"), id("spiffe://prod.example/ns/all/sa/x"));
    let one = id(&format!("spiffe://prod.example/ns/shop/sa/client-{}", count / 2));
    let policies = workload(count, Asked::Nothing);
    let (hit, miss) = (path(&format!("/v1/tenant-{}/x", count - 1)), path("/v2/none"));
    for (shape, peer) in [("miss", &stranger), ("one", &one), ("all", &all)] {
        let (raw, web) = (connection(peer, 9090), connection(peer, 8443));
        let other = connection(peer, 9091);
        see(&format!("tcp/{shape}/{count}"), &|| drop(black_box(policies.decide_tcp(black_box(&raw)))));
        see(&format!("tcp-wrong-port/{shape}/{count}"), &|| {
            drop(black_box(policies.decide_tcp(black_box(&other))));
        });
        see(&format!("http-connect/{shape}/{count}"), &|| {
            drop(black_box(policies.at_connect(black_box(&web))))
        });
        for (name, path) in [("allowed", &hit), ("refused", &miss)] {
            let request = Request::new("GET", None, path);
            see(&format!("http-whole-{name}/{shape}/{count}"), &|| {
                drop(black_box(policies.decide_http(black_box(&web), black_box(&request))));
            });
            if let AtConnect::Residual(residual) = policies.at_connect(&web) {
                see(&format!("http-request-{name}/{shape}/{count}"), &|| {
                    drop(black_box(residual.decide(black_box(&request), SystemTime::UNIX_EPOCH)));
                });
            }
        }
    }
    conditions(count, &all, see);
}

/// Every rule asks for a value of a header and of a claim, which one of each has.
fn conditions(count: usize, peer: &SpiffeId, see: &mut dyn FnMut(&str, &dyn Fn())) {
    let policies = workload(count, Asked::Conditions);
    let path = path("/");
    let web = connection(peer, 8444);
    for (name, number) in [("allowed", count - 1), ("refused", count)] {
        let fields = vec![("x-tenant".to_owned(), format!("t{number}"))];
        let request = Request { headers: &fields, ..Request::new("GET", None, &path) };
        see(&format!("http-whole-header-{name}/all/{count}"), &|| {
            drop(black_box(policies.decide_http(black_box(&web), black_box(&request))));
        });
        let claims = claims(number);
        let request = Request { token: Token::Verified(&claims), ..Request::new("GET", None, &path) };
        see(&format!("http-whole-claim-{name}/all/{count}"), &|| {
            drop(black_box(policies.decide_http(black_box(&web), black_box(&request))));
        });
    }
}

/// Files of a hundred rules each, every one for a caller and a path of its own.
pub(crate) fn files(count: usize) -> Vec<Source> {
    (0..count).map(rules).collect()
}

/// One allow rule for TCP, one for HTTP and one deny rule for HTTP a policy; with conditions, more for HTTP.
fn policy(number: usize, asked: Asked) -> Source {
    let from =
        format!("from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}]");
    let (allow, deny) = match asked {
        Asked::Nothing => (String::new(), String::new()),
        Asked::Conditions => (
            format!(
                "- {{name: header, {from}, http: {{port: 8444, headers: {{x-tenant: [t{number}]}}}}}}\n\
                 - {{name: claim, {from}, jwt: {{issuer: 'https://i.test', audience: api, claims: {{tenant: [t{number}]}}}}, http: {{port: 8444}}}}\n"
            ),
            format!(
                "- {{name: no-header, {from}, http: {{port: 8444, headers: {{x-tenant: [u{number}]}}}}}}\n"
            ),
        ),
    };
    let text = format!(
        "vouchsafe: policy/v1\nname: p{number}\nprotects: {WEB}\nallow:\n\
         - {{name: tcp, {from}, tcp: {{port: 9090}}}}\n\
         - {{name: http, {from}, http: {{port: 8443, methods: [GET], paths: [/v1/tenant-{number}/**]}}}}\n{allow}\
         deny:\n\
         - {{name: admin, from: [spiffe://prod.example/ns/all/**], source_net: [10.0.0.0/8], http: {{port: 8443, paths: [/v1/tenant-{number}/admin/**]}}}}\n{deny}"
    );
    Source::new(format!("p{number}.yaml"), text)
}

#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    Conditions,
}

/// The files compiled.
pub(crate) fn compiled(files: &[Source]) -> PolicySet {
    compile(files).unwrap_or_else(|problems| panic!("{problems}"))
}

fn workload(count: usize, asked: Asked) -> WorkloadPolicies {
    let mut files: Vec<Source> = (0..count).map(|number| policy(number, asked)).collect();
    let issuers = "issuers: [{issuer: 'https://i.test', keys: {url: 'https://i.test/keys'}}]";
    let text = format!("vouchsafe: policy/v1\nname: issuers\nprotects: {WEB}\n{issuers}\n");
    files.push(Source::new("issuers.yaml", text));
    compiled(&files).for_workload(&id(WEB))
}

fn claims(tenant: usize) -> Claims {
    let claims = serde_json::json!({"iss": "https://i.test", "aud": "api", "tenant": format!("t{tenant}")});
    Claims::verified(claims.as_object().cloned().unwrap_or_default())
}

fn connection(peer: &SpiffeId, port: u16) -> Connection<'_> {
    let source = std::net::IpAddr::from([10, 1, 2, 3]);
    Connection::new(PeerIdentity::Authenticated(peer), source, port, SystemTime::UNIX_EPOCH)
}

/// A SPIFFE ID.
pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn rules(file: usize) -> Source {
    let mut text = format!("vouchsafe: policy/v1\nname: p{file}\nprotects: {WEB}\nallow:\n");
    for rule in 0..100 {
        text.push_str(&format!(
            "- {{name: r{rule}, from: [spiffe://prod.example/ns/shop-{file}/sa/client-{rule}], \
             http: {{port: 8443, methods: [GET, POST], paths: [/v1/tenant-{file}/item-{rule}/**]}}}}\n"
        ));
    }
    Source::new(format!("p{file}.yaml"), text)
}
