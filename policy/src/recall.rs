//! Deciding a past access of which not everything is known any more: what a log does not keep may have been anything.

use std::collections::BTreeSet;

use crate::access::{Connection, Traffic};
use crate::decision::{Decision, Dimension, RuleRef};
use crate::document::{ConnectionCondition, Effect, RequestCondition, Rule};
use crate::explain::Verdict;
use crate::workload::WorkloadPolicies;

/// What the policies say of an access that is known in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// The same, whatever is not known.
    Decided(Decision),
    /// It depends on what is not known.
    Undecidable {
        /// The rules that it depends on.
        rules: Vec<RuleRef>,
        /// What they look at and is not known.
        needs: BTreeSet<Dimension>,
    },
}

impl WorkloadPolicies {
    /// Decides an access of which the dimensions in `unknown` are not known; what stands for them in `traffic` is not believed.
    pub fn recall(
        &self,
        connection: &Connection<'_>,
        traffic: &Traffic<'_>,
        unknown: &BTreeSet<Dimension>,
    ) -> Recalled {
        let decision = match traffic {
            Traffic::Tcp | Traffic::HttpConnection => self.decide_tcp(connection),
            Traffic::HttpRequest(request) => self.decide_http(connection, request),
        };
        let Ok(protected) = self.protected() else { return Recalled::Decided(decision) };
        let rules = || protected.policies.iter().flat_map(|policy| &policy.rules);
        let opaque = matches!(traffic, Traffic::Tcp);
        let token = self.issuers().any(|issuer| issuer.refuses_invalid)
            && !opaque
            && unknown.contains(&Dimension::Jwt)
            && decision.is_allowed();
        if token {
            let needs = BTreeSet::from([Dimension::Jwt]);
            return Recalled::Undecidable { rules: Vec::new(), needs };
        }
        if !rules().any(|rule| needs(rule, opaque).any(|need| unknown.contains(&need))) {
            return Recalled::Decided(decision);
        }
        let steps = self.explain(connection, traffic).steps;
        let mut walk = Walk::default();
        for (rule, step) in rules().zip(&steps) {
            let needs = needs(rule, opaque).filter(|need| unknown.contains(need)).collect();
            walk.take(rule, step.enforces, &step.verdict, needs);
        }
        walk.end(decision, protected.closes(connection.now))
    }
}

/// What the rules come to, each of which matches, does not, or may.
#[derive(Default)]
struct Walk {
    denied: bool,
    allowed: bool,
    may_deny: Vec<(RuleRef, BTreeSet<Dimension>)>,
    may_allow: Vec<(RuleRef, BTreeSet<Dimension>)>,
}

impl Walk {
    fn take(&mut self, rule: &Rule, enforces: bool, verdict: &Verdict, needs: BTreeSet<Dimension>) {
        if !enforces {
            return;
        }
        let matches = match verdict {
            Verdict::Matches | Verdict::DependsOnRequest => true,
            // A known thing that fails settles it; an unknown one may not have failed.
            Verdict::Fails { dimension, .. } if !needs.contains(dimension) => return,
            Verdict::Fails { .. } => false,
        };
        match (rule.effect, matches && needs.is_empty()) {
            (Effect::Deny, true) => self.denied = true,
            (Effect::Allow, true) => self.allowed = true,
            (Effect::Deny, false) => self.may_deny.push((rule.reference.clone(), needs)),
            (Effect::Allow, false) => self.may_allow.push((rule.reference.clone(), needs)),
        }
    }

    // Deny beats allow; what may go either way is settled where both ways end in the same.
    fn end(self, decision: Decision, closes: bool) -> Recalled {
        let open = self.allowed || !closes;
        let settled = self.denied
            || (self.may_deny.is_empty() && (open || self.may_allow.is_empty()))
            || (!open && self.may_allow.is_empty());
        if settled {
            return Recalled::Decided(decision);
        }
        let at_stake = self.may_deny.into_iter().chain(if open { Vec::new() } else { self.may_allow });
        let (rules, needs): (Vec<RuleRef>, Vec<BTreeSet<Dimension>>) = at_stake.unzip();
        Recalled::Undecidable { rules, needs: needs.into_iter().flatten().collect() }
    }
}

