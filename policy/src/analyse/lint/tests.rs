use std::time::{Duration, SystemTime};

use super::{Finding, FindingKind, lint};
use crate::analyse::Terms;
use crate::analyse::tests::set;
use crate::pattern::IdPattern;

const START: &str = "protects: spiffe://a.test/api\n";

fn findings(text: &str, known: Option<&[&str]>) -> Vec<Finding> {
    let known: Option<Vec<IdPattern>> =
        known.map(|texts| texts.iter().map(|text| IdPattern::parse(text).unwrap()).collect());
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let lint = lint(&set(&[text]), known.as_deref(), now, Terms::default());
    assert_eq!(lint.unsettled, []);
    lint.findings.into_iter().filter(|finding| finding.kind != FindingKind::Untested).collect()
}

fn found(rules: &str) -> Vec<String> {
    let shown = |finding: Finding| {
        format!("{} {} {}", finding.kind.as_str(), finding.rule.unwrap_or_default(), finding.message)
    };
    findings(&format!("{START}{rules}"), None).into_iter().map(shown).collect()
}

#[test]
fn rules_that_are_all_of_use_have_no_finding() {
    let rules = "allow:
  - {name: a, from: [spiffe://a.test/x], http: {port: 80, paths: [/a/**]}}
  - {name: b, from: [spiffe://a.test/x], http: {port: 80, paths: [/b/**]}}
  - {name: c, from: [spiffe://a.test/x], tcp: {port: 80}}
deny:
  - {name: d, from: [anyone], http: {port: 80, paths: [/a/admin/**]}}
  - {name: e, from: [anyone], http: {port: 80, paths: [/a/*/admin/**]}}
";
    // A denial of requests closes the port to opaque TCP.
    assert_eq!(
        found(rules),
        ["contradicted c all that it allows is denied, by p0/d (f0.yaml:9), p0/e (f0.yaml:10)"]
    );
}

#[test]
fn a_rule_that_excludes_itself_never_matches() {
    let rules =
        "allow: [{name: a, from: [spiffe://a.test/x], except: [spiffe://a.test/**], tcp: {port: 80}}]\n";

    assert_eq!(found(rules), ["never_matches a no access can match it"]);
}

#[test]
fn a_rule_that_another_one_contains_repeats_it_and_of_two_alike_the_first_stays() {
    let rules = "allow:
  - {name: a, from: [spiffe://a.test/x], http: {port: 80, methods: [GET]}}
  - {name: b, from: [spiffe://a.test/x], http: {port: any}}
  - {name: c, from: [spiffe://a.test/x], http: {port: any}}
";
    assert_eq!(
        found(rules),
        [
            "repeated a p0/b (f0.yaml:6) does all that it does",
            "repeated c p0/b (f0.yaml:6) does all that it does"
        ]
    );
}

#[test]
fn a_rule_that_others_make_up_together_is_covered() {
    let rules = "deny:
  - {name: low, from: [anyone], tcp: {ports: [1-100]}}
  - {name: high, from: [anyone], tcp: {ports: [101-65535]}}
  - {name: middle, from: [anyone], tcp: {ports: [50-150]}}
";
    assert_eq!(found(rules), ["covered middle other rules do together all that it does"]);
}

#[test]
fn a_rule_of_use_to_one_of_its_workloads_is_of_use() {
    let rules = |protects: &str| {
        format!(
            "protects: {protects}\nallow:\n  - {{name: a, from: [spiffe://a.test/x], tcp: {{port: 80}}}}\n"
        )
    };
    let set = set(&[&rules("spiffe://a.test/api"), &rules("[spiffe://a.test/api, spiffe://a.test/other]")]);

    let lint = lint(&set, None, SystemTime::UNIX_EPOCH, Terms::default());

    let repeated: Vec<&str> = lint
        .findings
        .iter()
        .filter(|finding| finding.kind == FindingKind::Repeated)
        .map(|finding| finding.policy.as_str())
        .collect();
    assert!(repeated.is_empty() || repeated == ["p0"], "{repeated:?}");
}

#[test]
fn an_id_that_nobody_has_is_found_with_the_one_that_was_meant() {
    let text = format!(
        "{START}allow:\n  - {{name: a, from: [spiffe://a.test/wbe, spiffe://a.test/ns/*, spiffe://a.tset/web, spiffe://c.example/x], tcp: {{port: 80}}}}\n"
    );

    let found =
        findings(&text, Some(&["spiffe://a.test/web", "spiffe://a.test/api", "spiffe://a.test/node/**"]));

    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "f0.yaml:5: p0/a: no registration entry has the ID spiffe://a.test/wbe\n  = did you mean \"spiffe://a.test/web\"?",
            "f0.yaml:5: p0/a: no registration entry has an ID like spiffe://a.test/ns/*",
            "f0.yaml:5: p0/a: the trust domain of spiffe://a.tset/web is not known\n  = did you mean \"spiffe://a.test/web\"?",
        ]
    );
}

#[test]
fn a_shadow_that_ended_and_a_rule_for_everybody_are_found() {
    let rules = "mode: shadow\nuntil: 2020-01-31\nallow:
  - {name: a, from: [unauthenticated], tcp: {port: 80}}
  - {name: b, from: [anyone], tcp: {port: 81}}
  - {name: c, from: [spiffe://a.test/**], tcp: {port: 82}}
";
    let kinds: Vec<&str> =
        findings(&format!("{START}{rules}"), None).iter().map(|finding| finding.kind.as_str()).collect();

    assert_eq!(kinds, ["shadow_ended", "broad", "broad", "broad"]);
}

#[test]
fn a_rule_without_a_test_is_found_and_one_with_a_test_is_not() {
    let text = format!(
        "{START}allow:\n  - {{name: a, from: [spiffe://a.test/x], tcp: {{port: 80}}}}\n  - {{name: b, from: [spiffe://a.test/y], tcp: {{port: 80}}}}\ntests:\n  - {{from: spiffe://a.test/x, tcp: 80, expect: allow}}\n"
    );

    let lint = lint(&set(&[&text]), None, SystemTime::UNIX_EPOCH, Terms::default());

    let untested: Vec<Option<&str>> = lint.findings.iter().map(|finding| finding.rule.as_deref()).collect();
    assert_eq!(untested, [Some("b")]);
}
