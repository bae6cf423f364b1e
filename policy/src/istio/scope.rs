//! Which workloads a resource is about.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::MAX_ENTRIES;
use super::resource::Name;
use crate::mesh::{Mesh, Workload};
use crate::strict::{Fields, Node, Reader, quote};

/// The workloads of a namespace, or of every one, with these labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) within: Within,
    pub(crate) labels: BTreeMap<Arc<str>, Arc<str>>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.within {
            Within::Mesh => f.write_str("every namespace")?,
            Within::Namespace(namespace) => write!(f, "namespace {namespace}")?,
        }
        self.labels.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))
    }
}

/// How far a resource reaches.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Within {
    /// Every namespace: it is in the root namespace of the mesh.
    Mesh,
    /// This namespace.
    Namespace(Arc<str>),
}

impl Scope {
    /// Whether the resource is about the workload.
    pub(crate) fn selects(&self, workload: &Workload) -> bool {
        let within = match &self.within {
            Within::Mesh => true,
            Within::Namespace(namespace) => **namespace == *workload.namespace,
        };
        within
            && self
                .labels
                .iter()
                .all(|(key, value)| workload.labels.get(&**key).is_some_and(|found| **value == **found))
    }

    pub(crate) fn is_everywhere_in_it(&self) -> bool {
        self.labels.is_empty()
    }
}

/// Reads `selector`, and refuses the other ways of attaching a resource.
pub(super) fn read_scope(
    fields: &mut Fields<'_>,
    name: &Name,
    mesh: &Mesh,
    read: &mut Reader<'_>,
) -> Option<Scope> {
    let mut refused = false;
    for key in ["targetRefs", "targetRef"] {
        refused |= fields.misplaced(
            key,
            "attaches to gateways and waypoints, which there are none of here",
            "write \"selector\" with the labels of the workloads",
            read,
        );
    }
    let labels = match fields.optional("selector") {
        Some(node) => read_selector(node, read),
        None => Some(BTreeMap::new()),
    };
    let within = if *name.namespace == *mesh.root_namespace {
        Within::Mesh
    } else {
        Within::Namespace(Arc::clone(&name.namespace))
    };
    let labels = labels?;
    (!refused).then_some(Scope { within, labels })
}

fn read_selector(node: &Node, read: &mut Reader<'_>) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
    let mut fields = read.map(node)?;
    let labels = match fields.optional("matchLabels") {
        Some(node) => read_labels(node, read),
        None => Some(BTreeMap::new()),
    };
    fields.misplaced("matchExpressions", "is not a part of Istio's selectors", "write \"matchLabels\"", read);
    fields.finish(read);
    labels
}

fn read_labels(node: &Node, read: &mut Reader<'_>) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
    let entries = read.entries(node)?;
    if entries.len() > MAX_ENTRIES {
        read.problem(node, format!("there are more than {MAX_ENTRIES} labels"), None);
        return None;
    }
    let mut labels = Some(BTreeMap::new());
    for (key, node) in entries {
        let value = read.string(node);
        if key.is_empty() || key.contains('*') || value.is_some_and(|value| value.contains('*')) {
            let message = format!("the label {} is not spelled out", quote(key));
            read.problem(node, message, Some("selectors compare whole labels, without \"*\""));
            labels = None;
        }
        match (&mut labels, value) {
            (Some(labels), Some(value)) => {
                labels.insert(key.into(), value.into());
            }
            (_, None) => labels = None,
            (None, Some(_)) => {}
        }
    }
    labels
}

/// Reads the name of a resource or namespace.
pub(super) fn read_namespace<'n>(node: &'n Node, read: &mut Reader<'_>) -> Option<&'n str> {
    let name = read.string(node)?;
    let fits =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '.');
    if name.chars().all(fits) && name.len() <= MAX_NAME {
        return Some(name);
    }
    let cure = format!("use small letters, digits, \"-\" and \".\", at most {MAX_NAME} of them");
    read.problem(node, format!("{} is not a name of Kubernetes", quote(name)), Some(&cure));
    None
}

// RFC 1123, as Kubernetes names its resources.
const MAX_NAME: usize = 253;
