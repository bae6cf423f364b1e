//! The three files change together and never show a mixture.

use std::os::unix::fs::PermissionsExt as _;

use identity::{PrivateKey, SpiffeId, TrustDomain};

use super::*;

#[test]
fn the_files_are_those_of_the_svid_and_the_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let (svid, bundle) = made();

    write(dir.path(), &svid, &bundle).unwrap();

    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let back = X509Svid::from_pem(&read("svid.pem"), &read("key.pem")).unwrap();
    assert_eq!(back.serial(), svid.serial());
    assert_eq!(read("bundle.pem"), bundle.to_pem());
    assert_eq!(mode(&dir.path().join("key.pem")), 0o600);
}

#[test]
fn a_new_set_takes_the_place_of_the_old_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (old, bundle) = made();
    let (new, _) = made();
    write(dir.path(), &old, &bundle).unwrap();
    let before = fs::read_link(dir.path().join(CURRENT)).unwrap();

    write(dir.path(), &new, &bundle).unwrap();

    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(X509Svid::from_pem(&read("svid.pem"), &read("key.pem")).unwrap().serial(), new.serial());
    assert!(!dir.path().join(before).exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), NAMES.len() + 2);
}

#[test]
fn files_that_stood_there_before_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (svid, bundle) = made();
    fs::write(dir.path().join("svid.pem"), "old").unwrap();

    write(dir.path(), &svid, &bundle).unwrap();

    assert_eq!(fs::read_to_string(dir.path().join("svid.pem")).unwrap(), svid.chain_pem());
}

#[test]
fn a_set_that_cannot_be_written_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let (svid, bundle) = made();
    write(dir.path(), &svid, &bundle).unwrap();
    // A directory where a link is to be moved cannot be replaced by it.
    fs::create_dir(dir.path().join(format!(".{CURRENT}.new"))).unwrap();

    let (newer, _) = made();
    let refused = write(dir.path(), &newer, &bundle);

    assert!(matches!(refused, Err(SetError::Place { .. })));
    assert_eq!(fs::read_to_string(dir.path().join("svid.pem")).unwrap(), svid.chain_pem());
}

#[test]
fn a_withdrawn_identity_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (svid, bundle) = made();
    write(dir.path(), &svid, &bundle).unwrap();
    fs::write(dir.path().join("mine.txt"), "stays").unwrap();

    remove(dir.path()).unwrap();

    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine.txt"]);
}

/// An SVID that signed itself: enough to be read back from its files.
fn made() -> (X509Svid, TrustBundle) {
    let id = SpiffeId::parse("spiffe://prod.test/web").unwrap();
    let key = PrivateKey::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    parameters.is_ca = rcgen::IsCa::ExplicitNoCa;
    parameters.subject_alt_names = vec![rcgen::SanType::URI(id.as_str().try_into().unwrap())];
    let certificate = parameters.self_signed(&key.rcgen().unwrap()).unwrap();
    let svid = X509Svid::from_der(certificate.der(), key, None).unwrap();
    let bundle = TrustBundle::from_der(TrustDomain::parse("prod.test").unwrap(), certificate.der()).unwrap();
    (svid, bundle)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
