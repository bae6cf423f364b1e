//! What rules may ask beside path and method (headers, the server name, the port, the network of the caller) is what
//! the connection and the forwarded request have, never what somebody says of them.

use crate::support::audit::reason;
use crate::support::backend::Backend;
use crate::support::http::{Answer, headers};
use crate::support::sidecar::Callee;
use crate::support::tls;

/// dataplane.md 6.2 row 31.
#[test]
fn an_allow_rule_wants_every_value_of_a_header_and_a_deny_rule_any() {
    let callee = callee(
        "headers: {x-role: [user]}, paths: [/allowed/**]",
        "deny:
  - name: no-admins
    from: [anyone]
    http: {port: any, headers: {x-role: [admin]}}
",
    );

    let good: [&[&str]; 4] = [
        &["x-role: user"],
        &["X-Role: user"],
        &["x-role: user", "x-role: user"],
        &["x-role: user", "x-other: admin"],
    ];
    for fields in good {
        assert_eq!(get(&callee, "/allowed/x", fields).status, 200, "{fields:?}");
    }
    callee.backend.forget();
    let bad: [(&[&str], &str); 10] = [
        (&[], "no_allow_matched"),
        (&["x-role:"], "no_allow_matched"),
        (&["x-role: users"], "no_allow_matched"),
        (&["x-role: user", "x-role: guest"], "no_allow_matched"),
        (&["x-role: user, guest"], "no_allow_matched"),
        (&["x-role: user", "x_role: guest"], "no_allow_matched"),
        (&["x-role: user", "x-role: admin"], "explicit_deny"),
        (&["x-role: user, admin"], "explicit_deny"),
        (&["x-role: user", "x_role: admin"], "explicit_deny"),
        (&["x-role: user", "X-ROLE: admin"], "explicit_deny"),
    ];
    for (number, (fields, expected)) in (1..).zip(bad) {
        assert_eq!(get(&callee, "/allowed/x", fields).status, 403, "{fields:?}");
        let record = callee.sidecar.audit.wait_for_denied(number);
        assert_eq!(reason(&record), expected, "{fields:?}: {record}");
    }
    assert_eq!(callee.backend.seen_text(), "");
}

/// policy-and-audit.md 6 row 17: what is decided about is what is forwarded.
#[test]
fn a_header_that_is_not_forwarded_satisfies_no_rule() {
    for (header, extra) in
        [("x-role: user", "connection: close, x-role"), ("x-role: user", "connection: X-Role")]
    {
        let callee = callee("headers: {x-role: [user]}", "");

        assert_eq!(get(&callee, "/", &[header, extra]).status, 403, "{extra}");
        assert_eq!(callee.backend.seen_text(), "");
    }
}

/// dataplane.md 6.2 row 32.
#[test]
fn headers_that_name_another_method_or_path_do_not_reach_the_application_in_any_spelling() {
    let callee = Callee::http();
    let overrides = [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_http_method_override",
        "x_http-method_override",
        "X_HTTP_METHOD",
        "x_method_override",
        "X-Original-URL",
        "x_original_url",
        "X-Rewrite-URL",
        "x_forwarded_host",
    ];

    for name in overrides {
        callee.backend.forget();
        let answer = get(&callee, "/x", &[&format!("{name}: DELETE"), "x-kept: yes"]);

        let seen = callee.backend.seen_text();
        assert_eq!(answer.status, 200, "{name}");
        assert!(!seen.contains("DELETE") && headers(&seen, name).is_empty(), "{name} in {seen}");
        assert_eq!(headers(&seen, "x-kept"), ["yes"], "{seen}");
    }
}

/// dataplane.md 6.2 row 30: the name in the handshake is compared for itself; the request goes by its own host.
#[test]
fn the_server_name_of_the_handshake_is_what_a_rule_about_it_sees() {
    // The test's client asks for `vouchsafe.invalid`.
    let right = callee_with_sni("vouchsafe.invalid");
    let other = callee_with_sni("other.invalid");

    assert_eq!(get(&right, "/", &[]).status, 200);
    let text = "GET / HTTP/1.1\r\nHost: other.invalid\r\nConnection: close\r\n\r\n";
    let named_in_host = tls::exchange(other.inbound, &other.caller, text.as_bytes()).unwrap();

    assert_eq!(named_in_host.status, 403, "a host is no server name");
    let record = other.sidecar.audit.wait_for_denied(1);
    assert_eq!(record["tls"]["sni"], "vouchsafe.invalid", "{record}");
    assert_eq!(record["unmapped"]["vouchsafe"]["near_miss"][0]["failed"], "sni", "{record}");
    assert_eq!(other.backend.connections(), 0);
}

