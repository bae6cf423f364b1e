//! What a rule asks of tokens, as native words, and whose tokens count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Assumption;
use super::rules::{Work, is_anything};
use crate::document::{
    Effect, Issuer, KeySource, MAX_AUDIENCES, MAX_CLAIM_DEPTH, MAX_CLAIM_VALUES, MAX_CLAIMS,
    RequestCondition, Sense, Split,
};
use crate::istio::{RequestAuthentication, Scope, Within};
use crate::pattern::{Piece, TextPattern};

/// The issuers of every file, each with one declaration.
pub(super) struct Issuers<'i> {
    all: &'i [RequestAuthentication],
    /// Those that two resources declare with different keys or audiences.
    torn: BTreeSet<Arc<str>>,
}

impl<'i> Issuers<'i> {
    pub(super) fn of(all: &'i [RequestAuthentication]) -> Self {
        let mut first: BTreeMap<&str, &Issuer> = BTreeMap::new();
        let mut torn = BTreeSet::new();
        for issuer in all.iter().flat_map(|resource| &resource.issuers) {
            let before = *first.entry(&issuer.issuer).or_insert(issuer);
            if (&before.keys, &before.audiences) != (&issuer.keys, &issuer.audiences) {
                torn.insert(Arc::clone(&issuer.issuer));
            }
        }
        Self { all, torn }
    }

    /// Whether there are more than those that count at every workload of a policy.
    pub(super) fn elsewhere(&self, at: &[&Issuer]) -> bool {
        let known = |issuer: &Issuer| at.iter().any(|known| known.issuer == issuer.issuer);
        self.all.iter().flat_map(|one| &one.issuers).any(|issuer| !known(issuer))
    }

    /// Those whose tokens count at every workload that a policy selects, each once.
    pub(super) fn at(&self, scope: &Scope) -> Vec<&'i Issuer> {
        let mut found: Vec<&Issuer> = Vec::new();
        for issuer in self.all.iter().filter(|one| covers(&one.scope, scope)).flat_map(|one| &one.issuers) {
            let known = found.iter().any(|known| known.issuer == issuer.issuer);
            if !known && !self.torn.contains(&issuer.issuer) {
                found.push(issuer);
            }
        }
        found
    }
}

fn covers(wide: &Scope, narrow: &Scope) -> bool {
    let within = match (&wide.within, &narrow.within) {
        (Within::Mesh, _) => true,
        (Within::Namespace(_), Within::Mesh) => false,
        (Within::Namespace(one), Within::Namespace(other)) => one == other,
    };
    within && wide.labels.iter().all(|(key, value)| narrow.labels.get(key) == Some(value))
}

/// What a native rule asks of a token.
#[derive(Clone, Debug)]
pub(super) struct Jwt {
    pub(super) issuer: String,
    pub(super) audience: Audience,
    pub(super) claims: BTreeMap<Vec<String>, Vec<String>>,
}

/// For whom a token must be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// Nothing is said: the issuer's declaration counts.
    OfIssuer,
    /// It does not matter.
    Any,
    /// One of these.
    Only(Vec<String>),
}

/// What one condition came to.
enum Said {
    Whole,
    /// Something is left out of what is allowed, or away from what is denied.
    Partly(String),
    Never,
}

