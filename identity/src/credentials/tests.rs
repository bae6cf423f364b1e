//! Promises of credentials.

use super::*;
use crate::testing::Authority;

#[test]
fn each_snapshot_has_a_higher_generation() {
    let root = Authority::root("root");
    let first = Credentials::new(root.svid(WEB), root.bundles("prod.test")).unwrap();

    let second = first.renew(root.svid(WEB), root.bundles("prod.test")).unwrap();
    let third = Credentials::new(root.svid(WEB), root.bundles("prod.test")).unwrap();

    assert!(first.generation() < second.generation() && second.generation() < third.generation());
}

#[test]
fn anchors_are_prepared_again_only_for_other_bundles() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let first = Credentials::new(root.svid(WEB), root.bundles("prod.test")).unwrap();

    let same = first.renew(root.svid(WEB), root.bundles("prod.test")).unwrap();
    let changed = first.renew(root.svid(WEB), other.bundles("prod.test")).unwrap();

    assert!(Arc::ptr_eq(first.anchors(), same.anchors()));
    assert!(!Arc::ptr_eq(first.anchors(), changed.anchors()));
    assert_ne!(first.svid().serial(), same.svid().serial());
}

#[test]
fn an_svid_without_its_own_bundle_is_refused() {
    let root = Authority::root("root");
    let foreign = root.bundles("other.test");

    let error = Credentials::new(root.svid(WEB), foreign).err().unwrap();

    assert!(matches!(error, CredentialsError::NoOwnBundle { id } if id.as_str() == WEB));
}

const WEB: &str = "spiffe://prod.test/web";
