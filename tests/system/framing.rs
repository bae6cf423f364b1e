//! Requests that two parsers read differently: refused with 400 and a closed connection, one denial on record,
//! and not a byte at the application. Identity headers are the sidecar's alone.

use std::io::{Read, Write};

use crate::support::audit::reason;
use crate::support::http::{self, headers};
use crate::support::sidecar::{CALLER, Callee, allow_path};
use crate::support::tls;

#[test]
fn ambiguous_framing_is_refused_with_400_and_a_closed_connection() {
    let callee = Callee::http();
    let corpus = corpus();
    assert!(corpus.len() > 40, "{} cases", corpus.len());

    let mut denied = 0;
    for (what, bytes) in &corpus {
        let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
        stream.write_all(bytes).unwrap();
        let answer = http::read_answer(&mut stream).unwrap_or_else(|error| panic!("{what}: {error}"));

        assert!(matches!(answer.status, 400 | 431 | 501 | 505), "{what}: {answer:?}");
        assert_closed(&mut stream, what);
        denied += 1;
        let record = callee.sidecar.audit.wait_for_denied(denied);
        assert_eq!(reason(&record), "malformed_request", "{what}: {record}");
        assert_eq!(callee.backend.seen_text(), "", "{what}: bytes reached the application");
    }

    let sound = tls::get(callee.inbound, &callee.caller, "/").unwrap();
    assert_eq!(sound.status, 200);
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    [transfer_codings(), lengths(), field_lines(), request_lines()].concat()
}

/// dataplane.md 6.2 rows 21 and 22: a length beside chunks, and codings other than `chunked`.
fn transfer_codings() -> Vec<(String, Vec<u8>)> {
    let old = b"POST /x HTTP/1.0\r\nHost: svc.internal\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let named = [
        ("CL then TE", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("TE then CL", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n")),
        ("TE twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("TE folded", post("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n")),
        ("TE in HTTP/1.0", old.to_vec()),
    ];
    let codings = [
        "chunked, identity",
        "xchunked",
        "chunked, chunked",
        "identity",
        "gzip",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "\u{b}chunked",
        "chunked,",
        ", chunked",
        "chunked chunked",
        "",
    ];
    let request = |coding: &str| post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n");
    let codings = codings.map(|coding| (format!("Transfer-Encoding {coding:?}"), request(coding)));
    owned(named).into_iter().chain(codings).collect()
}

/// Row 23.
fn lengths() -> Vec<(String, Vec<u8>)> {
    let values = [
        "+5",
        "0x5",
        "-5",
        "5, 6",
        "5,6",
        "5 5",
        "",
        "5.0",
        "\u{b}5",
        "5;",
        "99999999999999999999999",
        "5, +5",
    ];
    let request = |length: &str| post(&format!("Content-Length: {length}\r\n"), "hello");
    let values = values.map(|length| (format!("Content-Length {length:?}"), request(length)));
    let two = [("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"))];
    owned(two).into_iter().chain(values).collect()
}

/// Row 24: line ends, colons, and bytes that no field may hold.
fn field_lines() -> Vec<(String, Vec<u8>)> {
    owned([
        ("bare LF after a field", b"GET /x HTTP/1.1\r\nHost: svc.internal\nX: y\r\n\r\n".to_vec()),
        ("bare LF after the request line", b"GET /x HTTP/1.1\nHost: svc.internal\r\n\r\n".to_vec()),
        ("bare LF only", b"GET /x HTTP/1.1\nHost: svc.internal\n\n".to_vec()),
        ("a line feed first", [b"\n".as_slice(), &get("")].concat()),
        ("bare CR in a value", get("X-A: one\rX-B: two\r\n")),
        ("space before the colon", get("X-A : one\r\n")),
        ("space before the colon of a length", post("Content-Length : 5\r\n", "hello")),
        ("a field that starts with a space", get(" X-A: one\r\n")),
        ("a folded field", get("X-A: one\r\n two\r\n")),
        ("no field name", get(": one\r\n")),
        ("no colon", get("X-A one\r\n")),
        ("NUL in a value", get("X-A: one\0two\r\n")),
        ("NUL in a name", get("X\0A: one\r\n")),
        ("a control byte in a value", get("X-A: one\u{7f}\r\n")),
    ])
}

fn request_lines() -> Vec<(String, Vec<u8>)> {
    let lines = [
        "GET  /x HTTP/1.1",
        "GET /x  HTTP/1.1",
        "GET\t/x HTTP/1.1",
        "GET /x HTTP/1.1 ",
        " GET /x HTTP/1.1",
        "GET /x HTTP/1.2",
        "GET /x HTTP/2.0",
        "GET /x http/1.1",
        "GET /x",
        "GET /x y HTTP/1.1",
        "G(T /x HTTP/1.1",
        "GET x HTTP/1.1",
    ];
    let request = |line: &str| format!("{line}\r\nHost: svc.internal\r\n\r\n").into_bytes();
    lines.map(|line| (format!("{line:?}"), request(line))).to_vec()
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: svc.internal\r\n{fields}\r\n").into_bytes()
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /x HTTP/1.1\r\nHost: svc.internal\r\n{fields}\r\n{body}").into_bytes()
}

fn owned<const N: usize>(cases: [(&str, Vec<u8>); N]) -> Vec<(String, Vec<u8>)> {
    cases.map(|(what, bytes)| (what.to_owned(), bytes)).to_vec()
}

#[test]
fn broken_chunks_never_become_a_second_request() {
    let callee = Callee::http();
    let chunks = [
        ("a size that overflows", "FFFFFFFFFFFFFFFFF\r\nx"),
        ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("an empty size", "\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "3\r\nhello\r\n0\r\n\r\n"),
        ("a huge extension", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000))),
    ];

    for (what, body) in chunks {
        callee.backend.forget();
        let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: svc.internal\r\n\r\n";
        let request = format!(
            "POST /x HTTP/1.1\r\nHost: svc.internal\r\nTransfer-Encoding: chunked\r\n\r\n{body}{smuggled}"
        );
        let _may_be_cut_while_writing = stream.write_all(request.as_bytes());
        let answer = http::read_answer(&mut stream);

        assert!(!matches!(&answer, Ok(answer) if answer.status == 200), "{what}: {answer:?}");
        assert_closed(&mut stream, what);
        assert!(
            !callee.backend.seen_text().contains("GET /smuggled"),
            "{what}: {}",
            callee.backend.seen_text()
        );
    }
}

