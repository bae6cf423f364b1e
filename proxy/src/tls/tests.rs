//! Promises of the TLS stream, kept against rustls's own buffered streams, against openssl, and against itself.

use std::{
    process::Stdio,
    sync::{Arc, OnceLock},
};

use identity::{
    Credentials, SpiffeId,
    tls::{self as theirs, ClientAuth, ExpectedServer},
};
use proptest::{prelude::*, sample::Index};
use rustls::{AlertDescription, ClientConfig};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream, duplex, split},
    net::{TcpListener, TcpStream},
    process::Command,
};

use super::*;
use crate::testing::{Authority, SHOP, WEB};

type Client = tokio_rustls::client::TlsStream<Choppy>;

/// A stream that takes and gives a few bytes at a time, and now and then nothing yet.
#[derive(Debug)]
struct Choppy {
    inner: DuplexStream,
    steps: Vec<usize>,
    at: usize,
}

impl Choppy {
    fn new(inner: DuplexStream, steps: &[usize]) -> Self {
        Self { inner, steps: steps.to_vec(), at: 0 }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.at += 1;
        match self.steps.get(self.at % self.steps.len().max(1)) {
            None => Poll::Ready(usize::MAX),
            Some(0) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(step) => Poll::Ready(*step),
        }
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = ready!(self.step(cx)).min(buffer.remaining());
        let mut part = buffer.take(most);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let length = part.filled().len();
        buffer.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = ready!(self.step(cx)).min(bytes.len());
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..most])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A server and a client of one authority.
struct Parties {
    web: Credentials,
    shop: Credentials,
}

fn parties() -> &'static Parties {
    static PARTIES: OnceLock<Parties> = OnceLock::new();
    PARTIES.get_or_init(|| {
        let authority = Authority::new("a");
        Parties { web: authority.credentials(WEB), shop: authority.credentials(SHOP) }
    })
}

impl Parties {
    fn acceptor(&self) -> Acceptor {
        Acceptor::new(&self.web, ClientAuth::Required, &[]).unwrap()
    }

    fn connector(&self) -> Connector {
        Connector::new(&self.shop, expected(WEB), &[]).unwrap()
    }

    fn foreign(&self, record: Option<usize>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&theirs::client_config(&self.shop, expected(WEB), &[]).unwrap());
        config.max_fragment_size = record;
        Arc::new(config)
    }
}

fn expected(id: &str) -> ExpectedServer {
    ExpectedServer::AnyOf(vec![SpiffeId::parse(id).unwrap()])
}

/// Connects a foreign client to a server of ours over streams that move their bytes in `steps`.
async fn foreign_client(
    steps: [&[usize]; 2],
    record: Option<usize>,
    pipe: usize,
) -> (Box<TlsStream<Choppy>>, Client) {
    let (near, far) = duplex(pipe);
    let acceptor = parties().acceptor();
    let (met, client) = tokio::join!(
        accept(&acceptor, Choppy::new(far, steps[0])),
        theirs::connect(parties().foreign(record), Choppy::new(near, steps[1])),
    );
    (met.unwrap().stream, client.unwrap().1)
}

/// Connects a client of ours to a server of ours.
async fn ours(steps: [&[usize]; 2], pipe: usize) -> (Box<TlsStream<Choppy>>, Box<TlsStream<Choppy>>) {
    let (near, far) = duplex(pipe);
    let (acceptor, connector) = (parties().acceptor(), parties().connector());
    let (at_server, at_client) = tokio::join!(
        accept(&acceptor, Choppy::new(far, steps[0])),
        connect(&connector, Choppy::new(near, steps[1])),
    );
    (at_server.unwrap().stream, at_client.unwrap().stream)
}

