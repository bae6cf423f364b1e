//! Typed reading of the tree. Every method notes what is wrong and answers `None`; the reading goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::problem::{is_unprintable, quote};
use super::scalar::{duration, is_plain_integer, meaning, size};
use super::suggest::suggest;
use super::tree::{Dialect, Entry, Kind, Node, Scalar, Span, Style, build};
use super::{MAX_PROBLEMS, Problem, Problems, Source};

/// Reads typed values out of nodes and collects the problems met on the way.
pub struct Reader<'s> {
    source: &'s Source,
    problems: Problems,
    warnings: Problems,
}

impl<'s> Reader<'s> {
    /// A reader of the nodes of `source`, without problems so far.
    pub fn new(source: &'s Source) -> Self {
        Self { source, problems: Problems::default(), warnings: Problems::default() }
    }

    /// Parses `source` and keeps its structural problems, so that they are reported together with those found in
    /// reading it. The node is absent where the text could not be followed to its end.
    pub fn open(source: &'s Source) -> (Self, Option<Node>) {
        let mut reader = Self::new(source);
        let root = build(source, Dialect::One, &mut reader).and_then(|roots| roots.into_iter().next());
        (reader, root)
    }

    /// `open` for a file of several documents, which may have whole numbers as keys.
    pub(crate) fn open_all(source: &'s Source) -> (Self, Vec<Node>) {
        let mut reader = Self::new(source);
        let roots = build(source, Dialect::Several, &mut reader).unwrap_or_default();
        (reader, roots)
    }

    /// Ends the reading: an error with every problem noted, if there is one.
    pub fn finish(&mut self) -> Result<(), Problems> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// Notes a problem at a node.
    pub fn problem(&mut self, node: &Node, message: impl Into<String>, cure: Option<&str>) {
        self.place(node.span, message, cure.map(str::to_owned));
    }

    /// Notes a problem at a place.
    pub fn place(&mut self, span: Span, message: impl Into<String>, cure: Option<String>) {
        // Finding and showing the line takes time, and a file may have as many problems as letters.
        if self.problems.is_full(MAX_PROBLEMS) {
            return self.problems.leave_out();
        }
        let problem = Problem::at(self.source, span, message, cure);
        self.push(problem);
    }

