use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 4096, count: 32 };

/// Scans whole messages, however they are cut into pieces; returns the messages' ends or the first flaw.
fn scan(bytes: &[u8], side: Side, cuts: &[usize]) -> Result<Vec<usize>, Flaw> {
    let mut scanner = Passage::new(LIMITS);
    let (mut ends, mut released, mut available) = (Vec::new(), 0, 0);
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        available = available.max(cut.min(bytes.len()));
        loop {
            let step = scanner.scan(&bytes[released..available], side)?;
            released += step;
            if step > 0 && scanner.is_between_messages() {
                ends.push(released);
            }
            if step == 0 || released == available {
                break;
            }
        }
    }
    Ok(ends)
}

fn request(bytes: &str) -> Result<Vec<usize>, Flaw> {
    scan(bytes.as_bytes(), Side::Request, &[])
}

fn response(bytes: &str) -> Result<Vec<usize>, Flaw> {
    scan(bytes.as_bytes(), Side::Response(Asked::Plain), &[])
}

#[test]
fn messages_end_where_their_framing_says() {
    for (bytes, ends) in [
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", vec![27]),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            vec![50, 77],
        ),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", vec![47]),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding:\tCHUNKED \r\n\r\n3;x=\"y\"\r\nabc\r\n0\r\nt: u\r\n\r\n",
            vec![82],
        ),
        ("OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", vec![31]),
        ("GET http://A:80/x HTTP/1.0\r\nhost: a:80\r\n\r\n", vec![42]),
    ] {
        assert_eq!(request(bytes), Ok(ends), "{bytes:?}");
    }
}

#[test]
fn responses_end_where_request_and_status_say() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", vec![40]),
        ("HTTP/1.1 204 \r\n\r\n", vec![17]),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n", vec![49]),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            vec![37, 75],
        ),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", vec![]),
        ("HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", vec![49]),
    ];
    for (bytes, ends) in cases {
        assert_eq!(response(bytes), Ok(ends), "{bytes:?}");
    }
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n";
    assert_eq!(scan(head, Side::Response(Asked::Head), &[]), Ok(vec![head.len()]));
}

#[test]
fn each_flaw_is_found_by_its_name() {
    let head = |lines: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
    let chunks = |body: &str| head(&format!("transfer-encoding: chunked\r\n\r\n{body}"));
    for (bytes, flaw) in [
        ("GET / HTTP/1.1\n".to_owned(), Flaw::BareLf),
        (head("a: b\rc\r\n"), Flaw::BareCr),
        (head("a: b\0c\r\n"), Flaw::Control),
        (head("a: \x7f\r\n"), Flaw::Control),
        ("GET /\r\n".to_owned(), Flaw::RequestLine),
        ("G(T / HTTP/1.1\r\n".to_owned(), Flaw::RequestLine),
        ("GET x HTTP/1.1\r\n".to_owned(), Flaw::Target),
        ("GET /{} HTTP/1.1\r\n".to_owned(), Flaw::Target),
        ("GET * HTTP/1.1\r\n".to_owned(), Flaw::Target),
        ("GET http://a HTTP/1.1\r\n".to_owned(), Flaw::Target),
        ("CONNECT /x HTTP/1.1\r\n".to_owned(), Flaw::Target),
        ("GET / HTTP/1.2\r\n".to_owned(), Flaw::Version),
        ("GET / http/1.1\r\n".to_owned(), Flaw::Version),
        (head(" a: b\r\n"), Flaw::Folded),
        (head("a : b\r\n"), Flaw::HeaderName),
        (head("a\r\n"), Flaw::HeaderName),
        (head("content-length: 1\r\ncontent-length: 1\r\n"), Flaw::LengthRepeated),
        (head("content-length: 1 1\r\n"), Flaw::LengthInvalid),
        (head("content-length: 1\r\ntransfer-encoding: chunked\r\n"), Flaw::LengthBesideEncoding),
        (head("transfer-encoding: chunked,chunked\r\n"), Flaw::TransferEncoding),
        (
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
            Flaw::EncodingInOldVersion,
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Flaw::HostMissing),
        (head("host: a\r\n"), Flaw::HostRepeated),
        ("GET / HTTP/1.1\r\nhost: a,b\r\n".to_owned(), Flaw::HostInvalid),
        ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), Flaw::HostConflict),
        (chunks("x"), Flaw::ChunkSize),
        (chunks("1000000000000000\r\n"), Flaw::ChunkSize),
        (chunks("1;\x01"), Flaw::ChunkExtension),
        (chunks("1\ra"), Flaw::BareCr),
        (chunks("1\r\nab"), Flaw::ChunkEnd),
        (chunks("0\r\na\r\n"), Flaw::Trailer),
        (chunks("0\r\na: b\n"), Flaw::BareLf),
    ] {
        assert_eq!(request(&bytes), Err(flaw), "{bytes:?}");
    }
}

