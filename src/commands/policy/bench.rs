//! `policy bench`: how fast do these very policies decide?
//!
//! The requests are taken from the rules themselves: for each, a caller it names, a port and a path, and the same call by
//! nobody it names. What is measured is the sidecar's own evaluator, in this build of it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime};

use identity::SpiffeId;
use policy::pattern::IdPattern;
use policy::{
    CanonicalHost, CanonicalPath, Connection, Options, PeerIdentity, PolicySet, Request, WorkloadPolicies,
    WrittenRequest, WrittenRule,
};
use serde::Serialize;

use super::files::{self, Compiled};
use crate::cli::policy::PolicyBench;
use crate::exit::{Exit, Failure, OrExit as _};
use crate::output::{self, Row};

pub(super) fn run(args: &PolicyBench) -> Result<Exit, Failure> {
    let began = Instant::now();
    let Compiled { set, .. } =
        files::compile(&args.paths, &Options::default()).or_exit(Exit::Unacceptable)?;
    let load = began.elapsed();
    let samples = samples(&set);
    if samples.is_empty() {
        let told = "the policies have no rule from which a request could be made";
        return Err(Failure::because(Exit::Unacceptable, told));
    }
    let times = measure(&set, &samples, args.time.0);
    output::one(&mut output::stdout(), args.output.format, &Measured::new(&set, samples.len(), load, times))?;
    Ok(Exit::Done)
}

/// A call made up from a rule.
struct Sample {
    to: SpiffeId,
    from: Option<SpiffeId>,
    port: u16,
    http: Option<(String, CanonicalHost, CanonicalPath)>,
}

fn samples(set: &PolicySet) -> Vec<Sample> {
    set.written_rules().take(MAX_SAMPLED).flat_map(|rule| of_rule(&rule)).collect()
}

fn of_rule(rule: &WrittenRule) -> Vec<Sample> {
    let Some(to) = rule.to.first().and_then(instance) else { return Vec::new() };
    let port = rule.ports.first().map_or(UNSAID_PORT, |range| *range.start());
    let from = rule.from.first().and_then(instance);
    let stranger = SpiffeId::parse(&format!("spiffe://{}/bench/stranger", to.trust_domain())).ok();
    let http = match &rule.http {
        Some(http) => match request(http) {
            Some(request) => Some(request),
            None => return Vec::new(),
        },
        None => None,
    };
    let sample = |from| Sample { to: to.clone(), from, port, http: http.clone() };
    vec![sample(from), sample(stranger)]
}

fn request(http: &WrittenRequest) -> Option<(String, CanonicalHost, CanonicalPath)> {
    let method = http.methods.first().map_or("GET", String::as_str);
    let host = http.hosts.first().map_or("localhost", String::as_str).replace('*', "x");
    let path = http.paths.first().map_or("/", String::as_str).replace("**", "x/y").replace('*', "x");
    Some((method.to_owned(), CanonicalHost::parse(&host).ok()?, CanonicalPath::parse(&path).ok()?))
}

// One of the IDs that a pattern means.
fn instance(pattern: &IdPattern) -> Option<SpiffeId> {
    SpiffeId::parse(&pattern.as_str().replace("**", "x/y").replace('*', "x")).ok()
}

fn measure(set: &PolicySet, samples: &[Sample], lasting: Duration) -> Vec<u64> {
    let mut workloads: BTreeMap<SpiffeId, WorkloadPolicies> = BTreeMap::new();
    for sample in samples {
        workloads.entry(sample.to.clone()).or_insert_with(|| set.for_workload(&sample.to));
    }
    let now = SystemTime::now();
    let end = Instant::now() + lasting;
    let mut times = Vec::new();
    while Instant::now() < end && times.len() < MAX_TIMES {
        for sample in samples {
            let Some(policies) = workloads.get(&sample.to) else { continue };
            times.push(one(policies, sample, now));
        }
    }
    times.truncate(MAX_TIMES);
    times.sort_unstable();
    times
}

