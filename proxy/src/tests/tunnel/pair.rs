//! Two sidecars with tunnels between them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{POLICY, Stage, TCP_POLICY, TUNNEL, Web, echo};
use crate::testing::{
    Backend, HELLO, SHOP, STRANGER, Sidecar, Site, WEB, eventually, read_all, read_response,
};

/// Counts the connections that go through it: the tunnels of a pair.
struct Counted {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Counted {
    async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            loop {
                let (mut here, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(to).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
        Self { address, accepted }
    }

    fn tunnels(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A sidecar that calls a service through tunnels.
struct Caller {
    site: Site,
    sidecar: Sidecar,
}

/// What a caller's listener says.
struct Listener<'a> {
    protocol: &'a str,
    endpoint: SocketAddr,
    how: &'a str,
    port: u16,
    expect: &'a str,
}

impl Caller {
    async fn new(authority: &crate::testing::Authority, id: &str, to: Listener<'_>) -> Self {
        let site = Site::new(authority, id, POLICY);
        let Listener { protocol, endpoint, how, port, expect } = to;
        let text = format!(
            "{}outbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: {protocol}, endpoints: [\"{endpoint}\"], \
             expect: [{expect}], tunnel: {how}, tunnel_port: {port}}}\n",
            site.base()
        );
        let sidecar = Sidecar::ready(&text).await;
        Self { site, sidecar }
    }

    /// The shop's sidecar before one of the web service's listeners.
    async fn shop(web: &Web, number: usize, tunnels: SocketAddr) -> Self {
        let endpoint = web.listener(number);
        let to = Listener { protocol: "tcp", endpoint, how: "true", port: tunnels.port(), expect: WEB };
        Self::new(&web.authority, SHOP, to).await
    }

    async fn app(&self) -> TcpStream {
        TcpStream::connect(self.sidecar.outbound()).await.unwrap()
    }

    /// Calls, and says how the call failed. It may before its connection is ours.
    async fn refused(&self) -> std::io::ErrorKind {
        match TcpStream::connect(self.sidecar.outbound()).await {
            Ok(mut app) => read_all(&mut app).await.unwrap_err().kind(),
            Err(error) => error.kind(),
        }
    }
}

/// A port that is taken and nobody listens on.
fn deaf() -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

async fn ping(app: &mut TcpStream) {
    let mut answer = [0; 4];
    app.write_all(b"ping").await.unwrap();
    tokio::time::timeout(crate::testing::PATIENCE, app.read_exact(&mut answer))
        .await
        .expect("an answer")
        .unwrap();
    assert_eq!(&answer, b"ping");
}

#[tokio::test]
async fn bytes_cross_a_tunnel_and_the_half_close_too() {
    let backend = Backend::start(|bytes| (usize::from(bytes.ends_with(b"ping")), "pong")).await;
    let web = Web::with(TCP_POLICY, &[backend.address], "").await;
    let shop = Caller::shop(&web, 0, web.tunnels()).await;
    let mut app = shop.app().await;

    app.write_all(b"ping").await.unwrap();
    app.shutdown().await.unwrap();

    assert_eq!(read_all(&mut app).await.unwrap(), b"pong");
    assert_eq!(backend.received(), "ping");
    for site in [&web.site, &shop.site] {
        let closed = site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "finished").await;
        assert_eq!(closed["src_endpoint"]["uid"], SHOP, "{closed:#}");
        assert_eq!(closed["dst_endpoint"]["uid"], WEB, "{closed:#}");
        assert_eq!(closed["traffic"]["bytes_in"], 4, "{closed:#}");
        assert_eq!(closed["traffic"]["bytes_out"], 4, "{closed:#}");
    }
}

#[tokio::test]
async fn requests_cross_a_tunnel_and_are_decided_at_its_end() {
    let web = Stage::tunnel("http", Backend::http(HELLO).await).await;
    let endpoint = web.sidecar.inbound();
    let tunnels = Counted::before(web.tunnels()).await;
    let port = tunnels.address.port();
    let to = Listener { protocol: "http", endpoint, how: "true", port, expect: WEB };
    let shop = Caller::new(&web.authority, SHOP, to).await;
    let mut app = shop.app().await;

    for (path, status) in [("/v1", 200), ("/admin", 403), ("/v1", 200)] {
        app.write_all(format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(read_response(&mut app).await.0, status, "{path}");
    }

    web.site.denial("explicit_deny").await;
    assert_eq!(tunnels.tunnels(), 1);
}

#[tokio::test]
async fn http2_crosses_a_tunnel() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_response(http::Response::new(()), true).unwrap();
        }
    });
    let authority = crate::testing::Authority::new("prod");
    let site = Site::new(&authority, WEB, POLICY);
    let inbound = format!(
        "inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {application}}}\n"
    );
    let web = Sidecar::ready(&format!("{}{TUNNEL}{inbound}", site.base())).await;
    let (endpoint, port) = (web.inbound(), web.ready.tunnel.unwrap().port());
    let to = Listener { protocol: "http", endpoint, how: "true", port, expect: WEB };
    let shop = Caller::new(&authority, SHOP, to).await;

    let (mut sender, connection) = h2::client::handshake(shop.app().await).await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for path in ["v1", "admin", "v1"] {
        std::future::poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
        let request = http::Request::builder().uri(format!("http://web/{path}")).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        statuses.push(response.await.unwrap().status().as_u16());
    }

    assert_eq!(statuses, [200, 403, 200]);
    site.denial("explicit_deny").await;
}