#[test]
fn each_flaw_of_a_response_is_found_by_its_name() {
    for (bytes, flaw) in [
        ("HTTP/1.1 99 x\r\n", Flaw::StatusLine),
        ("HTTP/1.1 2000 x\r\n", Flaw::StatusLine),
        ("HTTP/1.1  200 x\r\n", Flaw::StatusLine),
        ("ICY 200 OK\r\n", Flaw::StatusLine),
        ("HTTP/1.1 101 x\r\n\r\n", Flaw::Unrequested),
        ("HTTP/1.1 204 x\r\ncontent-length: 5\r\n\r\n", Flaw::LengthBesideEncoding),
        ("HTTP/1.1 103 x\r\ntransfer-encoding: chunked\r\n\r\n", Flaw::LengthBesideEncoding),
        ("HTTP/1.0 200 x\r\ntransfer-encoding: chunked\r\n\r\n", Flaw::EncodingInOldVersion),
    ] {
        assert_eq!(response(bytes), Err(flaw), "{bytes:?}");
    }
}

#[test]
fn limits_hold_for_heads_that_never_end_and_for_those_that_do() {
    let long = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(LIMITS.bytes));
    let many: String = (0..LIMITS.count).map(|number| format!("x{number}: y\r\n")).collect();

    assert_eq!(request(&long), Err(Flaw::HeadTooLarge));
    assert_eq!(request(&format!("{long}\r\n\r\n")), Err(Flaw::HeadTooLarge));
    assert_eq!(request(&format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")), Err(Flaw::TooManyHeaders));
}

#[test]
fn chunk_extensions_and_trailers_have_a_limit_for_the_whole_body() {
    let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let extensions = "1;xxxxxxxxxxxxxxx\r\na\r\n".repeat(chunked::MAX_EXTENSIONS / 16 + 1);
    let trailers: String =
        (0..=chunked::MAX_TRAILER_LINES).map(|number| format!("t{number}: u\r\n")).collect();
    let long = "a".repeat(chunked::MAX_TRAILERS);

    assert_eq!(request(&format!("{head}{extensions}")), Err(Flaw::ChunkExtension));
    assert_eq!(request(&format!("{head}0\r\n{trailers}\r\n")), Err(Flaw::Trailer));
    assert_eq!(request(&format!("{head}0\r\nt: {long}\r\n\r\n")), Err(Flaw::Trailer));
}

/// Pieces of messages, good and bad, so that most combinations are nearly right.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "GET / HTTP/1.1\r\n",
        "POST /a/%62?q=[1]|2 HTTP/1.1\r\n",
        "HEAD http://web:80/x?y HTTP/1.0\r\n",
        "OPTIONS * HTTP/1.1\r\n",
        "CONNECT web:443 HTTP/1.1\r\n",
        "host: web\r\n",
        "Host:web:80\r\n",
        "host: web:443\r\n",
        "content-length: 3\r\n",
        "content-length:0\r\n",
        "transfer-encoding: chunked\r\n",
        "Connection: close\r\n",
        "x-odd: \u{e9}\t!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\r\n",
        "x-empty:\r\n",
        "!#$%&'*+-.^_`|~: z\r\n",
        "expect: 100-continue\r\n",
        "\r\n",
        "abc",
        "3\r\nabc\r\n",
        "3;a=\"b\"\r\nabc\r\n",
        "00a\r\n0123456789\r\n",
        "0\r\n",
        "trailer: t\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 \r\n",
        "HTTP/1.0 404\r\n",
    ]);
    let raw = prop::collection::vec(any::<u8>(), 0..4);
    let piece = prop_oneof![20 => lines.prop_map(|line| line.as_bytes().to_vec()), 1 => raw];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = scan(&bytes, Side::Request, &[]);
        let _ = scan(&bytes, Side::Response(Asked::Plain), &[]);
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut(bytes in pieces(), mut cuts in prop::collection::vec(0usize..400, 0..6)) {
        cuts.sort_unstable();

        for side in [Side::Request, Side::Response(Asked::Plain)] {
            let (whole, cut) = (scan(&bytes, side, &[]), scan(&bytes, side, &cuts));
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert_eq!(whole, cut);
            }
        }
    }

    #[test]
    fn what_is_accepted_the_library_reads_alike(tail in pieces(), good in any::<bool>()) {
        let start: &[u8] = if good { b"POST /a?b HTTP/1.1\r\nhost: web\r\n" } else { b"" };
        let bytes = [start, &tail].concat();
        let mut scanner = Scanner::new(LIMITS);
        let Ok(Some(scanned)) = scanner.head(&bytes, Side::Request) else { return Ok(()) };
        let mut passage = Passage::new(LIMITS);
        let end = passage.scan(&bytes, Side::Request).unwrap_or(scanned.length);

        let seen = library(&bytes[..end]);

        let (method, target, headers) = seen.ok_or_else(|| TestCaseError::fail(format!("{bytes:?}")))?;
        let text = bytes.split(|&byte| byte == b'\r').next().unwrap();
        let mut words = text.split(|&byte| byte == b' ');
        prop_assert_eq!(method.as_bytes(), words.next().unwrap());
        prop_assert_eq!(target.as_bytes(), words.next().unwrap());
        let head = crate::testing::find(&bytes, b"\r\n\r\n").unwrap();
        prop_assert_eq!(headers, bytes[..head].windows(2).filter(|pair| *pair == b"\r\n").count());
    }

    #[test]
    fn what_is_accepted_ends_where_the_library_says(tail in pieces()) {
        let bytes = [b"POST /a?b HTTP/1.1\r\nhost: web\r\n".as_slice(), &tail].concat();
        let Ok(ends) = scan(&bytes, Side::Request, &[]) else { return Ok(()) };
        let Some(end) = ends.first() else { return Ok(()) };

        let body = library_body(&bytes[..*end]);

        prop_assert!(body.is_some(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

/// What hyper makes of the first request in `bytes`: method, target, number of header fields.
fn library(bytes: &[u8]) -> Option<(String, String, usize)> {
    serve(bytes, |request| async move {
        let target = request.uri().to_string();
        Some((request.method().to_string(), target, request.headers().len()))
    })
}

/// The body hyper reads of the first request in `bytes`, if it reads one to its end and nothing remains.
fn library_body(bytes: &[u8]) -> Option<usize> {
    use http_body_util::BodyExt;
    serve(bytes, |request| async move {
        request.into_body().collect().await.ok().map(|body| body.to_bytes().len())
    })
}

fn serve<T: Send + 'static, F: Future<Output = Option<T>> + Send>(
    bytes: &[u8],
    see: impl Fn(http::Request<hyper::body::Incoming>) -> F,
) -> Option<T> {
    use std::sync::Mutex;

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let seen: Mutex<Option<T>> = Mutex::new(None);
        let service = hyper::service::service_fn(|request| {
            let (seen, answer) = (&seen, see(request));
            async move {
                let found = answer.await;
                let mut seen = seen.lock().unwrap();
                if seen.is_none() {
                    *seen = found;
                }
                let body = http_body_util::Empty::<bytes::Bytes>::new();
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        });
        let io = tokio::io::join(bytes, tokio::io::sink());
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .max_headers(LIMITS.count)
            .serve_connection(hyper_util::rt::TokioIo::new(io), service);
        let _ = connection.await;
        seen.into_inner().unwrap()
    })
}
