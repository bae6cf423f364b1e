//! What the files promise about themselves, tried before the set is good: test cases and guarantees.

use std::collections::HashMap;
use std::time::SystemTime;

use super::MAX_SHOWN;
use crate::analyse::{Instant, Terms, prove};
use crate::cases::{Outcome, run};
use crate::set::PolicySet;
use crate::strict::{Problem, Problems, Source};

/// Tries every test case and proves every guarantee. What cannot be settled is not promised.
pub(super) fn check(set: &PolicySet, sources: &HashMap<&str, &Source>) -> Result<(), Problems> {
    let mut problems = Problems::default();
    for tried in run(set) {
        let Outcome::Failed { message, cure } = tried.outcome else { continue };
        let Some(source) = sources.get(tried.file.as_str()) else { continue };
        problems.push_within(MAX_SHOWN, Problem::at(source, tried.span, message, cure));
    }
    for policy in set.policies() {
        let Some(source) = sources.get(policy.file()) else { continue };
        for guarantee in &policy.guarantees {
            if let Some(unknown) = set.is_out_of_reach(guarantee) {
                let message = format!("guarantee not proved: {}: {unknown}", guarantee.shown);
                let cure = "rewrite Istio's files with \"policy import\", or guarantee something narrower"
                    .to_owned();
                problems.push_within(MAX_SHOWN, Problem::at(source, guarantee.span, message, Some(cure)));
            }
        }
    }
    // A policy in shadow refuses nothing yet: what it will refuse keeps no promise before that.
    let always = Terms { moment: Instant::From(SystemTime::UNIX_EPOCH), ..Terms::default() };
    for broken in prove(set, always) {
        let Some(source) = sources.get(broken.file.as_str()) else { continue };
        problems.push_within(MAX_SHOWN, Problem::at(source, broken.span, broken.to_string(), None));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