#[tokio::test]
async fn ten_megabytes_cross_a_tunnel_both_ways_as_they_were_sent() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let shop = Caller::shop(&web, 0, web.tunnels()).await;
    let (mut read, mut write) = shop.app().await.into_split();
    let sent: Vec<u8> = (0..10_000_000_u32).map(|number| (number % 251) as u8).collect();

    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let received = read_all(&mut read).await.unwrap();

    writing.await.unwrap();
    assert!(received == expected, "{} bytes", received.len());
}

#[tokio::test]
async fn a_thousand_connections_share_ten_tunnels() {
    const CONNECTIONS: usize = 1000;
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let tunnels = Counted::before(web.tunnels()).await;
    let shop = Caller::shop(&web, 0, tunnels.address).await;

    let mut apps = Vec::new();
    for _ in 0..CONNECTIONS {
        apps.push(shop.app().await);
    }
    for app in &mut apps {
        ping(app).await;
    }

    assert_eq!(tunnels.tunnels(), CONNECTIONS / crate::tunnel::MAX_STREAMS);
    drop(apps.split_off(10));
    let finished = |record: &serde_json::Value| record["unmapped"]["vouchsafe"]["close_cause"] == "finished";
    eventually(async || {
        (shop.site.records().iter().filter(|record| finished(record)).count() > 900).then_some(())
    })
    .await
    .expect("places that are free again");
    let mut again = shop.app().await;
    ping(&mut again).await;
    assert_eq!(tunnels.tunnels(), CONNECTIONS / crate::tunnel::MAX_STREAMS);
}

#[tokio::test]
async fn a_denial_at_the_end_of_a_tunnel_is_a_reset_here_and_on_record_at_both_ends() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let endpoint = web.listener(0);
    let port = web.tunnels().port();
    let to = Listener { protocol: "tcp", endpoint, how: "true", port, expect: WEB };
    let stranger = Caller::new(&web.authority, STRANGER, to).await;

    assert_eq!(stranger.refused().await, std::io::ErrorKind::ConnectionReset);
    let told = stranger.site.denial("not_permitted").await;
    assert_eq!(told["unmapped"]["vouchsafe"]["code"], "refused_by_peer", "{told:#}");
    web.site.denial("no_allow_matched").await;
    // A decision is not asked for twice.
    let denials = web.site.records().iter().filter(|record| record["action_id"] == 2).count();
    assert_eq!(denials, 1);
}

#[tokio::test]
async fn a_tunnel_to_somebody_else_carries_nothing() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let (endpoint, port) = (web.listener(0), web.tunnels().port());
    let expect = "spiffe://prod.test/other";
    let to = Listener { protocol: "tcp", endpoint, how: "true", port, expect };
    let shop = Caller::new(&web.authority, SHOP, to).await;

    assert_eq!(shop.refused().await, std::io::ErrorKind::ConnectionReset);
    shop.site.denial("handshake_failed").await;
}

