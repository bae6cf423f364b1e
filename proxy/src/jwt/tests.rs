//! Promises about the tokens of requests: one token in one place, of a declared issuer, with keys that are known.

use http::Request;
use serde_json::{Value, json};

use super::{
    testing::{ISSUER, Signer, claims, seconds},
    *,
};

fn bearer() -> TokenPlace {
    TokenPlace::Header { name: "authorization".into(), prefix: "Bearer ".into() }
}

fn issuer(keys: &str) -> Issuer {
    Issuer {
        issuer: ISSUER.into(),
        audiences: vec!["payments".into()],
        keys: KeySource::Inline(keys.into()),
        places: vec![bearer()],
        forward: false,
        refuses_invalid: false,
        accepts_endless: false,
    }
}

fn accepted(issuers: Vec<Issuer>) -> Accepted {
    let issuers: Vec<Arc<Issuer>> = issuers.into_iter().map(Arc::new).collect();
    Tokens::default().accept_all(issuers.iter())
}

fn request(target: &str, fields: &[(&str, &str)]) -> RequestLine {
    let mut request = Request::get(target).header("host", "web");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    RequestLine::read(&mut request.body(()).unwrap().into_parts().0).unwrap()
}

/// Says in one word what the tokens of a request come to.
fn outcome(accepted: &Accepted, target: &str, fields: &[(&str, &str)]) -> &'static str {
    accepted.judge(&request(target, fields), SystemTime::now()).outcome().unwrap_or("absent")
}

#[test]
fn a_good_token_in_its_place_is_verified() {
    let signer = Signer::new("one");
    let (accepted, token) = (accepted(vec![issuer(&signer.keys())]), signer.token(&claims()));

    for scheme in ["Bearer", "bearer", "BEARER"] {
        let value = format!("{scheme} {token}");
        assert_eq!(outcome(&accepted, "/", &[("authorization", &value)]), "verified", "{scheme}");
    }
    let line = request("/", &[("authorization", &format!("Bearer {token}"))]);
    let Presented::Verified(proven) = accepted.judge(&line, SystemTime::now()) else {
        panic!("not verified")
    };
    assert_eq!(proven.claims().subject(), Some("ann"));
    assert_eq!(proven.strip().map(|name| &**name), Some("authorization"));
}

#[test]
fn a_token_elsewhere_is_none() {
    let signer = Signer::new("one");
    let (accepted, token) = (accepted(vec![issuer(&signer.keys())]), signer.token(&claims()));

    for (target, name, value) in [
        (format!("/?access_token={token}"), "x-a", "b".to_owned()),
        (format!("/?authorization=Bearer%20{token}"), "x-a", "b".to_owned()),
        ("/".to_owned(), "x-token", token.clone()),
        ("/".to_owned(), "cookie", format!("authorization={token}")),
        ("/".to_owned(), "authorization", format!("Basic {token}")),
        ("/".to_owned(), "authorization", token.clone()),
        ("/".to_owned(), "authorization", "Bearer".to_owned()),
    ] {
        assert_eq!(outcome(&accepted, &target, &[(name, &value)]), "absent", "{name}: {value}");
    }
}

#[test]
fn a_flawed_token_is_invalid_by_the_name_of_its_flaw() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let accepted = accepted(vec![issuer(&signer.keys())]);
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        signer.token(&claims)
    };
    let past = seconds(SystemTime::now()) - 61;
    let sound = signer.token(&claims());
    let (_, rest) = sound.split_once('.').unwrap();

    for (name, token, flaw) in [
        ("another key", other.token(&claims()), "signature"),
        ("another key id", Signer::new("two").token(&claims()), "unknown_key"),
        ("expired", with("exp", json!(past)), "expired"),
        ("for somebody else", with("aud", json!("refunds")), "audience"),
        ("undeclared issuer", with("iss", json!("https://evil.test")), "unknown_issuer"),
        ("no issuer", with("iss", json!(null)), "unknown_issuer"),
        ("algorithm none", format!("eyJhbGciOiJub25lIn0.{rest}"), "algorithm"),
        ("no token", "opaque".to_owned(), "parts"),
        ("nothing", String::new(), "parts"),
        ("two in a line", format!("{sound}, Bearer {sound}"), "parts"),
    ] {
        let value = format!("Bearer {token}");
        assert_eq!(outcome(&accepted, "/", &[("authorization", &value)]), flaw, "{name}");
    }
}

