//! The claims of a verified token.

use serde_json::{Map, Value};

/// The claims of a token that was verified. Nothing here checks a signature: who makes one vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    values: Map<String, Value>,
}

impl Claims {
    /// The claims of a token whose signature, times and issuer were verified.
    pub fn verified(values: Map<String, Value>) -> Self {
        Self { values }
    }

    /// Who issued the token, if it says so.
    pub fn issuer(&self) -> Option<&str> {
        self.values.get("iss").and_then(Value::as_str)
    }

    /// Whom the token is about, if it says so.
    pub fn subject(&self) -> Option<&str> {
        self.values.get("sub").and_then(Value::as_str)
    }

    /// The value at a path of claim names.
    pub fn at<'c>(&'c self, path: &[impl AsRef<str>]) -> Option<&'c Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.values.get(first.as_ref())?;
        for name in rest {
            value = value.as_object()?.get(name.as_ref())?;
        }
        Some(value)
    }

    /// Shows the texts of a claim: its text, or each text of its list.
    pub fn texts(&self, path: &[impl AsRef<str>], see: &mut dyn FnMut(&str)) {
        match self.at(path) {
            Some(Value::String(text)) => see(text),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).for_each(see),
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        Claims::verified(value.as_object().unwrap().clone())
    }

    fn texts(claims: &Claims, path: &[&str]) -> Vec<String> {
        let mut seen = Vec::new();
        claims.texts(path, &mut |text| seen.push(text.to_owned()));
        seen
    }

    #[test]
    fn texts_are_found_below_other_claims_and_in_lists() {
        let claims = claims(json!({"iss": "i", "realm": {"roles": ["a", 7, "b"]}, "scope": "x y"}));

        assert_eq!(texts(&claims, &["realm", "roles"]), ["a", "b"]);
        assert_eq!(texts(&claims, &["scope"]), ["x y"]);
        assert_eq!((claims.issuer(), claims.subject()), (Some("i"), None));
    }

    #[test]
    fn what_is_not_text_has_no_texts() {
        let claims = claims(json!({"n": 7, "o": {"p": "q"}, "t": true}));

        for path in [&["n"][..], &["o"], &["t"], &["absent"], &["o", "p", "q"], &[]] {
            assert!(texts(&claims, path).is_empty(), "{path:?}");
        }
    }
}
