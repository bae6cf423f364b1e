//! Promises of trust bundles.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::Authority;

#[test]
fn a_document_reads_back_the_same() {
    let bundle = bundle(&[0, 1]).with_sequence(u64::MAX).with_refresh_hint(Duration::from_secs(60));

    let read = read(&bundle.to_jwks()).unwrap();

    assert_eq!(read, bundle);
    assert_eq!(read.sequence(), Some(u64::MAX));
    assert_eq!(read.refresh_hint(), Some(Duration::from_secs(60)));
}

#[test]
fn an_entry_is_what_the_standard_asks_for() {
    let json: Value = serde_json::from_str(&bundle(&[0]).to_jwks()).unwrap();

    let entry = &json["keys"][0];
    assert_eq!((entry["kty"].as_str(), entry["crv"].as_str()), (Some("EC"), Some("P-256")));
    assert_eq!((entry["x"].as_str().unwrap().len(), entry["y"].as_str().unwrap().len()), (43, 43));
    assert_eq!(entry["use"], "x509-svid");
    assert_eq!(entry["x5c"], json!([STANDARD.encode(root(0))]));
    assert!(entry.get("kid").is_none());
    assert!(json.get("spiffe_sequence").is_none() && json.get("spiffe_refresh_hint").is_none());
}

#[test]
fn keys_of_each_kind_are_written_as_their_kind() {
    let cases = [(&rcgen::PKCS_ECDSA_P384_SHA384, "EC", "P-384"), (&rcgen::PKCS_ED25519, "OKP", "Ed25519")];

    for (algorithm, kind, curve) in cases {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let der = rcgen::CertificateParams::default().self_signed(&key).unwrap().der().clone();
        let bundle = TrustBundle::new(td(), vec![der]).unwrap();

        let json: Value = serde_json::from_str(&bundle.to_jwks()).unwrap();

        assert_eq!(
            (json["keys"][0]["kty"].as_str(), json["keys"][0]["crv"].as_str()),
            (Some(kind), Some(curve))
        );
        assert_eq!(read(&bundle.to_jwks()).unwrap(), bundle);
    }
}

#[test]
fn a_root_with_an_rsa_key_is_taken() {
    let bundle = TrustBundle::from_pem(td(), RSA_ROOT).unwrap();

    let json: Value = serde_json::from_str(&bundle.to_jwks()).unwrap();

    assert_eq!((json["keys"][0]["kty"].as_str(), json["keys"][0]["e"].as_str()), (Some("RSA"), Some("AQAB")));
    assert_eq!(json["keys"][0]["n"].as_str().unwrap().len(), 342);
}

#[test]
fn the_spiffe_crate_reads_the_same_authorities() {
    let bundle = bundle(&[0, 1, 2]);
    let name = spiffe::TrustDomain::new("prod.test").unwrap();

    let theirs = spiffe::X509Bundle::parse_from_der(name, &bundle.authorities_der()).unwrap();

    let ours: Vec<&[u8]> = bundle.x509_authorities().iter().map(|der| der.as_ref()).collect();
    assert_eq!(theirs.authorities().iter().map(|der| der.as_bytes()).collect::<Vec<_>>(), ours);
}

