//! What a rule says about requests, as native words.

use std::sync::Arc;

use super::rules::{MAX_RANGES, Work, is_anything};
use crate::document::{Effect, HeaderReading, HttpLimits, Limit, RequestCondition, Sense};
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
                    if let Some(header) = self.header(name, any_of, *reading)? {
                        http.headers.push(header);
                    }
                }
                RequestCondition::Path { .. } | RequestCondition::Authority { .. } => {
                    self.give_up("paths and hosts that are not meant cannot be said", ())?;
                }
                RequestCondition::Method { .. } => self.give_up("the methods cannot be said", ())?,
                RequestCondition::Principal { .. }
                | RequestCondition::Claim { .. }
                | RequestCondition::Token(_) => {
                    self.give_up("what is asked of the token is not rewritten: write it under jwt", ())?;
                }
            }
        }
        if rule.effect == Effect::Allow {
            self.notes.push(
                "tunnels and upgrades are not granted by http; write connect or upgrade for them".to_owned(),
            );
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
                && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
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
            // `/a/` and what is below it, but not `/a`.
            Piece::Run if text.ends_with('/') => vec![text.clone(), format!("{text}*/**")],
            Piece::Run if text.starts_with('/') => {
                self.notes.push(format!("{pattern} ends within a segment, and means {text}x as well; native patterns have whole segments"));
                match (self.rule.effect, text.rsplit_once('/')) {
                    (Effect::Allow, _) => vec![format!("{text}/**")],
                    (Effect::Deny, Some((parent, _))) => vec![format!("{parent}/**")],
                    (Effect::Deny, None) => return None,
                }
            }
            Piece::Literal(_) | Piece::Run | Piece::NonEmptyRun | Piece::SegmentRun => return None,
        };
        paths.iter().all(|path| PathPattern::parse(path).is_ok()).then_some(paths)
    }

    // Istio compares the port as well, a native rule never.
    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names hosts"
    )]
    fn hosts(&mut self, any_of: &[TextPattern]) -> Option<Option<Vec<String>>> {
        let literal = |pattern: &TextPattern| match pattern.pieces() {
            [Piece::Literal(text)] => Some(text.to_ascii_lowercase()),
            _ => None,
        };
        let with_port = |host: &str| {
            any_of.iter().any(|pattern| match pattern.pieces() {
                [Piece::Literal(start), Piece::Run] => start.to_ascii_lowercase() == format!("{host}:"),
                _ => false,
            })
        };
        let exact: Vec<String> = any_of.iter().filter_map(literal).filter(|host| is_host(host)).collect();
        let rest = any_of.iter().filter(|pattern| match pattern.pieces() {
            [Piece::Literal(_)] => false,
            [Piece::Literal(start), Piece::Run] => !exact.iter().any(|host| **start == *format!("{host}:")),
            _ => true,
        });
        let all_said = rest.count() == 0 && exact.len() == any_of.iter().filter_map(literal).count();
        match self.rule.effect {
            Effect::Deny if all_said => {
                self.notes.push("Istio compares the port of the host as well; the native rule denies the host with any port".to_owned());
                Some(Some(exact))
            }
            Effect::Deny => self.give_up("the hosts cannot be said", None),
            Effect::Allow => {
                let kept: Vec<String> = exact.into_iter().filter(|host| with_port(host)).collect();
                if !all_said || kept.len() != any_of.iter().filter_map(literal).count() {
                    self.note("Istio compares the port of the host as well; a host without its twin \"host:*\" cannot be said");
                }
                (!kept.is_empty()).then_some(Some(kept))
            }
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
            (true, false, Some(values)) if values.len() <= MAX_RANGES => {
                self.notes.push(format!(
                    "Istio compares the lines of the header {name} joined by commas, a native rule each value"
                ));
                Some(Some((name.to_owned(), Some(values))))
            }
            _ => self.give_up(&format!("what is asked of the header {name} cannot be said"), None),
        }
    }
}

fn is_host(text: &str) -> bool {
    HostPattern::parse(text).is_ok()
}

const MAX_METHOD: usize = 32;
