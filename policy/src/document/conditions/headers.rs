//! What the field lines of one header are compared as.
//!
//! An allow rule trusts no reading that another could contradict, a deny rule all of them.

use super::{Sense, any};
use crate::access::HeaderFields;
use crate::pattern::TextPattern;

/// How the field lines of one header become something to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HeaderReading {
    /// There is a field line, and each is a text that is meant or has only values that match: native allow rules.
    Every,
    /// Some line, value or the lines joined match: native deny rules.
    Any,
    /// Istio's allow rules: the field lines joined by commas match; or none of line, value and joined lines does.
    Joined(Sense),
    /// Istio's deny rules: the joined lines match, or any line or value; or the joined lines do not.
    JoinedOrAny(Sense),
}

impl HeaderReading {
    /// Whether the condition is for or against.
    pub(crate) fn sense(self) -> Sense {
        match self {
            Self::Every | Self::Any => Sense::Is,
            Self::Joined(sense) | Self::JoinedOrAny(sense) => sense,
        }
    }

    /// Shows texts of which one must match for the condition to hold, whatever is asked for, where there are few of them and that
    /// is known. Of a native allow rule's they are the first line and the first value, since every one must match.
    pub(crate) fn each_needed(
        self,
        headers: &dyn HeaderFields,
        name: &str,
        see: &mut dyn FnMut(&[u8]),
    ) -> Told {
        match self {
            Self::Every => {
                let mut lines = 0;
                headers.each(name, &mut |line| {
                    lines += 1;
                    if lines == 1 {
                        see(line.trim_ascii());
                        let first = line.split(|byte| *byte == separator(name)).next();
                        see(first.unwrap_or_default().trim_ascii());
                    }
                });
                Told::All
            }
            Self::Any | Self::JoinedOrAny(Sense::Is) => each_reading(headers, name, see),
            Self::Joined(_) | Self::JoinedOrAny(Sense::IsNot) => Told::InPart,
        }
    }

    pub(super) fn holds(self, headers: &dyn HeaderFields, name: &str, any_of: &[TextPattern]) -> bool {
        match self {
            Self::Every => {
                let (mut lines, mut fitting) = (0, 0);
                headers.each(name, &mut |line| {
                    lines += 1;
                    fitting +=
                        usize::from(is_one(any_of, line.trim_ascii()) || every_value(name, line, any_of));
                });
                lines > 0 && lines == fitting
            }
            Self::Any | Self::JoinedOrAny(Sense::Is) => any_value(headers, name, any_of),
            Self::Joined(Sense::Is) => joined(headers, name, b",", any_of) == Some(true),
            Self::Joined(Sense::IsNot) => !any_value(headers, name, any_of),
            Self::JoinedOrAny(Sense::IsNot) => joined(headers, name, b",", any_of) != Some(true),
        }
    }
}

/// Whether the line is one of the texts that are spelled out: such a text may have commas.
fn is_one(any_of: &[TextPattern], line: &[u8]) -> bool {
    any_of.iter().any(|pattern| pattern.is_exact() && pattern.matches(line))
}

fn every_value(name: &str, line: &[u8], any_of: &[TextPattern]) -> bool {
    let between = separator(name);
    line.split(|byte| *byte == between).all(|value| any(any_of, value.trim_ascii()))
}

fn any_value(headers: &dyn HeaderFields, name: &str, any_of: &[TextPattern]) -> bool {
    let mut found = false;
    let told = each_reading(headers, name, &mut |text| found = found || any(any_of, text));
    found || told == Told::InPart
}

/// Whether the texts shown are all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Told {
    All,
    /// The field lines are too long to be joined.
    InPart,
}

/// Shows every text that an application may take for the field's value. Nobody knows how it reads the field: by line, by value,
/// with or without respect for quotes, or joined.
fn each_reading(headers: &dyn HeaderFields, name: &str, see: &mut dyn FnMut(&[u8])) -> Told {
    let (between, mut lines) = (separator(name), 0);
    headers.each(name, &mut |line| {
        lines += 1;
        see(line.trim_ascii());
        line.split(|byte| *byte == between).for_each(|value| see(value.trim_ascii()));
        if line.contains(&b'"') {
            each_unquoted(line, between, see);
        }
    });
    if lines <= 1 {
        return Told::All;
    }
    let joiners: &[&[u8]] = if between == b';' { &[b"; ", b", ", b","] } else { &[b",", b", "] };
    let whole = joiners.iter().all(|joiner| {
        let joined = Joined::of(headers, name, joiner);
        joined.text().inspect(|text| see(text)).is_some()
    });
    if whole { Told::All } else { Told::InPart }
}

/// Shows what stands between separators, where those in quotes separate nothing.
fn each_unquoted(line: &[u8], between: u8, see: &mut dyn FnMut(&[u8])) {
    let (mut quoted, mut escaped) = (false, false);
    line.split(|byte| {
        let separates = *byte == between && !quoted;
        quoted ^= *byte == b'"' && !escaped;
        escaped = quoted && *byte == b'\\' && !escaped;
        separates
    })
    .for_each(|value| see(value.trim_ascii()));
}

// RFC 6265 4.2.1, RFC 9113 8.2.3: cookies stand between semicolons, and come in several lines as well.
fn separator(name: &str) -> u8 {
    if name == "cookie" { b';' } else { b',' }
}

/// Whether the field lines match when they are joined; unknown where they are too long to tell.
fn joined(headers: &dyn HeaderFields, name: &str, joiner: &[u8], any_of: &[TextPattern]) -> Option<bool> {
    let (mut lines, mut only) = (0, false);
    headers.each(name, &mut |line| {
        lines += 1;
        only = lines == 1 && any(any_of, line.trim_ascii());
    });
    match lines {
        0 | 1 => Some(only),
        _ => Joined::of(headers, name, joiner).text().map(|text| any(any_of, text)),
    }
}

/// The field lines of one header, joined.
struct Joined {
    bytes: [u8; MAX_JOINED],
    length: usize,
    fits: Fits,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fits {
    Yes,
    TooLong,
}

impl Joined {
    fn of(headers: &dyn HeaderFields, name: &str, joiner: &[u8]) -> Self {
        let mut joined = Self { bytes: [0; MAX_JOINED], length: 0, fits: Fits::Yes };
        let mut lines = 0;
        headers.each(name, &mut |line| {
            lines += 1;
            if lines > 1 {
                joined.push(joiner);
            }
            joined.push(line.trim_ascii());
        });
        joined
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.length.saturating_add(part.len());
        match self.bytes.get_mut(self.length..end) {
            Some(free) => {
                free.copy_from_slice(part);
                self.length = end;
            }
            None => self.fits = Fits::TooLong,
        }
    }

    /// The text, if it fits.
    fn text(&self) -> Option<&[u8]> {
        match self.fits {
            Fits::Yes => self.bytes.get(..self.length),
            Fits::TooLong => None,
        }
    }
}

/// Most bytes of several field lines of one header that are compared joined. Longer ones match no allow rule of Istio's and
/// escape no deny rule.
pub(crate) const MAX_JOINED: usize = 4096;
