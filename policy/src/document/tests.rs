use proptest::prelude::*;

use super::{KeyFiles, read};
use super::{
    MAX_FROM, MAX_HOSTS, MAX_METHODS, MAX_NAME, MAX_NETWORKS, MAX_PATHS, MAX_PORTS, MAX_PROTECTS,
    MAX_RULES_PER_POLICY, MAX_TESTS,
};
use crate::strict::Source;

pub(super) const HEAD: &str = "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/web\n";

pub(super) fn refusal(text: &str) -> String {
    read(&Source::new("p.yaml", text), &KeyFiles::default()).map(|_| ()).expect_err(text).to_string()
}

pub(super) fn accepted(text: &str) {
    if let Err(problems) = read(&Source::new("p.yaml", text), &KeyFiles::default()) {
        panic!("{problems}");
    }
}

/// The one problem of a text: its first line and its cure.
pub(super) fn problem(text: &str) -> (String, String) {
    let problems = read(&Source::new("p.yaml", text), &KeyFiles::default()).map(|_| ()).expect_err(text);
    let mut all = problems.iter();
    let first = all.next().expect("a refusal has a problem");
    assert!(all.next().is_none(), "more than one problem: {problems}");
    let place = first.position.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    (format!("{}{place}: {}", first.file, first.message), first.cure.clone().unwrap_or_default())
}

pub(super) fn rule(keys: &str) -> String {
    format!("{HEAD}allow:\n  - {{{keys}}}\n")
}

pub(super) fn test(keys: &str) -> String {
    format!("{HEAD}tests:\n  - {{{keys}}}\n")
}

pub(super) const FROM: &str = "name: r, from: [spiffe://a.test/x]";

#[test]
fn a_file_says_which_language_it_is_in() {
    let cases = [
        ("name: p\nprotects: spiffe://a.test/web\n", "p.yaml:1:1: the key \"vouchsafe\" is missing", ""),
        (
            "vouchsafe: policy/v2\nname: p\nprotects: spiffe://a.test/web\n",
            "p.yaml:1:12: expected one of policy/v1, found \"policy/v2\"",
            "did you mean \"policy/v1\"?",
        ),
        (
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n",
            "p.yaml:1:1: \"apiVersion\" is not supported by this version",
            "remove it: it would not be enforced",
        ),
        ("- a\n", "p.yaml:1:1: expected a mapping, found a list", ""),
    ];
    for (text, message, cure) in cases {
        assert_eq!(problem(text), (message.to_owned(), cure.to_owned()), "{text}");
    }
}