#[test]
fn nothing_behind_a_denied_request_on_the_same_connection_is_read_as_a_request() {
    let callee = Callee::start("http", crate::support::backend::Backend::http(), allow_path_for);
    let inner = "GET /allowed/inner HTTP/1.1\r\nHost: svc.internal\r\n\r\n";
    let denied_post = format!(
        "POST /forbidden HTTP/1.1\r\nHost: svc.internal\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    );
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();

    stream.write_all(denied_post.as_bytes()).unwrap();
    let first = http::read_answer(&mut stream).unwrap();
    let mut rest = Vec::new();
    let _closed_or_idle = stream.sock.set_read_timeout(Some(std::time::Duration::from_millis(500)));
    let _end = stream.read_to_end(&mut rest);

    assert_eq!(first.status, 403);
    assert_eq!(String::from_utf8_lossy(&rest), "", "the body of a denied request was answered as a request");
    callee.sidecar.audit.wait_for_denied(1);
    assert_eq!(callee.backend.seen_text(), "");
}

#[test]
fn each_pipelined_request_is_decided_for_itself() {
    let callee = Callee::start("http", crate::support::backend::Backend::http(), allow_path_for);
    let pipeline = "GET /allowed/1 HTTP/1.1\r\nHost: svc.internal\r\n\r\nGET /forbidden HTTP/1.1\r\nHost: svc.internal\r\n\r\nGET /allowed/2 HTTP/1.1\r\nHost: svc.internal\r\n\r\n";
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();

    stream.write_all(pipeline.as_bytes()).unwrap();
    let first = http::read_answer(&mut stream).unwrap();
    let second = http::read_answer(&mut stream).unwrap();
    let third = http::read_answer(&mut stream);

    assert_eq!((first.status, second.status), (200, 403));
    assert!(matches!(&third, Ok(answer) if answer.status == 200) || third.is_err(), "{third:?}");
    let seen = callee.backend.seen_text();
    assert!(seen.contains("GET /allowed/1 ") && !seen.contains("/forbidden"), "{seen}");
    callee.sidecar.audit.wait_for_denied(1);
}

fn allow_path_for(to: &str, from: &str, port: u16) -> String {
    allow_path("api", to, from, port)
}

#[test]
fn a_denied_request_is_told_an_opaque_id_and_nothing_else() {
    let callee = Callee::start("http", crate::support::backend::Backend::http(), allow_path_for);

    let answer = tls::get(callee.inbound, &callee.caller, "/forbidden").unwrap();

    assert_eq!(answer.status, 403);
    let record = callee.sidecar.audit.wait_for_denied(1);
    let told = format!("{}{}", answer.head, answer.text());
    for secret in ["spiffe://", "api.yaml", "reads", "no_allow_matched", "policy"] {
        assert!(!told.contains(secret), "the refusal tells {secret:?}: {told}");
    }
    let ids: Vec<&str> =
        told.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() == 26).collect();
    assert!(
        ids.iter().any(|id| record.to_string().contains(id)),
        "no denial id of the record in {told}; {record}"
    );
}

