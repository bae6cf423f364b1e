//! `RequestAuthentication`: whose tokens count, where they are looked for, and with which keys they are verified.

use std::sync::Arc;

use identity::jwt::KeySet;

use super::resource::{Metadata, Name};
use super::scope::{Scope, read_scope};
use super::{MAX_ENTRIES, MAX_VALUES, Selected, Weight, plain};
use crate::document::{Issuer, KeySource, Mode, Policy, Stance, TokenPlace};
use crate::mesh::{Compat, Mesh};
use crate::strict::{Fields, Node, Reader, quote};

/// A `RequestAuthentication`.
#[derive(Clone, Debug)]
pub(crate) struct RequestAuthentication {
    pub(crate) name: Name,
    pub(crate) scope: Scope,
    pub(crate) issuers: Vec<Arc<Issuer>>,
}

impl RequestAuthentication {
    /// The policy in the internal form.
    pub(crate) fn selected(&self, mesh: &Mesh) -> Selected {
        // ztunnel sees no requests, so no token either.
        let issuers = match mesh.compat {
            Compat::Sidecar => self.issuers.clone(),
            Compat::Ambient => Vec::new(),
        };
        Selected {
            policy: Policy { issuers, ..plain(&self.name, Stance::Open, Mode::Enforce) },
            scope: self.scope.clone(),
            weight: Weight::Watches,
        }
    }
}

/// Reads a `spec`.
pub(super) fn read(
    metadata: Metadata,
    spec: &Node,
    mesh: &Mesh,
    read: &mut Reader<'_>,
) -> Option<RequestAuthentication> {
    let mut fields = read.map(spec)?;
    let scope = read_scope(&mut fields, &metadata.name, mesh, read);
    let issuers = match fields.optional("jwtRules") {
        Some(node) => read.each(node, MAX_ENTRIES, |read, item| read_rule(item, read)),
        None => Some(Vec::new()),
    };
    fields.finish(read);
    if mesh.compat == Compat::Ambient {
        let cure = "read the files as those of sidecars, or remove it";
        read.warn(
            metadata.name.at,
            "tokens are not looked at in ambient mode: ztunnel sees no requests",
            cure,
        );
    }
    Some(RequestAuthentication { name: metadata.name, scope: scope?, issuers: issuers? })
}

fn read_rule(node: &Node, read: &mut Reader<'_>) -> Option<Arc<Issuer>> {
    let mut fields = read.map(node)?;
    let issuer = fields.required("issuer", read).and_then(|node| read.string(node));
    let audiences = match fields.optional("audiences") {
        Some(node) => read.strings(node, MAX_VALUES),
        None => Some(Vec::new()),
    };
    let keys = read_keys(&mut fields, read);
    let places = read_places(&mut fields, read);
    let forward = match fields.optional("forwardOriginalToken") {
        Some(node) => read.boolean(node),
        None => Some(false),
    };
    let mut refused = false;
    for (key, why) in UNSUPPORTED {
        refused |= fields.misplaced(key, why, "remove it: it would not be done", read);
    }
    fields.finish(read);
    if refused {
        return None;
    }
    Some(Arc::new(Issuer {
        issuer: issuer?.into(),
        audiences: audiences?.into_iter().map(Arc::from).collect(),
        keys: keys?,
        places: places?,
        forward: forward?,
        refuses_invalid: true,
        accepts_endless: true,
    }))
}

fn read_keys(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<KeySource> {
    match (fields.optional("jwks"), fields.optional("jwksUri")) {
        (Some(node), None) => read_inline(node, read),
        (None, Some(node)) => {
            let url = read.string(node)?;
            if url.starts_with("https://") {
                return Some(KeySource::Url(url.into()));
            }
            let message = format!("{} does not begin with \"https://\"", quote(url));
            let cure = "whoever is on the way could put keys of their own; fetch them by TLS";
            read.problem(node, message, Some(cure));
            None
        }
        (Some(_), Some(uri)) => {
            read.problem(uri, "\"jwks\" and \"jwksUri\" are both given", Some("keep one of the two"));
            None
        }
        (None, None) => {
            let cure = "add \"jwksUri\"; keys are not looked for at the issuer".to_owned();
            read.place(fields.span(), "there are neither \"jwks\" nor \"jwksUri\"", Some(cure));
            None
        }
    }
}

fn read_inline(node: &Node, read: &mut Reader<'_>) -> Option<KeySource> {
    let text = read.text(node)?;
    if let Err(error) = KeySet::parse(text.as_bytes()) {
        let cure = "a key set is {\"keys\": […]} with the public keys of the issuer (RFC 7517)";
        read.problem(node, format!("\"jwks\" is no key set: {error}"), Some(cure));
        return None;
    }
    Some(KeySource::Inline(text.into()))
}

// Where nothing is said, Istio looks at the usual header and at the parameter of RFC 6750 2.3.
fn read_places(fields: &mut Fields<'_>, read: &mut Reader<'_>) -> Option<Vec<TokenPlace>> {
    let headers = match fields.optional("fromHeaders") {
        Some(node) => read.each(node, MAX_ENTRIES, read_header),
        None => Some(Vec::new()),
    };
    let mut named = |key, place: fn(Arc<str>) -> TokenPlace| match fields.optional(key) {
        Some(node) => {
            let names = read.strings(node, MAX_ENTRIES)?;
            Some(names.into_iter().map(|name| place(name.into())).collect())
        }
        None => Some(Vec::new()),
    };
    let parameters = named("fromParams", TokenPlace::Parameter);
    let cookies = named("fromCookies", TokenPlace::Cookie);
    let places = [headers?, parameters?, cookies?].concat();
    if !places.is_empty() {
        return Some(places);
    }
    let bearer = TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() };
    Some(vec![bearer, TokenPlace::Parameter("access_token".into())])
}

fn read_header(read: &mut Reader<'_>, node: &Node) -> Option<TokenPlace> {
    let mut fields = read.map(node)?;
    let name = fields.required("name", read).and_then(|node| read.string(node));
    let prefix = match fields.optional("prefix") {
        Some(node) => read.string(node),
        None => Some(""),
    };
    fields.finish(read);
    Some(TokenPlace::Header { name: name?.to_ascii_lowercase().into(), prefix: prefix?.into() })
}

const UNSUPPORTED: [(&str, &str); 4] = [
    ("outputPayloadToHeader", "is not supported: claims are not handed on in headers"),
    ("outputClaimToHeaders", "is not supported: claims are not handed on in headers"),
    ("spaceDelimitedClaims", "is not supported: only \"scope\" and \"permission\" are taken apart at spaces"),
    ("timeout", "is not supported: fetching keys has a time limit of its own"),
];
