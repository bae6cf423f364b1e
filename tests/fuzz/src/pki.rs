//! DER put together by hand, so that bytes nobody would sign are signed.

use rcgen::{KeyPair, PublicKeyData, SigningKey};

/// The name of the root that [`tbs`](signed) seeds say they are issued by.
pub const ROOT_NAME: &str = "fuzz root";

/// Puts `body`, the part of a certificate or request that is signed, between its algorithm and its signature.
pub fn signed(body: &[u8], key: &KeyPair) -> Vec<u8> {
    let signature = key.sign(body).expect("a P-256 key signs anything");
    let bits = [&[0], signature.as_slice()].concat();
    value(0x30, &[body, ECDSA_WITH_SHA256, &value(0x03, &bits)].concat())
}

/// Writes the signed part of a certificate request for `key` that asks for `attributes`.
pub fn request(key: &KeyPair, attributes: &[u8]) -> Vec<u8> {
    let version = [0x02, 0x01, 0x00];
    let subject = [0x30, 0x00];
    let spki = key.subject_public_key_info();
    value(0x30, &[version.as_slice(), &subject, &spki, &value(0xa0, attributes)].concat())
}

/// Writes one DER value.
pub fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().position(|byte| *byte != 0).unwrap_or(length.len() - 1)..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | u8::try_from(length.len()).expect("at most eight bytes"));
    }
    out.extend_from_slice(length);
    out.extend_from_slice(content);
    out
}

/// `AlgorithmIdentifier` of ecdsa-with-SHA256.
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
