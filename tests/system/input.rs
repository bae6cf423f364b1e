//! Bad input to the daemons: exit 2 with the place and the cure, nothing changed, nothing opened.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::support::backend::Backend;
use crate::support::cluster::{Ca, id};
use crate::support::command::{Ended, run};
use crate::support::pki::Authority;
use crate::support::port;
use crate::support::sidecar::{SERVER, Setup, TRUST_DOMAIN};
use crate::support::tls;
use crate::support::wait::{eventually, within};

/// A broken configuration: the daemon, the text, the place of the problem, a word of the cure.
type Broken = (&'static str, &'static str, &'static str, &'static str);

const BROKEN: [Broken; 17] = [
    ("ca", "vouchsafe: ca/v2\n", "1:12", "ca/v1"),
    ("ca", "trust_domain: prod.test\n", "1:1", "vouchsafe"),
    ("ca", "vouchsafe: ca/v1\ntrust_domian: prod.test\ndata_dir: /x\n", "2:1", "trust_domain"),
    ("ca", "vouchsafe: ca/v1\ntrust_domain: Prod.Test\ndata_dir: /x\n", "2:15", "trust domain"),
    (
        "ca",
        "vouchsafe: ca/v1\ntrust_domain: prod.test\ntrust_domain: b.test\ndata_dir: /x\n",
        "3:1",
        "trust_domain",
    ),
    ("ca", "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /x\nlisten: 8081\n", "4:9", "listen"),
    ("ca", "vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: /x\nca_ttl: 24\n", "4:9", "1h"),
    ("ca", "vouchsafe: ca/v1\ntrust_domain: &a prod.test\ndata_dir: *a\n", "2:15", "anchor"),
    (
        "agent",
        "vouchsafe: agent/v1\ntrust_domain: prod.test\nca: ca.prod.test\ndata_dir: /x\n",
        "3:5",
        "port",
    ),
    (
        "agent",
        "vouchsafe: agent/v1\ntrust_domain: prod.test\nca: \"ca:8081\"\ndata_dir: /x\nbootstrap: {insecure: true}\n",
        "5:13",
        "join_string_file",
    ),
    ("agent", "vouchsafe: agent/v1\n\ttrust_domain: prod.test\n", "2:1", "tab"),
    ("agent", "vouchsafe: proxy/v1\n", "1:12", "agent/v1"),
    (
        "proxy",
        "vouchsafe: proxy/v1\npolicies: /x\ninbound:\n  - {name: a, listen: \"0.0.0.0:1\", protocol: htttp, application: \"127.0.0.1:2\"}\n",
        "4:46",
        "http",
    ),
    (
        "proxy",
        "vouchsafe: proxy/v1\npolicies: /x\ninbound:\n  - {name: a, listen: \"0.0.0.0:1\", protocol: http, application: \"10.0.0.1:2\"}\n",
        "4:65",
        "loopback",
    ),
    (
        "proxy",
        "vouchsafe: proxy/v1\npolicies: /x\noutbound:\n  - {name: a, listen: \"127.0.0.1:1\", protocol: tcp, endpoints: [\"h:1\"], expect: []}\n",
        "4:81",
        "expect",
    ),
    ("proxy", "vouchsafe: proxy/v1\npolicies: /x\nadmin: {listen: \"0.0.0.0:15000\"}\n", "3:17", "loopback"),
    ("proxy", "vouchsafe: proxy/v1\npolicies: [\n", "", "policies"),
];

