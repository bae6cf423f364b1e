//! From nodes to rules. A bad element fails the rule, and with it the whole load.

use std::sync::Arc;

use super::elements::{limit, read_network, read_server_name};
use super::layers::{Asked, LAYERS, read_layer, take_layer};
use super::linking::Wanted;
use super::read::{Origin, quoted, read_id, read_name};
use super::tokens::read_token;
use super::{
    Absent, ConnectionCondition, Effect, Limit, MAX_FROM, MAX_NETWORKS, MAX_RULES_PER_POLICY,
    MAX_SERVER_NAMES, Peers, RequestCondition, Rule, Sense,
};
use crate::net::Network;
use crate::pattern::{IdPattern, TextPattern};
use crate::strict::{Fields, Node, Reader, Span, suggest};

/// A rule, where it is written, and the issuer that it relies on.
pub(super) struct Listed {
    pub(super) at: Span,
    pub(super) rule: Arc<Rule>,
    pub(super) wanted: Option<Wanted>,
}

/// Reads the list under `allow` or `deny`.
pub(super) fn read_rules(
    node: &Node,
    effect: Effect,
    origin: &Origin,
    read: &mut Reader<'_>,
) -> Option<Vec<Listed>> {
    read.each(node, MAX_RULES_PER_POLICY, |read, item| read_rule(item, effect, origin, read))
}

fn read_rule(node: &Node, effect: Effect, origin: &Origin, read: &mut Reader<'_>) -> Option<Listed> {
    let mut fields = read.map(node)?;
    let name = fields.required("name", read).and_then(|node| read_name(node, read));
    let callers = read_callers(&mut fields, read);
    let sni = read_server_names(&mut fields, effect, read);
    let (token_node, layer) = (fields.optional("jwt"), take_layer(&mut fields, "rule", read));
    let token = token_node.map(|node| read_token(node, effect, read));
    let asked = match layer {
        Some(Some((key, node))) => {
            explain_token_on_tcp(key, token_node, read);
            read_layer(key, node, effect, read)
        }
        Some(None) => {
            let cure = "add \"tcp: {port: …}\" or \"http: {port: …}\"".to_owned();
            let message =
                format!("a rule needs one of {}", LAYERS.map(|key| format!("\"{key}\"")).join(", "));
            read.place(fields.span(), message, Some(cure));
            None
        }
        None => None,
    };
    explain_misplaced(&mut fields, read);
    fields.finish(read);
    let (token, wanted) = match token {
        Some(token) => token.map(|(limits, wanted)| (Some(RequestCondition::Token(limits)), Some(wanted)))?,
        None => (None, None),
    };
    let Asked { ports, layer, headers } = asked?;
    let Callers { from, except, source_net } = callers?;
    let reference = origin.reference(name?, node);
    let rule = Rule {
        reference,
        effect,
        mode: origin.mode,
        from,
        except,
        source_net,
        ports,
        layer,
        at_connect: sni?,
        at_request: headers.into_iter().chain(token).collect(),
    };
    Some(Listed { at: node.span(), rule: Arc::new(rule), wanted })
}

/// Who calls, as rules and guarantees say it.
pub(super) struct Callers {
    pub(super) from: Peers,
    pub(super) except: Vec<IdPattern>,
    pub(super) source_net: Limit<Network>,
}

