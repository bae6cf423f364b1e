//! Everything a peer can make grow has an end.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use super::Stage;
use crate::config::HANDSHAKE_TIMEOUT;
use crate::testing::{Backend, HELLO, eventually, read_all, read_response};

async fn http(limits: &str) -> Stage {
    Stage::inbound_with("http", Backend::http(HELLO).await, &format!("limits: {{{limits}}}\n")).await
}

async fn cause(stage: &Stage, cause: &str) {
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == cause).await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended_and_recorded() {
    let stage = http("handshake_timeout: 100ms").await;
    let mut socket = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();

    socket.write_all(b"\x16\x03\x01").await.unwrap();
    let ended = read_all(&mut socket).await;

    assert!(ended.is_err() || ended.unwrap().is_empty());
    let denial = stage.site.denial("handshake_failed").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "timeout");
}

#[tokio::test]
async fn one_host_that_connects_and_says_nothing_keeps_no_other_from_its_handshake() {
    let stage = http("handshakes: 4").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(stage.sidecar.inbound()).await.unwrap());
    }
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let socket = socket.connect(stage.sidecar.inbound()).await.unwrap();
    let credentials = stage.authority.credentials(crate::testing::SHOP);
    let expected = identity::tls::ExpectedServer::DangerAnyMember;
    let config = identity::tls::client_config(&credentials, expected, &[]).unwrap();

    let connected = tokio::time::timeout(HANDSHAKE_TIMEOUT / 2, identity::tls::connect(config, socket)).await;

    assert!(connected.is_ok_and(|connected| connected.is_ok()));
}

#[tokio::test]
async fn a_head_that_drips_is_cut() {
    let stage = http("header_timeout: 200ms").await;
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();

    let ended =
        eventually(async || client.write_all(b"x").await.err().or(client.flush().await.err()).map(|_| ()))
            .await;

    assert!(ended.is_some());
    let denial = stage.site.denial("limit_exceeded").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "header_timeout");
    cause(&stage, "timed_out").await;
}

#[tokio::test]
async fn a_body_that_stalls_is_cut() {
    let silent = Backend::start(|_| (0, "")).await;
    let stage = Stage::inbound_with("http", silent, "limits: {stall_timeout: 200ms}\n").await;
    let mut client = stage.shop().await;

    client.write_all(b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 10\r\n\r\nabc").await.unwrap();

    assert!(read_all(&mut client).await.is_err());
    let denial = stage.site.denial("limit_exceeded").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "stall_timeout");
    cause(&stage, "timed_out").await;
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_of_its_response_is_cut() {
    static LONG: std::sync::LazyLock<&'static str> = std::sync::LazyLock::new(|| {
        let body = "a".repeat(32 * 1024 * 1024);
        Box::leak(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_boxed_str())
    });
    let stage =
        Stage::inbound_with("http", Backend::http(*LONG).await, "limits: {stall_timeout: 200ms}\n").await;
    let mut client = stage.shop().await;

    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();

    cause(&stage, "timed_out").await;
}

