use std::time::SystemTime;

use identity::SpiffeId;

use super::{
    MAX_FILES, MAX_RULES, MAX_SET_BYTES, Options, check_size, compile, compile_with, too_many_rules,
};
use crate::strict::Source;
use crate::{Connection, PeerIdentity};

const SAMPLE: &str = r#"
vouchsafe: policy/v1
name: payments-api
owner: team-payments@example.com
protects: spiffe://prod.example/ns/payments/sa/api
mode: enforce
allow:
  - name: checkout-reads
    from: [spiffe://prod.example/ns/shop/sa/checkout]
    http: {port: 8443, methods: [GET, HEAD], paths: [/v1/accounts/*, /v1/rates/**]}
  - name: batch-settles
    from: [spiffe://prod.example/ns/batch/sa/*]
    except: [spiffe://prod.example/ns/batch/sa/sandbox]
    http: {port: 9443, methods: [POST], paths: [/payments.v1.Settlement/Submit]}
    source_net: [10.20.0.0/16]
  - name: metrics
    from: [spiffe://prod.example/ns/monitoring/sa/prometheus]
    tcp: {port: 9090}
deny:
  - name: admin-is-breakglass-only
    from: [anyone]
    except: [spiffe://prod.example/ns/ops/sa/breakglass]
    http: {port: 8443, paths: [/admin/**]}
tests:
  - {from: spiffe://prod.example/ns/shop/sa/checkout, http: GET 8443 /v1/rates/eur, expect: allow, by: checkout-reads}
  - {from: spiffe://prod.example/ns/shop/sa/checkout, http: POST 8443 /v1/rates/eur, expect: deny}
  - {from: unauthenticated, tcp: 9090, expect: deny}
"#;

#[test]
fn the_sample_of_the_manual_loads_and_passes_its_tests() {
    let set = compile(&[Source::new("payments.yaml", SAMPLE)]).map_err(|p| p.to_string()).unwrap();

    assert!(set.run_tests().passed());
    let api = SpiffeId::parse("spiffe://prod.example/ns/payments/sa/api").unwrap();
    let prometheus = SpiffeId::parse("spiffe://prod.example/ns/monitoring/sa/prometheus").unwrap();
    let connection = Connection::new(
        PeerIdentity::Authenticated(&prometheus),
        "10.0.0.1".parse().unwrap(),
        9090,
        SystemTime::now(),
    );
    assert!(set.for_workload(&api).decide_tcp(&connection).is_allowed());
}

fn source(name: &str, rest: &str) -> Source {
    let stem = name.strip_suffix(".yaml").unwrap();
    Source::new(name, format!("vouchsafe: policy/v1\nname: {stem}\nprotects: spiffe://a.test/web\n{rest}"))
}

fn refusal(files: &[Source]) -> String {
    compile(files).map(|_| ()).expect_err("a refusal").to_string()
}

const READS: &str = "allow: [{name: reads, from: [spiffe://a.test/x], http: {port: 80, methods: [GET]}}]\n";

#[test]
fn a_failing_test_refuses_the_whole_set_at_its_line_with_the_nearest_rule() {
    let broken = source(
        "p.yaml",
        &format!("{READS}tests:\n  - {{from: spiffe://a.test/x, http: POST 80 /a, expect: allow}}\n"),
    );

    let shown = refusal(&[broken, source("q.yaml", "")]);

    assert_eq!(
        shown,
        "p.yaml:6:5: test failed: POST 80 /a from spiffe://a.test/x to spiffe://a.test/web is denied (no_allow_matched) by no rule, expected allow\n    \
         6 |   - {from: spiffe://a.test/x, http: POST 80 /a, expect: allow}\n      |     ^\n      = nearest: p/reads (p.yaml:4): \
         method is POST, the rule wants GET"
    );
}

#[test]
fn a_test_that_expects_another_rule_fails() {
    let test = |by: &str| {
        source(
            "p.yaml",
            &format!(
                "{READS}tests: [{{from: spiffe://a.test/x, http: GET 80 /a, expect: allow, by: {by}}}]\n"
            ),
        )
    };

    assert!(compile(&[test("reads")]).is_ok() && compile(&[test("p/reads")]).is_ok());
    assert!(refusal(&[test("writes")]).contains("is allowed by p/reads (p.yaml:4), expected by \"writes\""));
    assert!(refusal(&[test("q/reads")]).contains("expected by \"q/reads\""));
}

#[test]
fn a_test_sees_the_rules_of_every_file() {
    let tested = source(
        "p.yaml",
        &format!("{READS}tests: [{{from: spiffe://a.test/x, http: GET 80 /a, expect: allow}}]\n"),
    );
    let deny = source("q.yaml", "deny: [{name: stop, from: [anyone], tcp: {port: 80}}]\n");

    assert!(compile(std::slice::from_ref(&tested)).is_ok());
    assert!(
        refusal(&[deny, tested]).contains("is denied (explicit_deny) by q/stop (q.yaml:4), expected allow")
    );
}

#[test]
fn a_test_of_a_shadow_policy_tries_it_as_it_will_enforce_unless_it_names_a_moment() {
    let shadow =
        |test: &str| source("p.yaml", &format!("mode: shadow\nuntil: 2027-01-31\n{READS}tests: [{test}]\n"));

    assert!(compile(&[shadow("{from: spiffe://a.test/y, tcp: 80, expect: deny}")]).is_ok());
    assert!(compile(&[shadow("{from: spiffe://a.test/y, tcp: 80, expect: allow, at: 2027-01-30}")]).is_ok());
    assert!(compile(&[shadow("{from: spiffe://a.test/y, tcp: 80, expect: deny, at: 2027-01-31}")]).is_ok());
}

#[test]
fn policy_names_are_unique_between_files() {
    let twin = Source::new("z.yaml", source("p.yaml", "").text);

    let shown = refusal(&[twin, source("p.yaml", "")]);

    assert_eq!(
        shown,
        "z.yaml:2:7: the policy name \"p\" is already used in p.yaml\n    2 | name: p\n      |       ^\n      = give each policy a name of its own"
    );
}

#[test]
fn the_problems_of_every_file_are_reported_together() {
    let shown =
        refusal(&[source("p.yaml", "alow: []\n"), source("q.yaml", ""), source("r.yaml", "deny: []\n")]);

    assert!(
        shown.contains("p.yaml:4:1: unknown key \"alow\"") && shown.contains("r.yaml:4:7: the list is empty"),
        "{shown}"
    );
}

#[test]
fn one_bad_file_refuses_the_others_too() {
    assert!(compile(&[source("p.yaml", READS), source("q.yaml", "mode: maybe\n")]).is_err());
}

#[test]
fn the_generation_is_the_content_in_any_order_and_every_byte_counts() {
    let generation = |files: &[Source]| compile(files).unwrap().generation().to_owned();
    let (p, q) = (source("p.yaml", READS), source("q.yaml", ""));

    let both = generation(&[p.clone(), q.clone()]);

    assert_eq!(both, generation(&[q.clone(), p.clone()]));
    assert_eq!(both.len(), 64);
    let commented = Source::new("q.yaml", format!("{}# more\n", q.text));
    let renamed = Source::new("r.yaml", q.text);
    for other in
        [generation(std::slice::from_ref(&p)), generation(&[p.clone(), commented]), generation(&[p, renamed])]
    {
        assert_ne!(both, other);
    }
}

#[test]
fn a_set_has_files_and_bytes_to_its_limit_and_not_beyond() {
    let many: Vec<Source> = (0..=MAX_FILES).map(|number| Source::new(format!("{number}.yaml"), "")).collect();
    assert!(refusal(&many).contains("there are 20001 files, at most 20000 are accepted"));
    let big = vec![Source::new("p.yaml", "#".repeat(MAX_SET_BYTES / 16 + 1)); 16];
    assert!(refusal(&big).contains("at most 67108864 are accepted"));
}

#[test]
fn a_set_has_rules_to_its_limit_and_not_beyond() {
    assert_eq!(too_many_rules(MAX_RULES), None);
    let shown = too_many_rules(MAX_RULES + 1).unwrap().to_string();
    assert_eq!(shown, "policies: there are 200001 rules, at most 200000 are accepted");
}

#[test]
fn a_file_given_twice_is_refused() {
    assert!(
        refusal(&[source("p.yaml", ""), source("p.yaml", "")]).contains("p.yaml: the file is given twice")
    );
}

const ISTIO_DENY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: d, namespace: a}\n\
    spec: {action: DENY, rules: [{to: [{operation: {ports: [\"9000\"]}}]}]}\n";
const ISTIO_ALLOW: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: e, namespace: a}\n\
    spec: {rules: [{}]}\n";
const NATIVE_ALLOW: &str = "vouchsafe: policy/v1\nname: open\nprotects: spiffe://t.test/ns/a/sa/x\n\
    allow:\n  - {name: r, from: [unauthenticated], tcp: {port: any}}\n";
const NATIVE_DENY: &str = "vouchsafe: policy/v1\nname: local\nprotects: spiffe://t.test/ns/a/sa/x\n\
    deny:\n  - {name: r, from: [anyone], tcp: {port: 9000}}\n";

fn passes(files: &[(&str, &str)], denials: &[(&str, &str)], port: u16) -> bool {
    let sources = |files: &[(&str, &str)]| {
        files.iter().map(|(name, text)| Source::new(*name, *text)).collect::<Vec<_>>()
    };
    let options = Options { denials: sources(denials), ..Options::default() };
    let set = compile_with(&sources(files), &options).unwrap();
    let id = SpiffeId::parse("spiffe://t.test/ns/a/sa/x").unwrap();
    let connection =
        Connection::new(PeerIdentity::Unauthenticated, crate::net::ANY_ADDRESS, port, SystemTime::UNIX_EPOCH);
    set.for_workload(&id).decide_tcp(&connection).is_allowed()
}

#[test]
fn files_that_may_only_refuse_open_nothing() {
    assert!(!passes(&[], &[("local/d.yaml", ISTIO_DENY)], 1));
    assert!(!passes(&[], &[("local/n.yaml", NATIVE_DENY)], 1));
    let shadow = NATIVE_DENY.replace("name: local\n", "name: local\nmode: shadow\nuntil: 2027-01-01\n");
    assert!(!passes(&[], &[("local/s.yaml", &shadow)], 1));
}

#[test]
fn files_that_may_only_refuse_refuse_beside_the_others() {
    for denial in [ISTIO_DENY, NATIVE_DENY] {
        for file in [NATIVE_ALLOW, ISTIO_ALLOW] {
            assert!(passes(&[("a.yaml", file)], &[("local/d.yaml", denial)], 1));
            assert!(!passes(&[("a.yaml", file)], &[("local/d.yaml", denial)], 9000));
            assert!(passes(&[("a.yaml", file)], &[], 9000));
        }
    }
}

#[test]
fn files_that_may_only_refuse_are_refused_where_they_allow() {
    let tokens = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: d, namespace: a}\nspec: {}\n";
    for (text, expected) in [
        (NATIVE_ALLOW, "l.yaml:2:7: the rule \"r\" allows, and this file may only deny"),
        (ISTIO_ALLOW, "l.yaml:3:18: the policy allows, and this file may only deny"),
        (tokens, "l.yaml:3:18: the file says whose tokens count, and may only deny"),
    ] {
        let options = Options { denials: vec![Source::new("l.yaml", text)], ..Options::default() };
        let problems = compile_with(&[], &options).map(|_| ()).unwrap_err();
        assert!(problems.to_string().starts_with(expected), "{problems}");
    }
}

#[test]
fn istio_files_beside_native_ones_let_nothing_pass_that_they_do_not_select() {
    let elsewhere = ISTIO_DENY.replace("namespace: a", "namespace: b");

    assert!(passes(&[("a.yaml", &elsewhere)], &[], 1));
    let other = NATIVE_ALLOW.replace("sa/x", "sa/y");
    assert!(!passes(&[("a.yaml", &elsewhere), ("b.yaml", &other)], &[], 1));
    assert!(!passes(&[], &[], 1));
}

#[test]
fn a_guarantee_that_does_not_hold_or_cannot_be_proved_refuses_the_load() {
    let promise = "vouchsafe: policy/v1\nname: g\nprotects: spiffe://t.test/ns/a/sa/x\n\
        guarantees:\n  - never: {from: [unauthenticated]}\n";
    let load = |files: &[&str]| {
        let files: Vec<Source> = files
            .iter()
            .enumerate()
            .map(|(number, text)| Source::new(format!("{number}.yaml"), *text))
            .collect();
        compile_with(&files, &Options::default()).map(|_| ()).map_err(|problems| problems.to_string())
    };

    assert_eq!(load(&[promise]), Ok(()));
    let broken = load(&[promise, NATIVE_ALLOW]).unwrap_err();
    assert!(broken.starts_with("0.yaml:5:5: guarantee broken: "), "{broken}");
    assert!(broken.contains("open/r (1.yaml:5)"), "{broken}");
    let labelled = ISTIO_DENY.replace("spec: {", "spec: {selector: {matchLabels: {app: x}}, ");
    let unknown = load(&[promise, &labelled]).unwrap_err();
    assert!(unknown.contains("select workloads by labels, which an identity does not tell"), "{unknown}");
    let wide = promise.replace("{from:", "{to: [spiffe://t.test/**], from:");
    assert!(load(&[&wide, ISTIO_DENY]).unwrap_err().contains("several namespaces"));
}

#[test]
fn an_issuer_is_declared_by_us_or_by_istios_files_and_not_by_both() {
    let jwks =
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let ours = source(
        "a.yaml",
        "issuers: [{issuer: https://i.test, audiences: [us], keys: {url: https://i.test/keys}}]\n\
         allow:\n  - {name: a, from: [spiffe://a.test/x], jwt: {issuer: https://i.test}, http: {port: 80}}\n",
    );
    let theirs = |issuer: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: shop}}\n\
             spec:\n  jwtRules:\n  - issuer: {issuer}\n    jwks: '{jwks}'\n"
        );
        Source::new("b.yaml", text)
    };

    assert!(compile(&[ours.clone(), theirs("https://j.test")]).is_ok());
    let refused = refusal(&[ours, theirs("https://i.test")]);
    assert!(refused.contains("is already declared in a.yaml"), "{refused}");
}

#[test]
fn files_that_may_only_refuse_keep_out_no_file_of_the_set() {
    let named = NATIVE_DENY.replace("name: local", "name: open");

    assert!(passes(&[("a.yaml", NATIVE_ALLOW)], &[("local/d.yaml", &named)], 1));
    assert!(!passes(&[("a.yaml", NATIVE_ALLOW)], &[("local/d.yaml", &named)], 9000));
    let elsewhere = ISTIO_DENY.replace("9000", "9001");
    assert!(!passes(
        &[("a.yaml", &elsewhere), ("b.yaml", NATIVE_ALLOW)],
        &[("local/d.yaml", ISTIO_DENY)],
        9000
    ));
    let twice = Options {
        denials: vec![Source::new("local/a.yaml", NATIVE_DENY), Source::new("local/b.yaml", NATIVE_DENY)],
        ..Options::default()
    };
    assert!(
        compile_with(&[], &twice)
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .contains("already used in local/a.yaml")
    );
    let most = vec![Source::new("x.json", "{}"); MAX_FILES];
    assert!(check_size(&most).is_ok() && check_size(&[most.as_slice(), &most[..1]].concat()).is_err());
}

#[test]
fn a_token_for_others_than_its_issuer_declares_grants_nothing_offline_either() {
    let text = |audience: &str, expect: &str| {
        format!(
            "issuers: [{{issuer: https://i.test, audiences: [us], keys: {{url: https://i.test/keys}}}}]\n\
             allow:\n  - {{name: r, from: [spiffe://a.test/x], jwt: {{issuer: https://i.test}}, http: {{port: 80}}}}\n\
             tests:\n  - {{from: spiffe://a.test/x, http: GET 80 /, jwt: {{iss: https://i.test, aud: {audience}}}, expect: {expect}}}\n"
        )
    };

    assert!(compile(&[source("a.yaml", &text("us", "allow"))]).is_ok());
    assert!(compile(&[source("a.yaml", &text("them", "deny"))]).is_ok());
    assert!(compile(&[source("a.yaml", &text("them", "allow"))]).is_err());
}
