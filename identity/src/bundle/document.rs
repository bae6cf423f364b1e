//! The SPIFFE JWKS document.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BundleError, MAX_BUNDLE_KEYS, TrustBundle};
use crate::jwk::X509_USE;
use crate::spiffe_id::TrustDomain;

/// A key for JWT-SVIDs, kept as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtKey {
    id: String,
    jwk: Value,
}

impl JwtKey {
    /// Takes a JSON Web Key. `None` unless it is of a known kind, is meant for JWT-SVIDs and has a key ID.
    pub fn from_jwk(jwk: Value) -> Option<Self> {
        if !has_known_type(&jwk) || text(&jwk, "use") != Some(JWT_USE) {
            return None;
        }
        let id = text(&jwk, "kid").filter(|id| !id.is_empty())?.to_owned();
        Some(Self { id, jwk })
    }

    /// Returns the key ID.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the JSON Web Key.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }
}

pub(super) fn parse(trust_domain: TrustDomain, json: &[u8]) -> Result<TrustBundle, BundleError> {
    let document: Read = serde_json::from_slice(json).map_err(|source| BundleError::Json { source })?;
    if document.keys.len() > MAX_BUNDLE_KEYS {
        return Err(BundleError::TooManyKeys { found: document.keys.len() });
    }
    let (mut x509, mut jwt) = (Vec::new(), Vec::new());
    for (index, jwk) in document.keys.into_iter().enumerate() {
        x509.extend(x509_authority(&jwk, index)?);
        jwt.extend(JwtKey::from_jwk(jwk));
    }
    let mut bundle = TrustBundle::new(trust_domain, x509)?.with_jwt_keys(jwt);
    bundle.sequence = document.spiffe_sequence;
    bundle.refresh_hint = document.spiffe_refresh_hint.map(Duration::from_secs);
    Ok(bundle)
}

pub(super) fn write(bundle: &TrustBundle) -> String {
    let document = Written {
        keys: bundle.x509_jwks.iter().chain(bundle.jwt.iter().map(|key| &key.jwk)).collect(),
        spiffe_sequence: bundle.sequence,
        spiffe_refresh_hint: bundle.refresh_hint.map(|hint| hint.as_secs()),
    };
    #[expect(clippy::expect_used, reason = "string keys and JSON values always serialise")]
    serde_json::to_string(&document).expect("a JSON value serialises")
}

/// Trust Domain and Bundle 4.2: an entry of an unknown kind or use, or without a certificate, is passed over.
fn x509_authority(jwk: &Value, index: usize) -> Result<Option<CertificateDer<'static>>, BundleError> {
    if !has_known_type(jwk) || text(jwk, "use") != Some(X509_USE) {
        return Ok(None);
    }
    let first = match jwk.get("x5c") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(chain)) => match chain.first() {
            None => return Ok(None),
            Some(first) => first.as_str(),
        },
        Some(_) => None,
    };
    let der = first.and_then(|text| STANDARD.decode(text).ok()).ok_or(BundleError::X5c { index })?;
    Ok(Some(CertificateDer::from(der)))
}

fn has_known_type(jwk: &Value) -> bool {
    matches!(text(jwk, "kty"), Some("EC" | "RSA" | "OKP"))
}

fn text<'a>(jwk: &'a Value, field: &str) -> Option<&'a str> {
    jwk.get(field).and_then(Value::as_str)
}

#[derive(Deserialize)]
struct Read {
    keys: Vec<Value>,
    #[serde(default)]
    spiffe_sequence: Option<u64>,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Serialize)]
struct Written<'a> {
    keys: Vec<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

const JWT_USE: &str = "jwt-svid";
