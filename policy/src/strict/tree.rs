//! From YAML events to a tree in which every node knows its place.
//!
//! What strict YAML does not have is noted as a problem and the building goes on, so that one run reports all of
//! it; the node concerned becomes `Refused`, about which nothing further is said.

use granit_parser::{ErrorKind, Event, Marker, Options, Parser, ScalarStyle, ScanError, StrInput};

use super::keys::Keys;
use super::problem::{is_unprintable, quote};
use super::scalar::{is_plain_integer, meaning};
use super::{MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, MAX_NODES, Position, Problem, Reader, Source, too_big};

/// The place of a node: where it starts, and how many characters of that line it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: Position,
    /// Its characters on the first line, for underlining.
    pub width: u32,
}

impl Span {
    /// A single place.
    pub fn point(start: Position) -> Self {
        Self { start, width: 1 }
    }

    fn between(start: Marker, end: Marker) -> Self {
        let place = position(start);
        let width =
            if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
        Self { start: place, width: u32::try_from(width).unwrap_or(u32::MAX).max(1) }
    }
}

/// A value of the document with its place. Read it with [`Reader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub(super) span: Span,
    pub(super) kind: Kind,
}

impl Node {
    /// Where the node is.
    pub fn span(&self) -> Span {
        self.span
    }

    /// The line on which it starts.
    pub fn line(&self) -> u32 {
        self.span.start.line
    }

    /// Whether the node is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.kind, Kind::List(_))
    }

    /// Whether the node says nothing: an empty plain scalar, `~` or `null`.
    pub fn is_nothing(&self) -> bool {
        match &self.kind {
            Kind::Scalar(Scalar { text, style: Style::Plain }) => meaning(text) == Some("nothing"),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Refused => false,
        }
    }

    /// Whether the node is this text, quoted or not.
    pub fn is_text(&self, wanted: &str) -> bool {
        matches!(&self.kind, Kind::Scalar(scalar) if scalar.text == wanted)
    }

    /// Whether the node is a mapping.
    pub fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Map(_))
    }

    /// Whether the node is this word, written without quotes.
    pub fn is_plain(&self, word: &str) -> bool {
        self.plain() == Some(word)
    }

    /// The text of a scalar that is written without quotes.
    pub(crate) fn plain(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(Scalar { text, style: Style::Plain }) => Some(text),
            Kind::Scalar(_) | Kind::List(_) | Kind::Map(_) | Kind::Refused => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) span: Span,
    pub(super) value: Node,
}

/// What a file may hold beside what strict YAML has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Nothing: one document.
    One,
    /// Several documents, and whole numbers as keys, as Kubernetes writes them.
    Several,
}

/// Builds the trees of `reader`'s source, one for each document, noting problems there.
pub(super) fn build(source: &Source, dialect: Dialect, reader: &mut Reader<'_>) -> Option<Vec<Node>> {
    if source.text.len() > MAX_BYTES {
        reader.push(too_big(&source.name, source.text.len()));
        return None;
    }
    if !only_printable(source, reader) {
        return None;
    }
    let mut builder =
        Builder { reader, dialect, open: Vec::new(), roots: Vec::new(), documents: 0, nodes: 0 };
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(&source.text, options());
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => {
                builder.take(event, span)?;
            }
            Err(error) => {
                builder.syntax(&error);
                return None;
            }
        }
    }
    let roots = builder.roots;
    if roots.is_empty() {
        reader.push(Problem::in_file(&source.name, "the file says nothing", None));
        return None;
    }
    Some(roots)
}

fn options() -> Options {
    let mut options = Options::default();
    options.strict_indentation = true;
    options.disallow_directives = true;
    options.emit_unresolved_aliases = true;
    options.emit_anchor_events = true;
    options.set_emit_comments(false);
    // One more than ours, so that our own message is the one that is seen.
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    options
}

fn only_printable(source: &Source, reader: &mut Reader<'_>) -> bool {
    // Most files are plain ASCII, in which a look at the bytes is enough.
    if source.text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\n')) {
        return true;
    }
    let mut clean = true;
    for (index, line) in source.text.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if let Some((column, letter)) = line.chars().enumerate().find(|(_, letter)| is_unprintable(*letter)) {
            clean = false;
            let place = Span::point(Position::new(index.saturating_add(1), column.saturating_add(1)));
            let (message, cure) = match letter {
                '\t' => ("tabs are not accepted".to_owned(), "use spaces; in a quoted text write \\t"),
                _ => (
                    format!("the character U+{:04X} is not accepted", u32::from(letter)),
                    "remove it; in a quoted text write it as an escape",
                ),
            };
            reader.place(place, message, Some(cure.to_owned()));
        }
    }
    clean
}

struct Builder<'b, 's> {
    reader: &'b mut Reader<'s>,
    dialect: Dialect,
    open: Vec<Open>,
    roots: Vec<Node>,
    documents: usize,
    nodes: usize,
}

struct Open {
    span: Span,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, keys: Keys, awaits: Awaits },
}

enum Awaits {
    Key,
    Value(String, Span),
    /// The value of a key that was refused: read, and dropped.
    Nothing,
}

