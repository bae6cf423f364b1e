//! What Istio's files say about the workloads they select.

use std::collections::BTreeMap;

use crate::strict::{Node, Reader, Source};

/// The selector of one of Istio's policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) namespace: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// The selectors in a file; none in one that is not Istio's.
pub(super) fn selectors(source: &Source) -> Vec<Selector> {
    let (mut read, root) = Reader::open(source);
    root.and_then(|root| selector(&root, &mut read)).into_iter().collect()
}

/// Whether a file is of our own language.
pub(super) fn is_native(source: &Source) -> bool {
    let (mut read, root) = Reader::open(source);
    root.is_some_and(|root| root.is_map() && child(&root, "vouchsafe", &mut read).is_some())
}

fn selector(root: &Node, read: &mut Reader<'_>) -> Option<Selector> {
    let version = child(root, "apiVersion", read)?;
    let group = read.string(version)?;
    if !group.starts_with("security.istio.io/") {
        return None;
    }
    let namespace = child(root, "metadata", read)
        .and_then(|metadata| child(metadata, "namespace", read))
        .and_then(|node| read.string(node))
        .unwrap_or("default")
        .to_owned();
    let labels = child(root, "spec", read)
        .and_then(|spec| child(spec, "selector", read))
        .and_then(|selector| child(selector, "matchLabels", read))
        .and_then(|labels| read.entries(labels))
        .unwrap_or_default();
    let pair = |(name, node): (&str, &Node)| Some((name.to_owned(), read.string(node)?.to_owned()));
    Some(Selector { namespace, labels: labels.into_iter().filter_map(pair).collect() })
}

fn child<'n>(node: &'n Node, name: &str, read: &mut Reader<'_>) -> Option<&'n Node> {
    read.entries(node)?.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}
