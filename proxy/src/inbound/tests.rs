use std::time::SystemTime;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{Authority, DOMAIN, SHOP, WEB};
use crate::{
    activity::Waiting,
    config::{self, Limits, Protocol},
    handshakes::Handshakes,
    http1,
    listener::{self, Places},
    live::{Entry, Key, Proof, Registry, Role},
    metrics::Metrics,
    state::{Identity, State},
    stream::Stream,
};

fn shared() -> (Arc<Shared>, tempfile::TempDir, audit::Writer) {
    let directory = tempfile::tempdir().unwrap();
    let product = audit::Product { daemon: "proxy".into(), id: None, version: "0".into() };
    let (log, writer) = audit::start(audit::Config::file(directory.path().join("a"), product)).unwrap();
    let shared = Arc::new(Shared {
        state: Arc::new(State::default()),
        registry: Registry::default(),
        services: Arc::default(),
        log,
        metrics: Arc::new(Metrics::new()),
        telemetry: Arc::new(crate::telemetry::Telemetry::start(&Default::default()).unwrap().0),
        limits: Limits::default(),
        handshakes: Arc::new(Handshakes::new(&Limits::default())),
        way: crate::transparent::Way::default(),
        drain: CancellationToken::new(),
    });
    (shared, directory, writer)
}

fn inbound(shared: &Arc<Shared>) -> Arc<Inbound> {
    let config = config::Inbound {
        name: "a".into(),
        listen: ([127, 0, 0, 1], 1).into(),
        protocol: Protocol::Http,
        application: ([127, 0, 0, 1], 1).into(),
        danger_permissive_until: None,
    };
    let door = Door::new(&config, 1, Arc::clone(shared));
    Arc::new(Inbound::new(Arc::new(door), Arc::clone(shared)))
}

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let (shared, ..) = shared();
    let inbound = inbound(&shared);
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let (socket, from) = listener.accept().await.unwrap();
    let place = Places::new(&Limits::default()).take().unwrap();

    let task = Arc::clone(&inbound).serve(socket, from, place);

    let (task, kinds) = (size_of_val(&task), sizes(&inbound));
    assert!(task <= LARGEST_TASK && kinds.0 <= LARGEST_TCP && kinds.1 <= LARGEST_HTTP, "{task} {kinds:?}");
}

fn sizes(inbound: &Inbound) -> (usize, usize) {
    (size_of_output(|known| inbound.door.tcp(known)), size_of_output(|known| inbound.door.http(known)))
}

fn size_of_output<F: Future>(_: impl FnOnce(Known) -> F) -> usize {
    size_of::<F>()
}

/// What every connection takes.
const LARGEST_TASK: usize = 512;
/// What a relayed connection takes beside it; the TLS state is boxed.
const LARGEST_TCP: usize = 2 * 1024;
/// What an HTTP connection takes beside it, the library's state included.
const LARGEST_HTTP: usize = 3 * 1024;

fn identity_of(own: &Authority, roots: &[&Authority]) -> Arc<Identity> {
    let roots = roots.iter().map(|root| root.der.clone()).collect();
    let trust_domain = identity::TrustDomain::parse(DOMAIN).unwrap();
    let bundles = [identity::TrustBundle::new(trust_domain, roots).unwrap()].into_iter().collect();
    let credentials = identity::Credentials::new(Arc::new(own.svid(WEB)), bundles).unwrap();
    Arc::new(Identity::new(Arc::new(credentials)).unwrap())
}

#[tokio::test]
async fn a_request_is_refused_if_our_identity_went_before_it_was_forwarded() {
    let (shared, ..) = shared();
    let authority = Authority::new("one");
    let own = identity_of(&authority, &[&authority]);
    let chain = authority.svid(SHOP).chain().to_vec();
    let anchors = own.credentials.anchors();
    let peer = identity::verify(&chain[0], &[], anchors, identity::Role::Client, SystemTime::now()).unwrap();
    let key = Key::new(Role::InboundHttp, Some(peer.id().clone()), None, 1);
    let trace = Trace::begin(shared.log.clone(), Arc::clone(&shared.metrics), None);
    let gate = gate::InboundGate::new(Arc::clone(&shared), trace, Some(peer), key);
    let request = http::Request::get("/x").header("host", "web").body(()).unwrap();
    let line = http1::RequestLine::read(&mut request.into_parts().0).unwrap();
    let mut headers = http::HeaderMap::new();
    headers.insert("x-forwarded-client-cert", http::HeaderValue::from_static("of another proxy"));

    shared.state.store(Effective { identity: Some(own), ..Effective::default() });
    let with = http1::Gate::mark(&gate, &line);
    shared.state.store(Effective::default());
    let without = http1::Gate::mark(&gate, &line);

    with.unwrap().apply(&mut headers);
    let told: Vec<_> = headers.get_all("x-forwarded-client-cert").iter().collect();
    assert!(told.len() == 1 && told[0].to_str().unwrap().ends_with(SHOP), "{told:?}");
    assert!(without.is_err());
    let refused = |count: &audit::Count| count.reason == Some("trust_withdrawn") && count.total == 1;
    assert!(shared.log.counts().iter().any(refused), "{:?}", shared.log.counts());
}

#[tokio::test]
async fn trust_that_is_withdrawn_between_handshake_and_registration_is_noticed() {
    let (shared, ..) = shared();
    let inbound = inbound(&shared);
    let (one, two) = (Authority::new("one"), Authority::new("two"));
    let used = identity_of(&one, &[&one]);
    let listener = listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();

    for (now, trusted) in [
        (Some(Arc::clone(&used)), true),
        (Some(identity_of(&one, &[&one, &two])), true),
        (Some(identity_of(&two, &[&two])), false),
        (None, false),
    ] {
        let chain = one.svid(SHOP).chain().to_vec();
        let anchors = used.credentials.anchors();
        let peer =
            identity::verify(&chain[0], &[], anchors, identity::Role::Client, SystemTime::now()).unwrap();
        let key = Key::new(Role::InboundTcp, Some(peer.id().clone()), None, 1);
        let proof = Some(Proof { peer: peer.clone(), chain });
        let entry = Entry { key, proof, opened: SystemTime::now(), waiting: Waiting::Relay };
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let trace = Trace::begin(shared.log.clone(), Arc::clone(&shared.metrics), None);
        let registered = shared.registry.register(entry);
        let known = Known { peer: Some(peer), stream: Stream::Plain(socket), registered, trace };

        shared.state.store(Effective { identity: now, ..Effective::default() });

        assert_eq!(inbound.entrance().still_trusted(known, &used).is_some(), trusted);
    }
}
