use std::time::SystemTime;

use proptest::prelude::*;
use rustls_pki_types::CertificateDer;

use super::*;
use crate::bundle::BundleSet;
use crate::testing::Authority;

#[test]
fn a_signed_manifest_is_verified_and_says_what_was_signed() {
    let signer = Signer::of("prod.test");

    let manifest = verify(&signer.sign(&manifest(7)), &signer).unwrap();

    assert_eq!(manifest, self::manifest(7));
    assert_eq!((manifest.number(), manifest.generation()), (7, GENERATION));
    let file = manifest.file("api.yaml").unwrap();
    assert!(file.is(b"vouchsafe: policy/v1\n"));
    assert!(!file.is(b"vouchsafe: policy/v2\n"));
    assert!(manifest.file("none.yaml").is_none());
}

#[test]
fn each_altered_byte_is_noticed() {
    let signer = Signer::of("prod.test");
    let sound = signer.sign(&manifest(7));
    for at in 0..sound.manifest.len() {
        let mut altered = sound.clone();
        altered.manifest[at] ^= 1;

        assert!(matches!(verify(&altered, &signer), Err(ManifestError::Signature)), "byte {at}");
    }
    for at in 0..sound.signature.len() {
        let mut altered = sound.clone();
        altered.signature[at] ^= 1;

        assert!(matches!(verify(&altered, &signer), Err(ManifestError::Signature)), "signature byte {at}");
    }
}

#[test]
fn a_workload_of_the_trust_domain_cannot_sign() {
    let signer = Signer::of("prod.test");
    let (leaf, key) = signer.authority.leaf_and_key("spiffe://prod.test/vouchsafe/policy-signer2", |_| {});

    let forged = manifest(7).sign(&key, vec![leaf]).unwrap();

    assert!(matches!(verify(&forged, &signer), Err(ManifestError::Signer { .. })));
}

#[test]
fn the_signer_of_another_authority_is_nobody_here() {
    let (signer, stranger) = (Signer::of("prod.test"), Signer::of("prod.test"));

    let forged = stranger.sign(&manifest(7));

    assert!(matches!(verify(&forged, &signer), Err(ManifestError::Chain(_))));
}

#[test]
fn the_signer_of_another_trust_domain_is_not_ours_though_it_is_trusted() {
    let (ours, theirs) = (Signer::of("prod.test"), Signer::of("partner.test"));
    let bundles: BundleSet =
        [ours.authority.bundle("prod.test"), theirs.authority.bundle("partner.test")].into_iter().collect();

    let forged = theirs.sign(&manifest(7));
    let verified = forged.verify(&Anchors::new(&bundles), &domain("prod.test"), SIDECARS, SystemTime::now());

    assert!(matches!(verified, Err(ManifestError::Signer { .. })));
}

#[test]
fn somebody_elses_certificate_does_not_make_ones_own_signature_good() {
    let signer = Signer::of("prod.test");
    let (_, other) = signer.authority.leaf_and_key("spiffe://prod.test/web", |_| {});

    let forged = manifest(7).sign(&other, signer.chain.clone()).unwrap();

    assert!(matches!(verify(&forged, &signer), Err(ManifestError::Signature)));
}

#[test]
fn a_manifest_without_or_with_an_expired_certificate_is_refused() {
    let signer = Signer::of("prod.test");
    let sound = signer.sign(&manifest(7));

    let bare = SignedManifest { chain: Vec::new(), ..sound.clone() };
    let late = SystemTime::now() + 3 * crate::testing::HALF_LIFE;
    let expired = sound.verify(&signer.anchors(), &domain("prod.test"), SIDECARS, late);

    assert!(matches!(verify(&bare, &signer), Err(ManifestError::NoCertificate)));
    assert!(matches!(expired, Err(ManifestError::Chain(_))));
}

#[test]
fn a_manifest_for_another_trust_domain_or_audience_is_refused() {
    let signer = Signer::of("prod.test");
    let foreign = Manifest { trust_domain: domain("other.test"), ..manifest(7) };
    let services = Manifest { audience: "services".into(), ..manifest(7) };

    let foreign = verify(&signer.sign(&foreign), &signer);
    let services = verify(&signer.sign(&services), &signer);

    assert!(matches!(foreign, Err(ManifestError::TrustDomain { .. })));
    assert!(matches!(services, Err(ManifestError::Audience { .. })));
}

