//! A file as a tree that knows its comments and blank lines.

use std::collections::BTreeMap;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput};

/// The tree of a file, and what stands beside it.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) root: Value,
    /// What stands beside each item, by the number of the item.
    pub(super) notes: BTreeMap<usize, Notes>,
    pub(super) header: Vec<String>,
    pub(super) footer: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    List(Vec<Item>, Written),
    Map(Vec<Item>, Written),
}

#[derive(Debug)]
pub(super) struct Scalar {
    /// As it is written, quotes included.
    pub(super) written: String,
    text: String,
    plain: bool,
}

impl Scalar {
    /// What it says.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// How a collection is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Block,
    /// In braces or brackets.
    Flow,
}

/// An element of a list, or a key with its value.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) number: usize,
    pub(super) key: Option<Scalar>,
    pub(super) value: Value,
}

/// What stands beside an item.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Comments on the lines before it.
    pub(super) above: Vec<String>,
    /// A comment on its line.
    pub(super) right: Option<String>,
    /// Comments on the lines after it that are indented as it is.
    pub(super) below: Vec<String>,
    /// Whether there is a blank line before it.
    pub(super) apart: bool,
}

impl Layout {
    /// Reads a text that strict YAML accepts. A text of several lines has no layout here.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut options = Options::default();
        options.strict_indentation = true;
        options.disallow_directives = true;
        options.set_emit_comments(true);
        options.max_buffered_comment_events = MAX_COMMENTS;
        let mut builder = Builder::new(text);
        let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(text, options);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.ok()?;
            builder.take(event, span)?;
        }
        builder.finish()
    }

    /// Whether another file says the same and has the same comments, in whatever order and form.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.root.meaning() == other.root.meaning() && self.comments() == other.comments()
    }

    fn comments(&self) -> Vec<&String> {
        let beside =
            self.notes.values().flat_map(|notes| notes.above.iter().chain(&notes.right).chain(&notes.below));
        let mut all: Vec<&String> = self.header.iter().chain(beside).chain(&self.footer).collect();
        all.sort_unstable();
        all
    }

    /// What stands beside an item.
    pub(super) fn beside(&self, item: &Item) -> Option<&Notes> {
        self.notes.get(&item.number)
    }
}

impl Value {
    /// The items, if it is a collection.
    pub(super) fn items(&self) -> &[Item] {
        match self {
            Self::Scalar(_) => &[],
            Self::List(items, _) | Self::Map(items, _) => items,
        }
    }

    fn meaning(&self) -> Meaning<'_> {
        match self {
            Self::Scalar(scalar) => Meaning::Scalar(&scalar.text, scalar.plain),
            Self::List(items, _) => Meaning::List(items.iter().map(|item| item.value.meaning()).collect()),
            Self::Map(items, _) => {
                let key = |item: &'_ Item| item.key.as_ref().map(|key| key.text.clone()).unwrap_or_default();
                Meaning::Map(items.iter().map(|item| (key(item), item.value.meaning())).collect())
            }
        }
    }
}

