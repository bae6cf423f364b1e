//! Policies and accesses as bytes choose them: a byte is one choice, and no bytes are zeros, so that all has an end.
//!
//! The words are few, so that policies and accesses meet; they are put together more freely than in the tests of `policy`.

use serde_json::{Value, json};

use crate::model::{
    Access, AudienceModel, HeadersModel, ISSUERS, JwtModel, KindModel, LayerModel, PolicyModel, RequestModel,
    RuleModel, TokenModel,
};

/// Bytes that are left to choose with.
pub(crate) struct Choices<'b>(pub(crate) &'b [u8]);

impl Choices<'_> {
    pub(crate) fn policies(&mut self) -> Vec<PolicyModel> {
        (0..self.below(6)).map(|number| self.policy(number)).collect()
    }

    pub(crate) fn access(&mut self) -> Access {
        Access {
            to: self.id(),
            from: self.maybe(7, Self::id),
            source: self.one(&SOURCES),
            port: self.port(),
            day: self.below(5).into(),
            sni: self.maybe(6, |choices| choices.one(&NAMES)),
            request: self.maybe(6, Self::request),
        }
    }

    fn policy(&mut self, number: u8) -> PolicyModel {
        PolicyModel {
            name: format!("policy-{number}"),
            protects: self.list(2, Self::id_pattern),
            shadow_until: self.maybe(3, |choices| 1 + u64::from(choices.below(3))),
            allow: self.rules("allow-"),
            deny: self.rules("deny-"),
        }
    }

    fn rules(&mut self, prefix: &str) -> Vec<RuleModel> {
        (0..self.below(5)).map(|number| self.rule(format!("{prefix}{number}"))).collect()
    }

    fn rule(&mut self, name: String) -> RuleModel {
        let (from, layer) = (self.peers(), self.layer());
        let except = self.maybe(2, |choices| choices.list(2, Self::id_pattern)).unwrap_or_default();
        RuleModel {
            name,
            except: if from == ["unauthenticated"] { Vec::new() } else { except },
            from,
            nets: self.maybe(3, |choices| choices.some(&NETS)),
            ports: self.maybe(5, Self::ports),
            sni: self.maybe(2, |choices| choices.some(&NAMES)),
            jwt: self.maybe(2, Self::jwt).filter(|_| !matches!(layer, LayerModel::Tcp)),
            layer,
        }
    }

    fn peers(&mut self) -> Vec<String> {
        match self.below(8) {
            0 => vec!["anyone".to_owned()],
            1 => vec!["unauthenticated".to_owned()],
            2 => {
                let mut peers = self.list(2, Self::id_pattern);
                peers.push("unauthenticated".to_owned());
                peers
            }
            _ => self.list(3, Self::id_pattern),
        }
    }

    fn layer(&mut self) -> LayerModel {
        match self.below(8) {
            0 | 1 => LayerModel::Tcp,
            2..=4 => LayerModel::Http {
                methods: self.maybe(4, |choices| choices.some(&["GET", "POST", "HEAD"])),
                hosts: self.hosts(),
                paths: self.paths(),
                headers: self.wanted(),
            },
            5 => LayerModel::Grpc {
                services: self.maybe(5, |choices| choices.some(&["s.A", "t.B"])),
                methods: self.maybe(4, |choices| choices.some(&["Get", "Put"])),
                hosts: self.hosts(),
                headers: self.wanted(),
            },
            6 => LayerModel::Connect { hosts: self.hosts(), to_ports: self.maybe(5, Self::ports) },
            _ => LayerModel::Upgrade {
                protocols: self.maybe(4, |choices| choices.some(&["websocket", "x/1", "x"])),
                hosts: self.hosts(),
                paths: self.paths(),
                headers: self.wanted(),
            },
        }
    }

    fn hosts(&mut self) -> Option<Vec<String>> {
        self.maybe(3, |choices| choices.some(&HOST_PATTERNS))
    }

    fn paths(&mut self) -> Option<Vec<String>> {
        self.maybe(5, |choices| choices.list(3, Self::path_pattern))
    }

    fn wanted(&mut self) -> HeadersModel {
        if self.below(3) > 0 {
            return Vec::new();
        }
        let chosen = |name: &&str| {
            self.maybe(4, |choices| ((*name).to_owned(), choices.maybe(6, |choices| choices.some(&VALUES))))
        };
        ["x-a", "x-b", "cookie"].iter().filter_map(chosen).collect()
    }

    fn jwt(&mut self) -> JwtModel {
        let (issuer, _) = ISSUERS[usize::from(self.below(2))];
        let audience = match self.below(3) {
            0 => AudienceModel::Unsaid,
            1 => AudienceModel::Any,
            _ => AudienceModel::Only(self.some(&["api", "web"])),
        };
        let claim = |name: &&str| {
            self.maybe(3, |choices| ((*name).to_owned(), choices.some(&["admin", "5", "true", "a b"])))
        };
        let claims = ["role", "scope", "deep.role"].iter().filter_map(claim).collect();
        JwtModel { issuer: issuer.to_owned(), audience, claims }
    }

    fn request(&mut self) -> RequestModel {
        let method = self.one(&["GET", "POST", "HEAD", "get", "CONNECT", "PATCH"]);
        let kind = match self.maybe(2, |choices| choices.one(&PROTOCOLS)) {
            _ if method == "CONNECT" => KindModel::Connect { port: self.maybe(6, Self::port) },
            Some(protocol) => KindModel::Upgrade { protocol },
            None => KindModel::Plain,
        };
        RequestModel {
            method,
            host: self.maybe(6, |choices| choices.one(&HOSTS)),
            path: self.path(),
            kind,
            headers: (0..self.below(4)).map(|_| (self.one(&FIELDS), self.line())).collect(),
            token: self.token(),
        }
    }

    fn token(&mut self) -> TokenModel {
        match self.below(6) {
            0 => TokenModel::Absent,
            1 => TokenModel::Invalid,
            flat => {
                let (issuer, _) = ISSUERS[usize::from(self.below(2))];
                let (audience, role, scope, deep) = (self.claim(), self.claim(), self.claim(), self.claim());
                let deep = if flat == 2 { deep } else { json!({ "role": deep }) };
                TokenModel::Verified(
                    json!({"iss": issuer, "aud": audience, "role": role, "scope": scope, "deep": deep}),
                )
            }
        }
    }

    fn claim(&mut self) -> Value {
        match self.below(8) {
            0 => Value::Null,
            1..=4 => self.plain_claim(),
            5 | 6 => (0..self.below(4)).map(|_| self.plain_claim()).collect(),
            _ => json!([[self.plain_claim()], { "admin": self.plain_claim() }]),
        }
    }

    fn plain_claim(&mut self) -> Value {
        match self.below(12) {
            0 => json!(5),
            1 => json!(5.0),
            2 => json!(5.5),
            3 => json!(true),
            4 => json!({ "admin": 1 }),
            5 => Value::Null,
            _ => json!(self.one(&["admin", "user", "a b", "b admin", "api", "web", "x", "5"])),
        }
    }

    /// A line of a header, in pieces that meet as the bytes have it.
    fn line(&mut self) -> String {
        (0..self.below(6)).map(|_| self.one(&PIECES)).collect()
    }

    fn id(&mut self) -> String {
        self.id_of(&SEGMENTS)
    }

    fn id_pattern(&mut self) -> String {
        let rest = self.maybe(3, |_| "/**").unwrap_or_default();
        self.id_of(&["ns", "x", "y", "*"]) + rest
    }

    fn id_of(&mut self, segments: &[&str]) -> String {
        let domain = self.one(&["spiffe://a.test", "spiffe://a.test", "spiffe://b.test"]);
        (0..self.below(4)).fold(domain, |id, _| id + "/" + &self.one(segments))
    }

    /// A path: one that has another form for rules, or segments.
    fn path(&mut self) -> String {
        match self.below(4) {
            0 => self.one(&RAW_PATHS),
            1 => format!("/{}/{}", self.one(&["s.A", "t.B"]), self.one(&["Get", "Put"])),
            _ => self.path_of(&["a", "b", "c", "A", "*", "a@b"]),
        }
    }

    fn path_pattern(&mut self) -> String {
        let path = self.path_of(&["a", "b", "c", "*", "a@b", "a%20b"]);
        match self.maybe(3, |_| ()) {
            Some(()) => format!("{}/**", path.trim_end_matches('/')),
            None => path,
        }
    }

    fn path_of(&mut self, segments: &[&str]) -> String {
        let path: String = (0..self.below(4)).map(|_| format!("/{}", self.one(segments))).collect();
        if path.is_empty() || self.below(8) == 7 { path + "/" } else { path }
    }

    fn ports(&mut self) -> Vec<(u16, u16)> {
        self.list(2, |choices| {
            let (a, b) = (choices.port(), choices.port());
            if choices.below(2) == 0 { (a, a) } else { (a.min(b), a.max(b)) }
        })
    }

    fn port(&mut self) -> u16 {
        match self.below(4) {
            0 => 1 + u16::from(self.byte()) * 257 % 65_535,
            1 => 7998 + u16::from(self.below(15)),
            _ => PORTS[usize::from(self.below(7))],
        }
    }

    fn some(&mut self, words: &[&str]) -> Vec<String> {
        self.list(2, |choices| choices.one(words))
    }

    fn one(&mut self, words: &[&str]) -> String {
        words[usize::from(self.byte()) % words.len()].to_owned()
    }

    fn list<T>(&mut self, most: u8, draw: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..=self.below(most)).map(|_| draw(self)).collect()
    }

    /// Something in so many of eight cases.
    fn maybe<T>(&mut self, eighths: u8, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(8) >= 8 - eighths).then(|| draw(self))
    }

    fn below(&mut self, end: u8) -> u8 {
        self.byte() % end
    }

    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }
}

