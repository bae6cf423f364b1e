//! The CA's entry files, several between NUL bytes: what is accepted is valid, and stands once.
#![no_main]

use identity::TrustDomain;
use libfuzzer_sys::fuzz_target;
use policy::strict::Source;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/entries/two_files"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Reads entry files; says whether they hold entries.
fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let name = TrustDomain::parse("prod.example").unwrap();
    let files: Vec<Source> = text
        .split('\0')
        .enumerate()
        .map(|(number, text)| Source::new(format!("{number}.yaml"), text))
        .collect();
    match ca::entries::parse_all(&files, &name) {
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty());
            false
        }
        Ok(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                assert!(entry.check(&name).is_ok());
                assert!(entry.selectors.is_sorted());
                assert!(entries[..at].iter().all(|other| other.key() != entry.key()));
            }
            !entries.is_empty()
        }
    }
}
