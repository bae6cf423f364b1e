//! The algorithms that may sign a token, and which kind of key each needs.

use crate::crypto::signature::{self, Curve, RsaHash, RsaPadding};

use super::keys::Material;

/// A signature algorithm (RFC 7518 3.1, RFC 8037 3.1). There is no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// Returns the algorithm's name in a header. Names differ by case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Says whether a key of this kind can have made a signature of this algorithm.
    pub(super) fn suits(self, material: &Material) -> bool {
        match (self.scheme(), material) {
            (Scheme::Rsa(..), Material::Rsa { .. }) => true,
            (Scheme::Curve(wanted), Material::Point { curve, .. }) => wanted == *curve,
            (Scheme::Rsa(..), Material::Point { .. }) | (Scheme::Curve(_), Material::Rsa { .. }) => false,
        }
    }

    /// Says whether `material` signed `message` with this algorithm.
    pub(super) fn verifies(self, material: &Material, message: &[u8], signature: &[u8]) -> bool {
        match (self.scheme(), material) {
            (Scheme::Rsa(padding, hash), Material::Rsa { n, e }) => {
                signature::rsa((n, e), padding, hash, message, signature)
            }
            (Scheme::Curve(wanted), Material::Point { curve, bytes }) if wanted == *curve => {
                signature::curve(wanted, bytes, message, signature)
            }
            (Scheme::Rsa(..) | Scheme::Curve(_), Material::Rsa { .. } | Material::Point { .. }) => false,
        }
    }

    fn scheme(self) -> Scheme {
        match self {
            Self::Rs256 => Scheme::Rsa(RsaPadding::Pkcs1, RsaHash::Sha256),
            Self::Rs384 => Scheme::Rsa(RsaPadding::Pkcs1, RsaHash::Sha384),
            Self::Rs512 => Scheme::Rsa(RsaPadding::Pkcs1, RsaHash::Sha512),
            Self::Ps256 => Scheme::Rsa(RsaPadding::Pss, RsaHash::Sha256),
            Self::Ps384 => Scheme::Rsa(RsaPadding::Pss, RsaHash::Sha384),
            Self::Ps512 => Scheme::Rsa(RsaPadding::Pss, RsaHash::Sha512),
            Self::Es256 => Scheme::Curve(Curve::P256),
            Self::Es384 => Scheme::Curve(Curve::P384),
            Self::EdDsa => Scheme::Curve(Curve::Ed25519),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Rsa(RsaPadding, RsaHash),
    Curve(Curve),
}
