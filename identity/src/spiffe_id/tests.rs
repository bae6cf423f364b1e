//! Promises of SPIFFE ID parsing.

use proptest::prelude::*;

use super::*;

#[test]
fn an_id_is_split_into_trust_domain_and_path() {
    let id = SpiffeId::parse("spiffe://prod.example/ns/a_B-1.x/web").unwrap();

    assert_eq!(id.trust_domain_name(), "prod.example");
    assert_eq!(id.path(), "/ns/a_B-1.x/web");
    assert_eq!(id.segments().collect::<Vec<_>>(), ["ns", "a_B-1.x", "web"]);
    assert!(id.is_member_of(&TrustDomain::parse("prod.example").unwrap()));
    assert!(!id.is_member_of(&TrustDomain::parse("prod.exampl").unwrap()));
}

#[test]
fn a_trust_domain_alone_is_an_id_without_path() {
    let id = SpiffeId::parse("spiffe://prod.example").unwrap();

    assert_eq!(id.path(), "");
    assert_eq!(id.segments().count(), 0);
    assert_eq!(TrustDomain::parse_id("spiffe://prod.example").unwrap(), id.trust_domain());
    assert_eq!(id.trust_domain().id(), "spiffe://prod.example");
    assert_eq!(TrustDomain::parse_id("spiffe://prod.example/web"), Err(ParseIdError::UnexpectedPath));
}

#[test]
fn names_that_look_like_addresses_have_no_special_meaning() {
    for name in ["1.2.3.4", "-", ".", "..", "_", "999.999", "xn--a"] {
        assert_eq!(TrustDomain::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn each_flaw_of_an_id_is_named() {
    use ParseIdError::*;
    let cases = [
        ("", Empty),
        ("spiffe", Scheme),
        ("spiffe:/td/a", Scheme),
        ("https://td/a", Scheme),
        ("SPIFFE://td/a", Scheme),
        ("Spiffe://td/a", Scheme),
        (" spiffe://td/a", Scheme),
        ("spiffe://", EmptyTrustDomain),
        ("spiffe:///a", EmptyTrustDomain),
        ("spiffe://TD/a", TrustDomainCharacter { found: 'T' }),
        ("spiffe://td:8080/a", TrustDomainCharacter { found: ':' }),
        ("spiffe://me@td/a", TrustDomainCharacter { found: '@' }),
        ("spiffe://[::1]/a", TrustDomainCharacter { found: '[' }),
        ("spiffe://t%64/a", TrustDomainCharacter { found: '%' }),
        ("spiffe://td?a", TrustDomainCharacter { found: '?' }),
        ("spiffe://td#a", TrustDomainCharacter { found: '#' }),
        ("spiffe://td\0/a", TrustDomainCharacter { found: '\0' }),
        ("spiffe://täd/a", TrustDomainCharacter { found: 'ä' }),
        ("spiffe://td/", TrailingSlash),
        ("spiffe://td/a/", TrailingSlash),
        ("spiffe://td//a", EmptySegment),
        ("spiffe://td/./a", DotSegment),
        ("spiffe://td/a/..", DotSegment),
        ("spiffe://td/a b", PathCharacter { found: ' ' }),
        ("spiffe://td/a\n", PathCharacter { found: '\n' }),
        ("spiffe://td/a%41", PathCharacter { found: '%' }),
        ("spiffe://td/a?b", PathCharacter { found: '?' }),
        ("spiffe://td/a#b", PathCharacter { found: '#' }),
        ("spiffe://td/a\\b", PathCharacter { found: '\\' }),
        ("spiffe://td/ä", PathCharacter { found: 'ä' }),
        ("spiffe://td/*", PathCharacter { found: '*' }),
    ];

    for (text, flaw) in cases {
        assert_eq!(SpiffeId::parse(text).unwrap_err(), flaw, "{text:?}");
    }
}

#[test]
fn three_dots_are_a_segment_like_any_other() {
    assert_eq!(SpiffeId::parse("spiffe://td/.../a").unwrap().path(), "/.../a");
}

#[test]
fn an_id_has_at_most_2048_bytes() {
    let longest = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES - "spiffe://td/".len()));
    let td = TrustDomain::parse("td").unwrap();

    assert!(SpiffeId::parse(&longest).is_ok());
    assert!(SpiffeId::new(&td, &longest["spiffe://td".len()..]).is_ok());
    let too_long = ParseIdError::TooLong { bytes: MAX_ID_BYTES + 1 };
    assert_eq!(SpiffeId::parse(&format!("{longest}a")), Err(too_long.clone()));
    assert_eq!(SpiffeId::new(&td, &format!("{}a", &longest["spiffe://td".len()..])), Err(too_long));
}

#[test]
fn a_trust_domain_has_at_most_255_bytes() {
    assert!(TrustDomain::parse(&"a".repeat(MAX_TRUST_DOMAIN_BYTES)).is_ok());
    assert_eq!(
        TrustDomain::parse(&"a".repeat(MAX_TRUST_DOMAIN_BYTES + 1)),
        Err(ParseIdError::TrustDomainTooLong { bytes: MAX_TRUST_DOMAIN_BYTES + 1 })
    );
    assert!(TrustDomain::parse("").is_err());
    assert!(TrustDomain::parse("spiffe://td").is_err());
}

#[test]
fn a_path_is_made_into_an_id_only_if_it_is_sound() {
    let td = TrustDomain::parse("td").unwrap();

    assert_eq!(SpiffeId::new(&td, "/a/b").unwrap(), SpiffeId::parse("spiffe://td/a/b").unwrap());
    assert_eq!(SpiffeId::new(&td, "").unwrap(), SpiffeId::parse("spiffe://td").unwrap());
    assert_eq!(SpiffeId::new(&td, "a"), Err(ParseIdError::NoLeadingSlash));
    assert_eq!(SpiffeId::new(&td, "/a/../b"), Err(ParseIdError::DotSegment));
    assert_eq!(SpiffeId::new(&td, "/"), Err(ParseIdError::TrailingSlash));
}

#[test]
fn clones_share_the_text() {
    let id = SpiffeId::parse("spiffe://td/a").unwrap();

    assert!(Arc::ptr_eq(&id.text, &id.clone().text));
}

#[test]
fn json_holds_the_text_and_is_read_as_strictly() {
    let id = SpiffeId::parse("spiffe://td/a").unwrap();

    let json = serde_json::to_string(&id).unwrap();

    assert_eq!(json, "\"spiffe://td/a\"");
    assert_eq!(serde_json::from_str::<SpiffeId>(&json).unwrap(), id);
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://TD/a\"").is_err());
    assert!(serde_json::from_str::<TrustDomain>("\"td/a\"").is_err());
}

/// Texts near to SPIFFE IDs: mostly sound pieces, with every kind of flaw among them.
fn near_ids() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => "[a-zA-Z0-9._-]{1,6}",
        4 => Just("/".to_owned()),
        1 => prop_oneof![Just("."), Just(".."), Just("//"), Just("%2e"), Just("?"), Just("#"), Just("@"), Just(":")]
            .prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    let scheme = prop_oneof![
        12 => Just("spiffe://"), 1 => Just("SPIFFE://"), 1 => Just("sPiffe://"), 1 => Just("spiffe:"), 1 => Just("")
    ];
    (scheme, "[a-z0-9._-]{0,8}|[a-zA-Z0-9.]{1,4}", proptest::collection::vec(piece, 0..8))
        .prop_map(|(scheme, name, pieces)| format!("{scheme}{name}{}", pieces.concat()))
}