impl Work<'_> {
    /// What the token must be, in as many ways as there are issuers; an empty way is one without a token. Nothing where the
    /// rule allows something that cannot be said.
    pub(super) fn tokens(&mut self) -> Option<Vec<Option<Jwt>>> {
        let rule = self.rule;
        let asked: Vec<&RequestCondition> =
            rule.at_request.iter().filter(|condition| is_about_token(condition)).collect();
        if asked.is_empty() {
            return Some(vec![None]);
        }
        if self.issuers.is_empty() {
            let message =
                "no RequestAuthentication that is about all of these workloads says whose tokens count";
            return self.give_up(message, vec![None]);
        }
        if self.elsewhere {
            self.notes.push(
                "tokens of issuers that count at other workloads, or are declared in two ways, are not meant"
                    .to_owned(),
            );
        }
        if rule.effect == Effect::Deny {
            return self.denied(&asked);
        }
        let mut ways = Vec::new();
        for issuer in self.issuers {
            ways.extend(self.way(issuer, &asked));
        }
        (!ways.is_empty()).then(|| ways.into_iter().map(Some).collect())
    }

    // A native denial meets tokens of every other issuer too, so it can be said only of the one there is.
    fn denied(&mut self, asked: &[&RequestCondition]) -> Option<Vec<Option<Jwt>>> {
        let ([issuer], false) = (self.issuers, self.elsewhere) else {
            return self.give_up("what is asked of the tokens of several issuers cannot be said", vec![None]);
        };
        let way = match asked {
            [RequestCondition::Principal { any_of, sense: Sense::IsNot }]
                if any_of.iter().any(|(issuer, subject)| is_anything(issuer) && is_anything(subject))
                    && self.assumed().contains(&Assumption::TokensHaveSubjects) =>
            {
                self.notes.push(format!(
                    "every token is taken to have a subject that is not {NOBODY}: what has none is refused"
                ));
                let claims = BTreeMap::from([(vec!["sub".to_owned()], vec![NOBODY.to_owned()])]);
                Some(Jwt { issuer: issuer.issuer.to_string(), audience: Audience::OfIssuer, claims })
            }
            _ => {
                if asked.iter().all(|condition| is_positive(condition)) {
                    self.note("a native denial about a token meets requests without one as well");
                }
                self.way(issuer, asked)
            }
        };
        let way = way?;
        let limits = !way.claims.is_empty() || way.audience != Audience::OfIssuer;
        Some(vec![limits.then_some(way)])
    }

    fn way(&mut self, issuer: &Issuer, asked: &[&RequestCondition]) -> Option<Jwt> {
        let audience = match (self.rule.effect, issuer.audiences.is_empty()) {
            (Effect::Allow, true) => Audience::Any,
            (Effect::Allow, false) | (Effect::Deny, _) => Audience::OfIssuer,
        };
        let mut jwt = Jwt { issuer: issuer.issuer.to_string(), audience, claims: BTreeMap::new() };
        for condition in asked {
            match self.narrow_token(&mut jwt, condition) {
                Said::Whole => {}
                Said::Partly(message) => self.give_up(&message, ())?,
                Said::Never => return None,
            }
        }
        Some(jwt)
    }

    fn narrow_token(&mut self, jwt: &mut Jwt, condition: &RequestCondition) -> Said {
        match condition {
            RequestCondition::Principal { any_of, sense: Sense::Is } => self.subjects(jwt, any_of),
            RequestCondition::Claim { path, any_of, sense: Sense::Is, split } => {
                let name = path.join(".");
                let Some(values) = self.values(any_of, *split, path) else {
                    return Said::Partly(format!("what is asked of the claim {name} cannot be said"));
                };
                match path.iter().map(|name| &**name).collect::<Vec<_>>().as_slice() {
                    ["iss"] if values.contains(&jwt.issuer) => Said::Whole,
                    ["iss"] => Said::Never,
                    ["aud"] => audiences(jwt, values),
                    ["exp" | "nbf" | "iat"] => Said::Partly(format!("the claim {name} cannot be named")),
                    whole => add_claim(jwt, whole, values),
                }
            }
            _ => Said::Partly("what a token must not be cannot be said".to_owned()),
        }
    }

    fn subjects(&mut self, jwt: &mut Jwt, any_of: &[(TextPattern, TextPattern)]) -> Said {
        let mut subjects: Vec<TextPattern> = Vec::new();
        for (issuer, subject) in any_of {
            if issuer.matches(jwt.issuer.as_bytes()) {
                subjects.push(subject.clone());
            }
        }
        if subjects.is_empty() {
            return Said::Never;
        }
        if subjects.iter().any(is_anything) {
            return match (self.rule.effect, self.assumed().contains(&Assumption::TokensHaveSubjects)) {
                (Effect::Deny, _) => Said::Whole,
                (Effect::Allow, true) => {
                    self.notes.push(format!(
                        "every token of {} is taken to have a subject: one without is granted as well",
                        jwt.issuer
                    ));
                    Said::Whole
                }
                (Effect::Allow, false) => {
                    Said::Partly("that a token has some subject, whichever, cannot be said".to_owned())
                }
            };
        }
        match self.values(&subjects, Split::Whole, &["sub".into()]) {
            Some(values) => add_claim(jwt, &["sub"], values),
            None => Said::Partly("what is asked of the subject cannot be said".to_owned()),
        }
    }

    // Of what is allowed, the values that can be said; of what is denied, all or none.
    fn values(&mut self, any_of: &[TextPattern], split: Split, path: &[Arc<str>]) -> Option<Vec<String>> {
        let spaced = matches!(path, [only] if **only == *"scope");
        let denies = self.rule.effect == Effect::Deny;
        if denies && split == Split::Spaces && !spaced {
            return None;
        }
        let exact = |pattern: &TextPattern| match pattern.pieces() {
            [Piece::Literal(text)] if denies || is_only_text(text, split) => Some(text.to_string()),
            _ => None,
        };
        let values: Vec<String> = any_of.iter().filter_map(exact).collect();
        if values.len() < any_of.len() && !denies && !values.is_empty() {
            self.note("some values of a claim cannot be said");
        }
        let all = values.len() == any_of.len();
        let fits = !values.is_empty() && values.len() <= MAX_CLAIM_VALUES;
        (fits && (all || !denies)).then_some(values)
    }
}

