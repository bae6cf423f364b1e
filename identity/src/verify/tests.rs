//! One promise for each flaw a chain may have.

use std::time::Duration;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    NameConstraints, SanType,
};

use super::*;
use crate::testing::{self, Authority, HALF_LIFE, der, extension, set_names, uri};

#[test]
fn a_sound_chain_proves_its_peer_in_both_roles() {
    let root = Authority::root("root");
    let leaf = root.leaf(WEB);

    for role in [Role::Client, Role::Server] {
        let peer = verify(&leaf, &[], &anchors(&root), role, now()).unwrap();

        assert_eq!(peer.id().as_str(), WEB);
        assert_eq!(peer.fingerprint(), crypto::hex(&crypto::sha256(&leaf)));
        assert_eq!(peer.serial().len(), 32);
        assert!(peer.not_before() < now() && now() < peer.not_after());
    }
}

#[test]
fn intermediates_lead_to_the_root_in_any_order() {
    let root = Authority::root("root");
    let upper = root.intermediate("upper", |_| {});
    let lower = upper.intermediate("lower", |_| {});
    let leaf = lower.leaf(WEB);

    let chains = [[upper.der.clone(), lower.der.clone()], [lower.der.clone(), upper.der.clone()]];

    for chain in chains {
        assert!(verify(&leaf, &chain, &anchors(&root), Role::Client, now()).is_ok());
    }
    assert_flaw(verify(&leaf, &[upper.der], &anchors(&root), Role::Client, now()), Flaw::UnknownIssuer);
}

