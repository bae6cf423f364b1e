use crate::document::tests::{FROM, HEAD, accepted, problem, refusal, rule};
use crate::document::{KeyFiles, Kinds, Layer, Limit, MAX_PROTOCOLS, MAX_SERVICES, Rule, read};
use crate::strict::Source;

fn one(text: &str) -> Rule {
    let document = read(&Source::new("p.yaml", text), &KeyFiles::default());
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    (*document.policy.rules[0]).clone()
}

fn deny(keys: &str) -> String {
    rule(keys).replace("allow:", "deny:")
}

/// The kinds of requests and the paths of a rule.
fn asked(text: &str) -> (Kinds, Vec<String>, Vec<String>) {
    let Layer::Http(limits) = one(text).layer else { panic!("{text} is about TCP") };
    let listed = |limit: &dyn Fn() -> Option<Vec<String>>| limit().unwrap_or_else(|| vec!["any".to_owned()]);
    let methods = listed(&|| match &limits.methods {
        Limit::Any => None,
        Limit::Only(all) => Some(all.iter().map(ToString::to_string).collect()),
    });
    let paths = listed(&|| match &limits.paths {
        Limit::Any => None,
        Limit::Only(all) => Some(all.iter().map(ToString::to_string).collect()),
    });
    (limits.kinds, methods, paths)
}

#[test]
fn an_allow_rule_grants_one_kind_and_an_http_denial_refuses_every_kind() {
    let http = format!("{FROM}, http: {{port: 80}}");
    let upgrade = format!("{FROM}, upgrade: {{port: 80, protocols: [websocket]}}");
    let connect = format!("{FROM}, connect: {{port: 80, to_ports: [443, 8000-8010]}}");

    assert_eq!(asked(&rule(&http)).0, Kinds::Plain);
    assert_eq!(asked(&deny(&http)).0, Kinds::Every);
    let websocket = Kinds::Upgrade { protocols: Limit::Only(vec!["websocket".into()]) };
    assert_eq!(asked(&rule(&upgrade)).0, websocket);
    assert_eq!(asked(&deny(&upgrade)).0, websocket);
    let tunnel = Kinds::Connect { to_ports: Limit::Only(vec![443..=443, 8000..=8010]) };
    assert_eq!(asked(&rule(&connect)).0, tunnel);
    assert_eq!(asked(&deny(&connect)).0, tunnel);
}

#[test]
fn a_grpc_rule_is_about_posts_to_service_and_method() {
    for (keys, paths) in [
        ("service: a.v1.B, methods: [Get, Put]", vec!["/a.v1.B/Get", "/a.v1.B/Put"]),
        ("services: [a.B, C]", vec!["/a.B/*", "/C/*"]),
        ("methods: [Get]", vec!["/*/Get"]),
        ("hosts: [api.example]", vec!["/*/*"]),
    ] {
        let (kinds, methods, found) = asked(&rule(&format!("{FROM}, grpc: {{port: 80, {keys}}}")));

        assert_eq!((kinds, methods), (Kinds::Plain, vec!["POST".to_owned()]), "{keys}");
        assert_eq!(found, paths, "{keys}");
    }
}

#[test]
fn a_key_that_has_no_place_is_refused_with_its_place() {
    for (keys, message, cure) in MISPLACED {
        let found = problem(&rule(&format!("{FROM}, {keys}")));
        assert_eq!(found, (format!("p.yaml:5:{message}"), (*cure).to_owned()), "{keys}");
    }
}

const MISPLACED: &[(&str, &str, &str)] = &[
    (
        "tcp: {port: 80, headers: {x-a: [b]}}",
        "58: \"headers\" has no meaning for opaque TCP",
        "write \"http\" in place of \"tcp\"",
    ),
    (
        "tcp: {port: 80, service: a.B}",
        "58: \"service\" has no meaning for opaque TCP",
        "write \"grpc\" in place of \"tcp\"",
    ),
    (
        "tcp: {port: 80, sni: [a.example]}",
        "58: \"sni\" belongs to the rule, beside \"tcp\"",
        "move it out of the braces",
    ),
    (
        "http: {port: 80, jwt: {issuer: a}}",
        "59: \"jwt\" belongs to the rule, beside \"http\"",
        "move it out of the braces",
    ),
    (
        "http: {port: 80, from: [anyone]}",
        "59: \"from\" belongs to the rule, beside \"http\"",
        "move it out of the braces",
    ),
    (
        "http: {port: 80, service: a.B}",
        "59: \"service\" belongs to gRPC requests",
        "write \"grpc\" in place of \"http\", or name the path",
    ),
    (
        "http: {port: 80, upgrade: websocket}",
        "59: \"upgrade\" belongs to upgrades, a kind of their own",
        "write a rule with \"upgrade\"",
    ),
    (
        "http: {port: 80, to_ports: [1]}",
        "59: \"to_ports\" belongs to tunnels, a kind of their own",
        "write a rule with \"connect\"",
    ),
    (
        "grpc: {port: 80, paths: [/a]}",
        "59: \"paths\" is what \"service\" and \"methods\" say of a gRPC request",
        "write \"http\" in place of \"grpc\"",
    ),
    (
        "connect: {port: 80, paths: [/a]}",
        "62: \"paths\" has no meaning for a tunnel",
        "leave it out, or write a rule with \"http\"",
    ),
    (
        "upgrade: {port: 80, methods: [GET]}",
        "62: \"methods\" has no meaning for an upgrade",
        "leave it out, or write a rule with \"http\"",
    ),
    (
        "headers: {x-a: [b]}, http: {port: 80}",
        "42: \"headers\" belongs under \"http\"",
        "move it into http: {…}",
    ),
    ("service: a.B, grpc: {port: 80}", "42: \"service\" belongs under \"grpc\"", "move it into grpc: {…}"),
    ("claims: {a: [b]}, http: {port: 80}", "42: \"claims\" belongs under \"jwt\"", "move it into jwt: {…}"),
    (
        "port: 80, http: {port: 80}",
        "42: \"port\" belongs under \"tcp\" or \"http\"",
        "move it into tcp: {…} or http: {…}",
    ),
    (
        "http: {port: 80}, grpc: {port: 80}",
        "66: a rule is either \"http\" or \"grpc\"",
        "split it into two rules",
    ),
];

