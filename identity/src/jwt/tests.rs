//! Promises of tokens: what is accepted was signed by the issuer, and each flaw is refused by its own name.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, Validation, jwk::Jwk};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SignatureAlgorithm};
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.test";
const NOW: u64 = 1_800_000_000;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

fn audiences() -> Vec<Arc<str>> {
    vec!["payments".into(), "refunds".into()]
}

/// A key pair of another library, for one algorithm.
struct Signer {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let pem = |kind: &'static SignatureAlgorithm| KeyPair::generate_for(kind).unwrap().serialize_pem();
        let key = match algorithm {
            Algorithm::Es256 => EncodingKey::from_ec_pem(pem(&PKCS_ECDSA_P256_SHA256).as_bytes()),
            Algorithm::Es384 => EncodingKey::from_ec_pem(pem(&PKCS_ECDSA_P384_SHA384).as_bytes()),
            Algorithm::EdDsa => Ok(EncodingKey::from_ed_der(&ed25519_pkcs8())),
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => EncodingKey::from_rsa_pem(RSA_KEY.as_bytes()),
        };
        Self { algorithm: algorithm.as_str().parse().unwrap(), key: key.unwrap() }
    }

    fn jwk(&self) -> Value {
        let mut jwk = serde_json::to_value(self.foreign_jwk()).unwrap();
        jwk["kid"] = "one".into();
        jwk
    }

    fn foreign_jwk(&self) -> Jwk {
        Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()
    }

    fn keys(&self) -> KeySet {
        set(&[self.jwk()]).unwrap()
    }

    fn token(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some("one".to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// Signs a header and claims as they stand.
    fn sign(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{signed}.{signature}")
    }
}

/// The first version of PKCS#8 (RFC 8410 7): the other library reads no later one.
fn ed25519_pkcs8() -> Vec<u8> {
    const PREFIX: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
    [PREFIX.as_slice(), &crate::crypto::random::<32>().unwrap()].concat()
}

fn set(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
}

fn good() -> Value {
    json!({ "iss": ISSUER, "aud": "payments", "exp": NOW + 300, "iat": NOW, "nbf": NOW, "sub": "ann" })
}

fn good_with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn good_without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn judged(token: &str, keys: &KeySet) -> Result<Verified, JwtError> {
    let audiences = audiences();
    let expected = Expected { issuer: ISSUER, audiences: &audiences, lifetime: Lifetime::Limited };
    verify(token, keys, &expected, now())
}

fn judged_as_envoy(token: &str, keys: &KeySet) -> Result<Verified, JwtError> {
    verify(token, keys, &Expected { issuer: ISSUER, audiences: &[], lifetime: Lifetime::AsEnvoy }, now())
}

fn flaw(claims: &Value) -> Option<JwtError> {
    let signer = Signer::new(Algorithm::EdDsa);
    judged(&signer.token(claims), &signer.keys()).err()
}

/// How another library judges the same token, times and audience aside.
fn foreign(token: &str, signer: &Signer) -> bool {
    let mut validation = Validation::new(signer.algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = jsonwebtoken::DecodingKey::from_jwk(&signer.foreign_jwk()).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

#[test]
fn a_token_that_another_library_signed_is_verified_with_every_algorithm() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm);

        let verified = judged(&signer.token(&good()), &signer.keys()).unwrap_or_else(|error| {
            panic!("{}: {error}", algorithm.as_str());
        });

        assert_eq!((verified.issuer(), verified.key_id()), (ISSUER, Some("one")));
        assert_eq!(verified.claims()["sub"], "ann");
    }
}

