//! The one form of a request path: what policy matches and what is forwarded.
//!
//! A target is either brought to that form without changing what it names, or refused: nothing is guessed. The form
//! is stable (`parse` of it is itself), begins with `/`, has no empty or dot segment except a last empty one, and
//! holds an escape only where the byte may not stand for itself.
//!
//! Refused, because two servers would read it differently: an encoded slash, backslash, NUL or other control; an
//! escape of an escape; a backslash, a fragment, a `;` (raw or encoded: servers disagree whether it ends the
//! segment); escapes that are not hexadecimal or not UTF-8; raw bytes outside RFC 3986; `..` above the root.

use std::borrow::Cow;
use std::fmt;

/// A path in the one accepted form, and its query, which policy does not see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CanonicalPath {
    path: String,
    // The form to compare: as `path`, with encoded delimiters such as `%40` decoded. Absent when the same.
    key: Option<String>,
    query: Option<String>,
}

impl CanonicalPath {
    /// Parses the target of a request in origin form: a path, and perhaps `?` and a query.
    pub fn parse(target: &str) -> Result<Self, PathError> {
        if target.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong { bytes: target.len() });
        }
        let (raw, query) = match target.split_once('?') {
            Some((raw, query)) => (raw, Some(query)),
            None => (target, None),
        };
        let decoded = decode(raw)?;
        let path = resolve(&decoded)?;
        // Looked for in the result: dot segments and decoding can bring the parts of an escape together.
        if has_double_escape(&path) {
            return Err(PathError::DoubleEncoding);
        }
        if let Some(query) = query {
            check_query(query)?;
        }
        Ok(Self { key: comparable(&path), path, query: query.map(str::to_owned) })
    }

    /// Returns the path without the query.
    pub fn as_str(&self) -> &str {
        &self.path
    }

    /// Returns the query as it came, without the `?`; present and empty for a target that ends in `?`.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// Returns what to forward: the path, and the query if there was one.
    pub fn target(&self) -> Cow<'_, str> {
        match &self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(&self.path),
        }
    }

    /// The form in which paths and patterns are compared: `/a%40b` and `/a@b` are the same here.
    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.path)
    }
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// Why a request target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The target is longer than [`MAX_PATH_BYTES`].
    #[error("path has {bytes} bytes, more than {MAX_PATH_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// The target does not begin with a slash: empty, `*`, or in absolute or authority form.
    #[error("path does not begin with \"/\"")]
    NotRooted,
    /// A byte that RFC 3986 does not allow in a path.
    #[error("path contains the byte 0x{byte:02x}")]
    Byte {
        /// The first such byte.
        byte: u8,
    },
    /// A raw backslash, which some servers take for a slash.
    #[error("path contains a backslash")]
    Backslash,
    /// A fragment, which has no place in a request.
    #[error("path contains a fragment")]
    Fragment,
    /// A `;`, raw or encoded: some servers cut the segment there.
    #[error("path contains a \";\"")]
    Parameter,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("path contains an invalid escape")]
    Escape,
    /// An encoded slash or backslash.
    #[error("path contains an encoded separator")]
    EncodedSeparator,
    /// An encoded NUL or other control character.
    #[error("path contains an encoded control character")]
    EncodedControl,
    /// Escapes that do not make UTF-8, such as overlong forms.
    #[error("path contains escapes that are not UTF-8")]
    NotUtf8,
    /// An encoded `%` that would make another escape if it were decoded once more.
    #[error("path is encoded twice")]
    DoubleEncoding,
    /// `..` segments that lead above the root.
    #[error("path leads above the root")]
    AboveRoot,
    /// A byte that has no place in a query.
    #[error("query contains the byte 0x{byte:02x}")]
    QueryByte {
        /// The first such byte.
        byte: u8,
    },
}

impl PathError {
    /// A short code for logs and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLong { .. } => "path_too_long",
            Self::NotRooted => "path_not_rooted",
            Self::Byte { .. } => "path_byte",
            Self::Backslash => "path_backslash",
            Self::Fragment => "path_fragment",
            Self::Parameter => "path_parameter",
            Self::Escape => "path_escape",
            Self::EncodedSeparator => "path_encoded_separator",
            Self::EncodedControl => "path_encoded_control",
            Self::NotUtf8 => "path_not_utf8",
            Self::DoubleEncoding => "path_double_encoding",
            Self::AboveRoot => "path_above_root",
            Self::QueryByte { .. } => "query_byte",
        }
    }
}

