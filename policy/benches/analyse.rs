//! What questions about every access cost: a diff of two sets of a thousand rules, and reach over ten thousand.
//!
//! `cargo bench -p policy --bench analyse` prints the figures. "one workload": every rule stands before the same one, the
//! worst case, since each is compared with each. "many": a workload for every rule, the usual case.

#![allow(clippy::panic, reason = "a benchmark whose input is refused has nothing to measure")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use policy::analyse::{Terms, diff, prove, reach};
use policy::strict::Source;
use policy::{Checks, Options, PolicySet, compile_with};

/// Policies with two allow rules and one deny rule each; `changed` ones differ in a path.
fn set(policies: usize, protects: impl Fn(usize) -> String, changed: impl Fn(usize) -> bool) -> PolicySet {
    let file = |number: usize| {
        let tenant = if changed(number) { "renamed" } else { "tenant" };
        let text = format!(
            "vouchsafe: policy/v1\nname: p{number}\nprotects: {}\nallow:\n\
             - {{name: tcp, from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}], tcp: {{port: 9090}}}}\n\
             - {{name: http, from: [spiffe://prod.example/ns/all/**, spiffe://prod.example/ns/shop/sa/client-{number}],\n   \
             http: {{port: 8443, methods: [GET], paths: [/v1/{tenant}-{number}/**]}}}}\n\
             deny:\n\
             - {{name: admin, from: [spiffe://prod.example/ns/all/**], source_net: [10.0.0.0/8], http: {{port: 8443, paths: [/v1/tenant-{number}/admin/**]}}}}\n\
             guarantees:\n\
             - never: {{from: [spiffe://prod.example/ns/dev/**]}}\n",
            protects(number)
        );
        Source::new(format!("p{number}.yaml"), text)
    };
    let options = Options { checks: Checks::Proved, ..Options::default() };
    let files: Vec<Source> = (0..policies).map(file).collect();
    compile_with(&files, &options).unwrap_or_else(|problems| panic!("{problems}"))
}

fn one(_: usize) -> String {
    "spiffe://prod.example/ns/payments/sa/api".to_owned()
}

fn many(number: usize) -> String {
    format!("spiffe://prod.example/ns/payments/sa/api-{number}")
}

fn never(_: usize) -> bool {
    false
}

fn analyse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("analyse");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_millis(1));
    let (old, new) = (set(334, one, never), set(334, one, |number| number % 10 == 0));
    group.bench_function("diff of 1,000 rules, one workload", |bencher| {
        bencher.iter(|| diff(black_box(&old), &new, Terms::default()));
    });
    group.bench_function("prove 334 guarantees of 1,000 rules, one workload", |bencher| {
        bencher.iter(|| prove(black_box(&old), Terms::default()));
    });
    let (old, new) = (set(334, many, never), set(334, many, |number| number % 10 == 0));
    group.bench_function("diff of 1,000 rules, many workloads", |bencher| {
        bencher.iter(|| diff(black_box(&old), &new, Terms::default()));
    });
    for (name, set) in [
        ("reach of 10,000 rules, one workload", set(3_334, one, never)),
        ("reach of 10,000 rules, many workloads", set(3_334, many, never)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| reach(black_box(&set), None, None, Terms::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, analyse);
criterion_main!(benches);
