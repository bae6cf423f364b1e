//! From the tree of a file to its one form.

use super::layout::{Item, Layout, Scalar, Value, Written};
use crate::schema::{order_of, shape_behind};

/// Writes a file.
pub(super) fn print(layout: &Layout) -> String {
    let mut printer = Printer { layout, text: String::new() };
    for comment in &layout.header {
        printer.line(0, comment);
    }
    match &layout.root {
        Value::Map(items, _) => printer.map(items, 0, Some(ROOT), Start::OfLine),
        Value::List(items, _) => printer.list(items, 0, None),
        Value::Scalar(scalar) => printer.line(0, &scalar.written),
    }
    for comment in &layout.footer {
        printer.line(0, comment);
    }
    printer.text
}

struct Printer<'l> {
    layout: &'l Layout,
    text: String,
}

/// Where a mapping begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    OfLine,
    /// Behind the dash of a list, where the comments of its first key have been written already.
    BehindDash,
}

impl Printer<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.text.push_str(text);
        self.text.push('\n');
    }

    fn map(&mut self, items: &[Item], indent: usize, shape: Option<&'static str>, start: Start) {
        for (index, item) in in_order(items, shape).into_iter().enumerate() {
            let behind_dash = index == 0 && start == Start::BehindDash;
            if !behind_dash {
                self.above(item, indent, index == 0 && indent > 0);
                self.text.extend(std::iter::repeat_n(' ', indent));
            }
            let key = item.key.as_ref().map(|key| key.written.as_str()).unwrap_or_default();
            let below = shape.and_then(|shape| item.key_text().and_then(|key| shape_behind(shape, key)));
            self.text.push_str(key);
            self.text.push(':');
            self.value(item, indent, below, key.chars().count().saturating_add(1));
        }
    }

    fn list(&mut self, items: &[Item], indent: usize, shape: Option<&'static str>) {
        for (index, item) in items.iter().enumerate() {
            self.above(item, indent, index == 0);
            let inner = match &item.value {
                Value::Map(inner, _) if !self.fits(item, indent, 1) => in_order(inner, shape),
                Value::Map(..) | Value::List(..) | Value::Scalar(_) => Vec::new(),
            };
            if let Some(first) = inner.first() {
                self.above(first, indent, true);
                if let Some(right) = self.right(item) {
                    let right = right.to_owned();
                    self.line(indent, &right);
                }
                self.text.extend(std::iter::repeat_n(' ', indent));
                self.text.push_str("- ");
                self.map(item.value.items(), indent.saturating_add(STEP), shape, Start::BehindDash);
                self.below(item, indent);
            } else {
                self.text.extend(std::iter::repeat_n(' ', indent));
                self.text.push('-');
                self.value(item, indent, shape, 1);
            }
        }
    }

    /// Writes the value of an item behind its key or dash, which take `used` characters, and ends the line.
    fn value(&mut self, item: &Item, indent: usize, shape: Option<&'static str>, used: usize) {
        let right = self.right(item).map(|right| format!("  {right}")).unwrap_or_default();
        if self.fits(item, indent, used) {
            let flow = flow(&item.value, shape);
            if !flow.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(&flow);
            self.text.push_str(&right);
            self.text.push('\n');
        } else {
            self.text.push_str(&right);
            self.text.push('\n');
            let indent = indent.saturating_add(STEP);
            match &item.value {
                Value::Map(items, _) => self.map(items, indent, shape, Start::OfLine),
                Value::List(items, _) => self.list(items, indent, shape),
                Value::Scalar(scalar) => self.line(indent, &scalar.written),
            }
        }
        self.below(item, indent);
    }

    fn above(&mut self, item: &Item, indent: usize, first: bool) {
        let Some(notes) = self.layout.beside(item) else { return };
        let begun = !self.text.is_empty() && !self.text.ends_with("\n\n");
        if notes.apart && begun && !first {
            self.text.push('\n');
        }
        for comment in &notes.above {
            self.line(indent, comment);
        }
    }

    fn below(&mut self, item: &Item, indent: usize) {
        for comment in self.layout.beside(item).map(|notes| notes.below.as_slice()).unwrap_or_default() {
            self.line(indent, comment);
        }
    }

    fn right(&self, item: &Item) -> Option<&str> {
        self.layout.beside(item)?.right.as_deref()
    }

    /// Whether the value of an item stays on the line of its key or dash.
    fn fits(&self, item: &Item, indent: usize, used: usize) -> bool {
        let width = match &item.value {
            Value::Scalar(_) => return true,
            Value::List(items, _) | Value::Map(items, _) if items.is_empty() => return true,
            Value::List(_, Written::Block) | Value::Map(_, Written::Block) => return false,
            value @ (Value::List(..) | Value::Map(..)) => flow(value, None).chars().count(),
        };
        let uncommented = item.value.items().iter().all(|item| self.is_bare(item));
        uncommented && indent.saturating_add(used).saturating_add(1).saturating_add(width) <= WIDTH
    }

    fn is_bare(&self, item: &Item) -> bool {
        let bare = self
            .layout
            .beside(item)
            .is_none_or(|notes| notes.above.is_empty() && notes.below.is_empty() && notes.right.is_none());
        bare && item.value.items().iter().all(|item| self.is_bare(item))
    }
}

impl Item {
    fn key_text(&self) -> Option<&str> {
        self.key.as_ref().map(Scalar::text)
    }
}

fn in_order<'i>(items: &'i [Item], shape: Option<&'static str>) -> Vec<&'i Item> {
    let mut items: Vec<&Item> = items.iter().collect();
    if let Some(shape) = shape {
        items.sort_by_key(|item| item.key_text().and_then(|key| order_of(shape, key)).unwrap_or(usize::MAX));
    }
    items
}

fn flow(value: &Value, shape: Option<&'static str>) -> String {
    match value {
        Value::Scalar(scalar) => scalar.written.clone(),
        Value::List(items, _) => {
            let items: Vec<String> = items.iter().map(|item| flow(&item.value, shape)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Map(items, _) => {
            let one = |item: &Item| {
                let below = shape.and_then(|shape| item.key_text().and_then(|key| shape_behind(shape, key)));
                let key = item.key.as_ref().map(|key| key.written.as_str()).unwrap_or_default();
                match flow(&item.value, below) {
                    value if value.is_empty() => format!("{key}:"),
                    value => format!("{key}: {value}"),
                }
            };
            let items: Vec<String> = in_order(items, shape).into_iter().map(one).collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

const ROOT: &str = "policy";

/// How much deeper each level is.
const STEP: usize = 2;

/// The longest line of a collection in braces or brackets.
const WIDTH: usize = 120;
