use std::time::SystemTime;

use identity::SpiffeId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::headers::MAX_JOINED;
use super::*;
use crate::access::{HeaderFields, PeerIdentity};
use crate::claims::Claims;
use crate::path::CanonicalPath;
use crate::pattern::{Case, Piece};

fn exact(values: &[&str]) -> Vec<TextPattern> {
    values.iter().map(|value| TextPattern::exact(value)).collect()
}

fn anything() -> Vec<TextPattern> {
    vec![TextPattern::new(vec![Piece::Run], Case::Sensitive, "*")]
}

fn something() -> Vec<TextPattern> {
    vec![TextPattern::new(vec![Piece::NonEmptyRun], Case::Sensitive, "*")]
}

fn prefix(text: &str) -> Vec<TextPattern> {
    vec![TextPattern::new(vec![Piece::Literal(text.into()), Piece::Run], Case::Sensitive, text)]
}

/// Field lines with bytes that need be no text.
#[derive(Debug)]
struct Lines(Vec<(&'static str, &'static [u8])>);

impl HeaderFields for Lines {
    fn each(&self, name: &str, see: &mut dyn FnMut(&[u8])) {
        self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).for_each(|(_, value)| see(value));
    }
}

fn reads(reading: HeaderReading, any_of: Vec<TextPattern>, headers: &dyn HeaderFields) -> bool {
    header_reads("x-role", reading, any_of, headers)
}

fn header_reads(
    name: &str,
    reading: HeaderReading,
    any_of: Vec<TextPattern>,
    headers: &dyn HeaderFields,
) -> bool {
    let path = CanonicalPath::parse("/").unwrap();
    let request = Request { headers, ..Request::new("GET", None, &path) };
    RequestCondition::Header { name: name.into(), any_of, reading }.holds(&request)
}

