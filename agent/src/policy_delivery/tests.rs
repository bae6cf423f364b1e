//! The real service on a real socket; this program is the caller, the test writes state and policies.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::manifest::SignedManifest;
use proto::vouchsafe::v1::delivery::Step;
use proto::vouchsafe::v1::policy_delivery_client::PolicyDeliveryClient;
use proto::vouchsafe::v1::{DeliveryBegin, PolicyState, PolicyStatus};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::*;
use crate::attested::SECURITY_HEADER;
use crate::attestor::Options;
use crate::fixtures::{Authority, domain, entry, own_uid, serving};
use crate::health::Health;
use crate::limits::MAX_CONNECTIONS;
use crate::policies::Report;
use crate::policies::tests::{File, held};
use crate::socket::{BoundSocket, Reach};
use crate::store::Store;

struct Served {
    home: tempfile::TempDir,
    authority: Authority,
    state: watch::Sender<Arc<State>>,
    follower: Arc<Follower>,
    _tasks: JoinSet<()>,
}

impl Served {
    fn start(entries: Vec<crate::entry::Entry>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::new("root");
        let store = Arc::new(Store::open(home.path(), None, domain()).unwrap());
        let (state, watched) = watch::channel(Arc::new(serving(&authority, entries)));
        let figures = Health::new(&mut prometheus_client::registry::Registry::default()).figures;
        let follower = Arc::new(Follower::open(domain(), store, watched.clone(), figures.clone()));
        let deliverer = Deliverer::new(watched, follower.clone(), Attestor::new(Options::default()), figures);
        let routes = tonic::service::Routes::new(deliverer.into_service());
        let socket = BoundSocket::bind(&home.path().join("s"), Reach::Everybody).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let incoming = crate::server::incoming(socket.listener(), Gate::new(MAX_CONNECTIONS, 8));
            crate::server::grpc().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        Self { home, authority, state, follower, _tasks: tasks }
    }

    fn one() -> Self {
        Self::start(vec![entry("a", "/a", &[&own_uid()])])
    }

