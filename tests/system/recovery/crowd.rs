//! Attack case 37 against a running sidecar: a crowd of callers that never finish what they began, all at once.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, pki_types::ServerName};

use super::Held;
use crate::support::backend::Backend;
use crate::support::http::{self, Answer};
use crate::support::pki::{Authority, Identity};
use crate::support::port;
use crate::support::sidecar::{CALLER, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::tls;
use crate::support::wait::within;

/// Connections in the short form; `tests/run.sh --long` sets more.
const CONNECTIONS: usize = 600;
/// What a sidecar may need for all of them, by its highest mark.
const MOST_KIB: u64 = 300 * 1024;

#[test]
fn a_crowd_that_never_finishes_what_it_began_takes_little_memory_and_nobodys_turn() {
    let count =
        std::env::var("VOUCHSAFE_HOSTILE_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
    let door = Door::start();
    let before = Held::of(door.sidecar.process.pid());

    let mut heads: Vec<tls::Client> =
        (0..count / 4).map(|_| door.proven(b"GET / HTTP/1.1\r\nx-drip: ")).collect();
    let prefaces: Vec<tls::Client> =
        (0..count / 4).map(|_| door.proven(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")).collect();
    let silent: Vec<TcpStream> = (0..count / 4).map(|_| door.connect(CROWD)).collect();
    let mut hellos: Vec<TcpStream> = (0..count / 4).map(|_| door.connect(CROWD)).collect();
    let hello = hello();
    for (tick, byte) in hello.iter().take(TICKS).enumerate() {
        // Those that were turned away or cut meanwhile have lost already.
        hellos.iter_mut().for_each(|socket| drop(socket.write_all(&[*byte])));
        heads.iter_mut().for_each(|client| drop(client.write_all(b"d").and_then(|()| client.flush())));
        let answer = door.served().unwrap_or_else(|error| panic!("tick {tick}: {error}"));
        assert_eq!(answer.status, 200, "tick {tick}: {answer:?}");
    }
    let live = door.sidecar.metric("vouchsafe_proxy_connections ", &[]);
    let held = Held::of(door.sidecar.process.pid());
    println!("{count} hostile connections, {live} held: {before:?}, then {held:?}");

    assert!(live >= (count / 2) as f64, "{live} of the crowd are held at once");
    assert!(held.peak_kib < MOST_KIB, "{held:?}");
    drop((heads, prefaces, silent, hellos));
    within(super::GONE, "the crowd is forgotten", || {
        let live = door.sidecar.metric("vouchsafe_proxy_connections ", &[]);
        let handshakes = door.sidecar.metric("vouchsafe_proxy_handshakes ", &[]);
        let open = Held::of(door.sidecar.process.pid()).descriptors;
        (live == 0.0 && handshakes == 0.0 && open <= before.descriptors + 8).then_some(())
    });
    assert_eq!(door.served().unwrap().status, 200);
}

/// A sidecar that waits longer than the crowd needs to gather.
struct Door {
    sidecar: Sidecar,
    caller: Identity,
    inbound: SocketAddr,
    _backend: Backend,
    _root: tempfile::TempDir,
}

impl Door {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let backend = Backend::http();
        authority.svid(SERVER).write(&root.path().join("pem"), &authority);
        let policy = allow_all("api", &authority.id(SERVER), &authority.id(CALLER), "http", inbound.port());
        write_policy(&root.path().join("api"), "api.yaml", &policy);
        let setup =
            Setup::new("api").pem(&root.path().join("pem")).inbound("http", inbound, backend.address());
        let setup = setup.section("limits: {handshake_timeout: 5m, header_timeout: 5m}");
        let sidecar = setup.start(root.path());
        Self { sidecar, caller: authority.svid(CALLER), inbound, _backend: backend, _root: root }
    }

    fn connect(&self, from: Ipv4Addr) -> TcpStream {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
        let flags = SocketFlags::CLOEXEC;
        let own = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        bind(&own, &SocketAddr::from((from, 0))).unwrap();
        connect(&own, &self.inbound).unwrap();
        let stream = TcpStream::from(own);
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(http::WAIT)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        stream
    }

    /// One of the crowd who proves itself and says this much.
    fn proven(&self, bytes: &[u8]) -> tls::Client {
        let mut client = tls::connect_on(self.connect(CROWD), Some(&self.caller)).unwrap();
        client.write_all(bytes).unwrap();
        client.flush().unwrap();
        client
    }

    /// A call of somebody else.
    fn served(&self) -> std::io::Result<Answer> {
        let mut client = tls::connect_on(self.connect(OTHER), Some(&self.caller))?;
        client.write_all(b"GET / HTTP/1.1\r\nHost: svc.internal\r\nConnection: close\r\n\r\n")?;
        http::read_answer(&mut client)
    }
}

/// The first bytes of an ordinary client.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from("vouchsafe.invalid").unwrap();
    let mut connection = ClientConnection::new(tls::anonymous(), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Bytes that each of the crowd lets drip.
const TICKS: usize = 20;
