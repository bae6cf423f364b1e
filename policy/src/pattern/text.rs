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

    /// Whether it is one text, spelled out.
    pub(crate) fn is_exact(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// Whether case matters.
    pub fn case(&self) -> Case {
        self.case
    }

    /// Whether the whole text is made up of the pieces.
    ///
    /// Takes at most as many steps as the text has bytes for each of the pieces, save where a run of one segment stands
    /// between two runs of anything: there the bytes count twice.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut walk = Walk { pattern: self, text, piece: 0, at: 0, segment: None, run: None, steps: 0 };
        walk.fits()
    }
}

/// One comparison of a pattern with a text.
struct Walk<'p> {
    pattern: &'p TextPattern,
    text: &'p [u8],
    /// The piece that is next, and where in the text.
    piece: usize,
    at: usize,
    /// The piece after the last run inside a segment, and where in the text it was tried last.
    segment: Option<(usize, usize)>,
    /// The same for the last run of anything.
    run: Option<(usize, usize)>,
    steps: usize,
}

/// What looking at one piece led to.
enum Step {
    On,
    Fails,
    Decided(bool),
}

impl Walk<'_> {
    // Only the last run of each kind is ever made longer: whatever a later run of the same kind makes of the text, it can as
    // well make from the first place where it can begin. So there is no trying of all combinations.
    fn fits(&mut self) -> bool {
        loop {
            self.steps += 1;
            match self.step() {
                Step::On => {}
                Step::Decided(fits) => return fits,
                Step::Fails if self.lengthen() => {}
                Step::Fails => return false,
            }
        }
    }

    fn step(&mut self) -> Step {
        let Some(left) = self.text.get(self.at..) else { return Step::Fails };
        match self.pattern.pieces.get(self.piece) {
            None if left.is_empty() => Step::Decided(true),
            None => Step::Fails,
            Some(Piece::Literal(literal)) if begins(left, literal.as_bytes(), self.pattern.case) => {
                self.piece += 1;
                self.at += literal.len();
                Step::On
            }
            Some(Piece::Literal(_)) => Step::Fails,
            Some(Piece::Run) => self.anything(0),
            Some(Piece::NonEmptyRun) => self.anything(1),
            Some(Piece::SegmentRun) => self.in_segment(0, left),
            Some(Piece::NonEmptySegmentRun) => self.in_segment(1, left),
        }
    }

    fn anything(&mut self, least: usize) -> Step {
        let (start, end) = (self.at + least, self.text.len());
        let rest = self.pattern.pieces.get(self.piece + 1..).unwrap_or_default();
        if start > end {
            return Step::Decided(false);
        }
        if rest.is_empty() {
            return Step::Decided(true);
        }
        // With literals only to come, the end of the text says where they are.
        if let Some(tail) = literals(rest) {
            return match end.checked_sub(tail).filter(|at| *at >= start) {
                Some(at) => {
                    (self.piece, self.at, self.run, self.segment) = (self.piece + 1, at, None, None);
                    Step::On
                }
                None => Step::Decided(false),
            };
        }
        (self.piece, self.at) = (self.piece + 1, start);
        (self.run, self.segment) = (Some((self.piece, start)), None);
        Step::On
    }

    fn in_segment(&mut self, least: usize, left: &[u8]) -> Step {
        if least > 0 && left.first().is_none_or(|byte| *byte == b'/') {
            return Step::Fails;
        }
        (self.piece, self.at) = (self.piece + 1, self.at + least);
        self.segment = Some((self.piece, self.at));
        Step::On
    }

    /// Makes the last run one byte longer, if it can be.
    fn lengthen(&mut self) -> bool {
        if let Some((piece, at)) = self.segment
            && self.text.get(at).is_some_and(|byte| *byte != b'/')
        {
            (self.piece, self.at, self.segment) = (piece, at + 1, Some((piece, at + 1)));
            return true;
        }
        self.segment = None;
        match self.run {
            Some((piece, at)) if at < self.text.len() => {
                (self.piece, self.at, self.run) = (piece, at + 1, Some((piece, at + 1)));
                true
            }
            Some(_) | None => false,
        }
    }
}

fn literals(pieces: &[Piece]) -> Option<usize> {
    pieces.iter().try_fold(0, |sum, piece| match piece {
        Piece::Literal(text) => Some(sum + text.len()),
        Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun | Piece::NonEmptySegmentRun => None,
    })
}

