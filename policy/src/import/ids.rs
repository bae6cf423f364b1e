//! Istio's patterns of identities as native ones. Where none says the same, one that says less or one that says more, as it is asked.

use std::collections::BTreeSet;

use super::Assumption;
use crate::mesh::Mesh;
use crate::pattern::{IdPattern, Piece, TextPattern};

/// Which way a pattern may err.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Toward {
    Less,
    More,
}

/// What must be known to rewrite patterns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'m> {
    pub(super) mesh: &'m Mesh,
    pub(super) assumed: &'m BTreeSet<Assumption>,
}

/// The native patterns for one of Istio's; `None` where even erring does not help.
pub(super) fn ids(
    pattern: &TextPattern,
    toward: Toward,
    known: Known<'_>,
    notes: &mut Vec<String>,
) -> Option<Vec<String>> {
    let pieces = joined(pattern.pieces());
    // An ordinary "*" is in no identity.
    if pieces.iter().any(|part| matches!(part, Part::Text(text) if text.contains('*'))) {
        return Some(Vec::new());
    }
    match pieces.as_slice() {
        [Part::Text(whole)] => Some(parsed(whole).into_iter().collect()),
        [Part::Text(start), Part::Run] => prefix(start, pattern, toward, notes),
        _ => anywhere(&pieces, pattern, toward, known, notes),
    }
}

fn anywhere(
    pieces: &[Part],
    pattern: &TextPattern,
    toward: Toward,
    known: Known<'_>,
    notes: &mut Vec<String>,
) -> Option<Vec<String>> {
    let usual = usual(pieces, known.mesh);
    let (found, told) = match (toward, usual) {
        (Toward::Less, usual) => {
            (Some(usual.unwrap_or_default()), "those of the mesh are meant, in the usual form")
        }
        (Toward::More, Some(usual)) if known.assumed.contains(&Assumption::UsualIdentities) => {
            (Some(usual), "read as those of the mesh, in the usual form; others are no longer meant")
        }
        (Toward::More, _) => (None, "it could not be said, and the rule reaches further"),
    };
    notes.push(format!("{pattern} is in any trust domain; a native rule names each: {told}"));
    found
}

fn prefix(
    start: &str,
    pattern: &TextPattern,
    toward: Toward,
    notes: &mut Vec<String>,
) -> Option<Vec<String>> {
    if start.ends_with('/') && start.len() > SCHEME.len() {
        return Some(parsed(&format!("{start}*/**")).into_iter().collect());
    }
    notes.push(format!("{pattern} ends within a segment; a native pattern has whole segments"));
    match toward {
        Toward::Less => Some(parsed(&format!("{start}/**")).into_iter().collect()),
        Toward::More => {
            let (parent, _) = start.rsplit_once('/')?;
            parsed(&format!("{parent}/**")).map(|pattern| vec![pattern])
        }
    }
}

// Namespaces, service accounts and suffixes, for identities of the form that Istio gives them; `None` for other patterns.
fn usual(pieces: &[Part], mesh: &Mesh) -> Option<Vec<String>> {
    let path = match pieces {
        [Part::Run, Part::Text(inner), Part::Run] if inner.starts_with("/ns/") && inner.ends_with('/') => {
            format!("{inner}sa/*")
        }
        [Part::Run, Part::Text(start), Part::Run, Part::Text(end), Part::Run]
            if start == "/ns/" && end == "/" =>
        {
            "/ns/*/sa/*".to_owned()
        }
        // Service accounts with other segments between or after: no usual identity has them.
        [Part::Text(_), Part::Run, Part::Text(namespace), rest @ ..]
            if namespace.starts_with("/ns/") && namespace.ends_with('/') && !rest.is_empty() =>
        {
            return Some(Vec::new());
        }
        [Part::Text(scheme), Part::Run, Part::Text(end)] if scheme == SCHEME => {
            match end.split('/').count() {
                5 if end.starts_with("/ns/") => end.clone(),
                3 if end.starts_with("/sa/") => format!("/ns/*{end}"),
                _ => return None,
            }
        }
        _ => return None,
    };
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    Some(domains.filter_map(|domain| parsed(&format!("{SCHEME}{domain}{path}"))).collect())
}

fn parsed(text: &str) -> Option<String> {
    IdPattern::parse(text).ok().map(|pattern| pattern.to_string())
}

enum Part {
    Text(String),
    Run,
}

fn joined(pieces: &[Piece]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        match (piece, parts.last_mut()) {
            (Piece::Literal(text), Some(Part::Text(before))) => before.push_str(text),
            (Piece::Literal(text), _) => parts.push(Part::Text(text.to_string())),
            (Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun | Piece::NonEmptySegmentRun, _) => {
                parts.push(Part::Run);
            }
        }
    }
    parts
}

const SCHEME: &str = "spiffe://";
