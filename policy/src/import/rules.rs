//! One rule of the internal form, as Istio's files come to it, as a native rule.

use std::ops::RangeInclusive;

use super::ids::{Toward, ids};
use super::requests::Http;
use crate::document::{ConnectionCondition, Effect, Layer, Limit, Rule, Sense};
use crate::mesh::Mesh;
use crate::pattern::{IdPattern, Piece, TextPattern};

/// A native rule, as its words.
#[derive(Clone, Debug)]
pub(super) struct Rewritten {
    pub(super) name: Option<String>,
    pub(super) effect: Effect,
    pub(super) from: Vec<String>,
    pub(super) except: Vec<String>,
    pub(super) source_net: Vec<String>,
    pub(super) ports: Option<Vec<String>>,
    pub(super) http: Option<Http>,
}

impl Rewritten {
    /// The rules that let everything pass.
    pub(super) fn everything() -> [Self; 2] {
        let rule = |name: &str, http| Self {
            name: Some(name.to_owned()),
            effect: Effect::Allow,
            from: vec![ANYONE.to_owned(), UNAUTHENTICATED.to_owned()],
            except: Vec::new(),
            source_net: Vec::new(),
            ports: None,
            http,
        };
        [rule("rest-tcp", None), rule("rest-http", Some(Http::default()))]
    }
}

/// Rewrites a rule; nothing where it can never match, or allows something that a native rule cannot say.
pub(super) fn rewrite(rule: &Rule, mesh: &Mesh, notes: &mut Vec<String>) -> Option<Rewritten> {
    let mut work = Work { rule, mesh, notes };
    let callers = work.callers()?;
    let ports = work.ports()?;
    let source_net = match &rule.source_net {
        Limit::Any => Vec::new(),
        Limit::Only(networks) => networks.iter().map(ToString::to_string).collect(),
    };
    let http = match &rule.layer {
        Layer::Tcp => None,
        Layer::Http(limits) => Some(work.http(limits)?),
    };
    Some(Rewritten {
        name: None,
        effect: rule.effect,
        from: callers.from,
        except: callers.except,
        source_net,
        ports,
        http,
    })
}

pub(super) struct Work<'r> {
    pub(super) rule: &'r Rule,
    mesh: &'r Mesh,
    pub(super) notes: &'r mut Vec<String>,
}

struct Callers {
    from: Vec<String>,
    except: Vec<String>,
}

impl Work<'_> {
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
        let mut except = Vec::new();
        let (mut known, mut unknown) = (true, from.is_none());
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
                    if any_of.iter().any(is_anything) {
                        known = false;
                    } else {
                        except.extend(self.spared(any_of)?);
                    }
                }
                ConnectionCondition::Source { .. } => {
                    self.give_up(
                        "a second condition on the caller's address, or one against it, cannot be said",
                        (),
                    )?;
                }
                ConnectionCondition::Destination { .. } => {
                    self.give_up("the address that is called cannot be said", ())?;
                }
                ConnectionCondition::Sni { .. } => {
                    self.give_up("the server name is not rewritten", ())?;
                }
                ConnectionCondition::Port { .. } | ConnectionCondition::Http => {}
            }
        }
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
                    self.notes
                        .push("callers that prove no identity are meant as well: unauthenticated".to_owned());
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
            let literal =
                named.iter().all(|text| IdPattern::parse(text).is_ok_and(|id| id.literal().is_some()));
            if !literal {
                return self.give_up("two conditions on the caller's identity cannot be said together", ());
            }
            named.retain(|id| any_of.iter().any(|pattern| pattern.matches(id.as_bytes())));
            return (!named.is_empty()).then_some(());
        }
        let toward = self.toward(Sense::Is);
        let mut all = Vec::new();
        for pattern in any_of {
            match ids(pattern, toward, self.mesh, self.notes) {
                Some(found) => all.extend(found),
                None => return self.give_up("the callers cannot be said", ()),
            }
        }
        all.dedup();
        *from = Some(all);
        Some(())
    }

    fn spared(&mut self, any_of: &[TextPattern]) -> Option<Vec<String>> {
        let toward = self.toward(Sense::IsNot);
        let mut all = Vec::new();
        for pattern in any_of {
            match ids(pattern, toward, self.mesh, self.notes) {
                Some(found) => all.extend(found),
                None => return self.give_up("the callers that are not meant cannot be said", Vec::new()),
            }
        }
        Some(all)
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
        if words.len() > MAX_RANGES {
            return self.give_up("there are too many ports", None);
        }
        (!words.is_empty()).then_some(Some(words))
    }
}

pub(super) fn is_anything(pattern: &TextPattern) -> bool {
    matches!(pattern.pieces(), [Piece::Run | Piece::NonEmptyRun])
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
/// Most values of one kind that a rewriting has.
pub(super) const MAX_RANGES: usize = 64;
