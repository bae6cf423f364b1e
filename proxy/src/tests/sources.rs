//! Identities that come, change and go; and what the admin interface says of it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
};

use proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse,
    X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
    spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener},
    sync::watch,
};
use tokio_stream::{
    Stream, StreamExt,
    wrappers::{UnixListenerStream, WatchStream},
};
use tonic::{Request, Response, Status};

use super::TCP_POLICY;
use crate::testing::{
    Authority, Backend, DOMAIN, SHOP, STRANGER, Sidecar, Site, WEB, call, eventually, read_all,
};

pub(super) type Answer = Result<X509svidResponse, Status>;

/// A Workload API that says what a test has it say.
pub(super) struct Agent {
    pub(super) answers: watch::Receiver<Answer>,
    pub(super) seen: Arc<Mutex<Vec<Option<String>>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SpiffeWorkloadApi for Agent {
    type FetchX509SVIDStream = Answers<X509svidResponse>;
    type FetchX509BundlesStream = Answers<X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<JwtBundlesResponse>;
    type FetchWITSVIDStream = Answers<WitsvidResponse>;
    type FetchWITBundlesStream = Answers<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        let header =
            request.metadata().get("workload.spiffe.io").map(|value| value.to_str().unwrap().to_owned());
        self.seen.lock().unwrap().push(header);
        Ok(Response::new(Box::pin(WatchStream::new(self.answers.clone()).map(|answer| answer))))
    }

