use std::time::SystemTime;

use super::*;
use crate::bundle::{BundleSet, TrustBundle};
use crate::spiffe_id::TrustDomain;
use crate::testing::Authority;
use crate::verify::{Anchors, Flaw, Role, verify};

const WEB: &str = "spiffe://prod.test/web";
const API: &str = "spiffe://prod.test/api";

fn anchors(roots: &[&Authority], lists: &[Vec<u8>]) -> Anchors {
    let roots = roots.iter().map(|root| root.der.clone()).collect();
    let bundle = TrustBundle::new(TrustDomain::parse("prod.test").unwrap(), roots).unwrap();
    let bundles: BundleSet = [bundle].into_iter().collect();
    Anchors::new(&bundles.without(RevocationLists::from_der(lists).unwrap()))
}

fn flaw(
    leaf: &rustls_pki_types::CertificateDer<'_>,
    intermediates: &[rustls_pki_types::CertificateDer<'_>],
    anchors: &Anchors,
) -> Option<Flaw> {
    let result = verify(leaf, intermediates, anchors, Role::Client, SystemTime::now());
    result.err().map(|error| error.flaw().clone())
}

#[test]
fn what_is_on_its_issuers_list_is_refused_and_nothing_else() {
    let root = Authority::root("root");
    let (taken, kept) = (root.leaf(WEB), root.leaf(API));
    let anchors = anchors(&[&root], &[root.revoke(&[&taken])]);

    assert_eq!(flaw(&taken, &[], &anchors), Some(Flaw::Revoked));
    assert_eq!(flaw(&kept, &[], &anchors), None);
}

#[test]
fn an_authority_takes_back_only_what_it_issued_though_another_bears_its_name() {
    let (one, other) = (Authority::root("root"), Authority::root("root"));
    let leaf = one.leaf(WEB);

    let lists = [other.revoke(&[&leaf]), one.revoke(&[])];
    assert_eq!(flaw(&leaf, &[], &anchors(&[&one, &other], &lists)), None);

    let lists = [other.revoke(&[]), one.revoke(&[&leaf])];
    assert_eq!(flaw(&leaf, &[], &anchors(&[&one, &other], &lists)), Some(Flaw::Revoked));
}

#[test]
fn a_revoked_intermediate_takes_its_leaves_along_and_one_may_revoke_its_own() {
    let root = Authority::root("root");
    let middle = root.intermediate("middle", |_| {});
    let leaf = middle.leaf(WEB);
    let chain = [middle.der.clone()];

    let by_root = anchors(&[&root], &[root.revoke(&[&middle.der])]);
    let by_middle = anchors(&[&root], &[middle.revoke(&[&leaf])]);

    assert_eq!(flaw(&leaf, &chain, &by_root), Some(Flaw::Revoked));
    assert_eq!(flaw(&leaf, &chain, &by_middle), Some(Flaw::Revoked));
    assert_eq!(flaw(&leaf, &chain, &anchors(&[&root], &[])), None);
}

#[test]
fn what_is_no_list_fails_all_of_them() {
    let root = Authority::root("root");
    let good = root.revoke(&[]);
    let trailing = [good.clone(), vec![0]].concat();

    for bad in [Vec::new(), b"no list".to_vec(), trailing, root.der.to_vec()] {
        let read = RevocationLists::from_der(&[good.clone(), bad]);
        assert_eq!(read, Err(RevocationError::Malformed { index: 1 }));
    }
    let many = vec![good; MAX_LISTS + 1];
    assert_eq!(RevocationLists::from_der(&many), Err(RevocationError::TooMany { found: MAX_LISTS + 1 }));
}

#[test]
fn leading_noughts_of_a_serial_number_say_nothing() {
    assert_eq!(trimmed(&[0, 0x80, 1]), trimmed(&[0x80, 1]));
}
