//! Promises of the relay, over real sockets.

use identity::{
    SpiffeId,
    tls::{Acceptor, ClientAuth, Connector, ExpectedServer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::*;
use crate::{
    testing::{Authority, SHOP, WEB},
    tls,
};

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Two ends of a TLS connection.
async fn secured() -> (Stream, Stream) {
    let authority = Authority::new("a");
    let acceptor = Acceptor::new(&authority.credentials(WEB), ClientAuth::Required, &[]).unwrap();
    let expected = ExpectedServer::AnyOf(vec![SpiffeId::parse(WEB).unwrap()]);
    let connector = Connector::new(&authority.credentials(SHOP), expected, &[]).unwrap();
    let (near, far) = sockets().await;
    let (server, client) = tokio::join!(tls::accept(&acceptor, far), tls::connect(&connector, near));
    (Stream::Tls(server.unwrap().stream), Stream::Tls(client.unwrap().stream))
}

/// Plain to TLS to plain, as two sidecars do it. Returns both ends and how each relay went.
async fn pair() -> (TcpStream, TcpStream, [JoinHandle<Result<(), RelayError>>; 2]) {
    let ((app, outbound), (inbound, backend)) = (sockets().await, sockets().await);
    let (server, client) = secured().await;
    let run = |source, destination| {
        tokio::spawn(async move { Relay::new(source, destination).run(&Activity::new(Waiting::Relay)).await })
    };
    let relays = [run(Stream::Plain(outbound), client), run(server, Stream::Plain(inbound))];
    (app, backend, relays)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 253) as u8 ^ at as u8).collect()
}

#[tokio::test]
async fn much_goes_both_ways_at_once_and_each_half_ends_by_itself() {
    let (app, backend, relays) = pair().await;
    let ((mut app_in, mut app_out), (mut backend_in, mut backend_out)) =
        (app.into_split(), backend.into_split());
    let (question, answer) = (bytes(5_000_000), bytes(3_000_001));
    let (mut at_backend, mut at_app) = (Vec::new(), Vec::new());

    let send = async {
        app_out.write_all(&question).await.unwrap();
        drop(app_out);
        backend_in.read_to_end(&mut at_backend).await.unwrap();
    };
    let reply = async {
        backend_out.write_all(&answer).await.unwrap();
        drop(backend_out);
        app_in.read_to_end(&mut at_app).await.unwrap();
    };
    tokio::join!(send, reply);

    assert!(at_backend == question && at_app == answer);
    for relay in relays {
        relay.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_half_that_ended_lets_the_answer_through() {
    let (mut app, mut backend, relays) = pair().await;
    let mut received = Vec::new();

    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    backend.read_to_end(&mut received).await.unwrap();
    backend.write_all(b"answer").await.unwrap();
    drop(backend);
    let mut answer = Vec::new();
    app.read_to_end(&mut answer).await.unwrap();

    assert_eq!((received.as_slice(), answer.as_slice()), (&b"question"[..], &b"answer"[..]));
    for relay in relays {
        relay.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_reset_at_one_end_is_a_reset_at_the_other() {
    let (app, mut backend, _relays) = pair().await;
    let mut started = [0; 5];
    let mut app = app;
    app.write_all(b"begin").await.unwrap();
    backend.read_exact(&mut started).await.unwrap();

    app.set_zero_linger().unwrap();
    drop(app);

    let error = backend.read(&mut started).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_end_without_close_notify_breaks_the_relay() {
    let (inbound, mut backend) = sockets().await;
    let (server, client) = secured().await;
    let mut relay = Relay::new(server, Stream::Plain(inbound));
    let Stream::Tls(client) = client else { unreachable!() };

    // The end of the socket, with nothing said about the end of the data.
    socket2::SockRef::from(client.get_ref()).shutdown(std::net::Shutdown::Write).unwrap();
    let outcome = relay.run(&Activity::new(Waiting::Relay)).await;
    drop(relay);

    assert!(matches!(outcome, Err(RelayError::Source(_))));
    assert_eq!(backend.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn nothing_is_read_for_a_peer_that_does_not_read() {
    let ((app, outbound), (inbound, backend)) = (sockets().await, sockets().await);
    for socket in [&app, &outbound, &inbound, &backend] {
        let socket = socket2::SockRef::from(socket);
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
    }
    let mut relay = Relay::new(Stream::Plain(outbound), Stream::Plain(inbound));
    let activity = Activity::new(Waiting::Relay);
    let piece = vec![7; 64 * 1024];

    // Until neither the relay nor the sockets take more.
    let mut idle = 0;
    while idle < 200 {
        let written = app.try_write(&piece);
        assert!(poll_fn(|cx| Poll::Ready(relay.poll(cx, &activity).is_pending())).await);
        idle = if written.is_ok() { 0 } else { idle + 1 };
        tokio::task::yield_now().await;
    }

    let kept = relay.forth.kept.len() - relay.forth.written;
    assert!(kept > 0 && kept <= LARGEST_WINDOW, "{kept}");
    assert_eq!(relay.back.kept.len(), 0);
}

#[test]
fn a_relay_is_small() {
    assert!(size_of::<Relay>() <= 256, "{}", size_of::<Relay>());
    assert!(size_of::<Stream>() <= 48, "{}", size_of::<Stream>());
}