    async fn fetch_x509_bundles(
        &self,
        _: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_jwtsvid(&self, _: Request<JwtsvidRequest>) -> Result<Response<JwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_jwt_bundles(
        &self,
        _: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_jwtsvid(
        &self,
        _: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_witsvid(
        &self,
        _: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn fetch_wit_bundles(
        &self,
        _: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

pub(super) fn answer(authority: &Authority, ids: &[&str]) -> Answer {
    let bundle = authority.bundle(DOMAIN).authorities_der();
    let svid = |id: &&str| {
        let svid = authority.svid(id);
        X509svid {
            spiffe_id: (*id).to_owned(),
            x509_svid: svid.chain_der(),
            x509_svid_key: svid.key().pkcs8_der().to_vec(),
            bundle: bundle.clone(),
            hint: String::new(),
        }
    };
    Ok(X509svidResponse { svids: ids.iter().map(svid).collect(), ..X509svidResponse::default() })
}

/// A web sidecar whose identity comes from a Workload API.
struct Stage {
    authority: Authority,
    site: Site,
    sidecar: Sidecar,
    say: watch::Sender<Answer>,
    seen: Arc<Mutex<Vec<Option<String>>>>,
}

impl Stage {
    async fn new(first: impl FnOnce(&Authority) -> Answer, more: &str) -> Self {
        let authority = Authority::new("prod");
        let site = Site::new(&authority, WEB, TCP_POLICY);
        let (say, answers) = watch::channel(first(&authority));
        let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let agent = Agent { answers, seen: Arc::clone(&seen) };
        let listener = UnixListener::bind(site.path("agent.sock")).unwrap();
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(SpiffeWorkloadApiServer::new(agent))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        let backend = Backend::start(|bytes| (bytes.len() / 4, "pong")).await;
        let dir = site.directory.path().display();
        let text = format!(
            "vouchsafe: proxy/v1\nsource: {{workload_api: \"unix://{dir}/agent.sock\"}}\npolicies: {dir}/policies\n\
             audit: {{file: {dir}/audit.jsonl}}\nadmin: {{listen: 127.0.0.1:0}}\n{more}inbound:\n  \
             - {{name: db, listen: 127.0.0.1:0, protocol: tcp, application: {}}}\n",
            backend.address
        );
        let sidecar = Sidecar::start(&text).await;
        Self { authority, site, sidecar, say, seen }
    }

    async fn ping(&self) -> crate::testing::Client {
        let mut client = call(&self.authority.credentials(SHOP), self.sidecar.inbound()).await;
        client.write_all(b"ping").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        client
    }

    async fn reason(&self, wanted: &str) {
        let found =
            eventually(async || self.sidecar.admin("/readyz").await.1.contains(wanted).then_some(())).await;
        assert!(found.is_some(), "{wanted}: {:?}", self.sidecar.admin("/readyz").await);
    }
}

#[tokio::test]
async fn an_identity_comes_from_the_workload_api_with_the_security_header() {
    let stage = Stage::new(|authority| answer(authority, &[WEB]), "").await;

    stage.sidecar.wait_ready(200).await;

    stage.ping().await;
    assert_eq!(stage.seen.lock().unwrap().first(), Some(&Some("true".to_owned())));
}

#[tokio::test]
async fn a_withdrawn_identity_ends_everything_and_its_return_restores_it() {
    let stage = Stage::new(|authority| answer(authority, &[WEB]), "").await;
    stage.sidecar.wait_ready(200).await;
    let mut client = stage.ping().await;

    stage.say.send(Err(Status::permission_denied("no identity issued"))).unwrap();

    assert!(read_all(&mut client).await.is_err());
    stage.sidecar.wait_ready(503).await;
    // The reset may come before the kernel has told of the connection.
    if let Ok(mut refused) = TcpStream::connect(stage.sidecar.inbound()).await {
        assert!(read_all(&mut refused).await.map_or(true, |bytes| bytes.is_empty()));
    }
    stage.site.denial("trust_withdrawn").await;
    stage.say.send(answer(&stage.authority, &[WEB])).unwrap();
    stage.sidecar.wait_ready(200).await;
    stage.ping().await;
}

#[tokio::test]
async fn a_serial_number_on_a_revocation_list_ends_its_connections_and_lets_it_in_no_more() {
    let stage = Stage::new(|authority| answer(authority, &[WEB]), "").await;
    stage.sidecar.wait_ready(200).await;
    let stolen = stage.authority.credentials(SHOP);
    let mut thief = call(&stolen, stage.sidecar.inbound()).await;
    thief.write_all(b"ping").await.unwrap();
    thief.read_exact(&mut [0; 4]).await.unwrap();
    let mut owner = stage.ping().await;

    let mut update = answer(&stage.authority, &[WEB]).unwrap();
    update.crl = vec![stage.authority.revoke(&stolen.svid().chain()[0])];
    stage.say.send(Ok(update)).unwrap();

    assert!(read_all(&mut thief).await.is_err());
    stage.site.denial("trust_withdrawn").await;
    owner.write_all(b"ping").await.unwrap();
    owner.read_exact(&mut [0; 4]).await.unwrap();
    let mut again = call(&stolen, stage.sidecar.inbound()).await;
    assert!(read_all(&mut again).await.is_err());
    assert_eq!(stage.site.denial("handshake_failed").await["unmapped"]["vouchsafe"]["code"], "revoked");
}

#[tokio::test]
async fn an_agent_that_is_away_takes_no_identity_with_it() {
    let stage = Stage::new(|authority| answer(authority, &[WEB]), "").await;
    stage.sidecar.wait_ready(200).await;
    let mut client = stage.ping().await;

    stage.say.send(Err(Status::unavailable("restarting"))).unwrap();
    stage.reason("identity_update").await;

    assert_eq!(stage.sidecar.admin("/readyz").await.0, 200);
    client.write_all(b"ping").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();
    stage.ping().await;
}

#[tokio::test]
async fn of_several_identities_one_has_to_be_named() {
    let stage = Stage::new(|authority| answer(authority, &[STRANGER, WEB]), "").await;
    stage.reason("offers 2 SVIDs").await;
    stage.reason("spiffe://prod.test/stranger, spiffe://prod.test/web").await;

    let named =
        Stage::new(|authority| answer(authority, &[STRANGER, WEB]), "identity: spiffe://prod.test/web\n")
            .await;
    named.sidecar.wait_ready(200).await;

    assert!(named.sidecar.admin("/readyz").await.1.contains(WEB));
}

fn id_of(leaf: &rustls_pki_types::CertificateDer<'_>, authority: &Authority) -> String {
    let credentials = authority.credentials(SHOP);
    let now = std::time::SystemTime::now();
    identity::verify(leaf, &[], credentials.anchors(), identity::Role::Server, now).unwrap().id().to_string()
}

#[tokio::test]
async fn the_identity_in_use_stays_and_is_renewed_when_others_come_beside_it() {
    let stage = Stage::new(|authority| answer(authority, &[WEB]), "").await;
    stage.sidecar.wait_ready(200).await;
    let mut client = stage.ping().await;

    for _ in 0..2 {
        let before = stage.ping().await.get_ref().1.peer_certificates().unwrap()[0].clone();
        stage.say.send(answer(&stage.authority, &[STRANGER, WEB])).unwrap();

        stage.reason("name one with").await;
        let renewed = eventually(async || {
            let now = stage.ping().await;
            let leaf = &now.get_ref().1.peer_certificates().unwrap()[0];
            (*leaf != before).then(|| id_of(leaf, &stage.authority))
        });
        assert_eq!(renewed.await.as_deref(), Some(WEB));
        let (status, told) = stage.sidecar.admin("/readyz").await;
        assert!(status == 200 && told.contains("identity_update") && told.contains(STRANGER), "{told}");
    }
    client.write_all(b"ping").await.unwrap();
    client.read_exact(&mut [0; 4]).await.unwrap();

    stage.say.send(answer(&stage.authority, &[STRANGER, SHOP])).unwrap();
    stage.sidecar.wait_ready(503).await;
    stage.say.send(answer(&stage.authority, &[WEB])).unwrap();
    stage.sidecar.wait_ready(200).await;
    assert!(!stage.sidecar.admin("/readyz").await.1.contains("identity_update"));
}

#[tokio::test]
async fn an_identity_that_is_not_offered_is_not_replaced_by_another() {
    let stage =
        Stage::new(|authority| answer(authority, &[STRANGER]), "identity: spiffe://prod.test/web\n").await;

    stage.reason("no SVID for spiffe://prod.test/web").await;

    assert_eq!(stage.sidecar.admin("/readyz").await.0, 503);
}

#[tokio::test]
async fn pem_files_that_do_not_fit_each_other_leave_the_last_good_identity() {
    let stage = super::Stage::inbound("tcp", Backend::start(|bytes| (bytes.len() / 4, "pong")).await).await;
    std::fs::write(stage.site.path("key.pem"), stage.authority.svid(WEB).key().to_pem().as_str()).unwrap();
    let warned =
        eventually(async || stage.sidecar.admin("/readyz").await.1.contains("identity_update").then_some(()))
            .await;
    assert!(warned.is_some());

    let mut client = stage.shop().await;
    client.write_all(b"ping").await.unwrap();

    client.read_exact(&mut [0; 4]).await.unwrap();
}

#[tokio::test]
async fn the_admin_interface_shows_what_it_should_and_nothing_can_be_changed() {
    let stage = super::Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let sidecar = &stage.sidecar;
    let _ = read_all(&mut stage.stranger().await).await;

    assert_eq!(sidecar.admin("/livez").await, (200, "live\n".to_owned()));
    assert_eq!(sidecar.admin("/nothing").await.0, 404);
    let (_, config) = sidecar.admin("/config").await;
    assert!(config.contains("key.pem") && !config.contains("PRIVATE KEY"), "{config}");
    let (_, metrics) = sidecar.admin("/metrics").await;
    assert!(
        metrics.ends_with("# EOF\n")
            && metrics.contains(
                "vouchsafe_proxy_audit_events_total{decision=\"denied\",reason=\"no_allow_matched\"} 1\n"
            ),
        "{metrics}"
    );
}

#[tokio::test]
async fn the_admin_interface_answers_no_rebound_name_and_no_other_method() {
    let stage = super::Stage::inbound("tcp", Backend::start(|_| (0, "")).await).await;
    let address = stage.sidecar.ready.admin.unwrap();

    for (request, status) in [
        ("GET /config HTTP/1.1\r\nhost: evil.example\r\n\r\n".to_owned(), 403),
        ("GET /config HTTP/1.1\r\nhost: 127.0.0.1.evil.example\r\n\r\n".to_owned(), 403),
        (format!("POST /readyz HTTP/1.1\r\nhost: {address}\r\n\r\n"), 405),
        ("GET /livez HTTP/1.1\r\nhost: localhost:15000\r\n\r\n".to_owned(), 200),
        ("GET /livez HTTP/1.1\r\nhost: [::1]\r\n\r\n".to_owned(), 200),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn the_admin_interface_can_be_a_unix_socket_and_one_left_over_is_replaced() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, TCP_POLICY);
    let path = site.path("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let text = site.base().replace("{listen: 127.0.0.1:0}", &format!("{{socket: {}}}", path.display()));
    let text = format!(
        "{text}inbound:\n  - {{name: a, listen: 127.0.0.1:0, protocol: tcp, application: 127.0.0.1:9}}\n"
    );

    let sidecar = Sidecar::start(&text).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: anything\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await.unwrap();

    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(sidecar.ready.admin_socket, Some(path.clone()));
    sidecar.stop.cancel();
    sidecar.ended.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_port_in_use_is_told_with_its_name_and_nothing_is_started() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, TCP_POLICY);
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let text = format!(
        "{}inbound:\n  - {{name: api, listen: \"{address}\", protocol: tcp, application: 127.0.0.1:9}}\n",
        site.base()
    );
    let config = crate::Config::parse(&policy::strict::Source::new("proxy.yaml", text)).unwrap();

    let error = crate::run(config, tokio_util::sync::CancellationToken::new(), |_| panic!("ready"))
        .await
        .unwrap_err();

    assert_eq!(error.to_string(), format!("cannot listen on {address} for api"));
    assert!(!site.path("audit.jsonl").exists());
}

#[test]
fn a_check_finds_what_a_start_would_trip_over() {
    let authority = Authority::new("prod");
    let site = Site::new(&authority, WEB, TCP_POLICY);
    let text = format!(
        "{}inbound:\n  - {{name: a, listen: 127.0.0.1:0, protocol: tcp, application: 127.0.0.1:9}}\n",
        site.base()
    );
    let config = crate::Config::parse(&policy::strict::Source::new("proxy.yaml", text)).unwrap();
    assert!(crate::check(&config).is_empty());

    site.write_policy("nonsense");
    std::fs::remove_file(site.path("key.pem")).unwrap();

    let found: Vec<_> = crate::check(&config).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
}
