//! Whose policies are asked: a workload file, or, without one, the workload that the policies leave no doubt about.

use std::collections::{BTreeMap, BTreeSet};

use identity::SpiffeId;

use crate::istio::Within;
use crate::mesh::{Compat, Mesh, PathNormalization, Unselected, Workload};
use crate::set::PolicySet;
use crate::strict::{Node, Problems, Reader, Source};

/// What a workload file says: who the workload is, and in which mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalWorkload {
    /// The workload.
    pub workload: Workload,
    /// The settings of its mesh; where the file says nothing, Istio's own, in the trust domain of the workload.
    pub mesh: Mesh,
}

impl EvalWorkload {
    /// Reads a workload file, or says everything that is wrong in it.
    pub fn read(source: &Source) -> Result<Self, Problems> {
        let (mut reader, root) = Reader::open(source);
        let file = root.and_then(|root| read_file(&root, &mut reader));
        reader.finish()?;
        file.ok_or_else(|| {
            let message = "the file does not describe a workload";
            Problems::from(crate::strict::Problem::in_file(&source.name, message, None))
        })
    }
}

fn read_file(root: &Node, read: &mut Reader<'_>) -> Option<EvalWorkload> {
    let mut fields = read.map(root)?;
    let id = fields.required("spiffe_id", read).and_then(|node| {
        read.parsed::<SpiffeId>(node, "a SPIFFE ID such as spiffe://prod.example/ns/shop/sa/web")
    });
    let namespace = fields.optional("namespace").map(|node| read.string(node).map(str::to_owned));
    let labels = fields.optional("labels").map(|node| read_labels(node, read));
    let mut mesh = Mesh::default();
    let trust_domain = fields.optional("trust_domain").map(|node| read.string(node).map(str::to_owned));
    if let Some(text) = fields.optional("root_namespace").and_then(|node| read.string(node)) {
        text.clone_into(&mut mesh.root_namespace);
    }
    if let Some(names) =
        fields.optional("trust_domain_aliases").and_then(|node| read.strings(node, MAX_ALIASES))
    {
        mesh.trust_domain_aliases = names.into_iter().map(str::to_owned).collect();
    }
    read_choices(&mut mesh, &mut fields, read);
    fields.finish(read);
    let id = id?;
    mesh.trust_domain = match trust_domain {
        Some(name) => name?,
        None => id.trust_domain().to_string(),
    };
    let usual = Workload::of(&id);
    let namespace = match namespace {
        Some(namespace) => namespace?,
        None => usual.namespace,
    };
    let labels = match labels {
        Some(labels) => labels?,
        None => BTreeMap::new(),
    };
    Some(EvalWorkload { workload: Workload { id, namespace, labels }, mesh })
}

fn read_choices(mesh: &mut Mesh, fields: &mut crate::strict::Fields<'_>, read: &mut Reader<'_>) {
    let word = fields.optional("path_normalization").and_then(|node| read.one_of(node, NORMALIZATIONS));
    mesh.path_normalization = match word {
        Some("NONE") => PathNormalization::None,
        Some("MERGE_SLASHES") => PathNormalization::MergeSlashes,
        Some("DECODE_AND_MERGE_SLASHES") => PathNormalization::DecodeAndMergeSlashes,
        Some(_) | None => PathNormalization::Base,
    };
    mesh.compat = match fields.optional("compat").and_then(|node| read.one_of(node, &["sidecar", "ambient"]))
    {
        Some("ambient") => Compat::Ambient,
        Some(_) | None => Compat::Sidecar,
    };
    mesh.unselected =
        match fields.optional("unselected").and_then(|node| read.one_of(node, &["allow", "deny"])) {
            Some("deny") => Unselected::Deny,
            Some(_) | None => Unselected::Allow,
        };
}

fn read_labels(node: &Node, read: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    let entries = read.entries(node)?;
    if entries.len() > MAX_LABELS {
        let message = format!("there are {} labels, at most {MAX_LABELS} are accepted", entries.len());
        read.problem(node, message, None);
        return None;
    }
    let pairs: Vec<Option<(String, String)>> = entries
        .into_iter()
        .map(|(name, value)| Some((name.to_owned(), read.string(value)?.to_owned())))
        .collect();
    pairs.into_iter().collect()
}

/// Why no workload can be assumed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// Native policies name none without a wildcard.
    #[error("the policies name no workload without a wildcard")]
    NoneNamed,
    /// Native policies name several.
    #[error("the policies name several workloads: {first} and {second} among them")]
    Several {
        /// One.
        first: SpiffeId,
        /// Another.
        second: SpiffeId,
    },
    /// Istio's files are of several namespaces.
    #[error("the policies are of several namespaces: {first} and {second} among them")]
    Namespaces {
        /// One.
        first: String,
        /// Another.
        second: String,
    },
    /// Istio's files select by labels that no workload has together.
    #[error("the policies select the label {label} with the values {first} and {second}")]
    Labels {
        /// The label.
        label: String,
        /// One value.
        first: String,
        /// Another.
        second: String,
    },
}

/// The one workload that a set is about: the one that its native policies name, or one that each of its Istio's files selects.
pub fn assumed_workload(set: &PolicySet) -> Result<Workload, WorkloadError> {
    let (namespace, labels) = selected_by(set)?;
    let named: BTreeSet<SpiffeId> =
        set.policies().flat_map(|policy| policy.protects()).filter_map(|pattern| pattern.literal()).collect();
    let mut named = named.into_iter();
    let id = match (named.next(), named.next()) {
        (Some(first), Some(second)) => return Err(WorkloadError::Several { first, second }),
        (Some(only), None) => only,
        (None, _) => {
            let namespace = namespace.as_deref().ok_or(WorkloadError::NoneNamed)?;
            let text = format!("spiffe://{}/ns/{namespace}/sa/default", set.mesh().trust_domain);
            SpiffeId::parse(&text).map_err(|_| WorkloadError::NoneNamed)?
        }
    };
    let usual = Workload::of(&id);
    Ok(Workload { namespace: namespace.unwrap_or(usual.namespace), labels, id })
}

// Namespace and labels that every one of Istio's files selects.
fn selected_by(set: &PolicySet) -> Result<(Option<String>, BTreeMap<String, String>), WorkloadError> {
    let mut namespace: Option<String> = None;
    let mut anywhere = false;
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for scope in set.scopes() {
        match &scope.within {
            Within::Mesh => anywhere = true,
            Within::Namespace(name) => {
                if let Some(first) = namespace.replace(name.to_string())
                    && *first != **name
                {
                    return Err(WorkloadError::Namespaces { first, second: name.to_string() });
                }
            }
        }
        for (label, second) in &scope.labels {
            if let Some(first) = labels.insert(label.to_string(), second.to_string())
                && *first != **second
            {
                let (label, second) = (label.to_string(), second.to_string());
                return Err(WorkloadError::Labels { label, first, second });
            }
        }
    }
    // What is selected everywhere is selected in this one.
    let namespace = namespace.or_else(|| anywhere.then(|| "default".to_owned()));
    Ok((namespace, labels))
}

const NORMALIZATIONS: &[&str] = &["NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"];

/// Most aliases of a trust domain.
pub const MAX_ALIASES: usize = 64;

/// Most labels of a workload.
pub const MAX_LABELS: usize = 256;
