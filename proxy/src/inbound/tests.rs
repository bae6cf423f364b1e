use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{config::Limits, listener::Places, live::Registry, metrics::Metrics, state::State};

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let directory = tempfile::tempdir().unwrap();
    let product = audit::Product { daemon: "proxy".into(), id: None, version: "0".into() };
    let (log, _writer) = audit::start(audit::Config::file(directory.path().join("a"), product)).unwrap();
    let shared = Arc::new(Shared {
        state: Arc::new(State::default()),
        registry: Registry::default(),
        log,
        metrics: Arc::new(Metrics::new()),
        limits: Limits::default(),
        handshakes: Semaphore::new(1),
        drain: CancellationToken::new(),
    });
    let config = config::Inbound {
        name: "a".into(),
        listen: ([127, 0, 0, 1], 1).into(),
        protocol: Protocol::Http,
        application: ([127, 0, 0, 1], 1).into(),
    };
    let inbound = Arc::new(Inbound::new(&config, 1, shared));
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
    (size_of_output(|known| inbound.tcp(known)), size_of_output(|known| inbound.http(known)))
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
