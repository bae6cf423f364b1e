//! Istio's ways of writing texts, as patterns.

use std::sync::Arc;

use super::elements::{ONE, REST, is_template};
use crate::mesh::{Compat, Mesh};
use crate::pattern::{Case, Piece, TextPattern};

/// What `*` alone stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Star {
    /// A value that is there, empty or not.
    Present,
    /// A value that is not empty.
    NotEmpty,
}

/// Exact, `abc*`, `*abc` or `*`.
pub(super) fn simple(text: &str, star: Star, case: Case) -> TextPattern {
    let pieces = match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => vec![match star {
            Star::Present => Piece::Run,
            Star::NotEmpty => Piece::NonEmptyRun,
        }],
        (_, Some(rest), _) => vec![Piece::Run, literal(rest)],
        (_, None, Some(start)) => vec![literal(start), Piece::Run],
        (_, None, None) => vec![literal(text)],
    };
    TextPattern::new(pieces, case, text)
}

/// A principal, which is written without its scheme.
pub(super) fn principal(text: &str) -> TextPattern {
    let mut pieces = vec![literal(SCHEME)];
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => pieces = vec![Piece::NonEmptyRun],
        (_, Some(rest), _) => pieces.extend([Piece::Run, literal(rest)]),
        (_, None, Some(start)) => pieces.extend([literal(start), Piece::Run]),
        (_, None, None) => pieces.push(literal(text)),
    }
    TextPattern::new(pieces, Case::Sensitive, text)
}

/// A namespace: in any trust domain and, for sidecars, after any other segments.
pub(super) fn namespace(text: &str, compat: Compat) -> TextPattern {
    let mut pieces = Vec::new();
    match compat {
        Compat::Sidecar => {
            pieces.extend([Piece::Run, literal("/ns/")]);
            with_stars(text, &Piece::Run, &mut pieces);
            pieces.extend([literal("/"), Piece::Run]);
        }
        Compat::Ambient => {
            pieces.extend([literal(SCHEME), Piece::NonEmptySegmentRun, literal("/ns/")]);
            segment(text, &mut pieces);
            pieces.extend([literal("/sa/"), Piece::NonEmptySegmentRun]);
        }
    }
    TextPattern::new(pieces, Case::Sensitive, text)
}

/// A service account, `N/S` or `S` of the policy's own namespace: in any trust domain and, for sidecars, with other segments between
/// and after.
pub(super) fn service_account(text: &str, own_namespace: &str, compat: Compat) -> Vec<TextPattern> {
    let (namespace, account) = text.split_once('/').unwrap_or((own_namespace, text));
    let pattern = |pieces: Vec<Piece>| TextPattern::new(pieces, Case::Sensitive, text);
    if compat == Compat::Ambient {
        let path = literal(&format!("/ns/{namespace}/sa/{account}"));
        return vec![pattern(vec![literal(SCHEME), Piece::NonEmptySegmentRun, path])];
    }
    let start = || vec![literal(SCHEME), Piece::NonEmptyRun];
    let middles = [
        vec![literal(&format!("/ns/{namespace}/sa/{account}"))],
        vec![literal(&format!("/ns/{namespace}/")), Piece::NonEmptyRun, literal(&format!("/sa/{account}"))],
    ];
    let ends = [vec![], vec![literal("/"), Piece::NonEmptyRun]];
    middles
        .iter()
        .flat_map(|middle| ends.iter().map(|end| [start(), middle.clone(), end.clone()].concat()))
        .map(pattern)
        .collect()
}

/// A trust domain.
pub(super) fn trust_domain(text: &str) -> TextPattern {
    let mut pieces = vec![literal(SCHEME)];
    with_stars(text, &Piece::SegmentRun, &mut pieces);
    pieces.extend([literal("/"), Piece::Run]);
    TextPattern::new(pieces, Case::Sensitive, text)
}

/// A path, or a template of one.
pub(super) fn path(text: &str) -> TextPattern {
    if !is_template(text) {
        return simple(text, Star::NotEmpty, Case::Sensitive);
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, operator) = rest.split_at(at);
        if !before.is_empty() {
            pieces.push(literal(before));
        }
        let (piece, written) =
            if operator.starts_with(REST) { (Piece::Run, REST) } else { (Piece::NonEmptySegmentRun, ONE) };
        pieces.push(piece);
        rest = operator.strip_prefix(written).unwrap_or_default();
    }
    if !rest.is_empty() {
        pieces.push(literal(rest));
    }
    TextPattern::new(pieces, Case::Sensitive, text)
}

