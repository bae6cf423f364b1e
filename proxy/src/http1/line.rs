//! The line of a request as policy sees it, as it is forwarded and as it is recorded: one structure for all three.

use std::sync::{Arc, OnceLock};

use http::{Method, Uri, header::HOST, request::Parts};
use policy::{CanonicalHost, CanonicalPath, RequestKind, Token};

use super::{fields::Fields, flaw::Flaw, headers};
use crate::jwt::Presented;

/// Method, host and path in their one accepted form, and the fields that go on.
#[derive(Debug, Clone)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    pub(crate) host: CanonicalHost,
    pub(crate) target: Target,
    pub(crate) user_agent: Option<String>,
    /// The host as it is forwarded, port included.
    authority: String,
    /// The protocol that is to follow on the connection, in lower case.
    upgrade: Option<String>,
    fields: Fields,
    /// What the token of the request proved when it was decided.
    presented: OnceLock<Arc<Presented>>,
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
        let target = if parts.method == Method::CONNECT { tunnel()? } else { path(&parts.uri)? };
        let user_agent = parts.headers.get(http::header::USER_AGENT).map(|value| {
            String::from_utf8_lossy(value.as_bytes().get(..MAX_USER_AGENT).unwrap_or(value.as_bytes()))
                .into_owned()
        });
        // Not as it came: `a.test.` goes on as `a.test`, and a rule about that one must see it.
        let (authority, upgrade) = (host.to_string(), headers::wanted_upgrade(&parts.headers));
        // First, so that policy sees no field that the application does not.
        headers::clean_request(&mut parts.headers);
        headers::set_host(&mut parts.headers, &authority);
        Ok(Self {
            method: parts.method.clone(),
            authority,
            host,
            target,
            user_agent,
            upgrade,
            fields: Fields::new(&parts.headers),
            presented: OnceLock::new(),
        })
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

    /// Returns what is asked for that no listener carries, as the record names it.
    pub(crate) fn beyond(&self) -> Option<&'static str> {
        match self.kind() {
            RequestKind::Plain => None,
            RequestKind::Upgrade { .. } => Some("upgrade"),
            RequestKind::Connect { .. } => Some("connect"),
        }
    }

    /// Returns the header fields as they came.
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
            user_agent: self.user_agent.clone(),
            path_raw,
        }
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

fn path(uri: &Uri) -> Result<Target, Flaw> {
    let raw = uri.path_and_query().map_or("/", |target| target.as_str());
    let path = CanonicalPath::parse(raw).map_err(Flaw::Path)?;
    let raw = (uri.path() != path.as_str()).then(|| uri.path().to_owned());
    Ok(Target::Path { path, raw })
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
