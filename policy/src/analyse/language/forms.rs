//! Every matcher of the rules as a pattern over bytes: texts and runs, one after another.

use std::sync::Arc;

use crate::net::Network;
use crate::pattern::{
    Case, HostKind, HostPattern, IdPattern, PathPattern, Piece, Segment, Segments, TextPattern,
};

/// A set of texts: those that one of the alternatives makes up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    pub(crate) alternatives: Vec<Vec<Step>>,
    pub(crate) case: Case,
}

/// A part of an alternative.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// This text.
    Text(Arc<str>),
    /// Bytes of a class, or nothing.
    Any(Class),
    /// Bytes of a class, at least one.
    Some(Class),
}

/// Bytes that a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    /// Every byte.
    Byte,
    /// Every byte but a slash.
    NotSlash,
    /// Slashes.
    Slash,
    /// What a label of a host is made of.
    Label,
    /// Decimal digits.
    Digit,
}

impl Class {
    pub(crate) fn has(self, byte: u8) -> bool {
        match self {
            Self::Byte => true,
            Self::NotSlash => byte != b'/',
            Self::Slash => byte == b'/',
            Self::Label => !matches!(byte, b'.' | b'[' | b']' | b':'),
            Self::Digit => byte.is_ascii_digit(),
        }
    }
}

impl Pattern {
    /// This text alone.
    pub(crate) fn exact(text: &str) -> Self {
        Self::sensitive(vec![vec![Step::Text(text.into())]])
    }

    fn sensitive(alternatives: Vec<Vec<Step>>) -> Self {
        Self { alternatives, case: Case::Sensitive }
    }

    /// The one text meant, if there is only one.
    pub(crate) fn literal(&self) -> Option<&str> {
        match (self.alternatives.as_slice(), self.case) {
            ([only], Case::Sensitive) => match only.as_slice() {
                [Step::Text(text)] => Some(text),
                _ => None,
            },
            _ => None,
        }
    }

    /// SPIFFE IDs.
    pub(crate) fn ids(pattern: &IdPattern) -> Self {
        if pattern.segments().is_literal() {
            return Self::exact(pattern.as_str());
        }
        Self::segments("spiffe://", pattern.segments(), &Step::Text("/".into()))
    }

    /// Paths in the form in which native rules compare them.
    pub(crate) fn paths(pattern: &PathPattern) -> Self {
        Self::segments("/", pattern.segments(), &Step::Text("/".into()))
    }

    /// Paths as Istio's rules see them, of which native rules see a form with single slashes.
    pub(crate) fn loose_paths(pattern: &PathPattern) -> Self {
        Self::segments("", pattern.segments(), &Step::Some(Class::Slash)).after(&Step::Some(Class::Slash))
    }

    /// Authorities whose host is meant, whatever the port, with or without a trailing dot.
    pub(crate) fn authorities(pattern: &HostPattern) -> Self {
        let host = match pattern.kind() {
            HostKind::Exact(name) => vec![Step::Text(Arc::clone(name))],
            HostKind::Below(parent) => {
                vec![Step::Some(Class::Label), Step::Text(format!(".{parent}").into())]
            }
        };
        let ends = [vec![], vec![text(".")], vec![text(":"), digits()], vec![text(".:"), digits()]];
        let alternatives = ends.map(|end| host.iter().cloned().chain(end).collect()).into();
        Self { alternatives, case: Case::Insensitive }
    }

    /// Texts as Istio's rules compare them.
    pub(crate) fn texts(pattern: &TextPattern) -> Self {
        let step = |piece: &Piece| match piece {
            Piece::Literal(text) => Step::Text(Arc::clone(text)),
            Piece::Run => Step::Any(Class::Byte),
            Piece::NonEmptyRun => Step::Some(Class::Byte),
            Piece::SegmentRun => Step::Any(Class::NotSlash),
            Piece::NonEmptySegmentRun => Step::Some(Class::NotSlash),
        };
        let steps = pattern.pieces().iter().map(step).collect();
        Self { alternatives: vec![steps], case: pattern.case() }
    }

    fn segments(root: &str, segments: &Segments, slash: &Step) -> Self {
        let mut steps = vec![text(root)];
        for (number, segment) in segments.steps.iter().enumerate() {
            if number > 0 {
                steps.push(slash.clone());
            }
            steps.push(match segment {
                Segment::Literal(name) => Step::Text(Arc::clone(name)),
                Segment::Any => Step::Some(Class::NotSlash),
            });
        }
        if !segments.rest {
            return Self::sensitive(vec![merged(steps)]);
        }
        // The rest of a whole is the whole; the rest of something begins with a slash, or is nothing.
        let mut below = steps.clone();
        if !segments.steps.is_empty() {
            below.push(slash.clone());
        }
        below.push(Step::Any(Class::Byte));
        let alternatives = if segments.steps.is_empty() { vec![below] } else { vec![below, steps] };
        Self::sensitive(alternatives.into_iter().map(merged).collect())
    }

    fn after(mut self, first: &Step) -> Self {
        self.alternatives.iter_mut().for_each(|steps| steps.insert(0, first.clone()));
        self
    }
}

/// The bounds of a network, and whether it is of IPv4.
pub(crate) fn bounds(network: Network) -> (bool, u128, u128) {
    let (v4, low, length) = network.bits();
    let width = if v4 { 32 } else { 128 };
    let free = width - u32::from(length);
    let mask = if free >= 128 { u128::MAX } else { (1u128 << free) - 1 };
    (v4, low, low | mask)
}

fn text(text: &str) -> Step {
    Step::Text(text.into())
}

fn digits() -> Step {
    Step::Some(Class::Digit)
}

// Neighbouring texts become one, so that a pattern of one text is seen to be one.
fn merged(steps: Vec<Step>) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    for step in steps {
        match (out.last_mut(), &step) {
            (Some(Step::Text(before)), Step::Text(next)) => *before = format!("{before}{next}").into(),
            (_, Step::Text(next)) if next.is_empty() => {}
            _ => out.push(step),
        }
    }
    out
}