#[test]
fn only_a_newer_set_or_the_same_one_is_fresh() {
    let seen = Some(Seen { number: 7, generation: GENERATION.into() });
    let other = Some(Seen { number: 7, generation: "0".repeat(64) });

    assert_eq!(manifest(8).succeeds(other.as_ref()), Ok(Freshness::Newer));
    assert_eq!(manifest(7).succeeds(seen.as_ref()), Ok(Freshness::Same));
    assert_eq!(manifest(1).succeeds(None), Ok(Freshness::Newer));
    assert_eq!(manifest(6).succeeds(seen.as_ref()), Err(ReplayError::Older { number: 6, seen: 7 }));
    assert_eq!(manifest(7).succeeds(other.as_ref()), Err(ReplayError::OtherContent { number: 7 }));
}

#[test]
fn there_is_one_form_in_bytes() {
    let bytes = manifest(7).to_bytes();
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert_eq!(Manifest::parse(&bytes), Ok(manifest(7)));

    let spaced = text.replace("\"number\":7", "\"number\": 7");
    let turned = text.replace("\"number\":7,", "").replacen('{', "{\"number\":7,", 1);
    let twice = text.replacen("\"number\":7", "\"number\":7,\"number\":7", 1);
    let more = text.replacen('{', "{\"more\":1,", 1);
    let upper = text.replace(GENERATION, &GENERATION.to_uppercase());
    let later = text.replace("manifest/v1", "manifest/v2");

    assert_eq!(Manifest::parse(spaced.as_bytes()), Err(ManifestFlaw::NotCanonical));
    assert_eq!(Manifest::parse(turned.as_bytes()), Err(ManifestFlaw::NotCanonical));
    for malformed in [twice, more, upper, later, String::new(), "[]".into()] {
        assert!(
            matches!(Manifest::parse(malformed.as_bytes()), Err(ManifestFlaw::Malformed { .. })),
            "{malformed}"
        );
    }
}

#[test]
fn each_flaw_of_a_manifest_has_its_error() {
    let now = SystemTime::now();
    let make = |number, files| {
        Manifest::new(domain("prod.test"), Seen { number, generation: GENERATION.into() }, files, now)
    };
    let named = |name: &str| vec![ManifestFile::of(name, b"")];

    assert_eq!(make(0, Vec::new()), Err(ManifestFlaw::Number));
    for name in ["", ".hidden", "a/b", "..", "../etc", "a\0", "a\n", &"a".repeat(256)] {
        assert!(matches!(make(1, named(name)), Err(ManifestFlaw::FileName { .. })), "{name:?}");
    }
    let twice = vec![ManifestFile::of("a", b"1"), ManifestFile::of("a", b"2")];
    assert!(matches!(make(1, twice), Err(ManifestFlaw::Order { .. })));
    let long = vec![ManifestFile { bytes: MAX_FILE_BYTES + 1, ..ManifestFile::of("a", b"") }];
    assert!(matches!(make(1, long), Err(ManifestFlaw::FileTooLong { .. })));
    let file = |number| ManifestFile { bytes: MAX_FILE_BYTES, ..ManifestFile::of(format!("{number}"), b"") };
    assert!(matches!(make(1, (0..17).map(file).collect()), Err(ManifestFlaw::TooMuch { .. })));
    assert!(make(1, (0..16).map(file).collect()).is_ok());
    let many = (0..=MAX_FILES).map(|number| ManifestFile::of(format!("{number}"), b"")).collect();
    assert!(matches!(make(1, many), Err(ManifestFlaw::TooManyFiles { .. })));
    let bad = Seen { number: 1, generation: "abc".into() };
    assert_eq!(Manifest::new(domain("prod.test"), bad, Vec::new(), now), Err(ManifestFlaw::Generation));
    let long = vec![b' '; MAX_MANIFEST_BYTES + 1];
    assert!(matches!(Manifest::parse(&long), Err(ManifestFlaw::TooLong { .. })));
}

