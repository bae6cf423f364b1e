//! JSON Web Tokens in compact form: read strictly, verified with the keys of their issuer.
//!
//! Only [`Unverified::verify`] makes a [`Verified`]. The key decides which algorithms may be used with it, never the
//! token alone; `none` and the symmetric algorithms do not exist here. What two readers could take differently (a
//! claim given twice, padding, spare bits) is refused. No part of a token is in an error or a debug text.

mod algorithm;
mod compact;
mod flaw;
mod keys;
mod strict;

pub use algorithm::Algorithm;
pub use compact::{Unverified, Verified};
pub use flaw::{JwtError, KeySetError, Part};
pub use keys::{KeySet, MAX_KEY_ID_BYTES, MAX_KEYS, MAX_SET_BYTES, MAX_TRIED, PublicKey};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

/// What a token has to say to be accepted.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Who must have issued it, to the letter.
    pub issuer: &'a str,
    /// For whom it may be meant: one of these. With none every audience is accepted.
    pub audiences: &'a [Arc<str>],
    /// How its times are judged.
    pub lifetime: Lifetime,
}

/// How the times of a token are judged. All allow for [`CLOCK_SKEW`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It must say when it expires, and must not be issued in the future.
    Limited,
    /// It may be without end and may be issued at any time, as Envoy has it: only `exp` and `nbf` are judged, where
    /// they are given.
    AsEnvoy,
}

/// Reads and verifies a token in one step.
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: SystemTime,
) -> Result<Verified, JwtError> {
    Unverified::parse(token)?.verify(keys, expected, now)
}

impl Expected<'_> {
    /// Judges the claims of a token whose signature is good.
    fn judge(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), JwtError> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer) {
            return Err(JwtError::Issuer);
        }
        self.judge_times(claims, now)?;
        self.judge_audience(claims)
    }

    fn judge_times(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<(), JwtError> {
        // A clock before 1970 is no clock: the token is neither old nor young then.
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| JwtError::Clock)?.as_secs();
        let skew = CLOCK_SKEW.as_secs();
        let (expires, not_before) = (moment(claims, "exp")?, moment(claims, "nbf")?);
        let issued = moment(claims, "iat")?;
        match (expires, self.lifetime) {
            (None, Lifetime::Limited) => return Err(JwtError::NoExpiry),
            (Some(expires), _) if now >= expires.saturating_add(skew) => return Err(JwtError::Expired),
            (Some(_) | None, _) => {}
        }
        if not_before.is_some_and(|begin| begin > now.saturating_add(skew)) {
            return Err(JwtError::NotYetValid);
        }
        match self.lifetime {
            Lifetime::Limited if issued.is_some_and(|issued| issued > now.saturating_add(skew)) => {
                Err(JwtError::IssuedInFuture)
            }
            Lifetime::Limited | Lifetime::AsEnvoy => Ok(()),
        }
    }

    fn judge_audience(&self, claims: &Map<String, Value>) -> Result<(), JwtError> {
        let wanted = |text: &str| self.audiences.iter().any(|audience| **audience == *text);
        let meant = match claims.get("aud") {
            None => self.audiences.is_empty(),
            Some(Value::String(one)) => self.audiences.is_empty() || wanted(one),
            Some(Value::Array(list)) => {
                let texts = list.iter().map(Value::as_str);
                let found = texts.collect::<Option<Vec<_>>>().ok_or(JwtError::Claim { name: "aud" })?;
                self.audiences.is_empty() || found.into_iter().any(wanted)
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {
                return Err(JwtError::Claim { name: "aud" });
            }
        };
        if meant { Ok(()) } else { Err(JwtError::Audience) }
    }
}

/// Reads a `NumericDate` (RFC 7519 2) in whole seconds. Fractions are cut off.
fn moment(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, JwtError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let whole = value.as_u64().or_else(|| {
        let seconds = value.as_f64().filter(|seconds| (0.0..=LAST_SECOND).contains(seconds))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between nought and 2^53, and cutting off is meant"
        )]
        Some(seconds as u64)
    });
    whole.map(Some).ok_or(JwtError::Claim { name })
}

/// The longest token that is looked at. A request head has no room for a longer one.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far the clocks of issuer and verifier may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// The last whole number of seconds that a JSON number with a fraction can tell exactly.
const LAST_SECOND: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests;
