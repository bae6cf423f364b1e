//! Fetches a key set over HTTPS: bounded in time and bytes, no redirects, TLS 1.3 with the authorities that were
//! configured or those of the host.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, Request, StatusCode, Uri,
    header::{ACCEPT, CACHE_CONTROL, HOST, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use identity::{
    crypto,
    jwt::{KeySet, KeySetError, MAX_SET_BYTES},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{config, transparent::Way};

/// Fetches key sets as the configuration allows.
#[derive(Debug)]
pub(super) struct Fetcher {
    config: config::Jwt,
    way: Way,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the address is not https://HOST/PATH")]
    Address,
    #[error("the address is http:// and the configuration does not say danger_allow_http")]
    Plain,
    #[error("cannot read the trust anchors {path}")]
    Anchors { path: PathBuf, source: io::Error },
    #[error("no trust anchors were found")]
    NoAnchors,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the connection broke")]
    Http(#[source] hyper::Error),
    #[error("the answer is {0}, not 200")]
    Status(StatusCode),
    #[error("the answer is longer than {MAX_SET_BYTES} bytes or broke off")]
    Body,
    #[error("the answer is no key set")]
    Keys(#[source] KeySetError),
    #[error("no answer in time")]
    TimedOut,
}

impl Fetcher {
    pub(super) fn new(config: config::Jwt) -> Self {
        Self { config, way: Way::default() }
    }

    /// Connects as the proxy's own sockets do.
    pub(super) fn by(self, way: Way) -> Self {
        Self { way, ..self }
    }

    /// Fetches the keys and says for how long they are fresh.
    pub(super) async fn fetch(&self, url: &str) -> Result<(KeySet, Duration), FetchError> {
        timeout(TIME, self.exchange(url)).await.map_err(|_| FetchError::TimedOut)?
    }

    async fn exchange(&self, url: &str) -> Result<(KeySet, Duration), FetchError> {
        let address = Address::parse(url, self.config.danger_allow_http)?;
        let socket =
            self.way.connect_host(address.dial(), address.port).await.map_err(FetchError::Connect)?;
        if !address.secure {
            return get(&address, socket).await;
        }
        let name = ServerName::try_from(address.dial().to_owned()).map_err(|_| FetchError::Address)?;
        let config = self.tls().await?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, socket).await;
        get(&address, stream.map_err(FetchError::Connect)?).await
    }

    /// Read anew each time: authorities change while we run.
    async fn tls(&self) -> Result<Arc<rustls::ClientConfig>, FetchError> {
        let paths = match &self.config.trust_anchors {
            Some(path) => vec![path.clone()],
            None => HOST_ANCHORS.iter().map(PathBuf::from).filter(|path| path.exists()).take(1).collect(),
        };
        let mut roots = rustls::RootCertStore::empty();
        for path in paths {
            let read = tokio::fs::read(&path).await;
            let text = read.map_err(|source| FetchError::Anchors { path, source })?;
            // One that this library cannot read leads to nobody.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).filter_map(Result::ok));
        }
        if roots.is_empty() {
            return Err(FetchError::NoAnchors);
        }
        let config = rustls::ClientConfig::builder_with_provider(crypto::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(FetchError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

async fn get(
    address: &Address,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<(KeySet, Duration), FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    let request = Request::get(address.target.as_str())
        .header(HOST, address.authority.as_str())
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, "vouchsafe-proxy")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Address)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let fresh = freshness(response.headers());
        let body = Limited::new(response.into_body(), MAX_SET_BYTES).collect().await;
        let body = body.map_err(|_| FetchError::Body)?.to_bytes();
        KeySet::parse(&body).map(|keys| (keys, fresh)).map_err(FetchError::Keys)
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        found = &mut answer => found,
        // The connection may end before its last bytes have been taken.
        _ = &mut connection => answer.await,
    }
}

/// How long an answer is fresh (RFC 9111 5.2.2.1), within our own bounds.
fn freshness(headers: &HeaderMap) -> Duration {
    let mut directives = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase());
    let age = directives.find_map(|directive| {
        if directive == "no-cache" || directive == "no-store" {
            return Some(0);
        }
        directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok()
    });
    age.map_or(REFRESH, Duration::from_secs).clamp(SHORTEST, LONGEST)
}

/// An address that may be asked.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    secure: bool,
    /// As a URL writes it: an IPv6 address stands in brackets.
    host: String,
    port: u16,
    /// What the `Host` of the request says.
    authority: String,
    target: String,
}

impl Address {
    fn parse(url: &str, plain: bool) -> Result<Self, FetchError> {
        let uri: Uri = url.parse().map_err(|_| FetchError::Address)?;
        let authority = uri.authority().ok_or(FetchError::Address)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if plain => false,
            Some("http") => return Err(FetchError::Plain),
            Some(_) | None => return Err(FetchError::Address),
        };
        // A name and a password in an address end up in logs.
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(FetchError::Address);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(_) | None => authority.port_u16().ok_or(FetchError::Address)?,
        };
        Ok(Self {
            secure,
            host: authority.host().to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            target: uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        })
    }

    /// Returns the host as it is dialled and proved.
    fn dial(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// For name, connection, handshake and answer together.
const TIME: Duration = Duration::from_secs(10);
/// Without a word of the issuer's.
const REFRESH: Duration = Duration::from_secs(300);
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Bytes of the answer's head.
const MAX_HEAD: usize = 64 * 1024;
/// Where systems keep the authorities that the host trusts; the first that is there counts.
pub(crate) const HOST_ANCHORS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

#[cfg(test)]
mod tests;
