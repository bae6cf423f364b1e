//! Rules that ask for a token: only one that its issuer signed, for us and for this time, opens anything, and which
//! one was refused is on record without the token.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::audit::reason;
use crate::support::backend::Backend;
use crate::support::http::{Answer, header};
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::sidecar::{CALLER, Callee, SERVER, Setup, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::tls;
use crate::support::tokens::{ISSUER, Signer, claims, encoded, key_set, now};
use crate::support::wait::{eventually, within};

/// A change of policy files is in force within this time.
const IN_FORCE: Duration = Duration::from_secs(10);

#[test]
fn a_rule_with_jwt_lets_only_a_valid_token_through() {
    let signer = Signer::new("one");
    let callee = protected(&signer);

    let good = settle(&callee, &[&bearer(&signer.token(&claims(json!({}))))]);

    assert_eq!(good.status, 200, "{}", good.text());
    assert!(
        header(&good.text(), "authorization").is_some(),
        "the application gets the token: {}",
        good.text()
    );
    callee.backend.forget();
    let without = settle(&callee, &[]);
    assert_eq!(without.status, 403);
    let record = record_of(&callee, &without);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
    assert!(record["unmapped"]["vouchsafe"]["jwt"].is_null(), "{record}");
    assert_eq!(callee.backend.seen_text(), "");
}

#[test]
fn every_flawed_token_is_refused_by_the_name_of_its_flaw_and_never_shown() {
    let signer = Signer::new("one");
    let callee = protected(&signer);
    let good = signer.token(&claims(json!({})));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let other_signature = format!("{first}{}", &signature[1..]);
    let with_header = |header: Value| signer.token_with(&header, &claims(json!({})));
    let flawed: Vec<(&str, String)> = vec![
        ("expired", signer.token(&claims(json!({ "exp": now() - 61 })))),
        ("no_expiry", signer.token(&claims(json!({ "exp": null })))),
        ("not_yet_valid", signer.token(&claims(json!({ "nbf": now() + 300 })))),
        ("audience", signer.token(&claims(json!({ "aud": "refunds" })))),
        ("audience", signer.token(&claims(json!({ "aud": null })))),
        ("unknown_issuer", signer.token(&claims(json!({ "iss": "https://login.test/" })))),
        ("unknown_issuer", signer.token(&claims(json!({ "iss": null })))),
        ("signature", Signer::new("one").token(&claims(json!({})))),
        ("unknown_key", Signer::new("../../../etc/passwd").token(&claims(json!({})))),
        ("algorithm", format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&claims(json!({}))))),
        ("algorithm", with_header(json!({ "alg": "HS256", "kid": "one" }))),
        ("key_mismatch", with_header(json!({ "alg": "RS256", "kid": "one" }))),
        ("critical", with_header(json!({ "alg": "ES256", "kid": "one", "crit": ["exp"] }))),
        ("embedded_key", with_header(json!({ "alg": "ES256", "jwk": signer.jwk() }))),
        ("signature", format!("{signed}.{}", other_signature)),
        ("parts", signed.to_owned()),
        ("base64", format!("{good}=")),
    ];

    for (flaw, token) in &flawed {
        let answer = settle(&callee, &[&bearer(token)]);
        assert_eq!(answer.status, 403, "{flaw}: {}", answer.text());
        let record = record_of(&callee, &answer);
        assert_eq!(reason(&record), "jwt_invalid", "{record}");
        assert_eq!(record["unmapped"]["vouchsafe"]["jwt"]["flaw"], *flaw, "{record}");
    }

    assert_eq!(callee.backend.seen_text(), "", "the application saw something");
    let log = std::fs::read_to_string(callee.sidecar.audit.path()).unwrap() + &callee.sidecar.process.log();
    assert!(!log.contains("ann-the-subject"), "the subject is in a log");
    for (flaw, token) in flawed.iter().filter(|(_, token)| token.len() > 100) {
        let part = token.split('.').nth(1).unwrap();
        assert!(!log.contains(part), "the token is in a log: {flaw}");
    }
}

#[test]
fn two_tokens_or_one_elsewhere_open_nothing() {
    let signer = Signer::new("one");
    let callee = protected(&signer);
    let token = signer.token(&claims(json!({})));
    let good = bearer(&token);

    let statuses = [
        settle(&callee, &[&good, &good]),
        settle(&callee, &[&good, "authorization: Basic eDp5"]),
        settle(&callee, &["authorization: Basic eDp5", &good]),
        settle(&callee, &[&good, "connection: close, authorization"]),
        settle(&callee, &[&format!("authorization: {token}")]),
        settle(&callee, &[&format!("authorization_: Bearer {token}")]),
        settle(&callee, &[&format!("x-token: {token}")]),
        settle(&callee, &[&format!("cookie: access_token={token}")]),
        request(&callee, &format!("POST /settle/1?access_token={token}"), &[]),
    ]
    .map(|answer| answer.status);

    assert_eq!(statuses, [403; 9]);
    assert_eq!(callee.backend.seen_text(), "");
}