/// policy-and-audit.md 6 row 12.
#[test]
fn the_network_of_a_caller_is_that_of_its_socket_whatever_a_header_says() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: office\n    from: [{from}]\n    source_net: [10.0.0.0/8]\n    http: {{port: {port}}}\n"
        )
    });

    for field in ["x-forwarded-for: 10.1.2.3", "forwarded: for=10.1.2.3", "x-real-ip: 10.1.2.3", "x-kept: 1"]
    {
        assert_eq!(get(&callee, "/", &[field]).status, 403, "{field}");
    }
    assert_eq!(callee.backend.connections(), 0);
}

/// policy-and-audit.md 6 row 13.
#[test]
fn the_port_of_a_rule_is_the_port_that_was_accepted_whatever_the_host_says() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        let other = if port == 9999 { 9998 } else { 9999 };
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: other-port\n    from: [{from}]\n    http: {{port: {other}}}\n"
        )
    });

    for host in ["svc.internal:9999", "svc.internal:9998", "svc.internal"] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = tls::exchange(callee.inbound, &callee.caller, text.as_bytes()).unwrap();
        assert_eq!(answer.status, 403, "{host}");
    }
    assert_eq!(callee.backend.connections(), 0);
}

/// dataplane.md 6.2 row 33, as far as HTTP/1 goes.
#[test]
fn a_grpc_rule_is_about_one_spelling_of_service_and_method() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: charges\n    from: [{from}]\n    grpc: {{port: {port}, service: shop.Payments, methods: [Charge]}}\n"
        )
    });
    let call = |line: &str| {
        let text = format!(
            "{line} HTTP/1.1\r\nHost: svc.internal\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        tls::exchange(callee.inbound, &callee.caller, text.as_bytes()).unwrap().status
    };

    assert_eq!(call("POST /shop.Payments/Charge"), 200);
    assert_eq!(call("POST //shop.Payments/Charge"), 200, "decided and forwarded as one path");
    assert!(callee.backend.seen_text().matches("POST /shop.Payments/Charge ").count() == 2);
    callee.backend.forget();
    for line in [
        "GET /shop.Payments/Charge",
        "POST /shop.payments/Charge",
        "POST /shop.Payments/charge",
        "POST /shop.Payments/Refund",
        "POST /shop.Payments/Charge/",
        "POST /Payments/Charge",
        "POST /shopxPayments/Charge",
    ] {
        assert_eq!(call(line), 403, "{line}");
    }
    assert_eq!(callee.backend.seen_text(), "");
}

/// policy-and-audit.md 6 row 17.
#[test]
fn a_tunnel_and_another_protocol_pass_by_no_rule_for_requests() {
    let callee = Callee::http();

    for text in [
        "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: svc.internal\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: svc.internal\r\nConnection: upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
    ] {
        let answer = tls::exchange(callee.inbound, &callee.caller, text.as_bytes()).unwrap();
        assert_eq!(answer.status, 403, "{text}");
    }
    let record = callee.sidecar.audit.wait_for_denied(3);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
    assert_eq!(callee.backend.connections(), 0);
}

/// A sidecar that allows its caller what `http` says, with `more` in the policy.
fn callee(http: &str, more: &str) -> Callee {
    Callee::start("http", Backend::http(), |to, from, _| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: some\n    from: [{from}]\n    http: {{port: any, {http}}}\n{more}"
        )
    })
}

fn callee_with_sni(name: &str) -> Callee {
    Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: named\n    from: [{from}]\n    sni: [{name}]\n    http: {{port: {port}}}\n"
        )
    })
}

fn get(callee: &Callee, path: &str, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let text = format!("GET {path} HTTP/1.1\r\nHost: svc.internal\r\n{fields}Connection: close\r\n\r\n");
    tls::exchange(callee.inbound, &callee.caller, text.as_bytes()).unwrap()
}