/// Takes `from`, `except` and `source_net`.
pub(super) fn read_callers(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Callers> {
    let from = match fields.optional("from") {
        Some(node) => read_peers(node, read),
        None => {
            let cure = "name the callers; \"from: [anyone]\" means every one of them".to_owned();
            read.place(fields.span(), "the key \"from\" is missing", Some(cure));
            None
        }
    };
    let except = match fields.optional("except") {
        Some(node) => read_except(node, from.as_ref(), read),
        None => Some(Vec::new()),
    };
    let source_net = limit(fields.optional("source_net"), MAX_NETWORKS, read, read_network);
    Some(Callers { from: from?, except: except?, source_net: source_net? })
}

fn read_server_names(
    fields: &mut Fields<'_>,
    effect: Effect,
    read: &mut Reader<'_>,
) -> Option<Vec<ConnectionCondition>> {
    let Some(node) = fields.optional("sni") else { return Some(Vec::new()) };
    let names = read.each(node, MAX_SERVER_NAMES, read_server_name)?;
    let any_of = names.iter().map(|name| TextPattern::exact(name)).collect();
    Some(vec![ConnectionCondition::Sni { any_of, sense: Sense::Is, absent: absent(effect) }])
}

/// What an attribute that is not there means: it grants nothing, and escapes no denial.
pub(super) fn absent(effect: Effect) -> Absent {
    match effect {
        Effect::Allow => Absent::Fails,
        Effect::Deny => Absent::Holds,
    }
}

fn explain_token_on_tcp(layer: &str, token: Option<&Node>, read: &mut Reader<'_>) {
    if let (Some(token), "tcp") = (token, layer) {
        let cure = "write \"http\" in place of \"tcp\", or remove it";
        read.problem(
            token,
            "\"jwt\" has no meaning for opaque TCP: there is no request to look at",
            Some(cure),
        );
    }
}

fn explain_misplaced(fields: &mut Fields<'_>, read: &mut Reader<'_>) {
    let places = [
        (&["methods", "paths", "hosts", "headers", "path", "method", "host"][..], "http"),
        (&["service", "services"][..], "grpc"),
        (&["protocols"][..], "upgrade"),
        (&["to_ports"][..], "connect"),
        (&["claims", "issuer", "audience", "audiences"][..], "jwt"),
    ];
    for (keys, place) in places {
        for key in keys {
            if !fields.has(key) {
                continue;
            }
            let (why, cure) = (format!("belongs under \"{place}\""), format!("move it into {place}: {{…}}"));
            fields.misplaced(key, &why, &cure, read);
        }
    }
    for key in ["port", "ports"] {
        fields.misplaced(
            key,
            "belongs under \"tcp\" or \"http\"",
            "move it into tcp: {…} or http: {…}",
            read,
        );
    }
}

fn read_peers(node: &Node, read: &mut Reader<'_>) -> Option<Peers> {
    let mut peers = Peers::default();
    let read_one = |read: &mut Reader<'_>, item: &Node| {
        match read.string(item)? {
            "anyone" => peers.anyone = true,
            "unauthenticated" => peers.unauthenticated = true,
            text if text.contains("://") || text.contains('/') => peers.patterns.push(read_id(item, read)?),
            text => {
                let cure = match text {
                    "*" | "**" | "any" | "all" | "everyone" => {
                        Some("write \"anyone\" for every caller".to_owned())
                    }
                    other => suggest(other, ["anyone", "unauthenticated"])
                        .map(|word| format!("did you mean \"{word}\"?")),
                };
                let message =
                    format!("{} is no SPIFFE ID, nor \"anyone\" or \"unauthenticated\"", quoted(text));
                read.problem(item, message, cure.as_deref());
                return None;
            }
        }
        Some(())
    };
    read.each(node, MAX_FROM, read_one)?;
    Some(peers)
}

// An absent identity must never satisfy a negative, so there is one only below a set of identities.
fn read_except(node: &Node, from: Option<&Peers>, read: &mut Reader<'_>) -> Option<Vec<IdPattern>> {
    let except = read.each(node, MAX_FROM, |read, item| match read.string(item)? {
        word @ ("anyone" | "unauthenticated") => {
            let message = format!("\"{word}\" cannot be excepted");
            read.problem(item, message, Some("except names SPIFFE IDs; leave the word out of \"from\""));
            None
        }
        _ => read_id(item, read),
    });
    if from.is_some_and(|from| !from.anyone && from.patterns.is_empty()) {
        let cure = "remove it: \"from\" names nobody with a SPIFFE ID";
        read.problem(node, "there is nobody to except", Some(cure));
        return None;
    }
    except
}
