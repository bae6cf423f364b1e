//! What a record costs: on the thread that decides, and on its way to the disk.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant, SystemTime},
};

use audit::{
    Certificate, Config, ConnectionId, Denial, DenialId, Effect, Endpoint, Event, Http, Kind, Log, PolicyRef,
    Product, Reason, Stage, Tls, Writer, start,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn on_the_deciding_thread(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (log, _writer) = open(&directory);
    let sample = denial(SystemTime::now());

    criterion.bench_function("open, queue with room", |bench| {
        bench.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            let mut left = rounds;
            while left > 0 {
                let burst = left.min(BURST);
                let events: Vec<_> = (0..burst).map(|_| sample.clone()).collect();
                let begun = Instant::now();
                for event in events {
                    log.open(black_box(event));
                }
                spent += begun.elapsed();
                left -= burst;
                std::thread::sleep(BREATH);
            }
            spent
        });
    });
    criterion.bench_function("open, flood", |bench| {
        bench.iter_batched(
            || sample.clone(),
            |event| log.open(black_box(event)),
            criterion::BatchSize::SmallInput,
        );
    });
}

fn to_the_disk(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("sustained");
    group.sample_size(10).throughput(Throughput::Elements(SUSTAINED));
    group.bench_function("every event a line of its own", |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| write_all(&directory, BURST)).sum());
    });
    group.bench_function("as fast as one thread hands over, folding", |bench| {
        bench.iter_custom(|rounds| (0..rounds).map(|_| write_all(&directory, u64::MAX)).sum());
    });
    group.finish();
}

/// Hands over and writes `SUSTAINED` events, never more than `ahead` unwritten; returns how long that took.
fn write_all(directory: &tempfile::TempDir, ahead: u64) -> Duration {
    let (log, writer) = open(directory);
    let sample = denial(SystemTime::now());
    let begun = Instant::now();
    for number in 0..SUSTAINED {
        log.open(sample.clone());
        while ahead < u64::MAX && number % ahead == ahead - 1 && log.queued() > 0 {
            std::thread::yield_now();
        }
    }
    writer.close().expect("everything is written");
    begun.elapsed()
}

fn open(directory: &tempfile::TempDir) -> (Log, Writer) {
    let product = Product { daemon: "proxy".into(), id: None, version: "0.0.0".into() };
    let mut config = Config::file(directory.path().join("audit.jsonl"), product);
    config.keep_files = 1;
    start(config).expect("the log starts")
}

fn denial(now: SystemTime) -> Event {
    let denial = Denial { id: DenialId::new(now), reason: Reason::NoAllowMatched, effect: Effect::Enforced };
    let mut event = Event::new(now, Kind::Denied(denial), Stage::Request, ConnectionId::new(now));
    let end = |port, id: &str| Endpoint {
        ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port: Some(port),
        id: Some(id.into()),
        name: None,
    };
    event.source = end(40_000, "spiffe://prod.example/ns/shop/sa/checkout");
    event.destination = end(8_443, "spiffe://prod.example/ns/payments/sa/api");
    let certificate = Certificate {
        issuer: "spiffe://prod.example".into(),
        serial: "0123456789abcdef0123456789abcdef".into(),
        fingerprint: "0123456789abcdef".repeat(4).into(),
    };
    event.tls = Some(Tls { version: "1.3", sni: None, certificate: Some(certificate) });
    event.http = Some(Http {
        method: "POST".into(),
        host: "payments".into(),
        path: "/v1/accounts/42".into(),
        user_agent: Some("curl/8.5.0".into()),
        path_raw: None,
    });
    event.policy = Some(PolicyRef {
        policy: "payments-api".into(),
        rule: "checkout-reads".into(),
        file: "payments.yaml".into(),
        line: 7,
    });
    event.generation = "0123456789abcdef".repeat(4).into();
    event
}

/// Events handed over at once where the queue must not fill.
const BURST: u64 = 4_000;
/// Time for the writer to empty the queue.
const BREATH: Duration = Duration::from_millis(60);
/// Events of a sustained run.
const SUSTAINED: u64 = 200_000;

criterion_group!(benches, on_the_deciding_thread, to_the_disk);
criterion_main!(benches);
