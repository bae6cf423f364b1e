//! Promises of X.509-SVIDs.

use std::time::Duration;

use super::*;
use crate::testing::{Authority, HALF_LIFE};
use crate::verify::Flaw;

#[test]
fn an_svid_tells_what_its_leaf_says() {
    let root = Authority::root("root");
    let (leaf, key) = root.leaf_and_key(WEB, |_| {});

    let svid = X509Svid::from_der(&leaf, key, Some("internal".into())).unwrap();

    assert_eq!(svid.id().as_str(), WEB);
    assert_eq!(svid.hint(), Some("internal"));
    assert_eq!(svid.chain(), [leaf]);
    let life = svid.not_after().duration_since(svid.not_before()).unwrap();
    assert!(life.abs_diff(2 * HALF_LIFE) <= Duration::from_secs(1), "{life:?}");
}

#[test]
fn a_chain_reads_back_the_same_from_der_and_pem() {
    let root = Authority::root("root");
    let lower = root.intermediate("lower", |_| {});
    let (leaf, key) = lower.leaf_and_key(WEB, |_| {});
    let key_pem = key.to_pem();
    let svid = X509Svid::from_der(&[leaf.as_ref(), &lower.der].concat(), key, None).unwrap();

    let again = X509Svid::from_pem(&svid.chain_pem(), &key_pem).unwrap();

    assert_eq!(again.chain(), [leaf, lower.der]);
    assert_eq!(again.chain_der(), svid.chain_der());
    assert_eq!(again.serial(), svid.serial());
    let one_file = format!("{}{}", key_pem.as_str(), svid.chain_pem());
    assert_eq!(X509Svid::from_pem(&one_file, &one_file).unwrap().chain(), svid.chain());
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    let root = Authority::root("root");

    let error = X509Svid::from_der(&root.leaf(WEB), PrivateKey::generate().unwrap(), None).err().unwrap();

    assert!(matches!(error, SvidError::KeyMismatch { id } if id.as_str() == WEB));
}

#[test]
fn a_leaf_that_breaks_the_rules_is_refused() {
    let root = Authority::root("root");
    let (leaf, key) = root.leaf_and_key(WEB, |params| params.key_usages.clear());

    let error = X509Svid::from_der(&leaf, key, None).err().unwrap();

    assert!(matches!(error, SvidError::Leaf { source } if *source.flaw() == Flaw::NoKeyUsage));
}

#[test]
fn a_leaf_for_one_role_only_is_refused() {
    use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let root = Authority::root("root");

    for purpose in [ServerAuth, ClientAuth] {
        let (leaf, key) = root.leaf_and_key(WEB, |params| params.extended_key_usages = vec![purpose.clone()]);

        let error = X509Svid::from_der(&leaf, key, None).err().unwrap();

        assert!(matches!(error, SvidError::Leaf { source } if *source.flaw() == Flaw::ExtendedKeyUsage));
    }
}

#[test]
fn a_serial_number_is_written_without_the_sign_byte_of_der() {
    let root = Authority::root("root");

    for (bytes, text) in [(vec![0x80, 0x01], "8001"), (vec![0x7f, 0x00], "7f00"), (vec![0x01], "01")] {
        let (leaf, key) = root.leaf_and_key(WEB, |params| params.serial_number = Some(bytes.into()));

        assert_eq!(X509Svid::from_der(&leaf, key, None).unwrap().serial(), text);
    }
}

#[test]
fn the_leaf_has_to_come_first() {
    let root = Authority::root("root");
    let lower = root.intermediate("lower", |_| {});
    let (leaf, key) = lower.leaf_and_key(WEB, |_| {});

    assert!(X509Svid::from_der(&[lower.der.as_ref(), &leaf].concat(), key, None).is_err());
}

#[test]
fn what_is_no_chain_is_refused() {
    let root = Authority::root("root");
    let (leaf, key) = root.leaf_and_key(WEB, |_| {});
    let key = Arc::new(key);
    let refusal = |chain: &[u8]| X509Svid::from_der(chain, key.clone(), None).err().unwrap();

    assert!(matches!(refusal(&[]), SvidError::NoCertificate));
    assert!(matches!(refusal(b"hello"), SvidError::Chain));
    assert!(matches!(refusal(&[leaf.as_ref(), &[0]].concat()), SvidError::Chain));
    let ten = [leaf.as_ref(), &root.der.repeat(MAX_INTERMEDIATES + 1)].concat();
    assert!(matches!(refusal(&ten), SvidError::TooLong { found } if found == MAX_INTERMEDIATES + 2));
}

#[test]
fn pem_without_certificate_is_refused() {
    let key = PrivateKey::generate().unwrap().to_pem();

    assert!(matches!(X509Svid::from_pem(&key, &key).err().unwrap(), SvidError::NoCertificate));
    let broken = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    assert!(matches!(X509Svid::from_pem(broken, &key).err().unwrap(), SvidError::Pem { .. }));
}

#[test]
fn keys_and_certificates_made_by_openssl_are_taken() {
    let files = [
        (include_str!("../../testdata/rsa-svid.pem"), "spiffe://prod.test/rsa"),
        (include_str!("../../testdata/ec-svid.pem"), "spiffe://prod.test/ec"),
    ];

    for (file, id) in files {
        assert_eq!(X509Svid::from_pem(file, file).unwrap().id().as_str(), id);
    }
}

const WEB: &str = "spiffe://prod.test/web";