#[test]
fn other_names_may_stand_beside_the_spiffe_id() {
    let peer = check(|params| {
        params.subject_alt_names.push(SanType::DnsName("web.prod.test".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.distinguished_name.push(DnType::CommonName, "web");
    });

    assert_eq!(peer.unwrap().id().as_str(), WEB);
}

#[test]
fn extended_key_usage_may_be_absent() {
    assert!(check(|params| params.extended_key_usages.clear()).is_ok());
}

#[test]
fn a_leaf_is_good_to_its_last_second_and_no_longer() {
    let root = Authority::root_with("root", |params| params.not_after = (now() + 10 * HALF_LIFE).into());
    let leaf = root.leaf(WEB);
    let parsed = Leaf::parse(&leaf).unwrap();
    let at = |time| verify(&leaf, &[], &anchors(&root), Role::Client, time);

    assert!(at(parsed.not_before).is_ok());
    assert!(at(parsed.not_after).is_ok());
    assert_flaw(at(parsed.not_after + SECOND), Flaw::Expired);
}

#[test]
fn a_leaf_of_the_future_is_refused() {
    assert_flaw(check(|params| params.not_before = (now() + HALF_LIFE / 2).into()), Flaw::NotYetValid);
}

#[test]
fn an_expired_intermediate_is_refused() {
    let root = Authority::root("root");
    let stale = root.intermediate("stale", |params| params.not_after = (now() - SECOND * 2).into());
    let leaf = stale.leaf(WEB);

    assert_flaw(verify(&leaf, &[stale.der], &anchors(&root), Role::Client, now()), Flaw::Expired);
}

#[test]
fn an_expired_root_is_not_trusted() {
    let root = Authority::root_with("root", |params| params.not_after = (now() - SECOND * 2).into());
    let leaf = root.leaf(WEB);

    assert_flaw(verify(&leaf, &[], &anchors(&root), Role::Client, now()), Flaw::NoUsableAnchor);
    assert_eq!(anchors(&root).usable(&TrustDomain::parse(TD).unwrap(), now()), 0);
}

#[test]
fn a_root_of_the_future_is_not_trusted() {
    let root = Authority::root_with("root", |params| params.not_before = (now() + HALF_LIFE / 2).into());
    let leaf = root.leaf(WEB);

    assert_flaw(verify(&leaf, &[], &anchors(&root), Role::Client, now()), Flaw::NoUsableAnchor);
}

#[test]
fn an_expired_root_does_not_hide_a_valid_one() {
    let old = Authority::root_with("root", |params| params.not_after = (now() - SECOND * 2).into());
    let new = Authority::root("root");
    let both =
        TrustBundle::new(TrustDomain::parse(TD).unwrap(), vec![old.der.clone(), new.der.clone()]).unwrap();
    let anchors = Anchors::new(&[both].into_iter().collect());

    assert!(verify(&new.leaf(WEB), &[], &anchors, Role::Client, now()).is_ok());
    assert!(verify(&old.leaf(WEB), &[], &anchors, Role::Client, now()).is_err());
    assert_eq!(anchors.usable(&TrustDomain::parse(TD).unwrap(), now()), 1);
}

#[test]
fn two_uri_names_are_refused_even_if_both_are_sound() {
    let flaw = check(|params| {
        params.subject_alt_names.push(SanType::URI("spiffe://prod.test/db".try_into().unwrap()))
    });

    assert_flaw(flaw, Flaw::UriNames { found: 2 });
}

#[test]
fn a_second_uri_name_counts_though_it_is_no_spiffe_id() {
    for other in ["https://prod.test/", "", "\u{0}"] {
        let flaw = check(|params| set_names(params, &[uri(WEB), uri(other)]));
        assert_flaw(flaw, Flaw::UriNames { found: 2 });
    }
    let unreadable = check(|params| set_names(params, &[uri([0xff, 0xfe]), uri(WEB)]));
    assert_flaw(unreadable, Flaw::UriNames { found: 2 });
}

#[test]
fn a_leaf_without_names_is_refused() {
    assert_flaw(check(|params| params.subject_alt_names.clear()), Flaw::UriNames { found: 0 });
}

#[test]
fn a_spiffe_id_counts_only_as_uri_name() {
    let in_common_name = check(|params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(DnType::CommonName, WEB);
    });
    let in_dns_name = check(|params| set_names(params, &[der(0x82, WEB.as_bytes())]));
    let in_mail_name = check(|params| set_names(params, &[der(0x81, WEB.as_bytes())]));

    for refused in [in_common_name, in_dns_name, in_mail_name] {
        assert_flaw(refused, Flaw::UriNames { found: 0 });
    }
}

#[test]
fn names_that_are_almost_spiffe_ids_are_refused() {
    let names = [
        "spiffe://prod.test/web\0",
        "spiffe://prod.test\0.evil.test/web",
        "spiffe://prod.test/we\nb",
        "spiffe://prod.test/\u{7f}",
        "spiffe://PROD.test/web",
        "SPIFFE://prod.test/web",
        "spiffe://prod.test/web/",
        "spiffe://prod.test//web",
        "spiffe://prod.test/./web",
        "spiffe://prod.test/a/../web",
        "spiffe://prod.test/web?x=1",
        "spiffe://prod.test/web#x",
        "spiffe://prod.test/we%62",
        "spiffe://user@prod.test/web",
        "spiffe://prod.test:443/web",
        "https://prod.test/web",
        " spiffe://prod.test/web",
        "",
    ];

    for name in names {
        let error = check(|params| set_names(params, &[uri(name)])).unwrap_err();

        assert!(matches!(error.flaw(), Flaw::SpiffeId { .. }), "{name:?}: {error}");
        assert_eq!((error.reason(), error.claimed_id()), ("invalid_spiffe_id", None), "{name:?}");
    }
}

#[test]
fn names_outside_ascii_are_refused() {
    let latin = [b"spiffe://prod.test/w".as_slice(), &[0xe9], b"b"].concat();

    for name in [latin.as_slice(), "spiffe://prod.test/wéb".as_bytes(), &[0xff]] {
        assert_flaw(check(|params| set_names(params, &[uri(name)])), Flaw::UriNotAscii);
    }
}

#[test]
fn an_id_of_2049_bytes_is_refused_and_one_of_2048_is_not() {
    let longest = format!("spiffe://prod.test/{}", "a".repeat(2048 - "spiffe://prod.test/".len()));
    let root = Authority::root("root");

    assert!(verify(&root.leaf(&longest), &[], &anchors(&root), Role::Client, now()).is_ok());
    let too_long = verify(&root.leaf(&format!("{longest}a")), &[], &anchors(&root), Role::Client, now());
    assert_eq!(too_long.unwrap_err().reason(), "invalid_spiffe_id");
}

#[test]
fn a_leaf_that_names_only_its_trust_domain_is_refused() {
    let root = Authority::root("root");

    assert_flaw(
        verify(&root.leaf("spiffe://prod.test"), &[], &anchors(&root), Role::Client, now()),
        Flaw::NoPath,
    );
}

#[test]
fn a_ca_certificate_proves_nobody() {
    let flaw = check(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));

    assert_flaw(flaw, Flaw::LeafIsCa);
}

