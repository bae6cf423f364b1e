//! The header fields of a request as they go on, for whoever decides about it.
//!
//! Of HTTP/1 they are the very lines that are sent. Names are compared with `_` read as `-`, as gateways behind us
//! (CGI, WSGI) read them: a rule about `x-role` sees `x_role` too. Values are never in a debug text: they hold tokens
//! and cookies.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// Fields that were read once and do not change.
#[derive(Clone)]
pub(crate) struct Fields {
    kept: Kept,
    underscored: bool,
}

#[derive(Clone)]
enum Kept {
    Map(HeaderMap),
    Lines(Lines),
}

/// Field lines as they are sent: names in lower case, one line for each field.
#[derive(Clone, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a line begins, where its name ends and where its value ends.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    name: u32,
    end: u32,
}

impl Fields {
    pub(super) fn new(map: &HeaderMap) -> Self {
        let underscored = map.keys().any(|name| name.as_str().contains('_'));
        Self { underscored, kept: Kept::Map(map.clone()) }
    }

    pub(super) fn of_lines(lines: Lines) -> Self {
        let underscored = lines.iter().any(|(name, _)| name.contains(&b'_'));
        Self { underscored, kept: Kept::Lines(lines) }
    }

    /// Returns the value of every line with this name, which is in lower case: first the lines that are spelt so.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let exact = move |found: &[u8]| found.eq_ignore_ascii_case(name.as_bytes());
        let twin = move |found: &[u8]| self.underscored && is_twin(found, name.as_bytes());
        let same = self.all().filter(move |(found, _)| exact(found));
        same.chain(self.all().filter(move |(found, _)| twin(found))).map(|(_, value)| value)
    }

    /// Returns the first value with exactly this name.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        self.all().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
    }

    /// Returns the fields as a map, where they came as one.
    pub(crate) fn map(&self) -> Option<&HeaderMap> {
        match &self.kept {
            Kept::Map(map) => Some(map),
            Kept::Lines(_) => None,
        }
    }

    /// Returns the fields as lines, where they came as such.
    pub(super) fn lines(&self) -> Option<&Lines> {
        match &self.kept {
            Kept::Map(_) => None,
            Kept::Lines(lines) => Some(lines),
        }
    }

    fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (map, lines) = match &self.kept {
            Kept::Map(map) => (Some(map), None),
            Kept::Lines(lines) => (None, Some(lines)),
        };
        let map = map.into_iter().flatten().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        map.chain(lines.into_iter().flat_map(Lines::iter))
    }
}

impl Lines {
    pub(super) fn with_capacity(bytes: usize, count: usize) -> Self {
        Self { text: Vec::with_capacity(bytes), spans: Vec::with_capacity(count) }
    }

    /// Adds a line if `keep` says so of its name in lower case.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8], keep: impl FnOnce(&[u8]) -> bool) {
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let lower = self.text.get_mut(start..).unwrap_or_default();
        lower.make_ascii_lowercase();
        if !keep(lower) {
            self.text.truncate(start);
            return;
        }
        let middle = self.text.len();
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.text.extend_from_slice(b"\r\n");
        // A head is smaller than 4 GiB.
        self.spans.push(Span { start: start as u32, name: middle as u32, end: end as u32 });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| {
            let part = |from: u32, to: u32| self.text.get(from as usize..to as usize).unwrap_or_default();
            (part(span.start, span.name), part(span.name + 2, span.end))
        })
    }

    /// Writes the lines, without those whose names `skip` names.
    pub(super) fn write(&self, out: &mut Vec<u8>, skip: impl Fn(&[u8]) -> bool) {
        if !self.iter().any(|(name, _)| skip(name)) {
            out.extend_from_slice(&self.text);
            return;
        }
        for (name, value) in self.iter().filter(|(name, _)| !skip(name)) {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fields({})", self.all().count())
    }
}

impl policy::HeaderFields for Fields {
    fn each(&self, name: &str, see: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(see);
    }
}

/// Removes every line of a field, however it is spelt.
pub(crate) fn remove(headers: &mut HeaderMap, name: &str) {
    let twin = |found: &&HeaderName| is_twin(found.as_str().as_bytes(), name.as_bytes());
    let twins: Vec<HeaderName> = headers.keys().filter(twin).cloned().collect();
    headers.remove(name);
    for twin in twins {
        headers.remove(twin);
    }
}

/// Whether a name is `name` in any spelling.
pub(super) fn is_same(found: &[u8], name: &[u8]) -> bool {
    found.len() == name.len() && found.iter().copied().map(dashed).eq(name.iter().copied().map(dashed))
}

/// Whether a name is another spelling of `name`.
fn is_twin(found: &[u8], name: &[u8]) -> bool {
    is_same(found, name) && !found.eq_ignore_ascii_case(name)
}

fn dashed(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use policy::HeaderFields;

    use super::*;

    /// The same fields as a map and as lines.
    fn fields(all: &[(&'static str, &'static str)]) -> [Fields; 2] {
        let (mut map, mut lines) = (HeaderMap::new(), Lines::default());
        for (name, value) in all {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            lines.push(name.to_uppercase().as_bytes(), value.as_bytes(), |_| true);
        }
        [Fields::new(&map), Fields::of_lines(lines)]
    }

    fn seen(fields: &Fields, name: &str) -> Vec<String> {
        let mut values = Vec::new();
        fields.each(name, &mut |value| values.push(String::from_utf8_lossy(value).into_owned()));
        values
    }

    #[test]
    fn every_line_of_a_field_is_shown_in_its_order_and_no_other() {
        for fields in fields(&[("x-role", "user"), ("x-other", "a"), ("x-role", "admin, root")]) {
            assert_eq!(seen(&fields, "x-role"), ["user", "admin, root"]);
            assert_eq!(seen(&fields, "X-Role"), ["user", "admin, root"]);
            assert_eq!(seen(&fields, "x-rol"), Vec::<String>::new());
        }
    }

    #[test]
    fn a_field_spelt_with_an_underscore_is_shown_under_its_name_with_a_dash_and_the_other_way_round() {
        for fields in fields(&[("x_role", "admin"), ("x-role", "user"), ("x_rol", "no")]) {
            assert_eq!(seen(&fields, "x-role"), ["user", "admin"]);
            assert_eq!(seen(&fields, "x_role"), ["admin", "user"]);
        }
    }

    #[test]
    fn a_removed_field_is_gone_in_every_spelling() {
        let mut map = HeaderMap::new();
        let mut lines = Lines::default();
        for name in ["x-token", "x_token", "x-tokens"] {
            map.append(HeaderName::from_static(name), HeaderValue::from_static("a"));
            lines.push(name.as_bytes(), b"a", |_| true);
        }
        let mut sent = Vec::new();

        remove(&mut map, "x-token");
        lines.write(&mut sent, |name| is_same(name, b"x-token"));

        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-tokens"]);
        assert_eq!(sent, b"x-tokens: a\r\n");
    }

    #[test]
    fn lines_that_are_not_kept_leave_no_trace() {
        let mut lines = Lines::default();
        lines.push(b"A", b"1", |name| name == b"a");
        lines.push(b"B", b"2", |name| name == b"a");
        lines.push(b"C", b"", |_| true);
        let mut sent = Vec::new();

        lines.write(&mut sent, |_| false);

        assert_eq!(sent, b"a: 1\r\nc: \r\n");
        assert_eq!(lines.iter().count(), 2);
    }

    #[test]
    fn no_debug_text_shows_a_value() {
        for fields in fields(&[("authorization", "Bearer secret")]) {
            assert!(!format!("{fields:?}").contains("secret"));
        }
    }
}
