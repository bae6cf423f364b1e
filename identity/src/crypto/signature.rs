//! Verifies the signatures that tokens carry. Made by others, never here.
//!
//! RSA moduli of 2048 to 8192 bits and ECDSA signatures as `r || s` (RFC 7518 3.4): nothing else passes.

use backend::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::backend;

/// A hash that RSA signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RsaHash {
    Sha256,
    Sha384,
    Sha512,
}

/// How RSA fills up what it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RsaPadding {
    Pkcs1,
    Pss,
}

/// A curve with the one hash it is used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    Ed25519,
}

/// Returns whether the holder of the RSA key `n`, `e` signed `message`.
pub(crate) fn rsa(
    (n, e): (&[u8], &[u8]),
    padding: RsaPadding,
    hash: RsaHash,
    message: &[u8],
    signature: &[u8],
) -> bool {
    RsaPublicKeyComponents { n, e }.verify(parameters(padding, hash), message, signature).is_ok()
}

/// Returns whether the holder of the key `point` signed `message`. A point that is not on the curve signed nothing.
pub(crate) fn curve(curve: Curve, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let algorithm: &'static dyn VerificationAlgorithm = match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::Ed25519 => &ED25519,
    };
    UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
}

fn parameters(padding: RsaPadding, hash: RsaHash) -> &'static RsaParameters {
    match (padding, hash) {
        (RsaPadding::Pkcs1, RsaHash::Sha256) => &RSA_PKCS1_2048_8192_SHA256,
        (RsaPadding::Pkcs1, RsaHash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
        (RsaPadding::Pkcs1, RsaHash::Sha512) => &RSA_PKCS1_2048_8192_SHA512,
        (RsaPadding::Pss, RsaHash::Sha256) => &RSA_PSS_2048_8192_SHA256,
        (RsaPadding::Pss, RsaHash::Sha384) => &RSA_PSS_2048_8192_SHA384,
        (RsaPadding::Pss, RsaHash::Sha512) => &RSA_PSS_2048_8192_SHA512,
    }
}