#[test]
fn an_intermediate_proves_nobody_though_it_has_a_spiffe_id() {
    let root = Authority::root("root");
    let intermediate = root.intermediate("intermediate", |params| {
        params.subject_alt_names.push(SanType::URI(WEB.try_into().unwrap()));
    });

    assert_flaw(verify(&intermediate.der, &[], &anchors(&root), Role::Server, now()), Flaw::LeafIsCa);
}

#[test]
fn the_root_itself_proves_nobody() {
    let root = Authority::root_with("root", |params| {
        params.subject_alt_names.push(SanType::URI(WEB.try_into().unwrap()));
    });

    assert_flaw(verify(&root.der, &[], &anchors(&root), Role::Client, now()), Flaw::LeafIsCa);
}

#[test]
fn basic_constraints_must_be_present() {
    assert_flaw(check(|params| params.is_ca = IsCa::NoCa), Flaw::NoBasicConstraints);
}

#[test]
fn basic_constraints_must_be_well_formed() {
    let malformed: [&[u8]; 5] =
        [&[], &[0x30], &[0x30, 3, 1, 1, 0x01], &[0x30, 0, 0x05, 0], &[0x30, 2, 0x05, 0]];

    for content in malformed {
        let flaw = check(|params| {
            params.is_ca = IsCa::NoCa;
            params.custom_extensions.push(extension(&testing::BASIC_CONSTRAINTS, true, content));
        });
        assert!(is_malformed(&flaw, "basic constraints"), "{content:?}: {flaw:?}");
    }
}

#[test]
fn key_usage_must_be_present() {
    assert_flaw(check(|params| params.key_usages.clear()), Flaw::NoKeyUsage);
}

#[test]
fn key_usage_must_be_critical() {
    assert_flaw(check(|params| set_key_usage(params, false, &[3, 2, 7, 0x80])), Flaw::KeyUsageNotCritical);
    assert!(check(|params| set_key_usage(params, true, &[3, 2, 7, 0x80])).is_ok());
}

#[test]
fn key_usage_must_allow_signatures() {
    let flaw = check(|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);

    assert_flaw(flaw, Flaw::NoDigitalSignature);
}

#[test]
fn a_leaf_that_may_sign_certificates_is_refused() {
    assert_flaw(check(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)), Flaw::KeyCertSign);
}

#[test]
fn a_leaf_that_may_sign_revocation_lists_is_refused() {
    assert_flaw(check(|params| params.key_usages.push(KeyUsagePurpose::CrlSign)), Flaw::CrlSign);
}

#[test]
fn key_usage_must_be_well_formed() {
    let malformed: [&[u8]; 7] =
        [&[], &[3, 0], &[3, 1, 0], &[3, 2, 8, 0x80], &[3, 2, 7, 0x81], &[3, 2, 7, 0x80, 0], &[4, 2, 7, 0x80]];

    for content in malformed {
        let flaw = check(|params| set_key_usage(params, true, content));
        assert!(is_malformed(&flaw, "key usage"), "{content:?}: {flaw:?}");
    }
}

#[test]
fn an_extension_that_occurs_twice_is_refused() {
    let twice = check(|params| {
        params.custom_extensions.push(extension(&testing::KEY_USAGE, true, &[3, 2, 7, 0x80]));
    });

    // Which of the readers finds it first is no matter, as long as one does.
    assert!(matches!(twice.unwrap_err().flaw(), Flaw::Malformed | Flaw::MalformedExtension { .. }));
}

