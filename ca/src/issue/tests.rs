//! What certificates say, read back with another parser and judged by our verifier.

use std::time::SystemTime;

use identity::{Anchors, BundleSet, PrivateKey, Role, TrustBundle, TrustDomain, verify::verify};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use super::*;

#[test]
fn an_issued_certificate_proves_its_identity_to_our_verifier() {
    let ca = authority();

    let issued = ca.issue(&key(), &subject(3600), now()).unwrap();

    let leaf = CertificateDer::from(issued.chain[0].clone());
    let peer = verify(&leaf, &[], &anchors(&ca), Role::Client, now()).unwrap();
    assert_eq!(peer.id().as_str(), "spiffe://prod.test/web");
    assert_eq!(peer.serial(), issued.serial);
    assert_eq!(crate::model::unix_seconds(peer.not_after()), issued.expires_at);
}

#[test]
fn a_leaf_is_what_the_standard_wants() {
    let ca = authority();

    let issued = ca.issue(&key(), &subject(3600), now()).unwrap();

    let (rest, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert!(rest.is_empty());
    let basic = leaf.basic_constraints().unwrap().unwrap();
    assert!(!basic.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap();
    assert!(extended.value.server_auth && extended.value.client_auth && extended.value.other.is_empty());
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI("spiffe://prod.test/web"), GeneralName::DNSName("web.prod.test")]);
    let validity = leaf.validity();
    assert_eq!(validity.not_before.timestamp(), crate::model::unix_seconds(now()) - 10);
    assert!(leaf.raw_serial().len() <= 20 && leaf.raw_serial()[0] < 0x80);
    for oid in ["2.5.29.14", "2.5.29.35"] {
        assert!(leaf.extensions().iter().any(|extension| extension.oid.to_id_string() == oid), "{oid}");
    }
}

#[test]
fn the_root_is_what_the_standard_wants() {
    let (one, two) = (authority(), authority());

    let (_, root) = X509Certificate::from_der(one.certificate()).unwrap();
    let (_, other) = X509Certificate::from_der(two.certificate()).unwrap();

    let basic = root.basic_constraints().unwrap().unwrap();
    assert!(basic.critical && basic.value.ca);
    let usage = root.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.key_cert_sign() && usage.value.crl_sign());
    assert!(!usage.value.digital_signature());
    let names = &root.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI("spiffe://prod.test")]);
    assert_ne!(root.subject(), other.subject());
    assert_ne!(root.raw_serial(), other.raw_serial());
    assert_ne!(one.id(), two.id());
    assert!(root.verify_signature(None).is_ok());
}

#[test]
fn a_certificate_never_outlives_its_authority_and_is_refused_after_it() {
    let ca = authority();

    let long = ca.issue(&key(), &subject(1_000_000), now()).unwrap();

    assert_eq!(long.expires_at, crate::model::unix_seconds(ca.not_after()));
    assert!(matches!(ca.issue(&key(), &subject(60), ca.not_after()), Err(IssueError::AuthorityExpired)));
    let early = ca.not_before() - Duration::from_secs(1);
    assert!(matches!(ca.issue(&key(), &subject(60), early), Err(IssueError::ClockBehind)));
}

#[test]
fn a_loaded_authority_signs_like_the_one_that_was_made() {
    let secret = PrivateKey::generate().unwrap();
    let made = Authority::make(&domain(), &secret, Duration::from_secs(7200), now()).unwrap();

    let loaded = Authority::load(&domain(), made.certificate(), &secret).unwrap();

    assert_eq!((loaded.id(), loaded.not_after()), (made.id(), made.not_after()));
    let issued = loaded.issue(&key(), &subject(60), now()).unwrap();
    let leaf = CertificateDer::from(issued.chain[0].clone());
    assert!(verify(&leaf, &[], &anchors(&made), Role::Server, now()).is_ok());
}

