use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use hyper_util::rt::TokioIo;
use proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};

use super::*;
use crate::attested::SECURITY_HEADER;
use crate::attestor::Options;
use crate::fixtures::caller::{Caller, Role};
use crate::fixtures::{Authority, HOUR, entry, own_uid, serving};
use crate::health::Health;
use crate::limits::MAX_CONNECTIONS;
use crate::socket::{BoundSocket, Reach};
use crate::state::{Held, Phase};
use crate::whoami::{Scope, WhoAmI};

/// The real service on a real socket; the test writes the state.
struct Served {
    home: tempfile::TempDir,
    authority: Authority,
    state: watch::Sender<Arc<State>>,
    figures: Figures,
    _tasks: JoinSet<()>,
}

impl Served {
    fn start(entries: Vec<crate::entry::Entry>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::new("root");
        let (state, watched) = watch::channel(Arc::new(serving(&authority, entries)));
        let figures = Health::new(&mut prometheus_client::registry::Registry::default()).figures;
        let attestor = Attestor::new(Options::default());
        let api = WorkloadApi::new(watched.clone(), attestor.clone(), figures.clone());
        let whoami = WhoAmI::new(watched, attestor, Scope::Caller);
        let routes = tonic::service::Routes::new(api.into_service()).add_service(whoami.into_service());
        let socket = BoundSocket::bind(&home.path().join("s"), Reach::Everybody).unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let incoming = crate::server::incoming(socket.listener(), Gate::new(MAX_CONNECTIONS, 8));
            crate::server::grpc().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        Self { home, authority, state, figures, _tasks: tasks }
    }

    fn one() -> Self {
        Self::start(vec![entry("a", "/a", &[&own_uid()])])
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s")
    }

    async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        let path = self.socket();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        SpiffeWorkloadApiClient::new(
            Endpoint::from_static("http://a").connect_with_connector(connector).await.unwrap(),
        )
    }

    async fn svids(&self) -> Result<Streaming<X509svidResponse>, Status> {
        self.client().await.fetch_x509svid(request(X509svidRequest {})).await.map(Response::into_inner)
    }

    async fn bundles(&self) -> Streaming<X509BundlesResponse> {
        self.client().await.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap().into_inner()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = State::clone(&self.state.borrow());
        change(&mut state);
        self.state.send_replace(Arc::new(state));
    }

    fn set_entries(&self, entries: Vec<crate::entry::Entry>) {
        self.change(|state| {
            let fresh = serving(&self.authority, entries);
            state.entries = fresh.entries;
            for (id, held) in fresh.svids {
                state.svids.entry(id).or_insert(held);
            }
        });
    }

    fn renew(&self, id: &str, path: &str) {
        let held = Held { svid: self.authority.svid(path), renew_at: SystemTime::now() + HOUR, revision: 0 };
        self.change(|state| drop(state.svids.insert(id.to_owned(), held)));
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(SECURITY_HEADER, "true".parse().unwrap());
    request
}

fn ids(response: &X509svidResponse) -> Vec<&str> {
    response.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .expect("no message in time")
        .map(|message| message.expect("the stream ended without a status"))
}

async fn is_silent<T>(stream: &mut Streaming<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(300), stream.message()).await.is_err()
}

#[tokio::test]
async fn a_process_gets_its_svid_key_and_bundle_in_the_formats_of_the_standard() {
    let served = Served::one();

    let response = next(&mut served.svids().await.unwrap()).await.unwrap();

    let svid = &response.svids[0];
    let state = served.state.borrow().clone();
    let held = &state.svids["a"].svid;
    assert_eq!(svid.spiffe_id, "spiffe://prod.test/a");
    assert_eq!(svid.x509_svid, held.chain_der());
    assert_eq!(svid.x509_svid_key, held.key().pkcs8_der());
    assert_eq!(svid.bundle, served.authority.der.to_vec());
    assert!(response.crl.is_empty() && response.federated_bundles.is_empty());
}

