//! Patterns over identities and paths: `*` is one segment, `**` at the end is the rest.

use std::{fmt, str::FromStr};

/// A pattern of segments between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    segments: Vec<Segment>,
    rest: Rest,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// There is nothing to match.
    #[error("a pattern is not empty")]
    Empty,
    /// A star is part of a longer segment.
    #[error("`{segment}`: `*` stands for one whole segment, not for a part of one")]
    PartOfSegment {
        /// The segment.
        segment: String,
    },
    /// Two stars are followed by something.
    #[error("`**` stands for the rest and is the last segment")]
    RestNotLast,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    AnyOne,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Nothing,
    Anything,
}

impl Glob {
    /// Says whether the pattern matches the whole of `text`.
    pub fn matches(&self, text: &str) -> bool {
        let mut found = text.split('/');
        for segment in &self.segments {
            match (segment, found.next()) {
                (Segment::Literal(wanted), Some(segment)) if wanted == segment => {}
                (Segment::AnyOne, Some(segment)) if !segment.is_empty() => {}
                (Segment::Literal(_) | Segment::AnyOne, Some(_) | None) => return false,
            }
        }
        self.rest == Rest::Anything || found.next().is_none()
    }
}

impl FromStr for Glob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        let (before, rest) = match text.strip_suffix("/**") {
            Some(before) => (before, Rest::Anything),
            None => (text, Rest::Nothing),
        };
        let segments = before.split('/').map(segment).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), segments, rest })
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

fn segment(text: &str) -> Result<Segment, GlobError> {
    match text {
        "*" => Ok(Segment::AnyOne),
        "**" => Err(GlobError::RestNotLast),
        literal if literal.contains('*') => Err(GlobError::PartOfSegment { segment: literal.to_owned() }),
        literal => Ok(Segment::Literal(literal.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        pattern.parse::<Glob>().unwrap().matches(text)
    }

    #[test]
    fn one_star_is_one_segment() {
        assert!(matches("spiffe://*/ns/dev", "spiffe://prod.test/ns/dev"));
        assert!(matches("/a/*/c", "/a/b/c"));
        for other in ["/a/c", "/a//c", "/a/b/b/c", "/a/b/c/", "/a/b"] {
            assert!(!matches("/a/*/c", other), "{other}");
        }
    }

    #[test]
    fn two_stars_are_the_rest_and_the_place_itself() {
        for below in ["/admin", "/admin/", "/admin/x", "/admin/x/y"] {
            assert!(matches("/admin/**", below), "{below}");
        }
        for beside in ["/administrator", "/", "", "/x/admin", "/admi"] {
            assert!(!matches("/admin/**", beside), "{beside}");
        }
    }

    #[test]
    fn a_pattern_without_stars_is_the_whole_text() {
        assert!(matches("spiffe://prod.test/web", "spiffe://prod.test/web"));
        for other in ["spiffe://prod.test/web/x", "spiffe://prod.test/webb", "spiffe://PROD.test/web"] {
            assert!(!matches("spiffe://prod.test/web", other), "{other}");
        }
    }

    #[test]
    fn stars_inside_a_segment_or_before_the_end_are_refused() {
        assert_eq!("".parse::<Glob>(), Err(GlobError::Empty));
        assert_eq!("/**/x".parse::<Glob>(), Err(GlobError::RestNotLast));
        assert_eq!("**".parse::<Glob>(), Err(GlobError::RestNotLast));
        for partial in ["/a*", "/*a", "/a*b/c", "/***"] {
            assert!(matches!(partial.parse::<Glob>(), Err(GlobError::PartOfSegment { .. })), "{partial}");
        }
    }
}