// Reading the clock costs tens of nanoseconds, so one reading is for several decisions.
fn one(policies: &WorkloadPolicies, sample: &Sample, now: SystemTime) -> u64 {
    let peer = sample.from.as_ref().map_or(PeerIdentity::Unauthenticated, PeerIdentity::Authenticated);
    let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let connection = Connection::new(peer, source, sample.port, now);
    let request = sample.http.as_ref().map(|(method, host, path)| Request::new(method, Some(host), path));
    let began = Instant::now();
    for _ in 0..AT_ONCE {
        match &request {
            Some(request) => drop(black_box(policies.decide_http(black_box(&connection), request))),
            None => drop(black_box(policies.decide_tcp(black_box(&connection)))),
        }
    }
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX) / u64::from(AT_ONCE)
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    policies: usize,
    rules: usize,
    requests: usize,
    load_ms: u64,
    decisions: u64,
    decisions_per_second: u64,
    p50_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    build: &'static str,
}

impl Measured {
    fn new(set: &PolicySet, requests: usize, load: Duration, times: Vec<u64>) -> Self {
        let all: u64 = times.iter().sum();
        let count = u64::try_from(times.len()).unwrap_or(u64::MAX);
        Self {
            policies: set.policies().count(),
            rules: set.policies().map(policy::Policy::rule_count).sum(),
            requests,
            load_ms: u64::try_from(load.as_millis()).unwrap_or(u64::MAX),
            decisions: count.saturating_mul(u64::from(AT_ONCE)),
            decisions_per_second: count.saturating_mul(1_000_000_000) / all.max(1),
            p50_ns: at(&times, 500),
            p99_ns: at(&times, 990),
            p999_ns: at(&times, 999),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

// The value below which so many of a thousand lie.
fn at(sorted: &[u64], of_thousand: usize) -> u64 {
    let place = sorted.len().saturating_mul(of_thousand) / 1000;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Row for Measured {
    const SCHEMA: &'static str = "vouchsafe/policy-bench/v1";
    const HEADINGS: &'static [&'static str] =
        &["policies", "rules", "requests", "load", "decisions", "per second", "p50", "p99", "p99.9", "build"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.policies.to_string(),
            self.rules.to_string(),
            self.requests.to_string(),
            format!("{} ms", self.load_ms),
            self.decisions.to_string(),
            self.decisions_per_second.to_string(),
            format!("{} ns", self.p50_ns),
            format!("{} ns", self.p99_ns),
            format!("{} ns", self.p999_ns),
            self.build.to_owned(),
        ]
    }
}

/// Rules from which requests are made.
const MAX_SAMPLED: usize = 10_000;
/// Measurements kept.
const MAX_TIMES: usize = 4_000_000;
/// Decisions for one reading of the clock.
const AT_ONCE: u32 = 8;
/// The port of a rule for any.
const UNSAID_PORT: u16 = 8443;

#[cfg(test)]
mod tests {
    use policy::strict::Source;

    use super::*;

    #[test]
    fn every_rule_gives_a_request_by_one_it_names_and_one_by_a_stranger() {
        let text = "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/*\nallow:\n  - {name: a, from: [spiffe://a.test/**], http: {port: 80, paths: [/a/*/**], hosts: [\"*.b.test\"]}}\n  - {name: b, from: [unauthenticated], tcp: {ports: [70-71]}}\n";
        let set = policy::compile(&[Source::new("p.yaml", text)]).unwrap();

        let samples = samples(&set);

        assert_eq!(samples.len(), 4);
        assert_eq!(samples[0].from.as_ref().unwrap().as_str(), "spiffe://a.test/x/y");
        assert_eq!(samples[0].http.as_ref().unwrap().2.as_str(), "/a/x/x/y");
        assert!(samples[2].from.is_none() && samples[2].http.is_none());
        assert_eq!((samples[2].port, samples[2].to.as_str()), (70, "spiffe://a.test/x"));
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let times: Vec<u64> = (1..=1000).collect();

        assert_eq!((at(&times, 500), at(&times, 990), at(&times, 999)), (501, 991, 1000));
        assert_eq!((at(&[7], 999), at(&[], 500)), (7, 0));
    }
}
