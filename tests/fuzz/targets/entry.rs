//! Entries as messages of the API: what the CA takes our agent serves, and what an agent keeps it reads the same again.
#![no_main]

use identity::TrustDomain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/entry/whole"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Checks an entry on both sides; says whether the CA takes it.
fn check(bytes: &[u8]) -> bool {
    let name = TrustDomain::parse("prod.example").unwrap();
    if let Some(entry) = agent::fuzzing::entry(bytes, &name) {
        assert_eq!(agent::fuzzing::entry(&agent::fuzzing::kept(&entry), &name).as_ref(), Some(&entry));
    }
    let Some(sent) = ca::fuzzing::entry(bytes, &name) else { return false };
    assert_eq!(ca::fuzzing::entry(&sent, &name).as_ref(), Some(&sent));
    // The CA gives a name to an entry that came without one.
    let named = [sent.as_slice(), &[0x0a, 1, b'x']].concat();
    assert!(agent::fuzzing::entry(&named, &name).is_some());
    true
}