#[test]
fn an_empty_list_revokes_every_key_and_a_missing_one_is_an_error() {
    assert_eq!(read(r#"{"keys": []}"#).unwrap().x509_authorities().len(), 0);
    for document in
        [r#"{}"#, r#"{"keys": null}"#, r#"{"keys": {}}"#, r#"{"spiffe_sequence": 1}"#, "[]", "", "null"]
    {
        assert!(matches!(read(document), Err(BundleError::Json { .. })), "{document}");
    }
}

#[test]
fn entries_of_unknown_kind_or_use_are_passed_over() {
    let x5c = json!([STANDARD.encode(root(0))]);
    let others = [
        json!({ "kty": "EC", "x5c": x5c }),
        json!({ "kty": "EC", "use": "sig", "x5c": x5c }),
        json!({ "kty": "EC", "use": "X509-SVID", "x5c": x5c }),
        json!({ "kty": "EC", "use": 7, "x5c": x5c }),
        json!({ "kty": "oct", "use": "x509-svid", "x5c": x5c }),
        json!({ "use": "x509-svid", "x5c": x5c }),
        json!({ "kty": "EC", "use": "x509-svid" }),
        json!({ "kty": "EC", "use": "x509-svid", "x5c": null }),
        json!({ "kty": "EC", "use": "x509-svid", "x5c": [] }),
        json!({ "kty": "EC", "use": "jwt-svid" }),
        json!({ "kty": "EC", "use": "jwt-svid", "kid": "" }),
        json!({ "kty": "EC", "use": "wit-svid", "kid": "w" }),
        json!("text"),
        json!(7),
        json!(null),
        json!([]),
    ];

    for other in others {
        let bundle = read(&with_entry(&other)).unwrap();

        assert_eq!(bundle.x509_authorities(), [root(1)], "{other}");
        assert!(bundle.jwt_keys().is_empty(), "{other}");
    }
}

#[test]
fn only_the_first_certificate_of_an_entry_counts() {
    let entry = json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(root(0)), STANDARD.encode(root(2)), "!"] });

    assert_eq!(read(&with_entry(&entry)).unwrap().x509_authorities(), [root(1), root(0)]);
}

#[test]
fn an_authority_that_cannot_be_read_fails_the_document() {
    for x5c in [json!(["!"]), json!([""]), json!([7]), json!("text"), json!(["AAAA"])] {
        let entry = json!({ "kty": "EC", "use": "x509-svid", "x5c": x5c });
        assert!(read(&with_entry(&entry)).is_err(), "{entry}");
    }
    let longer = STANDARD.encode([root(0).as_ref(), &[0]].concat());
    let entry = json!({ "kty": "EC", "use": "x509-svid", "x5c": [longer] });
    assert!(matches!(read(&with_entry(&entry)), Err(BundleError::Authority { index: 1 })));
}

#[test]
fn numbers_that_are_no_numbers_fail_the_document() {
    for document in [
        r#"{"keys": [], "spiffe_sequence": -1}"#,
        r#"{"keys": [], "spiffe_sequence": 1.5}"#,
        r#"{"keys": [], "spiffe_sequence": "1"}"#,
        r#"{"keys": [], "spiffe_sequence": 18446744073709551616}"#,
        r#"{"keys": [], "spiffe_refresh_hint": -1}"#,
        r#"{"keys": [], "keys": []}"#,
        r#"{"keys": [], "spiffe_sequence": 1, "spiffe_sequence": 2}"#,
        r#"{"keys": []} {}"#,
    ] {
        assert!(matches!(read(document), Err(BundleError::Json { .. })), "{document}");
    }
}

#[test]
fn keys_for_jwts_survive_a_round_trip_as_they_are() {
    let jwk = json!({ "kty": "EC", "use": "jwt-svid", "kid": "k1", "crv": "P-256", "x": "eA", "y": "eQ", "alg": "ES256" });

    let once = read(&with_entry(&jwk)).unwrap();
    let twice = read(&once.to_jwks()).unwrap();

    assert_eq!(once, twice);
    assert_eq!((twice.jwt_keys()[0].id(), twice.jwt_keys()[0].jwk()), ("k1", &jwk));
}