#[test]
fn the_head_of_a_policy_is_checked() {
    let head = |rest: &str| format!("vouchsafe: policy/v1\n{rest}");
    let cases = [
        ("protects: spiffe://a.test/web\n", "p.yaml:1:1: the key \"name\" is missing", ""),
        ("name: p\n", "p.yaml:1:1: the key \"protects\" is missing", ""),
        (
            "name: p\nprotects: []\n",
            "p.yaml:3:11: the list is empty",
            "leave the key out, or name at least one",
        ),
        (
            "name: a/b\nprotects: spiffe://a.test/web\n",
            "p.yaml:2:7: \"a/b\" is not a name",
            "use letters, digits, \"-\", \"_\" and \".\", at most 63 of them",
        ),
        (
            "name: no\nprotects: spiffe://a.test/web\n",
            "p.yaml:2:7: expected a text, \"no\" is a boolean",
            "put it in quotes if a text is meant",
        ),
        (
            "name: p\nprotects: a.test/web\n",
            "p.yaml:3:11: \"a.test/web\" is not a SPIFFE ID: a SPIFFE ID begins with \"spiffe://\"",
            "write \"spiffe://a.test/web\"",
        ),
        (
            "name: p\nprotects: spiffe://*/web\n",
            "p.yaml:3:11: \"spiffe://*/web\" is not a SPIFFE ID: the trust domain must be spelled out, without \"*\"",
            "list the IDs of each trust domain with their domain",
        ),
        (
            "name: p\nprotects: [spiffe://a.test/web, spiffe://a.test/web-*]\n",
            "p.yaml:3:33: \"spiffe://a.test/web-*\" is not a SPIFFE ID: \"*\" stands for one whole segment, \"web-*\" mixes it \
             with other characters",
            "\"*\" is one whole segment, a trailing \"/**\" is the rest",
        ),
        (
            "name: p\nprotects: spiffe://a.test/**/web\n",
            "p.yaml:3:11: \"spiffe://a.test/**/web\" is not a SPIFFE ID: \"**\" can only be the last segment",
            "\"*\" is one whole segment, a trailing \"/**\" is the rest",
        ),
        (
            "name: p\nprotects: spiffe://A.test/web\n",
            "p.yaml:3:11: \"spiffe://A.test/web\" is not a SPIFFE ID: trust domain has the character 'A', only a-z, 0-9, '.', '-' \
             and '_' are allowed",
            "",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nmode: audit\n",
            "p.yaml:4:7: expected one of enforce, shadow, found \"audit\"",
            "",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nmode: shadow\n",
            "p.yaml:4:7: a policy in shadow needs an end",
            "add \"until:\" with the day from which it enforces, such as until: 2027-01-31",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nuntil: 2027-01-31\n",
            "p.yaml:4:8: \"until\" belongs to mode: shadow",
            "write mode: shadow, or remove it",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nmode: shadow\nuntil: soon\n",
            "p.yaml:5:8: \"soon\" is not a date such as 2027-01-31 or 2027-01-31T18:00:00Z: not a day, nor a date and time with an offset",
            "",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nmode: shadow\nuntil: 2027-01-31T18:00:00\n",
            "p.yaml:5:8: \"2027-01-31T18:00:00\" is not a date such as 2027-01-31 or 2027-01-31T18:00:00Z: not a day, nor a date and \
             time with an offset",
            "",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nhttp: {port: 80}\n",
            "p.yaml:4:1: \"http\" belongs to a rule",
            "write a rule under \"allow:\" or \"deny:\"",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nnever: {from: [anyone]}\n",
            "p.yaml:4:1: \"never\" belongs to a guarantee",
            "write it under \"guarantees:\"",
        ),
        (
            "name: p\nprotect: spiffe://a.test/web\nprotects: spiffe://a.test/web\n",
            "p.yaml:3:1: unknown key \"protect\"",
            "did you mean \"protects\"?",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\nallow: []\n",
            "p.yaml:4:8: the list is empty",
            "leave the key out, or name at least one",
        ),
        (
            "name: p\nprotects: spiffe://a.test/web\ndeny: {}\n",
            "p.yaml:4:7: expected a list, found a mapping",
            "",
        ),
    ];
    for (text, message, cure) in cases {
        assert_eq!(problem(&head(text)), (message.to_owned(), cure.to_owned()), "{text}");
    }
}

#[test]
fn who_may_call_is_always_said_and_never_guessed() {
    let tcp = "tcp: {port: 80}";
    let cases = [
        (
            format!("name: r, {tcp}"),
            "p.yaml:5:5: the key \"from\" is missing",
            "name the callers; \"from: [anyone]\" means every one of them",
        ),
        (format!("from: [anyone], {tcp}"), "p.yaml:5:5: the key \"name\" is missing", ""),
        (
            format!("name: r, from: [], {tcp}"),
            "p.yaml:5:21: the list is empty",
            "leave the key out, or name at least one",
        ),
        (format!("name: r, from: anyone, {tcp}"), "p.yaml:5:21: expected a list, found a text", ""),
        (
            format!("name: r, from: [\"*\"], {tcp}"),
            "p.yaml:5:22: \"*\" is no SPIFFE ID, nor \"anyone\" or \"unauthenticated\"",
            "write \"anyone\" for every caller",
        ),
        (
            format!("name: r, from: [anyon], {tcp}"),
            "p.yaml:5:22: \"anyon\" is no SPIFFE ID, nor \"anyone\" or \"unauthenticated\"",
            "did you mean \"anyone\"?",
        ),
        (
            format!("name: r, from: [spiffe://a.test/x, /ns/y], {tcp}"),
            "p.yaml:5:41: \"/ns/y\" is not a SPIFFE ID: a SPIFFE ID begins with \"spiffe://\"",
            "write \"spiffe://ns/y\"",
        ),
        (
            format!("name: r, from: [spiffe://a.test/x/], {tcp}"),
            "p.yaml:5:22: \"spiffe://a.test/x/\" is not a SPIFFE ID: path must not end with '/'",
            "",
        ),
        (
            format!("name: r, from: [unauthenticated], except: [spiffe://a.test/x], {tcp}"),
            "p.yaml:5:48: there is nobody to except",
            "remove it: \"from\" names nobody with a SPIFFE ID",
        ),
        (
            format!("name: r, from: [anyone], except: [unauthenticated], {tcp}"),
            "p.yaml:5:40: \"unauthenticated\" cannot be excepted",
            "except names SPIFFE IDs; leave the word out of \"from\"",
        ),
        (
            format!("name: r, from: [anyone], except: [], {tcp}"),
            "p.yaml:5:39: the list is empty",
            "leave the key out, or name at least one",
        ),
        (
            format!("name: r, from: [anyone], form: [anyone], {tcp}"),
            "p.yaml:5:31: unknown key \"form\"",
            "did you mean \"from\"?",
        ),
    ];
    for (keys, message, cure) in cases {
        assert_eq!(problem(&rule(&keys)), (message.to_owned(), cure.to_owned()), "{keys}");
    }
}

