use super::{MAX_CLAIM_TEXT, TestToken};
use crate::document::tests::{FROM, HEAD, problem, rule};
use crate::document::{
    Absent, KeyFiles, MAX_AUDIENCES, MAX_CLAIM_DEPTH, MAX_CLAIM_VALUES, MAX_CLAIMS, RequestCondition,
    TokenLimits, read,
};
use crate::strict::Source;
use serde_json::json;

fn with(jwt: &str) -> String {
    rule(&format!("{FROM}, http: {{port: 80}}, jwt: {jwt}"))
}

fn limits(text: &str) -> TokenLimits {
    let document = read(&Source::new("p.yaml", text), &KeyFiles::default());
    let document = document.unwrap_or_else(|problems| panic!("{problems}"));
    match &document.policy.rules[0].at_request[..] {
        [RequestCondition::Token(limits)] => limits.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_has_issuer_audiences_and_claims_below_claims() {
    let text = with(
        "{issuer: https://i.example, audience: a, claims: {scope: [x, w], realm: {roles: [z], mfa: [true]}}}",
    );

    let found = limits(&text);

    let claims: Vec<(String, Vec<&str>)> = found
        .claims
        .iter()
        .map(|claim| (claim.path.join("."), claim.values.iter().map(|value| &**value).collect()))
        .collect();
    assert_eq!(
        (&*found.issuer, found.audiences.len(), found.absent),
        ("https://i.example", 1, Absent::Fails)
    );
    assert_eq!(
        claims,
        [
            ("scope".to_owned(), vec!["x", "w"]),
            ("realm.roles".to_owned(), vec!["z"]),
            ("realm.mfa".to_owned(), vec!["true"]),
        ]
    );
}

#[test]
fn what_a_caller_does_not_show_escapes_no_denial() {
    let deny = with("{issuer: i}").replace("allow:", "deny:");

    assert_eq!(limits(&deny).absent, Absent::Holds);
}

#[test]
fn any_audience_has_to_be_said_and_a_quoted_any_is_one_audience() {
    assert!(limits(&with("{issuer: i, audience: any}")).audiences.is_empty());
    assert_eq!(limits(&with("{issuer: i, audience: \"any\"}")).audiences.len(), 1);
}

#[test]
fn what_is_asked_of_a_token_is_checked() {
    for (jwt, message, cure) in WRONG {
        let found = problem(&with(jwt));
        assert_eq!(found, (format!("p.yaml:5:{message}"), (*cure).to_owned()), "{jwt}");
    }
}

const WRONG: &[(&str, &str, &str)] = &[
    ("{audience: a}", "65: the key \"issuer\" is missing", ""),
    (
        "{issuer: i, audience: a, audiences: [b]}",
        "101: \"audience\" and \"audiences\" are both given",
        "keep one of the two",
    ),
    ("{issuer: i, scope: [a]}", "77: \"scope\" is a claim", "move it into claims: {…}"),
    ("{issuer: i, keys: {}}", "77: \"keys\" belongs to the issuer", "write it under \"issuers\""),
    ("{issuer: i, claims: {}}", "85: the mapping is empty", "leave the key out, or name at least one"),
    (
        "{issuer: i, claims: {scope: settle}}",
        "93: expected a list of values, or a mapping of claims below",
        "write the values in brackets, as in [settle, refund]",
    ),
    ("{issuer: i, claims: {scope: []}}", "93: the list is empty", "leave the key out, or name at least one"),
    (
        "{issuer: i, claims: {a: [7]}}",
        "90: expected a text, \"7\" is a number",
        "put it in quotes if a text is meant",
    ),
    (
        "{issuer: i, claims: {iss: [a]}}",
        "86: \"iss\" is the issuer, which is no claim to list",
        "write it under \"issuer\"",
    ),
    (
        "{issuer: i, claims: {aud: [a]}}",
        "86: \"aud\" is the audience, which is no claim to list",
        "write it under \"audience\"",
    ),
    ("{issuer: i, claims: {exp: [a]}}", "86: \"exp\" is judged for every token", "remove it"),
];

#[test]
fn a_rule_about_opaque_tcp_has_no_token() {
    let (message, cure) =
        problem(&rule(&format!("{FROM}, tcp: {{port: 80}}, jwt: {{issuer: i, audience: a}}")));

    assert_eq!(message, "p.yaml:5:64: \"jwt\" has no meaning for opaque TCP: there is no request to look at");
    assert_eq!(cure, "write \"http\" in place of \"tcp\", or remove it");
}

#[test]
fn tokens_are_asked_about_to_the_limits_and_not_beyond() {
    let refused = |jwt: &str| {
        read(&Source::new("p.yaml", with(jwt)), &KeyFiles::default()).err().map(|p| p.to_string())
    };
    let list =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let nested = |depth: usize| format!("{}x: [a]{}", "x: {".repeat(depth - 1), "}".repeat(depth - 1));
    let both = |limit: usize, complaint: &str, text: &dyn Fn(usize) -> String| {
        assert_eq!(refused(&text(limit)), None);
        let said = refused(&text(limit + 1)).expect("beyond the limit");
        assert!(said.contains(complaint), "{said}");
    };

    both(MAX_CLAIMS, "at most 32 are accepted", &|count| {
        format!("{{issuer: i, claims: {{{}}}}}", list(count, &|n| format!("c{n}: [a]")))
    });
    both(MAX_CLAIM_VALUES, "at most 64 are accepted", &|count| {
        format!("{{issuer: i, claims: {{c: [{}]}}}}", list(count, &|n| format!("v{n}")))
    });
    both(MAX_CLAIM_DEPTH, "claims are nested deeper than 8", &|depth| {
        format!("{{issuer: i, claims: {{{}}}}}", nested(depth))
    });
    both(MAX_AUDIENCES, "at most 16 are accepted", &|count| {
        format!("{{issuer: i, audiences: [{}]}}", list(count, &|n| format!("a{n}")))
    });
    both(MAX_CLAIM_TEXT, "the text is longer than 2048 bytes", &|length| {
        format!("{{issuer: {}}}", "i".repeat(length))
    });
    let spread = format!(
        "{{issuer: i, claims: {{a: {{{}}}, b: {{{}}}}}}}",
        list(20, &|n| format!("c{n}: [a]")),
        list(20, &|n| format!("c{n}: [a]"))
    );
    assert!(refused(&spread).expect("40 claims").contains("there are 40 claims, at most 32 are accepted"));
}

#[test]
fn a_test_case_supposes_claims_or_a_token_that_proves_nothing() {
    let case = |jwt: &str| {
        let text =
            format!("{HEAD}tests: [{{from: unauthenticated, http: GET 80 /, expect: deny, jwt: {jwt}}}]\n");
        read(&Source::new("p.yaml", text), &KeyFiles::default())
            .map(|document| document.policy.tests[0].request.clone().unwrap().token)
    };

    let TestToken::Verified(claims) =
        case("{iss: i, sub: \"7\", level: 3, mfa: true, realm: {roles: [a, b]}}").unwrap()
    else {
        panic!("no claims");
    };
    assert_eq!(case("invalid").unwrap(), TestToken::Invalid);
    assert_eq!(claims.subject(), Some("7"));
    assert_eq!(claims.at(&["level"]), Some(&json!(3)));
    assert_eq!(claims.at(&["mfa"]), Some(&json!(true)));
    assert_eq!(claims.at(&["realm", "roles"]), Some(&json!(["a", "b"])));
    for (jwt, complaint) in [
        ("{sub: a}", "the token says no issuer: it would not be accepted"),
        ("absent", "expected the claims of a verified token, or the word invalid"),
        ("[a]", "expected the claims of a verified token, or the word invalid"),
        ("{iss: i, a: 1.5}", "expected a text, \"1.5\" is a number"),
    ] {
        let said = case(jwt).expect_err(jwt).to_string();
        assert!(said.contains(complaint), "{said}");
    }
}