#[derive(PartialEq)]
enum Meaning<'v> {
    Scalar(&'v str, bool),
    List(Vec<Meaning<'v>>),
    Map(BTreeMap<String, Meaning<'v>>),
}

struct Builder<'t> {
    text: &'t str,
    open: Vec<Open>,
    root: Option<Value>,
    notes: BTreeMap<usize, Notes>,
    header: Vec<String>,
    footer: Vec<String>,
    /// Comments on lines of their own whose item is still to come.
    pending: Vec<Pending>,
    /// The line on which the last token or comment ends.
    last_line: usize,
    /// The item of the last token.
    last: Option<usize>,
    /// The last item outside of braces and brackets below those that it is in, each with its column.
    path: Vec<(usize, usize)>,
    numbers: usize,
}

struct Pending {
    column: usize,
    text: String,
    /// Whether there is a blank line before it.
    apart: bool,
}

struct Open {
    items: Vec<Item>,
    written: Written,
    kind: OpenKind,
    /// The item that the collection is the value of.
    holder: Option<usize>,
    /// The column of the dashes of a list that has some.
    dashes: Option<usize>,
}

enum OpenKind {
    List,
    Map { key: Option<(usize, Scalar)> },
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            open: Vec::new(),
            root: None,
            notes: BTreeMap::new(),
            header: Vec::new(),
            footer: Vec::new(),
            pending: Vec::new(),
            last_line: 0,
            last: None,
            path: Vec::new(),
            numbers: 0,
        }
    }

    // `None` where a text has no layout.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Comment(..) => self.comment(span),
            Event::Scalar(text, style, ..) => {
                let written = self.written(span)?;
                let plain = style == ScalarStyle::Plain;
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if block || written.contains('\n') {
                    return None;
                }
                self.scalar(Scalar { written, text: text.into_owned(), plain }, span)
            }
            Event::SequenceStart(..) => self.begin(OpenKind::List, '[', span),
            Event::MappingStart(..) => self.begin(OpenKind::Map { key: None }, '{', span),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => Some(()),
            _ => None,
        }
    }

    fn written(&self, span: Span) -> Option<String> {
        let (start, end) = (span.start.byte_offset()?, span.end.byte_offset()?);
        self.text.get(start..end).map(|text| text.trim_end().to_owned())
    }

    fn comment(&mut self, span: Span) -> Option<()> {
        let text = self.written(span)?;
        let line = span.start.line();
        let beside = self.last.filter(|_| line == self.last_line);
        match beside {
            Some(number) => {
                let notes = self.notes.entry(number).or_default();
                match &notes.right {
                    None => notes.right = Some(text),
                    Some(_) => notes.above.push(text),
                }
            }
            None => {
                let apart = self.is_apart(line);
                self.pending.push(Pending { column: self.indent(span), text, apart });
            }
        }
        self.last_line = line;
        Some(())
    }

    /// How deep a comment stands. One behind the dash of an element belongs to that element.
    fn indent(&self, span: Span) -> usize {
        let before = span.start.byte_offset().and_then(|start| self.text.get(..start)).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        if line.trim().is_empty() { span.start.col() } else { 0 }
    }

    fn is_apart(&self, line: usize) -> bool {
        self.last_line > 0 && line > self.last_line.saturating_add(1)
    }

    fn in_flow(&self) -> bool {
        self.open.last().is_some_and(|open| open.written == Written::Flow)
    }

    /// Begins an item of the innermost collection.
    fn item(&mut self, span: Span) -> usize {
        self.numbers = self.numbers.saturating_add(1);
        let number = self.numbers;
        // An element of a list begins at its dash, which is where the list begins.
        let column = self.open.last().and_then(|open| open.dashes).unwrap_or(span.start.col());
        if !self.in_flow() {
            self.settle_dedented(column);
        }
        let first_line_after = span.start.line() > self.last_line.saturating_add(1);
        let apart =
            self.pending.first().map_or_else(|| self.is_apart(span.start.line()), |pending| pending.apart);
        let above: Vec<String> = self.pending.drain(..).map(|pending| pending.text).collect();
        if number == 1 && (first_line_after || self.starts_with_version(span)) {
            self.header = above;
            self.notes.entry(number).or_default().apart = first_line_after;
        } else if apart || !above.is_empty() {
            let notes = self.notes.entry(number).or_default();
            notes.apart = apart;
            notes.above.extend(above);
        }
        if !self.in_flow() {
            self.path.retain(|(_, at)| *at < column);
            self.path.push((number, column));
        }
        number
    }

    fn starts_with_version(&self, span: Span) -> bool {
        let rest = span.start.byte_offset().and_then(|start| self.text.get(start..));
        rest.is_some_and(|rest| rest.starts_with("vouchsafe"))
    }

    // Comments indented more than what follows belong to what came before, and there to what is indented as they are.
    fn settle_dedented(&mut self, column: usize) {
        let ended: Vec<(usize, usize)> = self.path.iter().filter(|(_, at)| *at > column).copied().collect();
        let Some(outermost) = ended.first() else { return };
        let deeper = self.pending.iter().take_while(|pending| pending.column > column).count();
        for Pending { column, text, .. } in self.pending.drain(..deeper) {
            let (number, _) = ended.iter().rfind(|(_, at)| *at <= column).unwrap_or(outermost);
            self.notes.entry(*number).or_default().below.push(text);
        }
    }

    fn scalar(&mut self, scalar: Scalar, span: Span) -> Option<()> {
        let awaits_value =
            matches!(self.open.last().map(|open| &open.kind), Some(OpenKind::Map { key: Some(_) }));
        if let (false, Some(Open { kind: OpenKind::Map { .. }, .. })) = (awaits_value, self.open.last()) {
            let number = self.item(span);
            self.last = Some(number);
            self.last_line = span.end.line();
            if let Some(Open { kind: OpenKind::Map { key }, .. }) = self.open.last_mut() {
                *key = Some((number, scalar));
            }
            return Some(());
        }
        let number = self.number_of_value(span);
        // A value that is not written at all ends where its key does.
        if !scalar.written.is_empty() {
            self.last_line = span.end.line();
            self.above_the_key(number);
        }
        self.last = number.or(self.last);
        self.put(number, Value::Scalar(scalar))
    }

    /// The item that the next value belongs to, which begins here if it is the element of a list.
    fn number_of_value(&mut self, span: Span) -> Option<usize> {
        let holder = match self.open.last().map(|open| &open.kind) {
            Some(OpenKind::Map { key }) => key.as_ref().map(|(number, _)| *number),
            Some(OpenKind::List) => None,
            None => return None,
        };
        Some(holder.unwrap_or_else(|| self.item(span)))
    }

    // Comments between a key and its value, which is on a line of its own.
    fn above_the_key(&mut self, number: Option<usize>) {
        if let Some(number) = number.filter(|_| !self.pending.is_empty()) {
            let above: Vec<String> = self.pending.drain(..).map(|pending| pending.text).collect();
            self.notes.entry(number).or_default().above.extend(above);
        }
    }

    fn begin(&mut self, kind: OpenKind, bracket: char, span: Span) -> Option<()> {
        let start = span.start.byte_offset()?;
        let flow = self.text.get(start..)?.starts_with(bracket);
        let written = if flow { Written::Flow } else { Written::Block };
        let holder = self.number_of_value(span);
        if flow {
            self.above_the_key(holder);
            self.last = holder.or(self.last);
            self.last_line = span.end.line();
        }
        let dashed = !flow && matches!(kind, OpenKind::List);
        let dashes = dashed.then_some(span.start.col());
        self.open.push(Open { items: Vec::new(), written, kind, holder, dashes });
        Some(())
    }

    fn end(&mut self, span: Span) -> Option<()> {
        let flow = self.in_flow();
        if flow && !self.pending.is_empty() {
            let below: Vec<String> = self.pending.drain(..).map(|pending| pending.text).collect();
            self.notes.entry(self.last?).or_default().below.extend(below);
        }
        let open = self.open.pop()?;
        if flow {
            self.last_line = span.end.line();
            self.last = open.holder.or(self.last);
        }
        let value = match open.kind {
            OpenKind::List => Value::List(open.items, open.written),
            OpenKind::Map { .. } => Value::Map(open.items, open.written),
        };
        self.put(open.holder, value)
    }

    fn put(&mut self, number: Option<usize>, value: Value) -> Option<()> {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(value);
            return Some(());
        };
        let key = match &mut open.kind {
            OpenKind::List => None,
            OpenKind::Map { key } => Some(key.take()?.1),
        };
        open.items.push(Item { number: number?, key, value });
        Some(())
    }

    fn finish(mut self) -> Option<Layout> {
        self.settle_dedented(0);
        self.footer.extend(self.pending.drain(..).map(|pending| pending.text));
        Some(Layout { root: self.root?, notes: self.notes, header: self.header, footer: self.footer })
    }
}

/// Most comments one after another: more than a file has lines for.
const MAX_COMMENTS: usize = crate::strict::MAX_BYTES;
