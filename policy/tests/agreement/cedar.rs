//! The same policies in Cedar, a language whose meaning others have proved, and the same accesses as its requests.
//!
//! What Cedar has no words for, a segment between wildcards, or every value of a list, is worked out before and lent to it as
//! attributes; which rule matches, and what beats what, is Cedar's to say.

use std::collections::HashSet;
use std::fmt::Write;
use std::net::IpAddr;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression,
};
use serde_json::Value;

use crate::model::{
    Access, AudienceModel, HeadersModel, ISSUERS, JwtModel, KindModel, LayerModel, PolicyModel, RequestModel,
    RuleModel, TokenModel,
};
use crate::reference::{lines, pieces, plain_path, readings};

/// Policies in Cedar, compiled.
pub(crate) struct Cedar {
    policies: PolicySet,
    authorizer: Authorizer,
    entities: Entities,
}

impl Cedar {
    pub(crate) fn new(policies: &[PolicyModel]) -> Self {
        let mut text = String::new();
        for policy in policies {
            let day = policy.shadow_until.unwrap_or(0);
            let protects = any(policy.protects.iter().map(|pattern| name("to", pattern)));
            let head = format!("context.day >= {day} && {protects}");
            for rule in &policy.allow {
                let rule = Rule { model: rule, allows: true };
                writeln!(text, "permit(principal, action, resource) when {{ {head} && {} }};", rule.text())
                    .unwrap();
            }
            for rule in &policy.deny {
                let rule = Rule { model: rule, allows: false };
                writeln!(text, "forbid(principal, action, resource) when {{ {head} && {} }};", rule.text())
                    .unwrap();
            }
        }
        let policies = text.parse().unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        Self { policies, authorizer: Authorizer::new(), entities: Entities::empty() }
    }

    /// Whether the access is allowed. Errors in evaluation would make Cedar skip a policy, so there must be none.
    pub(crate) fn allows(&self, access: &Access) -> bool {
        let one = |text: &str| text.parse::<EntityUid>().unwrap();
        let request = Request::new(
            one("Peer::\"one\""),
            one("Action::\"reach\""),
            one("Workload::\"one\""),
            context(access),
            None,
        );
        let answer = self.authorizer.is_authorized(&request.unwrap(), &self.policies, &self.entities);
        let errors: Vec<String> = answer.diagnostics().errors().map(ToString::to_string).collect();
        assert!(errors.is_empty(), "{errors:?}");
        answer.decision() == Decision::Allow
    }
}

struct Rule<'m> {
    model: &'m RuleModel,
    allows: bool,
}

