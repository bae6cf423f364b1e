//! Upgrades and tunnels: only where a rule allows them and the upstream has agreed, and only as long as they are allowed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stage;
use crate::testing::{Backend, HELLO, eventually, find, read_all, read_response};

const POLICY: &str = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: tunnels
    from: [spiffe://prod.test/shop]
    connect: {port: any, to_ports: [5432]}
  - name: sockets
    from: [spiffe://prod.test/shop]
    upgrade: {port: any, protocols: [websocket], paths: [/**]}
  - name: reads
    from: [spiffe://prod.test/shop]
    http: {port: any, methods: [GET], paths: [/**]}
";

const WEBSOCKET: &[u8] =
    b"GET /chat HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\n\r\n";
const CONNECT: &[u8] = b"CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// An application that answers the first head with `answer` and everything after it with its echo in other bytes.
async fn echo(answer: &'static str) -> Backend {
    Backend::start(move |bytes| {
        let Some(end) = find(bytes, b"\r\n\r\n") else { return (0, answer) };
        let said = bytes.len() - end - 4;
        if said == 0 { (1, answer) } else { (2, "pong") }
    })
    .await
}

async fn stage(answer: &'static str) -> Stage {
    Stage::of_policy(POLICY, echo(answer).await).await
}

/// Reads the head of an answer and no more.
async fn head(client: &mut crate::testing::Client) -> String {
    let mut bytes = Vec::new();
    while find(&bytes, b"\r\n\r\n").is_none() {
        bytes.push(client.read_u8().await.unwrap());
    }
    String::from_utf8(bytes).unwrap().to_lowercase()
}

#[tokio::test]
async fn a_websocket_that_a_rule_allows_is_carried_both_ways() {
    let stage = stage(SWITCHING).await;
    let mut client = stage.shop().await;

    client.write_all(WEBSOCKET).await.unwrap();
    let head = head(&mut client).await;
    client.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();

    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: websocket"), "{head}");
    assert!(head.contains("connection: upgrade"), "{head}");
    assert_eq!(&answer, b"pong");
    let received = stage.backend.received();
    assert!(
        received.contains("upgrade: websocket") && received.contains("connection: upgrade"),
        "{received}"
    );
    assert!(received.contains("sec-websocket-version: 13") && received.ends_with("ping"), "{received}");
}

#[tokio::test]
async fn bytes_before_the_switch_reach_the_application_only_after_it() {
    let stage = stage(SWITCHING).await;
    let mut client = stage.shop().await;

    client.write_all(&[WEBSOCKET, b"early"].concat()).await.unwrap();
    head(&mut client).await;

    let arrived = eventually(async || stage.backend.received().ends_with("early").then_some(())).await;
    assert!(arrived.is_some(), "{}", stage.backend.received());
}

#[tokio::test]
async fn an_upgrade_that_is_answered_by_200_is_an_ordinary_answer_and_nothing_is_tunnelled() {
    let stage = Stage::of_policy(POLICY, Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    let follows = b"POST /smuggled HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    client.write_all(&[WEBSOCKET, follows].concat()).await.unwrap();
    let answers = String::from_utf8(read_all(&mut client).await.unwrap()).unwrap();

    // What followed is a request, decided like any other.
    let statuses: Vec<_> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "403"], "{answers}");
    assert!(!stage.backend.received().contains("smuggled"), "{}", stage.backend.received());
}

#[tokio::test]
async fn a_switch_to_what_was_not_asked_for_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.0 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    ] {
        let stage = stage(answer).await;
        let mut client = stage.shop().await;

        client.write_all(WEBSOCKET).await.unwrap();
        let (status, ..) = read_response(&mut client).await;

        assert_eq!(status, 502, "{answer}");
    }
}

#[tokio::test]
async fn an_upgrade_with_a_body_is_answered_only_when_the_body_was_sent() {
    let stage = Stage::of_policy(POLICY, Backend::http(SWITCHING).await).await;
    let mut client = stage.shop().await;

    let request = [&WEBSOCKET[..WEBSOCKET.len() - 2], b"content-length: 5\r\n\r\nhel"].concat();
    client.write_all(&request).await.unwrap();
    let ended = read_all(&mut client).await.unwrap_or_default();

    assert!(!String::from_utf8_lossy(&ended).contains(" 101 "), "{}", String::from_utf8_lossy(&ended));
}

#[tokio::test]
async fn a_tunnel_that_a_rule_allows_is_carried_after_2xx_without_framing() {
    let stage = stage("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n").await;
    let mut client = stage.shop().await;

    client.write_all(CONNECT).await.unwrap();
    let head = head(&mut client).await;
    client.write_all(b"ping").await.unwrap();

    assert!(head.starts_with("http/1.1 200 ") && !head.contains("content-length"), "{head}");
    let arrived = eventually(async || stage.backend.received().ends_with("ping").then_some(())).await;
    assert!(arrived.is_some() && stage.backend.received().starts_with("CONNECT db:5432 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_tunnel_that_the_application_refuses_is_an_ordinary_answer() {
    let stage =
        Stage::of_policy(POLICY, Backend::http("HTTP/1.1 407 No\r\ncontent-length: 2\r\n\r\nno").await).await;
    let mut client = stage.shop().await;

    client.write_all(CONNECT).await.unwrap();
    let (status, _, body) = read_response(&mut client).await;

    assert_eq!((status, body.as_slice()), (407, &b"no"[..]));
}

#[tokio::test]
async fn tunnels_to_ports_of_no_rule_to_this_host_and_to_credentials_are_denied() {
    let stage = stage("HTTP/1.1 200 OK\r\n\r\n").await;

    for (authority, reason) in [
        ("db:5433", "no_allow_matched"),
        ("127.0.0.1:5432", "not_permitted"),
        ("localhost:5432", "not_permitted"),
        ("169.254.169.254:5432", "not_permitted"),
    ] {
        let mut client = stage.shop().await;
        let request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (status, ..) = read_response(&mut client).await;
        assert_eq!(status, 403, "{authority}");
        stage.site.denial(reason).await;
    }
    assert_eq!(stage.backend.received(), "");
}

#[tokio::test]
async fn a_switched_connection_is_reset_when_a_new_policy_forbids_what_it_asked_for() {
    let stage = stage(SWITCHING).await;
    let mut client = stage.shop().await;
    client.write_all(WEBSOCKET).await.unwrap();
    head(&mut client).await;

    stage.site.write_policy(&POLICY.replace("[websocket]", "[other]"));

    let ended = read_all(&mut client).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["stage"], "reevaluate");
    let closed =
        stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "policy_changed").await;
    assert!(closed["traffic"]["bytes_out"].as_u64() > Some(0), "{closed:#}");
}

#[tokio::test]
async fn an_idle_switched_connection_is_no_idle_request() {
    let backend = echo(SWITCHING).await;
    let stage =
        Stage::started("http", POLICY, backend, "limits: {idle_timeout: 200ms, stall_timeout: 200ms}\n")
            .await;
    let mut client = stage.shop().await;
    client.write_all(WEBSOCKET).await.unwrap();
    head(&mut client).await;

    let early = tokio::time::timeout(std::time::Duration::from_millis(1500), client.read_u8()).await;

    assert!(early.is_err(), "{early:?}");
}

#[tokio::test]
async fn an_old_client_cannot_ask_for_another_protocol() {
    let stage = Stage::of_policy(POLICY, Backend::http(HELLO).await).await;
    let mut client = stage.shop().await;

    let request = String::from_utf8(WEBSOCKET.to_vec()).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = read_all(&mut client).await.unwrap();

    assert!(answer.starts_with(b"HTTP/1.0 200 "));
    assert!(!stage.backend.received().contains("upgrade"), "{}", stage.backend.received());
}
