use identity::SpiffeId;
use proptest::prelude::*;

use super::{HostPattern, IdPattern, IdPatternError, MAX_SEGMENTS, PathPattern, SegmentError};
use crate::host::CanonicalHost;
use crate::path::CanonicalPath;

fn id_matches(pattern: &str, id: &str) -> bool {
    IdPattern::parse(pattern).unwrap().matches(&SpiffeId::parse(id).unwrap())
}

fn path_matches(pattern: &str, path: &str) -> bool {
    PathPattern::parse(pattern).unwrap().matches(&CanonicalPath::parse(path).unwrap())
}

fn host_matches(pattern: &str, host: &str) -> bool {
    HostPattern::parse(pattern).unwrap().matches(&CanonicalHost::parse(host).unwrap())
}

#[test]
fn an_id_matches_itself_and_nothing_beside_it() {
    let web = "spiffe://a.test/ns/foo";

    assert!(id_matches(web, web));
    for other in [
        "spiffe://a.test/ns/foo-bar",
        "spiffe://a.test/ns",
        "spiffe://a.test/ns/foo/x",
        "spiffe://b.test/ns/foo",
        "spiffe://a.test/ns/Foo",
    ] {
        assert!(!id_matches(web, other), "{other}");
    }
}

#[test]
fn a_star_in_an_id_is_one_whole_segment() {
    assert!(id_matches("spiffe://a.test/ns/*/sa/web", "spiffe://a.test/ns/x/sa/web"));
    for other in ["spiffe://a.test/ns/sa/web", "spiffe://a.test/ns/x/y/sa/web", "spiffe://b.test/ns/x/sa/web"]
    {
        assert!(!id_matches("spiffe://a.test/ns/*/sa/web", other), "{other}");
    }
}

#[test]
fn two_stars_at_the_end_of_an_id_are_the_rest() {
    for below in ["spiffe://a.test/ns/dev", "spiffe://a.test/ns/dev/x", "spiffe://a.test/ns/dev/x/y"] {
        assert!(id_matches("spiffe://a.test/ns/dev/**", below), "{below}");
    }
    for other in [
        "spiffe://a.test/ns",
        "spiffe://a.test/ns/devel",
        "spiffe://a.test/ns/devel/x",
        "spiffe://b.test/ns/dev/x",
    ] {
        assert!(!id_matches("spiffe://a.test/ns/dev/**", other), "{other}");
    }
    assert!(id_matches("spiffe://a.test/**", "spiffe://a.test"));
}

#[test]
fn no_dot_or_bracket_is_an_operator() {
    assert!(!id_matches("spiffe://a.test/ns/a.b", "spiffe://a.test/ns/axb"));
    assert!(!id_matches("spiffe://a.test/x", "spiffe://aXtest/x".to_lowercase().as_str()));
    assert!(!path_matches("/a.b", "/axb"));
    assert!(!path_matches("/a+", "/aa"));
}

#[test]
fn an_id_pattern_spells_out_its_trust_domain_and_whole_segments() {
    let refused = |text: &str| IdPattern::parse(text).expect_err(text);

    assert_eq!(refused("a.test/x"), IdPatternError::Scheme);
    assert_eq!(refused("SPIFFE://a.test/x"), IdPatternError::Scheme);
    assert_eq!(refused("spiffe://*"), IdPatternError::TrustDomain);
    assert_eq!(refused("spiffe://*.test/x"), IdPatternError::TrustDomain);
    assert_eq!(refused("spiffe://**"), IdPatternError::TrustDomain);
    assert!(matches!(
        refused("spiffe://a.test/x*"),
        IdPatternError::Segment(SegmentError::PartOfSegment { .. })
    ));
    assert!(matches!(
        refused("spiffe://a.test/***"),
        IdPatternError::Segment(SegmentError::PartOfSegment { .. })
    ));
    assert!(matches!(refused("spiffe://a.test/**/x"), IdPatternError::Segment(SegmentError::RestNotLast)));
    for text in [
        "spiffe://a.test/",
        "spiffe://a.test//x",
        "spiffe://a.test/../x",
        "spiffe://",
        "spiffe://a.test/x?y",
        "spiffe://A.test/*",
    ] {
        assert!(matches!(refused(text), IdPatternError::Id(_)), "{text}");
    }
}

