//! Tokens that prove something after a change and did not before: of another issuer, signed with another key, for another audience.
//!
//! A request is compared with the claims that its token proves, on both sides the same. So where the side before looks at tokens,
//! one that it would not have believed is a gain that no comparison of rules shows.

use identity::jwt::KeySet;

use crate::analyse::Unsettled;
use crate::analyse::scene::Scene;
use crate::document::{Issuer, KeySource, Layer, RequestCondition, Rule};

/// The issuers of whom more tokens are believed than before, where that matters to what the policies before decide.
pub(super) fn newly_trusted(before: &Scene, after: &Scene) -> impl Iterator<Item = Unsettled> {
    let more = after
        .issuers()
        .filter(|issuer| matters(before, issuer) && !before.issuers().any(|known| covers(known, issuer)));
    more.map(|issuer| Unsettled {
        to: Some(before.to.id.clone()),
        what: format!("more tokens of {} are believed than before", issuer.issuer),
    })
}

fn matters(before: &Scene, issuer: &Issuer) -> bool {
    before.refuses_invalid_tokens() || before.rules().any(|rule| looks_at_tokens(rule, issuer))
}

fn looks_at_tokens(rule: &Rule, issuer: &Issuer) -> bool {
    matches!(rule.layer, Layer::Http(_))
        && rule.at_request.iter().any(|condition| match condition {
            RequestCondition::Token(limits) => limits.issuer == issuer.issuer,
            RequestCondition::Principal { .. } | RequestCondition::Claim { .. } => true,
            RequestCondition::Method { .. }
            | RequestCondition::Authority { .. }
            | RequestCondition::Path { .. }
            | RequestCondition::Header { .. } => false,
        })
}

/// Whether every token that is believed as one of `issuer` was believed as one of `known`.
fn covers(known: &Issuer, issuer: &Issuer) -> bool {
    known.issuer == issuer.issuer
        && (known.audiences.is_empty()
            || !issuer.audiences.is_empty()
                && issuer.audiences.iter().all(|audience| known.audiences.contains(audience)))
        && issuer.places.iter().all(|place| known.places.contains(place))
        && (known.accepts_endless || !issuer.accepts_endless)
        && has_keys(&known.keys, &issuer.keys)
}

fn has_keys(known: &KeySource, keys: &KeySource) -> bool {
    match (known, keys) {
        (KeySource::Inline(known), KeySource::Inline(keys)) => {
            match (KeySet::parse(known.as_bytes()), KeySet::parse(keys.as_bytes())) {
                (Ok(known), Ok(keys)) => keys.keys().iter().all(|key| known.keys().contains(key)),
                // What cannot be read proves nothing.
                (_, Err(_)) => true,
                (Err(_), Ok(_)) => false,
            }
        }
        (KeySource::Url(known), KeySource::Url(url)) => known == url,
        (KeySource::Inline(_), KeySource::Url(_)) | (KeySource::Url(_), KeySource::Inline(_)) => false,
    }
}

#[cfg(test)]
mod tests;
