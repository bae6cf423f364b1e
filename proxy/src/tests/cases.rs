//! Attack cases of the data plane that are no matter of one protocol: certificates at the end of their time, sessions that are
//! taken up again, policies that change in the middle, headers of other proxies, and what is written into logs.

use std::{sync::Arc, time::Duration};

use identity::{BundleSet, Credentials, X509Svid, tls::ExpectedServer};
use rustls::{ClientConfig, HandshakeKind, client::Resumption};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::{CLOSED, Stage, TCP_POLICY};
use crate::testing::{
    Authority, Backend, Client, DOMAIN, HELLO, PATIENCE, SHOP, Sidecar, Site, WEB, eventually, read_all,
    read_response,
};

async fn tcp(more: &str) -> Stage {
    Stage::inbound_with("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await, more).await
}

/// What a caller knows that holds this SVID.
fn holder(stage: &Stage, svid: X509Svid) -> Credentials {
    let bundles: BundleSet = [stage.authority.bundle(DOMAIN)].into_iter().collect();
    Credentials::new(Arc::new(svid), bundles).unwrap()
}

fn config(credentials: &Credentials) -> Arc<ClientConfig> {
    identity::tls::client_config(credentials, ExpectedServer::DangerAnyMember, &[]).unwrap()
}

/// Connects and exchanges a few bytes: in TLS 1.3 only these show that the certificate was accepted.
async fn reach(stage: &Stage, config: Arc<ClientConfig>) -> std::io::Result<Client> {
    let socket = TcpStream::connect(stage.sidecar.inbound()).await?;
    let (_, mut client) = identity::tls::connect(config, socket).await.map_err(std::io::Error::other)?;
    ping(&mut client).await?;
    Ok(client)
}

async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(b"ping").await?;
    let mut answer = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("an answer or an end")?;
    Ok(())
}

/// Case 3.
#[tokio::test]
async fn a_certificate_opens_the_door_to_its_last_second_and_one_of_the_future_not_at_all() {
    let stage = tcp("").await;
    let end = OffsetDateTime::now_utc() + time::Duration::seconds(4);
    let brief = holder(&stage, stage.authority.svid_with(SHOP, |params| params.not_after = end));
    let early = holder(
        &stage,
        stage.authority.svid_with(SHOP, |params| params.not_before = end + time::Duration::minutes(5)),
    );

    reach(&stage, config(&brief)).await.expect("it has not expired");
    assert!(reach(&stage, config(&early)).await.is_err(), "a certificate of the future was accepted");
    let refused = eventually(async || reach(&stage, config(&brief)).await.err()).await;

    assert!(refused.is_some(), "an expired certificate is accepted");
    assert!(OffsetDateTime::now_utc().unix_timestamp() >= end.unix_timestamp(), "refused before its end");
    for code in ["expired", "not_yet_valid"] {
        stage.site.record(|record| record["unmapped"]["vouchsafe"]["code"] == code).await;
    }
}

/// Case 10.
#[tokio::test]
async fn whoever_would_take_a_session_up_again_makes_a_whole_handshake_and_is_decided_anew() {
    let stage = tcp("").await;
    let mut eager = (*config(&stage.authority.credentials(SHOP))).clone();
    eager.resumption = Resumption::in_memory_sessions(8);
    eager.enable_early_data = true;
    let eager = Arc::new(eager);

    let mut first = reach(&stage, Arc::clone(&eager)).await.unwrap();
    let second = reach(&stage, Arc::clone(&eager)).await.unwrap();
    for client in [&first, &second] {
        let connection = client.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert!(!connection.is_early_data_accepted());
    }
    stage.site.write_policy(CLOSED);
    assert!(read_all(&mut first).await.is_err(), "it lost its right");

    assert!(reach(&stage, eager).await.is_err(), "an old session opened what is closed");
    stage
        .site
        .record(|record| record["unmapped"]["vouchsafe"]["stage"] == "connect" && record["action_id"] == 2)
        .await;
}

