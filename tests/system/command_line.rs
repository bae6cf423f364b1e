//! The command line: exit codes, JSON, help with examples.

use std::net::{Ipv4Addr, TcpListener};

use crate::support::cluster::{Ca, Pair, WEB, id};
use crate::support::command::{clean, ended, run};
use crate::support::http;
use crate::support::sidecar::{CALLER, SERVER, allow_path};

const POLICY_TO: &str = "spiffe://prod.test/ns/shop/sa/api";
const POLICY_FROM: &str = "spiffe://prod.test/ns/shop/sa/web";

#[test]
fn unknown_commands_and_flags_are_usage_errors() {
    for words in [
        ["nonsense"].as_slice(),
        &["ca", "rnu"],
        &["proxy", "run", "--confg", "x"],
        &["ca", "entry", "create"],
        &[],
    ] {
        let told = run(words);
        assert_eq!(told.code, 2, "{words:?}: {}", told.stderr);
        assert_eq!(told.stdout, "", "{words:?} wrote to standard output");
    }
}

#[test]
fn help_has_an_example_for_every_command() {
    let commands: [&[&str]; 21] = [
        &["ca", "run"],
        &["ca", "check"],
        &["ca", "token", "create"],
        &["ca", "entry", "create"],
        &["ca", "entry", "list"],
        &["ca", "entry", "show"],
        &["ca", "entry", "update"],
        &["ca", "entry", "delete"],
        &["ca", "entry", "apply"],
        &["ca", "bundle", "show"],
        &["ca", "agent", "list"],
        &["ca", "agent", "ban"],
        &["ca", "agent", "evict"],
        &["agent", "run"],
        &["proxy", "run"],
        &["svid", "fetch"],
        &["svid", "watch"],
        &["policy", "check"],
        &["policy", "explain"],
        &["audit", "query"],
        &["dev"],
    ];
    for words in commands {
        let told = run(&[words, &["--help"]].concat()).expect(0);
        assert!(told.stdout.contains("Example"), "{words:?} has no example");
    }
}

#[test]
fn peers_that_are_not_there_are_told_apart_from_failures() {
    let root = tempfile::tempdir().unwrap();
    let nowhere = root.path().join("nobody.sock").display().to_string();
    let endpoint = format!("unix://{nowhere}");

    assert_eq!(run(&["ca", "entry", "list", "--admin-socket", &nowhere]).code, 5);
    assert_eq!(run(&["ca", "bundle", "show", "--admin-socket", &nowhere]).code, 5);
    assert_eq!(run(&["whoami", "--socket", &endpoint]).code, 5);
    assert_eq!(run(&["svid", "fetch", "--timeout", "1s", "--socket", &endpoint]).code, 5);
}

#[test]
fn policy_commands_answer_with_their_exit_codes_and_json() {
    let root = tempfile::tempdir().unwrap();
    let good = root.path().join("good.yaml");
    std::fs::write(&good, allow_path("api", POLICY_TO, POLICY_FROM, 8443)).unwrap();
    let bad = root.path().join("bad.yaml");
    std::fs::write(&bad, "vouchsafe: policy/v1\nname: x\nprotects: spiffe://prod.test/x\nalow: []\n")
        .unwrap();
    let failing = root.path().join("failing.yaml");
    let test = format!("tests:\n  - {{from: {POLICY_FROM}, http: GET 8443 /allowed/x, expect: deny}}\n");
    std::fs::write(&failing, allow_path("api", POLICY_TO, POLICY_FROM, 8443) + &test).unwrap();
    let (good, bad, failing) =
        (good.display().to_string(), bad.display().to_string(), failing.display().to_string());

    run(&["policy", "check", &good]).expect(0);
    let problems = run(&["policy", "check", &bad]);
    assert!(matches!(problems.code, 2 | 3), "{}", problems.code);
    let told = format!("{}{}", problems.stdout, problems.stderr);
    assert!(told.contains("bad.yaml:4:1") && told.contains("allow") && told.contains('^'), "{told}");
    run(&["policy", "test", &good]).expect(0);
    assert_eq!(run(&["policy", "test", &failing]).code, 3);
    let ask = |request: &str| {
        run(&[
            "policy",
            "explain",
            "--policies",
            &good,
            "--from",
            POLICY_FROM,
            "--to",
            POLICY_TO,
            "--port",
            "8443",
            "-o",
            "json",
            request,
        ])
    };
    let allowed = ask("GET /allowed/x").expect(0).json();
    let denied = ask("POST /allowed/x").expect(4).json();
    assert!(allowed.to_string().contains("reads"), "{allowed}");
    assert!(
        denied.to_string().contains("reads") && denied.to_string().contains("method"),
        "no nearest rule: {denied}"
    );
    assert!(allowed["schema"].is_string() && denied["schema"].is_string());
}