#[test]
fn broken_configurations_are_refused_by_check_and_run_with_place_and_cure() {
    let root = tempfile::tempdir().unwrap();

    for (number, (daemon, text, place, cure)) in BROKEN.iter().enumerate() {
        let file = root.path().join(format!("broken-{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        for verb in ["check", "run"] {
            let told = run(&[daemon, verb, "--config", &file.display().to_string()]);
            let all = format!("{}{}", told.stdout, told.stderr);

            assert_eq!(told.code, 2, "{daemon} {verb} of\n{text}\n{all}");
            let place = if place.is_empty() { String::new() } else { format!(":{place}") };
            assert!(
                all.contains(&format!("broken-{number}.yaml{place}")),
                "{daemon} {verb}: no {place} in\n{all}"
            );
            assert!(
                all.to_lowercase().contains(&cure.to_lowercase()),
                "{daemon} {verb}: no {cure:?} in\n{all}"
            );
        }
    }
    assert!(!Path::new("/x").exists(), "a refused configuration made a directory");
}

#[test]
fn a_configuration_that_is_not_there_is_refused() {
    for daemon in ["ca", "agent", "proxy"] {
        let told = run(&[daemon, "run", "--config", "/nonexistent/vouchsafe.yaml"]).expect(2);
        assert!(told.stderr.contains("/nonexistent/vouchsafe.yaml"), "{}", told.stderr);
    }
}

#[test]
fn sound_configurations_pass_the_check_and_open_nothing() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("ca.yaml");
    let text =
        format!("vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: {}/data\n", root.path().display());
    std::fs::write(&file, text).unwrap();

    run(&["ca", "check", "--config", &file.display().to_string()]).expect(0);

    assert!(!root.path().join("data").exists(), "a check made the data directory");
}

/// What they name need not be there on this machine, and the check says so; but nothing in them may be refused.
#[test]
fn the_installed_example_configurations_are_acceptable() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/config");

    for daemon in ["ca", "agent", "proxy"] {
        let told =
            run(&[daemon, "check", "--config", &config.join(format!("{daemon}.yaml")).display().to_string()]);
        assert!(matches!(told.code, 0 | 3), "{daemon}: {} {}{}", told.code, told.stdout, told.stderr);
    }
    run(&["policy", "check", &config.join("policies").display().to_string()]).expect(0);
}

#[test]
fn a_port_in_use_ends_each_daemon_with_the_address_in_its_message() {
    let root = tempfile::tempdir().unwrap();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let taken = held.local_addr().unwrap();
    let dir = root.path().display().to_string();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    std::fs::create_dir(root.path().join("policies")).unwrap();
    let ca =
        format!("vouchsafe: ca/v1\ntrust_domain: prod.test\ndata_dir: {dir}/data\nlisten: \"{taken}\"\n");
    let proxy = proxy_text(&dir, taken);

    for (daemon, text) in [("ca", ca), ("proxy", proxy)] {
        let told = run_text(root.path(), daemon, &text);
        assert_eq!(told.code, 1, "{daemon}: {}", told.stderr);
        assert!(told.stderr.contains(&taken.to_string()), "{daemon}: {}", told.stderr);
    }
}

fn proxy_text(dir: &str, listen: SocketAddr) -> String {
    format!(
        "vouchsafe: proxy/v1\nsource: {{pem: {{certificate: {dir}/pem/svid.pem, key: {dir}/pem/key.pem, bundle: {dir}/pem/bundle.pem}}}}\npolicies: {dir}/policies\ninbound:\n  - {{name: a, listen: \"{listen}\", protocol: tcp, application: \"127.0.0.1:9\"}}\nadmin: {{listen: \"127.0.0.1:{}\"}}\naudit: {{file: {dir}/audit.jsonl}}\n",
        port::free()
    )
}

fn run_text(root: &Path, daemon: &str, text: &str) -> Ended {
    let file = root.join(format!("{daemon}.yaml"));
    std::fs::write(&file, text).unwrap();
    run(&[daemon, "run", "--config", &file.display().to_string()])
}

/// The CA's key is damaged: it must not make another one and carry on.
#[test]
fn a_ca_whose_key_is_unreadable_stops_and_keeps_the_file() {
    let root = tempfile::tempdir().unwrap();
    let mut ca = Ca::start(root.path(), "");
    ca.process.terminate();
    let folder = std::fs::read_dir(root.path().join("ca/data/keys")).unwrap();
    let keys: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
    assert!(!keys.is_empty(), "no key files");
    for key in &keys {
        std::fs::write(key, "damaged").unwrap();
    }

    let told = run(&["ca", "run", "--config", &root.path().join("ca/ca.yaml").display().to_string()]);

    assert_ne!(told.code, 0, "a CA with a damaged key runs");
    assert!(
        keys.iter().any(|key| told.stderr.contains(&key.file_name().unwrap().to_string_lossy().into_owned())),
        "{}",
        told.stderr
    );
    assert!(keys.iter().all(|key| std::fs::read(key).unwrap() == b"damaged"), "the damaged key was replaced");
}

