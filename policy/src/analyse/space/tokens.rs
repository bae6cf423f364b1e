//! What requests prove by tokens: claims that no condition links are dimensions of their own.
//!
//! Each dimension knows whether there is a token and whether it was verified, and all agree on it: what they would
//! contradict each other in is marked as impossible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::at;
use super::headers::{Atoms, Conditions, Coverage, classes, subsets, with_request};
use crate::access::Token;
use crate::analyse::budget::{Budget, Spent};
use crate::analyse::sets::AtomSet;
use crate::claims::Claims;
use crate::document::{RequestCondition, TokenLimits};
use crate::pattern::TextPattern;

/// A token, or none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SampleToken {
    /// There is none.
    Absent,
    /// There is one that proves nothing.
    Invalid,
    /// There is one with these claims.
    Verified(Map<String, Value>),
}

impl SampleToken {
    fn standing(&self) -> Standing {
        match self {
            Self::Absent => Standing::Absent,
            Self::Invalid => Standing::Invalid,
            Self::Verified(_) => Standing::Verified,
        }
    }
}

/// Whether there is a token, without its claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Absent,
    Invalid,
    Verified,
}

impl Standing {
    pub(super) const ALL: [Self; 3] = [Self::Absent, Self::Invalid, Self::Verified];
}

/// Claims that some condition looks at together.
#[derive(Debug)]
pub(super) struct TokenDimension {
    samples: Vec<SampleToken>,
    conditions: Conditions,
    holding: Vec<AtomSet>,
}

impl TokenDimension {
    /// Whether there is a token, and nothing else.
    pub(super) fn bare() -> Self {
        let samples = vec![SampleToken::Absent, SampleToken::Invalid, SampleToken::Verified(Map::new())];
        Self { samples, conditions: Conditions::default(), holding: Vec::new() }
    }

    /// One dimension for each group of conditions that share a claim.
    pub(super) fn groups(
        conditions: &Conditions,
        budget: &mut Budget,
    ) -> Result<Vec<(Self, Coverage)>, Spent> {
        let mut groups: Vec<(BTreeSet<Vec<Arc<str>>>, Conditions)> = Vec::new();
        for condition in &conditions.list {
            let mut paths = paths(condition);
            let mut together = Conditions::default();
            groups.retain(|(others, members)| {
                let apart = others.is_disjoint(&paths);
                if !apart {
                    paths.extend(others.iter().cloned());
                    members.list.iter().for_each(|member| together.add(member));
                }
                apart
            });
            together.add(condition);
            groups.push((paths, together));
        }
        groups.into_iter().map(|(paths, conditions)| Self::new(&paths, conditions, budget)).collect()
    }

    fn new(
        paths: &BTreeSet<Vec<Arc<str>>>,
        conditions: Conditions,
        budget: &mut Budget,
    ) -> Result<(Self, Coverage), Spent> {
        let mut coverage = Coverage::Whole;
        let mut tokens = vec![Map::new()];
        for path in paths {
            let (values, part) = values(path, &conditions, budget)?;
            let mut next = Vec::new();
            for token in &tokens {
                budget.spend(values.len())?;
                next.extend(values.iter().filter_map(|value| with(token, path, value)));
            }
            if part == Coverage::Part || next.len() > MAX_TOKENS {
                coverage = Coverage::Part;
                next.truncate(MAX_TOKENS);
            }
            tokens = next;
        }
        let mut atoms = Atoms::default();
        let verified = tokens.into_iter().map(SampleToken::Verified);
        for sample in [SampleToken::Absent, SampleToken::Invalid].into_iter().chain(verified) {
            budget.spend(conditions.list.len())?;
            atoms.add(held(&conditions, &sample), sample);
        }
        let (samples, holding) = atoms.finish(conditions.list.len());
        Ok((Self { samples, conditions, holding }, coverage))
    }

    pub(super) fn size(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn sample(&self, atom: u32) -> Option<&SampleToken> {
        self.samples.get(at(atom))
    }

    pub(super) fn where_holds(&self, condition: &RequestCondition) -> Option<AtomSet> {
        self.conditions.number(condition).and_then(|number| self.holding.get(number)).cloned()
    }

    pub(super) fn with_standing(&self, standing: Standing) -> AtomSet {
        let fitting = (0u32..).zip(&self.samples).filter(|(_, sample)| sample.standing() == standing);
        AtomSet::of(fitting.map(|(number, _)| number), self.samples.len())
    }
}

/// The token of an access, put together from the dimensions.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    parts: Vec<SampleToken>,
}

impl Sampled {
    pub(super) fn add(&mut self, part: &SampleToken) {
        self.parts.push(part.clone());
    }

    pub(super) fn finish(self) -> SampleToken {
        let mut parts = self.parts.into_iter();
        let Some(mut whole) = parts.next() else { return SampleToken::Absent };
        for part in parts {
            if let (SampleToken::Verified(claims), SampleToken::Verified(more)) = (&mut whole, part) {
                merge(claims, more);
            }
        }
        whole
    }
}

