//! Deciding allocates nothing, whatever the number of policies: counted for every kind of decision.
//!
//! There is one test, since another beside it would allocate meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is not as promised"
)]

use std::alloc::System;
use std::hint::black_box;
use std::time::SystemTime;

use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    AtConnect, CanonicalHost, CanonicalPath, Claims, Connection, Decision, DenyReason, PeerIdentity, Request,
    RequestKind, Token, WorkloadPolicies, compile,
};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WEB: &str = "spiffe://prod.example/ns/payments/sa/api";
const CLIENT: &str = "spiffe://prod.example/ns/all/sa/x";

/// Rules of every kind, all of them candidates for the client: only what is looked at last tells them apart.
fn policy(number: usize) -> Source {
    let from = "from: [spiffe://prod.example/ns/all/**]";
    let text = format!(
        "vouchsafe: policy/v1\nname: p{number}\nprotects: {WEB}\nallow:\n\
         - {{name: tcp, {from}, sni: [api-{number}.example], tcp: {{port: 9090}}}}\n\
         - {{name: http, {from}, http: {{port: 8443, methods: [GET], hosts: [api.example], paths: [/v1/tenant-{number}/**]}}}}\n\
         - {{name: header, {from}, http: {{port: 8443, paths: [/h/**], headers: {{x-tenant: [t{number}], x-env: [prod]}}}}}}\n\
         - {{name: token, {from}, jwt: {{issuer: 'https://i.test', audience: api, claims: {{realm: {{roles: [r{number}]}}, scope: [read]}}}}, http: {{port: 8443, paths: [/t/**]}}}}\n\
         - {{name: tunnel, {from}, connect: {{port: 8443, hosts: [db.example], to_ports: [5432]}}}}\n\
         - {{name: upgrade, {from}, upgrade: {{port: 8443, protocols: [websocket], paths: [/ws]}}}}\n\
         deny:\n\
         - {{name: admin, {from}, source_net: [10.0.0.0/8], http: {{port: 8443, paths: [/v1/tenant-{number}/admin/**], headers: {{x-mode: [a, b]}}}}}}\n"
    );
    Source::new(format!("p{number}.yaml"), text)
}

fn workload(count: usize) -> WorkloadPolicies {
    let issuers = format!(
        "vouchsafe: policy/v1\nname: issuers\nprotects: {WEB}\n\
         issuers: [{{issuer: 'https://i.test', keys: {{url: 'https://i.test/keys'}}}}]\n"
    );
    let mut files: Vec<Source> = (0..count).map(policy).collect();
    files.push(Source::new("issuers.yaml".to_owned(), issuers));
    let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
    set.for_workload(&SpiffeId::parse(WEB).unwrap())
}

/// Asserts that deciding allocates nothing and says what is expected. What another thread allocates in the first tries is no
/// matter, and what deciding allocates it allocates in each of them.
fn free(what: &str, expected: Result<&str, DenyReason>, decide: impl Fn() -> Decision) {
    let allocations = (0..5).map(|_| {
        let region = Region::new(ALLOCATOR);
        black_box(decide());
        let change = region.change();
        change.allocations + change.reallocations
    });

    assert_eq!(allocations.min(), Some(0), "{what}");
    let found = match decide() {
        Decision::Allow(allowed) => Ok(allowed.rule.unwrap().rule.to_string()),
        Decision::Deny(denial) => Err(denial.reason),
    };
    assert_eq!(found, expected.map(str::to_owned), "{what}");
}

#[test]
fn nothing_is_allocated_for_a_decision() {
    let (client, stranger) =
        (SpiffeId::parse(CLIENT).unwrap(), SpiffeId::parse("spiffe://prod.example/ns/none/sa/x").unwrap());
    let connection = |peer| {
        let source = std::net::IpAddr::from([10, 1, 2, 3]);
        Connection::new(PeerIdentity::Authenticated(peer), source, 8443, SystemTime::UNIX_EPOCH)
    };
    for count in [10, 1_000, 10_000] {
        let policies = workload(count);
        let (last, nothing) = (count - 1, Err(DenyReason::NoAllowMatched));

        let sni = format!("api-{last}.example");
        let raw = Connection { port: 9090, sni: Some(&sni), ..connection(&client) };
        free("tcp, allowed", Ok("tcp"), || policies.decide_tcp(&raw));
        free("tcp, no rule", nothing, || policies.decide_tcp(&Connection { sni: Some("x.example"), ..raw }));
        free("tcp, stranger", nothing, || policies.decide_tcp(&connection(&stranger)));
        let opaque = Err(DenyReason::ExplicitDeny);
        free("tcp, http deny", opaque, || policies.decide_tcp(&connection(&client)));

        requests(count, &policies, &connection(&client));
        at_connect(count, &policies, &connection(&client));
    }
}

