//! The compact form (RFC 7515 7.1): three parts, each read in one way only.

use std::fmt;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::flaw::{JwtError, Part};
use super::keys::{KeySet, MAX_KEY_ID_BYTES};
use super::strict::{self, StrictError};
use super::{Expected, MAX_TOKEN_BYTES};

/// A token that can be read. Nothing in it is proved.
pub struct Unverified<'a> {
    header: Header,
    claims: Map<String, Value>,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// Reads a token.
    pub fn parse(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(JwtError::TooLong);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Parts);
        };
        let signed = header.len().saturating_add(1).saturating_add(claims.len());
        Ok(Self {
            header: Header::read(&object(header, Part::Header)?)?,
            claims: object(claims, Part::Claims)?,
            signed: token.as_bytes().get(..signed).ok_or(JwtError::Parts)?,
            signature: decode(signature, Part::Signature)?,
        })
    }

    /// Returns who the token says has issued it: good for choosing the keys to verify it with, and for nothing else.
    pub fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Returns the key the token says it was signed with.
    pub fn key_id(&self) -> Option<&str> {
        self.header.key_id.as_deref()
    }

    /// Verifies the signature, then what the token claims.
    pub fn verify(
        self,
        keys: &KeySet,
        expected: &Expected<'_>,
        now: SystemTime,
    ) -> Result<Verified, JwtError> {
        let algorithm = self.header.algorithm;
        let signed = keys
            .candidates(self.header.key_id.as_deref(), algorithm)?
            .any(|key| key.verifies(algorithm, self.signed, &self.signature));
        if !signed {
            return Err(JwtError::Signature);
        }
        expected.judge(&self.claims, now)?;
        Ok(Verified { issuer: expected.issuer.to_owned(), key_id: self.header.key_id, claims: self.claims })
    }
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Unverified").field("algorithm", &self.header.algorithm).finish_non_exhaustive()
    }
}

/// A token whose signature and claims were found good.
pub struct Verified {
    issuer: String,
    key_id: Option<String>,
    claims: Map<String, Value>,
}

impl Verified {
    /// Returns who issued it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Returns the key that signed it, as its header names it.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Returns all that it says.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// Returns all that it says.
    pub fn into_claims(self) -> Map<String, Value> {
        self.claims
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Verified").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What of a header is looked at. Addresses of keys (`jku`, `x5u`) and certificates are passed over: keys come from
/// the issuer's configuration alone.
struct Header {
    algorithm: Algorithm,
    key_id: Option<String>,
}

impl Header {
    fn read(fields: &Map<String, Value>) -> Result<Self, JwtError> {
        let algorithm = fields.get("alg").and_then(Value::as_str).and_then(Algorithm::named);
        let algorithm = algorithm.ok_or(JwtError::Algorithm)?;
        // RFC 7515 4.1.11: what must be understood and is not makes the token invalid. `b64` changes what is signed.
        if fields.contains_key("crit") || fields.contains_key("b64") {
            return Err(JwtError::Critical);
        }
        if fields.contains_key("jwk") {
            return Err(JwtError::EmbeddedKey);
        }
        // RFC 8725 3.11: a logout token or a proof of possession is signed with the same keys and grants nothing.
        let typed = match fields.get("typ") {
            None => true,
            Some(Value::String(kind)) => TYPES.iter().any(|known| kind.eq_ignore_ascii_case(known)),
            Some(_) => false,
        };
        if !typed {
            return Err(JwtError::Type);
        }
        let key_id = match fields.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID_BYTES => Some(id.clone()),
            Some(_) => return Err(JwtError::KeyId),
        };
        Ok(Self { algorithm, key_id })
    }
}

fn object(text: &str, part: Part) -> Result<Map<String, Value>, JwtError> {
    strict::object(&decode(text, part)?).map_err(|error| match error {
        StrictError::Json => JwtError::Json(part),
        StrictError::Duplicate => JwtError::Duplicate(part),
        StrictError::NotAnObject => JwtError::NotAnObject(part),
    })
}

/// Padding, other alphabets and spare bits that are not nought are refused: each token has one form.
fn decode(text: &str, part: Part) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Base64(part))
}

/// Kinds of tokens that prove who asks (RFC 7519 5.1, RFC 9068 2.1, JWT-SVID 2).
const TYPES: [&str; 5] = ["JWT", "JOSE", "at+jwt", "application/jwt", "application/at+jwt"];
