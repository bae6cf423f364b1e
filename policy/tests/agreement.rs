//! The compiled form agrees with a plain evaluator on random policies and accesses.
//!
//! The reference (`agreement/reference.rs`) is written from the manual, rule by rule and string by string; it shares no
//! code with the crate and does not care for speed; beside it stands a translation to Cedar (`agreement/cedar.rs`). Each case
//! compares 24 pairs of policies and access: `PROPTEST_CASES=42000` makes more than a million.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as promised"
)]

#[path = "agreement/asked.rs"]
mod asked;
#[path = "agreement/cedar.rs"]
mod cedar;
#[path = "agreement/model.rs"]
mod model;
#[path = "agreement/reference.rs"]
mod reference;
#[path = "agreement/writing.rs"]
mod writing;

use std::collections::BTreeSet;
use std::time::Duration;

use policy::{AtConnect, Connection, DenyReason, Verdict};
use proptest::prelude::*;

use asked::{Asked, agree, load, uid};
use cedar::Cedar;
use model::{access, policies};

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, max_shrink_iters: 4_000, ..ProptestConfig::default() }
}

/// Accesses that are decided by each set of policies.
const ACCESSES: usize = 24;

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn the_compiled_form_decides_as_the_reference_and_as_cedar(
        policies in policies(),
        accesses in prop::collection::vec(access(), ACCESSES),
    ) {
        let (set, cedar) = (load(&policies), Cedar::new(&policies));
        for access in &accesses {
            let asked = Asked::new(access);
            let workload = set.for_workload(&asked.to);
            let connection = asked.connection();
            let answer = reference::decide(&policies, access);
            let decision = match asked.request() {
                None => workload.decide_tcp(&connection),
                Some(request) => workload.decide_http(&connection, &request),
            };
            agree(&decision, &answer)?;
            // Shadow is nothing that Cedar knows: there are only the policies that enforce.
            if decision.is_allowed() && !reference::is_enforced(&policies, access) {
                continue;
            }
            prop_assert_eq!(cedar.allows(access), decision.is_allowed(), "{:?}", access);
        }
    }

    #[test]
    fn deciding_in_two_stages_is_deciding_at_once(
        policies in policies(),
        accesses in prop::collection::vec(access(), ACCESSES),
    ) {
        let set = load(&policies);
        for access in &accesses {
            let asked = Asked::new(access);
            let Some(request) = asked.request() else { continue };
            let workload = set.for_workload(&asked.to);
            let connection = asked.connection();
            let whole = workload.decide_http(&connection, &request);
            match workload.at_connect(&connection) {
                AtConnect::Residual(residual) => prop_assert_eq!(residual.decide(&request, connection.now), whole),
                AtConnect::Deny(denial) => {
                    // An explicit denial that needs the request cannot be named before it.
                    let whole = whole.denial().cloned();
                    prop_assert!(whole.is_some(), "{:?} at connect, allowed at request", denial);
                    let exact = denial.rule.is_some() || whole.as_ref().is_some_and(|whole| whole.rule.is_none());
                    // A token that proves nothing is not known of before it comes.
                    let blamed = whole.as_ref().is_some_and(|whole| whole.reason == DenyReason::JwtInvalid);
                    prop_assert!(!exact || blamed || whole == Some(denial));
                }
            }
        }
    }

    #[test]
    fn a_residual_decides_later_requests_by_their_own_time(
        policies in policies(),
        access in access(),
        later in 0u64..5,
    ) {
        let set = load(&policies);
        let asked = Asked::new(&access);
        let Some(request) = asked.request() else { return Ok(()) };
        let workload = set.for_workload(&asked.to);
        let connection = asked.connection();
        if let AtConnect::Residual(residual) = workload.at_connect(&connection) {
            let now = connection.now + Duration::from_secs(86_400 * later);
            let fresh = workload.decide_http(&Connection { now, ..connection }, &request);
            prop_assert_eq!(residual.decide(&request, now), fresh);
        }
    }

    #[test]
    fn the_explained_walk_finds_the_rules_that_the_reference_finds(
        policies in policies(),
        access in access(),
    ) {
        let set = load(&policies);
        let asked = Asked::new(&access);
        let workload = set.for_workload(&asked.to);
        let explanation = workload.explain(&asked.connection(), &asked.traffic());
        let found: BTreeSet<String> = explanation
            .steps
            .iter()
            .filter(|step| step.verdict == Verdict::Matches)
            .map(|step| uid(&step.rule))
            .collect();
        prop_assert_eq!(found, reference::matching(&policies, &access));
        let decision = match asked.request() {
            Some(request) => workload.decide_http(&asked.connection(), &request),
            None => workload.decide_tcp(&asked.connection()),
        };
        let explained = explanation.decision.expect("a request is decided");
        prop_assert_eq!(explained.is_allowed(), decision.is_allowed());
        if let (Some(explained), Some(denial)) = (explained.denial(), decision.denial()) {
            prop_assert_eq!((explained.reason, &explained.rule), (denial.reason, &denial.rule));
            prop_assert!(explained.near_misses.len() <= policy::MAX_NEAR_MISSES);
        }
    }
}
