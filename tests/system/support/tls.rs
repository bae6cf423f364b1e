//! TLS peers that share no line with the product's own configurations: a client that presents whatever
//! it is given and believes any server, and a server that takes any client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};

use super::http::{self, Answer, read_answer};
use super::pki::Identity;

/// A connection to an inbound listener.
pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// Connects and finishes the handshake as far as the client's side goes. In TLS 1.3 the server's refusal
/// of the client's certificate only shows on the first read.
pub(crate) fn connect(address: SocketAddr, identity: Option<&Identity>) -> std::io::Result<Client> {
    connect_on(http::connect(address)?, identity)
}

/// `connect` on a connection that there is.
pub(crate) fn connect_on(socket: TcpStream, identity: Option<&Identity>) -> std::io::Result<Client> {
    let config = client_config(identity);
    let name = ServerName::try_from("vouchsafe.invalid").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends bytes as they are and reads one HTTP answer.
pub(crate) fn exchange(address: SocketAddr, identity: &Identity, bytes: &[u8]) -> std::io::Result<Answer> {
    let mut stream = connect(address, Some(identity))?;
    stream.write_all(bytes)?;
    read_answer(&mut stream)
}

/// `GET path` through an inbound listener.
pub(crate) fn get(address: SocketAddr, identity: &Identity, path: &str) -> std::io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: svc.internal\r\nConnection: close\r\n\r\n");
    exchange(address, identity, request.as_bytes())
}

/// The serial number of the certificate that a server presents; the handshake need not go further.
pub(crate) fn server_serial(address: SocketAddr) -> String {
    serial(&server_leaf(address))
}

/// The key identifier of the authority that issued the certificate that a server presents.
pub(crate) fn server_issuer(address: SocketAddr) -> String {
    let leaf = server_leaf(address);
    // The OID authorityKeyIdentifier, then OCTET STRING, SEQUENCE and [0] with the identifier.
    let at = leaf.windows(5).position(|bytes| bytes == [0x06, 0x03, 0x55, 0x1d, 0x23]).unwrap() + 5;
    leaf[at + 4..at + 4 + 22].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The configuration of an ordinary web server of that name, and its authority as PEM.
pub(crate) fn web_server(name: &str) -> (Arc<ServerConfig>, String) {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, authority)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(identity::crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (Arc::new(config), root)
}

fn server_leaf(address: SocketAddr) -> CertificateDer<'static> {
    let stream = connect(address, None).unwrap();
    stream.conn.peer_certificates().unwrap()[0].clone()
}

/// The serial number in a certificate, as the position of its bytes in DER has it: behind the version.
pub(crate) fn serial(certificate: &[u8]) -> String {
    // Certificate, TBSCertificate, [0] version, INTEGER.
    let at = certificate.windows(5).position(|bytes| bytes == [0xa0, 0x03, 0x02, 0x01, 0x02]).unwrap() + 5;
    let length = usize::from(certificate[at + 1]);
    certificate[at + 2..at + 2 + length].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn client_config(identity: Option<&Identity>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(identity::crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

/// The configuration of a client that shows no certificate.
pub(crate) fn anonymous() -> Arc<ClientConfig> {
    Arc::new(client_config(None))
}

/// A TLS server with a certificate of the test's choice, which records what it is sent.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    pub(crate) fn start(identity: &Identity) -> Self {
        let config = ServerConfig::builder_with_provider(identity::crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anyone))
            .with_single_cert(identity.chain(), identity.key())
            .unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (config, seen) = (Arc::new(config), server.seen.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket);
                let seen = seen.clone();
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Application bytes that arrived.
    pub(crate) fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    seen: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        seen.lock().unwrap().extend_from_slice(&buffer[..count]);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        stream.flush()?;
    }
}

/// Believes everybody.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        identity::crypto::provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Anyone {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        identity::crypto::provider().signature_verification_algorithms.supported_schemes()
    }
}
