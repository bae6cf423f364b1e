//! Trust bundles as JWKS, DER and PEM: what was read is written so that it reads the same.
#![no_main]

use identity::{Anchors, BundleSet, TrustBundle, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = TrustDomain::parse("prod.example").unwrap();
    if let Ok(bundle) = TrustBundle::from_jwks(name.clone(), bytes) {
        let written = bundle.to_jwks();
        let again =
            TrustBundle::from_jwks(name.clone(), written.as_bytes()).expect("what was written is read");
        assert!(again == bundle);
        assert_eq!(again.to_jwks(), written);
        usable(bundle);
    }
    if let Ok(bundle) = TrustBundle::from_der(name.clone(), bytes) {
        let again = TrustBundle::from_der(name.clone(), &bundle.authorities_der()).expect("the same bytes");
        assert!(again == bundle);
        usable(bundle);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(bundle) = TrustBundle::from_pem(name.clone(), text) {
        let again = TrustBundle::from_pem(name, &bundle.to_pem()).expect("the same certificates");
        assert!(again == bundle);
        usable(bundle);
    }
});

/// Prepares anchors: whatever the authorities are, that must not fail.
fn usable(bundle: TrustBundle) {
    let name = bundle.trust_domain().clone();
    let known = bundle.x509_authorities().len();
    let anchors = Anchors::new(&BundleSet::from_iter([bundle]));
    assert!(anchors.usable(&name, std::time::UNIX_EPOCH) <= known);
}
