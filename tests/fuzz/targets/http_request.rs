//! The HTTP/1 request scanner against `httparse`, hyper and plain text: what it lets through has one reading.
#![no_main]

use fuzz::http::{Ending, MAX_FIELDS, MAX_HEAD, Message, Seen, check_framing, cut_makes_no_difference};
use fuzz::http::{messages, served, values};
use libfuzzer_sys::fuzz_target;
use policy::{CanonicalHost, CanonicalPath};
use proxy::fuzzing::Scanner;

fuzz_target!(|bytes: &[u8]| {
    let found = messages(scanner(), bytes);
    cut_makes_no_difference(scanner(), bytes, &found);
    let end: usize = found.iter().map(|message| message.head.len() + message.body.len()).sum();
    let seen = if found.is_empty() { Vec::new() } else { served(&bytes[..end]) };

    for (at, message) in found.iter().enumerate() {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let read = request.parse(message.head).expect("a head to httparse");
        if message.head.ends_with(b"\r\n\r\n") {
            assert_eq!(read, httparse::Status::Complete(message.head.len()));
        } else {
            assert!(read.is_partial());
            continue;
        }
        same_line(&request, message);
        let body = check_framing(message, request.headers, Ending::Fields);
        match seen.get(at) {
            Some(seen) => same_to_hyper(&request, message, &body, seen),
            None => assert!(at > 0 && stops(&seen[seen.len() - 1], &found[seen.len() - 1])),
        }
    }
    assert!(seen.len() <= found.len());
});

fn scanner() -> Scanner {
    Scanner::of_requests(MAX_HEAD, MAX_FIELDS)
}

fn same_line(request: &httparse::Request<'_, '_>, message: &Message<'_>) {
    let line = message.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = request.version.expect("a version");
    let text = format!("{} {} HTTP/1.{version}", request.method.unwrap(), request.path.unwrap());
    assert_eq!(line, text.as_bytes());
    assert_eq!(values(request.headers, "host").len(), 1);
}

fn same_to_hyper(request: &httparse::Request<'_, '_>, message: &Message<'_>, body: &[u8], seen: &Seen) {
    assert_eq!(seen.method.as_str(), request.method.unwrap());
    assert!(request.path.unwrap().ends_with(&seen.target));
    assert_eq!(seen.headers.len(), request.headers.len());
    for name in ["host", "content-length", "transfer-encoding"] {
        let theirs: Vec<_> = seen.headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        assert_eq!(theirs, values(request.headers, name));
    }
    assert_eq!(seen.body.is_some(), message.whole);
    if let Some(theirs) = &seen.body {
        assert_eq!(theirs, body);
    }
    // What policy decides on is what goes out, and reads the same again.
    let Ok(line) = &seen.line else { return };
    let host = std::str::from_utf8(values(request.headers, "host")[0]).unwrap();
    assert_eq!(CanonicalHost::parse(host).unwrap().to_string(), line.host);
    let Some(forwarded) = &line.forwarded else {
        assert_eq!(seen.method, "CONNECT");
        return;
    };
    assert_eq!(forwarded.path(), line.path);
    let target = forwarded.path_and_query().expect("a path").as_str();
    assert_eq!(CanonicalPath::parse(target).unwrap().target(), target);
}

/// Whether hyper reads nothing behind this request: it closes, or the connection is another protocol's.
fn stops(seen: &Seen, message: &Message<'_>) -> bool {
    let named = ["connection", "upgrade"].iter().any(|name| seen.headers.contains_key(*name));
    named || seen.method == "CONNECT" || message.head.windows(10).any(|text| text == b"HTTP/1.0\r\n")
}
