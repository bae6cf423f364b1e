//! Attack cases 20 to 24 and 27 to 29 against a real listener: each is refused with 400, closes the connection,
//! leaves one record, and shows the application nothing.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::Stage;
use crate::testing::{Backend, HELLO, read_all, read_response};

/// Sends bytes on a fresh connection and returns everything that comes back until the end.
async fn exchange(stage: &Stage, bytes: &[u8]) -> String {
    let mut client = stage.shop().await;
    client.write_all(bytes).await.unwrap();
    String::from_utf8_lossy(&read_all(&mut client).await.unwrap_or_default()).into_owned()
}

/// Each request is sent on its own connection; none may reach the application.
async fn all_refused(requests: &[(&str, &[u8], &str)]) {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    for (name, bytes, status) in requests {
        let answer = exchange(&stage, bytes).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
        assert!(answer.contains("denial_id"), "{name}: {answer:?}");
        assert_eq!(stage.backend.received(), "", "{name}");
    }

    let count = requests.len();
    let found = crate::testing::eventually(async || {
        let malformed = |record: &&serde_json::Value| record["status_detail"] == "malformed_request";
        (stage.site.records().iter().filter(malformed).count() == count).then_some(())
    })
    .await;
    assert!(found.is_some(), "one record for each: {:#?}", stage.site.records());
}

