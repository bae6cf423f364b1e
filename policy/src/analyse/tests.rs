use std::time::SystemTime;

use identity::SpiffeId;

use super::{Budget, Caller, Cause, Instant, Obstacle, Terms, diff, prove, reach};
use crate::eval::{Evaluator, Reading};
use crate::load::{Checks, Options, compile, compile_with};
use crate::pattern::IdPattern;
use crate::set::PolicySet;
use crate::strict::Source;

pub(super) fn set(texts: &[&str]) -> PolicySet {
    let file = |(number, text): (usize, &&str)| {
        Source::new(format!("f{number}.yaml"), format!("vouchsafe: policy/v1\nname: p{number}\n{text}"))
    };
    compile(&texts.iter().enumerate().map(file).collect::<Vec<_>>()).unwrap()
}

const RATES: &str = "protects: spiffe://a.test/rates
allow:
  - {name: web, from: [spiffe://a.test/web], http: {port: 8443, methods: [GET], paths: [/v1/**]}}
  - {name: all, from: [spiffe://a.test/**], http: {port: 8443, paths: [/public/**]}}
  - {name: db, from: [spiffe://a.test/web], tcp: {port: 5432}}
deny:
  - {name: admin, from: [anyone], except: [spiffe://a.test/ops], http: {port: 8443, paths: [/v1/admin/**]}}
  - {name: no-db, from: [spiffe://a.test/**], tcp: {port: 5432}}
";

#[test]
fn reach_lists_what_deny_rules_leave_and_nothing_they_take() {
    let reach = reach(&set(&[RATES]), None, None, Terms::default());

    assert_eq!(reach.unsettled, []);
    let names: Vec<&str> = reach.ways.iter().map(|way| &*way.rule.as_ref().unwrap().rule).collect();
    assert_eq!(names, ["web", "all"]);
    assert_eq!(reach.ways[0].from, ["spiffe://a.test/web"]);
    assert_eq!(reach.ways[0].cut_by.iter().map(|rule| &*rule.rule).collect::<Vec<_>>(), ["admin"]);
    let shown = "GET 8443 /v1/other from spiffe://a.test/web to spiffe://a.test/rates";
    assert_eq!(reach.ways[0].witness.to_string(), shown);
}

#[test]
fn reach_of_one_caller_has_the_ways_of_that_caller_only() {
    let caller = |text: &str| Caller::Ids(IdPattern::parse(text).unwrap());
    let names = |caller: &Caller| -> Vec<String> {
        let reach = reach(&set(&[RATES]), Some(caller), None, Terms::default());
        reach.ways.iter().map(|way| way.rule.as_ref().unwrap().rule.to_string()).collect()
    };

    assert_eq!(names(&caller("spiffe://a.test/web")), ["web", "all"]);
    assert_eq!(names(&caller("spiffe://a.test/other")), ["all"]);
    assert_eq!(names(&caller("spiffe://b.test/**")), [""; 0]);
    assert_eq!(names(&Caller::Unauthenticated), [""; 0]);
}

#[test]
fn a_set_compared_with_itself_differs_in_nothing() {
    let found = diff(&set(&[RATES]), &set(&[RATES]), Terms::default());

    assert!(found.is_equivalent(), "{found:?}");
}

#[test]
fn a_dropped_denial_is_a_gain_that_names_it() {
    let without = RATES.replace("  - {name: no-db, from: [spiffe://a.test/**], tcp: {port: 5432}}\n", "");

    let found = diff(&set(&[RATES]), &set(&[&without]), Terms::default());

    assert!(!found.only_narrows());
    assert_eq!((found.gained.len(), found.lost.len(), found.unsettled.len()), (1, 0, 0), "{found:#?}");
    let gain = &found.gained[0];
    assert!(matches!(&gain.refused_by, Obstacle::Rule(rule) if &*rule.rule == "no-db"));
    assert_eq!(gain.witness.to_string(), "tcp 5432 from spiffe://a.test/web to spiffe://a.test/rates");
    let back = diff(&set(&[&without]), &set(&[RATES]), Terms::default());
    assert!(back.only_narrows() && !back.is_equivalent());
    assert_eq!(back.lost.len(), 1);
}

#[test]
fn a_workload_that_gets_its_first_policy_gains() {
    let other = RATES.replace("a.test/rates", "a.test/other");

    let found = diff(&set(&[RATES]), &set(&[RATES, &other]), Terms::default());

    assert!(found.gained.iter().all(|gain| gain.refused_by == Obstacle::NoPolicy));
    assert!(found.gained.iter().all(|gain| gain.to == SpiffeId::parse("spiffe://a.test/other").unwrap()));
    assert_eq!(found.gained.len(), 2);
}

fn unproved(text: &str) -> PolicySet {
    let options = Options { checks: Checks::Proved, ..Options::default() };
    compile_with(&[Source::new("f.yaml", format!("vouchsafe: policy/v1\nname: p\n{text}"))], &options)
        .unwrap()
}

#[test]
fn a_broken_guarantee_is_shown_with_the_access_and_the_rule() {
    let text = format!("{RATES}guarantees:\n  - never: {{from: [spiffe://a.test/dev/**]}}\n");

    let broken = prove(&unproved(&text), Terms::default());

    assert_eq!(
        broken.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["guarantee broken: never from spiffe://a.test/dev/** to spiffe://a.test/rates: \
          POST 8443 /public/other from spiffe://a.test/dev/other to spiffe://a.test/rates \
          is allowed by p/all (f.yaml:6)"]
    );
    assert_eq!(broken[0].line, 12);
}

#[test]
fn a_guarantee_that_a_deny_rule_keeps_is_proved() {
    let guarantee =
        "guarantees:\n  - never: {from: [spiffe://a.test/dev/**]}\n  - never: {from: [unauthenticated]}\n";
    let denied =
        format!("{RATES}  - {{name: dev, from: [spiffe://a.test/dev/**], tcp: {{port: any}}}}\n{guarantee}");

    assert_eq!(prove(&unproved(&denied), Terms::default()), []);
}

#[test]
fn what_the_budget_does_not_cover_is_unsettled_in_every_answer() {
    let terms = Terms { budget: Budget::steps(100), ..Terms::default() };
    let guaranteed = format!("{RATES}guarantees:\n  - never: {{from: [spiffe://b.test/**]}}\n");
    let set = unproved(&guaranteed);

    let (reach, diff, broken) = (reach(&set, None, None, terms), diff(&set, &set, terms), prove(&set, terms));

    assert!(!reach.unsettled.is_empty());
    assert!(!diff.unsettled.is_empty() && !diff.only_narrows());
    assert!(matches!(&broken[0].cause, Cause::Unsettled(_)), "{broken:?}");
}

#[test]
fn before_its_shadow_ends_a_policy_takes_nothing_away() {
    let shadow = |text: &str| text.replace("allow:", "mode: shadow\nuntil: 2030-01-01\nallow:");
    let (old, new) = (set(&[&shadow(RATES)]), set(&[RATES]));
    let before = Terms { moment: Instant::At(SystemTime::UNIX_EPOCH), ..Terms::default() };

    assert!(diff(&old, &new, Terms::default()).is_equivalent());
    let now = diff(&old, &new, before);
    assert!(now.only_narrows() && !now.is_equivalent());
    assert!(now.lost.iter().all(|loss| loss.allowed_by.is_none()));
}

#[test]
fn a_change_to_shadow_gains_what_passes_until_it_ends() {
    let shadow = RATES.replace("allow:", "mode: shadow\nuntil: 2030-01-01\nallow:");
    let (old, new) = (set(&[RATES]), set(&[&shadow]));
    let always = Terms { moment: Instant::From(SystemTime::UNIX_EPOCH), ..Terms::default() };

    let found = diff(&old, &new, always);

    assert!(!found.only_narrows() && found.lost.is_empty(), "{found:?}");
    assert!(diff(&new, &old, always).only_narrows());
    assert!(diff(&new, &new, always).is_equivalent());
}

#[test]
fn a_guarantee_holds_at_every_moment_at_which_its_policy_enforces() {
    let all = "protects: spiffe://a.test/rates\nallow:\n  - {name: all, from: [spiffe://a.test/**], tcp: {port: 1}}\n";
    let never = "guarantees:\n  - never: {from: [spiffe://a.test/dev/**]}\n";
    let deny = "protects: spiffe://a.test/rates\ndeny:\n  - {name: dev, from: [spiffe://a.test/dev/**], tcp: {port: any}}\n";
    let shadow = deny.replace("deny:", "mode: shadow\nuntil: 2030-01-01\ndeny:");
    let load = |texts: [&str; 2]| {
        let file = |(number, text): (usize, &str)| {
            let head = format!("vouchsafe: policy/v1\nname: p{number}\n");
            Source::new(format!("f{number}.yaml"), head + text)
        };
        compile(&texts.into_iter().enumerate().map(file).collect::<Vec<_>>())
    };

    assert!(load([&format!("{all}{never}"), deny]).is_ok());
    let refused = load([&format!("{all}{never}"), &shadow]).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("guarantee broken"), "{refused}");
    // The promise of a policy in shadow is for the time when it enforces.
    assert!(load([all, &format!("{shadow}{never}")]).is_ok());
}

#[test]
fn a_witness_is_a_question_that_eval_answers_alike() {
    let text = "protects: spiffe://a.test/api
issuers: [{issuer: https://i.test, keys: {url: https://i.test/keys}}]
allow:
  - name: all
    from: [spiffe://a.test/web]
    source_net: [2001:db8::/32]
    sni: [api.test]
    jwt: {issuer: https://i.test, audience: api, claims: {scope: [read]}}
    http: {port: 8443, hosts: [api.test], headers: {x-tenant: [a]}}
  - {name: tunnel, from: [spiffe://a.test/web], connect: {port: 15008, hosts: [db.test], to_ports: [5432]}}
  - {name: chat, from: [spiffe://a.test/web], upgrade: {port: 80, protocols: [websocket]}}
  - {name: raw, from: [unauthenticated], tcp: {port: 22}}
";
    let set = set(&[text]);

    let reach = reach(&set, None, None, Terms::default());

    assert_eq!((reach.ways.len(), reach.unsettled.len()), (4, 0), "{reach:#?}");
    for way in reach.ways {
        let policies = set.for_workload(&way.to);
        let line = serde_json::to_vec(&way.witness).unwrap();
        let evaluator = Evaluator::new(policies, set.mesh(), Reading::Canonical);
        let answer = evaluator.answer(&line, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(answer.decision, "allow", "{}", way.witness);
    }
}

#[test]
fn istios_workloads_are_told_apart_by_namespace_and_labels() {
    let policy = |name: &str, action: &str, selector: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  action: {action}\n{selector}  rules:\n  - to:\n    - operation:\n        paths: [\"/admin*\"]\n"
        );
        Source::new(format!("{name}.yaml"), text)
    };
    let labelled = "  selector:\n    matchLabels: {app: api}\n";
    let old = compile(&[policy("a", "ALLOW", "")]).unwrap();
    let new = compile(&[policy("a", "ALLOW", ""), policy("b", "DENY", labelled)]).unwrap();

    let found = diff(&old, &new, Terms::default());

    assert_eq!((found.gained.len(), found.unsettled.len()), (0, 0), "{found:#?}");
    assert_eq!(found.lost.len(), 1);
    let loss = &found.lost[0].witness;
    assert_eq!(loss.labels.get("app").map(String::as_str), Some("api"));
    assert_eq!(loss.to.as_str(), "spiffe://cluster.local/ns/shop/sa/other");
}

#[test]
fn many_tenants_told_apart_by_a_header_are_settled() {
    let rule = |number: usize| {
        format!(
            "  - {{name: t{number}, from: [spiffe://a.test/web], http: {{port: 80, paths: [/t{number}/**], headers: {{x-tenant: [t{number}]}}}}}}\n"
        )
    };
    let rules = |count: usize| -> String {
        let rules: String = (0..count).map(rule).collect();
        format!(
            "protects: spiffe://a.test/api\nallow:\n{rules}deny:\n  - {{name: d, from: [anyone], http: {{port: 80, headers: {{x-tenant: [t3]}}}}}}\n"
        )
    };

    let found = diff(&set(&[&rules(60)]), &set(&[&rules(61)]), Terms::default());

    assert_eq!((found.gained.len(), found.lost.len(), found.unsettled.len()), (1, 0, 0), "{found:?}");
    assert_eq!(found.gained[0].witness.http.as_ref().unwrap().path, "/t60/other");
}