#[test]
fn names_must_be_well_formed() {
    let good = uri(WEB);
    let malformed: [Vec<u8>; 4] = [
        [der(0x30, &good), vec![0]].concat(),
        der(0x30, &[good.as_slice(), &[0x86]].concat()),
        der(0x30, &[good.as_slice(), &[0x86, 5, b'a']].concat()),
        der(0x31, &good),
    ];

    for content in malformed {
        let flaw = check(|params| {
            params.subject_alt_names.clear();
            params.custom_extensions.push(extension(&testing::SUBJECT_ALT_NAME, true, &content));
        });
        assert!(is_malformed(&flaw, "subject alternative name"), "{content:?}: {flaw:?}");
    }
}

#[test]
fn extended_key_usage_must_have_both_roles() {
    use ExtendedKeyUsagePurpose::*;

    for purposes in [vec![ServerAuth], vec![ClientAuth], vec![Any], vec![CodeSigning]] {
        let flaw = check(|params| params.extended_key_usages = purposes.clone());
        assert_flaw(flaw, Flaw::ExtendedKeyUsage);
    }
    assert!(check(|params| params.extended_key_usages.push(CodeSigning)).is_ok());
}

#[test]
fn an_extended_key_usage_without_purposes_is_refused() {
    let flaw = check(|params| {
        params.extended_key_usages.clear();
        params.custom_extensions.push(extension(&testing::EXTENDED_KEY_USAGE, false, &[0x30, 0]));
    });

    assert_flaw(flaw, Flaw::ExtendedKeyUsage);
}

#[test]
fn an_intermediate_for_one_role_only_is_refused() {
    let root = Authority::root("root");
    let narrow = root.intermediate("narrow", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });

    let flaw = verify(&narrow.leaf(WEB), &[narrow.der], &anchors(&root), Role::Server, now());

    assert_flaw(flaw, Flaw::ExtendedKeyUsage);
}

#[test]
fn a_leaf_signed_by_a_leaf_is_refused() {
    let root = Authority::root("root");
    let rogue = root.rogue("spiffe://prod.test/rogue");

    let flaw = verify(&rogue.leaf(WEB), &[rogue.der], &anchors(&root), Role::Client, now());

    // The rogue may not sign and is dropped, so that nothing leads to the root.
    assert_flaw(flaw, Flaw::UnknownIssuer);
}

#[test]
fn an_intermediate_whose_key_usage_forbids_signing_is_passed_over() {
    let root = Authority::root("root");
    let mute =
        root.intermediate("mute", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);

    let flaw = verify(&mute.leaf(WEB), &[mute.der], &anchors(&root), Role::Client, now());

    assert_flaw(flaw, Flaw::UnknownIssuer);
}

#[test]
fn an_intermediate_that_is_no_ca_is_refused() {
    let root = Authority::root("root");
    let plain = root.intermediate("plain", |params| params.is_ca = IsCa::ExplicitNoCa);

    let flaw = verify(&plain.leaf(WEB), &[plain.der], &anchors(&root), Role::Client, now());

    assert_flaw(flaw, Flaw::IssuerIsNotCa);
}

#[test]
fn a_path_length_is_kept() {
    let root = Authority::root("root");
    let last = root.intermediate("last", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = last.intermediate("below", |_| {});

    let flaw = verify(&below.leaf(WEB), &[last.der, below.der], &anchors(&root), Role::Client, now());

    assert_eq!(flaw.unwrap_err().reason(), "invalid_chain");
}

#[test]
fn a_leaf_of_a_trust_domain_without_bundle_is_refused() {
    let root = Authority::root("root");

    let flaw = verify(&root.leaf("spiffe://other.test/web"), &[], &anchors(&root), Role::Client, now());

    assert_flaw(flaw, Flaw::UnknownTrustDomain);
}

#[test]
fn a_trusted_root_does_not_vouch_for_another_trust_domain() {
    let (ours, theirs) = (Authority::root("ours"), Authority::root("theirs"));
    let anchors = Anchors::new(&[ours.bundle(TD), theirs.bundle("other.test")].into_iter().collect());

    let forged = verify(&theirs.leaf(WEB), &[], &anchors, Role::Client, now());

    assert_flaw(forged, Flaw::UnknownIssuer);
    assert!(verify(&theirs.leaf("spiffe://other.test/web"), &[], &anchors, Role::Client, now()).is_ok());
}

#[test]
fn a_root_of_the_same_name_with_another_key_is_refused() {
    let (real, forged) = (Authority::root("root"), Authority::root("root"));

    let flaw = verify(&forged.leaf(WEB), &[], &anchors(&real), Role::Client, now());

    assert_flaw(flaw, Flaw::BadSignature);
}

#[test]
fn a_self_signed_leaf_is_refused() {
    let root = Authority::root("root");
    let alone = Authority::root_with("alone", |params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names.push(SanType::URI(WEB.try_into().unwrap()));
    });

    assert_flaw(verify(&alone.der, &[], &anchors(&root), Role::Client, now()), Flaw::UnknownIssuer);
    // Not even where somebody put it among the roots: only CA certificates become anchors.
    assert_flaw(verify(&alone.der, &[], &anchors(&alone), Role::Client, now()), Flaw::NoUsableAnchor);
}

