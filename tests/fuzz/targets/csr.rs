//! Certificate requests: as bytes, and as attributes of a request that its own key signs. Nothing but the key is taken.
#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ca::{
    authority::Authority,
    issue::{RequestedKey, Subject, requested_names},
};
use fuzz::pki::{request, signed};
use identity::{Anchors, BundleSet, PrivateKey, Role, SpiffeId, TrustBundle, TrustDomain, verify};
use libfuzzer_sys::fuzz_target;
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/csr/attributes"), &check), |bytes: &[u8]| {
    check(bytes);
});

/// Reads a request; says whether one was named and issued.
fn check(bytes: &[u8]) -> bool {
    let (mut named, mut issued) = (false, false);
    for der in [bytes, &signed(&request(&KEY, bytes), &KEY)] {
        if let Ok((id, names)) = requested_names(der) {
            assert!(names.iter().all(|name| !name.is_empty()));
            assert!(spiffe::SpiffeId::new(id.as_str()).is_ok());
            named = true;
        }
        if let Ok(key) = RequestedKey::from_csr(der) {
            issue(&key);
            issued = true;
        }
    }
    named && issued
}

/// Issues a certificate for the key and checks that it says what the CA was told, whatever the request said.
fn issue(key: &RequestedKey) {
    let id = SpiffeId::parse("spiffe://prod.example/web").expect("an ID");
    let dns_names = vec!["web.prod.example".to_owned()];
    let subject = Subject { id: id.clone(), dns_names, ttl: Duration::from_secs(3600) };

    let issued = CA.authority.issue(key, &subject, now()).expect("an accepted key gets a certificate");

    let leaf = CertificateDer::from(issued.chain[0].clone());
    let peer = verify(&leaf, &[], &CA.anchors, Role::Client, now()).expect("a certificate that proves");
    assert_eq!(*peer.id(), id);
    assert_eq!(peer.serial(), issued.serial);
}

struct Ca {
    authority: Authority,
    anchors: Anchors,
}

static CA: LazyLock<Ca> = LazyLock::new(|| {
    let name = TrustDomain::parse("prod.example").expect("a trust domain");
    let key = PrivateKey::generate().expect("a key");
    let authority = Authority::make(&name, &key, Duration::from_secs(86_400), now()).expect("an authority");
    let bundle = TrustBundle::new(name, vec![authority.certificate().clone()]).expect("a bundle");
    Ca { authority, anchors: Anchors::new(&BundleSet::from_iter([bundle])) }
});

static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_782_000_000)
}
