//! A handshake without a connection: bytes in, bytes out, and in the end who the peer is and the keys of the connection.
//!
//! Only [`Acceptor`] and [`Connector`] begin one, and only this module makes those, from credentials: so what is established
//! was verified. Records are shown to the library one at a time: none behind the end of the handshake is touched by it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConnectionData, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ConnectionTrafficSecrets, Error, InvalidMessage, ServerConfig};
use rustls_pki_types::CertificateDer;

use super::handshake::no_server_name;
use super::{ClientAuth, ExpectedServer, HandshakeError, TlsError, build_client, build_server, peer};
use crate::credentials::Credentials;
use crate::crypto::{CryptoError, record::RecordKey};
use crate::verify::{Anchors, Peer, Role};

/// Begins the server's part of handshakes with one snapshot of credentials.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    anchors: Arc<Anchors>,
}

impl Acceptor {
    /// Makes one that proves `credentials`. `alpn` lists protocols by preference; empty means none.
    pub fn new(credentials: &Credentials, client_auth: ClientAuth, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let mut config = build_server(credentials, client_auth, alpn)?;
        config.cert_resolver = Arc::new(Noting(Arc::clone(&config.cert_resolver)));
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config), anchors: Arc::clone(credentials.anchors()) })
    }

    /// Begins a handshake.
    pub fn begin(&self) -> Result<Handshake, HandshakeError> {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.config))?;
        Ok(Handshake::new(Side::Server(Box::new(connection)), &self.anchors))
    }
}

/// Begins the client's part of handshakes with one snapshot of credentials, with servers that are expected.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    anchors: Arc<Anchors>,
}

impl Connector {
    /// Makes one that proves `credentials` to a server that has to be `expected`.
    pub fn new(
        credentials: &Credentials,
        expected: ExpectedServer,
        alpn: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let mut config = build_client(credentials, expected, alpn)?;
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config), anchors: Arc::clone(credentials.anchors()) })
    }

    /// Begins a handshake.
    pub fn begin(&self) -> Result<Handshake, HandshakeError> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), no_server_name())?;
        Ok(Handshake::new(Side::Client(Box::new(connection)), &self.anchors))
    }
}

impl Connector {
    /// Returns the protocols it offers.
    pub fn alpn(&self) -> &[Vec<u8>] {
        &self.config.alpn_protocols
    }
}

/// Equal where one was cloned from the other.
impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connector").field("alpn", &self.config.alpn_protocols).finish_non_exhaustive()
    }
}

/// One handshake on its way.
pub struct Handshake {
    side: Side,
    anchors: Arc<Anchors>,
    incoming: Vec<u8>,
    /// How many of the incoming bytes the library has seen.
    shown: usize,
    received: usize,
    server_name: Option<Box<str>>,
    failed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What a handshake waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the peer.
    Receive,
    /// Nothing: it is done.
    Done,
}

/// What a handshake ended in.
#[derive(Debug)]
pub struct Established {
    /// The verified peer. Missing only where clients are let in unnamed.
    pub peer: Option<Peer>,
    /// The certificates the peer showed, its leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The server name a client asked for, as it came.
    pub server_name: Option<Box<str>>,
    /// The protocol that both sides named.
    pub alpn: Option<Vec<u8>>,
    /// The keys of the connection.
    pub keys: Keys,
    /// What the peer sent after its part of the handshake.
    pub rest: Vec<u8>,
}

impl Handshake {
    fn new(side: Side, anchors: &Arc<Anchors>) -> Self {
        let (incoming, anchors) = (Vec::new(), Arc::clone(anchors));
        Self { side, anchors, incoming, shown: 0, received: 0, server_name: None, failed: false }
    }