#[test]
fn the_example_of_the_standard_is_verified() {
    // RFC 7515 A.3.
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9\
                 pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3\
                 -Kg6NU1Q";
    let keys = set(&[json!({
        "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    })])
    .unwrap();
    let expected = Expected { issuer: "joe", audiences: &[], lifetime: Lifetime::Limited };
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_300_819_379);

    assert!(verify(token, &keys, &expected, then).is_ok());
    assert_eq!(verify(token, &keys, &expected, now()).err(), Some(JwtError::Expired));
}

#[test]
fn a_key_of_another_issuer_or_algorithm_verifies_nothing() {
    for signed in Algorithm::ALL {
        let token = Signer::new(signed).token(&good());
        for known in Algorithm::ALL {
            let same_rsa_key = signed == known && matches!(signed.as_str().get(..1), Some("R" | "P"));
            if !same_rsa_key {
                let error = judged(&token, &Signer::new(known).keys()).err();
                assert!(
                    matches!(error, Some(JwtError::Signature | JwtError::KeyMismatch)),
                    "{signed:?} {known:?}: {error:?}"
                );
            }
        }
    }
}

#[test]
fn a_token_whose_form_has_a_flaw_is_refused_by_the_name_of_the_flaw() {
    let signer = Signer::new(Algorithm::Es256);
    let sound = signer.sign(HEADER, &good().to_string());
    assert!(judged(&sound, &signer.keys()).is_ok());
    let [first, second, third]: [&str; 3] =
        sound.split('.').collect::<Vec<_>>().try_into().expect("three parts");

    all_refused(
        &signer,
        vec![
            ("empty", String::new(), JwtError::Parts),
            ("too long", "a".repeat(MAX_TOKEN_BYTES + 1), JwtError::TooLong),
            ("two parts", format!("{first}.{second}"), JwtError::Parts),
            ("four parts", format!("{sound}.{third}"), JwtError::Parts),
            ("encrypted: five parts", format!("{sound}.{third}.{third}"), JwtError::Parts),
            ("no signature", format!("{first}.{second}."), JwtError::Signature),
            ("padded", format!("{first}.{second}.{third}=="), JwtError::Base64(Part::Signature)),
            ("other alphabet", format!("{first}+.{second}.{third}"), JwtError::Base64(Part::Header)),
            ("white space", format!("{first}.{second} .{third}"), JwtError::Base64(Part::Claims)),
            ("line end", format!("{sound}\n"), JwtError::Base64(Part::Signature)),
            (
                "spare bits",
                format!("{first}.{second}.{}", spare_bits(third)),
                JwtError::Base64(Part::Signature),
            ),
            ("none", unsigned("none", &good().to_string()), JwtError::Algorithm),
            (
                "other claims",
                format!("{first}.{}.{third}", URL_SAFE_NO_PAD.encode("{}")),
                JwtError::Signature,
            ),
            ("DER signature", der_signed(&signer, &good().to_string()), JwtError::Signature),
        ],
    );
}

#[test]
fn a_token_whose_header_has_a_flaw_is_refused_by_the_name_of_the_flaw() {
    let signer = Signer::new(Algorithm::Es256);
    let claims = good().to_string();
    let with = |more: &str| signer.sign(&HEADER.replace('}', &format!(",{more}}}")), &claims);
    let alg = |alg: &str| signer.sign(&format!("{{\"alg\":{alg},\"kid\":\"one\"}}"), &claims);
    let kid = |kid: &str| signer.sign(&format!("{{\"alg\":\"ES256\",\"kid\":{kid}}}"), &claims);
    let long = format!("\"{}\"", "k".repeat(MAX_KEY_ID_BYTES + 1));

    all_refused(
        &signer,
        vec![
            ("none", alg("\"none\""), JwtError::Algorithm),
            ("None", alg("\"None\""), JwtError::Algorithm),
            ("symmetric", alg("\"HS256\""), JwtError::Algorithm),
            ("lower case", alg("\"es256\""), JwtError::Algorithm),
            ("no string", alg("[\"ES256\"]"), JwtError::Algorithm),
            ("missing", signer.sign("{\"kid\":\"one\"}", &claims), JwtError::Algorithm),
            ("unknown curve", alg("\"ES512\""), JwtError::Algorithm),
            ("another kind of key", alg("\"RS256\""), JwtError::KeyMismatch),
            ("another curve", alg("\"ES384\""), JwtError::KeyMismatch),
            ("critical", with("\"crit\":[\"exp\"]"), JwtError::Critical),
            ("critical and empty", with("\"crit\":[]"), JwtError::Critical),
            ("unencoded", with("\"b64\":false"), JwtError::Critical),
            ("own key", with("\"jwk\":{\"kty\":\"EC\"}"), JwtError::EmbeddedKey),
            ("logout token", with("\"typ\":\"logout+jwt\""), JwtError::Type),
            ("type is no text", with("\"typ\":7"), JwtError::Type),
            ("two algorithms", with("\"alg\":\"none\""), JwtError::Duplicate(Part::Header)),
            ("no JSON", signer.sign("{alg:ES256}", &claims), JwtError::Json(Part::Header)),
            ("a text", signer.sign("\"ES256\"", &claims), JwtError::NotAnObject(Part::Header)),
            ("key id is no text", kid("1"), JwtError::KeyId),
            ("key id is long", kid(&long), JwtError::KeyId),
            ("key id leads elsewhere", kid("\"../../dev/null\""), JwtError::UnknownKey),
        ],
    );
}

#[test]
fn a_token_whose_claims_are_no_plain_object_is_refused_by_the_name_of_the_flaw() {
    let signer = Signer::new(Algorithm::Es256);
    let with = |claims: &str| signer.sign(HEADER, claims);

    all_refused(
        &signer,
        vec![
            ("twice", with("{\"iss\":\"a\",\"iss\":\"b\"}"), JwtError::Duplicate(Part::Claims)),
            ("twice deep", with("{\"a\":[{\"b\":1,\"b\":2}]}"), JwtError::Duplicate(Part::Claims)),
            ("escaped twin", with("{\"iss\":1,\"\\u0069ss\":2}"), JwtError::Duplicate(Part::Claims)),
            ("no JSON", with("iss"), JwtError::Json(Part::Claims)),
            ("more behind", with(&format!("{}{{}}", good())), JwtError::Json(Part::Claims)),
            ("deep", with(&"[".repeat(5_000)), JwtError::Json(Part::Claims)),
            ("a list", with("[]"), JwtError::NotAnObject(Part::Claims)),
        ],
    );
}

fn all_refused(signer: &Signer, flaws: Vec<(&str, String, JwtError)>) {
    for (name, token, expected) in flaws {
        assert_eq!(judged(&token, &signer.keys()).err(), Some(expected), "{name}");
    }
}

#[test]
fn a_claim_with_a_flaw_is_refused_by_the_name_of_the_flaw() {
    let skew = CLOCK_SKEW.as_secs();
    let flaws = [
        ("no issuer", good_without("iss"), JwtError::Issuer),
        ("another issuer", good_with("iss", json!("https://login.test.evil")), JwtError::Issuer),
        ("issuer with a slash", good_with("iss", json!("https://login.test/")), JwtError::Issuer),
        ("issuer is a list", good_with("iss", json!([ISSUER])), JwtError::Issuer),
        ("no expiry", good_without("exp"), JwtError::NoExpiry),
        ("expired", good_with("exp", json!(NOW - skew)), JwtError::Expired),
        ("expired long ago", good_with("exp", json!(0)), JwtError::Expired),
        ("expiry is a text", good_with("exp", json!("2030-01-01")), JwtError::Claim { name: "exp" }),
        ("expiry is nothing", good_with("exp", json!(null)), JwtError::Claim { name: "exp" }),
        ("expiry below nought", good_with("exp", json!(-1)), JwtError::Claim { name: "exp" }),
        ("expiry beyond numbers", good_with("exp", json!(1e300)), JwtError::Claim { name: "exp" }),
        ("not yet", good_with("nbf", json!(NOW + skew + 1)), JwtError::NotYetValid),
        ("begin is a text", good_with("nbf", json!("0")), JwtError::Claim { name: "nbf" }),
        ("issued later", good_with("iat", json!(NOW + skew + 1)), JwtError::IssuedInFuture),
        ("issue is a list", good_with("iat", json!([])), JwtError::Claim { name: "iat" }),
        ("no audience", good_without("aud"), JwtError::Audience),
        ("another audience", good_with("aud", json!("payments2")), JwtError::Audience),
        ("audience by case", good_with("aud", json!("Payments")), JwtError::Audience),
        ("empty list", good_with("aud", json!([])), JwtError::Audience),
        ("other audiences", good_with("aud", json!(["a", "b"])), JwtError::Audience),
        ("list of others", good_with("aud", json!(["payments", 1])), JwtError::Claim { name: "aud" }),
        ("audience is an object", good_with("aud", json!({})), JwtError::Claim { name: "aud" }),
    ];

    for (name, claims, expected) in flaws {
        assert_eq!(flaw(&claims), Some(expected), "{name}");
    }
}

#[test]
fn claims_at_their_limits_are_accepted() {
    let skew = CLOCK_SKEW.as_secs();
    let accepted = [
        good_with("exp", json!(NOW - skew + 1)),
        good_with("exp", json!(NOW as f64 + 0.5)),
        good_with("exp", json!(u64::MAX)),
        good_with("nbf", json!(NOW + skew)),
        good_with("iat", json!(NOW + skew)),
        good_with("aud", json!(["other", "refunds"])),
        good_without("iat"),
        good_without("nbf"),
        good_without("sub"),
    ];

    for claims in accepted {
        assert_eq!(flaw(&claims), None, "{claims}");
    }
}

#[test]
fn a_token_without_end_passes_only_where_it_is_judged_as_envoy_does() {
    let signer = Signer::new(Algorithm::EdDsa);
    let endless = signer.token(&good_without("exp"));
    let early = signer.token(&good_with("iat", json!(NOW + 5_000)));
    let dead = signer.token(&good_with("exp", json!(NOW - 5_000)));
    let later = signer.token(&good_with("nbf", json!(NOW + 5_000)));

    assert!(judged_as_envoy(&endless, &signer.keys()).is_ok());
    assert!(judged_as_envoy(&early, &signer.keys()).is_ok());
    assert_eq!(judged_as_envoy(&dead, &signer.keys()).err(), Some(JwtError::Expired));
    assert_eq!(judged_as_envoy(&later, &signer.keys()).err(), Some(JwtError::NotYetValid));
    assert_eq!(judged(&endless, &signer.keys()).err(), Some(JwtError::NoExpiry));
}

#[test]
fn without_configured_audiences_every_audience_is_accepted_but_none_that_is_malformed() {
    let signer = Signer::new(Algorithm::EdDsa);
    let odd = signer.token(&good_with("aud", json!([1])));

    assert!(judged_as_envoy(&signer.token(&good_without("aud")), &signer.keys()).is_ok());
    assert!(judged_as_envoy(&signer.token(&good_with("aud", json!("x"))), &signer.keys()).is_ok());
    assert_eq!(judged_as_envoy(&odd, &signer.keys()).err(), Some(JwtError::Claim { name: "aud" }));
}

#[test]
fn a_clock_before_1970_accepts_nothing() {
    let signer = Signer::new(Algorithm::EdDsa);
    let expected = Expected { issuer: ISSUER, audiences: &[], lifetime: Lifetime::AsEnvoy };
    let past = SystemTime::UNIX_EPOCH - Duration::from_secs(1);

    assert_eq!(verify(&signer.token(&good()), &signer.keys(), &expected, past).err(), Some(JwtError::Clock));
}

#[test]
fn without_a_key_id_the_keys_of_the_kind_are_tried_up_to_a_limit() {
    let signer = Signer::new(Algorithm::EdDsa);
    let token = signer.sign("{\"alg\":\"EdDSA\"}", &good().to_string());
    let others = |count: usize| -> Vec<Value> {
        let other = |index: usize| {
            let mut key = Signer::new(Algorithm::EdDsa).jwk();
            key["kid"] = format!("other-{index}").into();
            key
        };
        (0..count).map(other).collect()
    };
    let behind = |count| set(&[others(count), vec![signer.jwk()]].concat()).unwrap();

    assert!(judged(&token, &behind(MAX_TRIED - 1)).is_ok());
    assert_eq!(judged(&token, &behind(MAX_TRIED)).err(), Some(JwtError::Signature));
    assert!(judged(&signer.token(&good()), &behind(50)).is_ok(), "a key id leads there at once");
}

#[test]
fn a_key_without_an_id_may_be_that_of_any_token() {
    let signer = Signer::new(Algorithm::Es256);
    let mut nameless = signer.jwk();
    nameless.as_object_mut().unwrap().remove("kid");

    assert!(judged(&signer.token(&good()), &set(&[nameless]).unwrap()).is_ok());
}

#[test]
fn a_key_that_is_for_one_algorithm_verifies_no_other() {
    let signer = Signer::new(Algorithm::Rs256);
    let mut only_pss = signer.jwk();
    only_pss["alg"] = "PS256".into();

    let error = judged(&signer.token(&good()), &set(&[only_pss]).unwrap()).err();

    assert_eq!(error, Some(JwtError::KeyMismatch));
}

#[test]
fn a_key_of_no_use_here_is_passed_over() {
    let sound = Signer::new(Algorithm::EdDsa).jwk();
    let with = |name: &str, value: Value| {
        let mut key = sound.clone();
        key[name] = value;
        key
    };
    let useless = [
        with("use", json!("enc")),
        with("use", json!("x509-svid")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("ECDH-ES")),
        with("alg", json!("RS256")),
        with("crv", json!("Ed448")),
        with("kty", json!("AKP")),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" }),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
    ];

    for key in useless {
        assert_eq!(set(std::slice::from_ref(&key)).err(), Some(KeySetError::NoUsableKey), "{key}");
        assert_eq!(set(&[key, sound.clone()]).unwrap().keys().len(), 1);
    }
    for name in ["sig", "jwt-svid"] {
        assert!(set(&[with("use", json!(name))]).is_ok());
    }
}

#[test]
fn a_key_set_with_a_flaw_is_refused_by_the_name_of_the_flaw() {
    let rsa = Signer::new(Algorithm::Rs256).jwk();
    let point = Signer::new(Algorithm::Es256).jwk();
    let with = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let without = |key: &Value, name: &str| {
        let mut key = key.clone();
        key.as_object_mut().unwrap().remove(name);
        key
    };
    let modulus = |bytes: usize, first: u8, last: u8| {
        let mut modulus = vec![0x5a_u8; bytes];
        (modulus[0], modulus[bytes - 1]) = (first, last);
        json!(URL_SAFE_NO_PAD.encode(modulus))
    };
    let secret = KeySetError::Secret { index: 0 };
    let weak = KeySetError::Weak { index: 0 };
    let malformed = |field| KeySetError::Malformed { index: 0, field };
    let flaws = [
        ("private RSA key", with(&rsa, "d", json!("AQAB")), secret),
        ("private EC key", with(&point, "d", json!("AQAB")), secret),
        ("symmetric", json!({ "kty": "oct", "k": "c2VjcmV0" }), secret),
        ("symmetric without its key", json!({ "kty": "oct" }), secret),
        ("1024 bits", with(&rsa, "n", modulus(128, 0xcd, 1)), weak),
        ("2047 bits", with(&rsa, "n", modulus(256, 0x7f, 1)), weak),
        ("8200 bits", with(&rsa, "n", modulus(1025, 0xff, 1)), weak),
        ("even modulus", with(&rsa, "n", modulus(256, 0xff, 2)), weak),
        ("exponent one", with(&rsa, "e", json!("AQ")), weak),
        ("even exponent", with(&rsa, "e", json!("AQAA")), weak),
        ("long exponent", with(&rsa, "e", json!("AQAAAAE")), weak),
        ("leading nought", with(&rsa, "n", modulus(257, 0, 1)), malformed("n")),
        ("empty exponent", with(&rsa, "e", json!("")), malformed("e")),
        ("no modulus", without(&rsa, "n"), malformed("n")),
        ("padded modulus", with(&rsa, "n", json!("AQ==")), malformed("n")),
        ("no kind", without(&rsa, "kty"), malformed("kty")),
        ("kind is no text", with(&rsa, "kty", json!(1)), malformed("kty")),
        ("id is no text", with(&rsa, "kid", json!(1)), malformed("kid")),
        ("id is long", with(&rsa, "kid", json!("k".repeat(257))), malformed("kid")),
        ("no curve", without(&point, "crv"), malformed("crv")),
        ("short coordinate", with(&point, "x", json!("AQAB")), malformed("x")),
        ("no coordinate", without(&point, "y"), malformed("y")),
        ("operations are no list", with(&point, "key_ops", json!("verify")), malformed("key_ops")),
        ("no object", json!("key"), malformed("it is no object")),
    ];

    for (name, key, expected) in flaws {
        assert_eq!(set(std::slice::from_ref(&key)).err(), Some(expected), "{name}");
        let behind = set(&[point.clone(), key]).unwrap_err();
        assert_eq!(behind.reason(), expected.reason(), "{name} spoils the set");
    }
    for text in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}", "\u{feff}{\"keys\":[]}"] {
        assert_eq!(KeySet::parse(text.as_bytes()), Err(KeySetError::NotASet), "{text:?}");
    }
    assert_eq!(set(&[]).err(), Some(KeySetError::NoUsableKey));
}

#[test]
fn a_key_set_is_bounded_in_length_and_number() {
    let key = json!({ "kty": "unknown" });
    let long = format!("{{\"keys\":[]}}{}", " ".repeat(MAX_SET_BYTES));

    assert_eq!(set(&vec![key.clone(); MAX_KEYS]).err(), Some(KeySetError::NoUsableKey));
    assert_eq!(set(&vec![key; MAX_KEYS + 1]).err(), Some(KeySetError::TooMany));
    assert_eq!(KeySet::parse(long.as_bytes()), Err(KeySetError::TooLong));
}

#[test]
fn a_point_that_is_not_on_its_curve_verifies_nothing() {
    let signer = Signer::new(Algorithm::Es256);
    let mut elsewhere = signer.jwk();
    elsewhere["y"] = elsewhere["x"].clone();

    let error = judged(&signer.token(&good()), &set(&[elsewhere]).unwrap()).err();

    assert_eq!(error, Some(JwtError::Signature));
}

#[test]
fn no_debug_text_shows_a_token() {
    let signer = Signer::new(Algorithm::EdDsa);
    let token = signer.token(&good_with("sub", json!("secret-subject")));
    let unverified = Unverified::parse(&token).unwrap();

    let texts =
        [format!("{unverified:?}"), format!("{:?}", unverified.verify(&signer.keys(), &expected(), now()))];

    for text in texts {
        assert!(!text.contains("secret-subject") && !text.contains("ey"), "{text}");
    }
}

fn expected() -> Expected<'static> {
    Expected { issuer: ISSUER, audiences: &[], lifetime: Lifetime::Limited }
}

/// Sets a bit behind the last whole byte of a base64url text.
fn spare_bits(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert_ne!(text.len() % 4, 0, "a text without spare bits");
    let last = text.bytes().last().unwrap();
    let value = ALPHABET.iter().position(|byte| *byte == last).unwrap();
    format!("{}{}", &text[..text.len() - 1], char::from(ALPHABET[value | 1]))
}

fn unsigned(alg: &str, claims: &str) -> String {
    let header = format!("{{\"alg\":\"{alg}\"}}");
    format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// A sound signature in the form that X.509 has.
fn der_signed(signer: &Signer, claims: &str) -> String {
    let token = signer.sign("{\"alg\":\"ES256\",\"kid\":\"one\"}", claims);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let integer = |half: &[u8]| [&[2, 33, 0][..], half].concat();
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(der))
}

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Unverified::parse(&text);
        let _ = KeySet::parse(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = Unverified::parse(text);
        }
    }

    #[test]
    fn no_change_of_a_token_is_accepted(place in any::<proptest::sample::Index>(), flip in 0..8u32) {
        let signer = Signer::new(Algorithm::EdDsa);
        let token = signer.token(&good());
        let mut changed = token.clone().into_bytes();
        let place = place.index(changed.len());
        changed[place] ^= 1 << flip;
        prop_assume!(changed.is_ascii());

        prop_assert!(judged(&String::from_utf8(changed).unwrap(), &signer.keys()).is_err());
    }

    #[test]
    fn numbers_of_seconds_are_read_as_they_are(seconds in any::<u64>()) {
        let claims = json!({ "exp": seconds });
        let read = moment(claims.as_object().unwrap(), "exp");

        prop_assert_eq!(read, Ok(Some(seconds)));
    }
}

proptest! {
    // An RSA signature without optimisation takes tens of milliseconds.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_accepted_another_library_accepts(
        which in 0..Algorithm::ALL.len(),
        place in any::<proptest::sample::Index>(),
        byte in proptest::sample::select(b"ABCabc019-_.=+/ ".to_vec()),
        change in any::<bool>(),
    ) {
        let signer = Signer::new(Algorithm::ALL[which]);
        let mut token = signer.token(&good()).into_bytes();
        if change {
            let place = place.index(token.len());
            token[place] = byte;
        }
        let token = String::from_utf8(token).unwrap();

        let accepted = judged_as_envoy(&token, &signer.keys()).is_ok();

        prop_assert!(!accepted || foreign(&token, &signer));
        prop_assert!(accepted || change);
    }
}

const HEADER: &str = "{\"alg\":\"ES256\",\"kid\":\"one\"}";
const RSA_KEY: &str = include_str!("../../testdata/token-rsa.pem");
