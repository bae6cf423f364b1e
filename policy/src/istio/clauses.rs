//! What a test is about, and reading the fields of `source` and `operation`.

use std::sync::Arc;

use super::authorization::Clause;
use super::conditions::Test;
use super::elements::read_values;
use crate::mesh::{Compat, Mesh};
use crate::net::Network;
use crate::strict::{Node, Reader};

/// What a test looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    SourceIp,
    DestinationIp,
    Port,
    Sni,
    Host,
    Method,
    Path,
    /// A header; the name is in lower case.
    Header(Arc<str>),
    RequestPrincipal,
    Claim(Vec<Arc<str>>),
}

impl Attribute {
    /// Whether it is unknown on opaque TCP.
    pub(crate) fn is_http(&self) -> bool {
        match self {
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::DestinationIp
            | Self::Port
            | Self::Sni => false,
            Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::RequestPrincipal
            | Self::Claim(_) => true,
        }
    }

    /// Whether ztunnel looks at it.
    pub(crate) fn is_known_to_ztunnel(&self) -> bool {
        !self.is_http() && *self != Self::Sni
    }
}

/// What is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    Texts(Vec<Arc<str>>),
    Ports(Vec<u16>),
    Networks(Vec<Network>),
}

impl Values {
    pub(crate) fn none() -> Self {
        Self::Texts(Vec::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Texts(texts) => texts.is_empty(),
            Self::Ports(ports) => ports.is_empty(),
            Self::Networks(networks) => networks.is_empty(),
        }
    }
}

/// Reads a `source` or an `operation`, whose fields come in pairs.
pub(super) fn read_clause(
    node: &Node,
    keys: &[(&'static str, &'static str, Attribute)],
    (namespace, mesh): (&str, &Mesh),
    read: &mut Reader<'_>,
) -> Option<Clause> {
    let mut fields = read.map(node)?;
    let mut tests = Some(Vec::new());
    let mut present: Vec<&Attribute> = Vec::new();
    for (key, not_key, attribute) in keys {
        let pair = (fields.optional(key), fields.optional(not_key));
        present.extend((pair.0.is_some() || pair.1.is_some()).then_some(attribute));
        if mesh.compat == Compat::Ambient && *attribute == Attribute::TrustDomain {
            refuse_trust_domains([pair.0, pair.1], read);
        }
        match (read_pair(pair, attribute, namespace, read), &mut tests) {
            (Some(Some(test)), Some(tests)) => tests.push(test),
            (Some(_), _) => {}
            (None, _) => tests = None,
        }
    }
    let mut proxied = false;
    for key in ["remoteIpBlocks", "notRemoteIpBlocks"] {
        proxied |=
            fields.misplaced(key, NO_PROXIES, "write \"ipBlocks\" with the addresses that connect", read);
    }
    fields.finish(read);
    if read.entries(node).is_some_and(|entries| entries.is_empty()) {
        read.problem(node, "it says nothing", Some("leave it out, or name at least one thing"));
        return None;
    }
    if combines_service_accounts(&present) {
        let cure = "put them into a source of their own";
        read.problem(node, "service accounts cannot be combined with principals or namespaces", Some(cure));
        return None;
    }
    if proxied {
        return None;
    }
    tests.map(|tests| Clause { tests })
}

fn refuse_trust_domains(nodes: [Option<&Node>; 2], read: &mut Reader<'_>) {
    for node in nodes.into_iter().flatten() {
        let cure = "write the trust domain into \"principals\"";
        read.problem(node, "trust domains are not compared in ambient mode", Some(cure));
    }
}

fn combines_service_accounts(present: &[&Attribute]) -> bool {
    present.contains(&&Attribute::ServiceAccount)
        && (present.contains(&&Attribute::Principal) || present.contains(&&Attribute::Namespace))
}

// `None`: something is wrong. `Some(None)`: neither key is there.
fn read_pair(
    pair: (Option<&Node>, Option<&Node>),
    attribute: &Attribute,
    namespace: &str,
    read: &mut Reader<'_>,
) -> Option<Option<Test>> {
    let values = match pair.0 {
        Some(node) => read_values(node, attribute, read),
        None => Some(Values::none()),
    };
    let not_values = match pair.1 {
        Some(node) => read_values(node, attribute, read),
        None => Some(Values::none()),
    };
    let (values, not_values) = (values?, not_values?);
    if values.is_empty() && not_values.is_empty() {
        return Some(None);
    }
    let namespace = namespace.into();
    Some(Some(Test { attribute: attribute.clone(), values, not_values, namespace }))
}

/// The fields of a `source`.
pub(super) const SOURCE: [(&str, &str, Attribute); 6] = [
    ("principals", "notPrincipals", Attribute::Principal),
    ("requestPrincipals", "notRequestPrincipals", Attribute::RequestPrincipal),
    ("namespaces", "notNamespaces", Attribute::Namespace),
    ("serviceAccounts", "notServiceAccounts", Attribute::ServiceAccount),
    ("ipBlocks", "notIpBlocks", Attribute::SourceIp),
    ("trustDomains", "notTrustDomains", Attribute::TrustDomain),
];

/// The fields of an `operation`.
pub(super) const OPERATION: [(&str, &str, Attribute); 4] = [
    ("hosts", "notHosts", Attribute::Host),
    ("ports", "notPorts", Attribute::Port),
    ("methods", "notMethods", Attribute::Method),
    ("paths", "notPaths", Attribute::Path),
];

pub(super) const NO_PROXIES: &str =
    "is what proxies in between say about the caller, and none is trusted here to say it";