fn begins(text: &[u8], literal: &[u8], case: Case) -> bool {
    text.get(..literal.len()).is_some_and(|start| match case {
        Case::Sensitive => start == literal,
        Case::Insensitive => start.eq_ignore_ascii_case(literal),
    })
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
    fn bytes_that_are_no_text_are_compared_as_they_are() {
        let pattern = pattern(vec![literal("a"), Piece::NonEmptyRun]);

        assert!(pattern.matches(b"a\xff\x00"));
        assert!(!pattern.matches(b"\xffa"));
    }

    /// What an attacker would send: nearly what the pattern asks for, again and again, and never to its end.
    #[test]
    fn hostile_texts_cost_no_more_than_their_length_for_each_piece() {
        let text = "a".repeat(8192);
        let segments = format!("{}b", "a/".repeat(4096));
        let stars = |piece: &Piece| {
            let mut pieces = vec![literal("a")];
            for _ in 0..64 {
                pieces.extend([piece.clone(), literal("a")]);
            }
            pieces.push(literal("c"));
            pieces
        };
        let namespaces = |count: usize| {
            let mut pieces = vec![Piece::Run, literal("/ns/")];
            for _ in 0..count {
                pieces.extend([literal("a"), Piece::Run]);
            }
            pieces.extend([literal("/"), Piece::Run]);
            pieces
        };
        let mut template = vec![literal("/a")];
        for _ in 0..30 {
            template.extend([literal("/"), Piece::NonEmptySegmentRun]);
        }
        template.extend([literal("/"), Piece::Run, literal("/cart")]);
        for pieces in [
            stars(&Piece::Run),
            stars(&Piece::NonEmptyRun),
            stars(&Piece::SegmentRun),
            stars(&Piece::NonEmptySegmentRun),
            namespaces(60),
            template,
        ] {
            for text in [text.as_str(), &segments, &format!("/ns/{text}"), &format!("/{segments}/cart?")] {
                let pattern = pattern(pieces.clone());
                let mut walk = Walk {
                    pattern: &pattern,
                    text: text.as_bytes(),
                    piece: 0,
                    at: 0,
                    segment: None,
                    run: None,
                    steps: 0,
                };
                assert!(!walk.fits(), "{pieces:?}");
                let most = (text.len() + 1) * (pieces.len() + 1);
                assert!(walk.steps <= most, "{} steps, at most {most}, for {pieces:?}", walk.steps);
            }
        }
    }

    fn pieces() -> impl Strategy<Value = Vec<Piece>> {
        let piece = prop_oneof![
            4 => "[abA/\\n]{1,3}".prop_map(|text| Piece::Literal(text.into())),
            1 => Just(Piece::Run),
            1 => Just(Piece::NonEmptyRun),
            1 => Just(Piece::SegmentRun),
            1 => Just(Piece::NonEmptySegmentRun),
        ];
        prop::collection::vec(piece, 0..8)
    }

    fn as_regex(pieces: &[Piece], case: Case) -> regex::bytes::Regex {
        let insensitive = if case == Case::Insensitive { "i" } else { "" };
        let mut text = format!("(?{insensitive}s-u)\\A");
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => text.push_str(&regex::escape(literal)),
                Piece::Run => text.push_str(".*"),
                Piece::NonEmptyRun => text.push_str(".+"),
                Piece::SegmentRun => text.push_str("[^/]*"),
                Piece::NonEmptySegmentRun => text.push_str("[^/]+"),
            }
        }
        regex::bytes::Regex::new(&(text + "\\z")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_pattern_matches_what_the_regular_expression_for_it_matches(
            pieces in pieces(),
            texts in prop::collection::vec("[abA/\\n]{0,12}", 12),
            sensitive: bool,
        ) {
            let case = if sensitive { Case::Sensitive } else { Case::Insensitive };
            let (regex, pattern) = (as_regex(&pieces, case), TextPattern::new(pieces.clone(), case, ""));
            for text in texts {
                let expected = regex.is_match(text.as_bytes());
                prop_assert_eq!(pattern.matches(text.as_bytes()), expected, "{:?} {:?}", pieces, text);
            }
        }
    }

    #[test]
    fn case_matters_where_the_pattern_says_so() {
        let pieces = || vec![literal("Api."), Piece::Run];

        assert!(!pattern(pieces()).matches(b"api.test"));
        assert!(TextPattern::new(pieces(), Case::Insensitive, "").matches(b"api.test"));
    }
}
