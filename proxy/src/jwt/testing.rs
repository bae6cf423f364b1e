//! A token issuer of the tests: keys and tokens made by a library of others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SigningKey};
use serde_json::{Value, json};

pub(super) const ISSUER: &str = "https://login.test";

/// Signs tokens with one key.
pub(super) struct Signer {
    key: KeyPair,
    id: &'static str,
}

impl Signer {
    pub(super) fn new(id: &'static str) -> Self {
        Self { key: KeyPair::generate_for(&PKCS_ED25519).unwrap(), id }
    }

    /// The key set with this signer's key alone.
    pub(super) fn keys(&self) -> String {
        let x = base64url(self.key.der_bytes());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x }] }).to_string()
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "kid": self.id });
        let signed = format!(
            "{}.{}",
            base64url(header.to_string().as_bytes()),
            base64url(claims.to_string().as_bytes())
        );
        let signature = self.key.sign(signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64url(&signature))
    }
}

/// Claims that are good for five minutes.
pub(super) fn claims() -> Value {
    let now = seconds(SystemTime::now());
    json!({ "iss": ISSUER, "aud": "payments", "sub": "ann", "exp": now + 300 })
}

pub(super) fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
