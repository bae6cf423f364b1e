//! One path and one host: what the policy decides on is what the application is sent, and what could be read in
//! two ways is refused.

use crate::support::audit::reason;
use crate::support::backend::Backend;
use crate::support::http::header;
use crate::support::sidecar::Callee;
use crate::support::tls;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// The deny rule for `/admin/**` caught it.
    Denied,
    /// It can be read in two ways.
    Malformed,
    /// The application was sent this target.
    Forwarded(&'static str),
}

use Fate::{Denied, Forwarded, Malformed};

/// dataplane.md 6.2 row 28.
const PATHS: [(&str, Fate); 41] = [
    ("/", Forwarded("/")),
    ("/x", Forwarded("/x")),
    ("/x/y", Forwarded("/x/y")),
    ("/x?y=/admin", Forwarded("/x?y=/admin")),
    ("/x?y=%2fadmin", Forwarded("/x?y=%2fadmin")),
    ("/administrator", Forwarded("/administrator")),
    ("/ADMIN", Forwarded("/ADMIN")),
    ("/admin", Denied),
    ("/admin/", Denied),
    ("/admin/x", Denied),
    ("/admin?x", Denied),
    ("/admin?", Denied),
    ("//admin", Denied),
    ("///admin//x", Denied),
    ("/./admin", Denied),
    ("/././admin", Denied),
    ("/x/../admin", Denied),
    ("/x/y/../../admin", Denied),
    ("/x//../admin", Denied),
    ("/admin/.", Denied),
    ("/admin/x/..", Denied),
    ("/%61dmin", Denied),
    ("/adm%69n/x", Denied),
    ("/x/%2e%2e/admin", Denied),
    ("/%2e/admin", Denied),
    ("/x/.%2E/admin", Denied),
    ("/%2fadmin", Malformed),
    ("/x%2F..%2Fadmin", Malformed),
    ("/admin%2fx", Malformed),
    ("/x%5c..%5cadmin", Malformed),
    ("/x\\..\\admin", Malformed),
    ("/admin%00", Malformed),
    ("/x%00/../admin", Malformed),
    ("/admin%0a", Malformed),
    ("/x%zzadmin", Malformed),
    ("/x%2", Malformed),
    ("/../admin", Malformed),
    ("/x/../../admin", Malformed),
    ("/%2e%2e/admin", Malformed),
    ("/admin#x", Malformed),
    ("/x#/../admin", Malformed),
];

#[test]
fn the_path_that_policy_decides_on_is_the_path_that_is_forwarded() {
    let callee = guarded();
    let mut denied = 0;
    let mut wrong = Vec::new();

    for (path, expected) in PATHS {
        let fate = fate(&callee, path, "svc.internal", &mut denied);
        if fate != format!("{expected:?}") {
            wrong.push(format!("{path}: {fate}, want {expected:?}"));
        }
    }

    assert!(wrong.is_empty(), "{wrong:#?}");
    let seen = callee.backend.seen_text();
    let admin =
        seen.lines().find(|line| line.contains("/admin ") || line.contains("/admin/") && !line.contains('?'));
    assert_eq!(admin, None, "a request for the forbidden path reached the application");
}

/// A double encoding and a path parameter are forwarded as they are or refused, but never mean `/admin`.
#[test]
fn a_path_is_decoded_once_and_never_again() {
    let callee = guarded();

    for path in [
        "/%2561dmin",
        "/x/%252e%252e/admin",
        "/x%252f..%252fadmin",
        "/admin;x=y",
        "/x/..;/admin",
        "/admin%3bx",
        "/admin%20",
    ] {
        callee.backend.forget();
        let answer = tls::get(callee.inbound, &callee.caller, path).unwrap();
        let seen = callee.backend.seen_text();
        match answer.status {
            200 => {
                let target = seen.split(' ').nth(1).unwrap_or_default().to_owned();
                assert_eq!(target, path, "decoded or repaired on the way");
            }
            400 | 403 => assert_eq!(seen, "", "{path} was refused and forwarded"),
            other => panic!("{path}: {other}"),
        }
    }
}