/// Case 13: whatever moment of a connection a new policy falls into, it is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_slips_through_between_its_decision_and_a_new_policy() {
    let stage = Arc::new(tcp("").await);
    let config = config(&stage.authority.credentials(SHOP));

    for round in 0..ROUNDS {
        stage.site.write_policy(&format!("# round {round}\n{TCP_POLICY}"));
        let open = eventually(async || reach(&stage, Arc::clone(&config)).await.ok()).await;
        assert!(open.is_some(), "round {round} does not open");
        let arriving: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (stage, config) = (Arc::clone(&stage), Arc::clone(&config));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(number)).await;
                    let mut client = reach(&stage, config).await.ok()?;
                    read_all(&mut client).await.err().map(|_| ())
                })
            })
            .collect();
        stage.site.write_policy(&format!("# round {round}\n{CLOSED}"));

        for caller in arriving {
            // Each is refused at once or cut; `read_all` fails the test where one lives on.
            caller.await.unwrap();
        }
        let none = eventually(async || {
            gauge(&stage, "vouchsafe_proxy_connections").await.filter(|live| *live == 0.0)
        });
        assert!(none.await.is_some(), "round {round}: a connection is left");
    }
}

/// Case 14.
#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_peer_where_that_is_asked_for() {
    let stage = tcp("on_peer_expiry: cut\n").await;
    let end = OffsetDateTime::now_utc() + time::Duration::seconds(3);
    let brief = holder(&stage, stage.authority.svid_with(SHOP, |params| params.not_after = end));
    let mut lasting = stage.shop().await;

    let mut client = reach(&stage, config(&brief)).await.unwrap();

    assert!(read_all(&mut client).await.is_err(), "it ended as if all were well");
    assert!(OffsetDateTime::now_utc().unix_timestamp() >= end.unix_timestamp(), "cut before its end");
    stage.site.record(|record| record["unmapped"]["vouchsafe"]["close_cause"] == "peer_expired").await;
    ping(&mut lasting).await.expect("who proved more lives on");
}

