//! Promises of handshakes without a connection.

use std::sync::OnceLock;

use proptest::{prelude::*, sample::Index};
use rustls::NamedGroup;
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup};

use super::*;
use crate::crypto;
use crate::spiffe_id::SpiffeId;
use crate::testing::Authority;
use crate::tls::certified_key;
use crate::tls::verifier::{PeerVerifier, ServerPolicy};
use crate::verify::Flaw;

struct Parties {
    web: Credentials,
    db: Credentials,
}

fn parties() -> &'static Parties {
    static PARTIES: OnceLock<Parties> = OnceLock::new();
    PARTIES.get_or_init(|| {
        let root = Authority::root("root");
        let member = |id| Credentials::new(root.svid(id), root.bundles("prod.test")).unwrap();
        Parties { web: member(WEB), db: member(DB) }
    })
}

fn server(alpn: &[&[u8]]) -> Handshake {
    Acceptor::new(&parties().db, ClientAuth::Required, alpn).unwrap().begin().unwrap()
}

fn client(expected: &str, alpn: &[&[u8]]) -> Handshake {
    let expected = ExpectedServer::AnyOf(vec![SpiffeId::parse(expected).unwrap()]);
    Connector::new(&parties().web, expected, alpn).unwrap().begin().unwrap()
}

/// Carries flights to and fro through `wire` until both sides are done or one fails.
fn run(
    mut client: Handshake,
    mut server: Handshake,
    mut wire: impl FnMut(Vec<u8>) -> Vec<u8>,
) -> [Result<Established, HandshakeError>; 2] {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let at_client = advance(&mut client, &mut to_client, &mut to_server);
        to_server = wire(to_server);
        let at_server = advance(&mut server, &mut to_server, &mut to_client);
        match (at_client, at_server) {
            (Ok(Progress::Done), Ok(Progress::Done)) => return [client.finish(), server.finish()],
            (Ok(_), Ok(_)) => {}
            (at_client, at_server) => {
                let at_client = at_client.and_then(|_| advance(&mut client, &mut to_client, &mut to_server));
                let failed = || HandshakeError::NotTls;
                return [
                    Err(at_client.err().unwrap_or_else(failed)),
                    Err(at_server.err().unwrap_or_else(failed)),
                ];
            }
        }
    }
    [Err(HandshakeError::NotTls), Err(HandshakeError::NotTls)]
}

fn advance(
    side: &mut Handshake,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
) -> Result<Progress, HandshakeError> {
    side.receive(&std::mem::take(incoming))?;
    side.advance(outgoing)
}

/// Cuts the handshake records before encryption into records of `size` bytes.
fn refragmented(bytes: &[u8], size: usize) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::new());
    while let [kind, a, b, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (body, behind) = behind.split_at(length);
        let size = if *kind == 22 { size } else { length };
        for piece in body.chunks(size) {
            out.extend_from_slice(&[*kind, *a, *b]);
            out.extend_from_slice(&(piece.len() as u16).to_be_bytes());
            out.extend_from_slice(piece);
        }
        rest = behind;
    }
    out
}

#[test]
fn both_sides_learn_who_the_other_is_and_what_they_speak() {
    let [at_client, at_server] =
        run(client(DB, &[b"h2"]), server(&[b"h2", b"http/1.1"]), |bytes| bytes).map(Result::unwrap);

    assert_eq!(at_client.peer.unwrap().id().as_str(), DB);
    assert_eq!(at_server.peer.unwrap().id().as_str(), WEB);
    assert_eq!(at_server.chain, parties().web.svid().chain());
    assert_eq!([at_client.alpn, at_server.alpn], [Some(b"h2".to_vec()), Some(b"h2".to_vec())]);
    assert!(at_client.rest.is_empty() && at_server.rest.is_empty());
}

