//! The envelope of a resource: its version, kind and metadata.

use std::sync::Arc;
use std::time::SystemTime;

use super::Resource;
use super::scope::read_namespace;
use crate::mesh::Mesh;
use crate::moment::Moment;
use crate::strict::{Fields, Node, Reader, Source, Span};

/// What a resource is called, and where.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) file: Arc<str>,
    pub(crate) at: Span,
}

impl Name {
    /// Namespace and name, as records show it.
    pub(crate) fn full(&self) -> Arc<str> {
        format!("{}/{}", self.namespace, self.name).into()
    }
}

/// What `metadata` says that matters.
pub(super) struct Metadata {
    pub(super) name: Name,
    pub(super) created: Option<SystemTime>,
    pub(super) dry_run: bool,
}

/// Reads a document, which may be a list of resources.
pub(super) fn read(
    root: &Node,
    source: &Source,
    mesh: &Mesh,
    read: &mut Reader<'_>,
    resources: &mut Vec<Resource>,
) {
    let Some(entries) = read.entries(root) else { return };
    let kind = entries.iter().find(|(key, _)| *key == "kind").map(|(_, node)| *node);
    let is_list = kind.is_some_and(|node| node.is_text("List"));
    if is_list {
        read_list(root, source, mesh, read, resources);
    } else {
        resources.extend(read_one(root, source, mesh, read));
    }
}

fn read_list(
    root: &Node,
    source: &Source,
    mesh: &Mesh,
    read: &mut Reader<'_>,
    resources: &mut Vec<Resource>,
) {
    let Some(mut fields) = read.map(root) else { return };
    if let Some(version) = fields.required("apiVersion", read) {
        read.one_of(version, &["v1"]);
    }
    fields.optional("kind");
    fields.optional("metadata");
    let items = fields.required("items", read);
    fields.finish(read);
    for item in items.and_then(|items| read.list(items)).unwrap_or_default() {
        resources.extend(read_one(item, source, mesh, read));
    }
}

fn read_one(root: &Node, source: &Source, mesh: &Mesh, read: &mut Reader<'_>) -> Option<Resource> {
    let mut fields = read.map(root)?;
    let version = fields.required("apiVersion", read).and_then(|node| read.one_of(node, &VERSIONS));
    let kind = fields.required("kind", read).and_then(|node| read_kind(node, read));
    let metadata = fields.required("metadata", read).and_then(|node| read_metadata(node, source, read));
    let spec = read_spec(&mut fields, read);
    // What a controller reported about the resource says nothing about what it means.
    fields.optional("status");
    fields.finish(read);
    version?;
    match kind? {
        AUTHORIZATION => {
            super::authorization::read(metadata?, spec?, mesh, read).map(Resource::Authorization)
        }
        PEERS => super::peers::read(metadata?, spec?, mesh, read).map(Resource::Peers),
        _ => super::tokens::read(metadata?, spec?, mesh, read).map(Resource::Tokens),
    }
}

fn read_kind(node: &Node, read: &mut Reader<'_>) -> Option<&'static str> {
    read.one_of(node, &[AUTHORIZATION, PEERS, TOKENS])
}

fn read_spec<'n>(fields: &mut Fields<'n>, read: &mut Reader<'_>) -> Option<&'n Node> {
    let spec = fields.optional("spec");
    if spec.is_none() {
        let cure = "write \"spec: {}\" if it is meant to be empty".to_owned();
        read.place(fields.span(), "the key \"spec\" is missing", Some(cure));
    }
    spec
}

fn read_metadata(node: &Node, source: &Source, read: &mut Reader<'_>) -> Option<Metadata> {
    let mut fields = read.map(node)?;
    let name_node = fields.required("name", read);
    let name = name_node.and_then(|node| read_namespace(node, read));
    let namespace = match fields.optional("namespace") {
        Some(node) => read_namespace(node, read),
        None => Some(DEFAULT_NAMESPACE),
    };
    let created = match fields.optional("creationTimestamp").filter(|node| !node.is_nothing()) {
        Some(node) => read.parsed::<Moment>(node, Moment::WANTED).map(|Moment(at)| Some(at)),
        None => Some(None),
    };
    let dry_run = match fields.optional("annotations").filter(|node| !node.is_nothing()) {
        Some(node) => read_annotations(node, read),
        None => Some(false),
    };
    for key in TOLERATED {
        fields.optional(key);
    }
    fields.finish(read);
    let name = Name {
        namespace: namespace?.into(),
        name: name?.into(),
        file: source.name.as_str().into(),
        at: name_node?.span(),
    };
    Some(Metadata { name, created: created?, dry_run: dry_run? })
}

fn read_annotations(node: &Node, read: &mut Reader<'_>) -> Option<bool> {
    let entries = read.entries(node)?;
    let Some((_, node)) = entries.iter().find(|(key, _)| *key == DRY_RUN) else { return Some(false) };
    // Kubernetes wants a text here, and Istio what Go's ParseBool accepts.
    match read.string(node)? {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => {
            read.problem(node, format!("\"{DRY_RUN}\" is neither true nor false"), Some("write \"true\""));
            None
        }
    }
}

pub(super) const AUTHORIZATION: &str = "AuthorizationPolicy";
pub(super) const PEERS: &str = "PeerAuthentication";
pub(super) const TOKENS: &str = "RequestAuthentication";

const VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];
const DEFAULT_NAMESPACE: &str = "default";
const DRY_RUN: &str = "istio.io/dry-run";

// Bookkeeping of Kubernetes, without a say in what the resource means.
const TOLERATED: [&str; 9] = [
    "labels",
    "managedFields",
    "resourceVersion",
    "uid",
    "generation",
    "generateName",
    "ownerReferences",
    "finalizers",
    "selfLink",
];
