//! The key `istio`: what Istio's policy files presuppose and do not say.

use std::collections::BTreeMap;

use identity::{SpiffeId, TrustDomain};
use policy::{
    Compat, Mesh, PathNormalization, Unselected, Workload,
    strict::{Node, Reader},
};

use super::Istio;

impl Istio {
    /// Returns the settings of the mesh, for a workload of `own`.
    pub(crate) fn mesh(&self, own: &TrustDomain) -> Mesh {
        let trust_domain = self.trust_domain.as_ref().unwrap_or(own).as_str().to_owned();
        Mesh { trust_domain, ..self.mesh.clone() }
    }

    /// Returns what policies select the workload `id` by. What the agent vouches for counts before what is configured.
    pub(crate) fn workload(&self, id: &SpiffeId, attested: Option<&Workload>) -> Workload {
        let mut workload = Workload::of(id);
        if let Some(namespace) = &self.namespace {
            workload.namespace.clone_from(namespace);
        }
        workload.labels.clone_from(&self.labels);
        if let Some(attested) = attested.filter(|attested| attested.id == *id) {
            if !attested.namespace.is_empty() {
                workload.namespace.clone_from(&attested.namespace);
            }
            workload.labels.extend(attested.labels.clone());
        }
        workload
    }
}

pub(super) fn read(node: &Node, read: &mut Reader<'_>) -> Option<Istio> {
    let mut map = read.map(node)?;
    let mut istio = Istio::default();
    let mut sound = true;
    if let Some(node) = map.optional("namespace") {
        istio.namespace = keep(name(node, read), &mut sound);
    }
    if let Some(node) = map.optional("root_namespace") {
        set(&mut istio.mesh.root_namespace, name(node, read), &mut sound);
    }
    if let Some(node) = map.optional("labels") {
        set(&mut istio.labels, labels(node, read), &mut sound);
    }
    if let Some(node) = map.optional("trust_domain") {
        istio.trust_domain = keep(read.parsed(node, "a trust domain like prod.test"), &mut sound);
    }
    if let Some(node) = map.optional("trust_domain_aliases") {
        let aliases = read.each(node, MAX_ALIASES, |read, item| {
            let alias: TrustDomain = read.parsed(item, "a trust domain like prod.test")?;
            Some(alias.as_str().to_owned())
        });
        set(&mut istio.mesh.trust_domain_aliases, aliases, &mut sound);
    }
    if let Some(node) = map.optional("path_normalization") {
        set(&mut istio.mesh.path_normalization, normalization(node, read), &mut sound);
    }
    if let Some(node) = map.optional("compat") {
        let compat = read.one_of(node, &["sidecar", "ambient"]);
        let compat = compat.map(|word| if word == "ambient" { Compat::Ambient } else { Compat::Sidecar });
        set(&mut istio.mesh.compat, compat, &mut sound);
    }
    if let Some(node) = map.optional("danger_allow_unselected") {
        let unselected = read.boolean(node).map(|yes| if yes { Unselected::Allow } else { Unselected::Deny });
        set(&mut istio.mesh.unselected, unselected, &mut sound);
    }
    map.finish(read);
    sound.then_some(istio)
}

fn keep<T>(value: Option<T>, sound: &mut bool) -> Option<T> {
    *sound &= value.is_some();
    value
}

fn set<T>(place: &mut T, value: Option<T>, sound: &mut bool) {
    match value {
        Some(value) => *place = value,
        None => *sound = false,
    }
}

/// A namespace of Kubernetes is a DNS label (RFC 1123).
fn name(node: &Node, read: &mut Reader<'_>) -> Option<String> {
    let name = read.string(node)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        return Some(name.to_owned());
    }
    read.problem(node, "a namespace has 1 to 63 lower-case letters, digits and dashes", None);
    None
}

fn labels(node: &Node, read: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    let entries = read.entries(node)?;
    if entries.len() > MAX_LABELS {
        read.problem(node, format!("more than {MAX_LABELS} labels"), None);
        return None;
    }
    let label = |(key, node): (&str, &Node)| Some((key.to_owned(), read.string(node)?.to_owned()));
    entries.into_iter().map(label).collect()
}

fn normalization(node: &Node, read: &mut Reader<'_>) -> Option<PathNormalization> {
    let words = ["none", "base", "merge_slashes", "decode_and_merge_slashes"];
    Some(match read.one_of(node, &words)? {
        "none" => PathNormalization::None,
        "merge_slashes" => PathNormalization::MergeSlashes,
        "decode_and_merge_slashes" => PathNormalization::DecodeAndMergeSlashes,
        _ => PathNormalization::Base,
    })
}

const MAX_NAME: usize = 63;
/// Most labels of one workload.
pub(crate) const MAX_LABELS: usize = 256;
const MAX_ALIASES: usize = 64;