impl Builder<'_, '_> {
    // `None` ends the building: what follows could not be trusted.
    fn take(&mut self, event: Event<'_>, span: granit_parser::Span) -> Option<()> {
        if let Some(tag) = span.tag_span() {
            let cure = "remove it; types are given by the key".to_owned();
            self.reader.place(Span::between(tag.start, tag.end), "tags are not accepted", Some(cure));
        }
        let place = Span::between(span.start, span.end);
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Some(()),
            Event::DocumentStart(..) => self.document(place),
            Event::Anchor(..) => {
                let cure = "write the value out at each place".to_owned();
                self.reader.place(place, "anchors are not accepted", Some(cure));
                Some(())
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                let cure = "write the value out, or quote the text if it begins with \"*\"".to_owned();
                self.reader.place(place, "aliases are not accepted", Some(cure));
                self.put(Node { span: place, kind: Kind::Refused })
            }
            Event::Scalar(text, style, ..) => {
                let scalar = Scalar { text: text.into_owned(), style: style_of(style) };
                self.put(Node { span: place, kind: Kind::Scalar(scalar) })
            }
            Event::SequenceStart(..) => self.begin(place, OpenKind::List(Vec::new())),
            Event::MappingStart(..) => {
                let kind = OpenKind::Map { entries: Vec::new(), keys: Keys::default(), awaits: Awaits::Key };
                self.begin(place, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            // The foreign enum may grow: an event without a meaning here is not accepted.
            _ => {
                self.reader.place(place, "this YAML is not accepted", None);
                None
            }
        }
    }

    fn document(&mut self, place: Span) -> Option<()> {
        self.documents = self.documents.saturating_add(1);
        let (most, message) = match self.dialect {
            Dialect::One => (1, "a file holds one document".to_owned()),
            Dialect::Several => (MAX_DOCUMENTS, format!("the file has more than {MAX_DOCUMENTS} documents")),
        };
        if self.documents > most {
            let cure = match self.dialect {
                Dialect::One => "put each document into a file of its own",
                Dialect::Several => "split it into several files",
            };
            self.reader.place(place, message, Some(cure.to_owned()));
            return None;
        }
        Some(())
    }

    fn begin(&mut self, span: Span, kind: OpenKind) -> Option<()> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("lists and mappings are nested deeper than {MAX_DEPTH}");
            self.reader.place(span, message, None);
            return None;
        }
        self.open.push(Open { span: Span { start: span.start, width: 1 }, kind });
        Some(())
    }

    fn end(&mut self) -> Option<()> {
        let open = self.open.pop()?;
        let kind = match open.kind {
            OpenKind::List(items) => Kind::List(items),
            OpenKind::Map { entries, .. } => Kind::Map(entries),
        };
        self.put(Node { span: open.span, kind })
    }

    fn put(&mut self, node: Node) -> Option<()> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            self.reader.place(node.span, message, Some("split it into several files".to_owned()));
            return None;
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            // Nothing after the last "---" is no document.
            None if self.dialect == Dialect::Several && node.is_nothing() => {}
            None => self.roots.push(node),
            Some(OpenKind::List(items)) => items.push(node),
            Some(OpenKind::Map { entries, keys, awaits }) => {
                *awaits = match std::mem::replace(awaits, Awaits::Key) {
                    Awaits::Key => key_of(node, self.dialect, self.reader)
                        .filter(|(key, span)| keys.admit(key, *span, entries, self.reader))
                        .map_or(Awaits::Nothing, |(key, span)| Awaits::Value(key, span)),
                    Awaits::Value(key, span) => {
                        entries.push(Entry { key, span, value: node });
                        Awaits::Key
                    }
                    Awaits::Nothing => Awaits::Key,
                };
            }
        }
        Some(())
    }

    fn syntax(&mut self, error: &ScanError) {
        let place = Span::point(position(*error.marker()));
        let (message, cure) = match error.kind() {
            ErrorKind::RecursionLimitExceeded => {
                (format!("lists and mappings are nested deeper than {MAX_DEPTH}"), None)
            }
            ErrorKind::DirectiveDisallowed => {
                ("directives are not accepted".to_owned(), Some("remove the line that begins with \"%\""))
            }
            kind => (format!("not valid YAML: {kind}"), syntax_cure(kind)),
        };
        self.reader.place(place, message, cure.map(str::to_owned));
    }
}

/// Reads a key, unless what stands there cannot be one.
fn key_of(node: Node, dialect: Dialect, reader: &mut Reader<'_>) -> Option<(String, Span)> {
    let span = node.span;
    let scalar = match node.kind {
        Kind::Scalar(scalar) => scalar,
        Kind::Refused => return None,
        Kind::List(_) | Kind::Map(_) => {
            reader.place(span, "a key must be a text, not a list or a mapping", None);
            return None;
        }
    };
    if scalar.style == Style::Plain && scalar.text == "<<" {
        let cure = "write the keys out".to_owned();
        reader.place(span, "merge keys are not accepted", Some(cure));
        return None;
    }
    let number = dialect == Dialect::Several && is_plain_integer(&scalar.text);
    if let (Style::Plain, Some(meaning), false) = (scalar.style, meaning(&scalar.text), number) {
        let message = format!("a key must be a text, {} is {meaning}", quote(&scalar.text));
        reader.place(span, message, Some("put it in quotes if a text is meant".to_owned()));
        return None;
    }
    Some((scalar.text, span))
}

fn style_of(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
    }
}

fn syntax_cure(kind: &ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::MappingValueNotAllowed | ErrorKind::SimpleKeyExpected => {
            Some("check the indentation; a text with \": \" in it needs quotes")
        }
        ErrorKind::UnexpectedCharacter { .. } => Some("put the text in quotes"),
        ErrorKind::InvalidIndentation => Some("line it up with the keys above"),
        ErrorKind::UnclosedFlowCollection { .. } => Some("close the bracket"),
        ErrorKind::UnclosedQuotedScalar => Some("close the quotes"),
        _ => None,
    }
}

fn position(marker: Marker) -> Position {
    Position::new(marker.line().max(1), marker.col().saturating_add(1))
}
