//! The tokens of requests: found where their issuers put them, verified with the keys of those who may issue them.
//!
//! Which issuers count is part of the snapshot that decides, so a token is never judged by one set of policies and its
//! request by another. While the keys of an issuer are not known, none of its tokens proves anything.

mod fetch;
mod keys;
mod places;
mod presented;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Instant, SystemTime},
};

use identity::jwt::{Expected, JwtError, Lifetime, Unverified};
use policy::{Issuer, KeySource, TokenPlace, WorkloadPolicies};
use tokio::sync::Notify;

pub(crate) use fetch::HOST_ANCHORS;
pub(crate) use keys::run;
pub(crate) use presented::{Presented, Proven, Unproven};

use self::{
    keys::{Fetched, Keys},
    places::Found,
};
use crate::http1::RequestLine;

/// The key sets that are kept fresh, one for each address. Cheap to ask; who keeps them fresh is [`run`].
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    fetched: Mutex<HashMap<Arc<str>, Weak<Fetched>>>,
    /// Those that nobody keeps fresh yet.
    fresh: Mutex<Vec<Weak<Fetched>>>,
    added: Notify,
}

impl Tokens {
    /// Returns the issuers that `policies` declare, each with its keys. Keys that the policies in force use too stay
    /// as they are.
    pub(crate) fn accept(&self, policies: Option<&WorkloadPolicies>) -> Accepted {
        self.accept_all(policies.into_iter().flat_map(WorkloadPolicies::issuers))
    }

    fn accept_all<'a>(&self, issuers: impl Iterator<Item = &'a Arc<Issuer>>) -> Accepted {
        let issuers: Vec<Known> =
            issuers.map(|issuer| Known { issuer: Arc::clone(issuer), keys: self.keys_of(issuer) }).collect();
        let mut places: Vec<TokenPlace> = Vec::new();
        for place in issuers.iter().flat_map(|known| &known.issuer.places) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        Accepted { issuers: issuers.into(), places: places.into() }
    }

    fn keys_of(&self, issuer: &Issuer) -> Keys {
        match &issuer.keys {
            KeySource::Inline(text) => Keys::written(&issuer.issuer, text),
            KeySource::Url(url) => Keys::Fetched(self.fetched(url)),
        }
    }

    fn fetched(&self, url: &Arc<str>) -> Arc<Fetched> {
        let mut all = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(url).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, known| known.strong_count() > 0);
        let fetched = Arc::new(Fetched::new(Arc::clone(url)));
        all.insert(Arc::clone(url), Arc::downgrade(&fetched));
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&fetched));
        self.added.notify_one();
        fetched
    }

    fn take_fresh(&self) -> Vec<Weak<Fetched>> {
        std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The issuers whose tokens count under one snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accepted {
    issuers: Arc<[Known]>,
    /// Where any of them puts tokens, each place once.
    places: Arc<[TokenPlace]>,
}

/// An issuer and its keys.
#[derive(Debug)]
struct Known {
    issuer: Arc<Issuer>,
    keys: Keys,
}

impl Accepted {
    /// Finds out what the token of a request proves.
    pub(crate) fn judge(&self, line: &RequestLine, now: SystemTime) -> Presented {
        if self.issuers.is_empty() {
            return Presented::Absent;
        }
        match places::find(&self.places, line) {
            Ok(None) => Presented::Absent,
            Ok(Some(found)) => self.verify(&found, now).map_or_else(Presented::Invalid, Presented::Verified),
            Err(unproven) => Presented::Invalid(unproven),
        }
    }

    /// Says again what a token proves that was judged under an earlier snapshot. What an issuer that is still declared
    /// has vouched for stays proved for its one request.
    pub(crate) fn judge_again(&self, line: &RequestLine, now: SystemTime) -> Arc<Presented> {
        if let Some(before) = line.presented()
            && let Presented::Verified(proven) = &**before
            && self.issuers.iter().any(|known| known.issuer == *proven.issuer())
        {
            return Arc::clone(before);
        }
        Arc::new(self.judge(line, now))
    }

    fn verify(&self, found: &Found<'_>, now: SystemTime) -> Result<Proven, Unproven> {
        let token = std::str::from_utf8(&found.token).map_err(|_| Unproven::not_text())?;
        let unverified = Unverified::parse(token).map_err(|flaw| Unproven::flawed(flaw, None, None))?;
        let key_id = unverified.key_id().map(str::to_owned);
        let claimed = unverified.claimed_issuer().map(str::to_owned);
        drop(unverified);
        let named = self.issuers.iter().filter(|known| Some(&*known.issuer.issuer) == claimed.as_deref());
        let mut refused = Unproven::unknown_issuer(claimed.as_deref(), key_id.clone());
        // Two policies may declare one issuer with different keys or audiences: the token needs to satisfy one.
        for known in named.filter(|known| known.issuer.places.contains(found.place)) {
            match known.verify(token, now) {
                Ok(verified) => return Ok(Proven::new(verified, Arc::clone(&known.issuer), found.place)),
                Err(Refused::NoKeys) => refused = Unproven::no_keys(&known.issuer, key_id.clone()),
                Err(Refused::Flawed(flaw)) => {
                    refused = Unproven::flawed(flaw, Some(&known.issuer), key_id.clone());
                }
            }
        }
        Err(refused)
    }
}

enum Refused {
    NoKeys,
    Flawed(JwtError),
}

impl Known {
    fn verify(&self, token: &str, now: SystemTime) -> Result<identity::jwt::Verified, Refused> {
        let keys = self.keys.at(Instant::now()).ok_or(Refused::NoKeys)?;
        let lifetime = if self.issuer.accepts_endless { Lifetime::AsEnvoy } else { Lifetime::Limited };
        let expected = Expected { issuer: &self.issuer.issuer, audiences: &self.issuer.audiences, lifetime };
        let verified = identity::jwt::verify(token, &keys, &expected, now);
        if let Err(JwtError::UnknownKey) = &verified {
            self.keys.ask();
        }
        verified.map_err(Refused::Flawed)
    }
}