/// Requests of every kind, decided with their connection and after it.
fn requests(count: usize, policies: &WorkloadPolicies, connection: &Connection<'_>) {
    let (last, nothing) = (count - 1, Err(DenyReason::NoAllowMatched));
    let (api, db) =
        (CanonicalHost::parse("api.example").unwrap(), CanonicalHost::parse("db.example").unwrap());
    let paths = ["/v1/tenant-{}/x", "/v1/tenant-{}/admin", "/h/x", "/t/x", "/ws", "/none"]
        .map(|path| CanonicalPath::parse(&path.replace("{}", &last.to_string())).unwrap());
    let [tenant, admin, header, token, socket, none] = &paths;
    let fields = |tenant: usize| {
        let field = |name: &str, value: String| (name.to_owned(), value);
        vec![
            field("X-Tenant", format!("t{tenant}")),
            field("x-env", "prod".to_owned()),
            field("x-env", "prod".to_owned()),
            field("x-mode", "x, \"y,z\", b".to_owned()),
            field("x-mode", "c".to_owned()),
        ]
    };
    let (known, unknown) = (fields(last), fields(count));
    let (member, guest) = (claims(last), claims(count));
    let plain = |path| Request { headers: &known, ..Request::new("GET", Some(&api), path) };
    let requests = [
        ("http, allowed", Ok("http"), plain(tenant)),
        ("http, no rule", nothing, plain(none)),
        ("http, denied", Err(DenyReason::ExplicitDeny), plain(admin)),
        ("header, allowed", Ok("header"), plain(header)),
        ("header, no rule", nothing, Request { headers: &unknown, ..plain(header) }),
        ("token, allowed", Ok("token"), Request { token: Token::Verified(&member), ..plain(token) }),
        ("token, no rule", nothing, Request { token: Token::Verified(&guest), ..plain(token) }),
        ("token, invalid", Err(DenyReason::JwtInvalid), Request { token: Token::Invalid, ..plain(token) }),
        (
            "tunnel, allowed",
            Ok("tunnel"),
            Request {
                kind: RequestKind::Connect { port: Some(5432) },
                ..Request::new("CONNECT", Some(&db), none)
            },
        ),
        (
            "upgrade, allowed",
            Ok("upgrade"),
            Request { kind: RequestKind::Upgrade { protocol: "websocket" }, ..plain(socket) },
        ),
    ];
    let AtConnect::Residual(residual) = policies.at_connect(connection) else {
        panic!("the connection leaves requests open")
    };
    for (what, expected, request) in &requests {
        free(&format!("{what}, {count}"), *expected, || policies.decide_http(connection, request));
        let later = || residual.decide(request, SystemTime::UNIX_EPOCH);
        free(&format!("{what}, residual, {count}"), *expected, later);
    }
}

/// A token's claims, verified; among them a role.
fn claims(role: usize) -> Claims {
    let claims = json!({"iss": "https://i.test", "aud": ["x", "api"], "scope": "a read",
        "realm": {"roles": ["x", format!("r{role}")]}, "n": 5});
    Claims::verified(claims.as_object().unwrap().clone())
}

/// What a connection keeps between its requests is one allocation, and none for up to a thousand rules.
fn at_connect(count: usize, policies: &WorkloadPolicies, connection: &Connection<'_>) {
    let most = if count * 6 <= 1_000 - 2 * 64 { 0 } else { 1 };
    let allocations = (0..5).map(|_| {
        let region = Region::new(ALLOCATOR);
        black_box(policies.at_connect(connection));
        let change = region.change();
        change.allocations + change.reallocations
    });

    assert_eq!(allocations.min(), Some(most), "{count}");
}
