//! What is spoken is found out by the first bytes, and never a way around a decision.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Setting, get, peers::Caller, raw::PREFACE};
use crate::{
    testing::{Backend, HELLO, eventually, read_all, read_response},
    tests::{POLICY, Stage, TCP_POLICY},
};

/// Opaque bytes are answered, and HTTP/1 too.
fn any_answer(bytes: &[u8]) -> (usize, &'static str) {
    if bytes.starts_with(b"\0") { (1, "pong") } else { (usize::from(bytes.ends_with(b"\r\n\r\n")), HELLO) }
}

#[tokio::test]
async fn a_preface_in_any_number_of_pieces_is_http2() {
    let setting = Setting::new().await;
    for size in [1, 2, 7, 23] {
        let mut client = setting.stage.shop().await;
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut sent = vec![0; PREFACE.len()];
            theirs.read_exact(&mut sent).await.unwrap();
            for piece in sent.chunks(size) {
                client.write_all(piece).await.unwrap();
                client.flush().await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            let _ = tokio::io::copy_bidirectional(&mut theirs, &mut client).await;
        });
        let mut caller = Caller::new(ours).await;

        assert_eq!(caller.ask(get("/hello")).await.unwrap().body, b"hello", "{size}");
    }
}

#[tokio::test]
async fn a_port_that_detects_decides_http_by_request() {
    let setting = Setting::with("auto", "").await;
    let mut caller = setting.shop().await;
    let mut old = setting.stage.shop().await;

    let allowed = caller.ask(get("/hello")).await.unwrap().status.as_u16();
    let refused = caller.ask(get("/admin/x")).await.unwrap().status.as_u16();
    old.write_all(b"GET /admin HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (old, ..) = read_response(&mut old).await;

    assert_eq!((allowed, refused, old), (200, 403, 403));
}

#[tokio::test]
async fn opaque_bytes_are_refused_where_rules_speak_of_requests_only() {
    for bytes in [&b"\0\x01\x02\x03"[..], b"\x16\x03\x01\x02\0\x01\0", b"EHLO x\n"] {
        let stage = Stage::started("auto", POLICY, Backend::start(any_answer).await, "").await;
        let mut client = stage.shop().await;
        client.write_all(bytes).await.unwrap();

        let answer = read_all(&mut client).await;

        assert!(answer.map_or(true, |bytes| bytes.starts_with(b"HTTP/1.1 40")), "{bytes:?}");
        assert!(!stage.backend.received().contains('\0'), "{bytes:?}");
        assert_eq!(stage.backend.connections(), 0);
        let refused = |record: &serde_json::Value| record["action_id"] == 2;
        stage.site.record(refused).await;
    }
}

#[tokio::test]
async fn opaque_bytes_pass_where_a_rule_allows_connections_and_live_by_it() {
    let stage = Stage::started("auto", TCP_POLICY, Backend::start(any_answer).await, "").await;
    let mut client = stage.shop().await;

    client.write_all(b"\0ping").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    stage.site.write_policy(crate::tests::CLOSED);
    let ended = read_all(&mut client).await;

    assert_eq!(&answer, b"pong");
    assert!(ended.is_err());
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "reevaluate");
}

#[tokio::test]
async fn a_flawed_request_is_no_opaque_connection() {
    for bytes in [
        &b"GET /admin HTTP/1.1\nhost: web\r\n\r\n"[..],
        b"\r\nGET /admin HTTP/1.1\r\nhost: web\r\n\r\n",
        b"get /admin HTTP/1.1\r\nhost: web\r\n\r\n",
        b"GET\t/admin HTTP/1.1\r\nhost: web\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"GET /x HTTP/9.9\r\nhost: web\r\n\r\n",
    ] {
        let policy = POLICY.replace(
            "deny:",
            "  - name: shop-connects\n    from: [spiffe://prod.test/shop]\n    tcp: {port: any}\ndeny:",
        );
        let stage = Stage::started("auto", &policy, Backend::start(any_answer).await, "").await;
        let mut client = stage.shop().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();

        let answer = read_all(&mut client).await.unwrap_or_default();

        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 40"), "{text}");
        assert_eq!(stage.backend.connections(), 0, "{bytes:?}");
    }
}

#[tokio::test]
async fn who_waits_for_the_server_is_connected_once_it_is_clear_that_it_waits() {
    let application = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = Backend::at(application.local_addr().unwrap());
    let stage = Stage::started("auto", TCP_POLICY, backend, "limits: {detect_timeout: 100ms}\n").await;
    let mut client = stage.shop().await;

    let (mut socket, _) = application.accept().await.unwrap();
    socket.write_all(b"220 hello").await.unwrap();
    let mut greeting = [0; 9];
    client.read_exact(&mut greeting).await.unwrap();

    assert_eq!(&greeting, b"220 hello");
    assert!(eventually(async || Some(())).await.is_some());
}
