//! Calls of a workload through its sidecar to another one's.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{POLICY, Stage};
use crate::testing::{Authority, Backend, HELLO, SHOP, Sidecar, Site, WEB, read_all, read_response};

/// Two sidecars: the shop's outbound listener leads to the web service's inbound one.
struct Pair {
    web: Stage,
    shop: Sidecar,
    site: Site,
}

impl Pair {
    async fn new(protocol: &str, backend: Backend, expect: &str) -> Self {
        let web = Stage::inbound(protocol, backend).await;
        let site = Site::new(&web.authority, SHOP, POLICY);
        let endpoint = web.sidecar.inbound();
        let text = outbound(&site, protocol, &format!("\"{endpoint}\""), expect);
        let shop = Sidecar::ready(&text).await;
        Self { web, shop, site }
    }

    async fn app(&self) -> TcpStream {
        TcpStream::connect(self.shop.outbound()).await.unwrap()
    }
}

fn outbound(site: &Site, protocol: &str, endpoints: &str, expect: &str) -> String {
    format!(
        "{}outbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: {protocol}, endpoints: [{endpoints}], expect: [{expect}]}}\n",
        site.base()
    )
}

#[tokio::test]
async fn plain_http_crosses_two_sidecars() {
    let bodies = |bytes: &[u8]| (bytes.windows(5).filter(|window| *window == b"0\r\n\r\n").count(), HELLO);
    let pair = Pair::new("http", Backend::start(bodies).await, WEB).await;
    let mut app = pair.app().await;

    for _ in 0..3 {
        app.write_all(
            b"POST /v1 HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await
        .unwrap();
        let (status, _, body) = read_response(&mut app).await;
        assert_eq!((status, body.as_slice()), (200, &b"hello"[..]));
    }

    let opened = pair.web.site.record(|record| record["src_endpoint"]["uid"] == SHOP).await;
    assert_eq!(opened["dst_endpoint"]["uid"], WEB);
    assert_eq!(pair.web.backend.connections(), 1);
}

#[tokio::test]
async fn bytes_cross_two_sidecars_and_the_half_close_too() {
    let echo = Backend::start(|bytes| (usize::from(bytes.ends_with(b"ping")), "pong")).await;
    let pair = Pair::new("tcp", echo, WEB).await;
    let mut app = pair.app().await;

    app.write_all(b"ping").await.unwrap();
    app.shutdown().await.unwrap();
    let answer = read_all(&mut app).await.unwrap();

    assert_eq!(answer, b"pong");
    pair.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "finished").await;
}

#[tokio::test]
async fn a_service_that_proves_another_identity_gets_no_request() {
    let pair = Pair::new("http", Backend::http(HELLO).await, "spiffe://prod.test/other").await;
    let mut app = pair.app().await;

    app.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, _, body) = read_response(&mut app).await;

    assert_eq!(status, 502);
    let denial = pair.site.denial("handshake_failed").await;
    let id = denial["unmapped"]["vouchsafe"]["denial_id"].as_str().unwrap();
    assert!(String::from_utf8_lossy(&body).contains(id), "{body:?}");
    assert_eq!(pair.web.backend.received(), "");
}

#[tokio::test]
async fn a_tcp_call_to_a_service_that_proves_another_identity_is_reset() {
    let pair = Pair::new("tcp", Backend::start(|_| (0, "")).await, "spiffe://prod.test/other").await;

    // The reset may come before the caller has noticed that it is connected.
    let error = match TcpStream::connect(pair.shop.outbound()).await {
        Ok(mut app) => read_all(&mut app).await.unwrap_err(),
        Err(error) => error,
    };

    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    pair.site.denial("handshake_failed").await;
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_passed_over() {
    let web = Stage::inbound("http", Backend::http(HELLO).await).await;
    let site = Site::new(&web.authority, SHOP, POLICY);
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoints = format!("\"{dead}\", \"{}\"", web.sidecar.inbound());
    let shop = Sidecar::ready(&outbound(&site, "http", &endpoints, WEB)).await;

    for _ in 0..4 {
        let mut app = TcpStream::connect(shop.outbound()).await.unwrap();
        app.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n").await.unwrap();
        assert_eq!(read_response(&mut app).await.0, 200);
    }
}

#[tokio::test]
async fn local_failures_are_told_to_the_application_in_words() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, SHOP, POLICY);
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let shop = Sidecar::ready(&outbound(&site, "http", &format!("\"{dead}\""), WEB)).await;
    let mut app = TcpStream::connect(shop.outbound()).await.unwrap();

    app.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    let (status, _, body) = read_response(&mut app).await;

    assert_eq!((status, body.as_slice()), (502, &b"{\"error\":\"connect_failed\"}\n"[..]));
}

#[tokio::test]
async fn a_rotation_on_both_sides_breaks_no_connection() {
    let pair = Pair::new("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await, WEB).await;
    let mut app = pair.app().await;
    app.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut app, &mut answer).await.unwrap();

    pair.web.site.write_identity(&pair.web.authority, WEB, &[&pair.web.authority]);
    pair.site.write_identity(&pair.web.authority, SHOP, &[&pair.web.authority]);
    for site in [&pair.web.site, &pair.site] {
        crate::testing::eventually(async || {
            let rotated = |record: &serde_json::Value| record.to_string().contains("identity_rotated");
            (site.records().iter().filter(|record| rotated(record)).count() == 2).then_some(())
        })
        .await
        .expect("a second identity");
    }
    app.write_all(b"ping").await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut app, &mut answer).await.unwrap();

    assert_eq!(&answer, b"pong");
}

#[tokio::test]
async fn an_upgrade_or_a_tunnel_is_decided_where_it_is_called() {
    let pair = Pair::new("http", Backend::http(HELLO).await, WEB).await;
    let upgrade = "GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let connect = "CONNECT db:5432 HTTP/1.1\r\nhost: db:5432\r\n\r\n";

    for (request, method) in [(upgrade, "GET"), (connect, "CONNECT")] {
        let mut app = pair.app().await;
        app.write_all(request.as_bytes()).await.unwrap();

        assert_eq!(read_response(&mut app).await.0, 403);
        pair.web.site.record(|record| record["http_request"]["http_method"] == method).await;
    }
    assert_eq!(pair.web.backend.connections(), 0);
}
