//! A CA in this process with a data directory of its own, and an agent that speaks to it as SPIRE's does.

use std::{path::Path, sync::Arc, time::Duration};

use ca::{Config, Ready, RunError, client::Client};
use hyper_util::rt::TokioIo;
use identity::{
    Anchors, BundleSet, Credentials, PrivateKey, SpiffeId, TrustBundle, TrustDomain, X509Svid,
    tls::{ALPN_H2, ExpectedServer, client_config, client_config_without_svid, connect},
};
use prost::Message;
use proto::spire::api::{
    server::{
        agent::v1::{
            AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, agent_client::AgentClient,
            attest_agent_request, attest_agent_response,
        },
        entry::v1::{SyncAuthorizedEntriesRequest, entry_client::EntryClient},
        svid::v1::{BatchNewX509svidRequest, NewX509svidParams, svid_client::SvidClient},
    },
    types::{self, permission_denied_details::Reason},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Uri},
};

pub(crate) struct TestCa {
    pub(crate) config: Config,
    pub(crate) ready: Ready,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl TestCa {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Self::config(dir.path());
        change(&mut config);
        Self::start_in(dir, config).await
    }

    pub(crate) fn config(dir: &Path) -> Config {
        let text = format!(
            "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: {}\nlisten: 127.0.0.1:0\nmetrics:\n  listen: 127.0.0.1:0\n",
            dir.join("data").display()
        );
        Config::parse(&policy::strict::Source::new("ca.yaml", text)).unwrap()
    }