#[test]
fn a_leaf_in_the_bundle_is_no_anchor() {
    let root = Authority::root("root");
    let rogue = root.rogue("spiffe://prod.test/rogue");

    let flaw = verify(&rogue.leaf(WEB), &[], &anchors(&rogue), Role::Client, now());

    assert_flaw(flaw, Flaw::NoUsableAnchor);
}

#[test]
fn a_bundle_without_keys_trusts_nobody() {
    let root = Authority::root("root");
    let revoked = TrustBundle::new(TrustDomain::parse(TD).unwrap(), Vec::new()).unwrap();
    let anchors = Anchors::new(&[revoked].into_iter().collect());

    assert_flaw(verify(&root.leaf(WEB), &[], &anchors, Role::Client, now()), Flaw::NoUsableAnchor);
}

#[test]
fn bytes_behind_the_leaf_are_refused() {
    let root = Authority::root("root");
    let longer = CertificateDer::from([root.leaf(WEB).as_ref(), &[0]].concat());

    assert_flaw(verify(&longer, &[], &anchors(&root), Role::Client, now()), Flaw::TrailingBytes);
}

#[test]
fn what_is_no_certificate_is_refused() {
    let root = Authority::root("root");

    for bytes in [&[][..], b"hello", &[0x30, 0], &root.leaf(WEB)[..100]] {
        let flaw = verify(&CertificateDer::from(bytes), &[], &anchors(&root), Role::Client, now());
        assert_flaw(flaw, Flaw::Malformed);
    }
}

#[test]
fn a_huge_leaf_is_not_looked_at() {
    let root = Authority::root("root");
    let huge = CertificateDer::from(vec![0x30; leaf::MAX_CERTIFICATE_BYTES + 1]);

    let flaw = verify(&huge, &[], &anchors(&root), Role::Client, now());

    assert_flaw(flaw, Flaw::TooLarge { bytes: leaf::MAX_CERTIFICATE_BYTES + 1 });
}

#[test]
fn an_unknown_critical_extension_is_refused_and_an_uncritical_one_is_not() {
    let with = |critical| {
        check(|params| params.custom_extensions.push(extension(&[1, 3, 9999, 1], critical, &[5, 0])))
    };

    assert_flaw(with(true), Flaw::UnknownCriticalExtension);
    assert!(with(false).is_ok());
}

#[test]
fn a_root_with_name_constraints_fails_closed() {
    let root = Authority::root_with("root", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DirectoryName(params.distinguished_name.clone())],
            excluded_subtrees: Vec::new(),
        });
    });

    assert!(verify(&root.leaf(WEB), &[], &anchors(&root), Role::Client, now()).is_err());
}

#[test]
fn a_chain_has_at_most_eight_intermediates() {
    let root = Authority::root("root");
    let padding = vec![root.intermediate("padding", |_| {}).der; MAX_INTERMEDIATES + 1];
    let leaf = root.leaf(WEB);

    assert!(verify(&leaf, &padding[1..], &anchors(&root), Role::Client, now()).is_ok());
    let flaw = verify(&leaf, &padding, &anchors(&root), Role::Client, now());
    assert_flaw(flaw, Flaw::TooManyIntermediates { found: MAX_INTERMEDIATES + 1 });
}