    /// Takes what the peer sent.
    ///
    /// # Errors
    /// The peer has sent more than [`MAX_HANDSHAKE_BYTES`].
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.received += bytes.len();
        if self.received > MAX_HANDSHAKE_BYTES {
            return Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge).into());
        }
        self.incoming.extend_from_slice(bytes);
        Ok(())
    }

    /// Goes on as far as the received bytes allow, and writes what has to be sent behind `outgoing`: after a failure too,
    /// for then it is the alert that tells the peer.
    pub fn advance(&mut self, outgoing: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        // The library is not asked again after it refused.
        if self.failed {
            return Err(Error::HandshakeNotComplete.into());
        }
        let advanced = self.steps(outgoing);
        if advanced.is_err() {
            self.failed = true;
            self.encode_alert(outgoing);
        }
        advanced
    }

    /// Ends a handshake that is done.
    pub fn finish(self) -> Result<Established, HandshakeError> {
        let Self { side, anchors, mut incoming, server_name, failed, .. } = self;
        if failed {
            return Err(Error::HandshakeNotComplete.into());
        }
        incoming.shrink_to_fit();
        let role = side.role_of_peer();
        let (peer, chain) = verified(side.state(), &anchors, role)?;
        let alpn = side.state().alpn_protocol().map(<[u8]>::to_vec);
        let (keys, rest) = (Keys::new(side)?, incoming);
        Ok(Established { peer, chain, server_name, alpn, keys, rest })
    }

    fn steps(&mut self, outgoing: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        loop {
            let step = self.step(outgoing)?;
            if !self.side.state().is_handshaking() && step != Step::Again {
                return Ok(Progress::Done);
            }
            if step == Step::Blocked && !self.show_record()? {
                return Ok(Progress::Receive);
            }
        }
    }

    fn step(&mut self, outgoing: &mut Vec<u8>) -> Result<Step, HandshakeError> {
        let shown = self.incoming.get_mut(..self.shown).unwrap_or_default();
        let (discard, step) = match &mut self.side {
            Side::Server(connection) => take(connection.process_tls_records(shown), outgoing),
            Side::Client(connection) => take(connection.process_tls_records(shown), outgoing),
        };
        // Taken each time: a client that has to say hello twice asks twice, and leaves nothing to the next handshake here.
        if let Some(asked) = ASKED.take() {
            self.server_name = Some(asked);
        }
        self.incoming.drain(..discard.min(self.incoming.len()));
        self.shown = self.shown.saturating_sub(discard);
        Ok(step?)
    }

    /// Lets the library see one more record, if a whole one has come.
    fn show_record(&mut self) -> Result<bool, HandshakeError> {
        let next = self.incoming.get(self.shown..).unwrap_or_default();
        let show = match next {
            [kind, ..] if !RECORD_KINDS.contains(kind) => {
                return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType).into());
            }
            [_, major, _, high, low, body @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                // What cannot be a record is not waited for: the library says what is wrong with it.
                let strange = *major != 3 || length == 0 || length > MOST_IN_RECORD;
                if strange {
                    next.len()
                } else if body.len() >= length {
                    HEADER + length
                } else {
                    0
                }
            }
            _ => 0,
        };
        self.shown += show;
        Ok(show > 0)
    }

    /// Takes what is left to say after a failure. What was received is not looked at again: the library has let go of it.
    fn encode_alert(&mut self, outgoing: &mut Vec<u8>) {
        while self.side.state().wants_write() {
            let step = match &mut self.side {
                Side::Server(connection) => take(connection.process_tls_records(&mut []), outgoing).1,
                Side::Client(connection) => take(connection.process_tls_records(&mut []), outgoing).1,
            };
            if step.is_err() {
                return;
            }
        }
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Handshake").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Side {
    fn state(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }

    fn role_of_peer(&self) -> Role {
        match self {
            Self::Server(_) => Role::Client,
            Self::Client(_) => Role::Server,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Again,
    Blocked,
}

/// Takes what the library has to send, and says whether it wants to go on.
fn take<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let step = match status.state {
        Err(error) => Err(error),
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let start = outgoing.len();
            if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
                outgoing.resize(start + size.required_size, 0);
                let encoded = data.encode(outgoing.get_mut(start..).unwrap_or_default());
                outgoing.truncate(start + encoded.unwrap_or_default());
            }
            Ok(Step::Again)
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Step::Blocked),
        // No record behind the handshake is shown, so nothing else can come.
        Ok(_) => Err(Error::HandshakeNotComplete),
    };
    (status.discard, step)
}