// Decodes what may stand for itself, writes the other escapes in upper case.
fn decode(raw: &str) -> Result<String, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::NotRooted);
    }
    let mut decoded = String::with_capacity(raw.len());
    let mut foreign = Vec::new();
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            end_of_foreign(&mut foreign)?;
            check_raw(byte)?;
            decoded.push(char::from(byte));
            continue;
        }
        let value = escape(bytes.next(), bytes.next())?;
        if value >= 0x80 {
            foreign.push(value);
        } else {
            end_of_foreign(&mut foreign)?;
            check_encoded(value)?;
        }
        if is_unreserved(value) {
            decoded.push(char::from(value));
        } else {
            push_escape(&mut decoded, value);
        }
    }
    end_of_foreign(&mut foreign)?;
    Ok(decoded)
}

fn check_raw(byte: u8) -> Result<(), PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b'#' => Err(PathError::Fragment),
        b';' => Err(PathError::Parameter),
        b'/' => Ok(()),
        _ if is_unreserved(byte) || is_delimiter(byte) => Ok(()),
        _ => Err(PathError::Byte { byte }),
    }
}

fn check_encoded(value: u8) -> Result<(), PathError> {
    match value {
        b'/' | b'\\' => Err(PathError::EncodedSeparator),
        b';' => Err(PathError::Parameter),
        0x00..=0x1f | 0x7f => Err(PathError::EncodedControl),
        _ => Ok(()),
    }
}

// A run of escaped bytes above ASCII must be whole UTF-8, without the controls of Latin-1.
fn end_of_foreign(run: &mut Vec<u8>) -> Result<(), PathError> {
    if run.is_empty() {
        return Ok(());
    }
    let bytes = std::mem::take(run);
    let text = std::str::from_utf8(&bytes).map_err(|_| PathError::NotUtf8)?;
    if text.chars().any(char::is_control) { Err(PathError::EncodedControl) } else { Ok(()) }
}

// Slashes are merged before dot segments are resolved; the result is what is forwarded, so no other order is seen.
fn resolve(decoded: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut open = true;
    for segment in decoded.split('/').skip(1) {
        open = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
            }
            name => kept.push(name),
        }
    }
    let mut path = String::with_capacity(decoded.len());
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if open || path.is_empty() {
        path.push('/');
    }
    Ok(path)
}

fn has_double_escape(path: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    path.match_indices("%25").any(|(at, _)| {
        let bytes = path.as_bytes();
        hex(bytes.get(at + 3)) && hex(bytes.get(at + 4))
    })
}

fn check_query(query: &str) -> Result<(), PathError> {
    match query.bytes().find(|byte| !is_query(*byte)) {
        Some(byte) => Err(PathError::QueryByte { byte }),
        None => Ok(()),
    }
}

/// What may stand in a query: RFC 3986, and `|`, `[`, `]` that applications send.
fn is_query(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'|' | b'~')
}

fn comparable(path: &str) -> Option<String> {
    let mut changed = false;
    let mut key = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        key.push_str(before);
        let digits = after.get(..2).unwrap_or_default();
        match u8::from_str_radix(digits, 16) {
            Ok(value) if is_delimiter(value) => {
                key.push(char::from(value));
                changed = true;
            }
            Ok(_) | Err(_) => {
                key.push('%');
                key.push_str(digits);
            }
        }
        rest = after.get(2..).unwrap_or_default();
    }
    key.push_str(rest);
    changed.then_some(key)
}

fn escape(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit =
        |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).ok_or(PathError::Escape);
    let value = digit(high)? * 16 + digit(low)?;
    u8::try_from(value).map_err(|_| PathError::Escape)
}

fn push_escape(text: &mut String, value: u8) {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase();
    text.push('%');
    text.push(digit(value >> 4));
    text.push(digit(value & 0xf));
}

// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

// RFC 3986 3.3: what a segment may hold raw beside the unreserved, save ";".
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@')
}

/// Longest accepted request target.
pub const MAX_PATH_BYTES: usize = 8 * 1024;

#[cfg(test)]
mod tests;
