//! What a decision costs, by the number of policies and the share of rules that are candidates.
//!
//! `cargo bench -p policy --bench decide` prints the figures. "miss": no rule names the caller. "all": every rule names caller,
//! port and network, and for HTTP only the path, the last thing looked at, tells them apart. A sample is the mean of a batch of
//! decisions, less what reading the clock costs; the percentiles are over samples. A name as an argument picks the lines with it.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark whose input is refused has nothing to measure; its figures are for the terminal"
)]

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use criterion::Criterion;
use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    AtConnect, CanonicalPath, Connection, PeerIdentity, PolicySet, Request, WorkloadPolicies, compile,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WEB: &str = "spiffe://prod.example/ns/payments/sa/api";

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let bench = Bench { clock: Bench::clock(), wanted };
    println!("{:<44} {:>10} {:>10} {:>10} {:>10}", "ns per decision", "p50", "p99", "p99.9", "mean");
    for count in [10, 1_000, 10_000] {
        decisions(&bench, count);
    }
    println!();
    load(&bench);
    let mut criterion = Criterion::default().configure_from_args();
    canonical(&mut criterion);
    criterion.final_summary();
}

struct Bench {
    /// What reading the clock twice costs.
    clock: Duration,
    wanted: Option<String>,
}

impl Bench {
    fn clock() -> Duration {
        let mut costs: Vec<Duration> = (0..10_000).map(|_| Instant::now().elapsed()).collect();
        costs.sort_unstable();
        costs.get(costs.len() / 2).copied().unwrap_or_default()
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()))
    }

    fn measure<T>(&self, name: &str, decide: impl Fn() -> T) {
        if !self.wants(name) {
            return;
        }
        let mut samples: Vec<f64> = Vec::with_capacity(SAMPLES);
        let begin = Instant::now();
        while samples.len() < SAMPLES && (samples.len() < FEWEST || begin.elapsed() < LONGEST) {
            let start = Instant::now();
            for _ in 0..BATCH {
                black_box(decide());
            }
            let batch = start.elapsed().saturating_sub(self.clock);
            samples.push(batch.as_secs_f64() * 1e9 / f64::from(BATCH));
        }
        samples.drain(..samples.len() / 10);
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        samples.sort_unstable_by(f64::total_cmp);
        let [p50, p99, p999] =
            [500, 990, 999].map(|share| samples.get(samples.len() * share / 1000).copied());
        let [p50, p99, p999] = [p50, p99, p999].map(Option::unwrap_or_default);
        println!("{name:<44} {p50:>10.0} {p99:>10.0} {p999:>10.0} {mean:>10.0}");
    }
}

/// One allow rule for TCP, one for HTTP and one deny rule for HTTP a policy; with headers, one more of each kind for HTTP.
fn policy(number: usize, headers: Headers) -> Source {
    let from =
        format!("from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}]");
    let (allow, deny) = match headers {
        Headers::None => (String::new(), String::new()),
        Headers::Asked => (
            format!("- {{name: header, {from}, http: {{port: 8444, headers: {{x-tenant: [t{number}]}}}}}}\n"),
            format!(
                "- {{name: no-header, {from}, http: {{port: 8444, headers: {{x-tenant: [u{number}]}}}}}}\n"
            ),
        ),
    };
    let text = format!(
        "vouchsafe: policy/v1\nname: p{number}\nprotects: {WEB}\nallow:\n\
         - {{name: tcp, {from}, tcp: {{port: 9090}}}}\n\
         - {{name: http, {from}, http: {{port: 8443, methods: [GET], paths: [/v1/tenant-{number}/**]}}}}\n{allow}\
         deny:\n\
         - {{name: admin, from: [spiffe://prod.example/ns/all/**], source_net: [10.0.0.0/8], http: {{port: 8443, paths: [/v1/tenant-{number}/admin/**]}}}}\n{deny}"
    );
    Source::new(format!("p{number}.yaml"), text)
}

#[derive(Clone, Copy)]
enum Headers {
    None,
    Asked,
}

fn compiled(files: &[Source]) -> PolicySet {
    compile(files).unwrap_or_else(|problems| panic!("{problems}"))
}

