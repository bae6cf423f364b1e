//! Responses and bodies on their way through, as HTTP/1.1 frames them.

use tokio::io::AsyncWriteExt;

use super::Stage;
use crate::testing::{Backend, HELLO, Sidecar, eventually, find, read_all, read_response};

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";

async fn answered(answer: &'static str, request: &[u8]) -> String {
    let stage = Stage::inbound("http", Backend::http(answer).await).await;
    let mut client = stage.shop().await;
    client.write_all(request).await.unwrap();
    String::from_utf8_lossy(&read_all(&mut client).await.unwrap()).into_owned()
}

fn request(method: &str) -> Vec<u8> {
    format!("{method} / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn a_chunked_response_arrives_whole_and_ends() {
    let answer = answered(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
        CLOSE,
    )
    .await;

    let body = &answer[find(answer.as_bytes(), b"\r\n\r\n").unwrap() + 4..];
    let plain: String =
        body.split("\r\n").filter(|line| line.starts_with(['a', 'd']) && line.len() >= 3).collect();
    assert_eq!(plain, "abcdef", "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_head_response_keeps_its_length_and_has_no_body() {
    let answer = answered("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n", &request("HEAD")).await;

    assert!(answer.to_lowercase().contains("content-length: 1234"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn responses_without_a_body_leave_the_connection_usable() {
    for status in ["204 No Content", "304 Not Modified"] {
        let answer: &'static str = Box::leak(format!("HTTP/1.1 {status}\r\n\r\n").into_boxed_str());
        let stage = Stage::inbound("http", Backend::http(answer).await).await;
        let mut client = stage.shop().await;
        for _ in 0..3 {
            client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
            assert_eq!(read_response(&mut client).await.0.to_string(), status[..3]);
        }
        assert_eq!(stage.backend.connections(), 1, "{status}");
    }
}

#[tokio::test]
async fn an_interim_response_is_not_taken_for_the_final_one() {
    let early =
        "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    let answer = answered(early, CLOSE).await;

    assert!(answer.contains("HTTP/1.1 200 OK") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_and_its_body_is_forwarded() {
    let bodies = Backend::start(|bytes| (usize::from(bytes.ends_with(b"body")), HELLO)).await;
    let stage = Stage::inbound("http", bodies).await;
    let mut client = stage.shop().await;

    client
        .write_all(b"POST / HTTP/1.1\r\nhost: web\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n")
        .await
        .unwrap();
    let (go_on, ..) = read_response(&mut client).await;
    client.write_all(b"body").await.unwrap();
    let (status, ..) = read_response(&mut client).await;

    assert_eq!((go_on, status), (100, 200));
    assert!(!stage.backend.received().to_lowercase().contains("expect"));
}

#[tokio::test]
async fn an_old_client_gets_its_response_and_the_end() {
    let answer = answered(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: web\r\n\r\n",
    )
    .await;

    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[tokio::test]
async fn trailers_of_a_response_reach_a_client_that_wants_them_without_identity() {
    let answer = answered(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status, x-spiffe-id\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 7\r\nx-spiffe-id: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: web\r\nte: trailers\r\nconnection: te, close\r\n\r\n",
    )
    .await;

    assert!(answer.to_lowercase().contains("grpc-status: 7"), "{answer}");
    assert!(!answer.contains("evil"), "{answer}");
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}}}\n",
        stage.site.base().replace("audit.jsonl", "broken.jsonl"),
        listener.local_addr().unwrap()
    );
    let sidecar = Sidecar::ready(&text).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .await
            .unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    });
    let credentials = stage.authority.credentials(crate::testing::SHOP);
    let mut client = crate::testing::call(&credentials, sidecar.inbound()).await;

    client.write_all(CLOSE).await.unwrap();
    let ended = read_all(&mut client).await;

    assert!(ended.is_err(), "{ended:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let stage = Stage::inbound("http", Backend::start(|_| (0, "")).await).await;
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    eventually(async || (!stage.backend.received().is_empty()).then_some(())).await.unwrap();

    drop(client);

    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"].is_string()).await;
}

#[tokio::test]
async fn kept_connections_to_a_peer_are_not_used_after_a_rotation() {
    let web = Stage::inbound("http", Backend::http(HELLO).await).await;
    let site = crate::testing::Site::new(&web.authority, crate::testing::SHOP, super::POLICY);
    let text = format!(
        "{}outbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: http, endpoints: [\"{}\"], expect: [{}]}}\n",
        site.base(),
        web.sidecar.inbound(),
        crate::testing::WEB
    );
    let shop = Sidecar::ready(&text).await;
    let mut app = tokio::net::TcpStream::connect(shop.outbound()).await.unwrap();
    let mut serials = Vec::new();
    for round in 0..4 {
        app.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
        assert_eq!(read_response(&mut app).await.0, 200);
        let opened = |record: &&serde_json::Value| {
            record["src_endpoint"]["uid"] == crate::testing::SHOP && record["activity_id"] == 1
        };
        eventually(async || {
            (web.site.records().iter().filter(opened).count() == 1 + round / 2).then_some(())
        })
        .await
        .expect("one connection for each identity");
        serials = web
            .site
            .records()
            .iter()
            .filter(opened)
            .map(|record| record["tls"]["certificate"]["serial_number"].to_string())
            .collect();
        if round == 1 {
            site.write_identity(&web.authority, crate::testing::SHOP, &[&web.authority]);
            let rotated = |record: &&serde_json::Value| record.to_string().contains("identity_rotated");
            eventually(async || (site.records().iter().filter(rotated).count() == 2).then_some(()))
                .await
                .expect("a rotation");
        }
    }
    assert_eq!(serials.len(), 2);
    assert_ne!(serials[0], serials[1]);
}

#[tokio::test]
async fn a_response_that_lasts_until_the_end_is_reset_where_it_breaks_off() {
    let web = Stage::inbound("http", Backend::http(HELLO).await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}}}\n",
        web.site.base().replace("audit.jsonl", "broken.jsonl"),
        listener.local_addr().unwrap()
    );
    let far = Sidecar::ready(&text).await;
    let site = crate::testing::Site::new(&web.authority, crate::testing::SHOP, super::POLICY);
    let text = format!(
        "{}outbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: http, endpoints: [\"{}\"], expect: [{}]}}\n",
        site.base(),
        far.inbound(),
        crate::testing::WEB
    );
    let near = Sidecar::ready(&text).await;
    let mut app = tokio::net::TcpStream::connect(near.outbound()).await.unwrap();

    // To an old client a chunked response is one that lasts until the connection ends.
    app.write_all(b"GET / HTTP/1.0\r\nhost: web\r\n\r\n").await.unwrap();
    let (mut upstream, _) = listener.accept().await.unwrap();
    upstream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
    let mut got = Vec::new();
    while find(&got, b"half").is_none() {
        tokio::io::AsyncReadExt::read_buf(&mut app, &mut got).await.unwrap();
    }
    drop(upstream);

    assert_eq!(read_all(&mut app).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
