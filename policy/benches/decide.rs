//! What a decision costs, by the number of policies and the share of rules that are candidates.
//!
//! `cargo bench -p policy` prints the figures. "miss": no rule names the caller. "all": every rule names caller, port and
//! network, and for HTTP only the path, the last thing looked at, tells them apart.

#![allow(clippy::panic, reason = "a benchmark whose input is refused has nothing to measure")]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use identity::SpiffeId;
use policy::strict::Source;
use policy::{AtConnect, CanonicalPath, Connection, PeerIdentity, Request, WorkloadPolicies, compile};

const WEB: &str = "spiffe://prod.example/ns/payments/sa/api";

/// One allow rule for TCP, one for HTTP and one deny rule for HTTP a policy.
fn policy(number: usize) -> Source {
    let text = format!(
        "vouchsafe: policy/v1\nname: p{number}\nprotects: {WEB}\nallow:\n\
         - {{name: tcp, from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}], tcp: {{port: 9090}}}}\n\
         - {{name: http, from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}],\n   \
         http: {{port: 8443, methods: [GET], paths: [/v1/tenant-{number}/**]}}}}\n\
         deny:\n\
         - {{name: admin, from: [spiffe://prod.example/ns/all/**], source_net: [10.0.0.0/8], http: {{port: 8443, paths: [/v1/tenant-{number}/admin/**]}}}}\n"
    );
    Source::new(format!("p{number}.yaml"), text)
}

fn workload(count: usize) -> WorkloadPolicies {
    let files: Vec<Source> = (0..count).map(policy).collect();
    let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
    set.for_workload(&SpiffeId::parse(WEB).unwrap_or_else(|error| panic!("{error}")))
}

fn connection(peer: &SpiffeId, port: u16) -> Connection<'_> {
    let source = std::net::IpAddr::from([10, 1, 2, 3]);
    Connection::new(PeerIdentity::Authenticated(peer), source, port, SystemTime::UNIX_EPOCH)
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn decide(criterion: &mut Criterion) {
    let (stranger, all) = (id("spiffe://prod.example/ns/none/sa/x"), id("spiffe://prod.example/ns/all/sa/x"));
    let mut group = criterion.benchmark_group("decide");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for count in [10, 1_000, 10_000] {
        let policies = workload(count);
        let (hit, miss) = (path(&format!("/v1/tenant-{}/x", count / 2)), path("/v2/none"));
        let one = id(&format!("spiffe://prod.example/ns/shop/sa/client-{}", count / 2));
        for (shape, peer) in [("miss", &stranger), ("one", &one), ("all", &all)] {
            group.bench_function(BenchmarkId::new(format!("tcp/{shape}"), count), |bencher| {
                bencher.iter(|| policies.decide_tcp(black_box(&connection(peer, 9090))));
            });
            group.bench_function(BenchmarkId::new(format!("tcp-wrong-port/{shape}"), count), |bencher| {
                bencher.iter(|| policies.decide_tcp(black_box(&connection(peer, 9091))));
            });
            group.bench_function(BenchmarkId::new(format!("http-connect/{shape}"), count), |bencher| {
                bencher.iter(|| policies.at_connect(black_box(&connection(peer, 8443))));
            });
            let AtConnect::Residual(residual) = policies.at_connect(&connection(peer, 8443)) else {
                continue;
            };
            for (name, path) in [("allowed", &hit), ("refused", &miss)] {
                let request = Request::new("GET", None, path);
                group.bench_function(
                    BenchmarkId::new(format!("http-request-{name}/{shape}"), count),
                    |bencher| {
                        bencher.iter(|| residual.decide(black_box(&request), SystemTime::UNIX_EPOCH));
                    },
                );
            }
        }
    }
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for count in [10, 1_000, 10_000] {
        let files: Vec<Source> = (0..count).map(policy).collect();
        group.bench_function(BenchmarkId::new("compile", count), |bencher| {
            bencher.iter(|| compile(black_box(&files)))
        });
        group.bench_function(BenchmarkId::new("compile-for-workload", count), |bencher| {
            let set = compile(&files).unwrap_or_else(|problems| panic!("{problems}"));
            let web = id(WEB);
            bencher.iter(|| set.for_workload(black_box(&web)));
        });
    }
    group.finish();
}

fn canonical(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for raw in ["/v1/rates/eur?x=1", "//v1/./a/../%61ccounts/caf%c3%a9"] {
        group.bench_function(raw, |bencher| bencher.iter(|| CanonicalPath::parse(black_box(raw))));
    }
    group.finish();
}

criterion_group!(benches, decide, load, canonical);
criterion_main!(benches);
