use proptest::prelude::*;

use super::format;
use crate::strict::Source;

fn formatted(text: &str) -> String {
    format(&Source::new("p.yaml", text)).unwrap_or_else(|problems| panic!("{problems}"))
}

const HEAD: &str = "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/w\n";

#[test]
fn keys_come_in_the_order_of_the_manual_and_lists_stay_as_they_are() {
    let text = "tests:\n- {expect: deny, tcp: 80, from: unauthenticated}\ndeny:\n    -   tcp: {port:   80}\n        from:   [spiffe://b.test/x,spiffe://a.test/x]\n        name: r\nprotects: spiffe://a.test/w\nname: p\nvouchsafe: policy/v1\n";

    assert_eq!(
        formatted(text),
        "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/w\ndeny:\n  - name: r\n    from: [spiffe://b.test/x, spiffe://a.test/x]\n    tcp: {port: 80}\ntests:\n  - {from: unauthenticated, tcp: 80, expect: deny}\n"
    );
}

#[test]
fn comments_and_blank_lines_stay_with_what_they_stand_beside() {
    let text = r#"# Of the payments team.
# Ask before you change it.

# the language
vouchsafe: policy/v1   # the only one
protects: spiffe://a.test/w
# its name
name: p


allow:   # few
  # the shop
  - name: shop
    tcp: {port: 80}   # plain
    from:
      # both
      - spiffe://a.test/a  # one
      - spiffe://a.test/b
    # nobody else

  - # the ops
    name: ops
    from: [spiffe://a.test/o]
    tcp: {port: 81}
# the end
"#;

    assert_eq!(
        formatted(text),
        r#"# Of the payments team.
# Ask before you change it.
# the language
vouchsafe: policy/v1  # the only one
# its name
name: p
protects: spiffe://a.test/w

allow:  # few
  # the shop
  - name: shop
    from:
      # both
      - spiffe://a.test/a  # one
      - spiffe://a.test/b
    # nobody else
    tcp: {port: 80}  # plain

  # the ops
  - name: ops
    from: [spiffe://a.test/o]
    tcp: {port: 81}
# the end
"#
    );
}

#[test]
fn what_does_not_fit_a_line_is_written_one_element_a_line() {
    let ids: Vec<String> =
        (0..6).map(|number| format!("spiffe://prod.example/ns/shop/sa/caller-{number}")).collect();
    let text = format!("{HEAD}allow:\n  - name: r\n    from: [{}]\n    tcp: {{port: 80}}\n", ids.join(", "));

    let lines: String = ids.iter().map(|id| format!("      - {id}\n")).collect();
    assert_eq!(
        formatted(&text),
        format!("{HEAD}allow:\n  - name: r\n    from:\n{lines}    tcp: {{port: 80}}\n")
    );
}

#[test]
fn a_comment_inside_brackets_stays_beside_its_element() {
    let text = format!(
        "{HEAD}allow:\n  - name: r\n    from: [ # callers\n      spiffe://a.test/a, # one\n      # two\n      spiffe://a.test/b\n      # three\n      ]\n    tcp: {{port: 80}}\n"
    );

    assert_eq!(
        formatted(&text),
        format!(
            "{HEAD}allow:\n  - name: r\n    from:  # callers\n      - spiffe://a.test/a  # one\n      # two\n      - spiffe://a.test/b\n      # three\n    tcp: {{port: 80}}\n"
        )
    );
}

#[test]
fn quotes_stay_and_a_text_of_several_lines_leaves_the_file_as_it_is() {
    let quoted = format!("{HEAD}owner: 'a: b'\n").replace("name: p\n", "name: \"p\"\n");
    let folded = format!("name:   p\n{}owner: >-\n  a\n  b\n", HEAD.replace("name: p\n", ""));

    assert_eq!(formatted(&quoted).matches("name: \"p\"\nowner: 'a: b'\n").count(), 1);
    assert_eq!(formatted(&folded), folded);
}

#[test]
fn what_is_no_policy_is_refused() {
    for text in [
        "",
        "a: 1\n",
        "- a\n",
        "vouchsafe: proxy/v1\n",
        "vouchsafe: policy/v1\na: &x 1\n",
        "vouchsafe: policy/v1\nvouchsafe: policy/v1\n",
    ] {
        assert!(format(&Source::new("p.yaml", text)).is_err(), "{text}");
    }
}

#[test]
fn the_policies_of_the_manual_have_the_one_form() {
    let manual = include_str!("../../../docs/policy-language.md");
    let blocks = manual.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("yaml\n"));

    for text in blocks {
        assert_eq!(formatted(text), text);
    }
}

/// Lines of a policy, as people write them.
fn pieces() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "name: p\n",
        "name:   p  # why\n",
        "owner: a\n",
        "# alone\n",
        "\n",
        "   # indented\n",
        "protects: spiffe://a.test/w\n",
        "protects: [ spiffe://a.test/w,spiffe://a.test/x ]\n",
        "protects: [\n  spiffe://a.test/w, # one\n  # two\n  spiffe://a.test/x]\n",
        "mode: shadow\n",
        "until: 2027-01-31\n",
        "allow:\n",
        "deny: # no\n",
        "- name: r\n",
        "  - name: r\n",
        "    name: r\n",
        "    from: [anyone]\n",
        "    from:\n",
        "      - anyone # all\n",
        "      # after\n",
        "    tcp: {port: 80}\n",
        "    http: {paths: [/a/**], port: any, headers: {x-b: [c], x-a: any}}\n",
        "tests:\n",
        "  - {expect: deny, from: unauthenticated, tcp: 80}\n",
        "allow:\n  - name: s\n    tcp: {port: 80}\n    # who\n    from: [anyone]\n",
        "  - - a\n",
        "  -\n",
        "x: {a, b: }\n",
        "y: [a: b]\n",
        "z: |\n  text\n",
        "w: 'it''s'\n",
        "\r\n",
    ]);
    prop::collection::vec(line, 0..16).prop_map(|lines| format!("vouchsafe: policy/v1\n{}", lines.concat()))
}

