//! Promises of TLS, kept in real handshakes.

use std::sync::Mutex;
use std::time::SystemTime;

use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert};
use rustls::server::{Acceptor, ServerSessionMemoryCache};
use rustls::{AlertDescription, HandshakeKind, ProtocolVersion, SignatureScheme};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{client, server};

use super::*;
use crate::bundle::{BundleSet, TrustBundle};
use crate::key::PrivateKey;
use crate::spiffe_id::TrustDomain;
use crate::testing::{Authority, HALF_LIFE};
use crate::verify::Flaw;

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let root = Authority::root("root");
    let (web, db) = (member(&root, WEB), member(&root, DB));

    let (at_server, at_client) = handshake(serving(&db), calling(&web, &[DB])).await;

    let Accepted(client, mut at_server) = at_server.unwrap();
    let Connected(server, mut at_client) = at_client.unwrap();
    let client = client.unwrap();
    assert_eq!((client.id().as_str(), client.serial()), (WEB, web.svid().serial()));
    assert_eq!((server.id().as_str(), server.serial()), (DB, db.svid().serial()));
    assert_eq!(server.fingerprint(), crypto::hex(&crypto::sha256(&db.svid().chain()[0])));
    assert_eq!(client.not_after(), web.svid().not_after());
    assert_eq!(peer(at_server.get_ref().1).unwrap().unwrap(), client);
    assert_echo(&mut at_client, &mut at_server).await;
}

