//! SPIFFE IDs: whatever is accepted is canonical, and the `spiffe` crate reads the same.
#![no_main]

use identity::{SpiffeId, TrustDomain};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = SpiffeId::parse(text) {
        whole(&id, text);
    }
    let theirs = spiffe::TrustDomain::new(text);
    if let Ok(name) = TrustDomain::parse(text) {
        assert_eq!(name.as_str(), text);
        assert_eq!(TrustDomain::parse_id(&name.id()).ok().as_ref(), Some(&name));
        assert_eq!(theirs.expect("a trust domain to others").to_string(), text);
    }
});

/// Checks that `id`, read from `text`, falls into parts that make it up again, and is the same to others.
fn whole(id: &SpiffeId, text: &str) {
    assert_eq!(id.as_str(), text);
    assert_eq!(id.to_string().parse::<SpiffeId>().ok().as_ref(), Some(id));
    assert_eq!(SpiffeId::new(&id.trust_domain(), id.path()).ok().as_ref(), Some(id));
    assert!(id.is_member_of(&id.trust_domain()));
    let joined: String = id.segments().map(|segment| format!("/{segment}")).collect();
    assert_eq!(joined, id.path());
    let theirs = spiffe::SpiffeId::new(text).expect("a SPIFFE ID to others");
    assert_eq!(theirs.trust_domain().to_string(), id.trust_domain_name());
    assert_eq!(theirs.path(), id.path());
}