/// Sends both ways at the same time, in pieces, ends both halves, and returns what came out at either end.
async fn exchange<A, B>(near: A, far: B, data: [&[u8]; 2], piece: usize) -> [Vec<u8>; 2]
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (split(near), split(far));
    let (from_near, from_far, at_far, at_near) = tokio::join!(
        send_pieces(&mut near_out, data[0], piece),
        send_pieces(&mut far_out, data[1], piece),
        read_to_end(&mut far_in),
        read_to_end(&mut near_in),
    );
    from_near.and(from_far).unwrap();
    [at_far.unwrap(), at_near.unwrap()]
}

async fn send_pieces(out: &mut (impl AsyncWrite + Unpin), data: &[u8], piece: usize) -> io::Result<()> {
    for piece in data.chunks(piece.max(1)) {
        out.write_all(piece).await?;
    }
    out.shutdown().await
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.map(|_| bytes)
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 251) as u8 ^ (at as u8).wrapping_mul(31) ^ seed).collect()
}

/// Returns the alert that a stream's reader was told.
fn alert(error: io::Error) -> Option<AlertDescription> {
    match HandshakeError::from(error) {
        HandshakeError::Alert(alert) => Some(alert),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_fragmentation_of_both_directions_delivers_the_same_bytes(
        steps in [
            proptest::collection::vec(0usize..40_000, 0..6),
            proptest::collection::vec(0usize..700, 0..6),
        ],
        lengths in [0usize..150_000, 0usize..60_000],
        piece in 1usize..50_000,
        record in prop::option::of(64usize..16_389),
        pipe in 1usize..80_000,
    ) {
        // Nothing but pauses would be no stream.
        prop_assume!(steps.iter().all(|steps| steps.is_empty() || steps.iter().any(|step| *step > 16)));
        let data = [bytes(1, lengths[0]), bytes(2, lengths[1])];
        let pace = [steps[0].as_slice(), steps[1].as_slice()];

        let (with_foreign, with_ours) = wait(async {
            let (server, client) = foreign_client(pace, record, pipe).await;
            let with_foreign = exchange(*server, client, [&data[0], &data[1]], piece).await;
            let (server, client) = ours(pace, pipe).await;
            (with_foreign, exchange(*server, *client, [&data[0], &data[1]], piece).await)
        });

        prop_assert!(with_foreign == data);
        prop_assert!(with_ours == data);
    }

    #[test]
    fn no_changed_byte_of_a_record_is_delivered(at in any::<Index>(), bit in 0u8..8, length in 1usize..40_000) {
        let (received, told) = wait(async {
            let (server, mut client) = ours([&[], &[]], 1 << 20).await;
            let mut scratch = Scratch::take();
            let plain = bytes(3, length);
            let (taken, sealed) = client.records.seal(&[IoSlice::new(&plain)], &mut scratch).unwrap();
            assert_eq!(taken, length);
            let mut wire = scratch[..sealed].to_vec();
            let at = at.index(sealed);
            wire[at] ^= 1 << bit;
            client.io.write_all(&wire).await.unwrap();
            client.io.inner.shutdown().await.unwrap();
            let (mut server_in, _server_out) = split(*server);
            let received = read_to_end(&mut server_in).await;
            let told = client.read(&mut [0; 1]).await;
            (received.is_err(), told)
        });

        prop_assert!(received, "an altered record was delivered");
        // A length that grew is waited for until the stream ends; everything else is answered.
        prop_assert!(matches!(told.map_err(alert), Err(_) | Ok(0)));
    }

    #[test]
    fn nothing_a_peer_sends_after_its_handshake_makes_us_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..600),
        sealed in proptest::collection::vec((0u8..30, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
    ) {
        wait(async {
            let (mut server, mut client) = ours([&[], &[]], 1 << 20).await;
            for (kind, content) in &sealed {
                client.io.write_all(&sealed_as(&mut client.records, *kind, content)).await.unwrap();
            }
            client.io.write_all(&junk).await.unwrap();
            client.io.inner.shutdown().await.unwrap();
            let _ = read_to_end(&mut server).await;
        });
    }
}

/// Seals a record of any kind.
fn sealed_as(records: &mut Records, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0; content.len() + 64];
    out[5..5 + content.len()].copy_from_slice(content);
    let length = records.seal_record(rustls::ContentType::from(kind), content.len(), &mut out).unwrap();
    out.truncate(length);
    out
}

