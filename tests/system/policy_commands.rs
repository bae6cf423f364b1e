//! The commands about policies, on real files: what they print, how they end, and what they make of bad input.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::command::{Ended, command, run};
use crate::support::sidecar::{CALLER, Callee, SERVER, allow_path};
use crate::support::tls;
use crate::support::wait::within;

const API: &str = "spiffe://prod.test/ns/shop/sa/api";
const WEB: &str = "spiffe://prod.test/ns/shop/sa/web";

const POLICY: &str = "\
vouchsafe: policy/v1
name: api
protects: spiffe://prod.test/ns/shop/sa/api
allow:
  - name: reads
    from: [spiffe://prod.test/ns/shop/sa/web]
    http: {port: 8443, methods: [GET], paths: [/a/**]}
deny:
  - name: admin
    from: [anyone]
    http: {port: 8443, paths: [/a/admin/**]}
tests:
  - {from: spiffe://prod.test/ns/shop/sa/web, http: GET 8443 /a/x, expect: allow, by: reads}
";

const ISTIO: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
    to: [{operation: {methods: [GET], paths: [\"/a/*\"]}}]
";

/// A directory with one policy file, and room for others beside it.
struct Desk {
    root: TempDir,
}

impl Desk {
    fn with(text: &str) -> Self {
        let desk = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir(desk.root.path().join("policies")).unwrap();
        desk.write("policies/api.yaml", text);
        desk
    }

    fn policies(&self) -> String {
        self.path("policies")
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn eval(&self, requests: &str) -> Ended {
        let file = self.write("requests.jsonl", requests);
        run(&["policy", "eval", "--policies", &self.policies(), "--requests", &file, "-o", "jsonl"])
    }

    fn policy(&self, words: &[&str]) -> Ended {
        let policies = self.policies();
        let words = words.iter().map(|word| if *word == "DIR" { policies.as_str() } else { word });
        run(&["policy"].into_iter().chain(words).collect::<Vec<_>>())
    }
}

fn request(peer: &str, method: &str, path: &str) -> String {
    let http = json!({"method": method, "host": "api", "path": path, "headers": [["accept", "*/*"]]});
    json!({"peer": peer, "source_ip": "10.0.0.1", "dest_ip": null, "port": 8443, "sni": null, "http": http, "jwt": null})
        .to_string()
}

#[test]
fn requests_are_decided_in_order_each_with_its_rule_and_place() {
    let desk = Desk::with(POLICY);
    let tcp = r#"{"peer":null,"port":9090}"#;

    let asked = [request(WEB, "GET", "/a/x"), request(WEB, "GET", "/a/admin"), tcp.to_owned()].join("\n");
    let answers = desk.eval(&asked).expect(0).json_lines();

    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["decision"], "allow");
    assert_eq!((&answers[0]["rule"], &answers[0]["line"]), (&json!("api/reads"), &json!(5)));
    assert!(answers[0]["file"].as_str().unwrap().ends_with("api.yaml"), "{}", answers[0]);
    assert_eq!((&answers[1]["rule"], &answers[1]["reason"]), (&json!("api/admin"), &json!("explicit_deny")));
    assert_eq!((&answers[2]["rule"], &answers[2]["reason"]), (&Value::Null, &json!("unauthenticated")));
}

#[test]
fn a_line_that_is_no_request_is_answered_in_its_place_and_makes_the_command_exit_2() {
    let desk = Desk::with(POLICY);
    let good = request(WEB, "GET", "/a/x");
    let long = format!("{{\"port\":1,\"sni\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    let bad = ["", "nonsense", r#"{"port":1,"prot":2}"#, "{\"port\":\"\u{0}\"}", long.as_str()];
    let lines: Vec<&str> = bad.iter().flat_map(|line| [*line, good.as_str()]).collect();

    let told = desk.eval(&lines.join("\n")).expect(2);

    let answers = told.json_lines();
    assert_eq!(answers.len(), 10);
    for (number, pair) in answers.chunks(2).enumerate() {
        assert_eq!(pair[0]["line"], json!(2 * number + 1), "{}", pair[0]);
        assert!(pair[0]["error"].is_string() && pair[0].get("decision").is_none(), "{}", pair[0]);
        assert_eq!(pair[1]["decision"], "allow");
    }
    assert!(told.stderr.contains("5 of 10 requests cannot be read"), "{}", told.stderr);
}

#[test]
fn refused_policies_leave_standard_output_empty() {
    let desk = Desk::with(&POLICY.replace("allow:", "alow:"));

    let told = desk.eval(&request(WEB, "GET", "/a/x")).expect(2);

    assert_eq!(told.stdout, "");
    assert!(told.stderr.contains("api.yaml:4:1") && told.stderr.contains("did you mean"), "{}", told.stderr);
}

#[test]
fn several_workloads_need_a_file_that_says_which() {
    let desk = Desk::with(POLICY);
    desk.write("policies/b.yaml", POLICY.replace("sa/api", "sa/b").replace("name: api", "name: b"));
    let workload = desk.write("w.yaml", format!("spiffe_id: {API}\nlabels: {{app: api}}\n"));
    let requests = desk.write("r.jsonl", request(WEB, "GET", "/a/x"));
    let words = ["policy", "eval", "--policies", &desk.policies(), "--requests", &requests];

    let without = run(&words).expect(2);
    let with = run(&[&words[..], &["--workload", &workload]].concat()).expect(0);

    assert!(without.stderr.contains("--workload") && without.stdout.is_empty(), "{}", without.stderr);
    assert_eq!(with.json_lines()[0]["decision"], "allow");
    desk.write("w.yaml", "spiffe_id: prod.test/api\nlabls: {}\n");
    let flawed = run(&[&words[..], &["--workload", &workload]].concat()).expect(2);
    assert!(flawed.stderr.contains("w.yaml:1:12") && flawed.stderr.contains("labels"), "{}", flawed.stderr);
}

#[test]
fn istio_files_are_evaluated_with_their_own_meaning() {
    let desk = Desk::with(ISTIO);
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let lines = [
        request(web, "GET", "/a/x"),
        request(web, "GET", "/a%2Fx;y"),
        request(web, "POST", "/a/x"),
        request("spiffe://cluster.local/ns/shop/sa/dev", "GET", "/a/x"),
    ];

    let answers = desk.eval(&lines.join("\n")).expect(0).json_lines();

    let decisions: Vec<&str> = answers.iter().map(|answer| answer["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["allow", "deny", "deny", "deny"]);
    assert_eq!(
        answers[1]["reason"], "no_allow_matched",
        "a path without canonical form is still Istio's to decide"
    );
}

#[test]
fn one_request_at_a_time_is_answered_at_once() {
    use std::io::{BufRead as _, BufReader};
    let desk = Desk::with(POLICY);
    let words = ["policy", "eval", "--policies", &desk.policies(), "--requests", "-"];
    let mut child = command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let mut from = BufReader::new(child.stdout.take().unwrap());

    for path in ["/a/x", "/b"] {
        writeln!(to, "{}", request(WEB, "GET", path)).unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["decision"] == "allow", path == "/a/x", "{answer}");
    }
    drop(to);

    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_hundred_thousand_requests_take_seconds() {
    let desk = Desk::with(POLICY);
    let requests: Vec<String> =
        (0..100_000).map(|number| request(WEB, "GET", &format!("/a/{number}"))).collect();
    let start = Instant::now();

    let told = desk.eval(&requests.join("\n")).expect(0);

    assert_eq!(told.stdout.lines().count(), 100_000);
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn every_command_refuses_what_cannot_be_read_and_names_it() {
    let desk = Desk::with(POLICY);
    let huge = desk.path("huge.yaml");
    File::create(&huge).unwrap().set_len(100 * 1024 * 1024).unwrap();
    let circle = desk.path("circle.yaml");
    symlink("circle.yaml", &circle).unwrap();
    let nul = desk.write("nul.yaml", b"vouchsafe: policy/v1\nname: \"a\0b\"\n");
    let latin = desk.write("latin.yaml", b"vouchsafe: \xff\n");
    let missing = desk.path("missing");
    fs::create_dir(desk.path("empty")).unwrap();
    let empty = desk.path("empty");

    for input in [&huge, &circle, &nul, &latin, &missing, &empty] {
        let name = Path::new(input).file_name().unwrap().to_str().unwrap();
        for words in [
            ["check", input].as_slice(),
            &["test", input],
            &["reach", input],
            &["lint", input],
            &["fmt", "--check", input],
            &["graph", input],
            &["bench", input],
            &["diff", input, &desk.policies()],
            &["diff", &desk.policies(), input],
            &["import", input, "--out", &desk.path("out")],
            &["eval", "--policies", input, "--requests", "/dev/null"],
        ] {
            let told = desk.policy(words).expect(2);
            assert!(told.stderr.contains(name), "{words:?}: {}", told.stderr);
            assert_eq!(told.stdout, "", "{words:?}");
        }
    }
    assert!(!PathBuf::from(desk.path("out")).exists(), "nothing was written");
}

#[test]
fn a_call_is_explained_from_json_as_from_arguments() {
    let desk = Desk::with(POLICY);

    let denied = desk.policy(&[
        "explain",
        "--policies",
        "DIR",
        "--request",
        &request(WEB, "POST", "/a/x"),
        "-o",
        "json",
    ]);
    let allowed = desk.policy(&["explain", "--policies", "DIR", "--request", &request(WEB, "GET", "/a/x")]);
    let neither = desk.policy(&["explain", "--policies", "DIR"]);

    let document = denied.expect(4).json();
    assert_eq!(document["schema"], "vouchsafe/policy-explanation/v1");
    assert_eq!(document["decision"]["deny"]["near_misses"][0]["failed"], "method");
    assert!(allowed.expect(0).stdout.contains("api/reads"));
    neither.expect(2);
}

#[test]
fn coverage_names_the_rules_that_no_test_decides() {
    let desk = Desk::with(POLICY);

    let some = desk.policy(&["test", "--coverage", "-o", "json", "DIR"]).expect(3).json();
    desk.write(
        "policies/api.yaml",
        format!("{POLICY}  - {{from: {WEB}, http: GET 8443 /a/admin, expect: deny, by: admin}}\n"),
    );
    let all = desk.policy(&["test", "--coverage", "DIR"]).expect(0);

    assert_eq!(some["items"][0]["tests"], 1);
    assert_eq!(some["items"][1]["tests"], 0);
    assert!(all.stdout.contains("2 of 2 rules covered"), "{}", all.stdout);
}

#[test]
fn reach_lists_ways_with_a_request_that_shows_each() {
    let desk = Desk::with(POLICY);

    let ways = desk.policy(&["reach", "--to", API, "-o", "json", "DIR"]).expect(0).json();
    let none = desk
        .policy(&["reach", "--from", "spiffe://prod.test/ns/dev/**", "-o", "json", "DIR"])
        .expect(0)
        .json();

    assert_eq!(ways["ways"][0]["rule"]["rule"], "reads");
    assert_eq!(none["ways"], json!([]));
    let witness = ways["ways"][0]["witness"].as_object().unwrap();
    let question: serde_json::Map<String, Value> = witness
        .iter()
        .filter(|(key, _)| *key != "to")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let answer = &desk.eval(&Value::from(question).to_string()).expect(0).json_lines()[0];
    assert_eq!(answer["decision"], "allow", "the witness does not pass: {ways}");
}

#[test]
fn a_change_that_widens_exits_3_and_one_that_narrows_0() {
    let desk = Desk::with(POLICY);
    let wider = desk.write("wider.yaml", POLICY.replace("[GET]", "[GET, PUT]"));
    let narrower = desk.write(
        "narrower.yaml",
        POLICY.replace("/a/**", "/a/b").replace("/a/x, expect: allow, by: reads", "/a/b, expect: allow"),
    );

    let widens = desk.policy(&["diff", "--only-narrows", "-o", "json", "DIR", &wider]).expect(3).json();
    let narrows = desk.policy(&["diff", "DIR", &narrower]).expect(0);
    desk.policy(&["diff", "--only-narrows", "DIR", "DIR"]).expect(0);

    assert_eq!(widens["gained"][0]["witness"]["http"]["method"], "PUT");
    assert_eq!(widens["only_narrows"], false);
    assert!(narrows.stdout.contains("the change only narrows"), "{}", narrows.stdout);
}

#[test]
fn lint_knows_the_registry() {
    let desk = Desk::with(&POLICY.replace("sa/web]", "sa/wbe]").replace("sa/web, http", "sa/wbe, http"));
    let entries = desk.write(
        "entries/e.yaml",
        format!("vouchsafe: entries/v1\nentries:\n  - {{spiffe_id: \"{WEB}\", node: host-1, selectors: [\"unix:uid:1\"]}}\n  - {{spiffe_id: \"{API}\", node: host-1, selectors: [\"unix:uid:2\"]}}\n"),
    );

    let told = desk.policy(&["lint", "--entries", &entries, "-o", "json", "DIR"]).expect(3).json();

    let unknown = told["findings"].as_array().unwrap().iter().find(|finding| finding["kind"] == "unknown_id");
    let cure = unknown.unwrap_or_else(|| panic!("{told}"))["cure"].as_str().unwrap().to_owned();
    assert!(cure.contains(WEB), "{cure}");
}

#[test]
fn files_are_formatted_checked_and_rewritten_whole() {
    let desk = Desk::with(&POLICY.replace("name: api\n", "name:    api\n"));
    let file = desk.path("policies/api.yaml");

    let differs = desk.policy(&["fmt", "--check", "DIR"]).expect(3);
    let shown = desk.policy(&["fmt", &file]).expect(0);
    desk.policy(&["fmt", "--write", "DIR"]).expect(0);

    assert!(differs.stdout.contains("api.yaml"), "{}", differs.stdout);
    assert_eq!(fs::read_to_string(&file).unwrap(), shown.stdout);
    desk.policy(&["fmt", "--check", "DIR"]).expect(0);
    desk.policy(&["check", "DIR"]).expect(0);
    assert_eq!(fs::read_dir(desk.policies()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn the_schema_is_json() {
    let schema = run(&["policy", "schema"]).expect(0).json();

    assert!(schema["$schema"].is_string(), "{schema}");
}

#[test]
fn imported_files_load_and_nothing_is_overwritten() {
    let desk = Desk::with(ISTIO);
    let out = desk.path("native");

    let told = desk.policy(&["import", "DIR", "--out", &out, "-o", "json"]).expect(0).json();

    assert_eq!(told["schema"], "vouchsafe/policy-import/v1");
    let made = told["files"][0].as_str().unwrap().to_owned();
    run(&["policy", "check", &out]).expect(0);
    fs::write(&made, "mine\n").unwrap();
    let again = desk.policy(&["import", "DIR", "--out", &out]).expect(2);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&made).unwrap(), "mine\n");
}

#[test]
fn the_graph_is_drawn_in_each_format_and_always_the_same() {
    let desk = Desk::with(POLICY);
    let drawn = |format: &str| desk.policy(&["graph", "--format", format, "DIR"]).expect(0);

    let svg = drawn("svg").stdout;

    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains(WEB) && !svg.contains("<script"), "{svg}");
    assert_eq!(svg, drawn("svg").stdout);
    assert!(drawn("dot").stdout.contains(&format!("\"{WEB}\" -> \"{API}\"")));
    assert_eq!(drawn("json").json()["edges"][0]["kind"], "allowed");
}

#[test]
fn bench_measures_the_policies_themselves() {
    let desk = Desk::with(POLICY);

    let told = desk.policy(&["bench", "--time", "1s", "-o", "json", "DIR"]).expect(0).json();

    assert_eq!((&told["rules"], &told["schema"]), (&json!(2), &json!("vouchsafe/policy-bench/v1")));
    assert!(told["p99_ns"].as_u64().unwrap() >= told["p50_ns"].as_u64().unwrap());
    assert!(told["decisions"].as_u64().unwrap() > 1_000);
}

#[test]
fn every_new_command_is_completed_by_the_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]).expect(0).stdout;
        for name in [
            "eval", "reach", "diff", "lint", "fmt", "schema", "import", "graph", "replay", "learn", "bench",
            "why",
        ] {
            assert!(script.contains(name), "{name} in {shell}");
        }
    }
}

#[test]
fn why_tells_each_layer_and_what_was_not_asked() {
    let desk = Desk::with(POLICY);
    let ask = |words: &[&str]| {
        let policies = desk.policies();
        run(&[&["why", WEB, API, "--policies", &policies][..], words].concat())
    };

    let allowed = ask(&["--port", "8443", "GET /a/x", "-o", "json"]).expect(0).json();
    let denied = ask(&["--port", "8443", "POST /a/x"]).expect(4);
    let unknown = run(&["why", WEB, API, "--port", "8443", "GET /a/x"]).expect(1);
    ask(&["GET /a/x"]).expect(1);

    let standing = |name: &str| {
        let layers = allowed["layers"].as_array().unwrap();
        layers.iter().find(|layer| layer["name"] == name).unwrap()["standing"].clone()
    };
    assert_eq!((standing("rule"), standing("registration")), (json!("fine"), json!("unknown")));
    assert!(
        denied.stdout.contains("nearest: api/reads") && denied.stdout.contains("api.yaml:5"),
        "{}",
        denied.stdout
    );
    assert!(unknown.stdout.contains("no policies to ask"), "{}", unknown.stdout);
}

#[test]
fn why_reads_the_listener_from_the_sidecars_configuration() {
    let desk = Desk::with(POLICY);
    let proxy = desk.write(
        "proxy.yaml",
        format!(
            "vouchsafe: proxy/v1\nidentity: {API}\npolicies: {}\nsource:\n  workload_api: unix:///run/a.sock\n\
             inbound:\n  - {{name: api, listen: \"127.0.0.1:8443\", protocol: http, application: \"127.0.0.1:2\"}}\n",
            desk.policies()
        ),
    );
    let ask = |words: &[&str]| run(&[&["why", WEB, API, "--proxy", &proxy][..], words].concat());

    let allowed = ask(&["GET /a/x"]).expect(0);
    let tcp = ask(&[]).expect(4);
    let elsewhere = ask(&["--port", "9000", "GET /a/x"]).expect(4);

    assert!(allowed.stdout.contains("api on 127.0.0.1:8443 speaks http"), "{}", allowed.stdout);
    assert!(tcp.stdout.contains("no request was given"), "{}", tcp.stdout);
    assert!(elsewhere.stdout.contains("no inbound listener on port 9000"), "{}", elsewhere.stdout);
}

#[test]
fn why_decides_as_of_a_past_time() {
    let desk = Desk::with(&POLICY.replace("allow:", "mode: shadow\nuntil: 2020-01-31\nallow:"));
    let policies = desk.policies();
    let ask = |at: &str| {
        run(&["why", WEB, API, "--policies", &policies, "--port", "8443", "--at", at, "POST /a/x"])
    };

    ask("2020-01-30T00:00:00Z").expect(0);
    ask("2020-02-01T00:00:00Z").expect(4);
}

#[test]
fn what_a_sidecar_refused_is_learned_replayed_and_drawn() {
    let callee = Callee::http();
    let (to, from, port) = (callee.authority.id(SERVER), callee.authority.id(CALLER), callee.inbound.port());
    let narrow = allow_path("api", &to, &from, port);
    callee.sidecar.policy("api.yaml", &narrow);
    within(Duration::from_secs(10), "the narrow policy is in force", || {
        matches!(tls::get(callee.inbound, &callee.caller, "/orders/1"), Ok(answer) if answer.status == 403)
            .then_some(())
    });
    for path in ["/orders/2", "/orders/3", "/orders/4", "/other"] {
        assert_eq!(tls::get(callee.inbound, &callee.caller, path).unwrap().status, 403);
    }
    callee.sidecar.audit.wait_for_denied(5);
    let log = callee.sidecar.audit.path().display().to_string();
    let desk = Desk::with(&narrow);
    let learned = desk.policy(&["learn", "--log", &log, "--policies", "DIR"]).expect(0).stdout;
    let replay =
        |words: &[&str]| run(&[&["policy", "replay", "--log", &log, "-o", "json"][..], words].concat());

    let same = replay(&[&desk.policies()]);
    let proposed = desk.write("policies/learned.yaml", &learned);
    let changed = replay(&[&desk.policies()]).expect(3).json();
    let drawn = desk.policy(&["graph", "--format", "json", "--log", &log, "DIR"]).expect(0).json();

    assert!(learned.contains("\"/orders/*\"") && learned.contains("\"/other\""), "{learned}");
    assert!(learned.contains("paths that differ in a number only"), "{learned}");
    run(&["policy", "check", &proposed]).expect(0);
    let no_change = same.json();
    assert_eq!(no_change["changed"], json!([]), "{no_change}");
    let rows = changed["changed"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["was"] == "denied" && row["decision"]["decision"] == "allow"),
        "{changed}"
    );
    let calls: u64 = rows.iter().map(|row| row["calls"].as_u64().unwrap()).sum();
    assert!(calls >= 5, "{changed}");
    let kinds: Vec<&Value> = drawn["edges"].as_array().unwrap().iter().map(|edge| &edge["kind"]).collect();
    assert!(kinds.contains(&&json!("denied")) && kinds.contains(&&json!("used")), "{drawn}");
}

#[test]
fn a_log_that_is_none_is_refused() {
    let desk = Desk::with(POLICY);
    let missing = desk.path("none.jsonl");

    for words in [
        ["replay", "--log", &missing, "DIR"].as_slice(),
        &["learn", "--log", &missing],
        &["graph", "--log", &missing, "DIR"],
    ] {
        let told = desk.policy(words).expect(2);
        assert!(told.stderr.contains("none.jsonl"), "{words:?}: {}", told.stderr);
    }
    let torn = desk.write("torn.jsonl", "{\"time\": 1}\n\0\0\n");
    let told = desk.policy(&["replay", "--log", &torn, "DIR"]).expect(0);
    assert!(
        told.stderr.contains("torn.jsonl:1") && told.stdout.contains("0 calls on record"),
        "{}",
        told.stderr
    );
}
