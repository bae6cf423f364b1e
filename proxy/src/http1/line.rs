//! The line of a request as policy sees it, as it is forwarded and as it is recorded: one structure for all three.

use http::{Method, Uri, header::HOST, request::Parts};
use policy::{CanonicalHost, CanonicalPath};

use super::flaw::Flaw;

/// Method, host and path in their one accepted form.
#[derive(Debug, Clone)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    pub(crate) host: CanonicalHost,
    pub(crate) target: Target,
    pub(crate) user_agent: Option<String>,
}

/// What a request names.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A path, and how it came where that was different.
    Path { path: CanonicalPath, raw: Option<String> },
    /// A connection to the host (CONNECT).
    Tunnel,
}

impl RequestLine {
    /// Reads the line from a head that the scanner let through.
    pub(crate) fn read(parts: &Parts) -> Result<Self, Flaw> {
        let authority = match parts.uri.authority() {
            Some(authority) => authority.as_str(),
            None => {
                let value = parts.headers.get(HOST).ok_or(Flaw::HostMissing)?;
                value.to_str().map_err(|_| Flaw::HostInvalid)?
            }
        };
        let host = CanonicalHost::parse(authority).map_err(|_| Flaw::HostInvalid)?;
        let target = if parts.method == Method::CONNECT { Target::Tunnel } else { path(&parts.uri)? };
        let user_agent = parts.headers.get(http::header::USER_AGENT).map(|value| {
            String::from_utf8_lossy(value.as_bytes().get(..MAX_USER_AGENT).unwrap_or(value.as_bytes()))
                .into_owned()
        });
        Ok(Self { method: parts.method.clone(), host, target, user_agent })
    }

    /// Returns the path that policy matches; empty for a tunnel, which no path rule can match.
    pub(crate) fn path(&self) -> &str {
        match &self.target {
            Target::Path { path, .. } => path.as_str(),
            Target::Tunnel => "",
        }
    }

    /// Returns the request as policy sees it; none for a tunnel, about which policy has no rules.
    pub(crate) fn as_policy(&self) -> Option<policy::Request<'_>> {
        match &self.target {
            Target::Path { path, .. } => {
                Some(policy::Request::new(self.method.as_str(), Some(&self.host), path))
            }
            Target::Tunnel => None,
        }
    }

    /// Returns the request as the record shows it.
    pub(crate) fn as_audit(&self) -> audit::Http {
        let path_raw = match &self.target {
            Target::Path { raw, .. } => raw.as_ref().map(|raw| raw.clone().into_bytes()),
            Target::Tunnel => None,
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
            Target::Tunnel => Err(Flaw::Target),
        }
    }
}

fn path(uri: &Uri) -> Result<Target, Flaw> {
    let raw = uri.path_and_query().map_or("/", |target| target.as_str());
    let path = CanonicalPath::parse(raw).map_err(Flaw::Path)?;
    let raw = (uri.path() != path.as_str()).then(|| uri.path().to_owned());
    Ok(Target::Path { path, raw })
}

/// What is kept of what a client calls itself.
const MAX_USER_AGENT: usize = 256;
