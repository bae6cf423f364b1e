//! From tests to the dimensions and conditions of a rule.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::clauses::{Attribute, Values};
use super::texts::{
    Star, domains_with_aliases, namespace, path, principal, request_principal, service_account, simple,
    trust_domain, with_aliases,
};
use crate::document::{
    Absent, ConnectionCondition, Effect, HeaderReading, Limit, Peers, RequestCondition, Sense, Split,
};
use crate::mesh::Mesh;
use crate::net::Network;
use crate::pattern::{Case, IdPattern, TextPattern};

/// One comparison: some value must match, and no other one.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    pub(crate) attribute: Attribute,
    /// Those of which one must match, if there are any.
    pub(crate) values: Values,
    /// Those of which none may match.
    pub(crate) not_values: Values,
    /// The namespace of the policy, to which service accounts belong that name none.
    pub(crate) namespace: Arc<str>,
}

/// What the tests of a rule come to.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) from: Peers,
    pub(super) source_net: Limit<Network>,
    pub(super) ports: Limit<RangeInclusive<u16>>,
    pub(super) methods: Limit<Arc<str>>,
    pub(super) at_connect: Vec<ConnectionCondition>,
    pub(super) at_request: Vec<RequestCondition>,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self {
            from: Peers { anyone: true, unauthenticated: true, patterns: Vec::new() },
            source_net: Limit::Any,
            ports: Limit::Any,
            methods: Limit::Any,
            at_connect: Vec::new(),
            at_request: Vec::new(),
        }
    }

    /// Narrows a rule by one more test.
    pub(super) fn narrow(&mut self, test: &Test, effect: Effect, mesh: &Mesh) {
        if !test.values.is_empty() && !self.index(test, mesh) {
            self.add(test, &test.values, Sense::Is, effect, mesh);
        }
        if !test.not_values.is_empty() {
            self.add(test, &test.not_values, Sense::IsNot, effect, mesh);
        }
    }

    /// Puts the values where they are looked up rather than compared, if they are of that kind.
    fn index(&mut self, test: &Test, mesh: &Mesh) -> bool {
        match (&test.attribute, &test.values) {
            (Attribute::Port, Values::Ports(ports)) if self.ports == Limit::Any => {
                self.ports = Limit::Only(ports.iter().map(|port| *port..=*port).collect());
                true
            }
            (Attribute::SourceIp, Values::Networks(networks)) if self.source_net == Limit::Any => {
                self.source_net = Limit::Only(networks.clone());
                true
            }
            (Attribute::Method, Values::Texts(texts)) if self.methods == Limit::Any => {
                let exact = texts.iter().all(|text| !text.starts_with('*') && !text.ends_with('*'));
                if exact {
                    self.methods = Limit::Only(texts.clone());
                }
                exact
            }
            (Attribute::Principal, Values::Texts(texts)) if self.from.anyone => {
                let patterns: Option<Vec<IdPattern>> = texts
                    .iter()
                    .flat_map(|text| with_aliases(text, mesh))
                    .map(|text| whole_id(&text))
                    .collect();
                let Some(patterns) = patterns else { return false };
                self.from = Peers { anyone: false, unauthenticated: false, patterns };
                true
            }
            _ => false,
        }
    }

    fn add(&mut self, test: &Test, values: &Values, sense: Sense, effect: Effect, mesh: &Mesh) {
        match values {
            Values::Ports(ports) => {
                let any_of = ports.iter().map(|port| *port..=*port).collect();
                self.at_connect.push(ConnectionCondition::Port { any_of, sense });
            }
            Values::Networks(networks) => {
                let any_of = networks.clone();
                self.at_connect.push(match test.attribute {
                    Attribute::DestinationIp => ConnectionCondition::Destination { any_of, sense },
                    _ => ConnectionCondition::Source { any_of, sense },
                });
            }
            Values::Texts(texts) => match about_connection(test, texts, sense, mesh) {
                Some(condition) => self.at_connect.push(condition),
                None => self.at_request.extend(about_request(test, texts, sense, effect)),
            },
        }
    }
}

fn whole_id(principal: &str) -> Option<IdPattern> {
    if principal.contains('*') {
        return None;
    }
    IdPattern::parse(&format!("spiffe://{principal}")).ok()
}

fn about_connection(
    test: &Test,
    texts: &[Arc<str>],
    sense: Sense,
    mesh: &Mesh,
) -> Option<ConnectionCondition> {
    let any_of: Vec<TextPattern> = match test.attribute {
        Attribute::Principal => {
            texts.iter().flat_map(|text| with_aliases(text, mesh)).map(|text| principal(&text)).collect()
        }
        Attribute::Namespace => texts.iter().map(|text| namespace(text, mesh.compat)).collect(),
        Attribute::ServiceAccount => {
            texts.iter().flat_map(|text| service_account(text, &test.namespace, mesh.compat)).collect()
        }
        Attribute::TrustDomain => texts
            .iter()
            .flat_map(|text| domains_with_aliases(text, mesh))
            .map(|text| trust_domain(&text))
            .collect(),
        Attribute::Sni => {
            let any_of = texts.iter().map(|text| simple(text, Star::NotEmpty, Case::Sensitive)).collect();
            let absent = match sense {
                Sense::Is => Absent::Fails,
                Sense::IsNot => Absent::Holds,
            };
            return Some(ConnectionCondition::Sni { any_of, sense, absent });
        }
        Attribute::SourceIp
        | Attribute::DestinationIp
        | Attribute::Port
        | Attribute::Host
        | Attribute::Method
        | Attribute::Path
        | Attribute::Header(_)
        | Attribute::RequestPrincipal
        | Attribute::Claim(_) => return None,
    };
    Some(ConnectionCondition::Peer { any_of, sense })
}

fn about_request(test: &Test, texts: &[Arc<str>], sense: Sense, effect: Effect) -> Option<RequestCondition> {
    let all = |star: Star, case: Case| texts.iter().map(|text| simple(text, star, case)).collect();
    match &test.attribute {
        Attribute::Host => {
            Some(RequestCondition::Authority { any_of: all(Star::Present, Case::Insensitive), sense })
        }
        Attribute::Method => {
            Some(RequestCondition::Method { any_of: all(Star::Present, Case::Sensitive), sense })
        }
        Attribute::Path => {
            Some(RequestCondition::Path { any_of: texts.iter().map(|text| path(text)).collect(), sense })
        }
        Attribute::Header(name) => {
            let reading = match effect {
                Effect::Allow => HeaderReading::Joined(sense),
                Effect::Deny => HeaderReading::JoinedOrAny(sense),
            };
            let any_of = all(Star::Present, Case::Sensitive);
            Some(RequestCondition::Header { name: Arc::clone(name), any_of, reading })
        }
        Attribute::RequestPrincipal => {
            let any_of = texts.iter().map(|text| request_principal(text)).collect();
            Some(RequestCondition::Principal { any_of, sense })
        }
        Attribute::Claim(path) => {
            let split = match path.as_slice() {
                [only] if SPACED.contains(&&**only) => Split::Spaces,
                _ => Split::Whole,
            };
            let any_of = all(Star::NotEmpty, Case::Sensitive);
            Some(RequestCondition::Claim { path: path.clone(), any_of, sense, split })
        }
        Attribute::Principal
        | Attribute::Namespace
        | Attribute::ServiceAccount
        | Attribute::TrustDomain
        | Attribute::SourceIp
        | Attribute::DestinationIp
        | Attribute::Port
        | Attribute::Sni => None,
    }
}

// Claims that Istio takes apart at spaces unless told otherwise.
const SPACED: [&str; 2] = ["scope", "permission"];