fn held(conditions: &Conditions, sample: &SampleToken) -> Vec<bool> {
    let claims;
    let token = match sample {
        SampleToken::Absent => Token::Absent,
        SampleToken::Invalid => Token::Invalid,
        SampleToken::Verified(values) => {
            claims = Claims::verified(values.clone());
            Token::Verified(&claims)
        }
    };
    let held = conditions.list.iter().map(|condition| with_request(condition, &Vec::new(), token));
    held.chain(Standing::ALL.map(|standing| sample.standing() == standing)).collect()
}

fn paths(condition: &RequestCondition) -> BTreeSet<Vec<Arc<str>>> {
    let one = |name: &str| vec![Arc::from(name)];
    match condition {
        RequestCondition::Principal { .. } => BTreeSet::from([one("iss"), one("sub")]),
        RequestCondition::Claim { path, .. } => BTreeSet::from([path.clone()]),
        RequestCondition::Token(TokenLimits { claims, .. }) => {
            claims.iter().map(|limit| limit.path.clone()).chain([one("iss"), one("aud")]).collect()
        }
        RequestCondition::Method { .. }
        | RequestCondition::Authority { .. }
        | RequestCondition::Path { .. }
        | RequestCondition::Header { .. } => BTreeSet::new(),
    }
}

// What a claim can be: absent, one text, or a list of them.
fn values(
    path: &[Arc<str>],
    conditions: &Conditions,
    budget: &mut Budget,
) -> Result<(Vec<Option<Value>>, Coverage), Spent> {
    let (mut texts, mut exact): (Vec<&TextPattern>, Vec<Arc<str>>) = (Vec::new(), Vec::new());
    let mut looking = 0;
    let is = |name: &str| matches!(path, [only] if **only == *name);
    for condition in &conditions.list {
        looking += usize::from(paths(condition).contains(path));
        match condition {
            RequestCondition::Principal { any_of, .. } => {
                texts.extend(any_of.iter().map(|(issuer, _)| issuer).filter(|_| is("iss")));
                texts.extend(any_of.iter().map(|(_, subject)| subject).filter(|_| is("sub")));
            }
            RequestCondition::Claim { path: own, any_of, .. } if own == path => texts.extend(any_of),
            RequestCondition::Token(limits) => {
                exact.extend(Some(Arc::clone(&limits.issuer)).filter(|_| is("iss")));
                exact.extend(limits.audiences.iter().filter(|_| is("aud")).cloned());
                let own = limits.claims.iter().filter(|limit| limit.path == path);
                exact.extend(own.flat_map(|limit| limit.values.iter().cloned()));
            }
            RequestCondition::Method { .. }
            | RequestCondition::Authority { .. }
            | RequestCondition::Path { .. }
            | RequestCondition::Header { .. }
            | RequestCondition::Claim { .. } => {}
        }
    }
    let classes = classes(texts.into_iter(), &exact, budget)?;
    // Issuer and subject are one text each. A native rule asks for one value of a claim, so that two are enough: one for the
    // rule that grants, one for the rule that refuses on the other side. Istio's conditions may need a value each.
    let native = conditions.list.iter().all(|condition| matches!(condition, RequestCondition::Token(_)));
    let most = match native {
        _ if is("iss") || is("sub") => 1,
        true => looking.min(2),
        false => looking,
    };
    let (lists, coverage) = subsets(&classes, most);
    let value = |list: Vec<String>| match list.as_slice() {
        [] => None,
        [only] => Some(Value::String(only.clone())),
        _ => Some(Value::Array(list.into_iter().map(Value::String).collect())),
    };
    Ok((lists.into_iter().map(value).collect(), coverage))
}

/// The claims with one more, unless it stands where another one goes on.
fn with(claims: &Map<String, Value>, path: &[Arc<str>], value: &Option<Value>) -> Option<Map<String, Value>> {
    let mut claims = claims.clone();
    if let Some(value) = value {
        put(&mut claims, path, value.clone())?;
    }
    Some(claims)
}

fn put(claims: &mut Map<String, Value>, path: &[Arc<str>], value: Value) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        return claims.insert(first.to_string(), value).is_none().then_some(());
    }
    let below = claims.entry(first.to_string()).or_insert_with(|| Value::Object(Map::new()));
    put(below.as_object_mut()?, rest, value)
}

fn merge(claims: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (claims.get_mut(&name), value) {
            (Some(Value::Object(own)), Value::Object(value)) => merge(own, value),
            (_, value) => {
                claims.insert(name, value);
            }
        }
    }
}

/// Groups by claim, for the words of a report.
pub(super) fn names(conditions: &Conditions) -> String {
    let names: BTreeMap<String, ()> = conditions
        .list
        .iter()
        .flat_map(paths)
        .map(|path| (path.iter().map(|name| &**name).collect::<Vec<_>>().join("."), ()))
        .collect();
    names.into_keys().collect::<Vec<_>>().join(", ")
}

// Most tokens that are tried for claims that conditions link.
const MAX_TOKENS: usize = 60_000;