#[test]
fn what_a_kind_of_traffic_says_is_checked() {
    for (keys, message, cure) in WRONG {
        let found = problem(&rule(&format!("{FROM}, {keys}")));
        assert_eq!(found, (format!("p.yaml:5:{message}"), (*cure).to_owned()), "{keys}");
    }
}

const WRONG: &[(&str, &str, &str)] = &[
    (
        "grpc: {port: 80, service: a/B}",
        "68: \"a/B\" is not a gRPC service",
        "write it with its package, as in payments.v1.Settlement",
    ),
    (
        "grpc: {port: 80, service: a..B}",
        "68: \"a..B\" is not a gRPC service",
        "write it with its package, as in payments.v1.Settlement",
    ),
    (
        "grpc: {port: 80, service: \"*\"}",
        "68: \"*\" is not a gRPC service",
        "write it with its package, as in payments.v1.Settlement",
    ),
    ("grpc: {port: 80, methods: [a/B]}", "69: \"a/B\" is not a gRPC method", "write it as in Submit"),
    ("grpc: {port: 80, methods: [\"1a\"]}", "69: \"1a\" is not a gRPC method", "write it as in Submit"),
    (
        "grpc: {port: 80, service: a.B, services: [a.B]}",
        "83: \"service\" and \"services\" are both given",
        "keep one of the two",
    ),
    (
        "grpc: {service: a.B}",
        "48: the key \"port\" is missing",
        "add \"port: 8443\", \"ports: [8443, 9000-9010]\" or \"port: any\"",
    ),
    (
        "connect: {port: 80, to_ports: [any]}",
        "73: \"any\" is not one of several ports",
        "leave \"to_ports\" out for every port",
    ),
    ("connect: {port: 80, to_port: [1]}", "62: unknown key \"to_port\"", "did you mean \"to_ports\"?"),
    (
        "upgrade: {port: 80, protocols: [WebSocket]}",
        "74: \"WebSocket\" is not a protocol: protocols are compared in lower case",
        "write \"websocket\"",
    ),
    (
        "upgrade: {port: 80, protocols: [h2c]}",
        "74: \"h2c\" is not a protocol: the requests that follow could not be seen",
        "",
    ),
    (
        "upgrade: {port: 80, protocols: [\"a b\"]}",
        "74: \"a b\" is not a protocol: protocols are named as in websocket",
        "",
    ),
    (
        "upgrade: {port: 80, protocols: []}",
        "73: the list is empty",
        "leave the key out, or name at least one",
    ),
];

#[test]
fn a_server_name_is_written_as_it_arrives() {
    accepted(&rule(&format!("{FROM}, sni: [api.example, localhost], tcp: {{port: 80}}")));
    for (name, why, cure) in [
        ("\"*.shop.example\"", "a server name is spelled out", "list the names"),
        ("\"a.*\"", "a server name is spelled out", "list the names"),
        ("API.example", "handshakes for it arrive as \"api.example\"", "write \"api.example\""),
        ("api.example.", "handshakes for it arrive as \"api.example\"", "write \"api.example\""),
        ("\"api.example:443\"", "a server name has no port", "name the port under \"port\""),
        ("10.0.0.1", "handshakes name no address", "use \"source_net\" or \"port\""),
        ("a/b", "host contains the character '/'", "write it as in api.example"),
    ] {
        let (message, found) = problem(&rule(&format!("{FROM}, sni: [{name}], tcp: {{port: 80}}")));
        let shown = name.trim_matches('"');
        assert_eq!(message, format!("p.yaml:5:48: \"{shown}\" is not a server name: {why}"));
        assert_eq!(found, cure);
    }
}

#[test]
fn services_and_protocols_are_accepted_to_their_limits_and_not_beyond() {
    let list = |count: usize| (0..count).map(|number| format!("s{number}")).collect::<Vec<_>>().join(", ");
    for (key, inner, limit) in [("grpc", "services", MAX_SERVICES), ("upgrade", "protocols", MAX_PROTOCOLS)] {
        let text = |count: usize| rule(&format!("{FROM}, {key}: {{port: 1, {inner}: [{}]}}", list(count)));

        accepted(&text(limit));
        assert!(refusal(&text(limit + 1)).contains(&format!("at most {limit} are accepted")));
    }
}

#[test]
fn services_times_methods_are_no_more_than_a_rule_has_paths() {
    let list = |count: usize| (0..count).map(|number| format!("m{number}")).collect::<Vec<_>>().join(", ");
    let text = |services: usize| {
        format!(
            "{HEAD}allow: [{{{FROM}, grpc: {{port: 1, services: [{}], methods: [{}]}}}}]\n",
            list(services),
            list(20)
        )
    };

    accepted(&text(50));
    assert!(
        refusal(&text(51)).contains("services and methods make 1020 combinations, at most 1000 are accepted")
    );
}
