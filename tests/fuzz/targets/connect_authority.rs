//! Authorities of CONNECT streams: what is read is what every other reader takes it for, or nothing.
#![no_main]

use std::net::SocketAddr;

use http::uri::Authority;
use libfuzzer_sys::fuzz_target;
use proxy::tunnel_fuzzing::authority;

fuzz_target!(|text: &str| {
    let Some(address) = authority(text) else { return };
    let theirs: SocketAddr = text.parse().expect("an address to the standard library");
    let carried = Authority::try_from(text).expect("an authority to the HTTP library");

    assert_eq!(address, SocketAddr::new(theirs.ip().to_canonical(), theirs.port()));
    assert_eq!(carried.port_u16(), Some(address.port()));
    assert!(address.port() != 0 && !text.contains(['@', '%', '+']));
    // What we send is read as what we meant.
    assert_eq!(authority(&address.to_string()), Some(address));
});
