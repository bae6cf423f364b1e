//! What the tests of this crate stand on: a small authority, sidecars run in the test's own runtime, peers that
//! speak mutual TLS byte by byte, and a backend that remembers every byte it was sent.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use identity::{
    BundleSet, Credentials, PrivateKey, SpiffeId, TrustBundle, TrustDomain, X509Svid,
    tls::{self, ExpectedServer},
};
use policy::strict::Source;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{Config, Ready, run};

pub(crate) const DOMAIN: &str = "prod.test";
pub(crate) const WEB: &str = "spiffe://prod.test/web";
pub(crate) const SHOP: &str = "spiffe://prod.test/shop";
pub(crate) const STRANGER: &str = "spiffe://prod.test/stranger";

/// A self-signed authority.
pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn svid(&self, id: &str) -> X509Svid {
        self.svid_with(id, |_| {})
    }

    pub(crate) fn svid_with(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> X509Svid {
        let key = PrivateKey::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::hours(1);
        change(&mut params);
        let der = params.signed_by(&key.rcgen().unwrap(), &self.issuer).unwrap().der().clone();
        X509Svid::from_chain(vec![der], key, None).unwrap()
    }

    /// Takes a certificate back: a revocation list in DER.
    pub(crate) fn revoke(&self, taken: &CertificateDer<'_>) -> Vec<u8> {
        let now = time::OffsetDateTime::now_utc();
        let certificate = x509_parser::parse_x509_certificate(taken).unwrap().1;
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: now + time::Duration::hours(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle::new(TrustDomain::parse(trust_domain).unwrap(), vec![self.der.clone()]).unwrap()
    }

    pub(crate) fn credentials(&self, id: &str) -> Credentials {
        let bundles: BundleSet = [self.bundle(DOMAIN)].into_iter().collect();
        Credentials::new(Arc::new(self.svid(id)), bundles).unwrap()
    }
}

/// The files of one sidecar.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
}

impl Site {
    /// Lays out an identity for `id` and the given policy.
    pub(crate) fn new(authority: &Authority, id: &str, policy: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(site.path("policies")).unwrap();
        site.write_policy(policy);
        site.write_identity(authority, id, &[authority]);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write_policy(&self, text: &str) {
        replace(&self.path("policies/policy.yaml"), text);
    }

    pub(crate) fn write_identity(&self, authority: &Authority, id: &str, roots: &[&Authority]) {
        let svid = authority.svid(id);
        let roots = roots.iter().map(|root| root.der.clone()).collect();
        let bundle = TrustBundle::new(TrustDomain::parse(DOMAIN).unwrap(), roots).unwrap();
        replace(&self.path("key.pem"), &svid.key().to_pem());
        replace(&self.path("svid.pem"), &svid.chain_pem());
        replace(&self.path("bundle.pem"), &bundle.to_pem());
    }

    /// The part of the configuration that every test needs.
    pub(crate) fn base(&self) -> String {
        let dir = self.directory.path().display();
        format!(
            "vouchsafe: proxy/v1\nsource:\n  pem:\n    certificate: {dir}/svid.pem\n    key: {dir}/key.pem\n    \
             bundle: {dir}/bundle.pem\npolicies: {dir}/policies\naudit: {{file: {dir}/audit.jsonl}}\n\
             admin: {{listen: 127.0.0.1:0}}\n"
        )
    }

    /// Returns the audit records written so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until a record satisfies `wanted`.
    pub(crate) async fn record(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = eventually(async || self.records().into_iter().find(|record| wanted(record))).await;
        found.unwrap_or_else(|| panic!("no such record among {:#?}", self.records()))
    }

    pub(crate) async fn denial(&self, reason: &str) -> Value {
        self.record(|record| record["status_detail"] == reason && record["action_id"] == 2).await
    }
}

fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

/// Asks until there is an answer, for as long as a slow machine may take.
pub(crate) async fn eventually<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) ready: Ready,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: JoinHandle<Result<(), crate::RunError>>,
}