#[test]
fn a_peer_is_the_same_whether_its_chain_was_seen_before_or_not() {
    let mut peers = (0..2).map(|_| run(client(DB, &[]), server(&[]), |bytes| bytes).map(Result::unwrap));

    let [first, again] = [peers.next().unwrap(), peers.next().unwrap()];

    assert_eq!(first.map(|side| side.peer), again.map(|side| side.peer));
}

#[test]
fn a_server_name_is_noted_for_the_connection_that_asked_for_it() {
    let mut config = ClientConfig::clone(
        &super::super::client_config(&parties().web, ExpectedServer::DangerAnyMember, &[]).unwrap(),
    );
    config.enable_sni = true;
    config.enable_secret_extraction = true;
    let config = Arc::new(config);
    let named = |name: &'static str| {
        let connection =
            UnbufferedClientConnection::new(Arc::clone(&config), name.try_into().unwrap()).unwrap();
        Handshake::new(Side::Client(Box::new(connection)), parties().web.anchors())
    };

    let asked = [named("db.prod.test"), named("other.prod.test"), client(DB, &[])]
        .map(|client| run(client, server(&[]), |bytes| bytes).map(Result::unwrap)[1].server_name.clone());

    assert_eq!(
        asked.map(|name| name.map(String::from)),
        [Some("db.prod.test".to_owned()), Some("other.prod.test".to_owned()), None]
    );
}

/// A group that no server knows, though what is sent for it is a share of one.
#[derive(Debug)]
struct Unheard(&'static dyn SupportedKxGroup);

struct UnheardShare(Box<dyn ActiveKeyExchange>);

const UNHEARD: NamedGroup = NamedGroup::Unknown(0x7a7a);

impl SupportedKxGroup for Unheard {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(UnheardShare(self.0.start()?)))
    }

    fn name(&self) -> NamedGroup {
        UNHEARD
    }
}

impl ActiveKeyExchange for UnheardShare {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        self.0.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        self.0.pub_key()
    }

    fn group(&self) -> NamedGroup {
        UNHEARD
    }
}

/// A client whose first hello is answered with the wish for another one.
fn retrying(name: &'static str) -> Handshake {
    let mut provider = CryptoProvider::clone(&crypto::provider());
    let known = *provider.kx_groups.last().unwrap();
    provider.kx_groups = vec![Box::leak(Box::new(Unheard(known))), known];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::of_servers(ServerPolicy::DangerUnverified)))
        .with_client_cert_resolver(Arc::new(certified_key(&parties().web)));
    config.enable_secret_extraction = true;
    let connection = UnbufferedClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    Handshake::new(Side::Client(Box::new(connection)), parties().web.anchors())
}

#[test]
fn a_server_name_asked_for_twice_is_no_other_connections() {
    let (mut client, mut asked, mut other) = (retrying("admin.prod.test"), server(&[]), server(&[]));
    let (mut to_client, mut to_server, mut hellos) = (Vec::new(), Vec::new(), 0);

    for _ in 0..2 {
        advance(&mut client, &mut to_client, &mut to_server).unwrap();
        hellos += to_server.windows(6).filter(|start| matches!(start, [22, 3, _, _, _, 1])).count();
        advance(&mut asked, &mut to_server, &mut to_client).unwrap();
    }
    advance(&mut other, &mut Vec::new(), &mut Vec::new()).unwrap();

    assert_eq!(hellos, 2);
    assert_eq!(asked.server_name.as_deref(), Some("admin.prod.test"));
    assert_eq!(other.server_name, None);
}

#[test]
fn a_hello_in_tiny_records_is_read() {
    // As long as one with post-quantum keys.
    let protocols: Vec<Vec<u8>> = (0..12).map(|number| vec![b'a' + number; 120]).collect();
    let mut offered: Vec<&[u8]> = protocols.iter().map(Vec::as_slice).collect();
    offered.push(b"h2");

    for size in [1, 2, 3, 7, 100, 1000] {
        let sides = run(client(DB, &offered), server(&[b"h2"]), |bytes| refragmented(&bytes, size));
        assert!(sides.iter().all(Result::is_ok), "{size}");
    }
}

