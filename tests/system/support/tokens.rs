//! A token issuer made by hand: ES256 keys and tokens, each part as a test wants it.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use serde_json::{Value, json};

/// Who issues the tokens.
pub(crate) const ISSUER: &str = "https://login.test";

/// A key that signs tokens.
pub(crate) struct Signer {
    key: KeyPair,
    id: String,
}

impl Signer {
    pub(crate) fn new(id: &str) -> Self {
        Self { key: KeyPair::generate().unwrap(), id: id.to_owned() }
    }

    /// The public half, as a key set publishes it.
    pub(crate) fn jwk(&self) -> Value {
        let point = self.key.der_bytes();
        let (x, y) = point[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
    }

    /// A token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": "ES256", "typ": "JWT", "kid": self.id }), claims)
    }

    /// A token with a header of the test's own.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = raw(&self.key.sign(signed.as_bytes()).unwrap());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A key set of these keys.
pub(crate) fn key_set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Claims that are good for five minutes, with `more` beside or in place of them; null takes one away.
pub(crate) fn claims(more: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "payments", "sub": "ann-the-subject", "scope": "settle", "exp": now() + 300
    });
    for (name, value) in more.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Takes the two numbers out of the DER of a signature (RFC 3279 2.2.3), each in 32 bytes.
fn raw(der: &[u8]) -> Vec<u8> {
    let mut rest = &der[2..];
    let mut raw = Vec::new();
    for _ in 0..2 {
        let length = usize::from(rest[1]);
        let number = &rest[2..2 + length];
        let digits = number.strip_prefix(&[0]).unwrap_or(number);
        raw.extend(std::iter::repeat_n(0, 32 - digits.len()));
        raw.extend_from_slice(digits);
        rest = &rest[2 + length..];
    }
    raw
}
