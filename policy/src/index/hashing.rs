//! A short hash for the maps of the index.
//!
//! The maps hold what policies name, never what a peer sends: a peer chooses what is looked up, not what is stored, so it
//! cannot make entries collide, and the costlier hash of the standard library would protect against nothing.

use std::hash::{BuildHasher, Hasher};

/// Makes [`Short`] hashers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShortHash;

impl BuildHasher for ShortHash {
    type Hasher = Short;

    fn build_hasher(&self) -> Short {
        Short::default()
    }
}

/// Eight bytes at a time: add, multiply; the high half is folded in at the end.
#[derive(Clone, Copy, Default)]
pub(crate) struct Short(u64);

impl Short {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(ODD);
    }
}

impl Hasher for Short {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, last) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.add(u64::from_le_bytes(*chunk));
        }
        let length = u64::try_from(bytes.len()).unwrap_or(0) << 56;
        self.add(tail(bytes, last) ^ length);
    }

    fn write_u8(&mut self, byte: u8) {
        self.add(u64::from(byte));
    }

    fn write_u128(&mut self, number: u128) {
        let low = u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
        self.add(low);
        self.add(u64::try_from(number >> 64).unwrap_or_default());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(u64::try_from(number).unwrap_or_default());
    }

    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 32)).wrapping_mul(ODD)
    }
}

/// The last bytes, fewer than eight, as a number; with those before them where that takes fewer steps. The length is told apart.
fn tail(bytes: &[u8], last: &[u8]) -> u64 {
    // The last byte lowest: names differ at their ends, and multiplying spreads low bits furthest.
    if let Some(eight) = bytes.last_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    if let (Some(first), Some(second)) = (last.first_chunk::<4>(), last.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*second)) << 32;
    }
    last.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

// The fraction of the golden ratio, made odd.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::ShortHash;

    #[test]
    fn names_that_differ_in_a_number_spread_over_high_and_low_bits() {
        let hashes: Vec<u64> = (0..10_000)
            .map(|number| ShortHash.hash_one(format!("spiffe://a.test/ns/x/sa/client-{number}")))
            .collect();

        let low: HashSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
        let high: HashSet<u64> = hashes.iter().map(|hash| hash >> 48).collect();
        assert_eq!(hashes.iter().collect::<HashSet<_>>().len(), hashes.len());
        assert!(low.len() > 8_500 && high.len() > 8_500, "{} {}", low.len(), high.len());
    }
}