#[test]
fn entries_go_their_way_through_the_command_line() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let parent = id("/node/a");
    let made = ca.entry(&parent, &id("/cli/web"), std::path::Path::new("/usr/bin/web"), "30m");

    let shown = ca.admin(&["entry", "show", &made, "-o", "json"]).expect(0).json();
    assert_eq!(shown["spiffe_id"], id("/cli/web"), "{shown}");
    ca.admin(&["entry", "update", &made, "--x509-ttl", "10m"]).expect(0);
    let updated = ca.admin(&["entry", "show", &made, "-o", "json"]).expect(0).json();
    assert_ne!(updated, shown, "the update changed nothing");
    assert_eq!(ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines().len(), 1);
    let again = ca.admin(&[
        "entry",
        "create",
        "--id",
        &id("/cli/web"),
        "--parent",
        &parent,
        "--selector",
        "unix:path:/usr/bin/web",
    ]);
    assert!(matches!(again.code, 1..=3), "the same entry twice: {}", again.code);
    ca.admin(&["entry", "delete", &made, "--dry-run"]).expect(0);
    assert_eq!(
        ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines().len(),
        1,
        "a dry run deletes nothing"
    );
    ca.admin(&["entry", "delete", &made]).expect(0);
    assert_eq!(ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).stdout, "");
    assert_ne!(ca.admin(&["entry", "show", &made]).code, 0);
    assert_eq!(
        ca.admin(&[
            "entry",
            "create",
            "--id",
            "spiffe://elsewhere.test/x",
            "--parent",
            &parent,
            "--selector",
            "unix:uid:1"
        ])
        .code,
        2
    );
    assert_eq!(
        ca.admin(&["entry", "create", "--id", "not-an-id", "--parent", &parent, "--selector", "unix:uid:1"])
            .code,
        2
    );
}

#[test]
fn entry_files_are_applied_and_their_difference_is_found_first() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let file = root.path().join("entries.yaml");
    std::fs::write(&file, entries_file(&["/files/a", "/files/b"])).unwrap();
    let path = file.display().to_string();

    assert_eq!(ca.admin(&["entry", "apply", &path, "--dry-run"]).code, 3);
    ca.admin(&["entry", "apply", &path]).expect(0);
    assert_eq!(ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines().len(), 2);
    assert_eq!(ca.admin(&["entry", "apply", &path, "--dry-run"]).code, 0, "nothing is left to do");
    std::fs::write(&file, entries_file(&["/files/a", "/files/b"]).replace("selectors", "selectrs")).unwrap();
    let refused = ca.admin(&["entry", "apply", &path]).expect(2);
    assert!(
        refused.stderr.contains("entries.yaml:") && refused.stderr.contains("selectors"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines().len(),
        2,
        "a refused file changed something"
    );
}

/// A file of entries for two paths, in the form that `docs/operations.md` describes.
pub(crate) fn entries_file(paths: &[&str]) -> String {
    let entries = paths.iter().map(|path| {
        format!(
            "  - {{spiffe_id: {}, parent_id: {}, selectors: [\"unix:uid:4321\"]}}\n",
            id(path),
            id("/node/a")
        )
    });
    format!("vouchsafe: entries/v1\nentries:\n{}", entries.collect::<String>())
}

#[test]
fn agents_are_listed_banned_and_evicted() {
    let pair = Pair::start("", "1h");
    let listed = pair.ca.admin(&["agent", "list", "-o", "jsonl"]).expect(0).json_lines();
    let agent = listed[0]["spiffe_id"].as_str().or(listed[0]["id"].as_str()).unwrap().to_owned();

    assert_eq!(listed.len(), 1, "{listed:?}");
    pair.ca.admin(&["agent", "ban", &agent, "--dry-run"]).expect(0);
    pair.ca.admin(&["agent", "ban", &agent]).expect(0);
    let banned = pair.ca.admin(&["agent", "list", "-o", "json"]).expect(0).stdout;
    assert!(banned.contains("ban"), "{banned}");
    pair.ca.admin(&["agent", "evict", &agent]).expect(0);
    assert_eq!(pair.ca.admin(&["agent", "list", "-o", "jsonl"]).expect(0).stdout, "");
}

