//! Promises of fetching keys, kept against a real HTTPS server with an authority of its own.

use std::{path::Path, time::SystemTime};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    http1::RequestLine,
    jwt::testing::{ISSUER, Signer, claims},
    metrics::Metrics,
    state::State,
    testing::eventually,
};

/// A server with a certificate for `localhost` that answers every request with the same bytes.
struct Site {
    directory: TempDir,
    port: u16,
}

impl Site {
    async fn new(answer: String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = server(&directory.path().join("ca.pem"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(acceptor.clone(), socket, answer.clone()));
            }
        });
        Self { directory, port }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}/keys?a=b", self.port)
    }

    fn config(&self) -> config::Jwt {
        config::Jwt { trust_anchors: Some(self.directory.path().join("ca.pem")), danger_allow_http: false }
    }

    async fn fetch(&self) -> Result<(KeySet, Duration), FetchError> {
        Fetcher::new(self.config()).fetch(&self.url()).await
    }
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, socket: TcpStream, answer: String) {
    let Ok(mut stream) = acceptor.accept(socket).await else { return };
    let mut request = [0; 4096];
    let read = stream.read(&mut request).await.unwrap_or(0);
    let asked = String::from_utf8_lossy(&request[..read]).into_owned();
    assert!(asked.starts_with("GET /keys?a=b HTTP/1.1\r\nhost: localhost:"), "{asked}");
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn server(anchors: &Path) -> Arc<rustls::ServerConfig> {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap();
    std::fs::write(anchors, root.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, authority)).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    Arc::new(config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap())
}

fn answer(status: &str, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{fields}\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_are_fetched_from_a_server_that_the_configured_authority_vouches_for() {
    let keys = Signer::new("one").keys();
    let site = Site::new(answer("200 OK", "cache-control: public, max-age=600\r\n", &keys)).await;

    let (fetched, fresh) = site.fetch().await.unwrap();

    assert_eq!(fetched.keys()[0].id(), Some("one"));
    assert_eq!(fresh, Duration::from_secs(600));
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_or_of_another_name_is_not_asked() {
    let keys = Signer::new("one").keys();
    let (site, other) =
        (Site::new(answer("200 OK", "", &keys)).await, Site::new(answer("200 OK", "", &keys)).await);

    let unknown = Fetcher::new(other.config()).fetch(&site.url()).await;
    let host = Fetcher::new(config::Jwt::default()).fetch(&site.url()).await;
    let renamed = site.url().replace("localhost", "127.0.0.1");
    let renamed = Fetcher::new(site.config()).fetch(&renamed).await;

    assert!(matches!(unknown, Err(FetchError::Connect(_))), "{unknown:?}");
    assert!(matches!(host, Err(FetchError::Connect(_) | FetchError::NoAnchors)), "{host:?}");
    assert!(matches!(renamed, Err(FetchError::Connect(_))), "{renamed:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_key_set_is_refused() {
    let keys = Signer::new("one").keys();
    let long = format!("{}{}", keys, " ".repeat(MAX_SET_BYTES));
    let cut = answer("200 OK", "", &keys).replace("\r\n\r\n{", "\r\n\r\n{\"a\":1,");
    let answers = [
        ("redirect", answer("302 Found", "location: https://localhost/keys\r\n", &keys)),
        ("not found", answer("404 Not Found", "", &keys)),
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("long", answer("200 OK", "", &long)),
        ("cut", cut),
        ("no json", answer("200 OK", "", "<html>")),
        ("empty set", answer("200 OK", "", "{\"keys\":[]}")),
        ("secret", answer("200 OK", "", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AA\"}]}")),
        ("no http", "SSH-2.0-OpenSSH\r\n".to_owned()),
        ("nothing", String::new()),
    ];

    for (name, answer) in answers {
        let outcome = Site::new(answer).await.fetch().await;
        assert!(outcome.is_err(), "{name}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = config::Jwt { danger_allow_http: true, ..config::Jwt::default() };

    let outcome = Fetcher::new(config).fetch(&format!("http://127.0.0.1:{port}/")).await;

    assert!(matches!(outcome, Err(FetchError::TimedOut)), "{outcome:?}");
}

#[tokio::test]
async fn plain_http_is_spoken_only_where_the_configuration_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let answer = answer("200 OK", "", &Signer::new("one").keys());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await;
        socket.write_all(answer.as_bytes()).await.unwrap();
    });
    let plain = config::Jwt { danger_allow_http: true, ..config::Jwt::default() };

    let refused = Fetcher::new(config::Jwt::default()).fetch(&url).await;
    let spoken = Fetcher::new(plain).fetch(&url).await;

    assert!(matches!(refused, Err(FetchError::Plain)), "{refused:?}");
    assert!(spoken.is_ok(), "{spoken:?}");
}

#[test]
fn only_addresses_that_name_a_host_and_no_user_are_asked() {
    for url in [
        "",
        "keys",
        "/keys",
        "ftp://a/keys",
        "file:///etc/passwd",
        "https://",
        "https:///keys",
        "https://user:password@a/keys",
        "https://a:99999/keys",
        "https://a b/keys",
        "HTTPS//a",
    ] {
        assert!(matches!(Address::parse(url, true), Err(FetchError::Address)), "{url}");
    }
    let six = Address::parse("https://[::1]:8443", false).unwrap();
    assert_eq!((six.dial(), six.port, six.target.as_str()), ("::1", 8443, "/"));
    assert_eq!(Address::parse("https://login.test/a/b?c", false).unwrap().port, 443);
}

#[test]
fn answers_are_fresh_as_long_as_they_say_within_bounds() {
    for (value, seconds) in [
        ("", 300),
        ("public", 300),
        ("max-age=600", 600),
        ("Public, MAX-AGE=900", 900),
        ("max-age=\"900\"", 900),
        ("max-age=0", 60),
        ("no-cache", 60),
        ("no-store, max-age=900", 60),
        ("max-age=31536000", 3600),
        ("max-age=-1", 300),
        ("s-maxage=10", 300),
        ("max-age=99999999999999999999", 300),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, value.parse().unwrap());
        assert_eq!(freshness(&headers).as_secs(), seconds, "{value:?}");
    }
}

#[tokio::test]
async fn a_declared_issuer_has_its_keys_fetched_and_its_tokens_verified_from_then_on() {
    let signer = Signer::new("one");
    let site = Site::new(answer("200 OK", "", &signer.keys())).await;
    let (state, metrics) = (Arc::new(State::default()), Arc::new(Metrics::new()));
    let keeping = tokio::spawn(crate::jwt::run(Arc::clone(&state), site.config(), Way::default(), metrics));
    let issuer = Arc::new(policy::Issuer {
        issuer: ISSUER.into(),
        audiences: Vec::new(),
        keys: policy::KeySource::Url(site.url().into()),
        places: vec![policy::TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() }],
        forward: true,
        refuses_invalid: true,
        accepts_endless: false,
    });
    let request = http::Request::get("/").header("host", "web");
    let request = request.header("authorization", format!("Bearer {}", signer.token(&claims())));
    let line = RequestLine::read(&mut request.body(()).unwrap().into_parts().0).unwrap();

    let accepted = state.tokens().accept_all([issuer].iter());

    assert_eq!(accepted.judge(&line, SystemTime::now()).outcome(), Some("no_keys"));
    let verified = async || {
        let outcome = accepted.judge(&line, SystemTime::now()).outcome();
        (outcome == Some("verified")).then_some(())
    };
    assert!(eventually(verified).await.is_some());
    keeping.abort();
}