/// The declaration of an issuer, and its key set where it is a file.
pub(super) fn key_file(issuer: &Issuer) -> Option<(String, String)> {
    match &issuer.keys {
        KeySource::Url(_) => None,
        KeySource::Inline(text) => {
            let bare = issuer.issuer.rsplit_once("://").map_or(&*issuer.issuer, |(_, rest)| rest);
            let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '-';
            let name: String =
                bare.chars().take(MAX_STEM).map(|letter| if fits(letter) { letter } else { '-' }).collect();
            // Issuers whose names differ only in what a file name cannot have stay apart.
            let digest = identity::crypto::hex(&identity::crypto::sha256(issuer.issuer.as_bytes()));
            let mark = digest.get(..DIGEST).unwrap_or_default();
            let stem = name.trim_matches(['-', '.']);
            Some((format!("{stem}-{mark}.jwks.json").trim_start_matches('-').to_owned(), text.to_string()))
        }
    }
}

fn is_about_token(condition: &RequestCondition) -> bool {
    match condition {
        RequestCondition::Principal { .. } | RequestCondition::Claim { .. } | RequestCondition::Token(_) => {
            true
        }
        RequestCondition::Method { .. }
        | RequestCondition::Authority { .. }
        | RequestCondition::Path { .. }
        | RequestCondition::Header { .. } => false,
    }
}

fn is_positive(condition: &RequestCondition) -> bool {
    matches!(
        condition,
        RequestCondition::Principal { sense: Sense::Is, .. }
            | RequestCondition::Claim { sense: Sense::Is, .. }
    )
}

// A native rule sees numbers and truths in claims as well, and a scope as a whole; Istio does not.
fn is_only_text(text: &str, split: Split) -> bool {
    !matches!(text, "true" | "false")
        && text.parse::<f64>().is_err()
        && !(split == Split::Spaces && text.contains(' '))
}

fn audiences(jwt: &mut Jwt, values: Vec<String>) -> Said {
    let values = match &jwt.audience {
        Audience::Only(before) => values.into_iter().filter(|value| before.contains(value)).collect(),
        Audience::OfIssuer | Audience::Any => values,
    };
    if values.is_empty() {
        return Said::Partly("two conditions on the audience cannot be said together".to_owned());
    }
    if values.len() > MAX_AUDIENCES {
        return Said::Partly("there are too many audiences".to_owned());
    }
    jwt.audience = Audience::Only(values);
    Said::Whole
}

// Two conditions on one claim are met by two elements of its list.
fn add_claim(jwt: &mut Jwt, path: &[&str], values: Vec<String>) -> Said {
    let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
    let clashes = jwt.claims.keys().any(|other| other.starts_with(&path) || path.starts_with(other));
    if clashes || path.len() > MAX_CLAIM_DEPTH || jwt.claims.len() >= MAX_CLAIMS {
        return Said::Partly(format!("another condition on the claim {} cannot be said", path.join(".")));
    }
    jwt.claims.insert(path, values);
    Said::Whole
}

// Whoever has a token has another subject.
const NOBODY: &str = "nobody";
const MAX_STEM: usize = 64;
const DIGEST: usize = 8;