// What a rule looks at beside what every log keeps.
fn needs(rule: &Rule, opaque: bool) -> impl Iterator<Item = Dimension> {
    let connect = rule.at_connect.iter().filter_map(|condition| match condition {
        ConnectionCondition::Destination { .. } => Some(Dimension::Destination),
        ConnectionCondition::Sni { .. } => Some(Dimension::Sni),
        ConnectionCondition::Peer { .. }
        | ConnectionCondition::Source { .. }
        | ConnectionCondition::Port { .. }
        | ConnectionCondition::Http => None,
    });
    // On opaque TCP a deny rule does without them, and an allow rule for requests never applies.
    let request = rule.at_request.iter().filter(move |_| !opaque).filter_map(|condition| match condition {
        RequestCondition::Header { .. } => Some(Dimension::Header),
        RequestCondition::Principal { .. } | RequestCondition::Claim { .. } | RequestCondition::Token(_) => {
            Some(Dimension::Jwt)
        }
        // Istio compares it with its port, which a log does not keep.
        RequestCondition::Authority { .. } => Some(Dimension::Host),
        RequestCondition::Method { .. } | RequestCondition::Path { .. } => None,
    });
    connect.chain(request)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::SystemTime;

    use super::*;
    use crate::access::{PeerIdentity, Request};
    use crate::path::CanonicalPath;
    use crate::strict::Source;

    const ALLOW: &str =
        "allow:\n  - {name: a, from: [spiffe://a.test/web], http: {port: 80, paths: [/a/**]}}\n";
    const WITH_HEADER: &str = "allow:\n  - {name: h, from: [spiffe://a.test/web], http: {port: 80, paths: [/a/**], headers: {x: [\"1\"]}}}\n";
    const DENY_HEADER: &str =
        "deny:\n  - {name: d, from: [anyone], http: {port: 80, paths: [/a/b], headers: {x: [\"1\"]}}}\n";

    #[test]
    fn what_no_rule_looks_at_makes_no_difference() {
        assert!(allowed(&recalled(ALLOW, "/a/b")));
        assert!(denied(&recalled(ALLOW, "/other")));
    }

    #[test]
    fn an_allow_rule_that_looks_at_a_header_leaves_the_access_open() {
        let Recalled::Undecidable { rules, needs } = recalled(WITH_HEADER, "/a/b") else {
            panic!("decided without the header")
        };

        assert_eq!(rules[0].rule.as_ref(), "h");
        assert_eq!(needs, BTreeSet::from([Dimension::Header]));
    }

    #[test]
    fn what_fails_for_a_known_reason_is_decided_whatever_the_header_was() {
        assert!(denied(&recalled(WITH_HEADER, "/other")));
        assert!(allowed(&recalled(&format!("{ALLOW}{DENY_HEADER}"), "/a/x")));
    }

    #[test]
    fn a_deny_rule_that_looks_at_a_header_leaves_what_is_allowed_open_and_nothing_else() {
        assert!(matches!(recalled(&format!("{ALLOW}{DENY_HEADER}"), "/a/b"), Recalled::Undecidable { .. }));
        assert!(denied(&recalled(DENY_HEADER, "/a/b")));
    }

    #[test]
    fn a_known_header_is_believed() {
        let policy = compiled(WITH_HEADER);

        assert!(denied(&ask(&policy, "/a/b", &BTreeSet::new())));
    }

    fn recalled(rules: &str, path: &str) -> Recalled {
        ask(&compiled(rules), path, &BTreeSet::from([Dimension::Header, Dimension::Jwt]))
    }

    fn compiled(rules: &str) -> WorkloadPolicies {
        let text = format!("vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/api\n{rules}");
        let set = crate::compile(&[Source::new("p.yaml", text)]).unwrap();
        set.for_workload(&"spiffe://a.test/api".parse().unwrap())
    }

    fn ask(policies: &WorkloadPolicies, path: &str, unknown: &BTreeSet<Dimension>) -> Recalled {
        let peer = "spiffe://a.test/web".parse().unwrap();
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection =
            Connection::new(PeerIdentity::Authenticated(&peer), source, 80, SystemTime::UNIX_EPOCH);
        let path = CanonicalPath::parse(path).unwrap();
        policies.recall(&connection, &Traffic::HttpRequest(Request::new("GET", None, &path)), unknown)
    }

    fn allowed(recalled: &Recalled) -> bool {
        matches!(recalled, Recalled::Decided(decision) if decision.is_allowed())
    }

    fn denied(recalled: &Recalled) -> bool {
        matches!(recalled, Recalled::Decided(decision) if !decision.is_allowed())
    }
}
