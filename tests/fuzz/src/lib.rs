//! What several fuzz targets need: other readers of the same bytes, and a look at the seeds.

pub mod http;
pub mod pki;

/// Checks that a target takes its own seed: one that takes nothing would find nothing.
pub fn accepts(seed: &[u8], check: &dyn Fn(&[u8]) -> bool) {
    assert!(check(seed), "the seed is refused: {}", String::from_utf8_lossy(seed));
}
