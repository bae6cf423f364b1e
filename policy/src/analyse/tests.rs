use identity::SpiffeId;

use super::{Caller, Obstacle, Terms, diff, reach};
use crate::load::compile;
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
