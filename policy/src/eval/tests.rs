//! What questions mean, and which lines are none.

use std::time::{Duration, SystemTime};

use super::*;
use crate::strict::Source;
use crate::{PolicySet, compile};

const POLICY: &str = "\
vouchsafe: policy/v1
name: api
protects: spiffe://prod.test/ns/shop/sa/api
allow:
  - name: reads
    from: [spiffe://prod.test/ns/shop/sa/web]
    http: {port: 8443, methods: [GET], hosts: [api.test], paths: [/a/**]}
  - name: raw
    from: [spiffe://prod.test/ns/shop/sa/web]
    tcp: {port: 9090}
deny:
  - name: admin
    from: [anyone]
    http: {port: 8443, paths: [/a/admin/**]}
";

#[test]
fn a_question_is_answered_with_the_rule_and_its_place() {
    let answer =
        answered(r#"{"peer":"WEB","port":8443,"http":{"method":"GET","host":"api.test","path":"/a/x"}}"#);

    assert_eq!((answer.decision, answer.reason), ("allow", "allow_matched"));
    assert_eq!(answer.rule.as_deref(), Some("api/reads"));
    assert_eq!((answer.file.as_deref(), answer.line), (Some("api.yaml"), Some(5)));
}

#[test]
fn each_refusal_has_its_reason() {
    for (line, reason, rule) in [
        (
            r#"{"peer":"WEB","port":8443,"http":{"method":"GET","host":"api.test","path":"/a/admin"}}"#,
            "explicit_deny",
            Some("api/admin"),
        ),
        (
            r#"{"peer":"WEB","port":8443,"http":{"method":"PUT","host":"api.test","path":"/a/x"}}"#,
            "no_allow_matched",
            None,
        ),
        (r#"{"peer":null,"port":9090,"http":null}"#, "unauthenticated", None),
        (r#"{"port":9090}"#, "unauthenticated", None),
        (
            r#"{"peer":"WEB","port":8443,"http":{"method":"GET","host":"api.test","path":"/a%2Fb"}}"#,
            "malformed_request",
            None,
        ),
    ] {
        let answer = answered(line);
        assert_eq!(
            (answer.decision, answer.reason, answer.rule.as_deref()),
            ("deny", reason, rule),
            "{line}"
        );
    }
}

#[test]
fn a_host_is_compared_without_its_port_and_may_stand_in_the_header() {
    for http in [
        r#"{"method":"GET","host":"API.test:8443","path":"/a/x"}"#,
        r#"{"method":"GET","path":"/a/x","headers":[["Host","api.test"]]}"#,
        r#"{"method":"GET","host":"api.test","path":"/a/x?q=1","headers":[["host","api.test"],["x","y"]]}"#,
    ] {
        assert_eq!(answered(&format!(r#"{{"peer":"WEB","port":8443,"http":{http}}}"#)).decision, "allow");
    }
}

#[test]
fn what_a_sidecar_answers_with_400_is_malformed() {
    for (http, detail) in [
        (r#"{"method":"G T","path":"/a"}"#, "the method is not a token"),
        (r#"{"method":"","path":"/a"}"#, "the method is not a token"),
        (r#"{"method":"GET","path":"a"}"#, "path does not begin with \"/\""),
        (r#"{"method":"GET","path":"/a;b"}"#, "path contains a \";\""),
        (r#"{"method":"GET","host":"a@b","path":"/a"}"#, "host contains user information"),
        (
            r#"{"method":"GET","host":"a","path":"/a","headers":[["host","b"]]}"#,
            "the request names several hosts",
        ),
        (
            r#"{"method":"GET","path":"/a","headers":[["x","y"],["a b","c"]]}"#,
            "the header field 2 is not a name and a value",
        ),
        (
            r#"{"method":"GET","path":"/a","headers":[["x","y\u0000"]]}"#,
            "the header field 1 is not a name and a value",
        ),
    ] {
        let answer = answered(&format!(r#"{{"peer":"WEB","port":8443,"http":{http}}}"#));
        assert_eq!((answer.decision, answer.reason), ("deny", "malformed_request"), "{http}");
        assert_eq!(answer.detail.as_deref(), Some(detail), "{http}");
    }
}

#[test]
fn a_tunnel_and_another_protocol_are_not_plain_requests() {
    let connect = r#"{"peer":"WEB","port":8443,"http":{"method":"CONNECT","host":"api.test:443"}}"#;
    let upgrade = r#"{"peer":"WEB","port":8443,"http":{"method":"GET","host":"api.test","path":"/a/x","headers":[["Upgrade","websocket"]]}}"#;

    // A tunnel has no path, and what is absent escapes no denial.
    assert_eq!(answered(connect).reason, "explicit_deny");
    assert_eq!(answered(upgrade).reason, "no_allow_matched");
}

#[test]
fn a_line_that_is_no_question_is_an_error() {
    for (line, told) in [
        ("", "not a request"),
        ("[]", "not a request"),
        ("{", "not a request"),
        ("{}", "missing field `port`"),
        (r#"{"port":0.5}"#, "not a request"),
        (r#"{"port":65536}"#, "not a request"),
        (r#"{"port":80,"port":81}"#, "duplicate field"),
        (r#"{"port":80,"prot":"tcp"}"#, "unknown field `prot`"),
        (r#"{"port":80,"http":{"method":"GET","path":"/","body":""}}"#, "unknown field `body`"),
        (r#"{"port":80,"http":{"method":"GET"}}"#, "no \"path\""),
        (r#"{"port":80,"http":{"method":"GET","path":"/","headers":[["a"]]}}"#, "not a request"),
        (r#"{"port":80,"peer":"prod.test/web"}"#, "\"peer\""),
        (r#"{"port":80,"peer":""}"#, "\"peer\""),
        (r#"{"port":80,"source_ip":"10.0.0.0/8"}"#, "\"source_ip\" is not an address"),
        (r#"{"port":80,"dest_ip":"x"}"#, "\"dest_ip\" is not an address"),
        (r#"{"port":80,"time":"noon"}"#, "\"time\" is not a date"),
        (r#"{"port":80,"jwt":{"iss":"x"}}"#, "no meaning without"),
        (r#"{"port":80,"jwt":[],"http":{"method":"GET","path":"/"}}"#, "\"jwt\" is the object"),
        (r#"{"port":80} {"port":81}"#, "not a request"),
    ] {
        let error = evaluator().answer(line.as_bytes(), now()).unwrap_err().to_string();
        assert!(error.contains(told), "{line}: {error}");
    }
}

#[test]
fn a_question_is_read_to_its_limit_and_not_beyond() {
    let whole = r#"{"port":80}"#.to_owned() + &" ".repeat(MAX_QUESTION_BYTES - 11);

    assert!(Question::parse(whole.as_bytes()).is_ok());
    assert!(matches!(Question::parse(format!("{whole} ").as_bytes()), Err(QuestionError::TooLong)));
}

#[test]
fn a_question_may_name_its_moment() {
    let policy = POLICY.replace("allow:", "mode: shadow\nuntil: 2027-01-31\nallow:");
    let evaluator = of(&compiled(&policy));
    let asked = |time: &str| evaluator.answer(format!(r#"{{"port":9090{time}}}"#).as_bytes(), now()).unwrap();

    let before = asked("");
    let after = asked(r#","time":"2027-01-31""#);

    assert_eq!((before.decision, before.reason), ("allow", "default_allow"));
    assert_eq!(before.shadow.unwrap().reason, "unauthenticated");
    assert_eq!((after.decision, after.reason), ("deny", "unauthenticated"));
}

#[test]
fn a_workload_file_says_who_and_in_which_mesh() {
    let file = "spiffe_id: spiffe://prod.test/ns/shop/sa/api\nlabels: {app: api, \"v\": \"1\"}\nroot_namespace: mesh\n\
                trust_domain_aliases: [old.test]\npath_normalization: MERGE_SLASHES\ncompat: ambient\nunselected: deny\n";

    let read = EvalWorkload::read(&Source::new("w.yaml", file)).unwrap();

    assert_eq!(read.workload.namespace, "shop");
    assert_eq!(read.workload.labels.get("v").map(String::as_str), Some("1"));
    assert_eq!((read.mesh.root_namespace.as_str(), read.mesh.trust_domain.as_str()), ("mesh", "prod.test"));
    assert_eq!(read.mesh.trust_domain_aliases, ["old.test"]);
    assert_eq!(read.mesh.path_normalization, crate::PathNormalization::MergeSlashes);
    assert_eq!(read.mesh.compat, crate::Compat::Ambient);
    assert_eq!(read.mesh.unselected, crate::Unselected::Deny);
}

#[test]
fn a_workload_file_may_be_json() {
    let file = r#"{"spiffe_id": "spiffe://prod.test/api", "namespace": "shop", "labels": {"app": "api"}}"#;

    let read = EvalWorkload::read(&Source::new("w.json", file)).unwrap();

    assert_eq!((read.workload.namespace.as_str(), read.workload.labels.len()), ("shop", 1));
    assert_eq!(read.mesh.trust_domain, "prod.test");
}

#[test]
fn a_flawed_workload_file_is_refused_with_every_flaw() {
    for (file, told) in [
        ("spiffe_id: prod.test/api\n", "w.yaml:1:12"),
        ("namespace: shop\n", "the key \"spiffe_id\" is missing"),
        ("spiffe_id: spiffe://a.test/b\nlabel: {}\n", "did you mean \"labels\"?"),
        ("spiffe_id: spiffe://a.test/b\nlabels: {app: 1}\n", "w.yaml:2:15"),
        ("spiffe_id: spiffe://a.test/b\ncompat: side\n", "sidecar"),
        ("spiffe_id: spiffe://a.test/b\npath_normalization: base\n", "BASE"),
        ("- a\n", "expected a mapping"),
    ] {
        let problems = EvalWorkload::read(&Source::new("w.yaml", file)).unwrap_err().to_string();
        assert!(problems.contains(told), "{file}: {problems}");
    }
    let both = EvalWorkload::read(&Source::new("w.yaml", "spiffe_id: x\ncompat: y\n")).unwrap_err();
    assert_eq!(both.count(), 2);
}

#[test]
fn labels_are_accepted_to_their_limit_and_not_beyond() {
    let file = |count: usize| {
        let labels: String = (0..count).map(|number| format!("  l{number}: v\n")).collect();
        Source::new("w.yaml", format!("spiffe_id: spiffe://a.test/b\nlabels:\n{labels}"))
    };

    assert!(EvalWorkload::read(&file(MAX_LABELS)).is_ok());
    assert!(EvalWorkload::read(&file(MAX_LABELS + 1)).is_err());
}

#[test]
fn the_one_workload_that_native_policies_name_is_assumed() {
    let two = POLICY.replace("name: api", "name: b").replace("sa/api", "sa/other");
    let files = [Source::new("a.yaml", POLICY), Source::new("b.yaml", two.clone())];
    let pattern = [Source::new("a.yaml", POLICY.replace("sa/api", "sa/*"))];

    let one = assumed_workload(&compiled(POLICY)).unwrap();

    assert_eq!((one.id.path(), one.namespace.as_str()), ("/ns/shop/sa/api", "shop"));
    assert!(matches!(assumed_workload(&compile(&files).unwrap()), Err(WorkloadError::Several { .. })));
    assert_eq!(assumed_workload(&compile(&pattern).unwrap()), Err(WorkloadError::NoneNamed));
}

#[test]
fn istio_files_are_taken_to_select_the_workload_where_that_is_possible() {
    let one = istio("a", "shop", "app: api");
    let everywhere = istio("b", "istio-system", "tier: back");

    let workload = assumed_workload(&set(&[&one, &everywhere])).unwrap();

    assert_eq!(workload.id.as_str(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!((workload.namespace.as_str(), workload.labels.len()), ("shop", 2));
    let others = [istio("b", "other", "app: api"), istio("b", "shop", "app: web")];
    assert!(matches!(assumed_workload(&set(&[&one, &others[0]])), Err(WorkloadError::Namespaces { .. })));
    assert!(matches!(assumed_workload(&set(&[&one, &others[1]])), Err(WorkloadError::Labels { .. })));
}

#[test]
fn istio_rules_decide_a_path_that_has_no_canonical_form_and_native_ones_refuse_it() {
    let istio = set(&[&istio("a", "shop", "app: api")]);
    let workload = assumed_workload(&istio).unwrap();
    let evaluator = Evaluator::new(istio.protecting(&workload), istio.mesh(), Reading::of(&istio));
    let asked = |path: &str| {
        let line = format!(r#"{{"port":80,"http":{{"method":"GET","host":"a b","path":"{path}"}}}}"#);
        evaluator.answer(line.as_bytes(), now()).unwrap()
    };

    assert_eq!(Reading::of(&istio), Reading::Istio);
    assert_eq!(asked("/a%2Fb;c?x").decision, "allow");
    assert_eq!(asked("/x/../a%2Fb;c").decision, "allow");
    assert_eq!(asked("/other").reason, "unauthenticated");
    assert_eq!(Reading::of(&compiled(POLICY)), Reading::Canonical);
}

fn istio(name: &str, namespace: &str, label: &str) -> Source {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  selector: {{matchLabels: {{{label}}}}}\n  rules:\n  - to: [{{operation: {{paths: [\"/a%2Fb;c\"]}}}}]\n"
    );
    Source::new(format!("{name}.yaml"), text)
}

fn set(files: &[&Source]) -> PolicySet {
    let files: Vec<Source> = files.iter().map(|file| (*file).clone()).collect();
    compile(&files).unwrap()
}

fn answered(line: &str) -> Answer {
    evaluator().answer(line.replace("WEB", "spiffe://prod.test/ns/shop/sa/web").as_bytes(), now()).unwrap()
}

fn evaluator() -> Evaluator {
    of(&compiled(POLICY))
}

fn of(set: &PolicySet) -> Evaluator {
    let id = "spiffe://prod.test/ns/shop/sa/api".parse().unwrap();
    Evaluator::new(set.for_workload(&id), set.mesh(), Reading::Canonical)
}

fn compiled(text: &str) -> PolicySet {
    compile(&[Source::new("api.yaml", text)]).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}