impl Rule<'_> {
    fn text(&self) -> String {
        let mut all = vec![self.peer(), self.layer()];
        if let Some(nets) = &self.model.nets {
            all.push(any(nets
                .iter()
                .map(|net| format!("context.source.isInRange(ip({}))", quoted(&plain_net(net))))));
        }
        if let Some(ports) = &self.model.ports {
            all.push(in_ports("context.port", ports));
        }
        if let Some(names) = &self.model.sni {
            all.push(self.unless_absent("context has sni", format!("{}.contains(context.sni)", set(names))));
        }
        if let Some(jwt) = &self.model.jwt {
            all.push(format!("(context.layer == \"tcp\" || {})", self.token(jwt)));
        }
        every(all)
    }

    /// What is absent grants nothing, and escapes no denial.
    fn unless_absent(&self, there: &str, then: String) -> String {
        if self.allows { format!("({there} && {then})") } else { format!("(!({there}) || {then})") }
    }

    fn peer(&self) -> String {
        let says = |word: &str| self.model.from.iter().any(|peer| peer == word);
        let named = any(self
            .model
            .from
            .iter()
            .filter(|peer| peer.contains("://"))
            .map(|pattern| name("from", pattern)));
        let spared = any(self.model.except.iter().map(|pattern| name("from", pattern)));
        let known = format!("({} || {named}) && !{spared}", says("anyone"));
        let unknown = says("unauthenticated") || says("anyone") && !self.allows;
        format!("(if context has from then {known} else {unknown})")
    }

    fn layer(&self) -> String {
        let LayerModel::Tcp = self.model.layer else {
            let seen = every(self.request());
            return match self.allows {
                true => format!("(context.layer == \"http\" && {seen})"),
                // What cannot be seen is refused.
                false => format!("(context.layer == \"tcp\" || {seen})"),
            };
        };
        if self.allows { "context.layer == \"tcp\"".to_owned() } else { "true".to_owned() }
    }

    fn request(&self) -> Vec<String> {
        let plain = || if self.allows { "context.kind == \"plain\"" } else { "true" }.to_owned();
        match &self.model.layer {
            LayerModel::Tcp => Vec::new(),
            LayerModel::Http { methods, hosts, paths, headers } => {
                let method =
                    methods.as_ref().map(|methods| format!("{}.contains(context.method)", set(methods)));
                let mut all = vec![plain(), self.hosts(hosts), self.paths(paths)];
                all.extend(method);
                all.extend(self.headers(headers));
                all
            }
            LayerModel::Grpc { services, methods, hosts, headers } => {
                let one = |names: &Option<Vec<String>>, at: &str| match names {
                    Some(names) => format!("{}.contains({at})", set(names)),
                    None => format!("{at} != \"\""),
                };
                let call = format!(
                    "context has path && context.path.n == 2 && {} && {}",
                    one(services, "context.path.s0"),
                    one(methods, "context.path.s1")
                );
                let mut all = vec![plain(), "context.method == \"POST\"".to_owned(), call, self.hosts(hosts)];
                all.extend(self.headers(headers));
                all
            }
            LayerModel::Connect { hosts, to_ports } => {
                let ports = to_ports.as_ref().map(|ports| {
                    self.unless_absent("context has to_port", in_ports("context.to_port", ports))
                });
                let mut all = vec!["context.kind == \"connect\"".to_owned(), self.hosts(hosts)];
                all.extend(ports);
                all
            }
            LayerModel::Upgrade { protocols, hosts, paths, headers } => {
                let protocol = protocols.as_ref().map(|protocols| match self.allows {
                    true => format!("{}.containsAll(context.protocols)", set(protocols)),
                    false => format!(
                        "(context.protocols.contains(\"\") || context.protocols_without_versions.containsAny({0}) || \
                         context.protocols.containsAny({0}))",
                        set(protocols)
                    ),
                });
                let mut all = vec!["context.kind == \"upgrade\"".to_owned()];
                all.extend(protocol);
                all.extend([self.hosts(hosts), self.paths(paths)]);
                all.extend(self.headers(headers));
                all
            }
        }
    }

    fn hosts(&self, hosts: &Option<Vec<String>>) -> String {
        let Some(hosts) = hosts else { return "true".to_owned() };
        let one = |host: &String| match host.strip_prefix("*.") {
            Some(parent) => format!("context.host_parent == {}", quoted(parent)),
            None => format!("context.host == {}", quoted(host)),
        };
        self.unless_absent("context has host", any(hosts.iter().map(one)))
    }

    fn paths(&self, paths: &Option<Vec<String>>) -> String {
        let Some(paths) = paths else { return "true".to_owned() };
        self.unless_absent("context has path", any(paths.iter().map(|path| name("path", path))))
    }

    fn headers(&self, headers: &HeadersModel) -> Vec<String> {
        let one = |(name, values): &(String, Option<Vec<String>>)| {
            let at = format!("context.headers[{}]", quoted(name));
            match (values, self.allows) {
                (None, _) => format!("!{at}.values.isEmpty()"),
                (Some(values), true) => {
                    format!("!{at}.values.isEmpty() && {}.containsAll({at}.values)", set(values))
                }
                (Some(values), false) => format!("{at}.readings.containsAny({})", set(values)),
            }
        };
        headers.iter().map(one).collect()
    }

    fn token(&self, jwt: &JwtModel) -> String {
        let mut all = Vec::new();
        match &jwt.audience {
            AudienceModel::Only(audiences) => all.push(self.claim("aud", audiences)),
            // Where the rule names no audience, the declaration of the issuer does.
            AudienceModel::Any | AudienceModel::Unsaid if self.allows => {
                let declared = ISSUERS.iter().find(|(issuer, _)| *issuer == jwt.issuer).unwrap().1;
                let declared: Vec<String> = declared.iter().map(|name| (*name).to_owned()).collect();
                all.push(self.claim("aud", &declared));
            }
            AudienceModel::Any | AudienceModel::Unsaid => {}
        }
        all.extend(jwt.claims.iter().map(|(claim, values)| self.claim(claim, values)));
        let there = format!("context has token && context.token.issuer == {}", quoted(&jwt.issuer));
        self.unless_absent(&there, every(all))
    }

    fn claim(&self, claim: &str, values: &[String]) -> String {
        let at = format!("context.token[{}]", quoted(claim));
        let has = format!("{at}.texts.containsAny({})", set(values));
        if self.allows { has } else { format!("({has} || {at}.unclear)") }
    }
}

