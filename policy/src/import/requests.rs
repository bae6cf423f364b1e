//! What a rule says about requests, as native words.

use std::sync::Arc;

use super::Assumption;
use super::rules::{Work, is_anything};
use crate::document::{
    Effect, HeaderReading, HttpLimits, Limit, MAX_HEADER_VALUES, MAX_HEADERS, RequestCondition, Sense,
};
use crate::pattern::{HostPattern, PathPattern, Piece, TextPattern};

/// What a native rule says about requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Http {
    pub(super) methods: Option<Vec<String>>,
    pub(super) hosts: Option<Vec<String>>,
    pub(super) paths: Option<Vec<String>>,
    pub(super) headers: Vec<(String, Option<Vec<String>>)>,
}

impl Work<'_> {
    /// The words; nothing where the rule allows something that they cannot say.
    pub(super) fn http(&mut self, limits: &HttpLimits) -> Option<Http> {
        let mut http = Http { methods: self.methods(&limits.methods)?, ..Http::default() };
        let rule = self.rule;
        for condition in &rule.at_request {
            match condition {
                RequestCondition::Path { any_of, sense: Sense::Is } => {
                    let paths = self.paths(any_of)?;
                    match (&http.paths, paths) {
                        (_, None) => {}
                        (None, paths) => http.paths = paths,
                        (Some(_), Some(_)) => {
                            self.give_up("two conditions on the path cannot be said together", ())?
                        }
                    }
                }
                RequestCondition::Authority { any_of, sense: Sense::Is } => {
                    http.hosts = self.hosts(any_of)?;
                }
                RequestCondition::Header { name, any_of, reading } => {
                    let again = http.headers.iter().any(|(named, _)| *named == **name);
                    if again || http.headers.len() >= MAX_HEADERS {
                        self.give_up("another condition on a header cannot be said", ())?;
                    } else if let Some(header) = self.header(name, any_of, *reading)? {
                        http.headers.push(header);
                    }
                }
                RequestCondition::Path { .. } | RequestCondition::Authority { .. } => {
                    self.give_up("paths and hosts that are not meant cannot be said", ())?;
                }
                RequestCondition::Method { any_of, sense } => {
                    http.methods = self.known_methods(http.methods, any_of, *sense)?;
                }
                RequestCondition::Principal { .. }
                | RequestCondition::Claim { .. }
                | RequestCondition::Token(_) => {}
            }
        }
        Some(http)
    }

    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names methods"
    )]
    fn methods(&mut self, methods: &Limit<Arc<str>>) -> Option<Option<Vec<String>>> {
        let Limit::Only(methods) = methods else { return Some(None) };
        let plain = |text: &str| {
            text != "CONNECT"
                && text.len() <= MAX_METHOD
                && !text.is_empty()
                && text.bytes().all(|byte| {
                    byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
                })
        };
        let kept: Vec<String> = methods.iter().filter(|text| plain(text)).map(ToString::to_string).collect();
        if kept.len() == methods.len() {
            return Some(Some(kept));
        }
        match (self.rule.effect, kept.is_empty()) {
            (Effect::Allow, false) => {
                self.note("methods in small letters and CONNECT cannot be said");
                Some(Some(kept))
            }
            (Effect::Allow, true) | (Effect::Deny, _) => {
                self.give_up("methods in small letters and CONNECT cannot be said", None)
            }
        }
    }

    // Beside those that are registered there are others, of which a native rule can say none.
    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names methods"
    )]
    fn known_methods(
        &mut self,
        before: Option<Vec<String>>,
        any_of: &[TextPattern],
        sense: Sense,
    ) -> Option<Option<Vec<String>>> {
        if sense == Sense::Is && any_of.iter().any(is_anything) {
            return Some(before);
        }
        let fits = |method: &str| {
            any_of.iter().any(|pattern| pattern.matches(method.as_bytes())) == (sense == Sense::Is)
        };
        if let Some(before) = before {
            let both: Vec<String> = before.into_iter().filter(|method| fits(method)).collect();
            return (!both.is_empty()).then_some(Some(both));
        }
        let kept: Vec<String> =
            REGISTERED.iter().filter(|method| fits(method)).map(|method| (*method).to_owned()).collect();
        let registered_only = self.assumed().contains(&Assumption::RegisteredMethods);
        if self.rule.effect == Effect::Deny && !registered_only {
            return self.give_up("methods other than those that are named cannot be said", None);
        }
        let rest = match self.rule.effect {
            Effect::Allow => "granted",
            Effect::Deny => "denied",
        };
        self.notes.push(format!("the methods are read as {}: others are not {rest}", kept.join(", ")));
        (!kept.is_empty()).then_some(Some(kept))
    }

    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names paths"
    )]
    fn paths(&mut self, any_of: &[TextPattern]) -> Option<Option<Vec<String>>> {
        let mut all = Vec::new();
        for pattern in any_of {
            if is_anything(pattern) {
                return Some(None);
            }
            match self.path(pattern) {
                Some(paths) => all.extend(paths),
                None if self.rule.effect == Effect::Allow => {
                    self.note(&format!("the path {pattern} cannot be said"));
                }
                None => return self.give_up(&format!("the path {pattern} cannot be said"), None),
            }
        }
        (!all.is_empty()).then_some(Some(all))
    }

    fn path(&mut self, pattern: &TextPattern) -> Option<Vec<String>> {
        let mut text = String::new();
        let (last, before) = pattern.pieces().split_last()?;
        for piece in before {
            match piece {
                Piece::Literal(literal) if !literal.contains('*') => text.push_str(literal),
                Piece::NonEmptySegmentRun => text.push('*'),
                Piece::Literal(_) | Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun => return None,
            }
        }
        let paths = match last {
            Piece::Literal(literal) if !literal.contains('*') => vec![format!("{text}{literal}")],
            Piece::NonEmptySegmentRun => vec![format!("{text}*")],
            Piece::Run if text == "/" => vec!["/**".to_owned()],
            // `/a/` and what is below it, but not `/a`.
            Piece::Run if text.ends_with('/') => vec![text.clone(), format!("{text}*/**")],
            Piece::Run if text.starts_with('/') => self.torn(pattern, &text)?,
            Piece::Literal(_) | Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun => return None,
        };
        paths.iter().all(|path| PathPattern::parse(path).is_ok()).then_some(paths)
    }

    // A prefix that ends within a segment.
    fn torn(&mut self, pattern: &TextPattern, text: &str) -> Option<Vec<String>> {
        let whole = || vec![format!("{text}/**")];
        let (effect, by_segments) = (self.rule.effect, self.assumed().contains(&Assumption::WholeSegments));
        let (paths, told) = match (effect, by_segments) {
            (Effect::Allow, _) => {
                (whole(), format!("read as {text} and what is below it, {text}x is not granted"))
            }
            (Effect::Deny, true) => {
                (whole(), format!("read as {text} and what is below it, {text}x is no longer denied"))
            }
            (Effect::Deny, false) => {
                let (parent, _) = text.rsplit_once('/')?;
                (
                    vec![format!("{parent}/**")],
                    format!(
                        "what is below {parent}/ is denied as a whole (--whole-segments reads it as whole segments)"
                    ),
                )
            }
        };
        self.notes.push(format!(
            "{pattern} ends within a segment, and means {text}x as well; native patterns have whole segments: {told}"
        ));
        Some(paths)
    }

    // Istio compares the port as well, a native rule never.
    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names hosts"
    )]
    fn hosts(&mut self, any_of: &[TextPattern]) -> Option<Option<Vec<String>>> {
        let meant: Vec<Meant> = any_of.iter().map(meant).collect();
        let any_port = self.assumed().contains(&Assumption::AnyHostPort);
        let twin =
            |name: &str| meant.iter().any(|other| matches!(other, Meant::Ported(host) if host == name));
        let bare = |name: &str| meant.iter().any(|other| matches!(other, Meant::Bare(host) if host == name));
        let mut hosts: Vec<String> = Vec::new();
        let mut lost = false;
        for meant in &meant {
            let (name, said) = match (self.rule.effect, meant) {
                (Effect::Deny, Meant::Bare(name) | Meant::Ported(name) | Meant::OnePort(name)) => {
                    (name, true)
                }
                (Effect::Allow, Meant::Bare(name)) => (name, any_port || twin(name)),
                (Effect::Allow, Meant::Below(name)) => (name, any_port),
                // Its twin says it; alone it is less than the native host.
                (Effect::Allow, Meant::Ported(name)) => (name, any_port || bare(name)),
                (Effect::Deny, Meant::Below(name)) | (Effect::Allow, Meant::OnePort(name)) => (name, false),
                (_, Meant::Other) => {
                    lost = true;
                    continue;
                }
            };
            lost |= !said;
            if said && !hosts.contains(name) {
                hosts.push(name.clone());
            }
        }
        self.tell_of_hosts(&hosts, lost, any_port, twin);
        match (self.rule.effect, lost) {
            (Effect::Deny, true) => self.give_up("the hosts cannot be said", None),
            (Effect::Allow, _) | (Effect::Deny, false) => (!hosts.is_empty()).then_some(Some(hosts)),
        }
    }

    fn tell_of_hosts(&mut self, hosts: &[String], lost: bool, any_port: bool, twin: impl Fn(&str) -> bool) {
        let widened = hosts.iter().any(|host| !twin(host));
        match self.rule.effect {
            Effect::Deny if !lost && widened => self.notes.push(
                "Istio compares the port of the host as well; the native rule denies the host with any port"
                    .to_owned(),
            ),
            Effect::Allow if any_port && widened => self.notes.push(
                "Istio compares the port of the host as well; the native rule grants the host with any port"
                    .to_owned(),
            ),
            Effect::Allow | Effect::Deny => {}
        }
        if lost && self.rule.effect == Effect::Allow {
            self.note("Istio compares the port of the host as well; a host without its twin \"host:*\" cannot be said");
        }
    }

    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names headers"
    )]
    fn header(
        &mut self,
        name: &str,
        any_of: &[TextPattern],
        reading: HeaderReading,
    ) -> Option<Option<(String, Option<Vec<String>>)>> {
        let positive = match reading {
            HeaderReading::Joined(sense) | HeaderReading::JoinedOrAny(sense) => sense == Sense::Is,
            HeaderReading::Every | HeaderReading::Any => true,
        };
        let values: Option<Vec<String>> = any_of
            .iter()
            .map(|pattern| match pattern.pieces() {
                [Piece::Literal(text)] if !text.contains(',') && text.trim() == &**text => {
                    Some(text.to_string())
                }
                _ => None,
            })
            .collect();
        let present = any_of.iter().any(is_anything);
        match (positive, present, values) {
            (true, true, _) => Some(Some((name.to_owned(), None))),
            (true, false, Some(values)) if values.len() <= MAX_HEADER_VALUES => {
                self.notes.push(format!(
                    "Istio compares the lines of the header {name} joined by commas, a native rule each value"
                ));
                Some(Some((name.to_owned(), Some(values))))
            }
            _ => self.give_up(&format!("what is asked of the header {name} cannot be said"), None),
        }
    }
}

/// What a text about hosts means, without its port.
enum Meant {
    /// The host, without a port.
    Bare(String),
    /// The host, with one port.
    OnePort(String),
    /// The host, with any port.
    Ported(String),
    /// What is below a domain, as a native pattern: with one label.
    Below(String),
    Other,
}

fn meant(pattern: &TextPattern) -> Meant {
    let host = |text: &str| {
        let lower = text.to_ascii_lowercase();
        HostPattern::parse(&lower).is_ok().then_some(lower)
    };
    let found = match pattern.pieces() {
        [Piece::Literal(text)] => match text.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => host(name).map(Meant::OnePort),
            Some(_) | None => host(text).map(Meant::Bare),
        },
        [Piece::Literal(start), Piece::Run] => start.strip_suffix(':').and_then(host).map(Meant::Ported),
        [Piece::Run, Piece::Literal(end)] if end.starts_with('.') => {
            host(&format!("*{end}")).map(Meant::Below)
        }
        _ => None,
    };
    found.unwrap_or(Meant::Other)
}

// RFC 9110 9.3 and RFC 5789, without CONNECT.
const REGISTERED: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"];

const MAX_METHOD: usize = 32;