/// Lower-cases scheme and trust domain, as the other implementation does before it looks.
fn folded(text: &str) -> String {
    let authority_at = text.find("://").map_or(0, |at| at + 3);
    let path_at =
        text.get(authority_at..).and_then(|rest| rest.find('/')).map_or(text.len(), |at| authority_at + at);
    text[..path_at].to_ascii_lowercase() + &text[path_at..]
}

proptest! {
    #[test]
    fn ids_are_those_of_the_spiffe_crate_except_for_upper_case(text in near_ids()) {
        let ours = SpiffeId::parse(&text);
        let theirs = spiffe::SpiffeId::new(&text);

        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                prop_assert_eq!(ours.as_str(), theirs.to_string());
                prop_assert_eq!(ours.trust_domain_name(), theirs.trust_domain_name());
                prop_assert_eq!(ours.path(), theirs.path());
            }
            (Err(_), Err(_)) => {}
            (Err(error), Ok(_)) => {
                prop_assert!(folded(&text) != text, "refused only here: {}: {}", text, error);
                prop_assert!(SpiffeId::parse(&folded(&text)).is_ok());
            }
            (Ok(_), Err(error)) => prop_assert!(false, "accepted only here: {}: {}", text, error),
        }
    }

    #[test]
    fn trust_domains_are_those_of_the_spiffe_crate_except_for_upper_case(name in "[a-zA-Z0-9._:/@-]{0,12}") {
        let theirs = spiffe::TrustDomain::new(&name);

        match TrustDomain::parse(&name) {
            Ok(ours) => prop_assert_eq!(ours.as_str().to_owned(), theirs.unwrap().to_string()),
            Err(_) if name.contains("://") => {}
            Err(_) => prop_assert!(theirs.is_err() || name.to_ascii_lowercase() != name),
        }
    }

    #[test]
    fn what_is_parsed_reads_back_the_same(text in near_ids()) {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(SpiffeId::new(&id.trust_domain(), id.path()).unwrap(), id);
        }
    }

    #[test]
    fn ids_sort_and_hash_as_their_texts(a in near_ids(), b in near_ids()) {
        if let (Ok(x), Ok(y)) = (SpiffeId::parse(&a), SpiffeId::parse(&b)) {
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
            let set: std::collections::HashSet<SpiffeId> = [x].into();
            prop_assert!(set.contains(a.as_str()));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = SpiffeId::parse(&text);
        let _ = TrustDomain::parse(&text);
    }
}