fn request(head: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nhost: web\r\n{head}\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn length_beside_transfer_encoding_is_refused_in_both_orders() {
    all_refused(&[
        (
            "cl te",
            &request(
                "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\nhost: w",
            ),
            "400",
        ),
        ("te cl", &request("transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"), "400"),
        ("te cl 0", &request("transfer-encoding: chunked\r\ncontent-length: 0"), "400"),
    ])
    .await;
}

#[tokio::test]
async fn transfer_encoding_is_exactly_chunked_or_refused() {
    all_refused(&[
        ("list", &request("transfer-encoding: chunked, identity"), "400"),
        ("gzip", &request("transfer-encoding: gzip, chunked"), "400"),
        ("prefix", &request("transfer-encoding: xchunked"), "400"),
        ("twice", &request("transfer-encoding: chunked\r\ntransfer-encoding: chunked"), "400"),
        ("folded", &request("transfer-encoding:\r\n chunked"), "400"),
        ("vertical tab", &request("transfer-encoding: \x0bchunked"), "400"),
        ("empty", &request("transfer-encoding:"), "400"),
        (
            "old version",
            b"POST / HTTP/1.0\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
        ),
        ("space before colon", &request("transfer-encoding : chunked"), "400"),
    ])
    .await;
}

#[tokio::test]
async fn content_length_is_one_plain_number_or_refused() {
    all_refused(&[
        ("twice, different", &request("content-length: 5\r\ncontent-length: 6"), "400"),
        ("twice, same", &request("content-length: 5\r\ncontent-length: 5"), "400"),
        ("plus", &request("content-length: +5"), "400"),
        ("hex", &request("content-length: 0x5"), "400"),
        ("negative", &request("content-length: -5"), "400"),
        ("list", &request("content-length: 5, 5"), "400"),
        ("empty", &request("content-length:"), "400"),
        ("huge", &request("content-length: 18446744073709551616"), "400"),
        ("blank inside", &request("content-length: 5 5"), "400"),
        ("leading nought", &request("content-length: 05"), "400"),
    ])
    .await;
}

#[tokio::test]
async fn bytes_that_two_readers_would_split_in_two_ways_are_refused() {
    all_refused(&[
        ("bare lf", b"GET / HTTP/1.1\nhost: web\n\n", "400"),
        ("bare lf after a header", b"GET / HTTP/1.1\r\nhost: web\nx: y\r\n\r\n", "400"),
        ("bare cr", b"GET / HTTP/1.1\r\nhost: web\r\nx: a\rb\r\n\r\n", "400"),
        ("nul", b"GET / HTTP/1.1\r\nhost: web\r\nx: a\0b\r\n\r\n", "400"),
        ("folded", b"GET / HTTP/1.1\r\nhost: web\r\nx: a\r\n b\r\n\r\n", "400"),
        ("no colon", b"GET / HTTP/1.1\r\nhost: web\r\nx\r\n\r\n", "400"),
        ("empty name", b"GET / HTTP/1.1\r\nhost: web\r\n: y\r\n\r\n", "400"),
        ("blank in a name", b"GET / HTTP/1.1\r\nhost: web\r\nx y: z\r\n\r\n", "400"),
        ("blank line first", b"\r\nGET / HTTP/1.1\r\nhost: web\r\n\r\n", "400"),
        ("two blanks", b"GET  / HTTP/1.1\r\nhost: web\r\n\r\n", "400"),
        ("tab", b"GET\t/ HTTP/1.1\r\nhost: web\r\n\r\n", "400"),
        ("old protocol", b"GET /\r\n\r\n", "400"),
        ("version 2", b"GET / HTTP/2.0\r\nhost: web\r\n\r\n", "400"),
    ])
    .await;
}

#[tokio::test]
async fn chunks_are_read_in_one_way_or_refused() {
    let chunked = |body: &str| request(&format!("transfer-encoding: chunked\r\n\r\n{body}"));
    all_refused(&[
        ("no digits", &chunked("\r\n"), "400"),
        ("overflow", &chunked("fffffffffffffffff\r\nx"), "400"),
        ("sign", &chunked("+5\r\nhello\r\n"), "400"),
        ("hex prefix", &chunked("0x5\r\nhello\r\n"), "400"),
        ("bare lf", &chunked("5\nhello\r\n"), "400"),
        ("blank", &chunked("5 \r\nhello\r\n"), "400"),
        ("lf in an extension", &chunked("5;a\nb\r\nhello\r\n"), "400"),
        ("long extension", &chunked(&format!("5;{}\r\nhello\r\n", "a".repeat(5000))), "400"),
        ("longer than its size", &chunked("5\r\nhello!\r\n"), "400"),
        ("trailer without a name", &chunked("0\r\n: x\r\n\r\n"), "400"),
        ("folded trailer", &chunked("0\r\nx: y\r\n z\r\n\r\n"), "400"),
    ])
    .await;
}

#[tokio::test]
async fn a_chunk_that_goes_wrong_after_the_head_was_forwarded_ends_both_connections() {
    let stage = Stage::inbound("http", Backend::start(|_| (0, "")).await).await;
    let mut client = stage.shop().await;
    client.write_all(&request("transfer-encoding: chunked")).await.unwrap();
    client.write_all(b"5\r\nhello\r\n").await.unwrap();
    crate::testing::eventually(async || stage.backend.received().contains("hello").then_some(()))
        .await
        .unwrap();

    client.write_all(b"zz\r\nGET /smuggled HTTP/1.1\r\n\r\n").await.unwrap();
    let answer = read_all(&mut client).await.unwrap_or_default();

    assert!(answer.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&answer));
    assert!(!stage.backend.received().contains("smuggled"));
    assert!(!stage.backend.received().ends_with("0\r\n\r\n"), "the application must not take it for whole");
    let denial = stage.site.denial("malformed_request").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "chunk_size");
}

#[tokio::test]
async fn the_body_of_a_denied_request_is_never_read_as_a_request() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let smuggled = "GET /allowed HTTP/1.1\r\nhost: web\r\n\r\n";
    let length =
        format!("POST /admin HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{smuggled}", smuggled.len());
    let expecting = "POST /admin HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 40\r\n\r\n";

    for bytes in [length, format!("{expecting}{smuggled}")] {
        let answer = exchange(&stage, bytes.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    assert_eq!(stage.backend.received(), "");
}

#[tokio::test]
async fn the_rest_of_a_body_is_never_sent_on_another_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stage = Stage::inbound("http", Backend::at(listener.local_addr().unwrap())).await;
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();
    application.read_exact(&mut [0; 16]).await.unwrap();
    application.write_all(HELLO.as_bytes()).await.unwrap();
    assert_eq!(read_response(&mut client).await.0, 200);

    // The kept connection ends in the middle of a body.
    let body = "beginGET /admin HTTP/1.1\r\nhost: web\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&body.as_bytes()[..5]).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"begin") {
        assert_ne!(application.read_buf(&mut seen).await.unwrap(), 0);
    }
    drop(application);

    tokio::select! {
        (status, _, _) = read_response(&mut client) => assert_eq!(status, 502),
        _ = listener.accept() => panic!("the application was asked once more"),
    }
}

