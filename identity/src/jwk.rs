//! One X.509 authority as a JSON Web Key.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use x509_parser::oid_registry::Oid;
use x509_parser::oid_registry::asn1_rs::oid;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::leaf;

/// Writes the authority `der`; `None` where it is no certificate or its key is of a kind JWKs have no name for.
pub(crate) fn x509_authority(der: &[u8]) -> Option<Value> {
    let certificate = leaf::certificate(der).ok()?;
    let mut key = public_key(certificate.public_key())?;
    let fields = key.as_object_mut()?;
    // Trust Domain and Bundle 4.2.2: no key ID, exactly one certificate.
    fields.insert("use".into(), X509_USE.into());
    fields.insert("x5c".into(), json!([STANDARD.encode(der)]));
    Some(key)
}

fn public_key(spki: &SubjectPublicKeyInfo<'_>) -> Option<Value> {
    if spki.algorithm.algorithm == ED25519 {
        return Some(
            json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(&spki.subject_public_key.data) }),
        );
    }
    match spki.parsed().ok()? {
        PublicKey::RSA(key) => Some(json!({
            "kty": "RSA",
            "n": URL_SAFE_NO_PAD.encode(without_leading_zeros(key.modulus)),
            "e": URL_SAFE_NO_PAD.encode(without_leading_zeros(key.exponent)),
        })),
        PublicKey::EC(point) => elliptic_curve_key(spki, point.data()),
        _ => None,
    }
}

fn elliptic_curve_key(spki: &SubjectPublicKeyInfo<'_>, point: &[u8]) -> Option<Value> {
    let curve = spki.algorithm.parameters.as_ref()?.as_oid().ok()?;
    let (_, name, bytes) = CURVES.into_iter().find(|(oid, _, _)| *oid == curve)?;
    let (x, y) = point.strip_prefix(&[UNCOMPRESSED_POINT])?.split_at_checked(bytes)?;
    if y.len() != bytes {
        return None;
    }
    Some(json!({ "kty": "EC", "crv": name, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) }))
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    bytes.iter().position(|byte| *byte != 0).and_then(|first| bytes.get(first..)).unwrap_or_default()
}

/// The `use` of a JWK that is an X.509 authority.
pub(crate) const X509_USE: &str = "x509-svid";

/// Object identifier, JWK name and coordinate length of each curve.
const CURVES: [(Oid<'static>, &str, usize); 3] = [
    (oid!(1.2.840.10045.3.1.7), "P-256", 32),
    (oid!(1.3.132.0.34), "P-384", 48),
    (oid!(1.3.132.0.35), "P-521", 66),
];
const ED25519: Oid<'static> = oid!(1.3.101.112);
const UNCOMPRESSED_POINT: u8 = 4;
