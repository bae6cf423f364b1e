use crate::document::tests::{HEAD, problem, test};
use crate::document::{KeyFiles, TestKind, TestRequest, read};
use crate::strict::Source;

fn case(asked: &str) -> (u16, TestRequest) {
    let text = format!("{HEAD}tests:\n  - {{from: unauthenticated, expect: deny, {asked}}}\n");
    let document = read(&Source::new("p.yaml", text), &KeyFiles::default());
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    let case = &document.policy.tests[0];
    (case.port, case.request.clone().expect("a request"))
}

#[test]
fn a_test_asks_for_a_call_a_tunnel_or_an_upgrade() {
    let (port, call) = case("grpc: 9443 payments.v1.Settlement/Submit, host: api.example");
    assert_eq!((port, &*call.method, call.path.as_str()), (9443, "POST", "/payments.v1.Settlement/Submit"));
    assert_eq!((call.kind, call.host.unwrap().as_str()), (TestKind::Plain, "api.example"));

    let (port, tunnel) = case("connect: \"8443 db.example:5432\"");
    assert_eq!((port, &*tunnel.method, tunnel.path.as_str()), (8443, "CONNECT", "/"));
    assert_eq!(
        (tunnel.kind, tunnel.host.unwrap().as_str()),
        (TestKind::Connect { port: Some(5432) }, "db.example")
    );

    let (port, upgrade) = case("upgrade: 8443 websocket /live");
    assert_eq!((port, &*upgrade.method, upgrade.path.as_str()), (8443, "GET", "/live"));
    assert_eq!(upgrade.kind, TestKind::Upgrade { protocol: "websocket".into() });
}

#[test]
fn a_tunnel_may_be_written_without_quotes() {
    assert_eq!(case("connect: 8443 db.example:5432").1.kind, TestKind::Connect { port: Some(5432) });
}

#[test]
fn headers_of_a_test_are_field_lines() {
    let (_, request) = case("http: GET 80 /, headers: {x-env: \"a, b\", x-user: [c, d]}");

    let lines: Vec<(&str, &str)> = request.headers.iter().map(|(name, line)| (&**name, &**line)).collect();
    assert_eq!(lines, [("x-env", "a, b"), ("x-user", "c"), ("x-user", "d")]);
}

#[test]
fn what_a_test_asks_is_checked() {
    for (asked, message, cure) in [
        (
            "http: CONNECT 80 /",
            "37: \"CONNECT 80 /\" is not a request such as \"GET 8443 /v1/rates\": a tunnel is asked for with \"connect: 8443 db.example:5432\"",
            "",
        ),
        (
            "grpc: 80 /a.B/C",
            "37: \"80 /a.B/C\" is not a call such as \"9443 payments.v1.Settlement/Submit\": it is a port, a service, a slash and a method",
            "",
        ),
        (
            "connect: 80",
            "40: \"80\" is not a tunnel such as \"8443 db.example:5432\": it is a port, a host and its port, as in \"8443 db.example:5432\"",
            "",
        ),
        (
            "connect: 80 a@b",
            "40: \"80 a@b\" is not a tunnel such as \"8443 db.example:5432\": host contains user information",
            "",
        ),
        (
            "upgrade: 80 h2c /",
            "40: \"80 h2c /\" is not an upgrade such as \"8443 websocket /live\": the requests that follow could not be seen",
            "",
        ),
        (
            "connect: 80 a.example, host: b.example",
            "60: the host of a tunnel is said under \"connect\"",
            "write it as in connect: 8443 db.example:5432",
        ),
        (
            "http: GET 80 /, method: GET",
            "47: \"method\" is said with the request in a test",
            "write it as in http: GET 8443 /v1/rates",
        ),
        (
            "http: GET 80 /, headers: {X-A: b}",
            "57: \"X-A\" is not in lower case; the names of headers have none",
            "write \"x-a\"",
        ),
        (
            "http: GET 80 /, sni: \"*\"",
            "52: \"*\" is not a server name: a server name is spelled out",
            "list the names",
        ),
    ] {
        let found = problem(&test(&format!("from: spiffe://a.test/x, {asked}, expect: deny")));
        assert_eq!(found, (format!("p.yaml:5:{message}"), cure.to_owned()), "{asked}");
    }
}