#[tokio::test]
async fn a_flaw_in_a_pipelined_request_is_answered_after_the_response_before_it() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    let answer =
        exchange(&stage, b"GET /a HTTP/1.1\r\nhost: web\r\n\r\nGET /b HTTP/1.1\nhost: web\r\n\r\n").await;

    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect();
    assert_eq!(statuses, ["200", "400"], "{answer}");
    assert!(!stage.backend.received().contains("/b"));
}

#[tokio::test]
async fn paths_that_could_be_read_in_two_ways_are_refused() {
    let path = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").into_bytes();
    all_refused(&[
        ("encoded slash", &path("/x%2fadmin"), "400"),
        ("encoded slash, upper case", &path("/x%2Fadmin"), "400"),
        ("encoded backslash", &path("/x%5cadmin"), "400"),
        ("backslash", &path("/x\\admin"), "400"),
        ("nul", &path("/x%00"), "400"),
        ("twice encoded", &path("/%252fadmin"), "400"),
        ("parameter", &path("/admin;x"), "400"),
        ("fragment", &path("/x#/admin"), "400"),
        ("above the root", &path("/../admin"), "400"),
        ("bad escape", &path("/%zz"), "400"),
        ("not rooted", &path("admin"), "400"),
        ("other scheme", &path("ftp://web/"), "400"),
        ("raw above ascii", &path("/\u{e9}"), "400"),
    ])
    .await;
}

#[tokio::test]
async fn every_spelling_of_a_denied_path_is_denied() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    for path in [
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/%2e/admin",
        "/x/%2e%2e/admin",
        "/admin?",
        "/admin/",
        "/admin/.",
        "http://web/admin",
        "HTTP://WEB/admin",
    ] {
        let answer = exchange(
            &stage,
            format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
    }
    assert_eq!(stage.backend.received(), "");
}