#[test]
fn what_is_signed_out_of_order_is_refused() {
    let signer = Signer::of("prod.test");
    let mut mixed = manifest(7);
    mixed.files = vec![ManifestFile::of("b", b""), ManifestFile::of("a", b"")];

    let verified = verify(&signer.sign(&mixed), &signer);

    assert!(matches!(verified, Err(ManifestError::Manifest(ManifestFlaw::Order { .. }))));
}

#[test]
fn the_seed_of_the_fuzz_target_is_a_manifest() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds/manifest/two_files");

    assert_eq!(Manifest::parse(&std::fs::read(path).unwrap()).unwrap().files().len(), 2);
}

proptest! {
    #[test]
    fn whatever_is_read_is_written_as_it_was(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(manifest) = Manifest::parse(&bytes) {
            prop_assert_eq!(manifest.to_bytes(), bytes);
        }
    }

    #[test]
    fn any_sound_set_survives_its_bytes(
        number in 1..=u64::MAX,
        content in prop::collection::btree_map("[a-z][ -.0-~]{0,20}", prop::collection::vec(any::<u8>(), 0..50), 0..20),
    ) {
        let files = content.iter().map(|(name, content)| ManifestFile::of(name.as_str(), content)).collect();
        let seen = Seen { number, generation: GENERATION.into() };
        let manifest = Manifest::new(domain("prod.test"), seen, files, SystemTime::now()).unwrap();

        let again = Manifest::parse(&manifest.to_bytes()).unwrap();

        prop_assert!(content.iter().all(|(name, content)| again.file(name).unwrap().is(content)));
        prop_assert_eq!(again, manifest);
    }
}

#[test]
fn a_set_of_policies_is_never_taken_for_one_of_services_nor_the_other_way_round() {
    let signer = Signer::of("prod.test");
    let seen = Seen { number: 7, generation: GENERATION.into() };
    let services =
        Manifest::of(Kind::Services, domain("prod.test"), seen, Vec::new(), SystemTime::now()).unwrap();
    let policies = manifest(7);
    let as_kind = |manifest: &Manifest, kind: Kind| {
        let signed = signer.sign(manifest);
        signed.verify(&signer.anchors(), &signer.trust_domain, kind.audience(), SystemTime::now())
    };

    assert_eq!(as_kind(&services, Kind::Services).unwrap(), services);
    assert!(matches!(as_kind(&services, Kind::Policies), Err(ManifestError::Audience { .. })));
    assert!(matches!(as_kind(&policies, Kind::Services), Err(ManifestError::Audience { .. })));
    // The first word alone tells them apart, too.
    let dressed = Manifest { audience: SERVICES.into(), ..policies };
    assert!(matches!(as_kind(&dressed, Kind::Services), Err(ManifestError::Audience { .. })));
    let undressed = Manifest { audience: SIDECARS.into(), ..services };
    assert!(matches!(as_kind(&undressed, Kind::Policies), Err(ManifestError::Audience { .. })));
}

struct Signer {
    authority: Authority,
    trust_domain: TrustDomain,
    key: PrivateKey,
    chain: Vec<CertificateDer<'static>>,
}

impl Signer {
    fn of(name: &str) -> Self {
        let authority = Authority::root("root");
        let trust_domain = domain(name);
        let id = signer_id(&trust_domain).unwrap();
        let (leaf, key) = authority.leaf_and_key(id.as_str(), |_| {});
        Self { authority, trust_domain, key, chain: vec![leaf] }
    }

    fn sign(&self, manifest: &Manifest) -> SignedManifest {
        manifest.sign(&self.key, self.chain.clone()).unwrap()
    }

    fn anchors(&self) -> Anchors {
        Anchors::new(&self.authority.bundles(self.trust_domain.as_str()))
    }
}

fn verify(signed: &SignedManifest, signer: &Signer) -> Result<Manifest, ManifestError> {
    signed.verify(&signer.anchors(), &signer.trust_domain, SIDECARS, SystemTime::now())
}

fn manifest(number: u64) -> Manifest {
    let files = vec![
        ManifestFile::of("web.yaml", b"vouchsafe: policy/v1\n"),
        ManifestFile::of("api.yaml", b"vouchsafe: policy/v1\n"),
    ];
    let seen = Seen { number, generation: GENERATION.into() };
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Manifest::new(domain("prod.test"), seen, files, at).unwrap()
}

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

const GENERATION: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
