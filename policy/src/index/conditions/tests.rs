use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::Request;
use crate::claims::Claims;
use crate::path::CanonicalPath;

fn header(name: &str, values: &[String], reading: HeaderReading) -> RequestCondition {
    let any_of = values.iter().map(|value| TextPattern::exact(value)).collect();
    RequestCondition::Header { name: name.into(), any_of, reading }
}

fn token(path: &str, values: &[String], absent: Absent) -> RequestCondition {
    let limit = crate::document::ClaimLimit {
        path: vec![path.into()],
        values: values.iter().map(|value| value.as_str().into()).collect(),
    };
    let (issuer, audiences) = ("i".into(), Vec::new());
    RequestCondition::Token(TokenLimits { issuer, audiences, claims: vec![limit], absent })
}

/// The index of conditions, each held by one rule more than is needed to be settled at once.
fn common(conditions: &[RequestCondition]) -> CommonConditions {
    let mut build = Builder::default();
    for number in 0..rules(conditions) {
        build.insert(number, &conditions[number as usize % conditions.len()]);
    }
    build.finish()
}

fn rules(conditions: &[RequestCondition]) -> u32 {
    u32::try_from(conditions.len() * (MANY + 1)).unwrap()
}

/// The rules left, and those that their conditions leave.
fn left(conditions: &[RequestCondition], request: &Request<'_>) -> (Vec<u32>, Vec<u32>) {
    let words = rules(conditions).div_ceil(64) as usize;
    let (mut out, mut spare) = (vec![u64::MAX; words], vec![u64::MAX; words]);
    common(conditions).narrow(request, 0, &mut out, &mut spare);
    let has = |number: &u32| out[*number as usize / 64] >> (number % 64) & 1 == 1;
    let holds = |number: &u32| conditions[*number as usize % conditions.len()].holds(request);
    ((0..rules(conditions)).filter(has).collect(), (0..rules(conditions)).filter(holds).collect())
}

fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a", "b", "a,b", "5", "05", "5.0", "-0", "0", "true", "1e400", "\"a", "a b", "nan",
    ])
    .prop_map(str::to_owned)
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        value(),
        prop::collection::vec(value(), 1..4).prop_map(|values| values.join(",")),
        prop::collection::vec(value(), 1..4).prop_map(|values| values.join("; ")),
        "[ab,;\" \\\\]{0,8}",
        Just("a,".repeat(3_000)),
    ]
}

fn condition() -> impl Strategy<Value = RequestCondition> {
    let readings = [
        HeaderReading::Every,
        HeaderReading::Any,
        HeaderReading::Joined(Sense::Is),
        HeaderReading::Joined(Sense::IsNot),
        HeaderReading::JoinedOrAny(Sense::Is),
        HeaderReading::JoinedOrAny(Sense::IsNot),
    ];
    let values = || prop::collection::vec(value(), 1..4);
    let names = prop::sample::select(vec!["x-a", "cookie"]);
    let claims = prop::sample::select(vec!["n", "scope"]);
    let absent = prop::sample::select(vec![Absent::Holds, Absent::Fails]);
    prop_oneof![
        (names, values(), prop::sample::select(readings.to_vec()))
            .prop_map(|(name, values, reading)| header(name, &values, reading)),
        (claims, values(), absent).prop_map(|(path, values, absent)| token(path, &values, absent)),
    ]
}

fn claim() -> impl Strategy<Value = Value> {
    let one = || {
        prop_oneof![
            value().prop_map(Value::from),
            prop::sample::select(vec![json!(5), json!(5.0), json!(0), json!(-0.0), json!(true), json!(null)]),
            prop::sample::select(vec![json!({"a": 1}), json!(["a"]), json!(u64::MAX), json!(i64::MIN)]),
        ]
    };
    prop_oneof![one(), prop::collection::vec(one(), 0..4).prop_map(Value::from)]
}

proptest! {
    #[test]
    fn no_rule_is_taken_out_whose_condition_holds(
        conditions in prop::collection::vec(condition(), 1..6),
        lines in prop::collection::vec((prop::sample::select(vec!["x-a", "Cookie"]), line()), 0..4),
        claim in claim(),
        issuer in prop::sample::select(vec!["i", "j"]),
        bearer in 0..3,
    ) {
        let claims = json!({"iss": issuer, "n": claim, "scope": claim});
        let claims = Claims::verified(claims.as_object().unwrap().clone());
        let headers: Vec<(String, String)> = lines.into_iter().map(|(name, line)| (name.to_owned(), line)).collect();
        let path = CanonicalPath::parse("/").unwrap();
        let token = [Token::Absent, Token::Invalid, Token::Verified(&claims)][bearer as usize];
        let request = Request { headers: &headers, token, ..Request::new("GET", None, &path) };

        let (left, holding) = left(&conditions, &request);

        prop_assert!(holding.iter().all(|number| left.contains(number)), "{:?} {:?}", left, holding);
    }
}

#[test]
fn of_many_rules_that_ask_for_a_value_those_stay_that_ask_for_the_one_that_came() {
    let conditions: Vec<RequestCondition> =
        (0..100).map(|number| header("x-a", &[format!("t{number}")], HeaderReading::Every)).collect();
    let headers = vec![("x-a".to_owned(), "t7".to_owned())];
    let path = CanonicalPath::parse("/").unwrap();

    let (left, holding) =
        left(&conditions, &Request { headers: &headers, ..Request::new("GET", None, &path) });

    assert_eq!((left.len(), &left), (MANY + 1, &holding));
}

#[test]
fn claims_and_shared_conditions_are_settled_at_once() {
    let mut conditions: Vec<RequestCondition> =
        (0..50).map(|number| token("n", &[format!("{number}")], Absent::Fails)).collect();
    conditions.push(header("x-a", &["a".to_owned()], HeaderReading::Joined(Sense::Is)));
    let claims = json!({"iss": "i", "n": [7.0, "9"]});
    let claims = Claims::verified(claims.as_object().unwrap().clone());
    let path = CanonicalPath::parse("/").unwrap();
    let request = Request { token: Token::Verified(&claims), ..Request::new("GET", None, &path) };

    let (left, holding) = left(&conditions, &request);

    assert_eq!((left.len(), &left), (2 * (MANY + 1), &holding));
}