#[tokio::test]
async fn a_path_of_other_case_is_another_path_to_policy_and_application_alike() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    let answer = exchange(&stage, b"GET /ADMIN HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(stage.backend.received().starts_with("GET /ADMIN HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_odd_is_refused() {
    let host = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n").into_bytes();
    all_refused(&[
        ("missing", &host("x: y\r\n"), "400"),
        ("missing in 1.0", b"GET / HTTP/1.0\r\n\r\n", "400"),
        ("empty", &host("host:\r\n"), "400"),
        ("two", &host("host: a\r\nhost: b\r\n"), "400"),
        ("two alike", &host("host: a\r\nhost: a\r\n"), "400"),
        ("user", &host("host: user@a\r\n"), "400"),
        ("path", &host("host: a/b\r\n"), "400"),
        ("port", &host("host: a:99999\r\n"), "400"),
        ("blank", &host("host: a b\r\n"), "400"),
        ("target says other", b"GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
        ("target with user", b"GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n", "400"),
    ])
    .await;
}

#[tokio::test]
async fn heads_beyond_the_limits_are_431() {
    let many: String = (0..101).map(|number| format!("x{number}: y\r\n")).collect();
    all_refused(&[
        ("long", &request(&format!("x: {}", "a".repeat(40_000))), "431"),
        ("many", &request(&many), "431"),
        ("long name", &request(&format!("{}: x", "n".repeat(2_000))), "431"),
        ("long line", format!("GET /{} HTTP/1.1\r\n", "a".repeat(40_000)).as_bytes(), "431"),
    ])
    .await;
}

#[tokio::test]
async fn tunnels_and_other_protocols_are_denied_and_h2c_is_not_offered_on() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    let connect =
        exchange(&stage, b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\nconnection: close\r\n\r\n").await;
    let socket = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n";
    let upgrade = exchange(&stage, socket).await;
    assert_eq!(stage.backend.received(), "");
    let h2c = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade, http2-settings, close\r\nupgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n";
    let offered = exchange(&stage, h2c).await;

    assert!(connect.starts_with("HTTP/1.1 403 "), "{connect}");
    assert!(upgrade.starts_with("HTTP/1.1 403 "), "{upgrade}");
    // A deny rule about paths speaks of a tunnel too: it may lead to any of them.
    for (method, reason) in [("CONNECT", "explicit_deny"), ("GET", "no_allow_matched")] {
        let denial = stage.site.record(|record| record["http_request"]["http_method"] == method).await;
        assert_eq!(denial["status_detail"], reason, "{denial:#}");
    }
    assert!(offered.starts_with("HTTP/1.1 200 "), "{offered}");
    let received = stage.backend.received().to_lowercase();
    assert!(!received.contains("h2c") && !received.contains("http2"), "{received}");
}

#[tokio::test]
async fn methods_are_taken_as_they_are_written() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;

    for method in ["get", "TRACE", "PROPFIND", "GETS"] {
        let answer = exchange(
            &stage,
            format!("{method} / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{method}: {answer}");
    }
    assert_eq!(stage.backend.received(), "");
}

#[tokio::test]
async fn identity_in_trailers_does_not_reach_the_application() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    let bytes = request(
        "transfer-encoding: chunked\r\ntrailer: x-sum, x-forwarded-client-cert\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\nx-forwarded-client-cert: evil\r\ncontent-length: 9",
    );
    client.write_all(&bytes).await.unwrap();
    read_response(&mut client).await;
    let whole =
        crate::testing::eventually(async || stage.backend.received().contains("\r\n0\r\n").then_some(()))
            .await;

    assert!(whole.is_some(), "{}", stage.backend.received());
    assert!(!stage.backend.received().contains("evil"), "{}", stage.backend.received());
}

#[tokio::test]
async fn no_trailer_goes_on_where_a_rule_looks_at_header_fields() {
    let policy = "vouchsafe: policy/v1\nname: api\nprotects: spiffe://prod.test/web\n\
        allow:\n  - {name: all, from: [spiffe://prod.test/shop], http: {port: any}}\n\
        deny:\n  - {name: role, from: [anyone], http: {port: any, headers: {x-role: [admin]}}}\n";
    let stage = Stage::of_policy(policy, Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    let bytes =
        request("transfer-encoding: chunked\r\ntrailer: x-role\r\n\r\n3\r\nabc\r\n0\r\nx-role: admin");
    client.write_all(&bytes).await.unwrap();
    read_response(&mut client).await;
    let whole =
        crate::testing::eventually(async || stage.backend.received().contains("\r\n0\r\n").then_some(()))
            .await;

    assert!(whole.is_some(), "{}", stage.backend.received());
    assert!(!stage.backend.received().contains("x-role"), "{}", stage.backend.received());
}

#[tokio::test]
async fn a_response_that_cannot_be_read_is_502_and_its_connection_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\nx: y\n\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let stage = Stage::inbound("http", Backend::http(answer).await).await;

        for _ in 0..2 {
            let told = exchange(&stage, b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            assert!(told.starts_with("HTTP/1.1 502 "), "{answer:?}: {told}");
        }
        assert_eq!(stage.backend.connections(), 2, "{answer:?}");
    }
}

#[tokio::test]
async fn a_response_nobody_asked_for_is_given_to_nobody() {
    let twice =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let stage = Stage::inbound("http", Backend::http(twice).await).await;
    let mut client = stage.shop().await;

    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        let (status, _, body) = read_response(&mut client).await;
        assert_eq!((status, body.as_slice()), (200, &b"ok"[..]));
    }
    assert_eq!(stage.backend.connections(), 3);
}