const SEGMENTS: [&str; 5] = ["ns", "x", "y", "sa", "xx"];
const NETS: [&str; 9] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "192.0.2.1/32",
    "::ffff:10.1.2.0/120",
    "2001:db8::1/128",
    "128.0.0.0/1",
];
const SOURCES: [&str; 8] = [
    "10.1.2.3",
    "10.2.0.1",
    "192.0.2.1",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "2001:db9::1",
    "203.0.113.9",
    "::1",
];
/// Those that the reference has in its table, and those with nothing to change.
const RAW_PATHS: [&str; 10] =
    ["//a", "/a/./b", "/x/../a", "/%61", "/a%40b", "/a%20b?q=1", "/a%20b", "/s.A/Get/x", "/a/", "/*"];
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
const HOSTS: [&str; 6] = ["a.example", "B.a.Example:80", "example.", "c.example", "10.0.0.1", "x.10.example"];
const HOST_PATTERNS: [&str; 5] = ["a.example", "*.example", "*.a.example", "example", "10.0.0.1"];
const FIELDS: [&str; 5] = ["x-a", "X-A", "x-b", "cookie", "x-c"];
const VALUES: [&str; 5] = ["red", "blue", "a=1", "\"red", "blue\""];
const PIECES: [&str; 9] = ["red", "blue", "a=1", "\"", ",", ";", " ", "RED", "green"];
const PROTOCOLS: [&str; 7] = ["websocket", "WebSocket", "x/1", "websocket, x/1", "websocket/13", "", "x"];
const PORTS: [u16; 7] = [1, 80, 443, 8000, 8005, 8010, 65535];
