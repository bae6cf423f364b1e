//! One rule of the internal form, as Istio's files come to it, as a native rule.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::Assumption;
use super::ids::{Known, Toward, ids};
use super::nets::{everywhere, shared, without};
use super::requests::Http;
use super::tokens::Jwt;
use crate::document::{
    ConnectionCondition, Effect, Issuer, Layer, Limit, MAX_NETWORKS, MAX_PORTS, MAX_SERVER_NAMES, Rule, Sense,
};
use crate::net::Network;
use crate::pattern::{IdPattern, Piece, TextPattern};

/// A native rule, as its words.
#[derive(Clone, Debug)]
pub(super) struct Rewritten {
    pub(super) name: String,
    /// Where the original is.
    pub(super) origin: Option<String>,
    pub(super) effect: Effect,
    pub(super) from: Vec<String>,
    pub(super) except: Vec<String>,
    pub(super) source_net: Vec<String>,
    pub(super) sni: Vec<String>,
    pub(super) jwt: Option<Jwt>,
    pub(super) ports: Option<Vec<String>>,
    pub(super) http: Option<Http>,
}

impl Rewritten {
    /// The rules that let everything pass.
    pub(super) fn everything() -> [Self; 2] {
        let from = vec![ANYONE.to_owned(), UNAUTHENTICATED.to_owned()];
        let tcp = Self::plain("rest-tcp".to_owned(), Effect::Allow, from);
        let http = Self { name: "rest-http".to_owned(), http: Some(Http::default()), ..tcp.clone() };
        [tcp, http]
    }

    /// A denial of all that the callers do.
    pub(super) fn refusal(name: String) -> Self {
        Self::plain(name, Effect::Deny, vec![ANYONE.to_owned()])
    }

    fn plain(name: String, effect: Effect, from: Vec<String>) -> Self {
        Self {
            name,
            origin: None,
            effect,
            from,
            except: Vec::new(),
            source_net: Vec::new(),
            sni: Vec::new(),
            jwt: None,
            ports: None,
            http: None,
        }
    }
}

/// Rewrites a rule; nothing where it can never match, or allows something that a native rule cannot say.
pub(super) fn rewrite(
    rule: &Rule,
    known: Known<'_>,
    tokens: Tokens<'_>,
    notes: &mut Vec<String>,
) -> Vec<Rewritten> {
    let Tokens { issuers, elsewhere } = tokens;
    let mut work = Work { rule, known, issuers, elsewhere, notes };
    work.rules().unwrap_or_default()
}

/// Whose tokens count.
#[derive(Clone, Copy)]
pub(super) struct Tokens<'i> {
    /// The issuers at all workloads that the policy selects.
    pub(super) issuers: &'i [&'i Issuer],
    /// Whether there are others, at some workloads or at others.
    pub(super) elsewhere: bool,
}

pub(super) struct Work<'r> {
    pub(super) rule: &'r Rule,
    known: Known<'r>,
    pub(super) issuers: &'r [&'r Issuer],
    pub(super) elsewhere: bool,
    pub(super) notes: &'r mut Vec<String>,
}

struct Callers {
    from: Vec<String>,
    except: Vec<String>,
}