#[test]
fn fractions_in_keys_for_jwts_survive_round_trips_to_the_last_bit() {
    for number in ["9.451073e-131", "2.92283e-242", "6.41604081597988343e-46"] {
        let key = format!(r#"{{"kty":"EC","use":"jwt-svid","kid":"k1","x":{number}}}"#);

        let once = read(&format!(r#"{{"keys":[{key}]}}"#)).unwrap();

        assert_eq!(read(&once.to_jwks()).unwrap(), once, "{number}");
    }
}

#[test]
fn a_bundle_has_limits() {
    let many = json!({ "keys": vec![json!({}); MAX_BUNDLE_KEYS + 1] }).to_string();
    let most = json!({ "keys": vec![json!({}); MAX_BUNDLE_KEYS] }).to_string();
    let long = format!(r#"{{"keys": []{}}}"#, " ".repeat(MAX_BUNDLE_BYTES));

    assert!(matches!(read(&many), Err(BundleError::TooManyKeys { .. })));
    assert!(read(&most).is_ok());
    assert!(matches!(read(&long), Err(BundleError::TooLarge { .. })));
    assert!(matches!(TrustBundle::from_pem(td(), &long), Err(BundleError::TooLarge { .. })));
    assert!(matches!(TrustBundle::from_der(td(), long.as_bytes()), Err(BundleError::TooLarge { .. })));
    let repeated = vec![root(0); MAX_BUNDLE_KEYS + 1];
    assert!(matches!(TrustBundle::new(td(), repeated), Err(BundleError::TooManyKeys { .. })));
}

#[test]
fn repeated_authorities_are_kept_once() {
    assert_eq!(bundle(&[0, 1, 0]).x509_authorities(), [root(0), root(1)]);
}

#[test]
fn der_and_pem_read_back_the_same() {
    let bundle = bundle(&[2, 0]);

    assert_eq!(TrustBundle::from_der(td(), &bundle.authorities_der()).unwrap(), bundle);
    assert_eq!(TrustBundle::from_pem(td(), &bundle.to_pem()).unwrap(), bundle);
    assert!(matches!(TrustBundle::from_der(td(), b"hello"), Err(BundleError::Der)));
    assert!(matches!(TrustBundle::from_pem(td(), "hello"), Err(BundleError::NoCertificate)));
    let broken = bundle.to_pem().replace("-----END", "----END");
    assert!(matches!(TrustBundle::from_pem(td(), &broken), Err(BundleError::Pem { .. })));
}

#[test]
fn the_sequence_tells_news_from_rollback() {
    let held = bundle(&[0]).with_sequence(5);

    let cases = [
        (bundle(&[1]).with_sequence(6), Succession::Newer),
        (bundle(&[0]).with_sequence(6), Succession::Newer),
        (bundle(&[0]).with_sequence(5).with_refresh_hint(Duration::from_secs(9)), Succession::Same),
        (bundle(&[1]).with_sequence(5), Succession::Conflict),
        (bundle(&[0]).with_sequence(4), Succession::Older),
        (bundle(&[1]).with_sequence(4), Succession::Older),
        (bundle(&[1]), Succession::Unordered),
        (bundle(&[0]), Succession::Same),
    ];

    for (bundle, succession) in cases {
        assert_eq!(bundle.succession(&held), succession, "{bundle:?}");
    }
}

#[test]
fn a_set_has_one_bundle_for_each_trust_domain() {
    let mut set: BundleSet = [bundle(&[0])].into_iter().collect();
    let other = TrustBundle::new(TrustDomain::parse("other.test").unwrap(), vec![root(2)]).unwrap();

    set.insert(other);
    set.insert(bundle(&[1]));

    assert_eq!(set.len(), 2);
    assert_eq!(set.get(td()).unwrap().x509_authorities(), [root(1)]);
    assert_eq!(set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["other.test", "prod.test"]);
    assert!(set.remove("prod.test").is_some() && set.get("prod.test").is_none());
}

proptest! {
    #[test]
    fn any_bundle_reads_back_the_same(
        roots in proptest::collection::vec(0..3usize, 0..5),
        sequence in proptest::option::of(any::<u64>()),
        hint in proptest::option::of(any::<u32>()),
        kids in proptest::collection::vec("[a-zA-Z0-9 \"\\\\]{1,8}", 0..3),
    ) {
        let jwt = kids.iter().map(|kid| json!({ "kty": "RSA", "use": "jwt-svid", "kid": kid, "n": "AQ", "e": "AQAB" }));
        let mut bundle = bundle(&roots).with_jwt_keys(jwt.filter_map(JwtKey::from_jwk).collect());
        bundle = sequence.into_iter().fold(bundle, TrustBundle::with_sequence);
        bundle = hint.into_iter().fold(bundle, |bundle, hint| bundle.with_refresh_hint(Duration::from_secs(hint.into())));

        prop_assert_eq!(read(&bundle.to_jwks()).unwrap(), bundle);
    }

    #[test]
    fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,100}") {
        let _ = TrustBundle::from_jwks(td(), &bytes);
        let _ = TrustBundle::from_der(td(), &bytes);
        let _ = TrustBundle::from_pem(td(), &text);
        let _ = TrustBundle::from_pem(td(), &format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----"));
    }

    #[test]
    fn a_changed_document_is_refused_or_still_a_bundle(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = bundle(&[0, 1]).with_sequence(9).to_jwks().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;

        if let Ok(bundle) = TrustBundle::from_jwks(td(), &bytes) {
            prop_assert_eq!(read(&bundle.to_jwks()).unwrap(), bundle);
        }
    }
}

fn read(document: &str) -> Result<TrustBundle, BundleError> {
    TrustBundle::from_jwks(td(), document.as_bytes())
}

fn with_entry(entry: &Value) -> String {
    let sound = json!({ "kty": "EC", "use": "x509-svid", "x5c": [STANDARD.encode(root(1))] });
    json!({ "keys": [sound, entry] }).to_string()
}

fn bundle(roots: &[usize]) -> TrustBundle {
    TrustBundle::new(td(), roots.iter().map(|index| root(*index)).collect()).unwrap()
}

fn root(index: usize) -> CertificateDer<'static> {
    static ROOTS: OnceLock<[CertificateDer<'static>; 3]> = OnceLock::new();
    ROOTS.get_or_init(|| ["a", "b", "c"].map(|name| Authority::root(name).der))[index].clone()
}

fn td() -> TrustDomain {
    TrustDomain::parse("prod.test").unwrap()
}

const RSA_ROOT: &str = "-----BEGIN CERTIFICATE-----
MIIC/TCCAeWgAwIBAgIUZZEVT5Dbq/DyVHxJGUDlxFkkSMUwDQYJKoZIhvcNAQEL
BQAwDjEMMAoGA1UEAwwDcnNhMB4XDTI2MTEyMzE1NTgzOVoXDTM2MTEyMDE1NTgz
OVowDjEMMAoGA1UEAwwDcnNhMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKC
AQEA4J0A5QwHZuRbcHuFyblnxNnT7dU+Or+FigEaBdgCgwMGloK1J+aaB2nou7rC
cvIjwgWD10hMiOT4xDaCE5nUlorYQko8ILm282eNKKvGXFk8AnYIYwRlcLyLJ/QK
ox1X9XB5cGvSdJgh08rAeO75TDc/0bDYLP2ETNI8RT6krw3zKLWNubmSpgdsmgAC
qGHJTbI52fCDs3bPh+7XjcZxnl+r/ZI1xIimg4zQqyD7mow0ivWnN4h5JYIuO//N
N5WHqrIjIU8ou4o92aO4lktL7ZZr5khUwJCyGINSAiK0hqVq2ZeJn2kwYNgxhSC+
Aw7LHaLv7bVyUJQQz53Vfb8F3QIDAQABo1MwUTAdBgNVHQ4EFgQUl9yWB28AHHw5
txp0nFHRiM7NRFkwHwYDVR0jBBgwFoAUl9yWB28AHHw5txp0nFHRiM7NRFkwDwYD
VR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOCAQEAYMDk4BUSMUmiYSKP0FzH
dnnX/yc5Y1bOuYSlaEbTq1rAhca+xZp7BtEAwm1fAYzfIlAKziQSNmlhD2lszw0Z
amoB5JFmZOtdlMmZ1UiMlkpeSRSt1zZbVOvkxGXKxh4OJbrcXVxPfMhBLa7pKrdW
IpNogD9TpZVxKIWPe/D6nztlRks35RUy15PfVARz6IpgpWDRtT0TuNxe9WOIkfsV
c5fxQSHIs1ntmuQkqGgwJ/HsE/hxvzj4Yd6umwLx4/EiJVx19Ym7ddyggDof0LmV
guyNapPSZvlB6FfjLTVFZj+sNY/LEKCGSQDSqTUyXPfMkhXAmFwUau6o2r/y2up/
2A==
-----END CERTIFICATE-----";