    /// Notes what is acceptable and probably not what was meant.
    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>, cure: &str) {
        if self.warnings.is_full(MAX_PROBLEMS) {
            return self.warnings.leave_out();
        }
        let warning = Problem::at(self.source, span, message, Some(cure.to_owned()));
        self.warnings.push_within(MAX_PROBLEMS, warning);
    }

    /// The warnings noted so far, in the order of the text.
    pub(crate) fn take_warnings(&mut self) -> Problems {
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.sort();
        warnings
    }

    /// Whether no problem was noted so far.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Reads a mapping, whose keys are then taken one by one.
    pub fn map<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.kind {
            Kind::Map(entries) => {
                Some(Fields { span: node.span, entries, asked: Vec::new(), refused: Vec::new() })
            }
            Kind::Scalar(_) | Kind::List(_) | Kind::Refused => self.mismatch(node, "a mapping"),
        }
    }

    /// Reads a mapping with keys of the user's choice, in the order of the text.
    pub fn entries<'n>(&mut self, node: &'n Node) -> Option<Vec<(&'n str, &'n Node)>> {
        match &node.kind {
            Kind::Map(entries) => {
                Some(entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect())
            }
            Kind::Scalar(_) | Kind::List(_) | Kind::Refused => self.mismatch(node, "a mapping"),
        }
    }

    /// Reads a mapping of at least one and at most `most` keys of the user's choice, with the places of the keys.
    pub fn pairs<'n>(&mut self, node: &'n Node, most: usize) -> Option<Vec<(&'n str, Span, &'n Node)>> {
        let Kind::Map(entries) = &node.kind else { return self.mismatch(node, "a mapping") };
        if entries.is_empty() {
            self.problem(node, "the mapping is empty", Some("leave the key out, or name at least one"));
            return None;
        }
        if entries.len() > most {
            let message = format!("the mapping has {} keys, at most {most} are accepted", entries.len());
            self.problem(node, message, None);
            return None;
        }
        Some(entries.iter().map(|entry| (entry.key.as_str(), entry.span, &entry.value)).collect())
    }

    /// Reads a list, empty or not.
    pub fn list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            Kind::Scalar(_) | Kind::Map(_) | Kind::Refused => self.mismatch(node, "a list"),
        }
    }

    /// Reads a list of at least one and at most `most` items with `read`. One bad item fails the whole list, and
    /// the others are still read, so that all problems are noted.
    pub fn each<T>(
        &mut self,
        node: &Node,
        most: usize,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.list(node)?;
        if items.is_empty() {
            self.problem(node, "the list is empty", Some("leave the key out, or name at least one"));
            return None;
        }
        if items.len() > most {
            self.problem(
                node,
                format!("the list has {} items, at most {most} are accepted", items.len()),
                None,
            );
            return None;
        }
        let mut values = Vec::with_capacity(items.len());
        values.extend(items.iter().filter_map(|item| read(self, item)));
        (values.len() == items.len()).then_some(values)
    }

    /// Reads a list of texts, at least one and at most `most`.
    pub fn strings<'n>(&mut self, node: &'n Node, most: usize) -> Option<Vec<&'n str>> {
        let items = self.list(node)?;
        self.each(node, most, |_, _| Some(()))?;
        let read: Vec<Option<&str>> = items.iter().map(|item| self.string(item)).collect();
        read.into_iter().collect()
    }

    /// Reads a text of one line that is not empty. Unquoted it must be one to every YAML reader.
    pub fn string<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let scalar = self.scalar(node, "a text")?;
        if let (Style::Plain, Some(meaning)) = (scalar.style, meaning(&scalar.text)) {
            let message = format!("expected a text, {} is {meaning}", quote(&scalar.text));
            self.problem(node, message, Some("put it in quotes if a text is meant"));
            return None;
        }
        if scalar.text.is_empty() {
            self.problem(node, "the text is empty", None);
            return None;
        }
        let plain = scalar.text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if !plain && let Some(letter) = scalar.text.chars().find(|letter| is_unprintable(*letter)) {
            self.problem(node, format!("the text contains the character U+{:04X}", u32::from(letter)), None);
            return None;
        }
        Some(&scalar.text)
    }

    /// Reads a text of several lines. It is not to be shown.
    pub(crate) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let scalar = self.scalar(node, "a text")?;
        if scalar.text.trim().is_empty() {
            self.problem(node, "the text is empty", None);
            return None;
        }
        Some(&scalar.text)
    }

    /// Reads a file system path.
    pub fn path(&mut self, node: &Node) -> Option<PathBuf> {
        self.string(node).map(PathBuf::from)
    }

    /// Reads a value that has a syntax of its own, such as an address; `wanted` describes it with an example.
    pub fn parsed<T>(&mut self, node: &Node, wanted: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let scalar = self.scalar(node, wanted)?;
        if scalar.text.is_empty() || scalar.text == "~" {
            return self.wrong(node, wanted, "nothing");
        }
        match scalar.text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!("{} is not {wanted}: {error}", quote(&scalar.text));
                self.problem(node, message, None);
                None
            }
        }
    }

    /// Reads a whole number within `range`: decimal digits, unquoted, no sign, no leading zero.
    pub fn integer(&mut self, node: &Node, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let Kind::Scalar(scalar) = &node.kind else { return self.mismatch(node, &wanted()) };
        let number = match scalar.style {
            Style::Plain if is_plain_integer(&scalar.text) => scalar.text.parse().ok(),
            Style::Plain | Style::Quoted | Style::Block => None,
        };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let quoted = scalar.style != Style::Plain && is_plain_integer(&scalar.text);
                let cure = if quoted { Some("remove the quotes") } else { None };
                self.problem(node, format!("expected {}, found {}", wanted(), quote(&scalar.text)), cure);
                None
            }
        }
    }

    /// Reads `true` or `false`, unquoted.
    pub fn boolean(&mut self, node: &Node) -> Option<bool> {
        let scalar = self.scalar(node, "true or false")?;
        match (scalar.style, scalar.text.as_str()) {
            (Style::Plain, "true") => Some(true),
            (Style::Plain, "false") => Some(false),
            _ => {
                let message = format!("expected true or false, found {}", quote(&scalar.text));
                self.problem(node, message, Some("write true or false, without quotes"));
                None
            }
        }
    }

    /// Reads a length of time: `250ms`, `90s`, `15m`, `1h` or `7d`.
    pub fn duration(&mut self, node: &Node) -> Option<Duration> {
        self.measure(node, "a length of time such as 90s, 15m, 1h or 7d", duration)
    }

    /// Reads a length of time within `range`.
    pub fn duration_within(&mut self, node: &Node, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.duration(node)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.problem(node, format!("expected a time from {:?} to {:?}", range.start(), range.end()), None);
        None
    }

    /// Reads a number of bytes: `512B`, `64KiB`, `10MiB` or `2GiB`.
    pub fn size(&mut self, node: &Node) -> Option<u64> {
        self.measure(node, "a size such as 512B, 64KiB, 10MiB or 2GiB", size)
    }

    /// Reads one word of a closed set.
    pub fn one_of(&mut self, node: &Node, words: &[&'static str]) -> Option<&'static str> {
        let wanted = || words.join(", ");
        let Kind::Scalar(scalar) = &node.kind else {
            return self.mismatch(node, &format!("one of {}", wanted()));
        };
        if let Some(word) = words.iter().find(|word| **word == scalar.text) {
            return Some(word);
        }
        let cure = did_you_mean(&scalar.text, words.iter().copied());
        self.place(node.span, format!("expected one of {}, found {}", wanted(), quote(&scalar.text)), cure);
        None
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        self.problems.push_within(MAX_PROBLEMS, problem);
    }

    pub(super) fn into_problems(self) -> Problems {
        let mut problems = self.problems;
        problems.sort();
        problems
    }

    fn measure<T>(&mut self, node: &Node, wanted: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        let scalar = self.scalar(node, wanted)?;
        match parse(&scalar.text) {
            Some(value) => Some(value),
            None => self.wrong(node, wanted, &quote(&scalar.text)),
        }
    }

    fn scalar<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n Scalar> {
        match &node.kind {
            Kind::Scalar(scalar) => Some(scalar),
            Kind::List(_) | Kind::Map(_) | Kind::Refused => self.mismatch(node, wanted),
        }
    }

    fn mismatch<T>(&mut self, node: &Node, wanted: &str) -> Option<T> {
        let found = match &node.kind {
            Kind::Scalar(Scalar { text, style: Style::Plain }) if meaning(text) == Some("nothing") => {
                "nothing"
            }
            Kind::Scalar(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a mapping",
            // The problem is already noted.
            Kind::Refused => return None,
        };
        self.wrong(node, wanted, found)
    }

    fn wrong<T>(&mut self, node: &Node, wanted: &str, found: &str) -> Option<T> {
        self.problem(node, format!("expected {wanted}, found {found}"), None);
        None
    }
}

/// The keys of one mapping. A key that nobody asked for is a problem when the reading of the mapping ends.
#[must_use = "finish() refuses unknown keys"]
pub struct Fields<'n> {
    span: Span,
    entries: &'n [Entry],
    asked: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Takes a key that may be absent.
    pub fn optional(&mut self, name: &'static str) -> Option<&'n Node> {
        self.asked.push(name);
        self.entries.iter().find(|entry| entry.key == name).map(|entry| &entry.value)
    }

    /// Takes a key that must be there.
    pub fn required(&mut self, name: &'static str, read: &mut Reader<'_>) -> Option<&'n Node> {
        let found = self.optional(name);
        if found.is_none() {
            read.place(self.span, format!("the key \"{name}\" is missing"), None);
        }
        found
    }

    /// Whether there is a key of this name. This does not take it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// Refuses a key that has a meaning elsewhere or in a later version, and says whether it was there.
    pub fn unsupported(&mut self, name: &'static str, read: &mut Reader<'_>) -> bool {
        self.misplaced(name, "is not supported by this version", "remove it: it would not be enforced", read)
    }

    /// Refuses a key that has no place here, with the reason, and says whether it was there.
    pub fn misplaced(&mut self, name: &'static str, why: &str, cure: &str, read: &mut Reader<'_>) -> bool {
        let Some(entry) = self.entries.iter().find(|entry| entry.key == name) else {
            return false;
        };
        self.refused.push(name);
        read.place(entry.span, format!("\"{name}\" {why}"), Some(cure.to_owned()));
        true
    }

    /// Checks the key `vouchsafe`, which says what kind of file this is, such as `proxy/v1`.
    pub fn version(&mut self, expected: &'static str, read: &mut Reader<'_>) -> Option<()> {
        let node = self.required("vouchsafe", read)?;
        read.one_of(node, &[expected]).map(|_| ())
    }

    /// Where the mapping is.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Ends the reading of the mapping: keys that were not asked for are problems.
    pub fn finish(self, read: &mut Reader<'_>) {
        let known = |key: &str| self.asked.contains(&key) || self.refused.contains(&key);
        for entry in self.entries.iter().filter(|entry| !known(&entry.key)) {
            let cure = did_you_mean(&entry.key, self.asked.iter().copied())
                .unwrap_or_else(|| format!("known keys: {}", self.asked.join(", ")));
            read.place(entry.span, format!("unknown key {}", quote(&entry.key)), Some(cure));
        }
    }
}

fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    suggest(word, candidates).map(|near| format!("did you mean \"{near}\"?"))
}
