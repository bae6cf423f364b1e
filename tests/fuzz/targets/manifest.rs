//! Manifests of policies: only the one form is read, and what was read is written so.
#![no_main]

use identity::manifest::{MAX_FILE_BYTES, MAX_FILES, MAX_SET_BYTES, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/manifest/two_files"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Reads a manifest; says whether it is one.
fn check(bytes: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(bytes) else { return false };
    assert_eq!(manifest.to_bytes(), bytes);
    assert!(manifest.number() > 0 && manifest.files().len() <= MAX_FILES);
    assert!(manifest.files().iter().map(|file| file.bytes()).sum::<u64>() <= MAX_SET_BYTES);
    for file in manifest.files() {
        assert!(file.bytes() <= MAX_FILE_BYTES);
        assert!(!file.name().contains('/') && !file.name().starts_with('.'));
        assert_eq!(manifest.file(file.name()), Some(file));
    }
    assert!(manifest.succeeds(Some(&manifest.seen())).is_ok());
    let _ = manifest.signed_at();
    true
}