    async fn hold(&self, number: u64, files: &[File<'_>]) {
        self.follower.hold(held(&self.authority, number, files)).await;
    }

    fn set_entries(&self, entries: Vec<crate::entry::Entry>) {
        self.state.send_replace(Arc::new(serving(&self.authority, entries)));
    }

    async fn client(&self) -> PolicyDeliveryClient<Channel> {
        let path = self.home.path().join("s");
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://a").connect_with_connector(connector).await.unwrap();
        PolicyDeliveryClient::new(channel).max_decoding_message_size(16 * 1024 * 1024)
    }

    async fn watch(&self, held: Vec<Vec<u8>>) -> Streaming<Delivery> {
        self.client().await.watch(request(WatchDeliveryRequest { held })).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn a_sidecar_waits_gets_its_files_and_then_only_what_changed() {
    let served = Served::one();
    let mut stream = served.watch(Vec::new()).await;
    assert!(matches!(step(&mut stream).await, Step::Waiting(_)));

    served.hold(1, &[A, B, KEYS]).await;
    let (first, files) = delivery(&mut stream).await;
    served.hold(2, &[A, B, ("keys.json", "{}")]).await;
    let (second, changed) = delivery(&mut stream).await;

    assert_eq!((first.files, files), (own(&["a.yaml", "keys.json"]), own(&["a.yaml", "keys.json"])));
    assert_eq!(first.workloads[0].spiffe_id, "spiffe://prod.test/a");
    assert_eq!((second.files, changed), (own(&["a.yaml", "keys.json"]), own(&["keys.json"])));
}

#[tokio::test]
async fn what_is_handed_on_is_what_the_ca_signed() {
    let served = Served::one();
    served.hold(1, &[A]).await;

    let (begin, _) = delivery(&mut served.watch(Vec::new()).await).await;

    let handed: SignedManifest = crate::wire::policies::signed(begin.manifest.unwrap());
    let known = served.follower.known();
    assert_eq!(handed, known.borrow().policies.set().unwrap().signed);
}

#[tokio::test]
async fn files_that_a_sidecar_holds_are_not_sent_again() {
    let served = Served::one();
    served.hold(1, &[A, KEYS]).await;

    let held = identity::crypto::sha256(A.1.as_bytes()).to_vec();
    let (begin, files) = delivery(&mut served.watch(vec![held]).await).await;

    assert_eq!((begin.files, files), (own(&["a.yaml", "keys.json"]), own(&["keys.json"])));
}

#[tokio::test]
async fn another_identity_brings_its_policies_and_the_last_one_ends_the_stream() {
    let served = Served::one();
    served.hold(1, &[A, B]).await;
    let mut stream = served.watch(Vec::new()).await;
    delivery(&mut stream).await;

    served.set_entries(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    let (both, files) = delivery(&mut stream).await;
    served.set_entries(Vec::new());
    let ended = stream.message().await.unwrap_err();

    assert_eq!((both.files, files), (own(&["a.yaml", "b.yaml"]), own(&["b.yaml"])));
    assert_eq!(both.workloads.len(), 2);
    assert_eq!(ended.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn who_has_no_identity_or_forgets_the_header_gets_nothing() {
    let served = Served::start(vec![entry("a", "/a", &["uid:54321"])]);
    served.hold(1, &[A]).await;
    let mut client = served.client().await;

    let nobody = client.watch(request(WatchDeliveryRequest::default())).await.unwrap_err();
    let bare = client.watch(WatchDeliveryRequest::default()).await.unwrap_err();
    let report = client.report(DeliveryReport::default()).await.unwrap_err();
    let odd = client.watch(request(WatchDeliveryRequest { held: vec![vec![1, 2]] })).await.unwrap_err();

    assert_eq!((nobody.code(), nobody.message()), (Code::PermissionDenied, "no identity issued"));
    assert_eq!((bare.code(), report.code()), (Code::InvalidArgument, Code::InvalidArgument));
    assert_eq!(odd.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn only_a_watching_process_may_report_and_only_about_itself() {
    let served = Served::one();
    served.hold(1, &[A]).await;
    let mut client = served.client().await;

    let early = client.report(request(report("spiffe://prod.test/a"))).await.unwrap_err();
    let mut stream = served.watch(Vec::new()).await;
    delivery(&mut stream).await;
    let foreign = client.report(request(report("spiffe://prod.test/b"))).await.unwrap_err();
    client.report(request(report("spiffe://prod.test/a"))).await.unwrap();
    let sidecars = served.follower.sidecars().subscribe();
    let told = sidecars.borrow().get(&std::process::id()).cloned().unwrap();

    assert_eq!((early.code(), foreign.code()), (Code::FailedPrecondition, Code::PermissionDenied));
    assert!(matches!(told.report, Some((Report::InForce(set), _)) if set.number == 1));
}

fn report(spiffe_id: &str) -> DeliveryReport {
    let status = PolicyStatus {
        state: PolicyState::InForce.into(),
        number: 1,
        generation: "0".repeat(64),
        ..Default::default()
    };
    DeliveryReport { spiffe_id: spiffe_id.into(), status: Some(status) }
}

async fn delivery(stream: &mut Streaming<Delivery>) -> (DeliveryBegin, Vec<String>) {
    let Step::Begin(begin) = step(stream).await else { panic!("a delivery begins") };
    let mut files = Vec::new();
    loop {
        match step(stream).await {
            Step::File(file) => files.push(file.name),
            Step::End(_) => return (begin, files),
            other => panic!("{other:?} within a delivery"),
        }
    }
}

async fn step(stream: &mut Streaming<Delivery>) -> Step {
    let next = tokio::time::timeout(Duration::from_secs(20), stream.message());
    next.await.expect("no message in time").unwrap().unwrap().step.unwrap()
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SECURITY_HEADER, "true".parse().unwrap());
    request
}

fn own(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const A: File<'static> = ("a.yaml", "vouchsafe: policy/v1\nname: a\nprotects: spiffe://prod.test/a\n");
const B: File<'static> = ("b.yaml", "vouchsafe: policy/v1\nname: b\nprotects: spiffe://prod.test/b\n");
const KEYS: File<'static> = ("keys.json", "{\"keys\": []}");
