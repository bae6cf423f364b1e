//! Services files, several between NUL bytes: what is accepted is written in one form, which says the same, and contradicts
//! itself nowhere.
#![no_main]

use identity::TrustDomain;
use libfuzzer_sys::fuzz_target;
use policy::service::{Entry, clashes, entry, parse, print};
use policy::strict::Source;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/services/two_files"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Reads services files; says whether they hold entries.
fn check(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let name = TrustDomain::parse("prod.example").unwrap();
    let files: Vec<Source> = text
        .split('\0')
        .enumerate()
        .map(|(number, text)| Source::new(format!("{number}.yaml"), text))
        .collect();
    // What a CA and an agent send is read by itself.
    let alone = entry(&Source::new("entry", text));
    if let Ok(alone) = &alone {
        same(alone, &name);
    }
    match parse(&files, &name) {
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty());
            false
        }
        Ok(entries) => {
            entries.iter().for_each(|entry| same(entry, &name));
            assert!(clashes(&entries.iter().collect::<Vec<_>>()).is_empty());
            !entries.is_empty()
        }
    }
}

fn same(written: &Entry, name: &TrustDomain) {
    assert!(!written.name().is_empty() && !written.audience().is_empty());
    assert_eq!(entry(&Source::new("entry", written.document())).unwrap(), *written);
    if written.audience().iter().all(|pattern| pattern.as_str().starts_with("spiffe://prod.example/")) {
        assert_eq!(parse(&[Source::new("printed.yaml", print(written))], name).unwrap(), [written.clone()]);
    }
}
