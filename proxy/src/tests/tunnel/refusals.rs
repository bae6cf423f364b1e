//! What no tunnel does: each refusal is answered, recorded, and no byte reaches an application.

use http::{Method, Request, Uri};
use tokio::io::AsyncWriteExt;

use super::{Stage, TCP_POLICY, Web, echo, peer::Peer};
use crate::testing::{Backend, SHOP, STRANGER, read_all};

/// Attack case 19.
#[tokio::test]
async fn an_authority_that_is_not_the_called_address_and_a_port_of_the_workload_is_400() {
    let stage = Stage::tunnel("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let (port, own) = (stage.sidecar.inbound().port(), stage.tunnels().port());
    let admin = stage.sidecar.ready.admin.unwrap().port();

    for (authority, code) in [
        (format!("127.0.0.2:{port}"), "tunnel_forbidden_address"),
        (format!("[::1]:{port}"), "tunnel_forbidden_address"),
        ("169.254.169.254:80".to_owned(), "tunnel_forbidden_address"),
        (format!("0.0.0.0:{port}"), "tunnel_forbidden_address"),
        (format!("[::]:{port}"), "tunnel_forbidden_address"),
        (format!("224.0.0.1:{port}"), "tunnel_forbidden_address"),
        (format!("10.0.0.7:{port}"), "tunnel_address"),
        (format!("[2001:db8::1]:{port}"), "tunnel_address"),
        (format!("localhost:{port}"), "authority"),
        (format!("web.prod.svc.cluster.local:{port}"), "authority"),
        (format!("user@127.0.0.1:{port}"), "authority"),
        (format!("2130706433:{port}"), "authority"),
        ("127.0.0.1".to_owned(), "authority"),
        (format!("127.0.0.1:0{port}"), "authority"),
        (format!("127.0.0.1:{own}"), "tunnel_port"),
        (format!("127.0.0.1:{admin}"), "tunnel_port"),
        ("127.0.0.1:1".to_owned(), "tunnel_port"),
    ] {
        assert_eq!(peer.connect_to(&authority).await.unwrap_err(), 400, "{authority}");
        let denial = stage.site.record(|record| record["unmapped"]["vouchsafe"]["code"] == code).await;
        assert_eq!(denial["src_endpoint"]["uid"], SHOP, "{denial:#}");
        assert_eq!(denial["action_id"], 2, "{denial:#}");
    }
    assert_eq!(stage.backend.connections(), 0);
    // The tunnel is none the worse for it.
    let mut stream = peer.connect_to(&stage.authority()).await.unwrap();
    stream.say("ping");
    assert_eq!(stream.hear(4).await.unwrap(), b"pong");
}

#[tokio::test]
async fn nothing_but_a_plain_connect_is_taken() {
    let stage = Stage::tunnel("http", Backend::http(crate::testing::HELLO).await).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let authority = stage.authority();
    let connect = || {
        let uri = Uri::builder().authority(authority.as_str()).build().unwrap();
        Request::builder().method(Method::CONNECT).uri(uri)
    };

    let get = Request::builder().uri(format!("http://{authority}/")).body(()).unwrap();
    let post = Request::builder().method("POST").uri(format!("https://{authority}/")).body(()).unwrap();
    let other_host = connect().header("host", "10.0.0.7:80").body(()).unwrap();
    let two_hosts = connect().header("host", authority.as_str()).header("host", "a:1").body(()).unwrap();
    let length = connect().header("content-length", "5").body(()).unwrap();
    for request in [get, post, other_host, two_hosts, length] {
        let said = format!("{request:?}");
        assert_eq!(peer.send(request).await.unwrap_err(), 400, "{said}");
    }

    stage.site.record(|record| record["unmapped"]["vouchsafe"]["code"] == "tunnel_method").await;
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["code"] == "tunnel_header").await;
    assert_eq!(stage.backend.connections(), 0);
}

#[tokio::test]
async fn a_caller_whom_policy_forbids_is_401_and_on_record_with_the_reason() {
    let stage = Stage::tunnel("tcp", Backend::start(|_| (0, "")).await).await;
    let peer = Peer::connect(&stage.authority.credentials(STRANGER), stage.tunnels()).await;

    for _ in 0..3 {
        assert_eq!(peer.connect_to(&stage.authority()).await.unwrap_err(), 401);
    }

    let denial = stage.site.denial("no_allow_matched").await;
    assert_eq!(denial["src_endpoint"]["uid"], STRANGER);
    assert_eq!(stage.backend.connections(), 0);
}

#[tokio::test]
async fn an_application_that_is_not_there_is_503() {
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let web = Web::with(TCP_POLICY, &[dead, echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;

    assert_eq!(peer.connect_to(&web.listener(0).to_string()).await.unwrap_err(), 503);

    let mut stream = peer.connect_to(&web.listener(1).to_string()).await.unwrap();
    stream.say("ping");
    assert_eq!(stream.hear(4).await.unwrap(), b"ping");
}

#[tokio::test]
async fn streams_count_among_the_connections_there_may_be() {
    let limits = "limits: {connections: 3}\n";
    let web = Web::with(TCP_POLICY, &[echo().await], limits).await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let authority = web.listener(0).to_string();
    let first = peer.connect_to(&authority).await.unwrap();
    let _second = peer.connect_to(&authority).await.unwrap();

    assert_eq!(peer.connect_to(&authority).await.unwrap_err(), 503);

    web.site.denial("limit_exceeded").await;
    drop(first);
    crate::testing::eventually(async || peer.connect_to(&authority).await.ok())
        .await
        .expect("a place that is free again");
}

#[tokio::test]
async fn who_does_not_ask_for_http2_gets_no_tunnel() {
    let stage = Stage::tunnel("tcp", Backend::start(|_| (0, "")).await).await;
    let credentials = stage.authority.credentials(SHOP);

    let mut plain = crate::testing::call(&credentials, stage.tunnels()).await;
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let answer = read_all(&mut plain).await.unwrap_or_default();

    assert_eq!(answer, b"");
    let denial = stage.site.denial("handshake_failed").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "no_h2", "{denial:#}");
}

#[tokio::test]
async fn plaintext_gets_no_tunnel() {
    let stage = Stage::tunnel("tcp", Backend::start(|_| (0, "")).await).await;
    let mut socket = tokio::net::TcpStream::connect(stage.tunnels()).await.unwrap();

    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let answer = read_all(&mut socket).await.unwrap_or_default();

    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let denial = stage.site.denial("handshake_failed").await;
    assert_eq!(denial["unmapped"]["vouchsafe"]["code"], "not_tls", "{denial:#}");
}

#[tokio::test]
async fn a_peer_that_proves_itself_and_says_nothing_is_let_go() {
    let limits = "limits: {handshake_timeout: 300ms}\n";
    let web = Web::with(TCP_POLICY, &[echo().await], limits).await;
    let config = identity::tls::client_config(
        &web.authority.credentials(SHOP),
        identity::tls::ExpectedServer::DangerAnyMember,
        &[identity::tls::ALPN_H2],
    );
    let socket = tokio::net::TcpStream::connect(web.tunnels()).await.unwrap();
    let (_, mut silent) = identity::tls::connect(config.unwrap(), socket).await.unwrap();

    // Settings may come; then the end.
    let _ = read_all(&mut silent).await;
}