impl Sidecar {
    /// Starts one and waits until it listens.
    pub(crate) async fn start(text: &str) -> Self {
        let config =
            Config::parse(&Source::new("proxy.yaml", text)).unwrap_or_else(|error| panic!("{error}"));
        let stop = CancellationToken::new();
        let (tell, told) = tokio::sync::oneshot::channel();
        let token = stop.clone();
        let ended = tokio::spawn(run(config, token, move |ready| tell.send(ready).unwrap()));
        let ready = told.await.unwrap();
        Self { ready, stop, ended }
    }

    /// Starts one and waits until it is ready.
    pub(crate) async fn ready(text: &str) -> Self {
        let sidecar = Self::start(text).await;
        sidecar.wait_ready(200).await;
        sidecar
    }

    pub(crate) fn inbound(&self) -> SocketAddr {
        self.ready.inbound[0].1
    }

    pub(crate) fn outbound(&self) -> SocketAddr {
        self.ready.outbound[0].1
    }

    pub(crate) async fn wait_ready(&self, status: u16) {
        let found = eventually(async || (self.admin("/readyz").await.0 == status).then_some(())).await;
        assert!(found.is_some(), "{:?}", self.admin("/readyz").await);
    }

    /// Asks the admin interface.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        let address = self.ready.admin.expect("an admin address");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }
}

pub(crate) type Client = tokio_rustls::client::TlsStream<TcpStream>;

/// Calls `to` as the holder of `credentials`.
pub(crate) async fn call(credentials: &Credentials, to: SocketAddr) -> Client {
    let config = tls::client_config(credentials, ExpectedServer::DangerAnyMember, &[]).unwrap();
    let socket = TcpStream::connect(to).await.unwrap();
    tls::connect(config, socket).await.unwrap().1
}

/// Reads until the end, for as long as a slow machine may take.
pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the stream ends")?;
    Ok(bytes)
}

/// Reads one response with a `Content-Length`, or none.
pub(crate) async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        let read =
            tokio::time::timeout(PATIENCE, stream.read_buf(&mut bytes)).await.expect("a response").unwrap();
        assert!(read > 0, "ended within a head: {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |text| text.parse::<usize>().unwrap());
    let mut body = bytes[end..].to_vec();
    while body.len() < length {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut body)).await.expect("a body").unwrap();
        assert!(read > 0, "ended within a body");
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, body)
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// An application: remembers what it was sent, and answers each request head with the same bytes.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
}

pub(crate) const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

impl Backend {
    /// Another's application.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, received: Arc::default(), connections: Arc::default() }
    }

    /// Answers every head with `answer`.
    pub(crate) async fn http(answer: &'static str) -> Self {
        Self::start(move |bytes| {
            let heads = bytes.windows(4).filter(|window| *window == b"\r\n\r\n").count();
            (heads, answer)
        })
        .await
    }

    /// Answers when `due` says how many answers all bytes of a connection so far ask for.
    pub(crate) async fn start(
        due: impl Fn(&[u8]) -> (usize, &'static str) + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<u8>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let (all, count) = (Arc::clone(&received), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *count.lock().unwrap() += 1;
                tokio::spawn(respond(stream, Arc::clone(&all), due.clone()));
            }
        });
        Self { address, received, connections }
    }

    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn respond(
    mut stream: TcpStream,
    all: Arc<Mutex<Vec<u8>>>,
    due: impl Fn(&[u8]) -> (usize, &'static str),
) {
    let (mut own, mut answered, mut buffer) = (Vec::new(), 0, vec![0; 65536]);
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        all.lock().unwrap().extend_from_slice(&buffer[..read]);
        own.extend_from_slice(&buffer[..read]);
        let (asked, answer) = due(&own);
        while answered < asked {
            answered += 1;
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
