//! Strict YAML: text to a tree in which every node knows its place, and typed reading of that tree.
//!
//! The YAML accepted here is the part on which all readers agree: one document of mappings with string keys,
//! lists and scalars. Anchors, aliases, tags, directives, merge keys, duplicate keys, tabs and control
//! characters are refused, and a plain scalar is a string only where no YAML reader would see a boolean,
//! a number, a date or nothing. All problems of a file are reported together, each with its place and a cure.

mod keys;
mod problem;
mod reader;
mod scalar;
mod suggest;
mod tree;

pub(crate) use problem::quote;
pub use problem::{Position, Problem, Problems};
pub use reader::{Fields, Reader};
pub use suggest::suggest;
pub use tree::{Node, Span};

/// A file as it was read: the name to show to people, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file name as users know it.
    pub name: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// Creates a source from a name and a text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// Creates a source from raw bytes, refusing what is not UTF-8 with the place of the first bad byte.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, Problems> {
        let name = name.into();
        if bytes.len() > MAX_BYTES {
            return Err(Problems::from(too_big(&name, bytes.len())));
        }
        String::from_utf8(bytes).map(|text| Self { name: name.clone(), text }).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let head =
                String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default()).into_owned();
            let place = end_of(&head);
            let source = Self { name, text: head };
            Problems::from(Problem::at(&source, Span::point(place), "the file is not UTF-8 text", None))
        })
    }
}

/// Parses one document. Every structural problem found is in the error.
pub fn parse(source: &Source) -> Result<Node, Problems> {
    let (mut reader, root) = Reader::open(source);
    let Some(root) = root else {
        return Err(reader.into_problems());
    };
    reader.finish().map(|()| root)
}

fn too_big(name: &str, bytes: usize) -> Problem {
    let message = format!("the file has {bytes} bytes, more than the {MAX_BYTES} accepted");
    Problem::in_file(name, message, Some("split it into several files".to_owned()))
}

fn end_of(text: &str) -> Position {
    let line = text.matches('\n').count().saturating_add(1);
    let column = text.rsplit('\n').next().map_or(0, |last| last.chars().count()).saturating_add(1);
    Position::new(line, column)
}

/// Largest accepted file.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Deepest accepted nesting of lists and mappings.
pub const MAX_DEPTH: usize = 32;

/// Most nodes accepted in one file.
pub const MAX_NODES: usize = 500_000;

/// Most documents in one file of a kind that may have several.
pub const MAX_DOCUMENTS: usize = 10_000;

/// Most problems reported of one file; what goes beyond is counted.
pub const MAX_PROBLEMS: usize = 50;

#[cfg(test)]
mod tests;