#[test]
fn two_tokens_prove_nothing_even_if_both_are_good() {
    let signer = Signer::new("one");
    let token = signer.token(&claims());
    let everywhere = Issuer {
        places: vec![
            bearer(),
            TokenPlace::Header { name: "x-jwt".into(), prefix: "".into() },
            TokenPlace::Parameter("access_token".into()),
            TokenPlace::Cookie("session".into()),
        ],
        ..issuer(&signer.keys())
    };
    let accepted = accepted(vec![everywhere]);
    let bearer = format!("Bearer {token}");
    let (cookie, query) = (format!("a=b; session={token}"), format!("/?x=1&access_token={token}"));

    let once: [(&str, Vec<(&str, &str)>); 4] = [
        ("/", vec![("authorization", &bearer)]),
        ("/", vec![("x-jwt", &token)]),
        (&query, vec![]),
        ("/", vec![("cookie", &cookie)]),
    ];
    for (target, fields) in once {
        assert_eq!(outcome(&accepted, target, &fields), "verified", "{target} {fields:?}");
    }
    let twice: [(String, Vec<(&str, &str)>); 9] = [
        ("/".to_owned(), vec![("authorization", &bearer), ("authorization", &bearer)]),
        ("/".to_owned(), vec![("authorization", &bearer), ("authorization", "Basic eDp5")]),
        ("/".to_owned(), vec![("authorization", "Basic eDp5"), ("authorization", &bearer)]),
        ("/".to_owned(), vec![("authorization", &bearer), ("x-jwt", &token)]),
        ("/".to_owned(), vec![("x-jwt", &token), ("x_jwt", &token)]),
        (query.clone(), vec![("cookie", &cookie)]),
        (format!("{query}&access_token={token}"), vec![]),
        (format!("{query}&access%5Ftoken=x"), vec![]),
        ("/".to_owned(), vec![("cookie", &cookie), ("cookie", &cookie)]),
    ];
    for (target, fields) in twice {
        assert_eq!(outcome(&accepted, &target, &fields), "several", "{target} {fields:?}");
    }
}

#[test]
fn a_token_counts_only_in_the_places_of_its_own_issuer() {
    let signer = Signer::new("one");
    let other = Issuer {
        issuer: "https://other.test".into(),
        places: vec![TokenPlace::Header { name: "x-jwt".into(), prefix: "".into() }],
        ..issuer(&signer.keys())
    };
    let accepted = accepted(vec![issuer(&signer.keys()), other]);

    assert_eq!(outcome(&accepted, "/", &[("x-jwt", &signer.token(&claims()))]), "unknown_issuer");
}

#[test]
fn of_two_declarations_of_one_issuer_a_token_has_to_satisfy_one() {
    let (first, second) = (Signer::new("one"), Signer::new("two"));
    let accepted = accepted(vec![issuer(&first.keys()), issuer(&second.keys())]);

    for signer in [&first, &second] {
        let value = format!("Bearer {}", signer.token(&claims()));
        assert_eq!(outcome(&accepted, "/", &[("authorization", &value)]), "verified");
    }
    let value = format!("Bearer {}", Signer::new("two").token(&claims()));
    assert_eq!(outcome(&accepted, "/", &[("authorization", &value)]), "signature");
}