#[tokio::test]
async fn the_spiffe_crate_fetches_and_watches_what_is_served() {
    let served = Served::one();
    let endpoint = format!("unix://{}", served.socket().display());
    let client = spiffe::WorkloadApiClient::connect_to(&endpoint).await.unwrap();

    let svid = client.fetch_x509_svid().await.unwrap();
    let bundles = client.fetch_x509_bundles().await.unwrap();
    let mut contexts = client.stream_x509_contexts().await.unwrap();
    contexts.next().await.unwrap().unwrap();
    served.renew("a", "/a");
    let renewed = contexts.next().await.unwrap().unwrap();

    assert_eq!(svid.spiffe_id().to_string(), "spiffe://prod.test/a");
    let domain = spiffe::TrustDomain::new("prod.test").unwrap();
    assert_eq!(bundles.get(&domain).unwrap().authorities()[0].as_bytes(), served.authority.der.as_ref());
    let state = served.state.borrow().clone();
    assert_eq!(
        renewed.default_svid().unwrap().cert_chain()[0].as_bytes(),
        state.svids["a"].svid.chain()[0].as_ref()
    );
}

#[tokio::test]
async fn the_header_has_to_be_there_exactly_once_and_exactly_so() {
    let served = Served::one();
    let mut client = served.client().await;

    for values in [&[][..], &["True"], &["false"], &[""], &["true", "true"]] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            request.metadata_mut().append(SECURITY_HEADER, value.parse().unwrap());
        }
        let status = client.fetch_x509svid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{values:?}");
    }
    assert_eq!(
        client.fetch_x509_bundles(X509BundlesRequest {}).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client.fetch_jwtsvid(JwtsvidRequest::default()).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn the_other_profiles_are_unimplemented() {
    let served = Served::one();
    let mut client = served.client().await;
    let codes = [
        client.fetch_jwtsvid(request(JwtsvidRequest::default())).await.unwrap_err().code(),
        client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap_err().code(),
        client.validate_jwtsvid(request(ValidateJwtsvidRequest::default())).await.unwrap_err().code(),
        client.fetch_witsvid(request(WitsvidRequest::default())).await.unwrap_err().code(),
        client.fetch_wit_bundles(request(WitBundlesRequest {})).await.unwrap_err().code(),
    ];

    assert_eq!(codes, [Code::Unimplemented; 5]);
}

#[tokio::test]
async fn a_process_without_an_entry_is_told_so_in_the_words_clients_know() {
    let served = Served::start(vec![entry("a", "/a", &["uid:4294967294"])]);

    let status = served.svids().await.unwrap().message().await.unwrap_err();

    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    let bundles = served.bundles().await.message().await.unwrap_err();
    assert_eq!(bundles.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn losing_the_last_identity_ends_the_stream_with_permission_denied() {
    let served = Served::one();
    let (mut svids, mut bundles) = (served.svids().await.unwrap(), served.bundles().await);
    next(&mut svids).await.unwrap();
    next(&mut bundles).await.unwrap();

    served.set_entries(Vec::new());

    let status = next(&mut svids).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    assert_eq!(next(&mut bundles).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_agent_that_starts_or_stops_is_unavailable() {
    let served = Served::one();
    let mut open = served.svids().await.unwrap();
    next(&mut open).await.unwrap();

    served.change(|state| state.phase = Phase::Stopping);
    let mid_stream = next(&mut open).await.unwrap_err();
    served.change(|state| state.phase = Phase::Starting);
    let at_open = served.svids().await.expect_err("a starting agent answered");

    assert_eq!((mid_stream.code(), at_open.code()), (Code::Unavailable, Code::Unavailable));
}

#[tokio::test]
async fn a_new_entry_reaches_an_open_stream_in_under_a_second() {
    let served = Served::one();
    let mut stream = served.svids().await.unwrap();
    next(&mut stream).await.unwrap();

    let begin = Instant::now();
    served.set_entries(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    let response = next(&mut stream).await.unwrap();

    assert!(begin.elapsed() < Duration::from_secs(1));
    assert_eq!(ids(&response), ["spiffe://prod.test/a", "spiffe://prod.test/b"]);
}

#[tokio::test]
async fn every_message_is_the_whole_and_nothing_is_said_twice() {
    let served = Served::start(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    let (mut svids, mut bundles) = (served.svids().await.unwrap(), served.bundles().await);
    assert_eq!(ids(&next(&mut svids).await.unwrap()).len(), 2);
    next(&mut bundles).await.unwrap();

    served.change(|_| {});
    served.set_entries(vec![
        entry("a", "/a", &[&own_uid()]),
        entry("b", "/b", &[&own_uid()]),
        entry("c", "/c", &["uid:4294967294"]),
    ]);
    served.renew("c", "/c");
    served.change(|state| state.bundles.insert(served.authority.bundle(2)));
    assert!(is_silent(&mut svids).await, "another process's entry is no news");
    assert!(is_silent(&mut bundles).await);

    served.renew("b", "/b");
    let whole = next(&mut svids).await.unwrap();
    assert_eq!(ids(&whole), ["spiffe://prod.test/a", "spiffe://prod.test/b"]);
    assert!(is_silent(&mut bundles).await, "a renewed SVID is no news to who asks for bundles");
}

#[tokio::test]
async fn a_bundle_that_is_left_out_is_gone() {
    let mut federated = entry("a", "/a", &[&own_uid()]);
    federated.federates_with = vec![identity::TrustDomain::parse("other.test").unwrap()];
    let served = Served::start(vec![federated]);
    let foreign = Authority::new("other");
    let other = identity::TrustDomain::parse("other.test").unwrap();
    served.change(|state| {
        state.bundles.insert(identity::TrustBundle::new(other, vec![foreign.der.clone()]).unwrap())
    });
    let (mut svids, mut bundles) = (served.svids().await.unwrap(), served.bundles().await);

    let with = next(&mut svids).await.unwrap().federated_bundles;
    let both = next(&mut bundles).await.unwrap().bundles;
    served.change(|state| drop(state.bundles.remove("other.test")));
    let without = next(&mut svids).await.unwrap().federated_bundles;
    let own = next(&mut bundles).await.unwrap().bundles;

    assert_eq!(with.get("spiffe://other.test"), Some(&foreign.der.to_vec()));
    assert_eq!(both.len(), 2);
    assert!(without.is_empty());
    assert_eq!(own.keys().collect::<Vec<_>>(), ["spiffe://prod.test"]);
}

#[tokio::test]
async fn an_expired_svid_is_not_served_and_the_stream_says_try_again() {
    let served = Served::one();
    let short = served.authority.svid_aged("spiffe://prod.test/a", HOUR, HOUR + Duration::from_secs(2));
    served.change(|state| state.svids.get_mut("a").unwrap().svid = Arc::new(short));
    let mut stream = served.svids().await.unwrap();
    next(&mut stream).await.unwrap();

    let status = next(&mut stream).await.unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn of_two_svids_the_one_that_expires_is_taken_away() {
    let served = Served::start(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    let short = served.authority.svid_aged("spiffe://prod.test/a", HOUR, HOUR + Duration::from_secs(2));
    served.change(|state| state.svids.get_mut("a").unwrap().svid = Arc::new(short));
    let mut stream = served.svids().await.unwrap();
    assert_eq!(ids(&next(&mut stream).await.unwrap()).len(), 2);

    let rest = next(&mut stream).await.unwrap();

    assert_eq!(ids(&rest), ["spiffe://prod.test/b"]);
}

#[tokio::test]
async fn a_process_waits_for_an_svid_that_is_being_issued() {
    let served = Served::one();
    served.change(|state| state.svids.clear());
    let mut stream = served.svids().await.unwrap();
    assert!(is_silent(&mut stream).await);

    served.renew("a", "/a");

    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["spiffe://prod.test/a"]);
}

#[tokio::test]
async fn the_first_message_has_every_identity_if_it_takes_a_moment() {
    let served = Served::start(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    served.change(|state| drop(state.svids.remove("a")));
    let mut stream = served.svids().await.unwrap();
    assert!(is_silent(&mut stream).await);

    served.renew("a", "/a");

    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["spiffe://prod.test/a", "spiffe://prod.test/b"]);
}

#[tokio::test]
async fn an_identity_that_does_not_come_does_not_hold_back_the_others() {
    let served = Served::start(vec![entry("a", "/a", &[&own_uid()]), entry("b", "/b", &[&own_uid()])]);
    served.change(|state| drop(state.svids.remove("a")));

    let response = next(&mut served.svids().await.unwrap()).await.unwrap();

    assert_eq!(ids(&response), ["spiffe://prod.test/b"]);
}

#[tokio::test]
async fn streams_are_counted_and_given_back() {
    let served = Served::one();
    let mut stream = served.svids().await.unwrap();
    next(&mut stream).await.unwrap();
    assert_eq!(served.figures.streams.get(), 1);

    drop(stream);

    tokio::time::timeout(Duration::from_secs(5), async {
        while served.figures.streams.get() != 0 {
            // The server learns of a closed stream only when it has something to say.
            served.renew("a", "/a");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("a closed stream is still counted");
}

#[tokio::test]
async fn one_user_cannot_open_more_connections_than_it_may() {
    let served = Served::one();
    let mut held: Vec<StdStream> = (0..8).map(|_| StdStream::connect(served.socket()).unwrap()).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;

    let refused = served.client().await.fetch_x509svid(request(X509svidRequest {})).await;
    assert!(refused.is_err(), "the ninth connection was served");
    held.clear();

    tokio::time::timeout(Duration::from_secs(5), async {
        while served.client().await.fetch_x509svid(request(X509svidRequest {})).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("closed connections are still counted");
}

#[tokio::test]
async fn an_oversized_request_is_refused() {
    let served = Served::one();
    let mut request =
        request(ValidateJwtsvidRequest { audience: String::new(), svid: "x".repeat(MAX_REQUEST_BYTES) });
    request.set_timeout(Duration::from_secs(5));

    let status = served.client().await.validate_jwtsvid(request).await.unwrap_err();

    assert_eq!(status.code(), Code::OutOfRange);
}

#[tokio::test]
async fn whoami_on_this_socket_is_about_the_caller_only() {
    let served = Served::start(vec![
        entry("a", "/a", &[&own_uid()]),
        entry("near", "/near", &[&own_uid(), "path:/nowhere"]),
        entry("foreign", "/foreign", &["uid:4294967294"]),
    ]);

    let own = crate::client::whoami(&served.socket(), crate::client::Target::Caller).await.unwrap();
    let other = crate::client::whoami(&served.socket(), crate::client::Target::Process(1)).await;

    assert_eq!(own.pid, std::process::id());
    assert!(own.selectors.contains(&format!("unix:{}", own_uid())));
    assert_eq!(own.matches.iter().map(|entry| entry.entry_id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(own.matches[0].svid.expires_at().unwrap() > SystemTime::now());
    let near: Vec<_> =
        own.near_misses.iter().map(|miss| (miss.entry_id.as_str(), miss.missing.as_slice())).collect();
    assert_eq!(near, [("near", &["unix:path:/nowhere".to_owned()][..])]);
    assert!(matches!(other, Err(crate::client::WhoAmIError::Denied { .. })));
}

#[tokio::test]
async fn a_connection_ends_with_the_process_that_opened_it() {
    let served = Served::one();
    let program = crate::fixtures::caller::program(served.home.path());
    // The test holds the same socket, so only the agent can end the connection.
    let mut caller = Caller::start(&program, &served.socket(), Role::ExitWhenTold);
    let caller =
        tokio::task::spawn_blocking(move || caller.child.wait().map(|_| caller)).await.unwrap().unwrap();
    let held = std::os::unix::net::UnixStream::from(caller.socket.try_clone().unwrap());
    held.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

    let end =
        tokio::task::spawn_blocking(move || std::io::copy(&mut &held, &mut std::io::sink())).await.unwrap();

    // The agent cuts the connection: an orderly end or a reset, but an end.
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}
