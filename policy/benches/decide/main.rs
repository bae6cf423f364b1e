//! What a decision costs, by the number of policies and the share of rules that are candidates, and what loading costs.
//!
//! `cargo bench -p policy --bench decide` prints the figures. A sample is the mean of a batch of decisions, less what reading the clock
//! costs; the percentiles are over samples, "p99 alone" over those during which the thread kept its processor. A name as an argument picks the lines with it. `-- instructions` counts
//! instructions under valgrind in place of time, which what else the machine does leaves alone.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark whose input is refused has nothing to measure; its figures are for the terminal"
)]

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Criterion;
use policy::CanonicalPath;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

mod instructions;
mod scenes;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["instructions"] => instructions::print(),
        ["counted", name, times] => instructions::repeat(name, times),
        others => times(others.first().map(|wanted| (*wanted).to_owned())),
    }
}

fn times(wanted: Option<String>) {
    let bench = Bench { clock: Bench::clock(), wanted };
    println!("load average {}", load_average());
    println!("{:<44} {:>10} {:>10} {:>10} {:>10}", "ns per decision", "p50", "p99", "p99 alone", "mean");
    for count in [10, 1_000, 10_000] {
        scenes::each(count, &mut |name, decide| bench.measure(name, decide));
    }
    println!("\nload average {}", load_average());
    load(&bench);
    if bench.wants("path") {
        let mut criterion = Criterion::default();
        canonical(&mut criterion);
        criterion.final_summary();
    }
}

/// How many processes wanted a processor in the last minute.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn percentiles(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_unstable_by(f64::total_cmp);
    [50, 99].map(|share| samples.get(samples.len() * share / 100).copied().unwrap_or_default())
}

/// What this thread had of a processor: for how long, and how often it was given one.
struct Processor {
    time: Duration,
    turns: u64,
}

impl Processor {
    fn read() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let mut numbers = text.split_whitespace().map(|number| number.parse().unwrap_or_default());
        let (time, _waiting, turns) = (numbers.next(), numbers.next(), numbers.next());
        Self { time: Duration::from_nanos(time.unwrap_or_default()), turns: turns.unwrap_or_default() }
    }
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

    fn measure(&self, name: &str, decide: &dyn Fn()) {
        if !self.wants(name) {
            return;
        }
        let (mut samples, mut alone) = (Vec::with_capacity(SAMPLES), Vec::with_capacity(SAMPLES));
        let begin = Instant::now();
        while samples.len() < SAMPLES && (samples.len() < FEWEST || begin.elapsed() < LONGEST) {
            let before = Processor::read();
            let start = Instant::now();
            for _ in 0..BATCH {
                decide();
            }
            let batch = start.elapsed().saturating_sub(self.clock);
            let sample = batch.as_secs_f64() * 1e9 / f64::from(BATCH);
            samples.push(sample);
            if Processor::read().turns == before.turns {
                alone.push(sample);
            }
        }
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let ([p50, p99], [_, alone]) = (percentiles(samples), percentiles(alone));
        println!("{name:<44} {p50:>10.0} {p99:>10.0} {alone:>10.0} {mean:>10.0}");
    }
}

/// A hundred thousand rules, each for a caller and a path of its own.
fn load(bench: &Bench) {
    if !bench.wants("load") {
        return;
    }
    let files = scenes::files(1_000);
    let web = scenes::id(scenes::WEB);
    for turn in 1..=3 {
        let region = Region::new(ALLOCATOR);
        let (begin, before) = (Instant::now(), Processor::read().time);
        let set = scenes::compiled(&files);
        let read = begin.elapsed();
        let policies = set.for_workload(&web);
        let whole = begin.elapsed();
        let used = Processor::read().time.saturating_sub(before);
        let change = region.change();
        let kept = change.bytes_allocated.saturating_sub(change.bytes_deallocated) / 1_000_000;
        println!(
            "load of 100,000 rules, turn {turn}: {:.2} s, of these {:.2} s for the files; {:.2} s of processor time; {kept} MB kept",
            whole.as_secs_f64(),
            read.as_secs_f64(),
            used.as_secs_f64(),
        );
        black_box(policies);
    }
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