#[test]
fn without_keys_no_token_proves_anything() {
    let signer = Signer::new("one");
    let value = format!("Bearer {}", signer.token(&claims()));
    let elsewhere =
        Issuer { keys: KeySource::Url("https://login.test/keys".into()), ..issuer(&signer.keys()) };

    for accepted in [accepted(vec![elsewhere]), accepted(vec![issuer("{\"keys\":[]}")])] {
        assert_eq!(outcome(&accepted, "/", &[("authorization", &value)]), "no_keys");
    }
}

#[test]
fn where_nobody_may_issue_tokens_none_is_looked_for() {
    let value = format!("Bearer {}", Signer::new("one").token(&claims()));

    assert_eq!(outcome(&accepted(Vec::new()), "/", &[("authorization", &value)]), "absent");
}

#[test]
fn a_token_without_end_counts_only_where_the_declaration_says_so() {
    let signer = Signer::new("one");
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    let value = format!("Bearer {}", signer.token(&endless));
    let generous = Issuer { accepts_endless: true, ..issuer(&signer.keys()) };

    assert_eq!(
        outcome(&accepted(vec![issuer(&signer.keys())]), "/", &[("authorization", &value)]),
        "no_expiry"
    );
    assert_eq!(outcome(&accepted(vec![generous]), "/", &[("authorization", &value)]), "verified");
}

#[test]
fn what_was_proved_stays_proved_for_its_request_only_while_the_issuer_is_declared() {
    let (signer, other) = (Signer::new("one"), Signer::new("one"));
    let before = accepted(vec![issuer(&signer.keys())]);
    let line = request("/", &[("authorization", &format!("Bearer {}", signer.token(&claims())))]);
    line.keep_presented(Arc::new(before.judge(&line, SystemTime::now())));
    let judged_again =
        |accepted: &Accepted| accepted.judge_again(&line, SystemTime::now()).outcome().unwrap_or("absent");

    assert_eq!(judged_again(&accepted(vec![issuer(&signer.keys())])), "verified");
    assert_eq!(judged_again(&accepted(vec![issuer(&other.keys())])), "signature");
    assert_eq!(judged_again(&accepted(Vec::new())), "absent");
    assert_eq!(
        before.judge_again(&request("/", &[]), SystemTime::now()).outcome(),
        None,
        "a request that was not judged is judged"
    );
}

#[test]
fn the_record_of_a_token_names_issuer_and_key_and_nobody_it_is_about() {
    let signer = Signer::new("one");
    let accepted = accepted(vec![issuer(&signer.keys())]);
    let token = signer.token(&claims());
    let good = request("/", &[("authorization", &format!("Bearer {token}"))]);
    let bad = request("/", &[("authorization", &format!("Bearer {}", Signer::new("two").token(&claims())))]);

    let good = accepted.judge(&good, SystemTime::now());
    let bad = accepted.judge(&bad, SystemTime::now());

    let named = |key: &str, flaw| {
        Some(audit::Jwt { issuer: Some(ISSUER.to_owned()), key_id: Some(key.to_owned()), flaw })
    };
    assert_eq!(good.as_audit(), named("one", None));
    assert_eq!(bad.as_audit(), named("two", Some("unknown_key")));
    for text in [format!("{good:?}"), format!("{bad:?}")] {
        assert!(!text.contains("ann") && !text.contains(&token), "{text}");
    }
}

#[test]
fn one_address_is_fetched_once_for_all_who_name_it() {
    let tokens = Tokens::default();
    let named = |name: &str| {
        Arc::new(Issuer {
            issuer: name.into(),
            keys: KeySource::Url("https://login.test/keys".into()),
            ..issuer("")
        })
    };
    let before = tokens.accept_all([named("a"), named("b")].iter());
    assert_eq!(tokens.take_fresh().len(), 1);

    let after = tokens.accept_all([named("c")].iter());
    assert!(tokens.take_fresh().is_empty(), "the keys in use stay in use");

    drop((before, after));
    let _again = tokens.accept_all([named("a")].iter());
    assert_eq!(tokens.take_fresh().len(), 1, "nobody kept them fresh meanwhile");
}