#[test]
fn bytes_that_come_one_by_one_are_read() {
    let mut server = server(&[]);
    let (mut client, mut to_server, mut to_client) = (client(DB, &[]), Vec::new(), Vec::new());
    let mut done = [Progress::Receive; 2];

    while done != [Progress::Done; 2] {
        done[0] = client.advance(&mut to_server).unwrap();
        for byte in to_server.drain(..) {
            server.receive(&[byte]).unwrap();
            done[1] = server.advance(&mut to_client).unwrap();
        }
        for byte in to_client.drain(..) {
            client.receive(&[byte]).unwrap();
            done[0] = client.advance(&mut to_server).unwrap();
        }
    }

    assert!(client.finish().unwrap().peer.is_some() && server.finish().unwrap().peer.is_some());
}

#[test]
fn an_unexpected_server_is_refused_and_told() {
    let [at_client, at_server] = run(client(WEB, &[]), server(&[]), |bytes| bytes);

    let HandshakeError::Rejected(error) = at_client.unwrap_err() else { panic!("not refused") };
    assert_eq!(error.flaw(), &Flaw::UnexpectedServer);
    assert!(at_server.is_err());
}

#[test]
fn what_follows_the_handshake_is_left_for_the_connection() {
    let mut first = true;
    let [_, at_server] = run(client(DB, &[]), server(&[]), |mut bytes| {
        if !std::mem::take(&mut first) {
            bytes.extend_from_slice(b"\x17\x03\x03\x00\x20not opened by the handshake....");
        }
        bytes
    });

    assert_eq!(at_server.unwrap().rest, b"\x17\x03\x03\x00\x20not opened by the handshake....");
}

#[test]
fn a_handshake_that_does_not_end_is_refused() {
    let mut server = server(&[]);
    let piece = [&[22, 3, 3, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[0; 0x4000 - 4]].concat();

    let refused = (0..=MAX_HANDSHAKE_BYTES / piece.len())
        .find_map(|_| server.receive(&piece).and_then(|()| server.advance(&mut Vec::new())).err());

    assert!(matches!(refused, Some(HandshakeError::Protocol(_))), "{refused:?}");
}

#[test]
fn what_is_not_tls_is_told_apart_at_its_first_byte() {
    for text in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", &[0; 9]] {
        let mut server = server(&[]);
        server.receive(text).unwrap();

        assert!(matches!(server.advance(&mut Vec::new()), Err(HandshakeError::NotTls)), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_altered_flight_makes_us_panic_or_proves_somebody_else(
        flight in 0usize..2,
        at in any::<Index>(),
        bit in 0u8..8,
        size in 1usize..2000,
    ) {
        let mut number = 0;
        let sides = run(client(DB, &[]), server(&[]), |bytes| {
            let mut bytes = refragmented(&bytes, size);
            if number == flight && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            number += 1;
            bytes
        });

        let [at_client, at_server] = sides.map(|side| side.ok().and_then(|side| side.peer));
        prop_assert!(at_client.is_none_or(|peer| peer.id().as_str() == DB));
        prop_assert!(at_server.is_none_or(|peer| peer.id().as_str() == WEB));
    }

    #[test]
    fn no_bytes_make_a_handshake_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
        for mut side in [server(&[]), client(DB, &[])] {
            let (first, then) = bytes.split_at(cut.min(bytes.len()));
            let mut out = Vec::new();
            let _ = side.advance(&mut out);
            for part in [first, then] {
                let mut part = part.to_vec();
                if let Some(kind) = part.first_mut() {
                    *kind = 20 + *kind % 5;
                }
                let _ = side.receive(&part).and_then(|()| side.advance(&mut out));
            }
        }
    }
}

const WEB: &str = "spiffe://prod.test/web";
const DB: &str = "spiffe://prod.test/db";
