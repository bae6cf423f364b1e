//! Who may issue the tokens that rules ask for, and where the keys are.

use std::sync::Arc;

/// An issuer of tokens that a workload accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub issuer: Arc<str>,
    /// The audiences of which a token must name one; none means that the issuer's declaration does not care.
    pub audiences: Vec<Arc<str>>,
    /// Its keys.
    pub keys: KeySource,
    /// Where its tokens are looked for.
    pub places: Vec<TokenPlace>,
    /// Whether the token goes on to the application.
    pub forward: bool,
    /// Whether a request with a token that does not verify is refused at once, as Istio does, or is one without a token.
    pub refuses_invalid: bool,
    /// Whether a token without `exp` is accepted, as Istio does.
    pub accepts_endless: bool,
}

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set, written in the file or beside it.
    Inline(Arc<str>),
    /// A JWK set to be fetched.
    Url(Arc<str>),
}

/// Where a token is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenPlace {
    /// A header field, and what stands before the token in it.
    Header {
        /// The name, in lower case.
        name: Arc<str>,
        /// What stands before the token.
        prefix: Arc<str>,
    },
    /// A parameter of the query.
    Parameter(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}