#[test]
fn a_rule_is_for_one_kind_of_traffic() {
    let cases = [
        (
            "",
            "p.yaml:5:5: a rule needs one of \"tcp\", \"http\", \"grpc\", \"connect\", \"upgrade\"",
            "add \"tcp: {port: …}\" or \"http: {port: …}\"",
        ),
        (
            ", tcp: {port: 80}, http: {port: 80}",
            "p.yaml:5:65: a rule is either \"tcp\" or \"http\"",
            "split it into two rules",
        ),
        (
            ", tcp: {port: 80, methods: [GET]}",
            "p.yaml:5:58: \"methods\" has no meaning for opaque TCP",
            "write \"http\" in place of \"tcp\"",
        ),
        (
            ", tcp: {port: 80, paths: [/a]}",
            "p.yaml:5:58: \"paths\" has no meaning for opaque TCP",
            "write \"http\" in place of \"tcp\"",
        ),
        (
            ", tcp: {}",
            "p.yaml:5:47: the key \"port\" is missing",
            "add \"port: 8443\", \"ports: [8443, 9000-9010]\" or \"port: any\"",
        ),
        (
            ", tcp: {port: 80, ports: [81]}",
            "p.yaml:5:65: \"port\" and \"ports\" are both given",
            "keep one of the two",
        ),
        (", tcp: {ports: []}", "p.yaml:5:55: the list is empty", "leave the key out, or name at least one"),
        (", tcp: {ports: [any]}", "p.yaml:5:56: \"any\" is not one of several ports", "write \"port: any\""),
        (", tcp: 80", "p.yaml:5:47: expected a mapping, found a text", ""),
    ];
    for (keys, message, cure) in cases {
        assert_eq!(problem(&rule(&format!("{FROM}{keys}"))), (message.to_owned(), cure.to_owned()), "{keys}");
    }
}

#[test]
fn a_port_is_a_decimal_number_or_a_range_upwards() {
    for port in
        ["0", "65536", "0x50", "080", "-1", "1_000", "80-", "-80", "1-2-3", "80; flush ruleset", "http", "''"]
    {
        let (message, _) = problem(&rule(&format!("{FROM}, tcp: {{port: {port}}}")));
        assert!(message.starts_with("p.yaml:5:54: "), "{message}");
        assert!(message.contains("a port such as 8443, or any"), "{message}");
    }
    let (message, _) = problem(&rule(&format!("{FROM}, tcp: {{ports: [90-80]}}")));
    assert!(
        message.ends_with(
            "is not a port such as 8443, or a range such as 9000-9010: the range ends before it begins"
        ),
        "{message}"
    );
    accepted(&rule(&format!("{FROM}, tcp: {{ports: [1, 80-80, 8000-65535]}}")));
}

#[test]
fn a_bad_element_of_a_list_fails_the_load_and_says_how_to_write_it() {
    for (keys, message, cure) in BAD_ELEMENTS {
        let found = problem(&rule(&format!("{FROM}{keys}")));
        assert_eq!(found, ((*message).to_owned(), (*cure).to_owned()), "{keys}");
    }
}