    async fn start_in(dir: tempfile::TempDir, config: Config) -> Self {
        identity::crypto::install_default();
        let shutdown = CancellationToken::new();
        let (tell, ready) = oneshot::channel();
        let running =
            tokio::spawn(ca::run(config.clone(), shutdown.clone(), |ready| tell.send(ready).unwrap()));
        let ready = match ready.await {
            Ok(ready) => ready,
            Err(_) => panic!("the CA did not start: {:?}", running.await),
        };
        Self { config, ready, dir, shutdown, running }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) async fn restart(self) -> Self {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        Self::start_in(self.dir, self.config).await
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.ready.admin_socket).await.unwrap()
    }

    pub(crate) async fn admin(&self) -> Channel {
        let path = self.ready.admin_socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://ca.invalid").connect_with_connector(connector).await.unwrap()
    }

    /// A connection that proves nothing about its client.
    pub(crate) async fn stranger(&self) -> Channel {
        let anchors = Arc::new(Anchors::new(&BundleSet::from_iter([self.bundle().await])));
        self.dial(client_config_without_svid(anchors, expected(), &[ALPN_H2]).unwrap()).await
    }

    pub(crate) async fn channel_as(&self, svid: types::X509svid, key: PrivateKey) -> Channel {
        let svid = X509Svid::from_der(&svid.cert_chain.concat(), key, None).unwrap();
        self.channel_with(Arc::new(svid)).await
    }

    async fn channel_with(&self, svid: Arc<X509Svid>) -> Channel {
        let credentials = Credentials::new(svid, BundleSet::from_iter([self.bundle().await])).unwrap();
        self.dial(client_config(&credentials, expected(), &[ALPN_H2]).unwrap()).await
    }

    async fn bundle(&self) -> TrustBundle {
        self.client().await.bundle().await.unwrap()
    }

    async fn dial(&self, config: Arc<ClientConfig>) -> Channel {
        let address = self.ready.listen;
        let connector = tower::service_fn(move |_: Uri| {
            let config = config.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let (_, stream) = connect(config, stream).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        Endpoint::from_static("http://ca.invalid").connect_with_connector(connector).await.unwrap()
    }

    /// Sends something that is not TLS, and waits for the end of the connection.
    pub(crate) async fn plaintext(&self) {
        let mut stream = TcpStream::connect(self.ready.listen).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good an end as any.
        let _ = stream.read_to_end(&mut answer).await;
    }

    /// The whole answer to a plain GET on the metrics listener.
    pub(crate) async fn http(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.ready.metrics.unwrap()).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: ca\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

pub(crate) struct Agent {
    svid: Arc<X509Svid>,
    channel: Channel,
}

impl Agent {
    pub(crate) async fn attest(ca: &TestCa, client: &Client) -> Self {
        let token = client.create_token(Duration::from_secs(600), None).await.unwrap();
        let key = PrivateKey::generate().unwrap();
        let svid = attest(ca, token.value.expose(), &key).await.unwrap();
        Self::with(ca, svid, key).await
    }

    async fn with(ca: &TestCa, svid: types::X509svid, key: PrivateKey) -> Self {
        let svid = Arc::new(X509Svid::from_der(&svid.cert_chain.concat(), key, None).unwrap());
        let channel = ca.channel_with(svid.clone()).await;
        Self { svid, channel }
    }

    pub(crate) async fn reconnect(&self, ca: &TestCa) -> Self {
        Self { svid: self.svid.clone(), channel: ca.channel_with(self.svid.clone()).await }
    }

    /// Calls another CA, whose root it knows, with the certificate that this one's CA issued.
    pub(crate) async fn try_other_ca(&self, other: &TestCa) -> Result<(), Box<dyn std::error::Error>> {
        let credentials = Credentials::new(self.svid.clone(), BundleSet::from_iter([other.bundle().await]))?;
        let config = client_config(&credentials, expected(), &[ALPN_H2])?;
        let stream = TcpStream::connect(other.ready.listen).await?;
        let (_, mut stream) = connect(config, stream).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.read_u8().await?;
        Ok(())
    }

    pub(crate) fn id(&self) -> &SpiffeId {
        self.svid.id()
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) async fn sync(&self) -> Vec<types::Entry> {
        self.try_sync().await.unwrap()
    }

    pub(crate) async fn try_sync(&self) -> Result<Vec<types::Entry>, Status> {
        let request = tokio_stream::once(SyncAuthorizedEntriesRequest::default());
        let mut stream =
            EntryClient::new(self.channel()).sync_authorized_entries(request).await?.into_inner();
        let mut entries = Vec::new();
        while let Some(page) = stream.message().await? {
            entries.extend(page.entries);
        }
        Ok(entries)
    }

    pub(crate) async fn sign(&self, entry: &str, key: &PrivateKey) -> Result<types::X509svid, types::Status> {
        let params = NewX509svidParams { entry_id: entry.into(), csr: key.csr(None).unwrap() };
        let request = BatchNewX509svidRequest { params: vec![params] };
        let response =
            SvidClient::new(self.channel()).batch_new_x509svid(request).await.unwrap().into_inner();
        let result = response.results.into_iter().next().unwrap();
        result.svid.ok_or_else(|| result.status.unwrap())
    }

    pub(crate) async fn renew(&self, ca: &TestCa) -> Self {
        let key = PrivateKey::generate().unwrap();
        let params = Some(AgentX509svidParams { csr: key.csr(None).unwrap() });
        let response =
            AgentClient::new(self.channel()).renew_agent(RenewAgentRequest { params }).await.unwrap();
        Self::with(ca, response.into_inner().svid.unwrap(), key).await
    }
}

pub(crate) async fn attest(ca: &TestCa, token: &str, key: &PrivateKey) -> Result<types::X509svid, Status> {
    let data = types::AttestationData { r#type: "join_token".into(), payload: token.into() };
    let params = attest_agent_request::Params {
        data: Some(data),
        params: Some(AgentX509svidParams { csr: key.csr(None).unwrap() }),
    };
    let request = AttestAgentRequest { step: Some(attest_agent_request::Step::Params(params)) };
    let mut client = AgentClient::new(ca.stranger().await);
    let mut stream = client.attest_agent(tokio_stream::once(request)).await?.into_inner();
    match stream.message().await?.unwrap().step.unwrap() {
        attest_agent_response::Step::Result(result) => Ok(result.svid.unwrap()),
        attest_agent_response::Step::Challenge(_) => panic!("a join token needs no challenge"),
    }
}

/// The machine-readable reason of a denial, as SPIRE's agent reads it.
pub(crate) fn reason(status: &Status) -> Option<Reason> {
    let rich = RichStatus::decode(status.details()).ok()?;
    let details = types::PermissionDeniedDetails::decode(rich.details.first()?.value.as_slice()).ok()?;
    Some(details.reason())
}

#[derive(Clone, PartialEq, prost::Message)]
struct RichStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Waits for `condition`, and fails when it does not come about.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    for _ in 0..600 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain: {what}");
}

pub(crate) fn id(path: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::parse("prod.test").unwrap(), path).unwrap()
}

fn expected() -> ExpectedServer {
    ExpectedServer::AnyOf(vec![id("/spire/server")])
}