#[test]
fn a_foreign_key_or_certificate_makes_no_authority() {
    use crate::authority::AuthorityError;
    let secret = PrivateKey::generate().unwrap();
    let made = Authority::make(&domain(), &secret, Duration::from_secs(7200), now()).unwrap();
    let other = TrustDomain::parse("other.test").unwrap();

    let wrong_key = Authority::load(&domain(), made.certificate(), &PrivateKey::generate().unwrap());
    let wrong_domain = Authority::load(&other, made.certificate(), &secret);
    let damaged = Authority::load(&domain(), b"damaged", &secret);

    assert!(matches!(wrong_key.err().unwrap(), AuthorityError::KeyMismatch));
    assert!(matches!(wrong_domain.err().unwrap(), AuthorityError::TrustDomain(_)));
    assert!(matches!(damaged.err().unwrap(), AuthorityError::Certificate));
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let wanted = SpiffeId::parse("spiffe://prod.test/spire/server").unwrap();
    let csr = PrivateKey::generate().unwrap().csr(Some(&wanted)).unwrap();

    let issued = authority().issue(&RequestedKey::from_csr(&csr).unwrap(), &subject(60), now()).unwrap();

    let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(!names.contains(&GeneralName::URI(wanted.as_str())));
}

#[test]
fn p384_and_ed25519_keys_keep_their_kind() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let key = RequestedKey::from_csr(&csr_of(&pair)).unwrap();

        let issued = authority().issue(&key, &subject(60), now()).unwrap();

        let (_, leaf) = X509Certificate::from_der(&issued.chain[0]).unwrap();
        assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&pair));
    }
}

#[test]
fn a_request_that_proves_nothing_is_refused() {
    let good = PrivateKey::generate().unwrap().csr(None).unwrap();
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut trailing = good.clone();
    trailing.push(0);

    assert!(matches!(refusal(&forged), CsrError::Signature | CsrError::Malformed));
    assert!(matches!(refusal(&trailing), CsrError::Malformed));
    assert!(matches!(refusal(b""), CsrError::Malformed));
    assert!(matches!(refusal(&vec![0; MAX_CSR_BYTES + 1]), CsrError::TooLong { .. }));
}

#[test]
fn a_request_with_somebody_elses_key_is_refused() {
    let (mine, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let mut csr = mine.csr(None).unwrap();
    let (own, other) = (mine.public_key_spki(), theirs.public_key_spki());
    let at = csr.windows(own.len()).position(|window| window == own).unwrap();
    csr[at..at + own.len()].copy_from_slice(other);

    assert!(matches!(refusal(&csr), CsrError::Signature));
}

#[test]
fn serial_numbers_are_of_one_length_and_positive() {
    for _ in 0..100 {
        let serial = random_serial().unwrap();
        assert!((0x40..0x80).contains(&serial[0]));
    }
    assert_ne!(random_serial().unwrap(), random_serial().unwrap());
}

#[test]
fn an_operators_request_names_one_identity() {
    let id = SpiffeId::parse("spiffe://prod.test/web").unwrap();
    let csr = PrivateKey::generate().unwrap().csr(Some(&id)).unwrap();

    assert_eq!(requested_names(&csr).unwrap(), (id, vec![]));
    assert!(matches!(
        requested_names(&PrivateKey::generate().unwrap().csr(None).unwrap()),
        Err(CsrError::Names)
    ));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_request_parser_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let _ = RequestedKey::from_csr(&bytes);
        let _ = requested_names(&bytes);
    }

    #[test]
    fn a_flipped_bit_in_what_was_signed_never_passes(at in 0usize..200, bit in 0u8..8) {
        let mut csr = PrivateKey::generate().unwrap().csr(None).unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&csr).unwrap();
        let signed = parsed.certification_request_info.raw;
        let start = csr.windows(signed.len()).position(|window| window == signed).unwrap();
        let at = start + at % signed.len();
        csr[at] ^= 1 << bit;
        proptest::prop_assert!(RequestedKey::from_csr(&csr).is_err());
    }
}

fn refusal(csr: &[u8]) -> CsrError {
    RequestedKey::from_csr(csr).err().unwrap()
}

fn csr_of(pair: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(pair).unwrap().der().to_vec()
}

fn authority() -> Authority {
    Authority::make(&domain(), &PrivateKey::generate().unwrap(), Duration::from_secs(7200), now()).unwrap()
}

fn key() -> RequestedKey {
    RequestedKey::from_csr(&PrivateKey::generate().unwrap().csr(None).unwrap()).unwrap()
}

fn subject(ttl: u64) -> Subject {
    Subject {
        id: SpiffeId::parse("spiffe://prod.test/web").unwrap(),
        dns_names: vec!["web.prod.test".into()],
        ttl: Duration::from_secs(ttl),
    }
}

fn anchors(ca: &Authority) -> Anchors {
    let bundle = TrustBundle::new(domain(), vec![ca.certificate().clone()]).unwrap();
    Anchors::new(&BundleSet::from_iter([bundle]))
}

fn domain() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}