fn roles(lines: &[&'static str]) -> Lines {
    Lines(lines.iter().map(|line| ("X-Role", line.as_bytes())).collect())
}

/// For the value `admin`: whether an allow rule of ours, a deny rule of ours, and of Istio's allow and deny rules those that
/// are for and against it, hold.
#[test]
fn a_header_is_compared_as_each_kind_of_rule_reads_it() {
    let cases: [(&[&str], [bool; 6]); 17] = [
        // lines                      every  any    joined not    or-any not
        (&[], [false, false, false, true, false, true]),
        (&["admin"], [true, true, true, false, true, false]),
        (&["user"], [false, false, false, true, false, true]),
        (&["Admin"], [false, false, false, true, false, true]),
        (&[""], [false, false, false, true, false, true]),
        (&[" admin\t"], [true, true, true, false, true, false]),
        (&["admin,user"], [false, true, false, false, true, true]),
        (&["user, admin"], [false, true, false, false, true, true]),
        (&["user", "admin"], [false, true, false, false, true, true]),
        (&["admin", "user"], [false, true, false, false, true, true]),
        (&["admin", "admin"], [true, true, false, false, true, true]),
        (&["admin,admin"], [true, true, false, false, true, true]),
        (&["admin", ""], [false, true, false, false, true, true]),
        (&["admin,"], [false, true, false, false, true, true]),
        (&["administrator"], [false, false, false, true, false, true]),
        (&["\"admin\""], [false, false, false, true, false, true]),
        (&["a\tadmin"], [false, false, false, true, false, true]),
    ];
    let readings = [
        HeaderReading::Every,
        HeaderReading::Any,
        HeaderReading::Joined(Sense::Is),
        HeaderReading::Joined(Sense::IsNot),
        HeaderReading::JoinedOrAny(Sense::Is),
        HeaderReading::JoinedOrAny(Sense::IsNot),
    ];
    for (lines, expected) in cases {
        let held = readings.map(|reading| reads(reading, exact(&["admin"]), &roles(lines)));
        assert_eq!(held, expected, "{lines:?}");
    }
}

#[test]
fn a_header_that_is_present_and_empty_is_present() {
    for reading in [HeaderReading::Every, HeaderReading::Any, HeaderReading::Joined(Sense::Is)] {
        assert!(reads(reading, anything(), &roles(&[""])), "{reading:?}");
        assert!(!reads(reading, anything(), &roles(&[])), "{reading:?}");
        assert!(!reads(reading, something(), &roles(&[""])), "{reading:?}");
    }
}

#[test]
fn a_text_with_commas_can_be_allowed_whole_and_only_whole() {
    let agent = || exact(&["Foo (a, b)", "Mon, 02 Jan 2006 15:04:05 GMT"]);

    assert!(reads(HeaderReading::Every, agent(), &roles(&["Foo (a, b)"])));
    assert!(reads(HeaderReading::Every, agent(), &roles(&["Foo (a, b)", "Mon, 02 Jan 2006 15:04:05 GMT"])));
    for lines in [&["Foo (a", "b)"][..], &["Foo (a, b), evil"], &["Foo (a, b), Foo (a, b)"], &["Foo (a,b)"]] {
        assert!(!reads(HeaderReading::Every, agent(), &roles(lines)), "{lines:?}");
    }
    // A wildcard does not let other values in behind a comma.
    assert!(reads(HeaderReading::Every, prefix("team-"), &roles(&["team-a, team-b"])));
    assert!(!reads(HeaderReading::Every, prefix("team-"), &roles(&["team-a, root"])));
}

#[test]
fn a_text_with_commas_is_denied_however_it_is_cut() {
    for lines in [&["a, b"][..], &["a,b"], &["a", "b"], &["x", "a, b"], &["a,b", "x"]] {
        assert!(reads(HeaderReading::Any, exact(&["a, b", "a,b"]), &roles(lines)), "{lines:?}");
    }
    for lines in
        [&["x, \"a,b\""][..], &["\"a,b\""], &["x", "\"a,b\""], &["\"\\\",\", \"a,b\""], &["\"a,b\" , x"]]
    {
        assert!(reads(HeaderReading::Any, exact(&["\"a,b\""]), &roles(lines)), "{lines:?}");
    }
    // Quotes hide nothing from those who do not know them.
    assert!(reads(HeaderReading::Any, exact(&["evil"]), &roles(&["\"a, evil, b\""])));
    assert!(reads(HeaderReading::Any, exact(&["evil"]), &roles(&["\"a, evil"])));
}

#[test]
fn cookies_stand_between_semicolons_and_in_several_lines() {
    let cookie = |lines: &[&'static str], reading, value: &str| {
        let lines = Lines(lines.iter().map(|line| ("cookie", line.as_bytes())).collect());
        header_reads("cookie", reading, exact(&[value]), &lines)
    };

    for lines in [&["a=1; debug=1"][..], &["debug=1;a=1"], &["a=1", "debug=1"], &["debug=1"]] {
        assert!(cookie(lines, HeaderReading::Any, "debug=1"), "{lines:?}");
    }
    assert!(cookie(&["a=1", "b=2"], HeaderReading::Any, "a=1; b=2"));
    assert!(!cookie(&["a=1; b=2"], HeaderReading::Every, "a=1"));
    assert!(cookie(&["a=1", "a=1"], HeaderReading::Every, "a=1"));
}

#[test]
fn bytes_above_ascii_are_compared_as_they_are() {
    let lines = Lines(vec![("x-role", b"caf\xc3\xa9"), ("x-role", b"\xff")]);

    assert!(reads(HeaderReading::Any, exact(&["café"]), &lines));
    assert!(!reads(HeaderReading::Any, exact(&["cafe"]), &lines));
    assert!(!reads(HeaderReading::Every, exact(&["café"]), &lines));
    assert!(reads(HeaderReading::Every, something(), &lines));
    // White space is that of ASCII: a no-break space belongs to the value.
    assert!(!reads(HeaderReading::Every, exact(&["a"]), &Lines(vec![("x-role", b"a\xc2\xa0")])));
}

#[test]
fn names_of_headers_differ_by_case_for_nobody() {
    let upper = Lines(vec![("X-ROLE", b"admin")]);

    assert!(reads(HeaderReading::Any, exact(&["admin"]), &upper));
    assert!(!reads(HeaderReading::Any, exact(&["admin"]), &Lines(vec![("x-role2", b"admin")])));
}

#[test]
fn lines_too_long_to_join_grant_nothing_and_escape_no_denial() {
    let long: &'static str = Box::leak("a".repeat(MAX_JOINED).into_boxed_str());
    let lines = || roles(&[long, "b"]);

    assert!(!reads(HeaderReading::Joined(Sense::Is), anything(), &lines()));
    assert!(!reads(HeaderReading::Joined(Sense::IsNot), exact(&["x"]), &lines()));
    assert!(reads(HeaderReading::JoinedOrAny(Sense::Is), exact(&["x"]), &lines()));
    assert!(reads(HeaderReading::JoinedOrAny(Sense::IsNot), exact(&["x"]), &lines()));
    assert!(reads(HeaderReading::Any, exact(&["x"]), &lines()));
    // One line needs no joining, and what just fits is joined.
    assert!(reads(HeaderReading::Joined(Sense::Is), anything(), &roles(&[long])));
    assert!(reads(HeaderReading::Joined(Sense::Is), anything(), &roles(&[&long[2..], "b"])));
    assert!(!reads(HeaderReading::Any, exact(&["x"]), &roles(&[&long[3..], "b"])));
}

proptest! {
    #[test]
    fn what_an_allow_rule_reads_a_deny_rule_reads_as_well(
        lines in prop::collection::vec("[ab,\" ]{0,8}", 0..4),
        values in prop::collection::vec("[ab,\" ]{0,4}", 1..3),
    ) {
        let fields: Vec<(String, String)> = lines.iter().map(|line| ("x-role".to_owned(), line.clone())).collect();
        let any_of = || values.iter().map(|value| TextPattern::exact(value.trim())).collect::<Vec<_>>();

        let allowed = reads(HeaderReading::Every, any_of(), &fields);
        let joined = reads(HeaderReading::Joined(Sense::Is), any_of(), &fields);
        let denied = reads(HeaderReading::Any, any_of(), &fields);

        prop_assert!(denied || !allowed && !joined);
        // However an intermediary cuts or joins the lines, a denied value in a line of its own stays denied.
        let cut: Vec<(String, String)> = lines.join(",").split(',')
            .map(|value| ("x-role".to_owned(), value.to_owned())).collect();
        let piece = cut.iter().any(|(_, value)| any_of().iter().any(|one| one.matches(value.trim().as_bytes())));
        prop_assert!(denied || lines.is_empty() || !piece);
    }
}

fn connection(peer: PeerIdentity<'_>) -> Connection<'_> {
    Connection::new(peer, "10.0.0.7".parse().unwrap(), 8080, SystemTime::UNIX_EPOCH)
}

fn nets(texts: &[&str]) -> Vec<Network> {
    texts.iter().map(|text| Network::parse(text).unwrap()).collect()
}

#[test]
fn an_absent_identity_satisfies_no_positive_condition_and_every_negative_one() {
    let id = SpiffeId::parse("spiffe://a.test/ns/x/sa/s").unwrap();
    let peer = |sense| ConnectionCondition::Peer { any_of: prefix("spiffe://a.test/ns/x/"), sense };

    let known = connection(PeerIdentity::Authenticated(&id));
    let unknown = connection(PeerIdentity::Unauthenticated);
    assert_eq!([peer(Sense::Is).holds(&known), peer(Sense::IsNot).holds(&known)], [true, false]);
    assert_eq!([peer(Sense::Is).holds(&unknown), peer(Sense::IsNot).holds(&unknown)], [false, true]);
}

#[test]
fn addresses_are_compared_in_their_one_form() {
    let source = |text: &str, sense| {
        let connection =
            Connection { source: text.parse().unwrap(), ..connection(PeerIdentity::Unauthenticated) };
        ConnectionCondition::Source { any_of: nets(&["10.0.0.0/8"]), sense }.holds(&connection)
    };

    assert_eq!([source("10.1.2.3", Sense::Is), source("11.1.2.3", Sense::Is)], [true, false]);
    assert_eq!(
        [source("::ffff:10.1.2.3", Sense::Is), source("::ffff:10.1.2.3", Sense::IsNot)],
        [true, false]
    );
}

#[test]
fn an_unknown_destination_is_none() {
    let holds = |destination: Option<&str>, sense| {
        let destination = destination.map(|text| text.parse().unwrap());
        let connection = Connection { destination, ..connection(PeerIdentity::Unauthenticated) };
        ConnectionCondition::Destination { any_of: nets(&["10.9.0.0/16"]), sense }.holds(&connection)
    };

    assert_eq!([holds(Some("10.9.0.1"), Sense::Is), holds(Some("10.9.0.1"), Sense::IsNot)], [true, false]);
    assert_eq!([holds(Some("10.8.0.1"), Sense::Is), holds(Some("10.8.0.1"), Sense::IsNot)], [false, true]);
    assert_eq!([holds(None, Sense::Is), holds(None, Sense::IsNot)], [false, true]);
}

#[test]
fn ports_are_compared_as_ranges() {
    let holds = |range, sense| {
        ConnectionCondition::Port { any_of: vec![range], sense }
            .holds(&connection(PeerIdentity::Unauthenticated))
    };

    assert_eq!([holds(8080..=8080, Sense::Is), holds(8081..=9000, Sense::Is)], [true, false]);
    assert_eq!([holds(0..=65535, Sense::IsNot), holds(1..=8079, Sense::IsNot)], [false, true]);
}

#[test]
fn an_absent_server_name_means_what_the_rule_says_it_means() {
    let holds = |sni: Option<&str>, sense, absent| {
        let connection = Connection { sni, ..connection(PeerIdentity::Unauthenticated) };
        ConnectionCondition::Sni { any_of: exact(&["a.example"]), sense, absent }.holds(&connection)
    };

    for absent in [Absent::Holds, Absent::Fails] {
        assert!(holds(Some("a.example"), Sense::Is, absent));
        assert!(!holds(Some("b.example"), Sense::Is, absent));
        assert!(!holds(Some("a.example"), Sense::IsNot, absent));
        assert!(holds(Some("b.example"), Sense::IsNot, absent));
        assert_eq!(holds(None, Sense::Is, absent), absent == Absent::Holds);
    }
}

fn request_holds(condition: &RequestCondition, change: impl FnOnce(&mut Request<'_>)) -> bool {
    let path = CanonicalPath::parse("/x").unwrap();
    let mut request = Request::new("GET", None, &path);
    change(&mut request);
    condition.holds(&request)
}

#[test]
fn method_authority_and_path_are_compared_whole_and_a_tunnel_has_no_path() {
    let method = |sense| RequestCondition::Method { any_of: exact(&["GET"]), sense };
    let authority = |sense| RequestCondition::Authority { any_of: exact(&["a.example"]), sense };
    let path = |sense| RequestCondition::Path { any_of: exact(&["/x"]), sense };

    assert!(request_holds(&method(Sense::Is), |_| {}) && !request_holds(&method(Sense::IsNot), |_| {}));
    assert!(!request_holds(&method(Sense::Is), |request| request.method = "get"));
    assert!(!request_holds(&authority(Sense::Is), |_| {}) && request_holds(&authority(Sense::IsNot), |_| {}));
    assert!(request_holds(&authority(Sense::Is), |request| request.authority = Some("a.example")));
    assert!(!request_holds(&authority(Sense::Is), |request| request.authority = Some("a.example:80")));
    assert!(request_holds(&path(Sense::Is), |_| {}) && !request_holds(&path(Sense::IsNot), |_| {}));
    let tunnel = |request: &mut Request<'_>| request.kind = RequestKind::Connect { port: Some(22) };
    assert!(!request_holds(&path(Sense::Is), tunnel) && request_holds(&path(Sense::IsNot), tunnel));
}

fn claims(value: Value) -> Claims {
    Claims::verified(value.as_object().unwrap().clone())
}

fn limits(absent: Absent, audiences: &[&str], claim: Option<(&[&str], &[&str])>) -> RequestCondition {
    let texts = |texts: &[&str]| texts.iter().map(|text| Arc::from(*text)).collect::<Vec<Arc<str>>>();
    RequestCondition::Token(TokenLimits {
        issuer: "https://i.test".into(),
        audiences: texts(audiences),
        claims: claim
            .map(|(path, values)| ClaimLimit { path: texts(path), values: texts(values) })
            .into_iter()
            .collect(),
        absent,
    })
}

fn with_token(condition: &RequestCondition, token: Token<'_>) -> bool {
    let path = CanonicalPath::parse("/x").unwrap();
    condition.holds(&Request { token, ..Request::new("GET", None, &path) })
}

/// Whether an allow rule grants by the token, and whether a deny rule refuses by it.
fn both(audiences: &[&str], claim: Option<(&[&str], &[&str])>, token: Option<Value>) -> (bool, bool) {
    let token = token.map(claims);
    let token = || token.as_ref().map_or(Token::Absent, Token::Verified);
    (
        with_token(&limits(Absent::Fails, audiences, claim), token()),
        with_token(&limits(Absent::Holds, audiences, claim), token()),
    )
}

#[test]
fn without_a_token_of_the_issuer_nothing_is_granted_and_no_denial_escaped() {
    for absent in [Absent::Fails, Absent::Holds] {
        let holds = absent == Absent::Holds;
        assert_eq!(with_token(&limits(absent, &[], None), Token::Absent), holds);
        assert_eq!(with_token(&limits(absent, &[], None), Token::Invalid), holds);
    }
    assert_eq!(both(&[], None, Some(json!({"iss": "https://i.test"}))), (true, true));
    for other in
        [json!({}), json!({"iss": "https://j.test"}), json!({"iss": 7}), json!({"iss": "https://i.test/"})]
    {
        assert_eq!(both(&[], None, Some(other.clone())), (false, true), "{other}");
    }
}

#[test]
fn a_token_is_for_one_of_the_audiences() {
    for (audience, expected) in [
        (json!("api"), (true, true)),
        (json!(["x", "api"]), (true, true)),
        (json!("x"), (false, false)),
        (json!(["x"]), (false, false)),
        (json!([]), (false, false)),
        (json!("api x"), (false, false)),
        (json!(null), (false, true)),
        (json!({"api": true}), (false, true)),
    ] {
        let token = json!({"iss": "https://i.test", "aud": audience});
        assert_eq!(both(&["api"], None, Some(token.clone())), expected, "{token}");
    }
    assert_eq!(both(&["api"], None, Some(json!({"iss": "https://i.test"}))), (false, true));
}

#[test]
fn a_claim_has_one_of_the_values_whatever_its_type() {
    let values = &["admin", "5", "true", "18446744073709551615", "1.5"][..];
    for (claim, expected) in [
        (json!("admin"), (true, true)),
        (json!("Admin"), (false, false)),
        (json!("admin user"), (false, false)),
        (json!(["user", "admin"]), (true, true)),
        (json!(["user"]), (false, false)),
        (json!([]), (false, false)),
        (json!(5), (true, true)),
        (json!(5.0), (true, true)),
        (json!("5"), (true, true)),
        (json!(-5), (false, false)),
        (json!(1.5), (true, true)),
        (json!(18446744073709551615u64), (true, true)),
        (json!([4, 5]), (true, true)),
        (json!(true), (true, true)),
        (json!(false), (false, false)),
        (json!([true]), (true, true)),
        (json!(null), (false, true)),
        (json!({"admin": true}), (false, true)),
        (json!([["admin"]]), (false, true)),
        (json!([null, "admin"]), (true, true)),
        (json!([null, "user"]), (false, true)),
    ] {
        let token = json!({"iss": "https://i.test", "realm": {"roles": claim}});
        let found = both(&[], Some((&["realm", "roles"], values)), Some(token.clone()));
        assert_eq!(found, expected, "{token}");
    }
    for token in [json!({"iss": "https://i.test"}), json!({"iss": "https://i.test", "realm": "admin"})] {
        assert_eq!(both(&[], Some((&["realm", "roles"], values)), Some(token)), (false, true));
    }
}

#[test]
fn scope_is_a_list_in_one_text_and_other_claims_are_not() {
    let token = || Some(json!({"iss": "https://i.test", "scope": "read write", "group": "read write"}));

    assert_eq!(both(&[], Some((&["scope"], &["write"])), token()), (true, true));
    assert_eq!(both(&[], Some((&["scope"], &["read write"])), token()), (true, true));
    assert_eq!(both(&[], Some((&["scope"], &["rea"])), token()), (false, false));
    assert_eq!(both(&[], Some((&["group"], &["write"])), token()), (false, false));
}

#[test]
fn istios_claims_are_texts_or_lists_of_them() {
    let holds = |claim: Option<Value>, sense, split| {
        let condition =
            RequestCondition::Claim { path: vec!["c".into()], any_of: exact(&["a"]), sense, split };
        let claims = claim.map(|claim| claims(json!({"c": claim})));
        with_token(&condition, claims.as_ref().map_or(Token::Absent, Token::Verified))
    };
    for (claim, whole, spaces) in [
        (Some(json!("a")), true, true),
        (Some(json!(["b", "a"])), true, true),
        (Some(json!("b a")), false, true),
        (Some(json!(["b a"])), false, false),
        (Some(json!("b")), false, false),
        (Some(json!(true)), false, false),
        (None, false, false),
    ] {
        assert_eq!(holds(claim.clone(), Sense::Is, Split::Whole), whole, "{claim:?}");
        assert_eq!(holds(claim.clone(), Sense::IsNot, Split::Whole), !whole, "{claim:?}");
        assert_eq!(holds(claim.clone(), Sense::Is, Split::Spaces), spaces, "{claim:?}");
    }
    let invalid = RequestCondition::Claim {
        path: vec!["c".into()],
        any_of: anything(),
        sense: Sense::IsNot,
        split: Split::Whole,
    };
    assert!(with_token(&invalid, Token::Invalid));
}

#[test]
fn istios_principals_are_issuer_and_subject_together() {
    let pair = |issuer, subject| (issuer, subject);
    let holds = |any_of: Vec<(Vec<TextPattern>, Vec<TextPattern>)>, sense, token: Value| {
        let any_of = any_of.into_iter().map(|(mut a, mut b)| pair(a.remove(0), b.remove(0))).collect();
        let claims = claims(token);
        with_token(&RequestCondition::Principal { any_of, sense }, Token::Verified(&claims))
    };
    let one = || vec![(exact(&["i"]), exact(&["s"])), (exact(&["j"]), something())];

    assert!(holds(one(), Sense::Is, json!({"iss": "i", "sub": "s"})));
    assert!(holds(one(), Sense::Is, json!({"iss": "j", "sub": "t"})));
    for token in [
        json!({"iss": "i", "sub": "t"}),
        json!({"iss": "j"}),
        json!({"iss": "j", "sub": ""}),
        json!({"sub": "s"}),
    ] {
        assert!(!holds(one(), Sense::Is, token.clone()), "{token}");
        assert!(holds(one(), Sense::IsNot, token.clone()), "{token}");
    }
    let some = RequestCondition::Principal {
        any_of: vec![(something().remove(0), something().remove(0))],
        sense: Sense::Is,
    };
    assert!(!with_token(&some, Token::Absent) && !with_token(&some, Token::Invalid));
}

#[test]
fn kinds_are_told_apart_and_what_is_absent_escapes_no_denial() {
    let plain = RequestKind::Plain;
    let to = |port| RequestKind::Connect { port };
    let upgrade = |protocol| RequestKind::Upgrade { protocol };
    let ssh = Kinds::Connect { to_ports: Limit::Only(vec![22..=22]) };
    let sockets = Kinds::Upgrade { protocols: Limit::Only(vec!["websocket".into()]) };
    let tunnels = Kinds::Connect { to_ports: Limit::Any };
    for (kinds, kind, allows, denies) in [
        (&Kinds::Plain, plain, true, true),
        (&Kinds::Plain, to(Some(22)), false, false),
        (&Kinds::Plain, upgrade("websocket"), false, false),
        (&Kinds::Every, plain, true, true),
        (&Kinds::Every, to(None), true, true),
        (&Kinds::Every, upgrade("x"), true, true),
        (&tunnels, to(None), true, true),
        (&tunnels, plain, false, false),
        (&ssh, to(Some(22)), true, true),
        (&ssh, to(Some(23)), false, false),
        (&ssh, to(None), false, true),
        (&ssh, upgrade("websocket"), false, false),
        (&sockets, upgrade("websocket"), true, true),
        (&sockets, upgrade("WebSocket"), true, true),
        (&sockets, upgrade("websocket/13"), false, true),
        (&sockets, upgrade("h2c"), false, false),
        (&sockets, upgrade("h2c, websocket"), false, true),
        (&sockets, upgrade("websocket, websocket"), true, true),
        (&sockets, upgrade(""), false, true),
        (&sockets, upgrade("websocket,"), false, true),
        (&sockets, to(Some(22)), false, false),
    ] {
        assert_eq!(kinds.fit(kind, Effect::Allow), allows, "{kinds:?} {kind:?}");
        assert_eq!(kinds.fit(kind, Effect::Deny), denies, "{kinds:?} {kind:?}");
    }
}