fn comments(text: &str) -> Vec<&str> {
    let mut found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.find('#').and_then(|at| line.get(at..)))
        .map(str::trim_end)
        .collect();
    found.sort_unstable();
    found
}

proptest! {
    #![proptest_config(crate::testing::cases(4_000))]

    #[test]
    fn formatting_twice_changes_nothing_and_no_comment_is_lost(text in pieces()) {
        let source = Source::new("p.yaml", text.as_str());
        if let Ok(once) = format(&source) {
            let twice = format(&Source::new("p.yaml", once.as_str()));
            prop_assert_eq!(twice.as_ref().ok(), Some(&once));
            prop_assert_eq!(comments(&once), comments(&text));
        }
    }

    #[test]
    fn the_meaning_does_not_change(text in pieces()) {
        if let Ok(once) = format(&Source::new("p.yaml", text.as_str())) {
            prop_assert_eq!(meaning(&once), meaning(&text));
        }
    }
}

/// What a text says as a policy, without the lines on which it says it; or that it says none.
fn meaning(text: &str) -> Option<String> {
    let source = Source::new("p.yaml", text);
    let policy = crate::document::read(&source, &crate::document::KeyFiles::default()).ok()?.policy;
    let rules = policy.rules.iter().map(|rule| {
        let who = (&rule.from, &rule.except, &rule.source_net);
        let what = (&rule.ports, &rule.layer, &rule.at_connect, &rule.at_request);
        format!("{} {:?} {:?} {who:?} {what:?}\n", rule.reference.rule, rule.effect, rule.mode)
    });
    let tests = policy
        .tests
        .iter()
        .map(|case| format!("{:?} {:?} {:?} {} {:?}\n", case.to, case.from, case.at, case.port, case.expect));
    let head = format!("{} {:?} {:?}\n", policy.name, policy.owner, policy.protects);
    Some([head, rules.collect(), tests.collect()].concat())
}
