//! What rules ask of tokens.

use std::sync::Arc;

use serde_json::{Number, Value};

use super::{Absent, Told, any};
use crate::access::Token;
use crate::claims::Claims;
use crate::pattern::TextPattern;

/// Whether a claim that is one text is a list separated by spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    Whole,
    Spaces,
}

/// What a native rule asks of a token.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenLimits {
    pub(crate) issuer: Arc<str>,
    /// One of these audiences; none means any.
    pub(crate) audiences: Vec<Arc<str>>,
    pub(crate) claims: Vec<ClaimLimit>,
    /// What an absent or invalid token, or an absent claim, means.
    pub(crate) absent: Absent,
}

/// The values of which a claim must have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimLimit {
    pub(crate) path: Vec<Arc<str>>,
    pub(crate) values: Vec<Arc<str>>,
}

impl TokenLimits {
    // One token comes with a request: where it is another issuer's, there is none of this one.
    pub(super) fn hold(&self, token: Token<'_>) -> bool {
        let absent = self.absent == Absent::Holds;
        let Token::Verified(claims) = token else { return absent };
        if claims.issuer() != Some(&*self.issuer) {
            return absent;
        }
        self.audience_fits(claims) && self.failing_claim(claims).is_none()
    }

    /// Whether a token of the issuer is for one of the audiences.
    pub(crate) fn audience_fits(&self, claims: &Claims) -> bool {
        let has = || Has::one_of(claims.at(&["aud"]), &self.audiences, false);
        self.audiences.is_empty() || has().counting(self.absent == Absent::Holds)
    }

    /// The first claim of a token of the issuer that is not as it should be.
    pub(crate) fn failing_claim(&self, claims: &Claims) -> Option<&ClaimLimit> {
        self.claims.iter().find(|limit| {
            let has = Has::one_of(claims.at(&limit.path), &limit.values, is_scope(&limit.path));
            !has.counting(self.absent == Absent::Holds)
        })
    }
}

/// Whether the claim is the one that may be a list in one text.
pub(crate) fn is_scope(path: &[Arc<str>]) -> bool {
    matches!(path, [only] if **only == *"scope")
}

/// Whether a claim has one of some values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    Yes,
    No,
    /// There is no claim, or nothing that could be compared.
    Unclear,
}

impl Has {
    // RFC 8693 4.2: `scope` is a list in one text. It is compared whole as well.
    fn one_of(claim: Option<&Value>, values: &[Arc<str>], scope: bool) -> Self {
        let is = |text: &str| values.iter().any(|value| **value == *text);
        match claim {
            None | Some(Value::Null | Value::Object(_)) => Self::Unclear,
            Some(Value::Bool(truth)) => Self::when(is(if *truth { "true" } else { "false" })),
            Some(Value::Number(number)) => Self::when(values.iter().any(|value| same_number(number, value))),
            Some(Value::String(text)) => Self::when(is(text) || scope && text.split(' ').any(is)),
            Some(Value::Array(items)) => items.iter().fold(Self::No, |so_far, item| {
                let item = match item {
                    Value::Array(_) => Self::Unclear,
                    other => Self::one_of(Some(other), values, false),
                };
                match (so_far, item) {
                    (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
                    (Self::Unclear, _) | (_, Self::Unclear) => Self::Unclear,
                    (Self::No, Self::No) => Self::No,
                }
            }),
        }
    }

    fn when(found: bool) -> Self {
        if found { Self::Yes } else { Self::No }
    }

    fn counting(self, unclear: bool) -> bool {
        match self {
            Self::Yes => true,
            Self::No => false,
            Self::Unclear => unclear,
        }
    }
}

/// A value that a claim is compared by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ClaimValue<'v> {
    Text(&'v str),
    Number(f64),
}

/// Shows the values of a claim, one of which must be among those asked for. Answers whether that is all to be said: where there
/// is no claim, or something in it that could not be compared, it is not.
pub(crate) fn each_claim_value(
    claim: Option<&Value>,
    scope: bool,
    see: &mut dyn FnMut(ClaimValue<'_>),
) -> Told {
    match claim {
        None | Some(Value::Null | Value::Object(_)) => return Told::InPart,
        Some(Value::Bool(truth)) => see(ClaimValue::Text(if *truth { "true" } else { "false" })),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(number) => see(ClaimValue::Number(number)),
            None => return Told::InPart,
        },
        Some(Value::String(text)) => {
            see(ClaimValue::Text(text));
            if scope {
                text.split(' ').for_each(|word| see(ClaimValue::Text(word)));
            }
        }
        Some(Value::Array(items)) => {
            let mut told = Told::All;
            for item in items {
                let item = match item {
                    Value::Array(_) => Told::InPart,
                    other => each_claim_value(Some(other), false, see),
                };
                if item == Told::InPart {
                    told = Told::InPart;
                }
            }
            return told;
        }
    }
    Told::All
}

// Numbers are compared as numbers: `5` is what a token may write as `5.0`.
fn same_number(number: &Number, value: &str) -> bool {
    if let Some(whole) = number.as_i64() {
        return value.parse() == Ok(whole);
    }
    if let Some(whole) = number.as_u64() {
        return value.parse() == Ok(whole);
    }
    number.as_f64().is_some_and(|number| value.parse() == Ok(number))
}

pub(super) fn principal(any_of: &[(TextPattern, TextPattern)], token: Token<'_>) -> bool {
    let Token::Verified(claims) = token else { return false };
    let (Some(issuer), Some(subject)) = (claims.issuer(), claims.subject()) else { return false };
    any_of.iter().any(|(wanted_issuer, wanted_subject)| {
        wanted_issuer.matches(issuer.as_bytes()) && wanted_subject.matches(subject.as_bytes())
    })
}

pub(super) fn claim(claims: &Claims, path: &[Arc<str>], any_of: &[TextPattern], split: Split) -> bool {
    // What is a list already is not taken apart.
    if let (Split::Spaces, Some(Value::String(text))) = (split, claims.at(path)) {
        return text.split(' ').any(|word| any(any_of, word.as_bytes()));
    }
    let mut found = false;
    claims.texts(path, &mut |text| found |= any(any_of, text.as_bytes()));
    found
}
