//! What is wrong in a file, where, and what to do about it.
//!
//! Everything shown is made of escaped text: a file cannot drive the terminal of whoever reads the report.

use std::error::Error;
use std::fmt;

use serde::Serialize;

use super::{Source, Span};

/// A place in a file; lines and columns start at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    pub(crate) fn new(line: usize, column: usize) -> Self {
        let clamp = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Self { line: clamp(line), column: clamp(column) }
    }
}

/// One thing wrong in one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file name as users know it.
    pub file: String,
    /// Where in the file; absent when the file as a whole is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// The source line, escaped, and cut to a window when it is long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
    #[serde(skip)]
    caret: Caret,
}

impl Problem {
    /// A problem at a place of `source`.
    pub fn at(source: &Source, span: Span, message: impl Into<String>, cure: Option<String>) -> Self {
        let line = usize::try_from(span.start.line).unwrap_or(usize::MAX);
        let text = source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let (excerpt, caret) = excerpt(text, span);
        Self {
            file: escape(&source.name),
            position: Some(span.start),
            message: escape(&message.into()),
            cure: cure.map(|cure| escape(&cure)),
            excerpt: Some(excerpt),
            caret,
        }
    }

    /// A problem of a file as a whole, such as one that cannot be read.
    pub fn in_file(file: &str, message: impl Into<String>, cure: Option<String>) -> Self {
        Self {
            file: escape(file),
            position: None,
            message: escape(&message.into()),
            cure: cure.map(|cure| escape(&cure)),
            excerpt: None,
            caret: Caret::default(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(place) => {
                write!(f, "{}:{}:{}: {}", self.file, place.line, place.column, self.message)?;
                if let Some(excerpt) = &self.excerpt {
                    write!(f, "\n{:>5} | {excerpt}", place.line)?;
                    write!(f, "\n      | {}{}", " ".repeat(self.caret.indent), "^".repeat(self.caret.width))?;
                }
            }
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        match &self.cure {
            Some(cure) => write!(f, "\n      = {cure}"),
            None => Ok(()),
        }
    }
}

/// Everything wrong in a file or in several, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    problems: Vec<Problem>,
    /// How many more there are than are listed.
    left_out: usize,
}

impl Problems {
    /// No problems.
    pub(crate) const fn none() -> Self {
        Self { problems: Vec::new(), left_out: 0 }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are, listed or not.
    pub fn count(&self) -> usize {
        self.problems.len().saturating_add(self.left_out)
    }

    /// The listed problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Adds a problem.
    pub fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Adds the problems of another file.
    pub fn extend(&mut self, other: Problems) {
        self.problems.extend(other.problems);
        self.left_out = self.left_out.saturating_add(other.left_out);
    }

    pub(crate) fn push_within(&mut self, limit: usize, problem: Problem) {
        if self.is_full(limit) { self.leave_out() } else { self.problems.push(problem) }
    }

    pub(crate) fn is_full(&self, limit: usize) -> bool {
        self.problems.len() >= limit
    }

    /// Counts a problem that is not listed.
    pub(crate) fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    pub(crate) fn sort(&mut self) {
        self.problems.sort_by_key(|problem| problem.position);
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem], left_out: 0 }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        match self.left_out {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl Error for Problems {}

/// Quotes what a file says for use in a message, cut to a readable length.
pub(crate) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

pub(crate) fn is_unprintable(letter: char) -> bool {
    // Controls, and the invisible or direction-changing letters that make a text look like another.
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Caret {
    indent: usize,
    width: usize,
}

fn escape(text: &str) -> String {
    text.chars().map(shown).collect()
}

fn shown(letter: char) -> String {
    if is_unprintable(letter) { letter.escape_default().to_string() } else { letter.to_string() }
}

// The caret counts in letters shown, so an escaped letter before it does not shift it.
fn excerpt(line: &str, span: Span) -> (String, Caret) {
    let column = usize::try_from(span.start.column).unwrap_or(1).saturating_sub(1);
    let width = usize::try_from(span.width).unwrap_or(1).max(1);
    let from = column.saturating_sub(WINDOW / 2);
    let mut text = if from > 0 { "…".to_owned() } else { String::new() };
    let mut caret = Caret { indent: text.chars().count(), width: 0 };
    for (index, letter) in line.chars().enumerate().skip(from).take(WINDOW) {
        let piece = shown(letter);
        let letters = piece.chars().count();
        if index < column {
            caret.indent = caret.indent.saturating_add(letters);
        } else if index - column < width {
            caret.width = caret.width.saturating_add(letters);
        }
        text.push_str(&piece);
    }
    if line.chars().nth(from.saturating_add(WINDOW)).is_some() {
        text.push('…');
    }
    caret.width = caret.width.max(1);
    (text, caret)
}

/// Characters of a source line shown around a problem.
const WINDOW: usize = 160;

/// Characters of a foreign text repeated in a message.
const MAX_QUOTED: usize = 120;
