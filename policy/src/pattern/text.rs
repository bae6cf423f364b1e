//! Patterns of whole texts, for the files of other meshes: pieces one after another, compared byte by byte.

use std::fmt;
use std::sync::Arc;

/// A sequence of pieces that must make up the whole text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TextPattern {
    pieces: Box<[Piece]>,
    case: Case,
    written: Arc<str>,
}

/// A part of a [`TextPattern`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Piece {
    /// This text.
    Literal(Arc<str>),
    /// Anything, or nothing.
    Run,
    /// Anything, and at least one byte.
    NonEmptyRun,
    /// Anything without a slash, or nothing.
    SegmentRun,
    /// Anything without a slash, and at least one byte.
    NonEmptySegmentRun,
}

/// Whether upper and lower case letters of ASCII differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// They do.
    Sensitive,
    /// They do not.
    Insensitive,
}

impl TextPattern {
    /// A pattern of pieces; `written` is how its author wrote it.
    pub fn new(pieces: Vec<Piece>, case: Case, written: &str) -> Self {
        Self { pieces: pieces.into(), case, written: written.into() }
    }

    /// A pattern of one text.
    pub fn exact(text: &str) -> Self {
        Self::new(vec![Piece::Literal(text.into())], Case::Sensitive, text)
    }

    /// The pieces.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether case matters.
    pub fn case(&self) -> Case {
        self.case
    }

    /// Whether the whole text is made up of the pieces.
    pub fn matches(&self, text: &[u8]) -> bool {
        fits(&self.pieces, text, self.case)
    }
}

// Only a run that another run follows could make this take long; there the first place where the pieces between them fit is as
// good as any later one, since the second run takes the rest.
fn fits(pieces: &[Piece], text: &[u8], case: Case) -> bool {
    let Some((piece, rest)) = pieces.split_first() else { return text.is_empty() };
    match piece {
        Piece::Literal(literal) => {
            without(text, literal.as_bytes(), case).is_some_and(|text| fits(rest, text, case))
        }
        Piece::Run => run(rest, text, 0, text.len(), case),
        Piece::NonEmptyRun => run(rest, text, 1, text.len(), case),
        Piece::SegmentRun => run(rest, text, 0, segment(text), case),
        Piece::NonEmptySegmentRun => run(rest, text, 1, segment(text), case),
    }
}

fn run(rest: &[Piece], text: &[u8], least: usize, most: usize, case: Case) -> bool {
    if rest.is_empty() {
        return most == text.len() && most >= least;
    }
    // With literals only to come, the end of the text says where they are.
    if let Some(tail) = literals(rest)
        && most == text.len()
    {
        return text.len().checked_sub(tail).is_some_and(|at| at >= least && ends(rest, text, at, case));
    }
    (least..=most).any(|skipped| text.get(skipped..).is_some_and(|text| fits(rest, text, case)))
}

fn ends(rest: &[Piece], text: &[u8], at: usize, case: Case) -> bool {
    text.get(at..).is_some_and(|text| fits(rest, text, case))
}

fn literals(pieces: &[Piece]) -> Option<usize> {
    pieces.iter().try_fold(0, |sum, piece| match piece {
        Piece::Literal(text) => Some(sum + text.len()),
        Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun | Piece::NonEmptySegmentRun => None,
    })
}

fn segment(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'/').unwrap_or(text.len())
}

fn without<'t>(text: &'t [u8], literal: &[u8], case: Case) -> Option<&'t [u8]> {
    let (start, rest) = text.split_at_checked(literal.len())?;
    let same = match case {
        Case::Sensitive => start == literal,
        Case::Insensitive => start.eq_ignore_ascii_case(literal),
    };
    same.then_some(rest)
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Piece {
        Piece::Literal(text.into())
    }

    fn pattern(pieces: Vec<Piece>) -> TextPattern {
        TextPattern::new(pieces, Case::Sensitive, "")
    }

    #[test]
    fn pieces_make_up_the_whole_text() {
        let cases: [(Vec<Piece>, &str, bool); 14] = [
            (vec![literal("ab")], "ab", true),
            (vec![literal("ab")], "abc", false),
            (vec![literal("ab"), Piece::Run], "ab", true),
            (vec![literal("ab"), Piece::NonEmptyRun], "ab", false),
            (vec![Piece::Run, literal("ab")], "abab", true),
            (vec![Piece::Run, literal("ab")], "abc", false),
            (vec![Piece::NonEmptyRun], "", false),
            (vec![Piece::Run, literal("/ns/a/"), Piece::Run], "spiffe://t/ns/b/ns/a/x", true),
            (vec![Piece::Run, literal("/ns/a/"), Piece::Run], "spiffe://t/ns/ab/x", false),
            (vec![literal("/"), Piece::NonEmptySegmentRun, literal("/c")], "/b/c", true),
            (vec![literal("/"), Piece::NonEmptySegmentRun, literal("/c")], "//c", false),
            (vec![literal("/"), Piece::NonEmptySegmentRun, literal("/c")], "/a/b/c", false),
            (vec![Piece::SegmentRun, literal("-td/")], "a-td-td/", true),
            (vec![Piece::SegmentRun], "a/b", false),
        ];
        for (pieces, text, expected) in cases {
            assert_eq!(pattern(pieces.clone()).matches(text.as_bytes()), expected, "{pieces:?} {text}");
        }
    }

    #[test]
    fn case_matters_where_the_pattern_says_so() {
        let pieces = || vec![literal("Api."), Piece::Run];

        assert!(!pattern(pieces()).matches(b"api.test"));
        assert!(TextPattern::new(pieces(), Case::Insensitive, "").matches(b"api.test"));
    }
}