#[tokio::test]
async fn handshakes_work_over_tcp_and_through_an_intermediate() {
    let root = Authority::root("root");
    let lower = root.intermediate("lower", |_| {});
    let (leaf, key) = lower.leaf_and_key(DB, |_| {});
    let chain = vec![leaf, lower.der];
    let svid = Arc::new(crate::svid::X509Svid::from_chain(chain, key, None).unwrap());
    let db = Credentials::new(svid, root.bundles(TD)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();

    let client = calling(&member(&root, WEB), &[DB]);
    let (at_server, at_client) = tokio::join!(accept(serving(&db), accepted), connect(client, stream));

    assert_eq!(at_client.unwrap().0.id().as_str(), DB);
    assert_eq!(at_server.unwrap().0.unwrap().id().as_str(), WEB);
}

#[tokio::test]
async fn members_of_federated_trust_domains_meet() {
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let bundles: BundleSet = [ours.bundle(TD), theirs.bundle("other.test")].into_iter().collect();
    let web = Credentials::new(ours.svid(WEB), bundles.clone()).unwrap();
    let far = Credentials::new(theirs.svid("spiffe://other.test/db"), bundles).unwrap();

    let (at_server, at_client) = handshake(serving(&far), calling(&web, &["spiffe://other.test/db"])).await;

    assert_eq!(at_server.unwrap().0.unwrap().id().as_str(), WEB);
    assert_eq!(at_client.unwrap().0.id().as_str(), "spiffe://other.test/db");
}

#[tokio::test]
async fn a_server_that_is_not_expected_is_refused_in_the_handshake() {
    let root = Authority::root("root");
    let (web, db) = (member(&root, WEB), member(&root, DB));

    for expected in [&[WEB][..], &["spiffe://prod.test/db2", "spiffe://prod.test/d"], &[]] {
        let (at_server, at_client) = handshake(serving(&db), calling(&web, expected)).await;

        let HandshakeError::Rejected(error) = at_client.err().unwrap() else { panic!("not refused") };
        assert_eq!((error.flaw(), error.claimed_id().unwrap().as_str()), (&Flaw::UnexpectedServer, DB));
        assert!(matches!(at_server.err().unwrap(), HandshakeError::Alert(_)));
    }
}

#[tokio::test]
async fn any_member_passes_only_where_the_caller_says_so() {
    let root = Authority::root("root");
    let (web, db) = (member(&root, WEB), member(&root, DB));
    let config = client_config(&web, ExpectedServer::DangerAnyMember, &[]).unwrap();

    let (_, at_client) = handshake(serving(&db), config).await;

    assert_eq!(at_client.unwrap().0.id().as_str(), DB);
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_where_one_is_required() {
    let root = Authority::root("root");
    let anonymous = without_svid(&root);

    let (at_server, at_client) = handshake(serving(&member(&root, DB)), anonymous).await;

    let refused = at_server.err().unwrap();
    assert!(matches!(refused, HandshakeError::NoCertificate));
    assert_eq!(refused.reason(), "no_certificate");
    assert_eq!(first_read(at_client.unwrap().1).await, AlertDescription::CertificateRequired);
}

#[tokio::test]
async fn a_client_without_certificate_stays_unnamed_where_none_is_required() {
    let root = Authority::root("root");
    let config = server_config(&member(&root, DB), ClientAuth::Optional, &[]).unwrap();

    let (at_server, at_client) = handshake(config, without_svid(&root)).await;

    assert_eq!(at_server.unwrap().0, None);
    assert_eq!(at_client.unwrap().0.id().as_str(), DB);
}

#[tokio::test]
async fn a_bad_certificate_is_refused_though_none_is_required() {
    let root = Authority::root("root");
    let config = server_config(&member(&root, DB), ClientAuth::Optional, &[]).unwrap();
    let stranger = Authority::root("stranger");

    let (at_server, _) = handshake(config, flawed(&root, stranger.leaf_and_key(WEB, |_| {}))).await;

    assert_eq!(rejection(at_server), Flaw::UnknownIssuer);
}

#[tokio::test]
async fn a_flawed_client_certificate_is_refused_with_its_flaw_and_the_client_learns_an_alert() {
    let root = Authority::root("root");
    let server = serving(&member(&root, DB));
    let expired =
        root.leaf_and_key(WEB, |params| params.not_after = (SystemTime::now() - HALF_LIFE / 2).into());
    let signer = root.leaf_and_key(WEB, |params| params.key_usages.push(rcgen::KeyUsagePurpose::KeyCertSign));
    let foreign = root.leaf_and_key("spiffe://other.test/web", |_| {});
    let cases = [(expired, Flaw::Expired), (signer, Flaw::KeyCertSign), (foreign, Flaw::UnknownTrustDomain)];

    for (certificate, flaw) in cases {
        let (at_server, at_client) = handshake(server.clone(), flawed(&root, certificate)).await;

        assert_eq!(rejection(at_server), flaw);
        first_read(at_client.unwrap().1).await;
    }
}

#[tokio::test]
async fn a_client_that_lacks_the_key_of_its_certificate_is_refused() {
    let root = Authority::root("root");
    let (stolen, _) = root.leaf_and_key(WEB, |_| {});

    let thief = flawed(&root, (stolen, PrivateKey::generate().unwrap()));
    let (at_server, _) = handshake(serving(&member(&root, DB)), thief).await;

    assert!(matches!(at_server.err().unwrap(), HandshakeError::Protocol(_)));
}

#[tokio::test]
async fn a_flawed_server_certificate_is_refused_with_its_flaw() {
    let root = Authority::root("root");
    let (leaf, key) = root.leaf_and_key(DB, |params| params.is_ca = rcgen::IsCa::NoCa);
    let mut server = ServerConfig::clone(&serving(&member(&root, DB)));
    server.cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![leaf], key.signing_key())));

    let (_, at_client) = handshake(Arc::new(server), calling(&member(&root, WEB), &[DB])).await;

    assert_eq!(rejection(at_client), Flaw::NoBasicConstraints);
}

#[tokio::test]
async fn a_server_below_another_root_is_refused_without_an_svid_too() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));

    let (_, at_client) = handshake(serving(&member(&other, DB)), without_svid(&root)).await;

    assert_eq!(rejection(at_client), Flaw::UnknownIssuer);
}

