//! The hash chain: each line carries the hash of the line before, and its own hash last.
//!
//! `hash = SHA-256(prev as 32 bytes ‖ the line up to the first digit of its hash)`. The hash is the last
//! field and has a fixed width, so that a line is checked over its raw bytes and never written anew.

use identity::crypto::{Sha256, from_hex, hex};

/// The hash that the next line refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link([u8; 32]);

/// Why a line does not continue a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The line does not end in a hash and the closing braces.
    #[error("line does not end in a hash")]
    NoHash,
    /// The line refers to another line than the one before it.
    #[error("line does not follow the line before it")]
    Broken,
    /// The line was changed after it was written.
    #[error("line does not have the hash it carries")]
    Altered,
}

impl Link {
    /// What the first line of a chain refers to.
    pub const START: Self = Self([0; 32]);

    /// Reads the hash from its hex form.
    pub fn from_hex(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }

    /// Returns the hex form.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// Replaces the place-holder at the end of `line` by its hash and returns that.
///
/// # Errors
/// `NoHash` when the line has no room for one.
pub(crate) fn seal(line: &mut [u8], prev: Link) -> Result<Link, ChainError> {
    let (hashed, tail) = split(line)?;
    let hash = digest(hashed, prev);
    let start = hashed.len();
    let end = start + (tail.len() - TAIL.len());
    line.get_mut(start..end).ok_or(ChainError::NoHash)?.copy_from_slice(hash.to_hex().as_bytes());
    Ok(hash)
}

/// Checks that `line`, without its line feed, follows a line with hash `prev`; returns its own hash.
///
/// # Errors
/// One of the three ways in which a line does not follow.
pub fn verify(line: &[u8], prev: Link) -> Result<Link, ChainError> {
    let (hashed, tail) = split(line)?;
    let before = hashed.strip_suffix(PREV_END).ok_or(ChainError::NoHash)?;
    if !before.ends_with(prev.to_hex().as_bytes()) {
        return Err(ChainError::Broken);
    }
    let hash = digest(hashed, prev);
    if tail.strip_suffix(TAIL) == Some(hash.to_hex().as_bytes()) {
        Ok(hash)
    } else {
        Err(ChainError::Altered)
    }
}

/// Splits a line at the first digit of its hash.
fn split(line: &[u8]) -> Result<(&[u8], &[u8]), ChainError> {
    let at = line.len().checked_sub(HEX_LEN + TAIL.len()).ok_or(ChainError::NoHash)?;
    let (hashed, tail) = line.split_at(at);
    if hashed.ends_with(PREV_END) && tail.ends_with(TAIL) {
        Ok((hashed, tail))
    } else {
        Err(ChainError::NoHash)
    }
}

fn digest(hashed: &[u8], prev: Link) -> Link {
    let mut hash = Sha256::new();
    hash.update(&prev.0);
    hash.update(hashed);
    Link(hash.finish())
}

/// The width of a SHA-256 hash in hex.
const HEX_LEN: usize = 64;
/// What stands between `prev` and the first digit of the hash.
const PREV_END: &[u8] = b"\",\"hash\":\"";
/// What follows the last digit: the ends of the text, of `vouchsafe`, of `unmapped` and of the record.
const TAIL: &[u8] = b"\"}}}";
/// Stands for the hash until it is known.
pub(crate) const PLACE_HOLDER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use identity::crypto::sha256;

    use super::*;

    fn line(prev: Link) -> Vec<u8> {
        format!(
            r#"{{"a":1,"unmapped":{{"vouchsafe":{{"prev":"{}","hash":"{PLACE_HOLDER}"}}}}}}"#,
            prev.to_hex()
        )
        .into_bytes()
    }

    #[test]
    fn a_sealed_line_follows_the_line_before_it() {
        let mut first = line(Link::START);
        let hash = seal(&mut first, Link::START).unwrap();
        let mut second = line(hash);
        let last = seal(&mut second, hash).unwrap();

        assert_eq!(verify(&first, Link::START), Ok(hash));
        assert_eq!(verify(&second, hash), Ok(last));
    }

    #[test]
    fn any_changed_byte_is_found() {
        let mut sealed = line(Link::START);
        seal(&mut sealed, Link::START).unwrap();

        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;

            assert!(verify(&changed, Link::START).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_line_out_of_its_place_is_found() {
        let mut sealed = line(Link::START);
        let hash = seal(&mut sealed, Link::START).unwrap();

        assert_eq!(verify(&sealed, hash), Err(ChainError::Broken));
    }

    #[test]
    fn a_line_without_room_for_a_hash_is_refused() {
        for short in [&b""[..], b"{}", b"\"}}}"] {
            assert_eq!(verify(short, Link::START), Err(ChainError::NoHash));
            assert_eq!(seal(&mut short.to_vec(), Link::START), Err(ChainError::NoHash));
        }
    }

    #[test]
    fn the_hash_is_what_its_definition_says() {
        let mut sealed = line(Link::START);
        let hash = seal(&mut sealed, Link::START).unwrap();
        let mut bytes = vec![0; 32];
        bytes.extend_from_slice(&sealed[..sealed.len() - 68]);

        assert_eq!(hash.to_hex(), hex(&sha256(&bytes)));
        assert_eq!(Link::from_hex(&hash.to_hex()), Some(hash));
    }

    #[test]
    fn only_lower_case_hex_of_the_right_width_is_a_hash() {
        for text in ["", "00", &"g".repeat(64), &"A".repeat(64), &"0".repeat(65)] {
            assert_eq!(Link::from_hex(text), None, "{text}");
        }
    }
}
