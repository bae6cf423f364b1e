//! The public keys of an issuer (RFC 7517), bounded and strict.
//!
//! Keys of kinds, curves, uses and algorithms that are unknown here are passed over: issuers publish them beside those
//! that are known. A key that is known and broken, weak or secret refuses the whole set.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::flaw::{JwtError, KeySetError};
use super::strict;
use crate::crypto::signature::Curve;

/// The keys of one issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: Option<String>,
    /// The one algorithm the issuer uses it with, where it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

/// The key itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point { curve: Curve, bytes: Vec<u8> },
}

impl std::fmt::Debug for Material {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa { n, .. } => write!(out, "Rsa({} bits)", n.len().saturating_mul(8)),
            Self::Point { curve, .. } => write!(out, "{curve:?}"),
        }
    }
}

impl KeySet {
    /// Parses a JWK set.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        let set = strict::object(bytes).map_err(|_| KeySetError::NotASet)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NotASet)?;
        if listed.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut keys = Vec::with_capacity(listed.len());
        for (index, key) in listed.iter().enumerate() {
            keys.extend(PublicKey::read(&Jwk::new(index, key)?)?);
        }
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self { keys }) }
    }

    /// Returns the keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Returns the keys that may have signed a token with this header: a few at most, so that a token cannot have a
    /// hundred signatures computed. A key without an identifier may be that of any token.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<impl Iterator<Item = &PublicKey>, JwtError> {
        let named = move |key: &&PublicKey| match (id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            (None, _) | (Some(_), None) => true,
        };
        let suitable = move |key: &&PublicKey| {
            algorithm.suits(&key.material) && key.algorithm.is_none_or(|only| only == algorithm)
        };
        if !self.keys.iter().any(|key| named(&key)) {
            return Err(JwtError::UnknownKey);
        }
        if !self.keys.iter().any(|key| named(&key) && suitable(&key)) {
            return Err(JwtError::KeyMismatch);
        }
        Ok(self.keys.iter().filter(named).filter(suitable).take(MAX_TRIED))
    }
}

impl PublicKey {
    /// Returns the key's identifier.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        algorithm.verifies(&self.material, message, signature)
    }

    /// Reads one key; none where it is of no use here.
    fn read(jwk: &Jwk<'_>) -> Result<Option<Self>, KeySetError> {
        let kind = jwk.text("kty")?.ok_or_else(|| jwk.malformed("kty"))?;
        if kind == "oct" || SECRET_PARTS.iter().any(|part| jwk.fields.contains_key(*part)) {
            return Err(KeySetError::Secret { index: jwk.index });
        }
        let id = jwk.text("kid")?;
        if id.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return Err(jwk.malformed("kid"));
        }
        let algorithm = jwk.text("alg")?;
        let usable = jwk.is_for_signatures()?;
        let material = match kind {
            "RSA" => Some(jwk.rsa()?),
            "EC" | "OKP" => jwk.point(kind)?,
            _ => None,
        };
        let Some(material) = material.filter(|_| usable) else { return Ok(None) };
        let algorithm = match algorithm {
            None => None,
            Some(name) => match Algorithm::named(name).filter(|algorithm| algorithm.suits(&material)) {
                Some(algorithm) => Some(algorithm),
                // For something that is not done here.
                None => return Ok(None),
            },
        };
        Ok(Some(Self { id: id.map(str::to_owned), algorithm, material }))
    }
}

/// One entry of a set, with its place for the error.
struct Jwk<'a> {
    index: usize,
    fields: &'a Map<String, Value>,
}

impl<'a> Jwk<'a> {
    fn new(index: usize, value: &'a Value) -> Result<Self, KeySetError> {
        let fields = value.as_object().ok_or(KeySetError::Malformed { index, field: "it is no object" })?;
        Ok(Self { index, fields })
    }

    fn malformed(&self, field: &'static str) -> KeySetError {
        KeySetError::Malformed { index: self.index, field }
    }

    fn text(&self, field: &'static str) -> Result<Option<&'a str>, KeySetError> {
        match self.fields.get(field) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.malformed(field)),
        }
    }

    fn bytes(&self, field: &'static str) -> Result<Vec<u8>, KeySetError> {
        let text = self.text(field)?.ok_or_else(|| self.malformed(field))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|_| self.malformed(field))
    }

    /// RFC 7517 4.2 and 4.3; SPIFFE has a use of its own for keys that sign JWT-SVIDs.
    fn is_for_signatures(&self) -> Result<bool, KeySetError> {
        let by_use = self.text("use")?.is_none_or(|purpose| matches!(purpose, "sig" | "jwt-svid"));
        let by_operations = match self.fields.get("key_ops") {
            None => true,
            Some(value) => {
                let operations = value.as_array().ok_or_else(|| self.malformed("key_ops"))?;
                operations.iter().any(|operation| operation.as_str() == Some("verify"))
            }
        };
        Ok(by_use && by_operations)
    }

    fn rsa(&self) -> Result<Material, KeySetError> {
        let (n, e) = (self.bytes("n")?, self.bytes("e")?);
        // RFC 7518 6.3.1: the fewest octets that hold the number.
        if n.first().is_none_or(|first| *first == 0) {
            return Err(self.malformed("n"));
        }
        if e.first().is_none_or(|first| *first == 0) {
            return Err(self.malformed("e"));
        }
        let bits = n.len().saturating_mul(8);
        let zeros = n.first().map_or(0, |first| first.leading_zeros() as usize);
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        let strong = RSA_BITS.contains(&bits.saturating_sub(zeros))
            && odd(&n)
            && odd(&e)
            && e != [1]
            && e.len() <= MAX_EXPONENT_BYTES;
        if strong { Ok(Material::Rsa { n, e }) } else { Err(KeySetError::Weak { index: self.index }) }
    }

    /// A point of a curve that is known here; none for another curve.
    fn point(&self, kind: &str) -> Result<Option<Material>, KeySetError> {
        let name = self.text("crv")?.ok_or_else(|| self.malformed("crv"))?;
        let (curve, length) = match (kind, name) {
            ("EC", "P-256") => (Curve::P256, 32),
            ("EC", "P-384") => (Curve::P384, 48),
            ("OKP", "Ed25519") => (Curve::Ed25519, 32),
            _ => return Ok(None),
        };
        let coordinate = |field| {
            let bytes = self.bytes(field)?;
            if bytes.len() == length { Ok(bytes) } else { Err(self.malformed(field)) }
        };
        let bytes = match curve {
            Curve::Ed25519 => coordinate("x")?,
            Curve::P256 | Curve::P384 => [&[UNCOMPRESSED][..], &coordinate("x")?, &coordinate("y")?].concat(),
        };
        Ok(Some(Material::Point { curve, bytes }))
    }
}

/// The longest set that is looked at.
pub const MAX_SET_BYTES: usize = 256 * 1024;
/// The most keys of a set. Large issuers publish about ten.
pub const MAX_KEYS: usize = 100;
/// The longest key identifier. The longest in use are fingerprints in hexadecimal.
pub const MAX_KEY_ID_BYTES: usize = 256;
/// The most keys that are tried for one token.
pub const MAX_TRIED: usize = 4;

/// What only the holder of a key has (RFC 7518 6.2.2, 6.3.2, 6.4.1).
const SECRET_PARTS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const MAX_EXPONENT_BYTES: usize = 4;
/// SEC 1 2.3.3.
const UNCOMPRESSED: u8 = 4;
