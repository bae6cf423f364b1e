//! The line of a request as policy sees it, as it is forwarded and as it is recorded: one structure for all three.

use std::sync::{Arc, OnceLock};

use http::{
    Method, Uri,
    header::{HOST, USER_AGENT},
    request::Parts,
};
use policy::{CanonicalHost, CanonicalPath, RequestKind, Token};

use super::{
    fields::{Fields, Lines},
    flaw::Flaw,
    headers,
};
use crate::{jwt::Presented, telemetry::Span};

/// Method, host and path in their one accepted form, and the fields that go on.
#[derive(Debug, Clone)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    pub(crate) host: CanonicalHost,
    pub(crate) target: Target,
    /// The host as it is forwarded, port included.
    authority: String,
    /// The protocol that is to follow on the connection, in lower case.
    upgrade: Option<String>,
    fields: Fields,
    /// What the token of the request proved when it was decided.
    presented: OnceLock<Arc<Presented>>,
    /// Its place in a trace, once somebody watches it.
    span: OnceLock<Option<Span>>,
}

/// What a request names.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A path, and how it came where that was different.
    Path { path: CanonicalPath, raw: Option<String> },
    /// A connection to the host (CONNECT). It names no path; rules about paths are asked about the root.
    Tunnel { root: CanonicalPath },
}

