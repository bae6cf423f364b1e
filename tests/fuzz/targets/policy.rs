//! Policy files, several between NUL bytes: every text is compiled or explained, and what compiled decides.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use identity::SpiffeId;
use libfuzzer_sys::fuzz_target;
use policy::{
    AtConnect, CanonicalHost, CanonicalPath, Connection, Decision, PeerIdentity, Request, Traffic, compile,
    strict::{Source, parse},
};

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/policy/two_files"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Compiles files; says whether they became policies.
fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let files: Vec<Source> = text
        .split('\0')
        .enumerate()
        .map(|(number, text)| Source::new(format!("{number}.yaml"), text))
        .collect();
    for file in &files {
        if let Err(problems) = parse(file) {
            assert!(!problems.is_empty() && !problems.to_string().is_empty());
        }
    }
    match compile(&files) {
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(problems.to_string().chars().all(|shown| shown == '\n' || !shown.is_control()));
            false
        }
        Ok(set) => {
            assert_eq!(compile(&files).expect("as before").generation(), set.generation());
            for workload in ["spiffe://prod.example/api", "spiffe://prod.example/ns/a/web"] {
                decide(&set.for_workload(&SpiffeId::parse(workload).unwrap()));
            }
            true
        }
    }
}

/// Checks that a request is decided alike at once and in two steps, and that it can be explained.
fn decide(policies: &policy::WorkloadPolicies) {
    let id = SpiffeId::parse("spiffe://prod.example/web").unwrap();
    let host = CanonicalHost::parse("api:8080").unwrap();
    let path = CanonicalPath::parse("/v1/orders/7").unwrap();
    let request = Request::new("GET", Some(&host), &path);
    let now = UNIX_EPOCH + Duration::from_secs(1_782_000_000);
    for peer in [PeerIdentity::Authenticated(&id), PeerIdentity::Unauthenticated] {
        let connection = Connection::new(peer, [10, 0, 0, 7].into(), 8080, now);
        policies.explain(&connection, &Traffic::Tcp);
        let whole = policies.decide_http(&connection, &request);
        match policies.at_connect(&connection) {
            AtConnect::Deny(_) => assert!(!whole.is_allowed()),
            AtConnect::Residual(residual) => assert_eq!(residual.decide(&request, now), whole),
        }
        let explained = policies.explain(&connection, &Traffic::HttpRequest(request));
        assert_eq!(explained.decision.as_ref().map(Decision::is_allowed), Some(whole.is_allowed()));
    }
}
