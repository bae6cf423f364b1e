//! What must never be possible, whatever the rules say: proved for every request before a set is good.
//!
//! A guarantee is written like a deny rule, and reaches as far as one: it holds if that deny rule would refuse nothing
//! that passes without it. So `anyone` means those who prove no identity as well, a request without a host escapes no
//! `hosts`, and opaque TCP is a way to every request that could be made on its port.

use std::sync::Arc;

use super::layers::{Asked, read_layer, take_layer};
use super::read::{Origin, read_id};
use super::rules::{Callers, read_callers};
use super::{Effect, HttpLimits, Kinds, Layer, Limit, MAX_GUARANTEES, MAX_PROTECTS, Mode, Peers, Rule};
use crate::pattern::IdPattern;
use crate::strict::{Fields, Node, Reader, Span};

/// What must never pass.
#[derive(Clone, Debug)]
pub(crate) struct Guarantee {
    /// Where it is written.
    pub(crate) span: Span,
    /// The workloads that it is about.
    pub(crate) to: Vec<IdPattern>,
    /// The deny rule that would refuse nothing if the guarantee holds. It always enforces.
    pub(crate) rule: Arc<Rule>,
    /// The guarantee in words, such as `never from spiffe://prod.example/ns/dev/**`.
    pub(crate) shown: String,
}

/// Reads the list under `guarantees`.
pub(super) fn read_guarantees(
    node: &Node,
    protects: &[IdPattern],
    origin: &Origin,
    read: &mut Reader<'_>,
) -> Option<Vec<Guarantee>> {
    read.each(node, MAX_GUARANTEES, |read, item| {
        let mut fields = read.map(item)?;
        let region = fields.required("never", read);
        for key in ["from", "to", "tcp", "http", "grpc", "connect", "upgrade"] {
            fields.misplaced(key, "belongs under \"never\"", "write - never: {…}", read);
        }
        fields.finish(read);
        read_never(region?, protects, origin, read).map(|(to, rule)| {
            let shown = in_words(&to, &rule);
            Guarantee { span: item.span(), to, rule: Arc::new(rule), shown }
        })
    })
}

fn read_never(
    node: &Node,
    protects: &[IdPattern],
    origin: &Origin,
    read: &mut Reader<'_>,
) -> Option<(Vec<IdPattern>, Rule)> {
    let mut fields = read.map(node)?;
    let callers = read_callers(&mut fields, read);
    let to = match fields.optional("to") {
        Some(node) => read.each(node, MAX_PROTECTS, |read, item| read_id(item, read)),
        None => Some(protects.to_vec()),
    };
    let asked = match take_layer(&mut fields, "guarantee", read) {
        Some(Some((key, node))) => read_layer(key, node, Effect::Deny, read),
        Some(None) => Some(Asked::anything()),
        None => None,
    };
    explain_misplaced(&mut fields, read);
    fields.finish(read);
    let Callers { from, except, source_net } = callers?;
    let Asked { ports, layer, headers } = asked?;
    let rule = Rule {
        reference: origin.reference("guarantee", node),
        effect: Effect::Deny,
        mode: Mode::Enforce,
        from,
        except,
        source_net,
        ports,
        layer,
        at_connect: Vec::new(),
        at_request: headers,
    };
    Some((to?, rule))
}

fn explain_misplaced(fields: &mut Fields<'_>, read: &mut Reader<'_>) {
    for key in ["jwt", "sni"] {
        let why = "cannot limit a guarantee, which must hold whatever a caller shows";
        fields.misplaced(key, why, "remove it", read);
    }
    for key in ["name", "expect"] {
        fields.misplaced(key, "has no meaning in a guarantee", "remove it", read);
    }
}

fn in_words(to: &[IdPattern], rule: &Rule) -> String {
    let mut words = format!("never from {}", peers(&rule.from));
    if !rule.except.is_empty() {
        words.push_str(&format!(" except {}", listed(&rule.except)));
    }
    if let Limit::Only(networks) = &rule.source_net {
        words.push_str(&format!(" in {}", listed(networks)));
    }
    words.push_str(&format!(" to {}", listed(to)));
    if let Some(kind) = kind(&rule.layer, &rule.ports) {
        words.push_str(&format!(" by {kind}"));
    }
    if let Limit::Only(ranges) = &rule.ports {
        let ports: Vec<String> = ranges
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (low, high) if low == high => low.to_string(),
                (low, high) => format!("{low}-{high}"),
            })
            .collect();
        words.push_str(&format!(" on port {}", listed(&ports)));
    }
    if let Layer::Http(HttpLimits { methods, hosts, paths, .. }) = &rule.layer {
        for text in [only(methods), only(hosts), only(paths)].into_iter().flatten() {
            words.push_str(&format!(" {text}"));
        }
    }
    words
}

fn kind(layer: &Layer, ports: &Limit<std::ops::RangeInclusive<u16>>) -> Option<&'static str> {
    match layer {
        Layer::Tcp if *ports == Limit::Any => None,
        Layer::Tcp => Some("any traffic"),
        Layer::Http(HttpLimits { kinds, .. }) => Some(match kinds {
            Kinds::Plain | Kinds::Every => "http",
            Kinds::Connect { .. } => "connect",
            Kinds::Upgrade { .. } => "upgrade",
        }),
    }
}

fn peers(peers: &Peers) -> String {
    let mut words = Vec::new();
    words.extend(peers.anyone.then(|| "anyone".to_owned()));
    words.extend(peers.unauthenticated.then(|| "unauthenticated".to_owned()));
    words.extend(peers.patterns.iter().map(ToString::to_string));
    listed(&words)
}

fn only<T: ToString>(limit: &Limit<T>) -> Option<String> {
    match limit {
        Limit::Any => None,
        Limit::Only(values) => Some(listed(values)),
    }
}

// Logs keep this text, so a long list is cut.
fn listed<T: ToString>(values: &[T]) -> String {
    let mut text = values.iter().take(SHOWN).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(more) = values.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

const SHOWN: usize = 5;

#[cfg(test)]
mod tests;