/// Row 20: spoofed identity headers, in several cases, repeated, and nominated in `Connection`.
#[test]
fn identity_headers_from_outside_never_reach_the_application() {
    let callee = Callee::http();
    let request = "GET /x HTTP/1.1\r\nHost: svc.internal\r\nX-Forwarded-Client-Cert: URI=spiffe://prod.test/admin\r\n\
         x-forwarded-client-cert: URI=spiffe://prod.test/root\r\nX-SPIFFE-ID: spiffe://prod.test/admin\r\n\
         l5d-client-id: admin\r\nX-Vouchsafe-Peer: spiffe://prod.test/admin\r\n\
         Connection: close, X-Forwarded-Client-Cert\r\n\r\n";

    let answer = tls::exchange(callee.inbound, &callee.caller, request.as_bytes()).unwrap();

    let arrived = answer.text();
    let certificates = headers(&arrived, "x-forwarded-client-cert");
    assert_eq!(certificates.len(), 1, "{arrived}");
    assert!(certificates[0].contains(&callee.authority.id(CALLER)), "{arrived}");
    for spoofed in ["spiffe://prod.test/admin", "spiffe://prod.test/root", "l5d-client-id"] {
        assert!(!arrived.contains(spoofed), "{spoofed} arrived: {arrived}");
    }
    for hop in ["connection", "x-spiffe-id", "x-vouchsafe-peer"] {
        let values = headers(&arrived, hop);
        assert!(
            values.iter().all(|value| !value.to_ascii_lowercase().contains("x-forwarded")),
            "{hop}: {arrived}"
        );
    }
}

#[test]
fn headers_beyond_the_limits_are_refused_and_do_not_reach_the_application() {
    let callee = Callee::http();
    let floods = [
        ("one huge header", format!("X-A: {}\r\n", "a".repeat(1 << 20))),
        ("ten thousand headers", "X-A: b\r\n".repeat(10_000)),
        ("a huge path", String::new()),
    ];

    for (what, fields) in floods {
        let path = if fields.is_empty() { "/".to_owned() + &"a".repeat(1 << 20) } else { "/x".to_owned() };
        let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
        let _may_be_cut_while_writing =
            stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: svc.internal\r\n{fields}\r\n").as_bytes());
        let answer = http::read_answer(&mut stream);

        assert!(!matches!(&answer, Ok(answer) if answer.status < 400), "{what}: {answer:?}");
        assert_eq!(callee.backend.seen_text(), "", "{what}");
    }
}

fn assert_closed(stream: &mut tls::Client, what: &str) {
    let mut rest = Vec::new();
    let outcome = stream.read_to_end(&mut rest);
    let open = matches!(&outcome, Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    assert!(!open, "{what}: the connection stays open");
    assert_eq!(String::from_utf8_lossy(&rest), "", "{what}: more than one answer");
}
