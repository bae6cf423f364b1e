//! The values of a test, one by one. What Istio accepts and never matches is kept, with a warning.

use std::net::IpAddr;
use std::sync::Arc;

use super::clauses::{Attribute, Values};
use super::{MAX_SERVICE_ACCOUNTS, MAX_STARS, MAX_VALUES};
use crate::net::{Network, NetworkError};
use crate::path::CanonicalPath;
use crate::strict::{Node, Reader, quote};

/// Reads a list of values for an attribute.
pub(super) fn read_values(node: &Node, attribute: &Attribute, read: &mut Reader<'_>) -> Option<Values> {
    match attribute {
        Attribute::Port => read.each(node, MAX_VALUES, read_port).map(Values::Ports),
        Attribute::SourceIp | Attribute::DestinationIp => {
            read.each(node, MAX_VALUES, read_network).map(Values::Networks)
        }
        Attribute::ServiceAccount => read
            .each(node, MAX_SERVICE_ACCOUNTS, |read, node| read_text(node, attribute, read))
            .map(Values::Texts),
        Attribute::Principal
        | Attribute::Namespace
        | Attribute::TrustDomain
        | Attribute::Sni
        | Attribute::Host
        | Attribute::Method
        | Attribute::Path
        | Attribute::Header(_)
        | Attribute::RequestPrincipal
        | Attribute::Claim(_) => {
            read.each(node, MAX_VALUES, |read, node| read_text(node, attribute, read)).map(Values::Texts)
        }
    }
}

fn read_port(read: &mut Reader<'_>, node: &Node) -> Option<u16> {
    let text = read.string(node)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits => Some(port),
        Ok(_) | Err(_) => {
            read.problem(node, format!("{} is not a port from 0 to 65535", quote(text)), None);
            None
        }
    }
}

fn read_network(read: &mut Reader<'_>, node: &Node) -> Option<Network> {
    let text = read.string(node)?;
    let whole = match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("{address}/32"),
        Ok(IpAddr::V6(address)) => format!("{address}/128"),
        Err(_) => text.to_owned(),
    };
    let mapped = whole.split('/').next().and_then(|address| address.parse::<std::net::Ipv6Addr>().ok());
    if mapped.is_some_and(|address| address.to_ipv4_mapped().is_some()) {
        let cure = "write the IPv4 network that is meant";
        read.problem(
            node,
            format!("{} is IPv4 written as IPv6, which matches nobody in Istio", quote(text)),
            Some(cure),
        );
        return None;
    }
    match Network::parse(&whole) {
        Ok(network) => Some(network),
        Err(NetworkError::HostBits { network }) => {
            let message = format!("{} has bits after the prefix: the network is {network}", quote(text));
            read.warn(node.span(), message, &format!("write \"{network}\""));
            Network::parse(&network).ok()
        }
        Err(error) => {
            read.problem(node, format!("{} is not a network: {error}", quote(text)), None);
            None
        }
    }
}

fn read_text(node: &Node, attribute: &Attribute, read: &mut Reader<'_>) -> Option<Arc<str>> {
    let text = read.string(node)?;
    match attribute {
        Attribute::ServiceAccount => check_service_account(text, node, read)?,
        Attribute::Path => check_path(text, node, read)?,
        Attribute::Namespace | Attribute::TrustDomain => check_stars(text, node, read)?,
        Attribute::Principal => warn_of_principal(text, node, read),
        Attribute::Host | Attribute::Method => warn_of_star(text, node, read),
        Attribute::SourceIp
        | Attribute::DestinationIp
        | Attribute::Port
        | Attribute::Sni
        | Attribute::Header(_)
        | Attribute::RequestPrincipal
        | Attribute::Claim(_) => {}
    }
    Some(text.into())
}

fn check_service_account(text: &str, node: &Node, read: &mut Reader<'_>) -> Option<()> {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
    };
    let good = match text.split_once('/') {
        Some((namespace, account)) => part(namespace) && part(account),
        None => part(text),
    };
    if !good {
        let cure =
            "write \"namespace/account\", or \"account\" for one of the policy's namespace, without \"*\"";
        read.problem(node, format!("{} is not a service account", quote(text)), Some(cure));
    }
    good.then_some(())
}

fn check_stars(text: &str, node: &Node, read: &mut Reader<'_>) -> Option<()> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_' | '*');
    if !text.chars().all(plain) {
        let message = format!("{} has characters that no identity has there", quote(text));
        read.problem(node, message, Some("use letters, digits, \"-\", \"_\", \".\" and \"*\""));
        return None;
    }
    if text.matches('*').count() > MAX_STARS {
        read.problem(node, format!("there are more than {MAX_STARS} \"*\""), None);
        return None;
    }
    Some(())
}

