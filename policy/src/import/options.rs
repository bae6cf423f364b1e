//! What can be told about Istio's files so that more of them can be said.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::pattern::IdPattern;

/// What is known of files beside what they say.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The mesh that they are of; without it the trust domain is the one of which every caller is that they name, and else Istio's
    /// default.
    pub mesh: Option<Mesh>,
    /// Which identities workloads have.
    pub targets: Vec<Target>,
    /// How they may be read where a native rule cannot say exactly what they say.
    pub assumed: BTreeSet<Assumption>,
    /// Whether policies that a native file cannot say whole stay in Istio's form, with all that decide beside them.
    pub exact: bool,
}

/// A reading that says what nearly everybody means, and not all that is written. Each use is among the surprises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assumption {
    /// `/x*` is `/x` and what is below it, not `/xy`.
    WholeSegments,
    /// Namespaces and service accounts are those of the mesh, in identities of the form `/ns/…/sa/…`.
    UsualIdentities,
    /// A host is the same with any port.
    AnyHostPort,
    /// Every verified token has a subject.
    TokensHaveSubjects,
    /// There are no methods but those of RFC 9110 and RFC 5789.
    RegisteredMethods,
}

/// The identities of the workloads with these labels in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The namespace.
    pub namespace: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The identities.
    pub ids: Vec<IdPattern>,
}