#[tokio::test]
async fn where_tunnels_are_preferred_an_endpoint_without_them_is_called_directly() {
    let web = Web::with(TCP_POLICY, &[echo().await, echo().await], "").await;
    let nobody = deaf();

    // Nobody listens there, or somebody who speaks TLS for something else.
    for port in [nobody.local_addr().unwrap().port(), web.listener(1).port()] {
        let to = Listener { protocol: "tcp", endpoint: web.listener(0), how: "prefer", port, expect: WEB };
        let shop = Caller::new(&web.authority, SHOP, to).await;
        ping(&mut shop.app().await).await;
    }
}

#[tokio::test]
async fn where_tunnels_are_asked_for_nothing_goes_without() {
    let web = Web::with(TCP_POLICY, &[echo().await, echo().await], "").await;
    let nobody = deaf();

    for port in [nobody.local_addr().unwrap().port(), web.listener(1).port()] {
        let to = Listener { protocol: "tcp", endpoint: web.listener(0), how: "true", port, expect: WEB };
        let shop = Caller::new(&web.authority, SHOP, to).await;
        assert_eq!(shop.refused().await, std::io::ErrorKind::ConnectionReset);
    }
    let opened = web.site.records().iter().filter(|record| record["activity_id"] == 1).count();
    assert_eq!(opened, 0);
}

#[tokio::test]
async fn after_a_rotation_connections_go_through_a_new_tunnel_and_those_that_live_stay() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let tunnels = Counted::before(web.tunnels()).await;
    let shop = Caller::shop(&web, 0, tunnels.address).await;
    let mut before = shop.app().await;
    ping(&mut before).await;

    shop.site.write_identity(&web.authority, SHOP, &[&web.authority]);
    let rotated = |record: &serde_json::Value| record.to_string().contains("identity_rotated");
    eventually(async || {
        (shop.site.records().iter().filter(|record| rotated(record)).count() == 2).then_some(())
    })
    .await
    .expect("a second identity");
    let mut after = shop.app().await;
    ping(&mut after).await;

    ping(&mut before).await;
    assert_eq!(tunnels.tunnels(), 2);
}

#[tokio::test]
async fn a_root_that_we_withdraw_cuts_the_tunnels_it_vouched_for() {
    let other = crate::testing::Authority::new("other");
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let shop = Caller::shop(&web, 0, web.tunnels()).await;
    let mut app = shop.app().await;
    ping(&mut app).await;

    shop.site.write_identity(&other, SHOP, &[&other]);
    let error = read_all(&mut app).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    shop.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "trust_withdrawn").await;
}

#[tokio::test]
async fn a_tunnel_that_breaks_is_replaced() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let tunnels = Counted::before(web.tunnels()).await;
    let shop = Caller::shop(&web, 0, tunnels.address).await;
    ping(&mut shop.app().await).await;

    // The other side makes callers come again.
    web.site.write_identity(&web.authority, WEB, &[&web.authority]);
    eventually(async || {
        ping(&mut shop.app().await).await;
        (tunnels.tunnels() > 1).then_some(())
    })
    .await
    .expect("a second tunnel");
}

#[tokio::test]
async fn many_that_come_at_once_wait_for_one_tunnel() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let tunnels = Counted::before(web.tunnels()).await;
    let shop = Caller::shop(&web, 0, tunnels.address).await;

    let calls = (0..50).map(|_| async { ping(&mut shop.app().await).await });
    futures_util::future::join_all(calls).await;

    assert_eq!(tunnels.tunnels(), 1);
}

#[tokio::test]
async fn many_that_come_at_once_hear_of_one_failure() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (endpoint, port) = (web.listener(0), silent.local_addr().unwrap().port());
    let site = Site::new(&web.authority, SHOP, POLICY);
    let text = format!(
        "{}limits: {{handshake_timeout: 500ms}}\noutbound:\n  - {{name: web, listen: 127.0.0.1:0, protocol: tcp, \
         endpoints: [\"{endpoint}\"], expect: [{WEB}], tunnel: true, tunnel_port: {port}}}\n",
        site.base()
    );
    let shop = Caller { sidecar: Sidecar::ready(&text).await, site };

    // One after the other these would take most of a minute.
    let errors = futures_util::future::join_all((0..100).map(|_| shop.refused())).await;

    assert!(errors.iter().all(|kind| *kind == std::io::ErrorKind::ConnectionReset));
}