/// A whole URI as the target, and targets that are no path.
#[test]
fn targets_in_other_forms_are_decided_by_the_same_path_and_host() {
    let callee = guarded();
    let cases = [
        ("GET http://svc.internal/admin HTTP/1.1\r\nHost: svc.internal\r\n", 403),
        ("GET http://svc.internal/x/../admin HTTP/1.1\r\nHost: svc.internal\r\n", 403),
        ("GET http://other.internal/x HTTP/1.1\r\nHost: svc.internal\r\n", 400),
        ("GET http://user@svc.internal/x HTTP/1.1\r\nHost: svc.internal\r\n", 400),
        ("GET ftp://svc.internal/x HTTP/1.1\r\nHost: svc.internal\r\n", 400),
        ("CONNECT svc.internal:443 HTTP/1.1\r\nHost: svc.internal:443\r\n", 400),
        ("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: svc.internal\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: svc.internal\r\n", 400),
    ];

    for (head, status) in cases {
        let answer = tls::exchange(callee.inbound, &callee.caller, format!("{head}\r\n").as_bytes()).unwrap();

        let refused =
            matches!((answer.status, status), (400 | 403 | 405 | 501, 400)) || answer.status == status;
        assert!(refused, "{head:?}: {answer:?}");
        assert_eq!(callee.backend.seen_text(), "", "{head:?} reached the application");
    }
    let allowed = "GET http://SVC.internal/x HTTP/1.1\r\nHost: svc.internal\r\n\r\n";
    let answer = tls::exchange(callee.inbound, &callee.caller, allowed.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    assert!(callee.backend.seen_text().starts_with("GET /x HTTP/1.1\r\n"), "{}", callee.backend.seen_text());
}

/// dataplane.md 6.2 row 29: the policy allows the host `svc.internal` only.
#[test]
fn hosts_are_compared_in_one_spelling_and_conflicts_are_refused() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: one-host\n    from: [{from}]\n    http: {{port: {port}, hosts: [svc.internal]}}\n"
        )
    });
    let cases: [(&str, &[u16]); 13] = [
        ("Host: svc.internal\r\n", &[200]),
        ("Host: SVC.Internal\r\n", &[200]),
        ("Host: svc.internal.\r\n", &[200, 400, 403]),
        ("Host: svc.internal:8080\r\n", &[200, 403]),
        ("Host: other.internal\r\n", &[403]),
        ("Host: svc.internal.other\r\n", &[403]),
        ("Host: svc.internal\r\nHost: svc.internal\r\n", &[400]),
        ("Host: svc.internal\r\nHost: other.internal\r\n", &[400]),
        ("Host: svc.internal, other.internal\r\n", &[400]),
        ("Host: user@svc.internal\r\n", &[400]),
        ("Host: svc.internal:x\r\n", &[400]),
        ("Host:\r\n", &[400]),
        ("", &[400]),
    ];

    for (fields, allowed) in cases {
        callee.backend.forget();
        let request = format!("GET /x HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        let answer = tls::exchange(callee.inbound, &callee.caller, request.as_bytes()).unwrap();

        assert!(allowed.contains(&answer.status), "{fields:?}: {} not in {allowed:?}", answer.status);
        let seen = callee.backend.seen_text();
        if answer.status == 200 {
            let host = header(&seen, "host").unwrap_or_default();
            assert!(
                host == "svc.internal" || host.starts_with("svc.internal:"),
                "{fields:?} was forwarded as {host:?}"
            );
        } else {
            assert_eq!(seen, "", "{fields:?} was refused and forwarded");
        }
    }
}

#[test]
fn methods_are_compared_as_they_are_and_never_overridden() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: reads\n    from: [{from}]\n    http: {{port: {port}, methods: [GET]}}\n"
        )
    });

    for (line, fields) in [
        ("get /x HTTP/1.1", ""),
        ("POST /x HTTP/1.1", "X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n"),
        ("POST /x HTTP/1.1", "X-HTTP-Method: GET\r\nContent-Length: 0\r\n"),
        ("TRACE /x HTTP/1.1", ""),
        ("BREW /x HTTP/1.1", ""),
    ] {
        let request = format!("{line}\r\nHost: svc.internal\r\n{fields}\r\n");
        let answer = tls::exchange(callee.inbound, &callee.caller, request.as_bytes()).unwrap();

        assert!(matches!(answer.status, 400 | 403 | 405 | 501), "{line}: {answer:?}");
        assert_eq!(callee.backend.seen_text(), "", "{line} {fields}");
    }
    callee.sidecar.audit.wait_for_denied(5);
}

/// Everything is allowed to the caller but what lies below `/admin`.
fn guarded() -> Callee {
    Callee::start("http", Backend::http(), |to, from, port| {
        format!(
            "vouchsafe: policy/v1\nname: api\nprotects: {to}\nmode: enforce\nallow:\n  - name: everything\n    from: [{from}]\n    http: {{port: {port}}}\ndeny:\n  - name: nobody-administers\n    from: [anyone]\n    http: {{port: {port}, paths: [/admin/**]}}\n"
        )
    })
}

fn fate(callee: &Callee, path: &str, host: &str, denied: &mut u64) -> String {
    callee.backend.forget();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = tls::exchange(callee.inbound, &callee.caller, request.as_bytes());
    let Ok(answer) = answer else { return format!("no answer: {answer:?}") };
    let seen = callee.backend.seen_text();
    if answer.status == 200 {
        let target = seen.split(' ').nth(1).unwrap_or_default();
        return format!("Forwarded({target:?})");
    }
    *denied += 1;
    let record = callee.sidecar.audit.wait_for_denied(*denied);
    match (answer.status, reason(&record)) {
        _ if !seen.is_empty() => format!("refused with {} and forwarded", answer.status),
        (403, "explicit_deny") => format!("{Denied:?}"),
        (400, "malformed_request") => format!("{Malformed:?}"),
        (status, reason) => format!("{status} {reason}"),
    }
}
