//! What a peer gets that speaks HBONE byte by byte.

use bytes::Bytes;

use super::{Stage, TCP_POLICY, Web, echo, peer::Peer};
use crate::testing::{Backend, HELLO, SHOP, eventually};

#[tokio::test]
async fn bytes_pass_both_ways_and_each_half_ends_by_itself() {
    let stage =
        Stage::tunnel("tcp", Backend::start(|bytes| (usize::from(bytes.ends_with(b"ping")), "pong")).await)
            .await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let mut stream = peer.connect_to(&stage.authority()).await.unwrap();

    stream.say("ping");
    stream.end();
    let answer = stream.hear_all().await.unwrap();

    assert_eq!((answer.as_slice(), stage.backend.received().as_str()), (&b"pong"[..], "ping"));
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "finished").await;
}

#[tokio::test]
async fn each_stream_is_a_connection_of_its_own_of_the_tunnels_caller() {
    let stage = Stage::tunnel("tcp", Backend::start(|_| (0, "")).await).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;

    let _first = peer.connect_to(&stage.authority()).await.unwrap();
    let _second = peer.connect_to(&stage.authority()).await.unwrap();

    let opened = eventually(async || {
        let mut opened = stage.site.records();
        opened.retain(|record| record["src_endpoint"]["uid"] == SHOP && record["activity_id"] == 1);
        (opened.len() == 2).then_some(opened)
    });
    let opened = opened.await.expect("two openings");
    assert_ne!(opened[0]["unmapped"]["vouchsafe"]["conn_id"], opened[1]["unmapped"]["vouchsafe"]["conn_id"]);
    for record in opened {
        // What the headers say of the caller counts for nothing.
        assert_eq!(record["src_endpoint"]["ip"], "127.0.0.1", "{record:#}");
        assert_eq!(record["dst_endpoint"]["port"], stage.sidecar.inbound().port());
    }
    assert_eq!(stage.backend.connections(), 2);
}

#[tokio::test]
async fn the_applications_own_port_leads_to_its_door_too() {
    let stage = Stage::tunnel("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let mut stream = peer.connect_to(&stage.backend.address.to_string()).await.unwrap();

    stream.say("ping");

    assert_eq!(stream.hear(4).await.unwrap(), b"pong");
    let opened = stage.site.record(|record| record["src_endpoint"]["uid"] == SHOP).await;
    // Policies know the door by one port, whichever a caller names.
    assert_eq!(opened["dst_endpoint"]["port"], stage.sidecar.inbound().port());
}

#[tokio::test]
async fn requests_in_a_stream_are_decided_one_by_one() {
    let stage = Stage::tunnel("http", Backend::http(HELLO).await).await;
    let peer = Peer::connect(&stage.authority.credentials(SHOP), stage.tunnels()).await;
    let mut stream = peer.connect_to(&stage.authority()).await.unwrap();

    stream.say("GET /v1 HTTP/1.1\r\nhost: web\r\nl5d-client-id: admin\r\n\r\n");
    let allowed = stream.hear(HELLO.len()).await.unwrap();
    stream.say("GET /admin HTTP/1.1\r\nhost: web\r\n\r\n");
    let denied = stream.hear(1).await.unwrap();

    assert!(allowed.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&allowed));
    assert!(denied.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&denied));
    assert_eq!(stage.backend.received().matches(SHOP).count(), 1, "{}", stage.backend.received());
    stage.site.denial("explicit_deny").await;
}

#[tokio::test]
async fn a_reset_by_the_application_is_a_reset_of_the_stream_alone() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web::with(TCP_POLICY, &[listener.local_addr().unwrap()], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut broken = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let (application, _) = listener.accept().await.unwrap();
    let mut whole = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let (other, _) = listener.accept().await.unwrap();

    application.set_zero_linger().unwrap();
    drop(application);
    let error = broken.hear_all().await.unwrap_err();
    drop(other);

    // Whoever takes CANCEL or NO_ERROR for an end in order has to see neither.
    assert_eq!(error.reason(), Some(h2::Reason::CONNECT_ERROR));
    assert_eq!(whole.hear_all().await.unwrap(), b"");
}

