use crate::strict::Source;
use crate::{Outcome, PolicySet, compile};

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

const RULES: &str = r#"vouchsafe: policy/v1
name: p
protects: spiffe://a.test/api
issuers:
  - {issuer: "https://i.example", audiences: [api], keys: {file: i.json}}
allow:
  - name: reads
    from: [spiffe://a.test/web]
    http: {port: 80, methods: [GET], headers: {x-env: [prod, test]}}
  - name: calls
    from: [spiffe://a.test/web]
    grpc: {port: 81, service: a.v1.B, methods: [Get]}
  - name: settles
    from: [spiffe://a.test/web]
    jwt: {issuer: "https://i.example", claims: {scope: [settle], realm: {roles: [clerk]}}}
    http: {port: 82}
  - name: tunnels
    from: [spiffe://a.test/web]
    connect: {port: 83, hosts: [db.example], to_ports: [5432]}
  - name: talks
    from: [spiffe://a.test/web]
    upgrade: {port: 84, protocols: [websocket], paths: [/live]}
  - name: named
    from: [spiffe://a.test/web]
    sni: [api.example]
    tcp: {port: 85}
deny:
  - name: no-debug
    from: [anyone]
    http: {ports: [80-84], headers: {x-debug: any}}
  - name: never-used
    from: [anyone]
    tcp: {port: 99}
tests:
"#;

fn load(tests: &str) -> Result<PolicySet, String> {
    compile(&[Source::new("p.yaml", format!("{RULES}{tests}")), Source::new("i.json", KEYS)])
        .map_err(|problems| problems.to_string())
}

fn case(asked: &str, expect: &str) -> String {
    format!("  - {{from: spiffe://a.test/web, {asked}, expect: {expect}}}\n")
}

#[test]
fn a_case_may_suppose_everything_that_a_rule_asks_for() {
    let jwt = "jwt: {iss: \"https://i.example\", aud: api, scope: read settle, realm: {roles: [clerk]}}";
    let cases = [
        case("http: GET 80 /, headers: {x-env: prod}", "allow, by: reads"),
        case("http: GET 80 /, headers: {x-env: \"prod, test\"}", "allow, by: reads"),
        case("http: GET 80 /, headers: {x-env: [prod, other]}", "deny"),
        case("http: GET 80 /", "deny"),
        case("http: GET 80 /, headers: {x-env: prod, x-debug: \"1\"}", "deny, by: no-debug"),
        case("grpc: 81 a.v1.B/Get", "allow, by: calls"),
        case("grpc: 81 a.v1.B/Put", "deny"),
        case("http: GET 81 /a.v1.B/Get", "deny"),
        case(&format!("http: GET 82 /, {jwt}"), "allow, by: settles"),
        case(&format!("http: GET 82 /, {}", jwt.replace("clerk", "guest")), "deny"),
        case("http: GET 82 /, jwt: invalid", "deny"),
        case("http: GET 82 /", "deny"),
        case("connect: 83 db.example:5432", "allow, by: tunnels"),
        case("connect: 83 db.example:5433", "deny"),
        case("connect: 83 db.example", "deny"),
        case("connect: 80 db.example:5432, headers: {x-env: prod}", "deny"),
        case("upgrade: 84 websocket /live", "allow, by: talks"),
        case("upgrade: 84 websocket /other", "deny"),
        case("upgrade: 84 other /live", "deny"),
        case("http: GET 84 /live", "deny"),
        case("tcp: 85, sni: api.example", "allow, by: named"),
        case("tcp: 85, sni: other.example", "deny"),
        case("tcp: 85", "deny"),
    ];

    if let Err(problems) = load(&cases.concat()) {
        panic!("{problems}");
    }
}

#[test]
fn a_case_that_fails_says_what_it_supposed_and_which_rule_comes_nearest() {
    let wrong = [
        (
            "http: GET 80 /, headers: {x-env: other}",
            "test failed: GET 80 / (x-env: other) from spiffe://a.test/web to spiffe://a.test/api is denied (no_allow_matched) by no rule, expected allow",
            "nearest: p/reads (p.yaml:7)",
        ),
        (
            "connect: 83 db.example:1",
            "test failed: CONNECT 83 db.example:1 from spiffe://a.test/web to spiffe://a.test/api is denied (no_allow_matched) by no rule, expected allow",
            "nearest: p/tunnels (p.yaml:17)",
        ),
        (
            "upgrade: 84 websocket /x, host: api.example",
            "test failed: upgrade 84 websocket /x (host api.example) from spiffe://a.test/web to spiffe://a.test/api is denied (no_allow_matched) by no rule, expected allow",
            "nearest: p/talks (p.yaml:20)",
        ),
        (
            "http: GET 82 /, jwt: invalid",
            "test failed: GET 82 / (jwt invalid) from spiffe://a.test/web to spiffe://a.test/api is denied (jwt_invalid) by no rule, expected allow",
            "nearest: p/settles (p.yaml:13)",
        ),
        (
            "http: GET 82 /, jwt: {iss: \"https://i.example\", sub: me}",
            "test failed: GET 82 / (jwt of https://i.example, me) from spiffe://a.test/web to spiffe://a.test/api is denied (no_allow_matched) by no rule, expected allow",
            "nearest: p/settles (p.yaml:13)",
        ),
        (
            "tcp: 85, sni: other.example",
            "test failed: tcp 85 (sni other.example) from spiffe://a.test/web to spiffe://a.test/api is denied (no_allow_matched) by no rule, expected allow",
            "nearest: p/named (p.yaml:23)",
        ),
    ];
    for (asked, message, cure) in wrong {
        let said = load(&case(asked, "allow")).expect_err(asked);
        assert!(said.contains(message), "{said}");
        assert!(said.contains(cure), "{said}");
    }
}

#[test]
fn the_report_counts_the_cases_that_each_rule_decides() {
    let cases = [
        case("http: GET 80 /, headers: {x-env: prod}", "allow"),
        case("http: GET 80 /, headers: {x-env: test}", "allow"),
        case("http: GET 80 /, headers: {x-debug: \"1\"}", "deny"),
        case("http: GET 80 /", "deny"),
    ];

    let report = load(&cases.concat()).unwrap().run_tests();

    let counted: Vec<(&str, &str, usize)> =
        report.coverage.iter().map(|rule| (&*rule.rule.rule, rule.effect, rule.tests)).collect();
    assert_eq!(
        counted,
        [
            ("reads", "allow", 2),
            ("calls", "allow", 0),
            ("settles", "allow", 0),
            ("tunnels", "allow", 0),
            ("talks", "allow", 0),
            ("named", "allow", 0),
            ("no-debug", "deny", 1),
            ("never-used", "deny", 0),
        ]
    );
    assert_eq!(report.uncovered().count(), 6);
    assert!(report.cases.iter().all(|case| case.outcome == Outcome::Passed));
}
