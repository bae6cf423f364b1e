//! Patterns over names made of segments: SPIFFE IDs, request paths, hosts.
//!
//! `*` is exactly one whole segment and a trailing `/**` is the rest, which may be nothing. There is no other
//! wildcard: nothing matches a part of a segment, and the trust domain of an ID is always spelled out.

mod hosts;
mod ids;
mod paths;
mod text;

use std::sync::Arc;

pub(crate) use hosts::{HostKind, parent_of};
pub use hosts::{HostPattern, HostPatternError};
pub(crate) use ids::without_scheme;
pub use ids::{IdPattern, IdPatternError};
pub(crate) use paths::without_root;
pub use paths::{PathPattern, PathPatternError};
pub use text::{Case, Piece, TextPattern};

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Segment {
    /// This very text.
    Literal(Arc<str>),
    /// Any one segment that is not empty.
    Any,
}

/// Segments and what may follow them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Segments {
    pub(crate) steps: Vec<Segment>,
    pub(crate) rest: bool,
}

impl Segments {
    /// Reads segments separated by slashes.
    fn parse(text: &str) -> Result<Self, SegmentError> {
        let mut steps = Vec::new();
        let mut rest = false;
        for segment in text.split('/') {
            if rest {
                return Err(SegmentError::RestNotLast);
            }
            match segment {
                "**" => rest = true,
                "*" => steps.push(Segment::Any),
                part if part.contains('*') => {
                    return Err(SegmentError::PartOfSegment { segment: part.to_owned() });
                }
                literal => steps.push(Segment::Literal(literal.into())),
            }
        }
        if steps.len() > MAX_SEGMENTS {
            return Err(SegmentError::TooMany);
        }
        Ok(Self { steps, rest })
    }

    fn matches(&self, name: &str) -> bool {
        let mut left = Some(name);
        for step in &self.steps {
            let Some(text) = left else { return false };
            let (segment, next) = next_segment(text);
            let fits = match step {
                Segment::Literal(literal) => **literal == *segment,
                Segment::Any => !segment.is_empty(),
            };
            if !fits {
                return false;
            }
            left = next;
        }
        self.rest || left.is_none()
    }

    pub(crate) fn is_literal(&self) -> bool {
        !self.rest && self.steps.iter().all(|step| matches!(step, Segment::Literal(_)))
    }
}

/// The first segment of a name and what follows its slash, if there is one.
pub(crate) fn next_segment(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

/// Why segments with wildcards are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// A `*` stands beside other characters.
    #[error("\"*\" stands for one whole segment, \"{segment}\" mixes it with other characters")]
    PartOfSegment {
        /// The segment at fault.
        segment: String,
    },
    /// `**` is not the last segment.
    #[error("\"**\" can only be the last segment")]
    RestNotLast,
    /// There are more than [`MAX_SEGMENTS`] segments.
    #[error("there are more than {MAX_SEGMENTS} segments")]
    TooMany,
}

/// Most segments in a pattern.
pub const MAX_SEGMENTS: usize = 64;

#[cfg(test)]
mod tests;
