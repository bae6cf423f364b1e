//! The rules of a set as they are written, for those who draw, list or sample them.

use std::ops::RangeInclusive;

use crate::decision::RuleRef;
use crate::document::{Effect, HttpLimits, Kinds, Layer, Limit, Mode, Rule};
use crate::pattern::IdPattern;
use crate::set::PolicySet;

/// A rule as it is written.
#[derive(Clone, Debug)]
pub struct WrittenRule {
    /// Which rule.
    pub rule: RuleRef,
    /// What it does.
    pub effect: WrittenEffect,
    /// Whether its policy enforces.
    pub mode: Mode,
    /// The workloads that its policy protects; empty where another selector says which.
    pub to: Vec<IdPattern>,
    /// Whether everybody is meant.
    pub anyone: bool,
    /// Whether those without an identity are meant by name.
    pub unauthenticated: bool,
    /// The callers meant.
    pub from: Vec<IdPattern>,
    /// The callers taken out.
    pub except: Vec<IdPattern>,
    /// The ports; empty means any.
    pub ports: Vec<RangeInclusive<u16>>,
    /// What it says about requests; absent in a rule about connections.
    pub http: Option<WrittenRequest>,
    /// Whether there is more that it asks for: networks, names, headers, tokens.
    pub conditional: bool,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrittenEffect {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
}

/// What a rule says about requests; an empty list means any.
#[derive(Clone, Debug, Default)]
pub struct WrittenRequest {
    /// The methods.
    pub methods: Vec<String>,
    /// The hosts.
    pub hosts: Vec<String>,
    /// The paths.
    pub paths: Vec<String>,
    /// Whether it is about tunnels or other protocols.
    pub special: bool,
}

impl PolicySet {
    /// Every rule, in the order of the files.
    pub fn written_rules(&self) -> impl Iterator<Item = WrittenRule> {
        self.loaded()
            .iter()
            .flat_map(|policy| policy.rules.iter().map(|rule| WrittenRule::of(rule, &policy.protects)))
    }
}

impl WrittenRule {
    fn of(rule: &Rule, protects: &[IdPattern]) -> Self {
        Self {
            rule: rule.reference.clone(),
            effect: match rule.effect {
                Effect::Allow => WrittenEffect::Allow,
                Effect::Deny => WrittenEffect::Deny,
            },
            mode: rule.mode,
            to: protects.to_vec(),
            anyone: rule.from.anyone,
            unauthenticated: rule.from.unauthenticated,
            from: rule.from.patterns.clone(),
            except: rule.except.clone(),
            ports: match &rule.ports {
                Limit::Any => Vec::new(),
                Limit::Only(ranges) => ranges.clone(),
            },
            http: match &rule.layer {
                Layer::Tcp => None,
                Layer::Http(limits) => Some(WrittenRequest::of(limits)),
            },
            conditional: rule.is_conditional() || rule.source_net != Limit::Any,
        }
    }

    /// Whether the rule is about a call from one ID to another at a port, as far as that says.
    pub fn concerns(&self, from: Option<&identity::SpiffeId>, to: &identity::SpiffeId, port: u16) -> bool {
        let meant = match from {
            Some(id) => {
                let named = self.anyone || self.from.iter().any(|pattern| pattern.matches(id));
                named && !self.except.iter().any(|pattern| pattern.matches(id))
            }
            None => self.unauthenticated || (self.anyone && self.effect == WrittenEffect::Deny),
        };
        let at_port = self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port));
        meant && at_port && self.to.iter().any(|pattern| pattern.matches(to))
    }
}

impl WrittenRequest {
    fn of(limits: &HttpLimits) -> Self {
        Self {
            methods: texts(&limits.methods),
            hosts: texts(&limits.hosts),
            paths: texts(&limits.paths),
            special: match limits.kinds {
                Kinds::Plain | Kinds::Every => false,
                Kinds::Connect { .. } | Kinds::Upgrade { .. } => true,
            },
        }
    }
}

fn texts<T: ToString>(limit: &Limit<T>) -> Vec<String> {
    match limit {
        Limit::Any => Vec::new(),
        Limit::Only(values) => values.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strict::Source;

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        let rule = &written(
            "from: [spiffe://a.test/*], except: [spiffe://a.test/x], http: {port: 80, methods: [GET], paths: [/a/**]}",
        )[0];

        assert_eq!((rule.rule.rule.as_ref(), rule.effect), ("r", WrittenEffect::Allow));
        assert_eq!(rule.ports, [80..=80]);
        let http = rule.http.as_ref().unwrap();
        assert_eq!(
            (http.methods.as_slice(), http.paths.as_slice()),
            (&["GET".to_owned()][..], &["/a/**".to_owned()][..])
        );
        assert!(http.hosts.is_empty() && !rule.conditional);
    }

    #[test]
    fn a_rule_concerns_those_it_names_and_not_those_it_spares() {
        let rule =
            &written("from: [spiffe://a.test/*], except: [spiffe://a.test/x], tcp: {ports: [80, 90-91]}")[0];
        let id = |text: &str| text.parse::<identity::SpiffeId>().unwrap();
        let to = id("spiffe://a.test/api");

        assert!(rule.concerns(Some(&id("spiffe://a.test/web")), &to, 91));
        assert!(!rule.concerns(Some(&id("spiffe://a.test/x")), &to, 80));
        assert!(!rule.concerns(Some(&id("spiffe://a.test/web")), &to, 81));
        assert!(!rule.concerns(Some(&id("spiffe://a.test/web")), &id("spiffe://a.test/other"), 80));
        assert!(!rule.concerns(None, &to, 80));
    }

    #[test]
    fn an_allow_rule_for_anyone_is_not_for_those_without_an_identity() {
        let to = "spiffe://a.test/api".parse().unwrap();
        let anyone = &written("from: [anyone], tcp: {port: 80}")[0];
        let nobody = &written("from: [unauthenticated], tcp: {port: 80}")[0];

        assert!(!anyone.concerns(None, &to, 80));
        assert!(nobody.concerns(None, &to, 80));
    }

    fn written(keys: &str) -> Vec<WrittenRule> {
        let text = format!(
            "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/api\nallow:\n  - {{name: r, {keys}}}\n"
        );
        crate::compile(&[Source::new("p.yaml", text)]).unwrap().written_rules().collect()
    }
}