// As Istio's validator does it: slashes at both ends do not count, and templates want whole segments.
fn check_path(text: &str, node: &Node, read: &mut Reader<'_>) -> Option<()> {
    let template = is_template(text);
    let mut rest_seen = false;
    for segment in text.trim_matches('/').split('/') {
        let problem = match segment {
            ONE | REST if rest_seen => Some("\"{**}\" can only be the last operator"),
            ONE => None,
            REST => {
                rest_seen = true;
                None
            }
            _ if segment.contains(['{', '}']) => Some("\"{\" and \"}\" are only for \"{*}\" and \"{**}\""),
            _ if template && !is_literal(segment) => {
                Some("beside \"{*}\" and \"{**}\" there are only whole segments, without \"*\"")
            }
            _ => None,
        };
        if let Some(problem) = problem {
            read.problem(node, format!("{} is not a path: {problem}", quote(text)), None);
            return None;
        }
    }
    if !text.starts_with(['/', '*']) {
        let message = format!("{} matches no path: they begin with \"/\"", quote(text));
        read.warn(node.span(), message, &format!("write \"/{text}\""));
    }
    if !template {
        warn_of_star(text, node, read);
        warn_of_form(text, node, read);
    }
    Some(())
}

// A sidecar of ours compares what it forwards, and that is a path in its one form, whatever a mesh does elsewhere. Of a prefix the last
// segment is not whole.
fn warn_of_form(text: &str, node: &Node, read: &mut Reader<'_>) {
    let whole = match text.strip_suffix('*') {
        Some(prefix) => prefix.rsplit_once('/').map(|(segments, _)| format!("{segments}/")),
        None => Some(text.to_owned()),
    };
    let Some(whole) = whole else { return };
    if let Ok(path) = CanonicalPath::parse(&whole)
        && path.as_str() != whole
    {
        let message = format!("{} is no path that a sidecar forwards, and matches none there", quote(text));
        read.warn(
            node.span(),
            message,
            &format!("write it as requests are forwarded: {}", quote(path.as_str())),
        );
    }
}

fn is_literal(segment: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte);
    !segment.is_empty() && segment.bytes().all(fits)
}

fn warn_of_principal(text: &str, node: &Node, read: &mut Reader<'_>) {
    if let Some(without) = text.strip_prefix("spiffe://") {
        let message = format!("{} matches nobody: Istio puts \"spiffe://\" before it once more", quote(text));
        read.warn(node.span(), message, &format!("write \"{without}\""));
    } else if text.strip_prefix('*').is_some_and(|rest| rest.contains(['.', '+', '(', ')', '[', ']', '?'])) {
        let message =
            format!("{} is a regular expression to some versions of Istio, and plain text here", quote(text));
        read.warn(node.span(), message, "write the principal out");
    }
    warn_of_star(text, node, read);
}

fn warn_of_star(text: &str, node: &Node, read: &mut Reader<'_>) {
    let inner = text.strip_prefix('*').unwrap_or_else(|| text.strip_suffix('*').unwrap_or(text));
    if inner.contains('*') {
        let message =
            format!("the \"*\" within {} is an ordinary character, and matches hardly anything", quote(text));
        read.warn(node.span(), message, "\"*\" stands for more only at one end of the text");
    }
}

/// Whether a path is a template.
pub(super) fn is_template(text: &str) -> bool {
    text.contains(ONE) || text.contains(REST)
}

/// One segment.
pub(super) const ONE: &str = "{*}";

/// Anything.
pub(super) const REST: &str = "{**}";

#[cfg(test)]
mod tests {
    use crate::load::compile;
    use crate::strict::Source;

    fn warnings(path: &str) -> String {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\n\
             spec:\n  action: DENY\n  rules:\n  - to: [{{operation: {{paths: ['{path}'], ports: ['80']}}}}]\n"
        );
        let set = compile(&[Source::new("a.yaml", text)]).unwrap();
        set.warnings().to_string()
    }

    #[test]
    fn a_path_in_a_form_that_no_sidecar_forwards_is_warned_of() {
        let told = |path: &str| warnings(path).contains("no path that a sidecar forwards");

        for path in ["//admin", "/caf%c3%a9", "/a/./b", "/a//b*", "/a/../b*", "/a?x=1"] {
            assert!(told(path), "{path}");
        }
        for path in
            ["/admin", "/admin/", "/caf%C3%A9", "/a+b", "/a/b*", "/a/.*", "/*", "*", "*.txt", "/a/{*}/b"]
        {
            assert!(!told(path), "{path}");
        }
    }
}