impl RequestLine {
    /// Reads the line from a head that the scanner let through, and leaves only the fields that are forwarded.
    pub(crate) fn read(parts: &mut Parts) -> Result<Self, Flaw> {
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => {
                let value = parts.headers.get(HOST).ok_or(Flaw::HostMissing)?;
                value.to_str().map_err(|_| Flaw::HostInvalid)?
            }
        };
        let host = CanonicalHost::parse(authority).map_err(|_| Flaw::HostInvalid)?;
        let target = if parts.method == Method::CONNECT {
            tunnel()?
        } else {
            Target::path(parts.uri.path_and_query().map_or("/", |target| target.as_str()))?
        };
        let upgrade = headers::wanted_upgrade(&parts.headers);
        Ok(Self::of_map(parts, host, target, upgrade))
    }

    /// Reads the line of an extended CONNECT (RFC 8441), which names a path and the protocol that is to follow.
    pub(crate) fn read_extended(parts: &mut Parts, protocol: &str) -> Result<Self, Flaw> {
        let authority = parts.uri.authority().ok_or(Flaw::HostMissing)?;
        let host = CanonicalHost::parse(authority.as_str()).map_err(|_| Flaw::HostInvalid)?;
        let target = Target::path(parts.uri.path_and_query().map_or("/", |target| target.as_str()))?;
        Ok(Self::of_map(parts, host, target, Some(protocol.to_ascii_lowercase())))
    }

    fn of_map(parts: &mut Parts, host: CanonicalHost, target: Target, upgrade: Option<String>) -> Self {
        // Not as it came: `a.test.` goes on as `a.test`, and a rule about that one must see it.
        let authority = host.to_string();
        // First, so that policy sees no field that the application does not.
        headers::clean_request(&mut parts.headers);
        headers::set_host(&mut parts.headers, &authority);
        let (method, fields) = (parts.method.clone(), Fields::new(&parts.headers));
        Self {
            method,
            host,
            target,
            authority,
            upgrade,
            fields,
            presented: OnceLock::new(),
            span: OnceLock::new(),
        }
    }

    /// Puts a line together from what was read of it.
    pub(super) fn of_lines(
        method: Method,
        host: CanonicalHost,
        target: Target,
        authority: String,
        (upgrade, lines): (Option<String>, Lines),
    ) -> Self {
        let (fields, presented) = (Fields::of_lines(lines), OnceLock::new());
        Self { method, host, target, authority, upgrade, fields, presented, span: OnceLock::new() }
    }

    /// Keeps the place of the request in a trace, and that it is watched. The first word stays; returns whether it is this one.
    pub(crate) fn keep_span(&self, span: Option<Span>) -> bool {
        self.span.set(span).is_ok()
    }

    /// Returns the place of the request in a trace; none where nobody watches it.
    pub(crate) fn span(&self) -> Option<Option<Span>> {
        self.span.get().copied()
    }

    /// Returns the path that policy matches; empty for a tunnel, which no path rule can match.
    pub(crate) fn path(&self) -> &str {
        match &self.target {
            Target::Path { path, .. } => path.as_str(),
            Target::Tunnel { .. } => "",
        }
    }

    /// Returns the request as policy sees it.
    pub(crate) fn as_policy<'a>(&'a self, presented: &'a Presented) -> policy::Request<'a> {
        let path = match &self.target {
            Target::Path { path, .. } | Target::Tunnel { root: path } => path,
        };
        policy::Request {
            method: self.method.as_str(),
            host: Some(&self.host),
            path,
            kind: self.kind(),
            authority: Some(&self.authority),
            // What is forwarded, whatever a mesh compares elsewhere: the application sees nothing else.
            text: path.as_str(),
            headers: &self.fields,
            token: match presented {
                Presented::Absent => Token::Absent,
                Presented::Invalid(_) => Token::Invalid,
                Presented::Verified(proven) => Token::Verified(proven.claims()),
            },
        }
    }

    /// Returns what is asked of the connection.
    pub(crate) fn kind(&self) -> RequestKind<'_> {
        match (&self.target, &self.upgrade) {
            (Target::Tunnel { .. }, _) => RequestKind::Connect { port: self.host.port() },
            (Target::Path { .. }, Some(protocol)) => RequestKind::Upgrade { protocol },
            (Target::Path { .. }, None) => RequestKind::Plain,
        }
    }

    /// Returns what is asked for beside an answer, as a record names it.
    pub(crate) fn beyond(&self) -> Option<&'static str> {
        match self.kind() {
            RequestKind::Plain => None,
            RequestKind::Upgrade { .. } => Some("upgrade"),
            RequestKind::Connect { .. } => Some("connect"),
        }
    }

    /// Returns the protocol that the request asks to go on with.
    pub(super) fn upgrade(&self) -> Option<&str> {
        self.upgrade.as_deref()
    }

    /// Returns the host as it is forwarded, port included.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Returns the header fields as they go on.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Returns the query of the target, without its question mark.
    pub(crate) fn query(&self) -> Option<&str> {
        match &self.target {
            Target::Path { path, .. } => path.query(),
            Target::Tunnel { .. } => None,
        }
    }

    /// Returns what the request's token proved when the request was decided.
    pub(crate) fn presented(&self) -> Option<&Arc<Presented>> {
        self.presented.get()
    }

    /// Keeps what the request's token proved. The first word stays.
    pub(crate) fn keep_presented(&self, presented: Arc<Presented>) {
        // A second word would be that of another decision about the same request.
        let _ = self.presented.set(presented);
    }

    /// Returns the request as the record shows it.
    pub(crate) fn as_audit(&self) -> audit::Http {
        let path_raw = match &self.target {
            Target::Path { raw, .. } => raw.as_ref().map(|raw| raw.clone().into_bytes()),
            Target::Tunnel { .. } => None,
        };
        audit::Http {
            method: self.method.as_str().to_owned(),
            host: self.host.as_str().to_owned(),
            path: self.path().to_owned(),
            user_agent: self.user_agent(),
            path_raw,
        }
    }

    /// Returns what the client calls itself, cut short.
    fn user_agent(&self) -> Option<String> {
        let value = self.fields.first(USER_AGENT.as_str())?;
        Some(String::from_utf8_lossy(value.get(..MAX_USER_AGENT).unwrap_or(value)).into_owned())
    }

    /// Returns the target to forward: the canonical path and the query as it came.
    pub(crate) fn forwarded(&self) -> Result<Uri, Flaw> {
        match &self.target {
            Target::Path { path, .. } => Uri::try_from(path.target().as_ref()).map_err(|_| Flaw::Target),
            Target::Tunnel { .. } => Err(Flaw::Target),
        }
    }
}

fn tunnel() -> Result<Target, Flaw> {
    CanonicalPath::parse("/").map(|root| Target::Tunnel { root }).map_err(Flaw::Path)
}

impl Target {
    /// Reads a path and its query.
    pub(super) fn path(target: &str) -> Result<Self, Flaw> {
        let path = CanonicalPath::parse(target).map_err(Flaw::Path)?;
        let came = target.split('?').next().unwrap_or_default();
        let raw = (came != path.as_str()).then(|| came.to_owned());
        Ok(Self::Path { path, raw })
    }
}

/// What is kept of what a client calls itself.
const MAX_USER_AGENT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_sees_the_host_that_is_forwarded_and_no_other_spelling_of_it() {
        for (came, goes) in [
            ("Admin.Test.", "admin.test"),
            ("admin.test.:8443", "admin.test:8443"),
            ("[0:0::1]:80", "[::1]:80"),
            ("admin.test", "admin.test"),
        ] {
            let request = http::Request::get("/").header(HOST, came).body(()).unwrap();
            let mut parts = request.into_parts().0;

            let line = RequestLine::read(&mut parts).unwrap();

            assert_eq!(line.as_policy(&Presented::Absent).authority, Some(goes));
            assert_eq!(parts.headers[HOST], goes);
        }
    }
}