/// Returns whom the certificates of a finished handshake prove, and the certificates.
fn verified(
    state: &CommonState,
    anchors: &Anchors,
    role: Role,
) -> Result<(Option<Peer>, Vec<CertificateDer<'static>>), HandshakeError> {
    let chain = state.peer_certificates().unwrap_or_default().to_vec();
    let peer = match anchors.proved(role, &chain) {
        Some(peer) => Some(peer),
        None => peer(state)?,
    };
    Ok((peer, chain))
}

/// The keys of both directions, and what the next ones are made from.
pub struct Keys {
    schedule: Schedule,
    /// Boxed: the room of what has been taken out is not carried along.
    first: Option<Box<[(RecordKey, u64); 2]>>,
}

enum Schedule {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

impl Keys {
    fn new(side: Side) -> Result<Self, HandshakeError> {
        let (secrets, schedule) = match side {
            Side::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Server(kernel))
            }
            Side::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                (secrets, Schedule::Client(kernel))
            }
        };
        let sealing = (record_key(&secrets.tx.1)?, secrets.tx.0);
        let opening = (record_key(&secrets.rx.1)?, secrets.rx.0);
        Ok(Self { schedule, first: Some(Box::new([sealing, opening])) })
    }

    /// Returns the keys that seal and open, each with the number of the next record. Only the first time.
    pub fn first(&mut self) -> Option<[(RecordKey, u64); 2]> {
        self.first.take().map(|first| *first)
    }

    /// Returns the next key that seals. Its first record has the number 0.
    pub fn next_sealing(&mut self) -> Result<RecordKey, Error> {
        let (_, secrets) = match &mut self.schedule {
            Schedule::Server(connection) => connection.update_tx_secret()?,
            Schedule::Client(connection) => connection.update_tx_secret()?,
        };
        record_key(&secrets)
    }

    /// Returns the next key that opens. Its first record has the number 0.
    pub fn next_opening(&mut self) -> Result<RecordKey, Error> {
        let (_, secrets) = match &mut self.schedule {
            Schedule::Server(connection) => connection.update_rx_secret()?,
            Schedule::Client(connection) => connection.update_rx_secret()?,
        };
        record_key(&secrets)
    }

    /// Whether this is the client's side: only servers send session tickets.
    pub fn is_client(&self) -> bool {
        matches!(self.schedule, Schedule::Client(_))
    }

    /// Returns how many records one key may seal.
    pub fn records_per_key(&self) -> u64 {
        let suite = match &self.schedule {
            Schedule::Server(connection) => connection.negotiated_cipher_suite(),
            Schedule::Client(connection) => connection.negotiated_cipher_suite(),
        };
        suite.tls13().map_or(0, |suite| suite.common.confidentiality_limit)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Keys").finish_non_exhaustive()
    }
}

fn record_key(secrets: &ConnectionTrafficSecrets) -> Result<RecordKey, Error> {
    RecordKey::new(secrets).map_err(|error: CryptoError| Error::General(error.to_string()))
}

/// Chooses the certificate as ever, and notes the server name that was asked for: the connection does not show it.
#[derive(Debug)]
struct Noting(Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Box::from));
        self.0.resolve(hello)
    }
}

thread_local! {
    /// The server name of the handshake that this thread is taking a step of.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// The most bytes a peer may send before its part of the handshake is over: many times what any chain that is looked at needs,
/// in records of a byte each too where it is a usual chain.
pub const MAX_HANDSHAKE_BYTES: usize = 256 * 1024;

/// The length of a record's header.
const HEADER: usize = 5;

/// What a record may hold before the keys are agreed on (RFC 8446 5.1, 5.2: 2^14 and what encryption adds).
const MOST_IN_RECORD: usize = (1 << 14) + 2048;

/// The kinds of records there are.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=24;

#[cfg(test)]
mod tests;