#[tokio::test]
async fn no_session_is_resumed_though_the_client_would() {
    let root = Authority::root("root");
    let server = serving(&member(&root, DB));
    let mut client = ClientConfig::clone(&calling(&member(&root, WEB), &[DB]));
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let client = Arc::new(client);

    for _ in 0..3 {
        let (at_server, at_client) = handshake(server.clone(), client.clone()).await;
        let (mut at_server, mut at_client) = (at_server.unwrap().1, at_client.unwrap().1);
        // Tickets would travel with the first bytes.
        assert_echo(&mut at_client, &mut at_server).await;

        assert_eq!(at_client.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(at_client.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(at_server.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn no_session_is_resumed_though_the_server_would() {
    let root = Authority::root("root");
    let mut server = ServerConfig::clone(&serving(&member(&root, DB)));
    server.session_storage = ServerSessionMemoryCache::new(8);
    server.send_tls13_tickets = 2;
    let server = Arc::new(server);
    let client = calling(&member(&root, WEB), &[DB]);

    for _ in 0..3 {
        let (at_server, at_client) = handshake(server.clone(), client.clone()).await;
        let (mut at_server, mut at_client) = (at_server.unwrap().1, at_client.unwrap().1);
        assert_echo(&mut at_client, &mut at_server).await;

        assert_eq!(at_client.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn each_safeguard_against_resumption_is_set_by_itself() {
    let root = Authority::root("root");
    let server = serving(&member(&root, DB));
    let client = calling(&member(&root, WEB), &[DB]);

    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!client.enable_early_data && !client.enable_sni);
}

#[tokio::test]
async fn connections_speak_tls_13_and_the_protocol_both_name() {
    let root = Authority::root("root");
    let server = server_config(&member(&root, DB), ClientAuth::Required, &[ALPN_H2, ALPN_HTTP1]).unwrap();
    let client = client_config(&member(&root, WEB), expecting(&[DB]), &[ALPN_H2]).unwrap();

    let (at_server, at_client) = handshake(server, client).await;

    let (at_server, at_client) = (at_server.unwrap().1, at_client.unwrap().1);
    assert_eq!(at_client.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(at_client.get_ref().1.alpn_protocol(), Some(ALPN_H2));
    assert_eq!(at_server.get_ref().1.alpn_protocol(), Some(ALPN_H2));
}

#[tokio::test]
async fn sides_without_a_common_protocol_do_not_connect() {
    let root = Authority::root("root");
    let server = server_config(&member(&root, DB), ClientAuth::Required, &[ALPN_H2]).unwrap();
    let client = client_config(&member(&root, WEB), expecting(&[DB]), &[ALPN_HTTP1]).unwrap();

    let (at_server, at_client) = handshake(server, client).await;

    assert!(matches!(at_server.err().unwrap(), HandshakeError::Protocol(_)));
    let alert = at_client.err().unwrap();
    assert!(matches!(alert, HandshakeError::Alert(AlertDescription::NoApplicationProtocol)));
    assert_eq!(alert.to_string(), "peer ended the handshake with the alert NoApplicationProtocol");
}

#[tokio::test]
async fn a_client_tells_no_server_name() {
    let root = Authority::root("root");
    let (near, mut far) = duplex(64 * 1024);
    let client = calling(&member(&root, WEB), &[DB]);

    let attempt = tokio::spawn(connect(client, near));
    let mut hello = vec![0; 16 * 1024];
    let length = far.read(&mut hello).await.unwrap();
    drop(far);

    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut &hello[..length]).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    assert_eq!(accepted.client_hello().server_name(), None);
    assert!(matches!(attempt.await.unwrap().err().unwrap(), HandshakeError::Io(_)));
}

#[tokio::test]
async fn a_server_does_not_tell_whom_it_trusts() {
    let root = Authority::root("root");
    let seen = Arc::new(SeenHints::default());
    let mut client = ClientConfig::clone(&without_svid(&root));
    client.client_auth_cert_resolver = seen.clone();

    let (_, at_client) = handshake(serving(&member(&root, DB)), Arc::new(client)).await;

    at_client.unwrap();
    assert_eq!(*seen.0.lock().unwrap(), Some(0));
}

#[tokio::test]
async fn a_client_of_tls_12_is_refused() {
    let root = Authority::root("root");
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(&hello_of_tls_12()).await.unwrap();

    let error = accept(serving(&member(&root, DB)), far).await.err().unwrap();

    assert!(matches!(error, HandshakeError::Protocol(rustls::Error::PeerIncompatible(_))), "{error:?}");
    assert_eq!(error.reason(), "tls_protocol");
}

#[tokio::test]
async fn what_is_not_tls_is_told_apart() {
    let root = Authority::root("root");

    for bytes in [&b"GET / HTTP/1.1\r\nhost: db\r\n\r\n"[..], b"\0\0\0\0\0\0\0\0", b"SSH-2.0-OpenSSH_9.9\r\n"]
    {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(bytes).await.unwrap();

        let error = accept(serving(&member(&root, DB)), far).await.err().unwrap();

        assert!(matches!(error, HandshakeError::NotTls), "{bytes:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_a_failed_connection() {
    let root = Authority::root("root");
    let (near, far) = duplex(64 * 1024);
    drop(near);

    let error = accept(serving(&member(&root, DB)), far).await.err().unwrap();

    assert!(matches!(error, HandshakeError::Io(_)));
    assert_eq!(error.reason(), "connection_failed");
}

#[tokio::test]
async fn rotation_changes_new_handshakes_and_leaves_old_connections_alone() {
    let root = Authority::root("root");
    let client = calling(&member(&root, WEB), &[DB]);
    let before = member(&root, DB);
    let (old_server, old_client) = handshake(serving(&before), client.clone()).await;
    let (mut old_server, mut old_client) = (old_server.unwrap().1, old_client.unwrap().1);

    let after = before.renew(root.svid(DB), root.bundles(TD)).unwrap();
    let (new_server, new_client) = handshake(serving(&after), client).await;

    let Connected(peer_after, mut new_client) = new_client.unwrap();
    assert_eq!(peer_after.serial(), after.svid().serial());
    assert_ne!(peer_after.serial(), before.svid().serial());
    assert_echo(&mut new_client, &mut new_server.unwrap().1).await;
    assert_echo(&mut old_client, &mut old_server).await;
    assert_eq!(peer(old_client.get_ref().1).unwrap().unwrap().serial(), before.svid().serial());
}

#[tokio::test]
async fn a_withdrawn_root_refuses_new_handshakes() {
    let (old, new) = (Authority::root("old"), Authority::root("new"));
    let td = TrustDomain::parse(TD).unwrap();
    let both = TrustBundle::new(td, vec![old.der.clone(), new.der.clone()]).unwrap();
    let overlap = Credentials::new(new.svid(DB), [both].into_iter().collect()).unwrap();
    let late = Credentials::new(old.svid(WEB), overlap.bundles().clone()).unwrap();

    let (during, _) = handshake(serving(&overlap), calling(&late, &[DB])).await;
    let only_new = overlap.renew(overlap.svid().clone(), new.bundles(TD)).unwrap();
    let (afterwards, _) = handshake(serving(&only_new), calling(&late, &[DB])).await;

    assert_eq!(during.unwrap().0.unwrap().id().as_str(), WEB);
    assert_eq!(rejection(afterwards), Flaw::UnknownIssuer);
}

#[tokio::test]
async fn an_unverified_connection_shows_certificates_and_no_peer() {
    let (root, unknown) = (Authority::root("root"), Authority::root("unknown"));
    let server = server_config(&member(&unknown, DB), ClientAuth::Optional, &[ALPN_H2]).unwrap();
    let (near, far) = duplex(64 * 1024);

    let (at_server, at_client) =
        tokio::join!(accept(server, far), connect_danger_unverified(near, &[ALPN_H2]));

    assert_eq!(at_server.unwrap().0, None);
    let connection = at_client.unwrap();
    let certificates = connection.get_ref().1.peer_certificates().unwrap();
    assert!(
        crate::verify::verify(
            &certificates[0],
            &[],
            &Anchors::new(&root.bundles(TD)),
            crate::verify::Role::Server,
            SystemTime::now()
        )
        .is_err()
    );
}

/// Notes how many names of authorities a server hinted at.
#[derive(Debug, Default)]
struct SeenHints(Mutex<Option<usize>>);

impl ResolvesClientCert for SeenHints {
    fn resolve(&self, hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        *self.0.lock().unwrap() = Some(hints.len());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// How a handshake went on well for the server.
struct Accepted(Option<Peer>, server::TlsStream<DuplexStream>);

/// How a handshake went on well for the client.
struct Connected(Peer, client::TlsStream<DuplexStream>);

async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> (Result<Accepted, HandshakeError>, Result<Connected, HandshakeError>) {
    let (near, far) = duplex(64 * 1024);
    let (at_server, at_client) = tokio::join!(accept(server, far), connect(client, near));
    (
        at_server.map(|(peer, stream)| Accepted(peer, stream)),
        at_client.map(|(peer, stream)| Connected(peer, stream)),
    )
}

async fn assert_echo(near: &mut client::TlsStream<DuplexStream>, far: &mut server::TlsStream<DuplexStream>) {
    let mut received = [0; 4];
    near.write_all(b"ping").await.unwrap();
    near.flush().await.unwrap();
    far.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"ping");
    far.write_all(b"pong").await.unwrap();
    far.flush().await.unwrap();
    near.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"pong");
}

/// Reads from a connection that the server refused after the client thought it was up.
async fn first_read(mut stream: client::TlsStream<DuplexStream>) -> AlertDescription {
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    match HandshakeError::from(error) {
        HandshakeError::Alert(alert) => alert,
        other => panic!("no alert: {other:?}"),
    }
}

#[track_caller]
fn rejection<T>(result: Result<T, HandshakeError>) -> Flaw {
    match result.err() {
        Some(HandshakeError::Rejected(error)) => error.flaw().clone(),
        other => panic!("not rejected: {other:?}"),
    }
}

fn member(root: &Authority, id: &str) -> Credentials {
    Credentials::new(root.svid(id), root.bundles(TD)).unwrap()
}

fn serving(credentials: &Credentials) -> Arc<ServerConfig> {
    server_config(credentials, ClientAuth::Required, &[]).unwrap()
}

fn calling(credentials: &Credentials, expected: &[&str]) -> Arc<ClientConfig> {
    client_config(credentials, expecting(expected), &[]).unwrap()
}

fn expecting(ids: &[&str]) -> ExpectedServer {
    ExpectedServer::AnyOf(ids.iter().map(|id| SpiffeId::parse(id).unwrap()).collect())
}

fn without_svid(root: &Authority) -> Arc<ClientConfig> {
    client_config_without_svid(Arc::new(Anchors::new(&root.bundles(TD))), expecting(&[DB]), &[]).unwrap()
}

/// A client that trusts `root` and shows a certificate no [`Credentials`] would hold.
fn flawed(root: &Authority, certificate: (CertificateDer<'static>, PrivateKey)) -> Arc<ClientConfig> {
    let (leaf, key) = certificate;
    let mut client = ClientConfig::clone(&without_svid(root));
    let shown = CertifiedKey::new(vec![leaf], key.signing_key());
    client.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(shown));
    Arc::new(client)
}

/// A ClientHello that offers TLS 1.2 with ECDHE-ECDSA-AES128-GCM and nothing newer.
fn hello_of_tls_12() -> Vec<u8> {
    let extensions: &[u8] = &[
        0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x17, // supported_groups: secp256r1
        0x00, 0x0d, 0, 4, 0, 2, 0x04, 0x03, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let body = [
        &[0x03, 0x03][..],
        &[7; 32],
        &[0],
        &[0, 2, 0xc0, 0x2b],
        &[1, 0],
        &[0, u8::try_from(extensions.len()).unwrap()],
        extensions,
    ]
    .concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[0x16, 0x03, 0x01, 0, length + 4, 0x01, 0, 0, length][..], &body].concat()
}

const TD: &str = "prod.test";
const WEB: &str = "spiffe://prod.test/web";
const DB: &str = "spiffe://prod.test/db";