#[test]
fn a_clock_before_1970_refuses_everybody() {
    let root = Authority::root("root");
    let early = UNIX_EPOCH - SECOND;

    assert_flaw(verify(&root.leaf(WEB), &[], &anchors(&root), Role::Client, early), Flaw::ClockBeforeEpoch);
}

#[test]
fn a_refusal_tells_whom_the_leaf_claims_to_be_where_that_is_known() {
    let refused = check(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign)).unwrap_err();

    assert_eq!(refused.claimed_id().unwrap().as_str(), WEB);
    assert_eq!(refused.reason(), "leaf_may_sign_certificates");
}

#[test]
fn each_flaw_has_a_reason_of_snake_case() {
    for flaw in [Flaw::NoCertificate, Flaw::Expired, Flaw::UnexpectedServer, Flaw::UriNames { found: 2 }] {
        assert!(flaw.reason().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{}", flaw.reason());
    }
}

#[test]
fn a_chain_seen_before_proves_the_same_peer_without_being_verified_again() {
    let root = Authority::root("root");
    let lower = root.intermediate("lower", |_| {});
    let (leaf, chain, anchors) = (lower.leaf(WEB), [lower.der.clone()], anchors(&root));

    let first = verify(&leaf, &chain, &anchors, Role::Client, now()).unwrap();
    let again = verify(&leaf, &chain, &anchors, Role::Client, now()).unwrap();

    assert_eq!((first, anchors.seen.len()), (again, 1));
}

#[test]
fn a_chain_seen_before_is_refused_once_its_leaf_has_expired_or_before_it_begins() {
    let root = Authority::root("root");
    let (leaf, anchors) = (root.leaf(WEB), anchors(&root));
    assert!(verify(&leaf, &[], &anchors, Role::Client, now()).is_ok());

    let late = verify(&leaf, &[], &anchors, Role::Client, now() + 2 * HALF_LIFE);
    let early = verify(&leaf, &[], &anchors, Role::Client, now() - 2 * HALF_LIFE);

    // The root of these tests lives as long as the leaf.
    assert_flaw(late, Flaw::NoUsableAnchor);
    assert_flaw(early, Flaw::NoUsableAnchor);
}

#[test]
fn a_chain_seen_before_is_refused_once_a_certificate_above_its_leaf_has_expired() {
    let until = |params: &mut CertificateParams, end: SystemTime| params.not_after = end.into();
    let soon = now() + HALF_LIFE / 2;
    let root = Authority::root_with("root", |params| until(params, now() + 4 * HALF_LIFE));
    let brief_root = Authority::root_with("brief", |params| until(params, soon));
    let lower = root.intermediate("lower", |params| until(params, soon));
    let later = soon + 2 * SECOND;

    for (leaf, chain, root, flaw) in [
        (lower.leaf(WEB), vec![lower.der.clone()], &root, Flaw::Expired),
        (brief_root.leaf(WEB), vec![], &brief_root, Flaw::NoUsableAnchor),
    ] {
        let anchors = anchors(root);
        assert!(verify(&leaf, &chain, &anchors, Role::Client, now()).is_ok());

        assert_flaw(verify(&leaf, &chain, &anchors, Role::Client, later), flaw);
    }
}

#[test]
fn a_chain_seen_before_is_refused_by_anchors_without_its_root() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let leaf = root.leaf(WEB);
    assert!(verify(&leaf, &[], &anchors(&root), Role::Client, now()).is_ok());

    let refused = verify(&leaf, &[], &anchors(&other), Role::Client, now());

    assert_flaw(refused, Flaw::UnknownIssuer);
}

#[test]
fn what_was_seen_in_one_role_is_verified_again_in_the_other() {
    let root = Authority::root("root");
    let (leaf, anchors) = (root.leaf(WEB), anchors(&root));

    verify(&leaf, &[], &anchors, Role::Client, now()).unwrap();

    assert!(anchors.proved(Role::Client, std::slice::from_ref(&leaf)).is_some());
    assert!(anchors.proved(Role::Server, std::slice::from_ref(&leaf)).is_none());
}

