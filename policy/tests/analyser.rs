//! What the analyser says of every access agrees with what the evaluator says of each: on random policies over the whole
//! language, no access that can be found by chance is one that it missed, and every witness of its own is one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that is not as promised"
)]

#[path = "analyser/istio.rs"]
mod istio;
#[path = "analyser/world.rs"]
mod world;

use std::time::{Duration, SystemTime};

use policy::analyse::{Cause, Change, Terms, Witness, diff, prove, reach};
use policy::strict::Source;
use policy::{
    Checks, Decision, DenyReason, Mesh, Options, PathNormalization, PolicySet, Workload, compile_with,
};
use proptest::prelude::*;

use world::{accesses, change, forbidding, policies, region, sources};

fn cases(usual: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    ProptestConfig { cases, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

fn load(files: &[Source]) -> PolicySet {
    let options = Options { checks: Checks::Proved, ..Options::default() };
    compile_with(files, &options).unwrap_or_else(|problems| panic!("{problems}"))
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)
}

fn decide(set: &PolicySet, access: &Witness) -> Decision {
    access.decide(set, now()).expect("the access can be asked about")
}

/// The policies that protect a workload, by which workloads are alike.
fn alike(sets: [&PolicySet; 2], one: &Witness, other: &Witness) -> bool {
    sets.iter().all(|set| {
        let names = |access: &Witness| -> Vec<String> {
            let workload = Workload { labels: access.labels.clone(), ..Workload::of(&access.to) };
            set.protecting(&workload).policies().map(|policy| policy.name().to_owned()).collect()
        };
        names(one) == names(other)
    })
}

fn check_changes(
    changes: &[Change],
    passing: &PolicySet,
    refusing: &PolicySet,
    accesses: &[Witness],
) -> Result<(), TestCaseError> {
    for change in changes {
        let (here, there) = (decide(passing, &change.witness), decide(refusing, &change.witness));
        prop_assert!(here.is_allowed() && !there.is_allowed(), "{}", change);
    }
    for access in accesses {
        if decide(passing, access).is_allowed() && !decide(refusing, access).is_allowed() {
            let found = changes.iter().any(|change| alike([passing, refusing], &change.witness, access));
            prop_assert!(found, "missed: {access}");
        }
    }
    Ok(())
}

fn load_istio(files: &[Source], path_normalization: PathNormalization) -> PolicySet {
    let mesh = Mesh { path_normalization, trust_domain: "a.test".to_owned(), ..Mesh::default() };
    let options = Options { mesh, ..Options::default() };
    compile_with(files, &options).unwrap_or_else(|problems| panic!("{problems}"))
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn a_diff_of_istios_files_misses_no_access_that_changes(
        (old, new) in istio::change(),
        accesses in accesses(),
        merge: bool,
    ) {
        let mode = if merge { PathNormalization::MergeSlashes } else { PathNormalization::Base };
        let (old, new) = (load_istio(&old, mode), load_istio(&new, mode));

        let found = diff(&old, &new, Terms::default());

        prop_assert_eq!(&found.unsettled, &vec![]);
        check_changes(&found.gained, &new, &old, &accesses.0)?;
        check_changes(&found.lost, &old, &new, &accesses.0)?;
    }

    #[test]
    fn a_diff_misses_no_access_that_changes(
        (old, new) in change(),
        accesses in accesses(),
    ) {
        let (old, new) = (load(&sources(&old, None)), load(&sources(&new, None)));

        let found = diff(&old, &new, Terms::default());

        prop_assert_eq!(&found.unsettled, &vec![]);
        check_changes(&found.gained, &new, &old, &accesses.0)?;
        check_changes(&found.lost, &old, &new, &accesses.0)?;
    }

    #[test]
    fn reach_misses_no_way(policies in policies(), accesses in accesses()) {
        let set = load(&sources(&policies, None));

        let found = reach(&set, None, None, Terms::default());

        prop_assert_eq!(&found.unsettled, &vec![]);
        for way in &found.ways {
            prop_assert!(decide(&set, &way.witness).is_allowed(), "{}", way.witness);
            prop_assert!(!way.from.is_empty());
        }
        for access in &accesses.0 {
            let Decision::Allow(allowed) = decide(&set, access) else { continue };
            let way = found.ways.iter().find(|way| way.rule == allowed.rule && alike([&set, &set], &way.witness, access));
            prop_assert!(way.is_some(), "missed: {access}");
            let from = &way.unwrap().from;
            let named = match &access.peer {
                None => from.iter().any(|text| text == "unauthenticated"),
                Some(id) => from.iter().any(|text| {
                    text == "anyone" || text.parse().is_ok_and(|pattern: policy::pattern::IdPattern| pattern.matches(id))
                }),
            };
            prop_assert!(named, "{access}: {from:?}");
        }
    }

    #[test]
    fn a_guarantee_that_is_proved_is_broken_by_no_access(
        policies in policies(),
        region in region(),
        accesses in accesses(),
    ) {
        let set = load(&sources(&policies, Some(&region)));
        let forbidden = load(&forbidding(&region));
        let breaks = |access: &Witness| {
            let refused = decide(&forbidden, access).denial().is_some_and(|denial| denial.reason == DenyReason::ExplicitDeny);
            refused && decide(&set, access).is_allowed()
        };
        let about = |access: &Witness| {
            set.for_workload(&access.to).policies().any(|policy| policy.name() == "p0")
        };

        let broken = prove(&set, Terms::default());

        match broken.as_slice() {
            [] => {
                for access in accesses.0.iter().filter(|access| about(access)) {
                    prop_assert!(!breaks(access), "missed: {access}");
                }
            }
            [only] => match &only.cause {
                Cause::Passes { witness, .. } => prop_assert!(breaks(witness) && about(witness), "{only}"),
                Cause::Unsettled(unsettled) => prop_assert!(false, "{unsettled}"),
            },
            more => prop_assert!(false, "{} answers to one guarantee", more.len()),
        }
    }
}