const BAD_ELEMENTS: &[(&str, &str, &str)] = &[
    (
        ", source_net: [10.0.0.0/8, 10.1.2.3/16], tcp: {port: 80}",
        "p.yaml:5:67: \"10.1.2.3/16\" is not a network: it has bits after the prefix; the network is \"10.1.0.0/16\"",
        "write \"10.1.0.0/16\"",
    ),
    (
        ", source_net: [10.0.0.1], tcp: {port: 80}",
        "p.yaml:5:55: \"10.0.0.1\" is not a network: write one address as \"10.0.0.1/32\"",
        "write \"10.0.0.1/32\"",
    ),
    (
        ", source_net: [10.0.0.0/8 drop], tcp: {port: 80}",
        "p.yaml:5:55: \"10.0.0.0/8 drop\" is not a network: a network is an address, a slash and the number of leading bits",
        "write it as in 10.20.0.0/16",
    ),
    (
        ", source_net: [\"::ffff:0:0/95\"], tcp: {port: 80}",
        "p.yaml:5:55: \"::ffff:0:0/95\" is not a network: it has bits after the prefix; the network is \"::fffe:0:0/95\"",
        "write \"::fffe:0:0/95\"",
    ),
    (
        ", http: {port: 80, methods: [get]}",
        "p.yaml:5:69: \"get\" is not a method",
        "did you mean \"GET\"? methods differ by case",
    ),
    (", http: {port: 80, methods: [\"GET \"]}", "p.yaml:5:69: \"GET \" is not a method", ""),
    (", http: {port: 80, methods: [\"*\"]}", "p.yaml:5:69: \"*\" is not a method", ""),
    (
        ", http: {port: 80, methods: [CONNECT]}",
        "p.yaml:5:69: the method CONNECT asks for a tunnel, which is a kind of its own",
        "write a rule with \"connect: {port: …}\"",
    ),
    (
        ", http: {port: 80, methods: []}",
        "p.yaml:5:68: the list is empty",
        "leave the key out, or name at least one",
    ),
    (
        ", http: {port: 80, hosts: [API.example]}",
        "p.yaml:5:67: \"API.example\" is not a host: requests for it arrive as \"api.example\"",
        "write \"api.example\"",
    ),
    (
        ", http: {port: 80, hosts: [\"api.example:80\"]}",
        "p.yaml:5:67: \"api.example:80\" is not a host: a host in a rule has no port",
        "name the port under \"port\"",
    ),
    (
        ", http: {port: 80, hosts: [api.*]}",
        "p.yaml:5:67: \"api.*\" is not a host: \"*\" can only be the whole first label of a name",
        "write it as in \"*.shop.example\"",
    ),
    (
        ", http: {port: 80, hosts: [a@b]}",
        "p.yaml:5:67: \"a@b\" is not a host: host contains user information",
        "",
    ),
    (
        ", http: {port: 80, paths: [/a/b*]}",
        "p.yaml:5:67: \"/a/b*\" is not a path: \"*\" stands for one whole segment, \"b*\" mixes it with other characters",
        "\"*\" is one whole segment, a trailing \"/**\" is the rest",
    ),
    (
        ", http: {port: 80, paths: [/**/a]}",
        "p.yaml:5:67: \"/**/a\" is not a path: \"**\" can only be the last segment",
        "\"*\" is one whole segment, a trailing \"/**\" is the rest",
    ),
    (
        ", http: {port: 80, paths: [/a//b]}",
        "p.yaml:5:67: \"/a//b\" is not a path: requests for it arrive as \"/a/b\"",
        "write \"/a/b\"",
    ),
    (
        ", http: {port: 80, paths: [/%61]}",
        "p.yaml:5:67: \"/%61\" is not a path: requests for it arrive as \"/a\"",
        "write \"/a\"",
    ),
    (
        ", http: {port: 80, paths: [a]}",
        "p.yaml:5:67: \"a\" is not a path: path does not begin with \"/\"",
        "",
    ),
    (
        ", http: {port: 80, paths: [/a%2Fb]}",
        "p.yaml:5:67: \"/a%2Fb\" is not a path: path contains an encoded separator",
        "",
    ),
    (
        ", http: {port: 80, paths: [/a?b]}",
        "p.yaml:5:67: \"/a?b\" is not a path: a path in a rule has no query",
        "",
    ),
    (
        ", http: {port: 80, paths: [/%2A]}",
        "p.yaml:5:67: \"/%2A\" is not a path: a rule cannot name the character \"*\"",
        "",
    ),
    (", http: {port: 80, path: [/a]}", "p.yaml:5:59: unknown key \"path\"", "did you mean \"paths\"?"),
];

#[test]
fn the_cases_of_a_policy_are_checked() {
    for (keys, message, cure) in BAD_CASES {
        let found = problem(&test(&keys.replace("FROM", "from: spiffe://a.test/x")));
        assert_eq!(found, ((*message).to_owned(), (*cure).to_owned()), "{keys}");
    }
}

