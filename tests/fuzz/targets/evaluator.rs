//! Deciding, against the plain reference of the tests: bytes choose policies and accesses, and both answer alike, at once, in two
//! steps and when they explain themselves.
#![no_main]

#[path = "../../../policy/tests/agreement/asked.rs"]
mod asked;
#[path = "evaluator/drawn.rs"]
mod drawn;
#[path = "../../../policy/tests/agreement/model.rs"]
#[expect(dead_code, reason = "the tests draw the models themselves")]
mod model;
#[path = "../../../policy/tests/agreement/reference.rs"]
#[expect(dead_code, reason = "the tests ask more of it")]
mod reference;
#[path = "../../../policy/tests/agreement/writing.rs"]
mod writing;

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use policy::{AtConnect, Verdict, WorkloadPolicies};

use asked::{Asked, agree, load, uid};
use drawn::Choices;
use model::{Access, PolicyModel};

fuzz_target!(|bytes: &[u8]| {
    // The accesses come first, each with bytes of its own, so that one may change while all else stays.
    let (asking, written) = bytes.split_at(bytes.len().min(ACCESSES * ACCESS_BYTES));
    let policies = Choices(written).policies();
    let set = load(&policies);
    for chunk in asking.chunks(ACCESS_BYTES) {
        let access = Choices(chunk).access();
        let asked = Asked::new(&access);
        check(&policies, &access, &asked, &set.for_workload(&asked.to));
    }
});

fn check(policies: &[PolicyModel], access: &Access, asked: &Asked<'_>, workload: &WorkloadPolicies) {
    let connection = asked.connection();
    let decision = match asked.request() {
        None => workload.decide_tcp(&connection),
        Some(request) => workload.decide_http(&connection, &request),
    };
    if let Err(differs) = agree(&decision, &reference::decide(policies, access)) {
        panic!("{differs} for {access:?} under {policies:?}");
    }
    if let Some(request) = asked.request() {
        match workload.at_connect(&connection) {
            AtConnect::Residual(residual) => assert_eq!(residual.decide(&request, connection.now), decision),
            AtConnect::Deny(_) => assert!(!decision.is_allowed()),
        }
    }
    let explained = workload.explain(&connection, &asked.traffic());
    let matching = explained.steps.iter().filter(|step| step.verdict == Verdict::Matches);
    let found: BTreeSet<String> = matching.map(|step| uid(&step.rule)).collect();
    assert_eq!(found, reference::matching(policies, access));
}

/// Accesses that are decided by each set of policies.
const ACCESSES: usize = 4;
/// As many choices as an access has, about.
const ACCESS_BYTES: usize = 64;