#[tokio::test]
async fn a_reset_of_the_stream_is_a_reset_for_the_application() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web::with(TCP_POLICY, &[listener.local_addr().unwrap()], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;

    // Some say CANCEL where a connection broke.
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR, h2::Reason::CONNECT_ERROR] {
        let mut stream = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
        let (mut application, _) = listener.accept().await.unwrap();

        stream.send.send_reset(reason);
        let error = crate::testing::read_all(&mut application).await.unwrap_err();

        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{reason:?}");
    }
}

#[tokio::test]
async fn the_end_of_a_tunnel_is_a_reset_for_the_applications_of_its_streams() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web::with(TCP_POLICY, &[listener.local_addr().unwrap()], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let _stream = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let (mut application, _) = listener.accept().await.unwrap();

    peer.driver.abort();
    let error = crate::testing::read_all(&mut application).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_no_other_up() {
    let flood = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web::with(TCP_POLICY, &[flood.local_addr().unwrap(), echo().await], "").await;
    let sent = tokio::spawn(async move {
        let (mut socket, _) = flood.accept().await.unwrap();
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = std::sync::Arc::clone(&sent);
        tokio::spawn(async move {
            let block = vec![b'x'; 65536];
            while tokio::io::AsyncWriteExt::write_all(&mut socket, &block).await.is_ok() {
                count.fetch_add(block.len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        sent
    });
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let _unread = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let sent = sent.await.unwrap();
    let mut before = 0;
    eventually(async || {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    })
    .await
    .expect("the application is held up");

    let mut stream = peer.connect_to(&web.listener(1).to_string()).await.unwrap();
    stream.say("ping");

    assert_eq!(stream.hear(4).await.unwrap(), b"ping");
}

#[tokio::test]
async fn an_application_that_does_not_read_holds_up_its_own_caller_only() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = Web::with(TCP_POLICY, &[deaf.local_addr().unwrap(), echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut unread = peer.connect_to(&web.listener(0).to_string()).await.unwrap();
    let _held = deaf.accept().await.unwrap();

    let mut sent = 0;
    let stalled = eventually(async || {
        unread.send.reserve_capacity(65536);
        let room = std::future::poll_fn(|cx| unread.send.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_millis(300), room).await {
            Ok(room) => {
                let room = room.unwrap().unwrap();
                unread.send.send_data(Bytes::from(vec![b'x'; room]), false).unwrap();
                sent += room;
                None
            }
            Err(_) => Some(()),
        }
    });
    stalled.await.expect("the window closes");
    let mut stream = peer.connect_to(&web.listener(1).to_string()).await.unwrap();
    stream.say("ping");

    assert_eq!(stream.hear(4).await.unwrap(), b"ping");
    // What the sockets on the way hold comes on top of the window.
    assert!(sent < 16 * 1024 * 1024, "{sent}");
}

#[tokio::test]
async fn a_tunnel_has_a_bounded_number_of_streams() {
    let web = Web::with(TCP_POLICY, &[echo().await], "").await;
    let peer = Peer::connect(&web.authority.credentials(SHOP), web.tunnels()).await;
    let mut streams = Vec::new();
    for _ in 0..crate::tunnel::MAX_STREAMS {
        streams.push(peer.connect_to(&web.listener(0).to_string()).await.unwrap());
    }

    let one_more = web.listener(0).to_string();
    let mut waiting = std::pin::pin!(peer.connect_to(&one_more));
    let waits = futures_util::poll!(&mut waiting).is_pending();
    let mut first = streams.remove(0);
    first.end();
    assert_eq!(first.hear_all().await.unwrap(), b"");

    assert_eq!(peer.sender.current_max_send_streams(), crate::tunnel::MAX_STREAMS);
    assert!(waits);
    assert!(waiting.await.is_ok());
}