#[test]
fn a_valid_token_opens_only_what_its_claims_open_and_a_flawed_one_closes_nothing_else() {
    let signer = Signer::new("one");
    let callee = protected(&signer);
    let reader = bearer(&signer.token(&claims(json!({ "scope": "read" }))));

    let refused = settle(&callee, &[&reader]);
    let open = request(&callee, "GET /open/x", &[&bearer("opaque-session-of-the-application")]);

    assert_eq!(refused.status, 403);
    let record = record_of(&callee, &refused);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
    assert_eq!(record["unmapped"]["vouchsafe"]["jwt"]["iss"], ISSUER, "{record}");
    assert_eq!(record["unmapped"]["vouchsafe"]["jwt"]["kid"], "one", "{record}");
    assert_eq!(open.status, 200, "{}", open.text());
}

#[test]
fn keys_that_change_in_the_file_are_taken_over() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let callee = protected(&old);
    let (by_old, by_new) = (bearer(&old.token(&claims(json!({})))), bearer(&new.token(&claims(json!({})))));
    assert_eq!([settle(&callee, &[&by_old]).status, settle(&callee, &[&by_new]).status], [200, 403]);

    callee.sidecar.policy("keys.json", &key_set(&[&old, &new]));
    within(IN_FORCE, "the new key counts beside the old", || {
        (settle_status(&callee, &[&by_new]) == 200).then_some(())
    });
    assert_eq!(settle(&callee, &[&by_old]).status, 200);

    callee.sidecar.policy("keys.json", &key_set(&[&new]));
    within(IN_FORCE, "the old key counts no longer", || {
        (settle_status(&callee, &[&by_old]) == 403).then_some(())
    });
    assert_eq!(settle(&callee, &[&by_new]).status, 200);
}

#[test]
fn a_broken_key_file_keeps_the_keys_in_force_and_says_so() {
    let signer = Signer::new("one");
    let callee = protected(&signer);
    let good = bearer(&signer.token(&claims(json!({}))));

    callee.sidecar.policy("keys.json", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\"}]}");
    let problem = within(IN_FORCE, "readiness tells of the broken keys", || callee.sidecar.policy_problem());

    assert!(problem.contains("keys.json") || callee.sidecar.process.log().contains("keys.json"), "{problem}");
    assert_eq!(settle(&callee, &[&good]).status, 200);
    assert_eq!(settle(&callee, &[]).status, 403);
}

#[test]
fn keys_at_an_address_are_fetched_and_until_then_no_token_counts() {
    let signer = Signer::new("one");
    let site = KeySite::start(&key_set(&[&signer]));
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
    let (to, from) = (authority.id(SERVER), authority.id(CALLER));
    let keys = format!("{{url: \"https://localhost:{}/keys\"}}", site.port);
    write_policy(&root.path().join("api"), "api.yaml", &policy(&to, &from, inbound.port(), &keys));
    std::fs::write(root.path().join("ca.pem"), &site.authority).unwrap();
    let backend = Backend::http();
    let sidecar = Setup::new("api")
        .pem(&root.path().join("pem"))
        .inbound("http", inbound, backend.address())
        .key_authorities(&root.path().join("ca.pem"))
        .start(root.path());
    let caller = authority.svid(CALLER);
    let ask = |token: &str| {
        let text = text("POST /settle/1", &[&bearer(token)]);
        tls::exchange(inbound, &caller, text.as_bytes()).map_or(0, |answer| answer.status)
    };

    eventually("the keys have been fetched", || {
        (ask(&signer.token(&claims(json!({})))) == 200).then_some(())
    });

    assert_eq!(ask(&Signer::new("one").token(&claims(json!({})))), 403);
    assert!(sidecar.metric("vouchsafe_proxy_token_key_fetches_total", &["good"]) >= 1.0);
    assert!(sidecar.metric("vouchsafe_proxy_tokens_total", &["verified"]) >= 1.0);
}

