//! The decision by the first bytes: the same however they are cut, and never a way for HTTP/2 or a request around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy::detection::found;

fuzz_target!(|bytes: &[u8]| {
    for declared in [true, false] {
        let dripped = (0..=bytes.len()).find_map(|end| found(&bytes[..end], declared));
        assert_eq!(found(bytes, declared), dripped);
        assert_eq!(dripped == Some("http2"), bytes.starts_with(PREFACE));
        assert!(dripped.is_some() || bytes.len() < LONGEST);
    }
    assert_ne!(found(bytes, true), Some("opaque"));
    if bytes.starts_with(b"GET ") {
        assert_eq!(found(bytes, false), Some("http1"));
    }
});

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// By so many bytes it is clear.
const LONGEST: usize = 64;