/// Case 17.
#[tokio::test]
async fn who_shows_no_identity_is_nobodys_exception() {
    let policy = "vouchsafe: policy/v1
name: web
protects: spiffe://prod.test/web
allow:
  - name: all-but-one
    from: [anyone]
    except: [spiffe://prod.test/stranger]
    http: {port: any, paths: [/**]}
";
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, policy);
    let backend = Backend::http(HELLO).await;
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}, danger_permissive: {{until: 9999-01-01}}}}\n",
        site.base(),
        backend.address
    );
    let sidecar = Sidecar::ready(&text).await;
    let stage = Stage { authority, site, sidecar, backend };
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut plain = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();
    let (mut shop, mut stranger) = (stage.shop().await, stage.stranger().await);

    plain.write_all(request).await.unwrap();
    shop.write_all(request).await.unwrap();
    stranger.write_all(request).await.unwrap();

    assert_eq!(read_response(&mut plain).await.0, 403, "plaintext passed as anybody but the stranger");
    assert_eq!(read_response(&mut stranger).await.0, 403);
    assert_eq!(read_response(&mut shop).await.0, 200);
}

/// Case 39.
#[tokio::test]
async fn nothing_a_caller_sends_forges_a_line_of_a_log_or_makes_a_label() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, super::POLICY);
    let backend = Backend::http(HELLO).await;
    let log = site.path("access.jsonl");
    let text = format!(
        "{}telemetry:\n  access_log: {{file: {}}}\ninbound:\n  - {{name: api, listen: 127.0.0.1:0, protocol: http, application: {}}}\n",
        site.base(),
        log.display(),
        backend.address
    );
    let sidecar = Sidecar::ready(&text).await;
    let stage = Stage { authority, site, sidecar, backend };

    let [long, longer] = [4, 20].map(|kib| "a".repeat(kib * 1024));
    let mut answered = 0;
    for (path, agent) in [
        ("/admin/forged\"}{\"action_id\":1", "plain"),
        ("/admin/forged%0a%0d%1b%5b31m", "plain"),
        ("/admin/forged", "a\"} \\u000a {\"action_id\": 1, \"forged\": true}"),
        ("/admin/forged", "\u{202e}\u{200b}forged\u{85}\u{2028}"),
        ("/admin/forged", "tab\tforged"),
        ("/admin/forged", "\x1b[2J\x1b]0;forged\x07"),
        ("/admin/forged", "bare\rforged"),
        (&format!("/admin/forged{long}"), "a long path"),
        (&format!("/admin/forged{longer}"), "a longer one"),
        ("/admin/forged", &longer),
    ] {
        let mut client = stage.shop().await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: forged-{answered}.test\r\nuser-agent: {agent}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (status, ..) = read_response(&mut client).await;
        assert!(matches!(status, 400 | 403 | 431), "{path:.40} {agent:.40}: {status}");
        answered += 1;
    }

    let denied = |records: &[serde_json::Value]| -> u64 {
        records
            .iter()
            .filter(|record| record["action_id"] == 2)
            .map(|record| record["count"].as_u64().unwrap_or(1))
            .sum()
    };
    assert!(eventually(async || (denied(&stage.site.records()) == answered).then_some(())).await.is_some());
    [stage.site.path("audit.jsonl"), log].iter().for_each(|file| assert_harmless(file));
    assert!(!stage.sidecar.admin("/metrics").await.1.contains("forged"), "a caller makes labels");
}

/// Fails where a log of JSON lines has a forged one, or a letter that acts on a terminal.
fn assert_harmless(log: &std::path::Path) {
    let text = std::fs::read_to_string(log).unwrap();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line).expect("each line is one record");
        assert_ne!(record["forged"], true, "{line}");
        assert!(line.len() <= 64 * 1024, "a line of {} bytes", line.len());
    }
    let marks = "\u{202e}\u{200b}\u{2028}";
    let acts = |letter: char| letter != '\n' && (letter.is_control() || marks.contains(letter));
    assert!(text.contains("forged") && !text.contains(acts), "{}: a letter acts", log.display());
}

/// Case 46: this sidecar believes no PROXY header from anybody.
#[tokio::test]
async fn a_proxy_header_is_no_address_before_the_handshake_nor_after_it() {
    let stage = Stage::inbound("http", Backend::http(HELLO).await).await;
    let v1 = b"PROXY TCP4 10.9.8.7 10.0.0.1 1234 80\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x09\x08\x07\x0a\0\0\x01\x04\xd2\0\x50".as_slice();
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";

    for header in [v1, v2] {
        let mut socket = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();
        socket.write_all(header).await.unwrap();
        let tls = config(&stage.authority.credentials(SHOP));
        assert!(identity::tls::connect(tls, socket).await.is_err(), "a handshake behind {header:?}");

        let mut client = stage.shop().await;
        client.write_all(&[header, request].concat()).await.unwrap();
        let answer = String::from_utf8_lossy(&read_all(&mut client).await.unwrap_or_default()).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    stage.site.denial("handshake_failed").await;
    stage.site.denial("malformed_request").await;
    assert_eq!(stage.backend.received(), "");
    let records = stage.site.records();
    assert!(records.iter().all(|record| record["src_endpoint"]["ip"] != "10.9.8.7"), "{records:#?}");
}

/// Case 48: as long as one of post-quantum key exchange, in records of a few bytes, each byte in a segment of its own.
#[tokio::test]
async fn a_long_hello_in_tiny_records_and_segments_is_a_hello_and_no_plaintext() {
    let stage = tcp("").await;
    let mut long = (*config(&stage.authority.credentials(SHOP))).clone();
    long.alpn_protocols = (0..200).map(|number| format!("protocol-{number:03}").into_bytes()).collect();
    let mut tiny = long.clone();
    tiny.max_fragment_size = Some(32);

    for config in [long, tiny] {
        let socket = TcpStream::connect(stage.sidecar.inbound()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (_, mut client) = identity::tls::connect(Arc::new(config), Piecemeal(socket)).await.unwrap();

        ping(&mut client).await.unwrap();
    }

    assert!(stage.site.records().iter().all(|record| record["action_id"] != 2));
}

/// A socket that takes few bytes at a time.
#[derive(Debug)]
struct Piecemeal(TcpStream);

impl AsyncRead for Piecemeal {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Piecemeal {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let piece = bytes.get(..1).unwrap_or(bytes);
        std::pin::Pin::new(&mut self.0).poll_write(context, piece)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// The sum of the samples of a metric.
async fn gauge(stage: &Stage, name: &str) -> Option<f64> {
    let text = stage.sidecar.admin("/metrics").await.1;
    let lines = text.lines().filter(|line| line.starts_with(name) && !line[name.len()..].starts_with('_'));
    let values: Vec<f64> = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

const ROUNDS: usize = 6;
/// Callers of a round, a millisecond apart.
const CALLERS: u64 = 60;