fn workload(count: usize, headers: Headers) -> WorkloadPolicies {
    let files: Vec<Source> = (0..count).map(|number| policy(number, headers)).collect();
    compiled(&files).for_workload(&id(WEB))
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

fn decisions(bench: &Bench, count: usize) {
    let (stranger, all) = (id("spiffe://prod.example/ns/none/sa/x"), id("spiffe://prod.example/ns/all/sa/x"));
    let one = id(&format!("spiffe://prod.example/ns/shop/sa/client-{}", count / 2));
    let policies = workload(count, Headers::None);
    let (hit, miss) = (path(&format!("/v1/tenant-{}/x", count - 1)), path("/v2/none"));
    for (shape, peer) in [("miss", &stranger), ("one", &one), ("all", &all)] {
        let (raw, web) = (connection(peer, 9090), connection(peer, 8443));
        bench.measure(&format!("tcp/{shape}/{count}"), || policies.decide_tcp(black_box(&raw)));
        let other = connection(peer, 9091);
        bench.measure(&format!("tcp-wrong-port/{shape}/{count}"), || policies.decide_tcp(black_box(&other)));
        bench.measure(&format!("http-connect/{shape}/{count}"), || policies.at_connect(black_box(&web)));
        for (name, path) in [("allowed", &hit), ("refused", &miss)] {
            let request = Request::new("GET", None, path);
            bench.measure(&format!("http-whole-{name}/{shape}/{count}"), || {
                policies.decide_http(black_box(&web), black_box(&request))
            });
            if let AtConnect::Residual(residual) = policies.at_connect(&web) {
                bench.measure(&format!("http-request-{name}/{shape}/{count}"), || {
                    residual.decide(black_box(&request), SystemTime::UNIX_EPOCH)
                });
            }
        }
    }
    headers(bench, count, &all);
}

/// Every rule for HTTP asks for a value of a header, and each is a candidate: conditions are looked at one by one.
fn headers(bench: &Bench, count: usize, peer: &SpiffeId) {
    let policies = workload(count, Headers::Asked);
    let path = path("/");
    let fields = vec![("x-tenant".to_owned(), format!("t{}", count - 1))];
    let request = Request { headers: &fields, ..Request::new("GET", None, &path) };
    let web = connection(peer, 8444);
    bench.measure(&format!("http-whole-header/all/{count}"), || {
        policies.decide_http(black_box(&web), black_box(&request))
    });
}

/// A hundred thousand rules, each for a caller and a path of its own.
fn load(bench: &Bench) {
    if !bench.wants("load") {
        return;
    }
    let files: Vec<Source> = (0..1_000).map(rules).collect();
    let web = id(WEB);
    for turn in 1..=3 {
        let region = Region::new(ALLOCATOR);
        let begin = Instant::now();
        let set = compiled(&files);
        let read = begin.elapsed();
        let policies = set.for_workload(&web);
        let whole = begin.elapsed();
        let change = region.change();
        let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated) / 1_000_000;
        println!(
            "load of 100,000 rules, turn {turn}: {:.2} s, of these {:.2} s for the files; {kept} MB kept",
            whole.as_secs_f64(),
            read.as_secs_f64(),
        );
        black_box(policies);
    }
}

fn rules(file: usize) -> Source {
    let mut text = format!("vouchsafe: policy/v1\nname: p{file}\nprotects: {WEB}\nallow:\n");
    for rule in 0..100 {
        text.push_str(&format!(
            "- {{name: r{rule}, from: [spiffe://prod.example/ns/shop-{file}/sa/client-{rule}], \
             http: {{port: 8443, methods: [GET, POST], paths: [/v1/tenant-{file}/item-{rule}/**]}}}}\n"
        ));
    }
    Source::new(format!("p{file}.yaml"), text)
}

fn canonical(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("path");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for raw in ["/v1/rates/eur?x=1", "//v1/./a/../%61ccounts/caf%c3%a9"] {
        group.bench_function(raw, |bencher| bencher.iter(|| CanonicalPath::parse(black_box(raw))));
    }
    group.finish();
}

const SAMPLES: usize = 20_000;
const FEWEST: usize = 200;
const LONGEST: Duration = Duration::from_secs(1);
const BATCH: u32 = 16;