/// A pattern of segments: by `like` where that says the same, else segment by segment.
fn name(attribute: &str, pattern: &str) -> String {
    let at = format!("context.{attribute}");
    let text = pattern.strip_prefix("spiffe://").or(pattern.strip_prefix('/')).unwrap();
    let (steps, rest) = match text.strip_suffix("**") {
        Some("") => return "true".to_owned(),
        Some(steps) => (steps.strip_suffix('/').unwrap(), true),
        None => (text, false),
    };
    if !steps.contains('*') {
        let exact = format!("{at}.text == {}", quoted(steps));
        return if rest {
            format!("({exact} || {at}.text like {})", quoted(&format!("{steps}/*")))
        } else {
            exact
        };
    }
    let steps: Vec<&str> = steps.split('/').collect();
    let count = format!("{at}.n {} {}", if rest { ">=" } else { "==" }, steps.len());
    let one = |(number, step): (usize, &&str)| match *step {
        "*" => format!("{at}.s{number} != \"\""),
        step => format!("{at}.s{number} == {}", quoted(step)),
    };
    every(std::iter::once(count).chain(steps.iter().enumerate().map(one)).collect())
}

fn in_ports(at: &str, ports: &[(u16, u16)]) -> String {
    any(ports.iter().map(|(low, high)| format!("({at} >= {low} && {at} <= {high})")))
}

/// IPv4 networks mapped into IPv6 as what they mean, which Cedar does not know.
fn plain_net(net: &str) -> String {
    match net.strip_prefix("::ffff:").and_then(|net| net.split_once('/')) {
        Some((address, bits)) => format!("{address}/{}", bits.parse::<u8>().unwrap() - 96),
        None => net.to_owned(),
    }
}

fn any(conditions: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = conditions.collect();
    if all.is_empty() { "false".to_owned() } else { format!("({})", all.join(" || ")) }
}

fn every(conditions: Vec<String>) -> String {
    if conditions.is_empty() { "true".to_owned() } else { format!("({})", conditions.join(" && ")) }
}

