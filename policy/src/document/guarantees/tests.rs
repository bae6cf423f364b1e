use crate::document::tests::{HEAD, accepted, problem, refusal};
use crate::document::{Effect, KeyFiles, MAX_GUARANTEES, Mode, read};
use crate::strict::Source;

fn never(inner: &str) -> String {
    format!("{HEAD}guarantees:\n  - never: {{{inner}}}\n")
}

#[test]
fn a_guarantee_is_a_deny_rule_about_the_workloads_of_its_policy() {
    for (inner, words) in [
        ("from: [spiffe://a.test/dev/**]", "never from spiffe://a.test/dev/** to spiffe://a.test/web"),
        (
            "from: [anyone], tcp: {port: 9090}",
            "never from anyone to spiffe://a.test/web by any traffic on port 9090",
        ),
        (
            "from: [anyone], except: [spiffe://a.test/ops], to: [spiffe://a.test/*], http: {port: 80, paths: [/admin/**]}",
            "never from anyone except spiffe://a.test/ops to spiffe://a.test/* by http on port 80 /admin/**",
        ),
        (
            "from: [unauthenticated], source_net: [10.0.0.0/8], connect: {port: any}",
            "never from unauthenticated in 10.0.0.0/8 to spiffe://a.test/web by connect",
        ),
    ] {
        let text = never(inner).replace("guarantees:", "mode: shadow\nuntil: 2027-01-31\nguarantees:");

        let document = read(&Source::new("p.yaml", text), &KeyFiles::default()).unwrap();

        let guarantee = &document.policy.guarantees[0];
        assert_eq!(guarantee.shown, words);
        assert_eq!((guarantee.rule.effect, guarantee.rule.mode), (Effect::Deny, Mode::Enforce));
    }
}

#[test]
fn what_a_guarantee_says_is_checked() {
    for (inner, message, cure) in [
        (
            "tcp: {port: 80}",
            "12: the key \"from\" is missing",
            "name the callers; \"from: [anyone]\" means every one of them",
        ),
        (
            "from: [anyone], jwt: {issuer: i}",
            "29: \"jwt\" cannot limit a guarantee, which must hold whatever a caller shows",
            "remove it",
        ),
        (
            "from: [anyone], sni: [a.example]",
            "29: \"sni\" cannot limit a guarantee, which must hold whatever a caller shows",
            "remove it",
        ),
        ("from: [anyone], name: a", "29: \"name\" has no meaning in a guarantee", "remove it"),
        (
            "from: [anyone], tcp: {port: 1}, http: {port: 1}",
            "51: a guarantee is either \"tcp\" or \"http\"",
            "split it into two guarantees",
        ),
        ("from: [anyone], to: []", "33: the list is empty", "leave the key out, or name at least one"),
        ("from: [anyone], too: []", "29: unknown key \"too\"", "did you mean \"to\"?"),
    ] {
        let found = problem(&never(inner));
        assert_eq!(found, (format!("p.yaml:5:{message}"), cure.to_owned()), "{inner}");
    }
}

#[test]
fn a_guarantee_says_never() {
    let (message, cure) =
        problem(&format!("{HEAD}guarantees:\n  - {{never: {{from: [anyone]}}, to: [spiffe://a.test/x]}}\n"));

    assert_eq!(message, "p.yaml:5:31: \"to\" belongs under \"never\"");
    assert_eq!(cure, "write - never: {…}");
    assert!(refusal(&format!("{HEAD}guarantees:\n  - {{}}\n")).contains("the key \"never\" is missing"));
    assert!(refusal(&format!("{HEAD}guarantees: []\n")).contains("the list is empty"));
}

#[test]
fn guarantees_are_accepted_to_their_limit_and_not_beyond() {
    let text = |count: usize| {
        format!("{HEAD}guarantees:\n{}", "  - never: {from: [anyone], tcp: {port: 1}}\n".repeat(count))
    };

    accepted(&text(MAX_GUARANTEES));
    assert!(refusal(&text(MAX_GUARANTEES + 1)).contains("at most 256 are accepted"));
}
