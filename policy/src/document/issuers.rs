//! Who may issue the tokens that rules ask for, and where the keys are.

use std::sync::Arc;

use super::linking::{Declared, Found, KeyFiles, SUFFIX};
use super::read::quoted;
use super::tokens::{read_text, read_texts};
use super::{MAX_AUDIENCES, MAX_ISSUERS};
use crate::host::CanonicalHost;
use crate::strict::{Fields, Node, Reader};

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

/// What a file says under `issuers`.
#[derive(Default)]
pub(super) struct Declarations {
    pub(super) issuers: Vec<Declared>,
    pub(super) key_files: Vec<String>,
}

/// Reads the list under `issuers`; key sets in files stand beside the file `beside`.
pub(super) fn read_issuers(
    node: &Node,
    beside: &str,
    keys: &KeyFiles,
    read: &mut Reader<'_>,
) -> Option<Declarations> {
    let mut key_files = Vec::new();
    let issuers = read.each(node, MAX_ISSUERS, |read, item| {
        let mut fields = read.map(item)?;
        let issuer = fields.required("issuer", read).and_then(|node| read_text(read, node));
        let audiences = match fields.optional("audiences") {
            Some(node) => read_texts(node, MAX_AUDIENCES, read),
            None => Some(Vec::new()),
        };
        fields.misplaced("audience", "is a list here", "write audiences: […]", read);
        fields.misplaced("jwks", "is no key of ours", "write keys: {file: …} or keys: {url: …}", read);
        let source = fields.required("keys", read).and_then(|node| read_keys(node, beside, keys, read));
        fields.finish(read);
        let (source, file) = source?;
        key_files.extend(file);
        let issuer = Issuer {
            issuer: issuer?.into(),
            audiences: audiences?,
            keys: source,
            places: vec![bearer()],
            // The application may want to know who calls, and the token was meant for it.
            forward: true,
            refuses_invalid: false,
            accepts_endless: false,
        };
        Some(Declared { issuer: Arc::new(issuer), at: item.span() })
    })?;
    Some(Declarations { issuers, key_files })
}

// RFC 6750 2.1: the only way of sending a token that every client has.
fn bearer() -> TokenPlace {
    TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() }
}

fn read_keys(
    node: &Node,
    beside: &str,
    keys: &KeyFiles,
    read: &mut Reader<'_>,
) -> Option<(KeySource, Option<String>)> {
    let mut fields = read.map(node)?;
    let source = take_source(&mut fields, read);
    fields.finish(read);
    match source? {
        (KeyPlace::File, node) => {
            let name = read_file_name(node, read)?;
            let set = read_key_file(node, name, beside, keys, read)?;
            Some((KeySource::Inline(set), Some(name.to_owned())))
        }
        (KeyPlace::Url, node) => Some((KeySource::Url(read_url(node, read)?), None)),
    }
}

enum KeyPlace {
    File,
    Url,
}

fn take_source<'n>(fields: &mut Fields<'n>, read: &mut Reader<'_>) -> Option<(KeyPlace, &'n Node)> {
    match (fields.optional("file"), fields.optional("url")) {
        (Some(file), None) => Some((KeyPlace::File, file)),
        (None, Some(url)) => Some((KeyPlace::Url, url)),
        (Some(_), Some(url)) => {
            read.problem(url, "\"file\" and \"url\" are both given", Some("keep one of the two"));
            None
        }
        (None, None) => {
            let cure = "add \"file: NAME.json\" or \"url: https://…\"".to_owned();
            read.place(fields.span(), "the keys come from nowhere", Some(cure));
            None
        }
    }
}

// A plain name cannot lead out of the directory, nor to what editors and mounts keep there.
fn read_file_name<'n>(node: &'n Node, read: &mut Reader<'_>) -> Option<&'n str> {
    let name = read.string(node)?;
    let cure = if name.contains(['/', '\\']) || name.starts_with('.') {
        "put the file beside the policy and write its name alone"
    } else if !name.ends_with(SUFFIX) || name.len() > MAX_FILE_NAME {
        "the names of key sets end in .json"
    } else {
        return Some(name);
    };
    read.problem(node, format!("{} is not the name of a key set", quoted(name)), Some(cure));
    None
}

fn read_key_file(
    node: &Node,
    name: &str,
    beside: &str,
    keys: &KeyFiles,
    read: &mut Reader<'_>,
) -> Option<Arc<str>> {
    match keys.find(name, beside) {
        Found::Set(text) => Some(Arc::clone(text)),
        Found::Refused => {
            read.problem(node, format!("{} is no key set", quoted(name)), None);
            None
        }
        Found::Nothing { near } => {
            let cure = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "put the file beside the policy".to_owned(),
            };
            read.problem(node, format!("there is no key set {}", quoted(name)), Some(&cure));
            None
        }
    }
}

// Keys that anybody on the way could replace would prove nothing, so there is no other scheme.
fn read_url(node: &Node, read: &mut Reader<'_>) -> Option<Arc<str>> {
    let text = read.string(node)?;
    let Some(rest) = text.strip_prefix("https://") else {
        let message = format!("{} does not begin with https://", quoted(text));
        read.problem(node, message, Some("keys are fetched over TLS only"));
        return None;
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end)?;
    let why = match CanonicalHost::parse(authority) {
        Err(error) => Some(error.to_string()),
        Ok(_) if !target.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Some("it has a space or a letter outside ASCII".to_owned())
        }
        Ok(_) if target.contains('#') => Some("it has a fragment".to_owned()),
        Ok(_) if text.len() > MAX_URL => Some(format!("it is longer than {MAX_URL} bytes")),
        Ok(_) => None,
    };
    match why {
        None => Some(text.into()),
        Some(why) => {
            read.problem(node, format!("{} is not the address of a key set: {why}", quoted(text)), None);
            None
        }
    }
}

/// Longest name of a key set.
const MAX_FILE_NAME: usize = 255;

/// Longest address of a key set.
const MAX_URL: usize = 2048;

#[cfg(test)]
mod tests;
