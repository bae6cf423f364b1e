//! Events and logs that several tests need.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    Certificate, Close, CloseCause, Config, ConnectionId, Count, Denial, DenialId, Effect, Endpoint, Event,
    Http, Jwt, Kind, NearMiss, PolicyRef, Product, Reason, Record, Stage, Tls,
    chain::{self, Link},
    read,
};

pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

pub(crate) fn denied(reason: Reason) -> Event {
    let denial = Denial { id: DenialId::new(at(0)), reason, effect: Effect::Enforced };
    connection(Kind::Denied(denial), Stage::Connect)
}

pub(crate) fn closed(bytes_in: u64, bytes_out: u64) -> Event {
    let duration = Duration::from_millis(1_500);
    connection(
        Kind::Closed(Close { bytes_in, bytes_out, duration, cause: CloseCause::Finished }),
        Stage::Connect,
    )
}

pub(crate) fn connection(kind: Kind, stage: Stage) -> Event {
    let mut event = Event::new(at(0), kind, stage, ConnectionId::new(at(0)));
    event.source = endpoint([10, 0, 0, 7], 40_000, Some("spiffe://prod.test/web"));
    event.destination = endpoint([10, 0, 0, 9], 8_443, Some("spiffe://prod.test/db"));
    event.generation = "g1".into();
    event
}

pub(crate) fn endpoint(ip: [u8; 4], port: u16, id: Option<&str>) -> Endpoint {
    Endpoint { ip: Some(IpAddr::V4(ip.into())), port: Some(port), id: id.map(Into::into), name: None }
}

pub(crate) fn http(method: &str, path: &str) -> Http {
    Http { method: method.to_owned(), host: "db".to_owned(), path: path.to_owned(), ..Http::default() }
}

pub(crate) fn rule(name: &str) -> PolicyRef {
    PolicyRef { policy: "db".into(), rule: name.into(), file: "db.yaml".into(), line: 7 }
}

/// An event with every field there is, each of them `text` as often as it takes to exceed its cap.
pub(crate) fn full(text: &str) -> Event {
    let long = text.repeat(4_096);
    let mut event = denied(Reason::ExplicitDeny);
    let end = |ip| Endpoint {
        ip: Some(IpAddr::V4(Ipv4Addr::from_bits(ip))),
        port: Some(u16::MAX),
        id: Some(long.as_str().into()),
        name: Some(long.as_str().into()),
    };
    (event.source, event.destination) = (end(u32::MAX), end(u32::MAX - 1));
    event.original_port = Some(u16::MAX);
    let certificate = Certificate {
        issuer: long.as_str().into(),
        serial: long.as_str().into(),
        fingerprint: "ab".repeat(32).into(),
    };
    event.tls = Some(Tls { version: "1.3", sni: Some(long.clone()), certificate: Some(certificate) });
    event.http = Some(Http {
        method: long.clone(),
        host: long.clone(),
        path: long.clone(),
        user_agent: Some(long.clone()),
        path_raw: Some(long.clone().into_bytes()),
    });
    event.jwt = Some(Jwt { issuer: Some(long.clone()), key_id: Some(long.clone()), flaw: Some("expired") });
    let name = || long.as_str().into();
    let rule = PolicyRef { policy: name(), rule: name(), file: name(), line: u32::MAX };
    event.near_misses =
        vec![
            NearMiss { rule: rule.clone(), failed: long.clone(), wanted: long.clone(), found: long.clone() };
            5
        ];
    event.policy = Some(rule);
    event.generation = long.as_str().into();
    event
}

pub(crate) fn product() -> Product {
    Product {
        daemon: "proxy".to_owned(),
        id: Some("spiffe://prod.test/db".to_owned()),
        version: "0.1.0".to_owned(),
    }
}

pub(crate) fn config(path: &Path) -> Config {
    Config::file(path, product())
}

/// Every record of the log, each line of which must be one.
pub(crate) fn records(path: &Path) -> Vec<Record> {
    let files = read::find(path).unwrap();
    read::files(files).map(|entry| entry.unwrap_or_else(|problem| panic!("{problem}")).record).collect()
}

/// How many events the records stand for, by decision and reason.
pub(crate) fn sums(records: &[Record]) -> BTreeMap<(String, Option<String>), u64> {
    let mut sums = BTreeMap::new();
    for record in records.iter().filter(|record| record.unmapped.vouchsafe.decision != "lifecycle") {
        let key = (record.unmapped.vouchsafe.decision.clone(), record.status_detail.clone());
        *sums.entry(key).or_default() += record.count();
    }
    sums
}

/// The same from the counters.
pub(crate) fn totals(counts: &[Count]) -> BTreeMap<(String, Option<String>), u64> {
    let key = |count: &Count| (count.decision.as_str().to_owned(), count.reason.map(str::to_owned));
    counts.iter().map(|count| (key(count), count.total)).collect()
}

/// Checks that the log's lines are one chain, numbered without a gap from 1.
pub(crate) fn assert_one_chain(path: &Path) {
    let mut prev = Link::START;
    let mut next = 1;
    for file in read::find(path).unwrap() {
        for line in fs::read(file).unwrap().split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").expect("every line is ended");
            let record = read::parse(line).unwrap();
            prev = chain::verify(line, prev).unwrap_or_else(|error| panic!("record {next}: {error}"));
            assert_eq!(record.metadata.sequence, next);
            next += 1;
        }
    }
}

/// How often a thread of this process has gone to sleep.
pub(crate) fn switches(task: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/self/task/{task}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}
