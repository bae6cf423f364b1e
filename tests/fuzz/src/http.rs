//! HTTP/1 as our scanner, `httparse`, hyper and the text of RFC 9112 read it.
//!
//! What the scanner lets through has to be the same to all of them; what it refuses is not looked at.

use std::{cell::RefCell, convert::Infallible, future::Future};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header::HeaderMap, service::service_fn};
use hyper_util::rt::TokioIo;
use proxy::fuzzing::{Line, Scanner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

/// The largest head of these tests.
pub const MAX_HEAD: usize = 4096;
/// The most header fields in these tests: hyper lets a trailer have as many, and the scanner has a limit of its own there.
pub const MAX_FIELDS: usize = 64;

/// One message as the scanner took it out of a stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The head with its empty line.
    pub head: &'a [u8],
    /// As much of the body as there is.
    pub body: &'a [u8],
    /// All of the body is here.
    pub whole: bool,
}

/// Returns the messages that the scanner takes out of `bytes`, up to the first flaw.
pub fn messages<'a>(mut scanner: Scanner, bytes: &'a [u8]) -> Vec<Message<'a>> {
    let (mut found, mut rest) = (Vec::new(), bytes);
    while let Ok(taken @ 1..) = scanner.scan(rest) {
        let (message, behind) = rest.split_at(taken);
        let (head, body) = message.split_at(head_end(message));
        found.push(Message { head, body, whole: scanner.is_between_messages() });
        rest = behind;
        if !scanner.is_between_messages() {
            break;
        }
    }
    found
}

/// Checks that the whole messages end in the same places when the bytes come one by one.
pub fn cut_makes_no_difference(mut scanner: Scanner, bytes: &[u8], messages: &[Message<'_>]) {
    let (mut released, mut ends) = (0, Vec::new());
    'bytes: for available in 1..=bytes.len() {
        loop {
            match scanner.scan(&bytes[released..available]) {
                Err(_) => break 'bytes,
                Ok(0) => break,
                Ok(taken) => released += taken,
            }
            if scanner.is_between_messages() {
                ends.push(released);
            }
            if released == available {
                break;
            }
        }
    }
    let whole = messages.iter().filter(|message| message.whole);
    let expected: Vec<usize> = whole
        .scan(0, |end, message| {
            *end += message.head.len() + message.body.len();
            Some(*end)
        })
        .collect();
    assert_eq!(ends, expected);
}

/// Checks a head as `httparse` reads it against its text, and the body against what the fields say; returns the body
/// without its coding. `bodiless` says that the message has no body whatever the fields say.
pub fn check_framing(message: &Message<'_>, fields: &[httparse::Header<'_>], ending: Ending) -> Vec<u8> {
    let text = std::str::from_utf8(message.head).map_or(0, |text| text.matches("\r\n").count());
    if text > 0 {
        assert_eq!(fields.len(), text - 2, "fields");
    }
    let lengths = values(fields, "content-length");
    let codings = values(fields, "transfer-encoding");
    if ending == Ending::Nothing {
        assert!(message.body.is_empty() && message.whole);
        return Vec::new();
    }
    match (codings.as_slice(), lengths.as_slice()) {
        ([coding], []) => {
            assert!(coding.eq_ignore_ascii_case(b"chunked"));
            let decoded = dechunk(message.body);
            assert_eq!(decoded.is_some(), message.whole, "chunked body");
            decoded.unwrap_or_default()
        }
        ([], [length]) => {
            let length: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
            assert_eq!(message.body.len() == length, message.whole);
            assert!(message.body.len() <= length);
            message.body.to_vec()
        }
        ([], []) => {
            assert!(ending == Ending::Close || message.body.is_empty());
            assert_eq!(message.whole, ending == Ending::Fields);
            message.body.to_vec()
        }
        _ => panic!("contradicting fields were let through"),
    }
}

/// Where a body without framing fields ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// There is no body, whatever the fields say.
    Nothing,
    /// There is no body then.
    Fields,
    /// With the connection.
    Close,
}

/// Returns the values of the fields called `name`.
pub fn values<'a>(fields: &[httparse::Header<'a>], name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| field.value.trim_ascii()).collect()
}

/// Decodes a chunked body with `httparse`; none unless it is exactly one, to the last byte.
fn dechunk(body: &[u8]) -> Option<Vec<u8>> {
    let (mut decoded, mut rest) = (Vec::new(), body);
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(rest) else {
            return None;
        };
        rest = &rest[line..];
        if size == 0 {
            let mut trailers = [httparse::EMPTY_HEADER; 64];
            let end = match httparse::parse_headers(rest, &mut trailers) {
                Ok(httparse::Status::Complete((end, _))) => end,
                Ok(httparse::Status::Partial) | Err(_) => return None,
            };
            return (end == rest.len()).then_some(decoded);
        }
        let size = usize::try_from(size).ok()?;
        decoded.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// A request as hyper's server read it.
pub struct Seen {
    /// The method.
    pub method: Method,
    /// The path and query, or the authority of a tunnel.
    pub target: String,
    /// The fields.
    pub headers: HeaderMap,
    /// The line that our proxy makes of it, or the flaw it finds.
    pub line: Result<Line, &'static str>,
    /// The body, without its coding; none where hyper found it broken or cut off.
    pub body: Option<Vec<u8>>,
}

/// Returns the requests that hyper's server finds in `bytes`.
pub fn served(bytes: &[u8]) -> Vec<Seen> {
    let seen = RefCell::new(Vec::new());
    let service = service_fn(|request: Request<Incoming>| async {
        let (mut parts, body) = request.into_parts();
        let target = match parts.uri.path_and_query() {
            Some(target) => target.to_string(),
            None => parts.uri.to_string(),
        };
        // Reading the line leaves only what is forwarded.
        let headers = parts.headers.clone();
        let line = proxy::fuzzing::line(&mut parts);
        let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
        seen.borrow_mut().push(Seen { method: parts.method, target, headers, line, body });
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    run(async {
        let io = TokioIo::new(tokio::io::join(bytes, tokio::io::sink()));
        let mut server = hyper::server::conn::http1::Builder::new();
        // What hyper ends with an error, it has not passed on either.
        let _ = server.half_close(true).max_headers(MAX_FIELDS).serve_connection(io, service).await;
    });
    seen.into_inner()
}

/// Returns the status and the body of the response that hyper's client finds in `bytes`.
pub fn answered(bytes: &[u8]) -> Option<(StatusCode, Option<Vec<u8>>)> {
    run(async {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let server = async {
            let mut request = [0; 1024];
            // The client waits for its request to go before it reads.
            let _ = theirs.read(&mut request).await;
            let _ = theirs.write_all(bytes).await;
            drop(theirs);
        };
        let client = async {
            let mut builder = hyper::client::conn::http1::Builder::new();
            let (mut sender, connection) =
                builder.max_headers(MAX_FIELDS).handshake(TokioIo::new(ours)).await.ok()?;
            let request = Request::get("/").header("host", "web").body(Empty::<Bytes>::new()).ok()?;
            let answer = async {
                let (head, body) = sender.send_request(request).await.ok()?.into_parts();
                Some((head.status, body.collect().await.ok().map(|body| body.to_bytes().to_vec())))
            };
            tokio::join!(answer, connection).0
        };
        tokio::join!(client, server).0
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime without I/O");
    }
    RUNTIME.with(|runtime| runtime.block_on(work))
}

fn head_end(message: &[u8]) -> usize {
    message.windows(4).position(|window| window == b"\r\n\r\n").map_or(message.len(), |at| at + 4)
}
