//! A record as bytes: JSON in which nothing acts on a terminal, ended by its hash.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::Record;
use crate::{
    chain::{self, Link},
    text::acts,
};

/// The longest line that is ever written; what is longer is not ours.
pub const MAX_LINE: usize = 128 * 1024;

/// Appends the record's line to `out`, sealed after `prev`, and returns its hash.
#[expect(clippy::expect_used, reason = "a record is structs of texts and integers, and ends in a hash field")]
pub(crate) fn write_line(record: &Record, prev: Link, out: &mut Vec<u8>) -> Link {
    let start = out.len();
    record.serialize(&mut Serializer::with_formatter(&mut *out, Careful)).expect("a record has a JSON form");
    let line = out.get_mut(start..).unwrap_or_default();
    let hash = chain::seal(line, prev).expect("a record ends in a hash");
    out.push(b'\n');
    hash
}

/// Compact JSON that escapes every character that acts, not only those JSON must.
struct Careful;

impl Formatter for Careful {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = fragment;
        while let Some(at) = plain.find(acts) {
            let (before, rest) = plain.split_at(at);
            out.write_all(before.as_bytes())?;
            let mut characters = rest.chars();
            for unit in characters.next().into_iter().flat_map(utf16) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain = characters.as_str();
        }
        out.write_all(plain.as_bytes())
    }
}

/// Returns the UTF-16 units of a character, as JSON escapes are written in.
fn utf16(character: char) -> Vec<u16> {
    character.encode_utf16(&mut [0; 2]).to_vec()
}