#[tokio::test]
async fn a_half_that_ended_leaves_the_other_open() {
    let (mut server, mut client) = ours([&[], &[]], 4096).await;

    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let question = read_to_end(&mut server).await.unwrap();
    server.write_all(&bytes(9, 3000)).await.unwrap();
    server.shutdown().await.unwrap();

    assert_eq!(question, b"question");
    assert_eq!(read_to_end(&mut client).await.unwrap(), bytes(9, 3000));
    assert_eq!(client.write(b"more").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn an_end_without_close_notify_is_no_end_of_the_data() {
    let (mut server, mut client) = ours([&[], &[]], 4096).await;
    client.write_all(b"half of it").await.unwrap();
    client.io.inner.shutdown().await.unwrap();
    let mut received = [0; 10];

    server.read_exact(&mut received).await.unwrap();
    let error = server.read(&mut [0; 1]).await.unwrap_err();

    assert_eq!((&received, error.kind()), (b"half of it", io::ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn what_follows_the_end_is_ignored() {
    let (mut server, mut client) = ours([&[], &[]], 4096).await;
    client.write_all(b"all").await.unwrap();
    client.shutdown().await.unwrap_or_default();
    let mut raw = Choppy::new(duplex(1).0, &[]);
    std::mem::swap(&mut raw, &mut client.io);

    assert_eq!(read_to_end(&mut server).await.unwrap(), b"all");
    assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn each_side_follows_the_others_changes_of_keys() {
    let (mut server, mut client) = foreign_client([&[], &[]], None, 1 << 16).await;

    for round in 0..40 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&bytes(round, 700)).await.unwrap();
        client.flush().await.unwrap();
        let mut received = [0; 700];
        server.read_exact(&mut received).await.unwrap();
        server.write_all(&received).await.unwrap();
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received[..], bytes(round, 700));
    }
}

#[tokio::test]
async fn our_keys_change_before_they_have_sealed_too_much() {
    let (mut server, client) = foreign_client([&[], &[]], None, 1 << 16).await;
    server.records.set_records_per_key(3);
    let data = bytes(4, 400_000);

    let [at_client, at_server] = exchange(*server, client, [&data, b"fine"], 100_000).await;

    assert!(at_client == data);
    assert_eq!(at_server, b"fine");
}

#[tokio::test]
async fn changes_of_keys_without_data_are_bounded() {
    let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;

    for _ in 0..100 {
        let update = sealed_as(&mut client.records, 22, &[24, 0, 0, 1, 1]);
        client.records.change_sealing().unwrap();
        client.io.write_all(&update).await.unwrap();
    }
    let refused = server.read(&mut [0; 1]).await.unwrap_err();

    assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
    assert_eq!(alert(client.read(&mut [0; 1]).await.unwrap_err()), Some(AlertDescription::UnexpectedMessage));
}

#[tokio::test]
async fn messages_after_the_handshake_are_refused_with_the_alert_for_them() {
    let cases: [(u8, &[u8], AlertDescription); 9] = [
        (22, &[24, 0, 0, 1, 2], AlertDescription::IllegalParameter),
        (22, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], AlertDescription::UnexpectedMessage),
        (22, &[4, 0, 0, 1, 0], AlertDescription::UnexpectedMessage),
        (22, &[1, 0, 0, 0], AlertDescription::UnexpectedMessage),
        (22, &[], AlertDescription::UnexpectedMessage),
        (21, &[2], AlertDescription::DecodeError),
        (20, &[1], AlertDescription::UnexpectedMessage),
        (0, &[0, 0, 0], AlertDescription::UnexpectedMessage),
        (99, b"?", AlertDescription::UnexpectedMessage),
    ];
    for (kind, content, expected) in cases {
        let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;
        client.io.write_all(&sealed_as(&mut client.records, kind, content)).await.unwrap();

        let refused = server.read(&mut [0; 1]).await;
        let told = client.read(&mut [0; 1]).await.unwrap_err();

        assert!(refused.is_err(), "{kind} {content:?}");
        assert_eq!(alert(told), Some(expected), "{kind} {content:?}");
        assert!(server.read(&mut [0; 1]).await.is_err() && server.write(b"x").await.is_err());
    }
}

#[tokio::test]
async fn a_message_in_many_records_is_put_together_and_nothing_may_stand_between() {
    let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;
    for piece in [&[24][..], &[0, 0], &[1], &[0]] {
        client.io.write_all(&sealed_as(&mut client.records, 22, piece)).await.unwrap();
    }
    client.records.change_sealing().unwrap();
    client.write_all(b"on").await.unwrap();
    let mut received = [0; 2];
    server.read_exact(&mut received).await.unwrap();
    client.io.write_all(&sealed_as(&mut client.records, 22, &[24, 0])).await.unwrap();
    client.write_all(b"between").await.unwrap();

    assert_eq!(&received, b"on");
    assert!(server.read(&mut received).await.is_err());
}

#[tokio::test]
async fn a_message_that_may_not_come_is_refused_before_the_rest_of_it() {
    for (begun, expected) in [
        ([11, 0, 0x80, 0], AlertDescription::UnexpectedMessage),
        ([4, 0, 0x80, 0], AlertDescription::UnexpectedMessage),
        ([24, 0, 0x80, 0], AlertDescription::DecodeError),
    ] {
        let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;
        client.io.write_all(&sealed_as(&mut client.records, 22, &begun)).await.unwrap();

        let refused = futures_util::poll!(std::pin::pin!(server.read(&mut [0; 1])));

        assert!(matches!(refused, Poll::Ready(Err(_))), "{begun:?}");
        assert_eq!(alert(client.read(&mut [0; 1]).await.unwrap_err()), Some(expected), "{begun:?}");
    }
}

#[tokio::test]
async fn a_peer_that_only_reads_is_not_asked_to_change_its_keys() {
    let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;
    server.records.set_records_per_key(3);
    for _ in 0..100 {
        server.write_all(b"one way").await.unwrap();
        client.read_exact(&mut [0; 7]).await.unwrap();
    }

    client.write_all(b"x").await.unwrap();
    let mut record = [0; 1024];
    let length = server.io.read(&mut record).await.unwrap();

    // One record of data, and none before it that answers a wish.
    assert_eq!(length, records::HEADER + 1 + 1 + 16);
}

#[tokio::test]
async fn empty_records_are_bounded() {
    let (mut server, mut client) = ours([&[], &[]], 1 << 16).await;
    for _ in 0..40 {
        client.io.write_all(&sealed_as(&mut client.records, 23, b"")).await.unwrap();
    }

    assert!(server.read(&mut [0; 1]).await.is_err());
}

#[tokio::test]
async fn an_alert_of_the_peer_is_told_to_the_reader() {
    let (mut server, mut client) = ours([&[], &[]], 4096).await;
    let refusal = client.records.seal_alert(AlertDescription::AccessDenied);
    client.io.write_all(&refusal).await.unwrap();

    let error = server.read(&mut [0; 1]).await.unwrap_err();

    assert_eq!(alert(error), Some(AlertDescription::AccessDenied));
    assert_eq!(server.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_given_no_more_than_one_write() {
    let (mut server, _client) = ours([&[], &[]], 1000).await;
    let data = bytes(1, 1 << 20);

    let mut taken = 0;
    while let Poll::Ready(written) = futures_util::poll!(std::pin::pin!(server.write(&data))) {
        taken += written.unwrap();
    }

    assert!(taken <= scratch::SCRATCH && server.outgoing.len() <= scratch::SCRATCH, "{taken}");
    assert!(futures_util::poll!(std::pin::pin!(server.flush())).is_pending());
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer() {
    let (mut server, mut client) = ours([&[], &[]], 1 << 20).await;

    client.write_all(&bytes(5, 300_000)).await.unwrap();
    client.flush().await.unwrap();
    server.read_exact(&mut vec![0; 300_000]).await.unwrap();

    for stream in [&server, &client] {
        let held = [&stream.incoming, &stream.plain, &stream.outgoing, stream.records.message()];
        assert_eq!(held.map(Vec::capacity), [0; 4]);
    }
    assert!(size_of::<TlsStream>() <= 2048, "{}", size_of::<TlsStream>());
}

/// Waits for the peer to change its keys. To openssl a command is one only where it is all that is typed so far.
async fn key_update(stream: &mut TlsStream) {
    poll_fn(|cx| {
        let mut scratch = Scratch::take();
        assert!(stream.poll_open(cx, &mut scratch, 1).is_pending(), "nothing but a change of keys comes");
        if stream.records.updates() > 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[tokio::test]
async fn openssl_changes_keys_as_a_client_and_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("shop.pem");
    let svid = parties().shop.svid();
    std::fs::write(&pem, svid.chain_pem() + &svid.key().to_pem()).unwrap();
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-tls1_3", "-cert"])
        .arg(&pem)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut server = accept(&parties().acceptor(), socket).await.unwrap().stream;
    let (mut typed, shown) = (openssl.stdin.take().unwrap(), openssl.stdout.take().unwrap());
    let mut shown = BufReader::new(shown).lines();

    for (round, command) in ["", "K\n", "k\n", "K\n"].into_iter().enumerate() {
        if !command.is_empty() {
            typed.write_all(command.as_bytes()).await.unwrap();
            key_update(&mut server).await;
        }
        let line = format!("round {round}\n");
        typed.write_all(line.as_bytes()).await.unwrap();
        let mut received = vec![0; line.len()];
        server.read_exact(&mut received).await.unwrap();
        assert_eq!(received, line.as_bytes());
        server.write_all(format!("answer {round}\n").as_bytes()).await.unwrap();
        while shown.next_line().await.unwrap().expect("openssl goes on") != format!("answer {round}") {}
    }
}

#[tokio::test]
async fn openssl_as_a_server_sends_tickets_and_changes_keys() {
    let directory = tempfile::tempdir().unwrap();
    let pem = directory.path().join("web.pem");
    let svid = parties().web.svid();
    std::fs::write(&pem, svid.chain_pem() + &svid.key().to_pem()).unwrap();
    let mut openssl = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-verify", "2", "-num_tickets", "4", "-cert"])
        .arg(&pem)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut typed, shown) = (openssl.stdin.take().unwrap(), openssl.stdout.take().unwrap());
    let mut shown = BufReader::new(shown).lines();
    let address = loop {
        let line = shown.next_line().await.unwrap().expect("openssl goes on");
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.to_owned();
        }
    };
    let socket = TcpStream::connect(address).await.unwrap();
    let mut client = connect(&parties().connector(), socket).await.unwrap().stream;

    for (round, command) in ["", "K\n", "k\n"].into_iter().enumerate() {
        let line = format!("round {round}\n");
        client.write_all(line.as_bytes()).await.unwrap();
        while shown.next_line().await.unwrap().expect("openssl goes on") != line.trim_end() {}
        if !command.is_empty() {
            typed.write_all(command.as_bytes()).await.unwrap();
            key_update(&mut client).await;
        }
        typed.write_all(format!("answer {round}\n").as_bytes()).await.unwrap();
        let mut received = vec![0; "answer 0\n".len()];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(received, format!("answer {round}\n").as_bytes());
    }
}
