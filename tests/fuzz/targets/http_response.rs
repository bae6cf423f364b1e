//! The HTTP/1 response scanner against `httparse`, hyper and plain text: what it lets through has one reading.
#![no_main]

use fuzz::http::{Ending, MAX_FIELDS, MAX_HEAD, Message};
use fuzz::http::{answered, check_framing, cut_makes_no_difference, messages};
use libfuzzer_sys::fuzz_target;
use proxy::fuzzing::Scanner;

fuzz_target!(|bytes: &[u8]| {
    let found = messages(scanner(), bytes);
    cut_makes_no_difference(scanner(), bytes, &found);
    for (at, message) in found.iter().enumerate() {
        let Some((status, body)) = read(message) else { return };
        if !(100..200).contains(&status) {
            let taken = &found[..=at];
            let end: usize = taken.iter().map(|message| message.head.len() + message.body.len()).sum();
            same_to_hyper(&bytes[..end], message, status, &body);
            return;
        }
    }
});

fn scanner() -> Scanner {
    Scanner::of_responses(MAX_HEAD, MAX_FIELDS)
}

/// Reads the status and the body with `httparse`; none where the head is not all here.
fn read(message: &Message<'_>) -> Option<(u16, Vec<u8>)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let read = response.parse(message.head).expect("a head to httparse");
    if !message.head.ends_with(b"\r\n\r\n") {
        assert!(read.is_partial());
        return None;
    }
    assert_eq!(read, httparse::Status::Complete(message.head.len()));
    let status = response.code.expect("a status");
    let line = format!("HTTP/1.{} {status}", response.version.expect("a version"));
    assert!(message.head.starts_with(line.as_bytes()));
    let ending = if matches!(status, 100..=199 | 204 | 304) { Ending::Nothing } else { Ending::Close };
    Some((status, check_framing(message, response.headers, ending)))
}

fn same_to_hyper(bytes: &[u8], message: &Message<'_>, status: u16, body: &[u8]) {
    let (theirs, content) = answered(bytes).expect("a response to hyper");
    assert_eq!(theirs.as_u16(), status);
    match content {
        Some(content) => assert_eq!(content, body),
        None => assert!(!message.whole),
    }
}