#[test]
fn a_denied_call_is_found_by_its_id_and_explained() {
    let pair = Pair::start("", "1h");
    pair.api.policy(
        "http.yaml",
        &allow_path("http", &id(crate::support::cluster::API), &id(WEB), pair.http.inbound.port()),
    );
    let answer = crate::support::wait::eventually("a call is denied", || {
        http::get(pair.http.outbound, "/forbidden").ok().filter(|answer| answer.status == 403)
    });
    let told: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
    let denial = told["denial_id"].as_str().expect("a denial id").to_owned();
    pair.api.audit.wait_for_denial(|record| record["unmapped"]["vouchsafe"]["denial_id"] == denial.as_str());
    let log = pair.api.audit.path().display().to_string();

    let found = run(&["audit", "query", "--denial", &denial, "-o", "jsonl", &log]).expect(0).json_lines();
    let none = run(&["audit", "query", "--denial", "01JD9Z6Q4T8M0V2W7Y5N3K1R4S", "-o", "jsonl", &log]);
    let grouped = run(&[
        "audit",
        "query",
        "--reason",
        "no_allow_matched",
        "--group-by",
        "from,reason",
        "-o",
        "json",
        &log,
    ])
    .expect(0);
    let last = run(&["audit", "tail", "-n", "1", "-o", "jsonl", &log]).expect(0).json_lines();

    assert_eq!(found.len(), 1);
    assert!(
        found[0].to_string().contains("no_allow_matched") && found[0].to_string().contains("reads"),
        "{found:?}"
    );
    assert_eq!(none.stdout, "");
    assert!(grouped.stdout.contains(&id(WEB)), "{}", grouped.stdout);
    assert_eq!(last.len(), 1);
}

#[test]
fn whoami_tells_what_matches_and_what_is_missing() {
    let pair = Pair::start("", "1h");
    let program = pair.root.path().join("bin/web");
    let socket = pair.agent.endpoint();
    let of_web =
        ended(clean(std::process::Command::new(&program), &["whoami", "--socket", &socket, "-o", "json"]))
            .expect(0)
            .json();
    let admin = pair.agent.admin_socket().display().to_string();
    let pid = pair.api.process.pid().to_string();
    let of_api = run(&["whoami", "--pid", &pid, "--admin-socket", &admin, "-o", "json"]);

    assert!(of_web.to_string().contains(&id(WEB)), "{of_web}");
    assert!(of_web.to_string().contains(&program.display().to_string()), "no path selector in {of_web}");
    assert_eq!(of_api.code, 0, "{}", of_api.stderr);
    assert!(of_api.stdout.contains(&id(crate::support::cluster::API)), "{}", of_api.stdout);
    let near = run(&["whoami", "--socket", &socket]);
    assert!(
        near.stdout.contains("unix:path:") || near.stderr.contains("unix:path:"),
        "no missing selector is named: {}",
        near.stdout
    );
}

#[test]
fn svid_fetch_prints_the_identity_and_watch_runs_its_command_on_renewal() {
    let pair = Pair::start("svid_ttl: 10s\n", "10s");
    let program = pair.root.path().join("bin/web");
    let out = pair.root.path().join("watched");
    let marks = pair.root.path().join("marks");
    let (socket, out_text) = (pair.agent.endpoint(), out.display().to_string());

    let fetched = ended(clean(
        std::process::Command::new(&program),
        &["svid", "fetch", "--socket", &socket, "-o", "json"],
    ))
    .expect(0)
    .json();
    let hook = format!("echo x >> {}", marks.display());
    let words = ["svid", "watch", "--socket", &socket, "--out", &out_text, "--exec", &hook];
    let mut watching = crate::support::process::Process::start(
        "watch",
        pair.root.path(),
        clean(std::process::Command::new(&program), &words),
    );
    crate::support::wait::within(std::time::Duration::from_secs(40), "the command ran three times", || {
        watching.must_run();
        let text = std::fs::read_to_string(&marks).unwrap_or_default();
        (text.lines().count() >= 3).then_some(())
    });

    assert!(fetched.to_string().contains(&id(WEB)), "{fetched}");
    assert!(!fetched.to_string().contains("PRIVATE KEY"), "the key is printed");
    for name in ["svid.pem", "key.pem", "bundle.pem"] {
        assert!(out.join(name).exists(), "{name}");
    }
}

#[test]
fn completion_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completion", shell]).expect(0).stdout.contains("vouchsafe"), "{shell}");
    }
    assert!(run(&["man"]).expect(0).stdout.contains(".TH"), "no manual page");
    let root = tempfile::tempdir().unwrap();
    run(&["man", "--out", &root.path().display().to_string()]).expect(0);
    assert!(std::fs::read_dir(root.path()).unwrap().count() > 20);
}

#[test]
fn an_environment_variable_beats_the_file_and_a_flag_beats_both() {
    let root = tempfile::tempdir().unwrap();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let config = root.path().join("ca.yaml");
    let text = format!(
        "vouchsafe: ca/v1\ntrust_domain: cluster.test\ndata_dir: {0}/data\nlisten: \"127.0.0.1:0\"\n",
        root.path().display()
    );
    std::fs::write(&config, text).unwrap();
    let words = ["ca", "run", "--config", &config.display().to_string()];

    let mut by_environment = clean(std::process::Command::new(crate::support::command::binary()), &words);
    by_environment.env("VOUCHSAFE_CA_LISTEN", &taken);
    let refused = ended(by_environment);

    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains(&taken), "{}", refused.stderr);
    assert_eq!((CALLER, SERVER), ("/ns/shop/sa/web", "/ns/shop/sa/api"));
}
