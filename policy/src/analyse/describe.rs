//! What a rule asks for, in the words in which it is written.

use std::fmt::Display;

use serde::Serialize;

use crate::document::{
    ConnectionCondition, HeaderReading, Kinds, Layer, Limit, RequestCondition, Rule, Sense, TokenLimits,
};

/// What a rule asks for, as it is written; a list that is empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `tcp`, `http`, `connect` or `upgrade`; `any` where it does not matter.
    pub traffic: &'static str,
    /// The callers spared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// The networks of the caller.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_net: Vec<String>,
    /// The workload's ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// The methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The hosts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// What else must hold, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// Describes a rule, or the access that no rule names.
pub(super) fn describe(rule: Option<&Rule>) -> Description {
    let Some(rule) = rule else { return Description { traffic: "any", ..Description::default() } };
    let mut described = Description {
        traffic: "tcp",
        except: texts(&rule.except),
        source_net: limited(&rule.source_net),
        ports: match &rule.ports {
            Limit::Any => Vec::new(),
            Limit::Only(ranges) => ranges.iter().map(range).collect(),
        },
        ..Description::default()
    };
    if let Layer::Http(limits) = &rule.layer {
        described.methods = limited(&limits.methods);
        described.hosts = limited(&limits.hosts);
        described.paths = limited(&limits.paths);
        described.traffic = match &limits.kinds {
            Kinds::Plain | Kinds::Every => "http",
            Kinds::Connect { to_ports } => {
                if let Limit::Only(ranges) = to_ports {
                    let ports: Vec<String> = ranges.iter().map(range).collect();
                    described.conditions.push(format!("to port {}", ports.join(", ")));
                }
                "connect"
            }
            Kinds::Upgrade { protocols } => {
                if let Limit::Only(protocols) = protocols {
                    described.conditions.push(format!("protocol {}", texts(protocols).join(", ")));
                }
                "upgrade"
            }
        };
    }
    described.conditions.extend(rule.at_connect.iter().map(connection));
    described.conditions.extend(rule.at_request.iter().map(request));
    described
}

fn connection(condition: &ConnectionCondition) -> String {
    match condition {
        ConnectionCondition::Peer { any_of, sense } => stated("from", *sense, any_of),
        ConnectionCondition::Source { any_of, sense } => stated("source", *sense, any_of),
        ConnectionCondition::Destination { any_of, sense } => stated("destination", *sense, any_of),
        ConnectionCondition::Port { any_of, sense } => {
            stated("port", *sense, &any_of.iter().map(range).collect::<Vec<_>>())
        }
        ConnectionCondition::Sni { any_of, sense, .. } => stated("SNI", *sense, any_of),
        ConnectionCondition::Http => "HTTP only".to_owned(),
    }
}

fn request(condition: &RequestCondition) -> String {
    match condition {
        RequestCondition::Method { any_of, sense } => stated("method", *sense, any_of),
        RequestCondition::Authority { any_of, sense } => stated("host", *sense, any_of),
        RequestCondition::Path { any_of, sense } => stated("path", *sense, any_of),
        RequestCondition::Header { name, any_of, reading } => {
            let sense = match reading {
                HeaderReading::Every | HeaderReading::Any => Sense::Is,
                HeaderReading::Joined(sense) | HeaderReading::JoinedOrAny(sense) => *sense,
            };
            stated(&format!("header {name}"), sense, any_of)
        }
        RequestCondition::Principal { any_of, sense } => {
            let pairs: Vec<String> =
                any_of.iter().map(|(issuer, subject)| format!("{issuer}/{subject}")).collect();
            stated("token of", *sense, &pairs)
        }
        RequestCondition::Claim { path, any_of, sense, .. } => {
            stated(&format!("claim {}", path.join(".")), *sense, any_of)
        }
        RequestCondition::Token(limits) => token(limits),
    }
}

fn token(limits: &TokenLimits) -> String {
    let mut text = format!("token of {}", limits.issuer);
    if !limits.audiences.is_empty() {
        text.push_str(&format!(" for {}", limits.audiences.join(" or ")));
    }
    for claim in &limits.claims {
        text.push_str(&format!(", {} {}", claim.path.join("."), claim.values.join(" or ")));
    }
    text
}

fn stated(what: &str, sense: Sense, values: &[impl Display]) -> String {
    let joined = texts(values).join(" or ");
    match sense {
        Sense::Is => format!("{what} is {joined}"),
        Sense::IsNot => format!("{what} is not {joined}"),
    }
}

fn limited<T: Display>(limit: &Limit<T>) -> Vec<String> {
    match limit {
        Limit::Any => Vec::new(),
        Limit::Only(values) => texts(values),
    }
}

fn texts(values: &[impl Display]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn range(range: &std::ops::RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}