fn set(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn context(access: &Access) -> Context {
    let source: IpAddr = access.source.parse().unwrap();
    let mut all = vec![
        ("day", RestrictedExpression::new_long(i64::try_from(access.day).unwrap())),
        ("to", segments(access.to.strip_prefix("spiffe://").unwrap())),
        ("port", RestrictedExpression::new_long(access.port.into())),
        ("source", RestrictedExpression::new_ip(source.to_canonical().to_string())),
        ("layer", text(if access.request.is_some() { "http" } else { "tcp" })),
    ];
    all.extend(access.from.as_ref().map(|id| ("from", segments(id.strip_prefix("spiffe://").unwrap()))));
    all.extend(access.sni.as_ref().map(|name| ("sni", text(name))));
    if let Some(request) = &access.request {
        all.extend(of_request(request));
    }
    Context::from_pairs(all.into_iter().map(|(key, value)| (key.to_owned(), value))).unwrap()
}

fn of_request(request: &RequestModel) -> Vec<(&'static str, RestrictedExpression)> {
    let mut all = vec![("method", text(&request.method)), ("headers", headers(request))];
    match &request.kind {
        KindModel::Plain => all.push(("kind", text("plain"))),
        KindModel::Connect { port } => {
            all.push(("kind", text("connect")));
            all.extend(port.map(|port| ("to_port", RestrictedExpression::new_long(port.into()))));
        }
        KindModel::Upgrade { protocol } => {
            let names: HashSet<String> = protocol.split(',').map(|name| name.trim().to_lowercase()).collect();
            let bare = names.iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
            all.extend([
                ("kind", text("upgrade")),
                ("protocols", texts(names)),
                ("protocols_without_versions", texts(bare)),
            ]);
        }
    }
    if !matches!(request.kind, KindModel::Connect { .. }) {
        all.push(("path", segments(plain_path(&request.path).strip_prefix('/').unwrap())));
    }
    if let Some(host) = &request.host {
        let host = host.to_lowercase();
        let host = host.strip_suffix(":80").unwrap_or(&host);
        let host = host.strip_suffix('.').unwrap_or(host);
        let parent =
            if host == "10.0.0.1" { "" } else { host.split_once('.').map_or("", |(_, parent)| parent) };
        all.extend([("host", text(host)), ("host_parent", text(parent))]);
    }
    if let TokenModel::Verified(claims) = &request.token {
        let mut token = vec![("issuer".to_owned(), text(claims["iss"].as_str().unwrap()))];
        token.push(("aud".to_owned(), claim(&claims["aud"], false)));
        token.push(("role".to_owned(), claim(&claims["role"], false)));
        token.push(("scope".to_owned(), claim(&claims["scope"], true)));
        token.push(("deep.role".to_owned(), claim(&claims["deep"]["role"], false)));
        all.push(("token", RestrictedExpression::new_record(token).unwrap()));
    }
    all
}

fn headers(request: &RequestModel) -> RestrictedExpression {
    let one = |name: &str| {
        let values = lines(request, name).iter().flat_map(|line| pieces(name, line)).collect();
        let readings = readings(request, name).into_iter().collect();
        let record = [("values".to_owned(), texts(values)), ("readings".to_owned(), texts(readings))];
        (name.to_owned(), RestrictedExpression::new_record(record).unwrap())
    };
    RestrictedExpression::new_record(["x-a", "x-b", "cookie"].map(one)).unwrap()
}

fn claim(claim: &Value, scope: bool) -> RestrictedExpression {
    let mut found = HashSet::new();
    let unclear = read_claim(claim, scope, &mut found);
    let unclear = RestrictedExpression::new_bool(unclear);
    RestrictedExpression::new_record([("texts".to_owned(), texts(found)), ("unclear".to_owned(), unclear)])
        .unwrap()
}

/// Collects what a claim says as texts; whether some of it is nothing that could be compared.
fn read_claim(claim: &Value, scope: bool, found: &mut HashSet<String>) -> bool {
    match claim {
        Value::Null | Value::Object(_) => return true,
        Value::Bool(truth) => found.insert(truth.to_string()),
        Value::Number(number) => found.insert(number.as_f64().unwrap().to_string()),
        Value::String(text) => {
            found.extend(text.split(' ').filter(|_| scope).map(str::to_owned));
            found.insert(text.clone())
        }
        Value::Array(items) => {
            return items.iter().fold(false, |unclear, item| {
                let one = if item.is_array() { true } else { read_claim(item, false, found) };
                unclear || one
            });
        }
    };
    false
}

/// A name with its segments.
fn segments(name: &str) -> RestrictedExpression {
    let all: Vec<&str> = name.split('/').collect();
    let mut record = vec![
        ("text".to_owned(), text(name)),
        ("n".to_owned(), RestrictedExpression::new_long(i64::try_from(all.len()).unwrap())),
    ];
    record.extend((0..6).map(|number| (format!("s{number}"), text(all.get(number).unwrap_or(&"")))));
    RestrictedExpression::new_record(record).unwrap()
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn texts(texts: HashSet<String>) -> RestrictedExpression {
    RestrictedExpression::new_set(texts.into_iter().map(RestrictedExpression::new_string))
}