const BAD_CASES: &[(&str, &str, &str)] = &[
    ("FROM, tcp: 80", "p.yaml:5:5: the key \"expect\" is missing", ""),
    ("tcp: 80, expect: deny", "p.yaml:5:5: the key \"from\" is missing", ""),
    (
        "FROM, expect: deny",
        "p.yaml:5:5: the test asks nothing",
        "add \"tcp: 8443\" or \"http: GET 8443 /v1/rates\"",
    ),
    (
        "FROM, tcp: 80, http: GET 80 /, expect: deny",
        "p.yaml:5:46: a test is either \"tcp\" or \"http\"",
        "split it into two tests",
    ),
    (
        "FROM, http: GET /, expect: deny",
        "p.yaml:5:37: \"GET /\" is not a request such as \"GET 8443 /v1/rates\": it is a method, a port and a path, with one space between",
        "",
    ),
    (
        "FROM, http: GET 80 /a%2fb, expect: deny",
        "p.yaml:5:37: \"GET 80 /a%2fb\" is not a request such as \"GET 8443 /v1/rates\": path contains an encoded separator",
        "",
    ),
    (
        "FROM, http: GET 0 /, expect: deny",
        "p.yaml:5:37: \"GET 0 /\" is not a request such as \"GET 8443 /v1/rates\": ports are the numbers from 1 to 65535",
        "",
    ),
    ("FROM, tcp: 80, expect: refuse", "p.yaml:5:48: expected one of allow, deny, found \"refuse\"", ""),
    (
        "from: spiffe://a.test/*, tcp: 80, expect: deny",
        "p.yaml:5:12: \"spiffe://a.test/*\" is not a SPIFFE ID: path has the character '*', only a-z, A-Z, 0-9, '.', '-', '_' and '/' are allowed",
        "a test names one caller, without \"*\"",
    ),
    ("FROM, tcp: 80, host: a, expect: deny", "p.yaml:5:46: \"host\" has no meaning for opaque TCP", ""),
    (
        "FROM, to: spiffe://a.test/other, tcp: 80, expect: deny",
        "p.yaml:5:35: the policy does not protect spiffe://a.test/other",
        "",
    ),
    ("FROM, tcp: 80, jwt: invalid, expect: deny", "p.yaml:5:45: \"jwt\" has no meaning for opaque TCP", ""),
    (
        "FROM, tcp: 80, headers: {x-a: b}, expect: deny",
        "p.yaml:5:49: \"headers\" has no meaning for opaque TCP",
        "",
    ),
    (
        "FROM, tcp: 80, at: noon, expect: deny",
        "p.yaml:5:44: \"noon\" is not a date such as 2027-01-31 or 2027-01-31T18:00:00Z: not a day, nor a date and time with an offset",
        "",
    ),
    (
        "FROM, tcp: 80, source_ip: 10.0.0.0/8, expect: deny",
        "p.yaml:5:51: \"10.0.0.0/8\" is not an address such as 10.20.0.7: invalid IP address syntax",
        "",
    ),
];

#[test]
fn a_case_of_a_policy_with_only_wildcards_says_whom_it_calls() {
    let text = "vouchsafe: policy/v1\nname: p\nprotects: spiffe://a.test/*\ntests: [{from: unauthenticated, tcp: 80, expect: deny}]\n";

    let (message, cure) = problem(text);

    assert_eq!(message, "p.yaml:4:9: the test does not say which workload is called");
    assert_eq!(cure, "add \"to:\" with the SPIFFE ID of a workload that the policy protects");
    accepted(&text.replace("{from", "{to: spiffe://a.test/web, from"));
}

#[test]
fn rule_names_are_unique_in_a_policy_across_allow_and_deny() {
    let rule = format!("{{{FROM}, tcp: {{port: 80}}}}");

    let (message, cure) = problem(&format!("{HEAD}allow:\n  - {rule}\ndeny:\n  - {rule}\n"));

    assert_eq!(message, "p.yaml:7:5: the rule name \"r\" is already used on line 5");
    assert_eq!(cure, "give each rule of a policy a name of its own");
}

#[test]
fn all_problems_of_a_policy_are_reported_at_once() {
    let text = "vouchsafe: policy/v1\nname: a b\nprotects: x\nallow:\n  - {name: r, from: [y], http: {port: 0, paths: [z], methods: [get]}}\nextra: 1\n";

    let shown = refusal(text);

    for place in ["2:7", "3:11", "5:22", "5:39", "5:50", "5:64", "6:1"] {
        assert!(shown.contains(&format!("p.yaml:{place}: ")), "{place} in {shown}");
    }
}