impl Work<'_> {
    fn rules(&mut self) -> Option<Vec<Rewritten>> {
        let rule = self.rule;
        let callers = self.callers()?;
        let (ports, source_net, sni) = (self.ports()?, self.networks()?, self.server_names()?);
        let http = match &rule.layer {
            Layer::Tcp => None,
            Layer::Http(limits) => Some(self.http(limits)?),
        };
        let whole = Rewritten {
            source_net,
            sni,
            ports,
            http,
            except: callers.except,
            origin: Some(format!("{}:{}", rule.reference.file, rule.reference.line)),
            ..Rewritten::plain(name_of(&rule.reference.rule), rule.effect, callers.from)
        };
        let ways = self.tokens()?;
        Some(ways.into_iter().map(|jwt| Rewritten { jwt, ..whole.clone() }).collect())
    }

    pub(super) fn assumed(&self) -> &BTreeSet<Assumption> {
        self.known.assumed
    }

    pub(super) fn note(&mut self, message: &str) {
        let rest = match self.rule.effect {
            Effect::Allow => "left out: the rewriting grants less",
            Effect::Deny => "left away: the rewriting denies more",
        };
        self.notes.push(format!("{message}; {rest}"));
    }

    // What cannot be said narrows what is allowed to nothing, and is left away from what is denied.
    pub(super) fn give_up<T>(&mut self, message: &str, anything: T) -> Option<T> {
        self.note(message);
        match self.rule.effect {
            Effect::Allow => None,
            Effect::Deny => Some(anything),
        }
    }

    fn toward(&self, sense: Sense) -> Toward {
        match (self.rule.effect, sense) {
            (Effect::Allow, Sense::Is) | (Effect::Deny, Sense::IsNot) => Toward::Less,
            (Effect::Deny, Sense::Is) | (Effect::Allow, Sense::IsNot) => Toward::More,
        }
    }

    fn callers(&mut self) -> Option<Callers> {
        let mut from: Option<Vec<String>> = None;
        if !self.rule.from.anyone {
            from = Some(self.rule.from.patterns.iter().map(ToString::to_string).collect());
        }
        let (mut known, mut unknown) = (true, from.is_none());
        let mut against: Vec<&TextPattern> = Vec::new();
        let rule = self.rule;
        for condition in &rule.at_connect {
            match condition {
                ConnectionCondition::Peer { any_of, sense: Sense::Is } => {
                    unknown = false;
                    if !any_of.iter().any(is_anything) {
                        self.narrow(&mut from, any_of)?;
                    }
                }
                ConnectionCondition::Peer { any_of, sense: Sense::IsNot } => {
                    known &= !any_of.iter().any(is_anything);
                    against.extend(any_of);
                }
                ConnectionCondition::Destination { .. } => {
                    self.give_up("the address that is called cannot be said", ())?;
                }
                ConnectionCondition::Source { .. }
                | ConnectionCondition::Sni { .. }
                | ConnectionCondition::Port { .. }
                | ConnectionCondition::Http => {}
            }
        }
        let except = if known { self.spared(&mut from, &against)? } else { Vec::new() };
        self.named(from, except, known, unknown)
    }

    fn named(
        &mut self,
        from: Option<Vec<String>>,
        except: Vec<String>,
        known: bool,
        unknown: bool,
    ) -> Option<Callers> {
        let from = match (from, known, unknown) {
            (Some(from), true, _) if !from.is_empty() => from,
            (Some(_), ..) | (None, false, false) => return None,
            (None, true, true) => {
                if self.rule.effect == Effect::Allow {
                    self.notes.push(ANYBODY.to_owned());
                    vec![ANYONE.to_owned(), UNAUTHENTICATED.to_owned()]
                } else {
                    vec![ANYONE.to_owned()]
                }
            }
            (None, true, false) => {
                if self.rule.effect == Effect::Deny {
                    self.note("that only callers with an identity are denied cannot be said");
                }
                vec![ANYONE.to_owned()]
            }
            (None, false, true) => {
                return Some(Callers { from: vec![UNAUTHENTICATED.to_owned()], except: Vec::new() });
            }
        };
        Some(Callers { from, except })
    }

    fn narrow(&mut self, from: &mut Option<Vec<String>>, any_of: &[TextPattern]) -> Option<()> {
        if let Some(named) = from {
            // One ID either satisfies the other condition or does not; a pattern would need an intersection.
            if !named.iter().all(|text| is_one_id(text)) {
                return self.give_up("two conditions on the caller's identity cannot be said together", ());
            }
            named.retain(|id| any_of.iter().any(|pattern| pattern.matches(id.as_bytes())));
            return (!named.is_empty()).then_some(());
        }
        let toward = self.toward(Sense::Is);
        let mut all = Vec::new();
        for pattern in any_of {
            match ids(pattern, toward, self.known, self.notes) {
                Some(found) => {
                    all.extend(found.into_iter().filter(|id| !all.contains(id)).collect::<Vec<_>>())
                }
                None => return self.give_up("the callers cannot be said", ()),
            }
        }
        *from = Some(all);
        Some(())
    }

    fn spared(&mut self, from: &mut Option<Vec<String>>, against: &[&TextPattern]) -> Option<Vec<String>> {
        if let Some(named) = from
            && named.iter().all(|text| is_one_id(text))
        {
            named.retain(|id| !against.iter().any(|pattern| pattern.matches(id.as_bytes())));
            return Some(Vec::new());
        }
        let toward = self.toward(Sense::IsNot);
        let mut all = Vec::new();
        for pattern in against {
            match ids(pattern, toward, self.known, self.notes) {
                Some(found) => {
                    all.extend(found.into_iter().filter(|id| !all.contains(id)).collect::<Vec<_>>())
                }
                None => return self.give_up("the callers that are not meant cannot be said", Vec::new()),
            }
        }
        Some(all)
    }

    fn networks(&mut self) -> Option<Vec<String>> {
        let rule = self.rule;
        let mut found: Option<Vec<Network>> = match &rule.source_net {
            Limit::Any => None,
            Limit::Only(networks) => Some(networks.clone()),
        };
        for condition in &rule.at_connect {
            if let ConnectionCondition::Source { any_of, sense } = condition {
                let before = found.unwrap_or_else(everywhere);
                found = Some(match sense {
                    Sense::Is => shared(&before, any_of),
                    Sense::IsNot => without(&before, any_of),
                });
            }
        }
        let Some(networks) = found else { return Some(Vec::new()) };
        if networks.len() > MAX_NETWORKS {
            return self.give_up("there are too many networks", Vec::new());
        }
        (!networks.is_empty()).then(|| networks.iter().map(ToString::to_string).collect())
    }

    fn server_names(&mut self) -> Option<Vec<String>> {
        let rule = self.rule;
        let mut found: Option<Vec<String>> = None;
        for condition in &rule.at_connect {
            let ConnectionCondition::Sni { any_of, sense, .. } = condition else { continue };
            let exact = |pattern: &TextPattern| match pattern.pieces() {
                [Piece::Literal(text)] => Some(text.to_string()),
                _ => None,
            };
            let names: Vec<String> = any_of.iter().filter_map(exact).collect();
            let whole = names.len() == any_of.len() && names.len() <= MAX_SERVER_NAMES && found.is_none();
            if *sense == Sense::IsNot || names.is_empty() || !(whole || self.rule.effect == Effect::Allow) {
                self.give_up("what is asked of the server name cannot be said", ())?;
                continue;
            }
            if !whole {
                self.note("some server names cannot be said");
            }
            if self.rule.effect == Effect::Deny {
                self.note("a native denial of a server name meets handshakes without one as well");
            }
            found = Some(match found {
                None => names,
                Some(before) => before.into_iter().filter(|name| names.contains(name)).collect(),
            });
        }
        match found {
            Some(names) if names.is_empty() => None,
            found => Some(found.unwrap_or_default()),
        }
    }

    // `None`: the rule can never match. `Some(None)`: every port.
    #[expect(
        clippy::option_option,
        reason = "one says whether there is a rule, the other whether it names ports"
    )]
    fn ports(&mut self) -> Option<Option<Vec<String>>> {
        let mut fits: Vec<bool> = vec![true; PORTS];
        let mut any = true;
        let mut keep = |ranges: &[RangeInclusive<u16>], wanted: bool| {
            any = false;
            for (port, fits) in (0..=u16::MAX).zip(fits.iter_mut()) {
                *fits &= ranges.iter().any(|range| range.contains(&port)) == wanted;
            }
        };
        if let Limit::Only(ranges) = &self.rule.ports {
            keep(ranges, true);
        }
        for condition in &self.rule.at_connect {
            if let ConnectionCondition::Port { any_of, sense } = condition {
                keep(any_of, *sense == Sense::Is);
            }
        }
        if any {
            return Some(None);
        }
        let words = ranges(&fits);
        if words.len() > MAX_PORTS {
            return self.give_up("there are too many ports", None);
        }
        (!words.is_empty()).then_some(Some(words))
    }
}