#[test]
fn a_key_that_cannot_be_read_keeps_the_sidecar_closed_and_says_which() {
    let root = tempfile::tempdir().unwrap();
    let authority = Authority::new(TRUST_DOMAIN);
    authority.svid(SERVER).write(&root.path().join("pem"), &authority);
    std::fs::write(root.path().join("pem/key.pem"), "not a key").unwrap();
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
    let backend = Backend::echo();
    let setup = Setup::new("api").pem(&root.path().join("pem")).inbound("tcp", listen, backend.address());
    let sidecar = setup.spawn(root.path());

    let (status, document) = eventually("it says what is wrong with the key", || {
        let (status, document) = sidecar.readiness();
        document.to_string().contains("key.pem").then_some((status, document))
    });

    assert_eq!(status, 503, "{document}");
    assert!(tls::connect(listen, Some(&authority.svid("/x"))).is_err(), "it serves without a key");
    assert_eq!(backend.connections(), 0);
}

/// The directory of entries is reconciled while the CA runs; a broken file changes nothing.
#[test]
fn entry_files_are_reconciled_and_a_broken_one_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let entries = root.path().join("entries");
    std::fs::create_dir(&entries).unwrap();
    std::fs::write(entries.join("a.yaml"), crate::command_line::entries_file(&["/files/a", "/files/b"]))
        .unwrap();
    let ca = Ca::start(root.path(), &format!("entries_dir: {}\n", entries.display()));
    let paths = || {
        let listed = ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines();
        let mut paths: Vec<_> =
            listed.iter().map(|entry| entry["spiffe_id"].as_str().unwrap().to_owned()).collect();
        paths.sort();
        paths
    };
    eventually("the first files are applied", || (paths() == [id("/files/a"), id("/files/b")]).then_some(()));

    std::fs::write(entries.join("a.yaml"), crate::command_line::entries_file(&["/files/a", "/files/c"]))
        .unwrap();
    within(std::time::Duration::from_secs(15), "the change is applied", || {
        (paths() == [id("/files/a"), id("/files/c")]).then_some(())
    });
    std::fs::write(entries.join("b.yaml"), "vouchsafe: entries/v1\nentrys: []\n").unwrap();
    std::fs::write(entries.join("a.yaml"), crate::command_line::entries_file(&["/files/d"])).unwrap();
    eventually("the log names the place", || ca.process.log().contains("b.yaml:2:1").then_some(()));

    assert_eq!(paths(), [id("/files/a"), id("/files/c")], "half of a broken set was applied");
}

#[test]
fn a_spent_or_damaged_join_string_ends_the_agent_with_the_reason() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let good = ca.join_string(&id("/node/x"));
    let wrong_root =
        format!("{}{}", &good[..good.len() - 4], if good.ends_with("0000") { "1111" } else { "0000" });
    let damaged =
        [("nonsense", "hello".to_owned()), ("a wrong root hash", wrong_root), ("nothing", String::new())];

    for (number, (what, join)) in damaged.iter().enumerate() {
        let dir = root.path().join(format!("agent-{number}"));
        std::fs::create_dir(&dir).unwrap();
        crate::support::pki::replace(&dir.join("join"), join);
        let text = format!(
            "vouchsafe: agent/v1\ntrust_domain: cluster.test\nca: \"{}\"\ndata_dir: {1}/data\nsocket: {1}/agent.sock\nadmin_socket: {1}/admin.sock\nbootstrap: {{join_string_file: {1}/join}}\n",
            ca.address(),
            dir.display()
        );
        std::fs::write(dir.join("agent.yaml"), text).unwrap();
        let command = crate::support::command::command(&[
            "agent",
            "run",
            "--config",
            &dir.join("agent.yaml").display().to_string(),
        ]);
        let mut process = crate::support::process::Process::start("agent", &dir, command);

        eventually(&format!("{what}: the agent says so"), || {
            let log = process.log().to_lowercase();
            (log.contains("error") || !process.is_running()).then_some(())
        });
        let listed = ca.admin(&["agent", "list", "-o", "jsonl"]).expect(0);
        assert_eq!(listed.stdout, "", "{what}: the agent was admitted");
    }
}