#[test]
fn every_list_is_accepted_to_its_limit_and_not_beyond() {
    let list =
        |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let id = |number: usize| format!("spiffe://a.test/x{number}");
    let both = |limit: usize, text: &dyn Fn(usize) -> String| {
        accepted(&text(limit));
        let shown = refusal(&text(limit + 1));
        assert!(shown.contains(&format!("has {} items, at most {limit} are accepted", limit + 1)), "{shown}");
    };

    both(MAX_FROM, &|count| rule(&format!("name: r, from: [{}], tcp: {{port: 1}}", list(count, &id))));
    both(MAX_FROM, &|count| rule(&format!("{FROM}, except: [{}], tcp: {{port: 1}}", list(count, &id))));
    both(MAX_NETWORKS, &|count| {
        let net = |number: usize| format!("10.{}.{}.0/24", number / 256, number % 256);
        rule(&format!("{FROM}, source_net: [{}], tcp: {{port: 1}}", list(count, &net)))
    });
    both(MAX_PORTS, &|count| {
        rule(&format!("{FROM}, tcp: {{ports: [{}]}}", list(count, &|number| (number + 1).to_string())))
    });
    both(MAX_METHODS, &|count| {
        rule(&format!(
            "{FROM}, http: {{port: 1, methods: [{}]}}",
            list(count, &|number| format!("M{number}"))
        ))
    });
    both(MAX_HOSTS, &|count| {
        rule(&format!(
            "{FROM}, http: {{port: 1, hosts: [{}]}}",
            list(count, &|number| format!("h{number}.example"))
        ))
    });
    both(MAX_PATHS, &|count| {
        rule(&format!("{FROM}, http: {{port: 1, paths: [{}]}}", list(count, &|number| format!("/p{number}"))))
    });
    both(MAX_PROTECTS, &|count| format!("vouchsafe: policy/v1\nname: p\nprotects: [{}]\n", list(count, &id)));
    both(MAX_TESTS, &|count| {
        format!(
            "{HEAD}tests: [{}]\n",
            list(count, &|_| "{from: unauthenticated, tcp: 1, expect: deny}".to_owned())
        )
    });
}

#[test]
fn a_policy_has_rules_to_its_limit_and_not_beyond() {
    let rules = |key: &str, count: usize| {
        let one = |number: usize| format!("  - {{name: {key}{number}, from: [anyone], tcp: {{port: 1}}}}\n");
        format!("{key}:\n{}", (0..count).map(one).collect::<String>())
    };
    let half = MAX_RULES_PER_POLICY / 2;

    accepted(&format!("{HEAD}{}{}", rules("allow", half), rules("deny", half)));
    let shown = refusal(&format!("{HEAD}{}{}", rules("allow", half), rules("deny", half + 1)));
    assert!(shown.contains("the policy has 10001 rules, at most 10000 are accepted"), "{shown}");
}

#[test]
fn a_name_is_accepted_to_its_limit_and_not_beyond() {
    let named = |length: usize| {
        format!("vouchsafe: policy/v1\nname: {}\nprotects: spiffe://a.test/web\n", "n".repeat(length))
    };

    accepted(&named(MAX_NAME));
    assert!(refusal(&named(MAX_NAME + 1)).contains("is not a name"));
}

proptest! {
    #![proptest_config(crate::testing::cases(3_000))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        let _ = read(&Source::new("p.yaml", text), &KeyFiles::default());
    }

    #[test]
    fn no_policy_with_its_pieces_shuffled_makes_it_panic(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "vouchsafe: policy/v1\n", "name: p\n", "protects: spiffe://a.test/web\n", "mode: shadow\n", "until: 2027-01-31\n",
            "allow:\n", "deny:\n", "tests:\n", "  - name: r\n", "    from: [anyone]\n", "    from:\n", "    except: [x]\n",
            "    tcp: {port: 80}\n", "    http: {port: any, paths: [/a/**]}\n", "    source_net: [10.0.0.0/8]\n",
            "  - {from: unauthenticated, tcp: 80, expect: deny}\n", "  - []\n", "  - {}\n", "[]\n", "{}\n", "- \n",
        ]), 0..14)
    ) {
        let _ = read(&Source::new("p.yaml", pieces.concat()), &KeyFiles::default());
    }
}
