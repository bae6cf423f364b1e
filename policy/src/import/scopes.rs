//! Which identities a policy of Istio's protects.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Target;
use crate::istio::{Authorization, Scope, Within};
use crate::mesh::Mesh;
use crate::strict::{Problem, Problems};

/// The patterns of the workloads that a policy selects.
pub(super) fn protects(
    policy: &Authorization,
    mesh: &Mesh,
    targets: &[Target],
) -> Result<Vec<String>, Problems> {
    let scope = &policy.scope;
    let selected = targets.iter().filter(|target| fits(scope, target));
    if scope.labels.is_empty() {
        let exact = selected.filter(|target| target.labels.is_empty());
        let ids: Vec<String> = exact.flat_map(|target| &target.ids).map(ToString::to_string).collect();
        let domain = &mesh.trust_domain;
        return Ok(match &scope.within {
            Within::Mesh => vec![format!("spiffe://{domain}/**")],
            Within::Namespace(_) if !ids.is_empty() => ids,
            Within::Namespace(namespace) => vec![format!("spiffe://{domain}/ns/{namespace}/sa/*")],
        });
    }
    let ids: BTreeSet<String> = selected.flat_map(|target| &target.ids).map(ToString::to_string).collect();
    if ids.is_empty() {
        let message = format!(
            "the policy {} selects workloads by labels, and nothing says which identities they have",
            policy.name.full()
        );
        let cure =
            "name the workloads with these labels: --workload FILE with spiffe_id, namespace and labels"
                .to_owned();
        return Err(Problems::from(Problem::in_file(&policy.name.file, message, Some(cure))));
    }
    Ok(ids.into_iter().collect())
}

fn fits(scope: &Scope, target: &Target) -> bool {
    let within = match &scope.within {
        Within::Mesh => true,
        Within::Namespace(namespace) => **namespace == *target.namespace,
    };
    let has = |(key, value): (&Arc<str>, &Arc<str>)| {
        target.labels.get(&**key).is_some_and(|found| **found == **value)
    };
    within && scope.labels.iter().all(has)
}
