//! What Istio's files presuppose and do not say: which workload is meant, and the settings of its mesh.

use std::collections::BTreeMap;

use identity::SpiffeId;

/// A workload as policies select it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its identity, by which policies of our own select it.
    pub id: SpiffeId,
    /// Its namespace, by which Istio's files select it.
    pub namespace: String,
    /// Its labels, by which Istio's files select it.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// A workload without labels, whose namespace is the one in its ID: the `N` of `/ns/N/…`, or none.
    pub fn of(id: &SpiffeId) -> Self {
        let mut segments = id.path().split('/').skip(1);
        let namespace = match (segments.next(), segments.next()) {
            (Some("ns"), Some(namespace)) => namespace.to_owned(),
            _ => String::new(),
        };
        Self { id: id.clone(), namespace, labels: BTreeMap::new() }
    }
}

/// The settings of the mesh that Istio's files were written for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// The namespace whose policies apply everywhere.
    pub root_namespace: String,
    /// The trust domain.
    pub trust_domain: String,
    /// Other names of the trust domain.
    pub trust_domain_aliases: Vec<String>,
    /// How paths are compared.
    pub path_normalization: PathNormalization,
    /// Whose semantics the files have.
    pub compat: Compat,
    /// What happens to a workload that no policy selects, in a set of Istio's files only.
    pub unselected: Unselected,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            path_normalization: PathNormalization::Base,
            compat: Compat::Sidecar,
            unselected: Unselected::Allow,
        }
    }
}

/// Istio's `pathNormalization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathNormalization {
    /// Paths as they came.
    None,
    /// RFC 3986 dot segments, backslashes as slashes. Istio's default.
    Base,
    /// And several slashes as one.
    MergeSlashes,
    /// And escaped slashes and backslashes decoded first.
    DecodeAndMergeSlashes,
}

/// Which of Istio's data planes the files are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// Sidecars.
    Sidecar,
    /// ztunnel.
    Ambient,
}

/// What happens to a workload that no policy selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unselected {
    /// Everything is refused.
    Deny,
    /// Everything passes, as in Istio.
    Allow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_taken_from_the_identity() {
        let namespace = |id: &str| Workload::of(&SpiffeId::parse(id).unwrap()).namespace;

        assert_eq!(namespace("spiffe://a.test/ns/shop/sa/web"), "shop");
        assert_eq!(namespace("spiffe://a.test/web"), "");
        assert_eq!(namespace("spiffe://a.test/x/ns/shop"), "");
    }
}