#[test]
fn what_was_refused_is_not_remembered() {
    let (root, stranger) = (Authority::root("root"), Authority::root("stranger"));
    let anchors = anchors(&root);

    let refused = [stranger.leaf(WEB), root.leaf_with(WEB, |params| params.key_usages.clear())]
        .map(|leaf| verify(&leaf, &[], &anchors, Role::Client, now()).is_err());

    assert_eq!((refused, anchors.seen.len()), ([true; 2], 0));
}

#[test]
fn remembered_chains_are_bounded_and_those_in_use_stay() {
    let seen = Seen::default();
    let peer = check(|_| {}).unwrap();
    let certificate = |number: usize| CertificateDer::from(number.to_be_bytes().to_vec());
    let key = |number| ChainKey::new(Role::Client, &certificate(number), &[]);
    let accepted = Accepted { peer, not_before: UNIX_EPOCH, not_after: now() + HALF_LIFE };

    for number in 0..3 * seen::MAX_SEEN {
        seen.remember(key(number), accepted.clone());
        assert!(seen.at(key(0), now()).is_some(), "{number}");
    }

    assert!(seen.len() <= seen::MAX_SEEN);
    assert!(seen.at(key(1), now()).is_none());
}

#[test]
fn where_a_chain_is_cut_into_certificates_is_part_of_what_is_remembered() {
    let [ab, a, b] = [&b"ab"[..], b"a", b"b"].map(CertificateDer::from);

    assert!(ChainKey::new(Role::Client, &ab, &[]) != ChainKey::new(Role::Client, &a, &[b]));
}

proptest! {
    #[test]
    fn no_single_changed_bit_of_a_chain_seen_before_is_accepted(
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let (root, leaf) = sound();
        verify(leaf, &[], root, Role::Client, now()).unwrap();
        let mut bytes = leaf.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;

        prop_assert!(verify(&CertificateDer::from(bytes), &[], root, Role::Client, now()).is_err());
    }

    #[test]
    fn no_single_changed_byte_of_a_leaf_is_accepted(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (root, leaf) = sound();
        let mut bytes = leaf.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;

        prop_assert!(verify(&CertificateDer::from(bytes), &[], root, Role::Client, now()).is_err());
    }

    #[test]
    fn no_leaf_or_intermediate_makes_the_verifier_panic(
        leaf in proptest::collection::vec(any::<u8>(), 0..200),
        intermediate in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let (root, sound) = sound();
        let intermediate = CertificateDer::from(intermediate);

        prop_assert!(verify(&CertificateDer::from(leaf), &[], root, Role::Client, now()).is_err());
        prop_assert!(verify(sound, &[intermediate], root, Role::Client, now()).is_ok());
    }
}

fn sound() -> &'static (Anchors, CertificateDer<'static>) {
    static SOUND: std::sync::OnceLock<(Anchors, CertificateDer<'static>)> = std::sync::OnceLock::new();
    SOUND.get_or_init(|| {
        let root = Authority::root("root");
        (anchors(&root), root.leaf(WEB))
    })
}

/// Verifies a leaf of a sound root that `change` was applied to.
fn check(change: impl FnOnce(&mut CertificateParams)) -> Result<Peer, VerifyError> {
    let root = Authority::root("root");
    verify(&root.leaf_with(WEB, change), &[], &anchors(&root), Role::Client, now())
}

fn set_key_usage(params: &mut CertificateParams, critical: bool, content: &[u8]) {
    params.key_usages.clear();
    params.custom_extensions.push(extension(&testing::KEY_USAGE, critical, content));
}

fn anchors(root: &Authority) -> Anchors {
    Anchors::new(&root.bundles(TD))
}

#[track_caller]
fn assert_flaw(result: Result<Peer, VerifyError>, expected: Flaw) {
    assert_eq!(result.unwrap_err().flaw(), &expected);
}

fn is_malformed(result: &Result<Peer, VerifyError>, expected: &str) -> bool {
    matches!(result, Err(error) if matches!(error.flaw(), Flaw::MalformedExtension { name } if *name == expected))
}

fn now() -> SystemTime {
    SystemTime::now()
}

const TD: &str = "prod.test";
const WEB: &str = "spiffe://prod.test/web";
const SECOND: Duration = Duration::from_secs(1);
