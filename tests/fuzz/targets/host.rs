//! Hosts: the accepted form is stable, and the library that routes reads the same host and port.
#![no_main]

use http::uri::Authority;
use libfuzzer_sys::fuzz_target;
use policy::{CanonicalHost, pattern::HostPattern};

fuzz_target!(|text: &str| {
    let Ok(host) = CanonicalHost::parse(text) else { return };
    let shown = host.to_string();

    assert_eq!(CanonicalHost::parse(&shown).as_ref(), Ok(&host));
    assert_eq!(host.as_str(), host.as_str().to_ascii_lowercase());
    let authority = Authority::try_from(shown.as_str()).expect("an authority to hyper");
    assert_eq!((authority.host(), authority.port_u16()), (host.as_str(), host.port()));
    // Said in a policy, it is itself.
    assert!(HostPattern::parse(host.as_str()).is_ok_and(|pattern| pattern.matches(&host)));
});