#[test]
fn istios_request_authentication_refuses_every_invalid_token_and_keeps_the_valid_one_from_the_application() {
    let signer = Signer::new("one");
    let callee =
        Callee::start("http", Backend::http(), |to, from, port| allow_all("api", to, from, "http", port));
    callee.sidecar.policy("istio.yaml", &istio(&signer, ""));
    callee.sidecar.remove_policy("api.yaml");
    let good = bearer(&signer.token(&claims(json!({}))));
    let endless = bearer(&signer.token(&claims(json!({ "exp": null }))));
    let bad = bearer(&Signer::new("one").token(&claims(json!({}))));
    within(IN_FORCE, "Istio's rules are in force", || (settle_status(&callee, &[]) == 403).then_some(()));
    callee.backend.forget();

    assert_eq!(settle(&callee, &[&good]).status, 200);
    assert_eq!(settle(&callee, &[&endless]).status, 200, "as Envoy has it");
    assert_eq!(request(&callee, "GET /open/x", &[]).status, 200, "no token is needed there");
    let seen = callee.backend.seen_text();
    assert!(!seen.to_lowercase().contains("authorization"), "the application saw the token: {seen}");
    callee.backend.forget();
    let refused = request(&callee, "GET /open/x", &[&bad]);
    assert_eq!(refused.status, 403, "an invalid token is refused even where none is needed");
    assert_eq!(reason(&record_of(&callee, &refused)), "jwt_invalid");
    assert_eq!(callee.backend.seen_text(), "");

    callee.sidecar.policy("istio.yaml", &istio(&signer, "forwardOriginalToken: true"));
    within(IN_FORCE, "the token goes on where Istio's file says so", || {
        callee.backend.forget();
        let status = settle_status(&callee, &[&good]);
        (status == 200 && callee.backend.seen_text().to_lowercase().contains("authorization: bearer "))
            .then_some(())
    });
}

/// Istio's files: a token for `/settle`, none for `/open`.
fn istio(signer: &Signer, more: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: login, namespace: shop}}
spec:
  jwtRules:
    - issuer: {ISSUER}
      audiences: [payments]
      jwks: '{}'
      {more}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: api, namespace: shop}}
spec:
  action: ALLOW
  rules:
    - from:
        - source:
            requestPrincipals: [{ISSUER}/ann-the-subject]
      to:
        - operation: {{paths: [/settle/*]}}
    - to:
        - operation: {{paths: [/open/*]}}
",
        key_set(&[signer])
    )
}

/// A sidecar whose policy lets the caller settle with a token of this signer's, and read `/open` without.
fn protected(signer: &Signer) -> Callee {
    let callee =
        Callee::start("http", Backend::http(), |to, from, port| allow_all("api", to, from, "http", port));
    let (to, from, port) = (callee.authority.id(SERVER), callee.authority.id(CALLER), callee.inbound.port());
    callee.sidecar.policy("keys.json", &key_set(&[signer]));
    callee.sidecar.policy("api.yaml", &policy(&to, &from, port, "{file: keys.json}"));
    within(IN_FORCE, "the policy with tokens is in force", || {
        let answer = tls::get(callee.inbound, &callee.caller, "/neither").ok()?;
        (answer.status == 403).then_some(())
    });
    callee.backend.forget();
    callee
}

fn policy(to: &str, from: &str, port: u16, keys: &str) -> String {
    format!(
        "vouchsafe: policy/v1
name: api
protects: {to}
mode: enforce
issuers:
  - issuer: {ISSUER}
    audiences: [payments]
    keys: {keys}
allow:
  - name: settle
    from: [{from}]
    jwt: {{issuer: {ISSUER}, audience: payments, claims: {{scope: [settle]}}}}
    http: {{port: {port}, methods: [POST], paths: [/settle/**]}}
  - name: open
    from: [{from}]
    http: {{port: {port}, methods: [GET], paths: [/open/**]}}
"
    )
}

/// The record of a refusal, by the name that the answer gives it.
fn record_of(callee: &Callee, answer: &Answer) -> Value {
    let id = answer.header("x-vouchsafe-denial-id");
    callee.sidecar.audit.wait_for_denial(|record| {
        id.is_some() && record["unmapped"]["vouchsafe"]["denial_id"].as_str() == id.as_deref()
    })
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

fn text(line: &str, fields: &[&str]) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nHost: svc.internal\r\n{fields}Connection: close\r\n\r\n")
}

fn request(callee: &Callee, line: &str, fields: &[&str]) -> Answer {
    tls::exchange(callee.inbound, &callee.caller, text(line, fields).as_bytes()).unwrap()
}

fn settle(callee: &Callee, fields: &[&str]) -> Answer {
    request(callee, "POST /settle/1", fields)
}

/// A reload may meet the request on its way and cut it.
fn settle_status(callee: &Callee, fields: &[&str]) -> u16 {
    let text = text("POST /settle/1", fields);
    tls::exchange(callee.inbound, &callee.caller, text.as_bytes()).map_or(0, |answer| answer.status)
}

/// An HTTPS server for `localhost` that publishes one key set.
struct KeySite {
    port: u16,
    authority: String,
}

impl KeySite {
    fn start(keys: &str) -> Self {
        use std::io::Write as _;

        let (config, authority) = crate::support::tls::web_server("localhost");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{keys}", keys.len());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let connection = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(connection, socket);
                // Whoever breaks off is not looked after.
                if crate::support::http::read_head(&mut stream).is_ok() {
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        Self { port, authority }
    }
}