#[tokio::test]
async fn an_idle_keep_alive_connection_is_closed_and_a_slow_answer_is_not() {
    let slow = Backend::start(|bytes| {
        (usize::from(bytes.ends_with(b"\r\n\r\n") && bytes.starts_with(b"GET /fast")), HELLO)
    })
    .await;
    let stage = Stage::inbound_with("http", slow, "limits: {idle_timeout: 300ms}\n").await;
    let mut waiting = stage.shop().await;
    waiting.write_all(b"GET /slow HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let mut idle = stage.shop().await;
    idle.write_all(b"GET /fast HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    read_response(&mut idle).await;

    assert!(idle.read(&mut [0; 1]).await.map_or(true, |read| read == 0));
    let early = tokio::time::timeout(std::time::Duration::from_millis(600), waiting.read(&mut [0; 1])).await;
    assert!(early.is_err(), "a request in flight is not idle");
}

#[tokio::test]
async fn an_idle_tcp_connection_is_closed_after_its_limit() {
    let stage =
        Stage::inbound_with("tcp", Backend::start(|_| (0, "")).await, "limits: {tcp_idle_timeout: 200ms}\n")
            .await;
    let mut client = stage.shop().await;

    let _ = read_all(&mut client).await;

    cause(&stage, "timed_out").await;
}

#[tokio::test]
async fn a_half_that_never_ends_is_closed_after_its_limit() {
    let stage = Stage::inbound_with(
        "tcp",
        Backend::start(|_| (0, "")).await,
        "limits: {half_close_timeout: 200ms}\n",
    )
    .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "{}limits: {{half_close_timeout: 200ms}}\ninbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
        stage.site.base().replace("audit.jsonl", "half.jsonl"),
        listener.local_addr().unwrap()
    );
    let sidecar = crate::testing::Sidecar::ready(&text).await;
    let credentials = stage.authority.credentials(crate::testing::SHOP);
    let mut client = crate::testing::call(&credentials, sidecar.inbound()).await;
    let (_never_closed, _) = listener.accept().await.unwrap();

    client.shutdown().await.unwrap();

    assert!(read_all(&mut client).await.is_err(), "the half that never ended is cut");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away_and_recorded() {
    let stage = Stage::inbound_with(
        "tcp",
        Backend::start(|bytes| (bytes.len(), "y")).await,
        "limits: {connections_per_listener: 1}\n",
    )
    .await;
    let mut first = stage.shop().await;
    first.write_all(b"x").await.unwrap();
    first.read_exact(&mut [0; 1]).await.unwrap();

    // The reset may come before the kernel has told of the connection.
    let ended = match TcpStream::connect(stage.sidecar.inbound()).await {
        Ok(mut second) => read_all(&mut second).await,
        Err(error) => Err(error),
    };

    assert!(ended.is_err(), "{ended:?}");
    let denial = stage.site.denial("limit_exceeded").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "connections_per_listener");
    drop(first);
    let again = eventually(async || {
        let config = identity::tls::client_config(
            &stage.authority.credentials(crate::testing::SHOP),
            identity::tls::ExpectedServer::DangerAnyMember,
            &[],
        )
        .unwrap();
        let socket = TcpStream::connect(stage.sidecar.inbound()).await.ok()?;
        identity::tls::connect(config, socket).await.ok()
    })
    .await;
    assert!(again.is_some(), "a place that is free again is used");
}

#[tokio::test]
async fn a_connect_that_nobody_answers_ends_in_time() {
    // An address reserved for documentation (RFC 5737): packets to it go nowhere, or are refused at once.
    let web = super::Stage::inbound("http", Backend::http(HELLO).await).await;
    let text = format!(
        "{}limits: {{connect_timeout: 300ms}}\noutbound:\n  - {{name: far, listen: 127.0.0.1:0, protocol: http, endpoints: [\"192.0.2.1:9\"], expect: [{}]}}\n",
        web.site.base().replace("audit.jsonl", "far.jsonl"),
        crate::testing::WEB
    );
    let sidecar = crate::testing::Sidecar::ready(&text).await;
    let mut app = TcpStream::connect(sidecar.outbound()).await.unwrap();

    app.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, ..) = read_response(&mut app).await;

    assert!(status == 504 || status == 502, "{status}");
}

#[tokio::test]
async fn handshakes_beyond_the_limit_wait_for_a_place() {
    let stage = http("handshakes: 1, handshake_timeout: 2s").await;
    let _stuck = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1000)).await;

    let started = std::time::Instant::now();
    let mut client = stage.shop().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, ..) = read_response(&mut client).await;

    assert_eq!(status, 200);
    assert!(started.elapsed() > std::time::Duration::from_millis(500), "the stuck one held the only place");
}

#[tokio::test]
async fn a_client_that_does_not_close_after_its_refusal_is_not_waited_for() {
    let stage = http("").await;
    let mut client = stage.shop().await;

    client.write_all(b"GET / HTTP/1.1\nhost: web\r\n\r\n").await.unwrap();
    let (status, ..) = read_response(&mut client).await;

    assert_eq!(status, 400);
    cause(&stage, "finished").await;
}
