//! The scanner of chunked bodies against `httparse` and hyper: a body ends where they say, and holds what they say.
#![no_main]

use fuzz::http::{Ending, MAX_FIELDS, MAX_HEAD, check_framing, cut_makes_no_difference, messages, served};
use libfuzzer_sys::fuzz_target;
use proxy::fuzzing::Scanner;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n";

fuzz_target!(|body: &[u8]| {
    let bytes = [HEAD, body].concat();
    let found = messages(scanner(), &bytes);
    cut_makes_no_difference(scanner(), &bytes, &found);
    let Some(message) = found.first() else { return };
    let fields = [
        httparse::Header { name: "host", value: b"web" },
        httparse::Header { name: "transfer-encoding", value: b"chunked" },
    ];

    let decoded = check_framing(message, &fields, Ending::Fields);

    let seen = served(&bytes[..message.head.len() + message.body.len()]);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body.is_some(), message.whole);
    if let Some(body) = &seen[0].body {
        assert_eq!(*body, decoded);
    }
});

fn scanner() -> Scanner {
    Scanner::of_requests(MAX_HEAD, MAX_FIELDS)
}
