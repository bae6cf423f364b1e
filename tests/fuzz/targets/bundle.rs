//! Trust bundles as JWKS, DER and PEM: what was read is written so that it reads the same.
#![no_main]

use identity::{Anchors, BundleSet, TrustBundle, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds_are_accepted(), |bytes: &[u8]| {
    check(bytes);
});

fn seeds_are_accepted() {
    fuzz::accepts(include_bytes!("../seeds/bundle/jwks"), &check);
    fuzz::accepts(include_bytes!("../seeds/bundle/authorities.der"), &check);
    fuzz::accepts(include_bytes!("../seeds/bundle/authorities.pem"), &check);
}

/// Reads a bundle in each of the three forms; says whether it is one with an authority.
fn check(bytes: &[u8]) -> bool {
    let mut known = 0;
    let name = TrustDomain::parse("prod.example").unwrap();
    if let Ok(bundle) = TrustBundle::from_jwks(name.clone(), bytes) {
        let written = bundle.to_jwks();
        let again =
            TrustBundle::from_jwks(name.clone(), written.as_bytes()).expect("what was written is read");
        assert!(again == bundle);
        assert_eq!(again.to_jwks(), written);
        known += usable(bundle);
    }
    if let Ok(bundle) = TrustBundle::from_der(name.clone(), bytes) {
        let again = TrustBundle::from_der(name.clone(), &bundle.authorities_der()).expect("the same bytes");
        assert!(again == bundle);
        known += usable(bundle);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return known > 0 };
    if let Ok(bundle) = TrustBundle::from_pem(name.clone(), text) {
        let again = TrustBundle::from_pem(name, &bundle.to_pem()).expect("the same certificates");
        assert!(again == bundle);
        known += usable(bundle);
    }
    known > 0
}

/// Prepares anchors: whatever the authorities are, that must not fail. Returns how many there are.
fn usable(bundle: TrustBundle) -> usize {
    let name = bundle.trust_domain().clone();
    let known = bundle.x509_authorities().len();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    assert!(anchors.usable(&name, std::time::UNIX_EPOCH) <= known);
    known
}