pub(super) fn is_anything(pattern: &TextPattern) -> bool {
    matches!(pattern.pieces(), [Piece::Run | Piece::NonEmptyRun])
}

fn is_one_id(text: &str) -> bool {
    IdPattern::parse(text).is_ok_and(|id| id.literal().is_some())
}

// `rule[3]` is how records show the third rule after the first.
fn name_of(shown: &str) -> String {
    shown.replace('[', "-").replace(']', "")
}

// No port of a workload is 0.
fn ranges(fits: &[bool]) -> Vec<String> {
    let mut words = Vec::new();
    let mut start: Option<u16> = None;
    for (port, fits) in (0..=u16::MAX).zip(fits).skip(1) {
        match (start, *fits) {
            (None, true) => start = Some(port),
            (Some(from), false) => {
                words.push(range(from, port - 1));
                start = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    words.extend(start.map(|from| range(from, u16::MAX)));
    words
}

fn range(from: u16, to: u16) -> String {
    if from == to { from.to_string() } else { format!("{from}-{to}") }
}

const ANYONE: &str = "anyone";
const UNAUTHENTICATED: &str = "unauthenticated";
const PORTS: usize = 1 << 16;

/// It changes nothing, and may surprise all the same.
pub(super) const ANYBODY: &str = "callers that prove no identity are meant as well: unauthenticated";