#[test]
fn a_pattern_has_segments_to_its_limit_and_not_beyond() {
    let pattern = |segments: usize| format!("/{}", vec!["a"; segments].join("/"));

    assert!(PathPattern::parse(&pattern(MAX_SEGMENTS)).is_ok());
    assert!(PathPattern::parse(&pattern(MAX_SEGMENTS + 1)).is_err());
}

#[test]
fn two_stars_at_the_end_of_a_path_are_the_path_itself_and_everything_below() {
    for path in ["/admin", "/admin/", "/admin/x", "/admin/x/y/", "//admin", "/%61dmin/x", "/x/../admin"] {
        assert!(path_matches("/admin/**", path), "{path}");
    }
    for path in ["/administrator", "/", "/x/admin", "/Admin"] {
        assert!(!path_matches("/admin/**", path), "{path}");
    }
    assert!(path_matches("/**", "/"));
}

#[test]
fn a_star_in_a_path_is_one_segment_that_is_not_empty() {
    assert!(path_matches("/v1/*", "/v1/x"));
    for path in ["/v1", "/v1/", "/v1/x/", "/v1/x/y"] {
        assert!(!path_matches("/v1/*", path), "{path}");
    }
    assert!(path_matches("/*", "/x") && !path_matches("/*", "/"));
}

#[test]
fn a_trailing_slash_is_another_path() {
    assert!(path_matches("/a/", "/a/") && !path_matches("/a/", "/a") && !path_matches("/a", "/a/"));
}

#[test]
fn an_encoded_delimiter_does_not_slip_past_a_pattern() {
    assert!(path_matches("/a@b", "/a%40b") && path_matches("/a%40b", "/a@b"));
    assert!(path_matches("/a%20b", "/a%20b"));
}

#[test]
fn a_host_pattern_is_one_host_or_one_label_more() {
    assert!(host_matches("api.example", "API.example.:80"));
    assert!(host_matches("*.example", "api.example"));
    for host in ["example", "a.b.example", "apiXexample".to_lowercase().as_str(), "api.example.org"] {
        assert!(!host_matches("*.example", host), "{host}");
    }
    assert!(!host_matches("10.0.0.1", "10.0.0.2"));
    assert!(
        HostPattern::parse("*.0.0.1").is_err()
            && HostPattern::parse("*").is_err()
            && HostPattern::parse("*.").is_err()
    );
}

// Written apart from the code under test: regular, recursive and on whole vectors.
fn reference(pattern: &[&str], name: &[&str]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((&"**", _)) => true,
        Some((step, pattern)) => match name.split_first() {
            Some((segment, name)) if *step == "*" => !segment.is_empty() && reference(pattern, name),
            Some((segment, name)) => step == segment && reference(pattern, name),
            None => false,
        },
    }
}

proptest! {
    #![proptest_config(crate::testing::cases(5_000))]

    #[test]
    fn a_pattern_matches_as_a_plain_reference_does(
        pattern in "(/(a|b|ab|\\*)){0,4}(/\\*\\*)?",
        path in "(/(a|b|ab|aa)){0,5}/?",
    ) {
        let pattern = if pattern.is_empty() { "/".to_owned() } else { pattern };
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let split = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let (wanted, found) = (split(&pattern), split(&path));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        prop_assert_eq!(path_matches(&pattern, &path), reference(&wanted, &found), "{} {}", pattern, path);
    }

    #[test]
    fn no_text_makes_a_pattern_panic(text in "\\PC*") {
        let _ = (IdPattern::parse(&text), PathPattern::parse(&text), HostPattern::parse(&text));
    }
}
