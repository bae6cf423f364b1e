//! Certificates of peers: as bytes, and as the signed part of a certificate, which a trusted root then signs.
#![no_main]

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuzz::pki::{ROOT_NAME, signed};
use identity::{Anchors, BundleSet, PrivateKey, Role, TrustBundle, TrustDomain, X509Svid, verify};
use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;

fuzz_target!(init: fuzz::accepts(include_bytes!("../seeds/certificate/signed_part_full"), &|bytes| {
    check(&signed(bytes, &ROOT.key), &ROOT.anchors).is_some()
}), |bytes: &[u8]| {
    // Alone, a good leaf is still a stranger's.
    assert!(check(bytes, &NOBODY).is_none());
    let leaf = signed(bytes, &ROOT.key);
    if let Some(id) = check(&leaf, &ROOT.anchors) {
        let theirs = spiffe::SpiffeId::new(&id).expect("a SPIFFE ID to others");
        assert_eq!(theirs.trust_domain().to_string(), TRUST_DOMAIN);
        // The name stands in the certificate, letter by letter.
        assert!(bytes.windows(id.len()).any(|window| window == id.as_bytes()));
    }
    for der in [bytes, &leaf] {
        // A key of ours is nobody else's: the certificate is read, and found to be another's.
        let key = PrivateKey::from_pkcs8_der(&ROOT.key.serialize_der()).expect("a P-256 key");
        assert!(X509Svid::from_der(der, key, None).is_err());
    }
});

/// Verifies `der` in both roles; returns who it proves.
fn check(der: &[u8], anchors: &Anchors) -> Option<String> {
    let leaf = CertificateDer::from(der);
    let as_client = verify(&leaf, std::slice::from_ref(&leaf), anchors, Role::Client, now());
    let as_server = verify(&leaf, &[], anchors, Role::Server, now());
    assert_eq!(as_client.is_ok(), as_server.is_ok());
    for outcome in [&as_client, &as_server] {
        if let Err(error) = outcome {
            assert!(!error.reason().is_empty() && !error.to_string().is_empty());
        }
    }
    as_client.ok().map(|peer| {
        assert!(peer.not_before() <= now() && now() <= peer.not_after());
        peer.id().to_string()
    })
}

struct Root {
    key: KeyPair,
    anchors: Anchors,
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, ROOT_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a root").der().clone();
    let name = TrustDomain::parse(TRUST_DOMAIN).expect("a trust domain");
    let bundle = TrustBundle::new(name, vec![certificate]).expect("a bundle");
    Root { key, anchors: Anchors::new(&BundleSet::from_iter([bundle])) }
});

static NOBODY: LazyLock<Anchors> = LazyLock::new(|| Anchors::new(&BundleSet::new()));

/// The middle of 2026, when the seeds are valid.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_782_000_000)
}

const TRUST_DOMAIN: &str = "prod.example";