/// A request principal: what issuer and subject must be. Issuers are URLs, so the last slash is the one between the two.
pub(super) fn request_principal(text: &str) -> (TextPattern, TextPattern) {
    let any = || TextPattern::new(vec![Piece::NonEmptyRun], Case::Sensitive, "*");
    let (issuer, subject) = match text.rsplit_once('/') {
        Some((issuer, subject)) => (issuer, Some(subject)),
        None => (text, None),
    };
    let suffix = |text: &str| match text.strip_prefix('*') {
        Some("") => any(),
        Some(rest) => TextPattern::new(vec![Piece::Run, literal(rest)], Case::Sensitive, text),
        None => TextPattern::exact(text),
    };
    let prefix = |text: &str| match text.strip_suffix('*') {
        Some("") => any(),
        Some(start) => TextPattern::new(vec![literal(start), Piece::Run], Case::Sensitive, text),
        None => TextPattern::exact(text),
    };
    match (text.starts_with('*'), text.ends_with('*'), subject) {
        (true, _, _) if text == "*" => (any(), any()),
        (true, _, Some(subject)) => (suffix(issuer), TextPattern::exact(subject)),
        (true, _, None) => (any(), suffix(text)),
        (false, true, Some(subject)) => (TextPattern::exact(issuer), prefix(subject)),
        (false, true, None) => (prefix(text), any()),
        (false, false, subject) => {
            (TextPattern::exact(issuer), TextPattern::exact(subject.unwrap_or_default()))
        }
    }
}

/// A principal in each of the names that the trust domain has, if it is written in one of them.
pub(super) fn with_aliases(text: &Arc<str>, mesh: &Mesh) -> Vec<Arc<str>> {
    let parts: Vec<&str> = text.split('/').collect();
    let [domain, rest @ ..] = parts.as_slice() else { return vec![Arc::clone(text)] };
    // Only principals of the usual form have a trust domain to Istio.
    let usual = parts.len() == PRINCIPAL_PARTS && *domain != "*";
    if !usual || !is_own(domain, mesh) {
        return vec![Arc::clone(text)];
    }
    let mut all: Vec<Arc<str>> = Vec::new();
    for name in names(mesh) {
        let covered = domain.strip_prefix('*').is_some_and(|suffix| name.ends_with(suffix));
        let one = if covered { Arc::clone(text) } else { format!("{name}/{}", rest.join("/")).into() };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}

/// A trust domain in each of its names.
pub(super) fn domains_with_aliases(text: &Arc<str>, mesh: &Mesh) -> Vec<Arc<str>> {
    if names(mesh).any(|name| *name == **text) {
        names(mesh).map(|name| name.as_str().into()).collect()
    } else {
        vec![Arc::clone(text)]
    }
}

fn is_own(domain: &str, mesh: &Mesh) -> bool {
    domain == LOCAL
        || names(mesh).any(|name| {
            *name == domain || domain.strip_prefix('*').is_some_and(|suffix| name.ends_with(suffix))
        })
}

fn names(mesh: &Mesh) -> impl Iterator<Item = &String> {
    std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases)
}

fn with_stars(text: &str, star: &Piece, pieces: &mut Vec<Piece>) {
    for (number, part) in text.split('*').enumerate() {
        if number > 0 && pieces.last() != Some(star) {
            pieces.push(star.clone());
        }
        if !part.is_empty() {
            pieces.push(literal(part));
        }
    }
}

// ztunnel knows exact texts, prefixes, suffixes and presence, of one segment.
fn segment(text: &str, pieces: &mut Vec<Piece>) {
    match (text, text.strip_prefix('*'), text.strip_suffix('*')) {
        ("*", ..) => pieces.push(Piece::NonEmptySegmentRun),
        (_, Some(rest), _) => pieces.extend([Piece::SegmentRun, literal(rest)]),
        (_, None, Some(start)) => pieces.extend([literal(start), Piece::SegmentRun]),
        (_, None, None) => pieces.push(literal(text)),
    }
}

fn literal(text: &str) -> Piece {
    Piece::Literal(text.into())
}

/// The start of every SPIFFE ID.
pub(super) const SCHEME: &str = "spiffe://";

// The name that stands for the trust domain of the mesh, whatever it is called.
const LOCAL: &str = "cluster.local";
const PRINCIPAL_PARTS: usize = 5;
