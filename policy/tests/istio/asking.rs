//! Accesses in one line: `PEER tcp PORT` or `PEER METHOD PORT PATH`, then `key=value`.
//!
//! The peer is a service account of the namespace `shop`, a SPIFFE ID without its scheme, or `-` for one that proved nothing. Keys are `host`,
//! `h.NAME` for a header (once for each line of it), `jwt` for claims, `token=bad`, `ip`, `to` and `sni`.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use identity::SpiffeId;
use policy::strict::Source;
use policy::{
    CanonicalHost, CanonicalPath, Claims, Connection, Decision, Mesh, Options, PeerIdentity, PolicySet,
    Request, Token, Workload, compile_with, istio_path,
};

/// What is expected in the two modes: `allow`, or the reason of the denial.
#[derive(Debug)]
pub(crate) enum Mode {
    /// The same in both.
    Both(&'static str),
    /// One for sidecars, the other for ztunnel.
    Differs(&'static str, &'static str),
}

/// The policies of files of the test data.
pub(crate) fn set(files: &[&str], mesh: &Mesh) -> PolicySet {
    let sources: Vec<Source> = files.iter().map(|file| source(file)).collect();
    let options = Options { mesh: mesh.clone(), ..Options::default() };
    compile_with(&sources, &options).unwrap_or_else(|problems| panic!("{files:?}: {problems}"))
}

/// A file of the test data.
pub(crate) fn source(file: &str) -> Source {
    let path = format!("{}/tests/istio/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
    Source::new(format!("{file}.yaml"), std::fs::read_to_string(&path).expect(file))
}

/// The workload that rows are about.
pub(crate) fn workload() -> Workload {
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/api").unwrap();
    let labels = [("app", "api"), ("version", "v1")];
    Workload {
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Workload::of(&id)
    }
}

/// `allow`, or the reason of a denial; with what a dry run would have refused.
pub(crate) fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Allow(allowed) => match &allowed.shadow {
            Some(shadow) => format!("allow, not {}", shadow.reason),
            None => "allow".to_owned(),
        },
        Decision::Deny(denial) => denial.reason.to_string(),
    }
}

/// An access.
#[derive(Debug)]
pub(crate) struct Asked {
    peer: Option<SpiffeId>,
    port: u16,
    http: Option<(String, String)>,
    host: Option<String>,
    headers: Vec<(String, String)>,
    claims: Option<Claims>,
    bad_token: bool,
    source: IpAddr,
    destination: Option<IpAddr>,
    sni: Option<String>,
}

impl Asked {
    pub(crate) fn parse(line: &str) -> Self {
        let mut words = line.split(' ');
        let (peer, kind, port) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let http = (kind != "tcp").then(|| (kind.to_owned(), words.next().unwrap().to_owned()));
        let mut asked = Self {
            peer: peer_of(peer),
            port: port.parse().unwrap(),
            http,
            host: None,
            headers: Vec::new(),
            claims: None,
            bad_token: false,
            source: "192.0.2.1".parse().unwrap(),
            destination: None,
            sni: None,
        };
        words.for_each(|word| asked.take(word));
        asked
    }

    fn take(&mut self, word: &str) {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{word}"));
        match key {
            "host" => self.host = Some(value.to_owned()),
            "jwt" => {
                let claims: serde_json::Value = serde_json::from_str(value).expect(value);
                self.claims = Some(Claims::verified(claims.as_object().unwrap().clone()));
            }
            "token" => self.bad_token = value == "bad",
            "ip" => self.source = value.parse().unwrap(),
            "to" => self.destination = Some(value.parse().unwrap()),
            "sni" => self.sni = Some(value.to_owned()),
            _ => {
                let name = key.strip_prefix("h.").unwrap_or_else(|| panic!("{word}"));
                self.headers.push((name.to_owned(), value.to_owned()));
            }
        }
    }

    pub(crate) fn put(&self, set: &PolicySet, mesh: &Mesh) -> Decision {
        self.put_to(set, mesh, &workload())
    }

    /// Decides the access in both ways that there are, which must agree.
    pub(crate) fn put_to(&self, set: &PolicySet, mesh: &Mesh, workload: &Workload) -> Decision {
        let policies = set.protecting(workload);
        let peer = match &self.peer {
            Some(id) => PeerIdentity::Authenticated(id),
            None => PeerIdentity::Unauthenticated,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let connection = Connection {
            destination: self.destination,
            sni: self.sni.as_deref(),
            ..Connection::new(peer, self.source, self.port, now)
        };
        let Some((method, raw)) = &self.http else { return policies.decide_tcp(&connection) };
        let path = CanonicalPath::parse(raw).unwrap_or_else(|_| CanonicalPath::parse("/").unwrap());
        let host = self.host.as_deref().and_then(|host| CanonicalHost::parse(host).ok());
        let text = istio_path(mesh.path_normalization, raw);
        let request = Request {
            authority: self.host.as_deref(),
            text: &text,
            headers: &self.headers,
            token: match &self.claims {
                _ if self.bad_token => Token::Invalid,
                Some(claims) => Token::Verified(claims),
                None => Token::Absent,
            },
            ..Request::new(method, host.as_ref(), &path)
        };
        let whole = policies.decide_http(&connection, &request);
        if let policy::AtConnect::Residual(residual) = policies.at_connect(&connection) {
            assert_eq!(residual.decide(&request, now), whole, "{self:?}");
        } else {
            assert!(!whole.is_allowed(), "{self:?}");
        }
        whole
    }
}

fn peer_of(word: &str) -> Option<SpiffeId> {
    let id = match word {
        "-" => return None,
        _ if word.contains('/') => format!("spiffe://{word}"),
        _ => format!("spiffe://cluster.local/ns/shop/sa/{word}"),
    };
    Some(SpiffeId::parse(&id).unwrap())
}
