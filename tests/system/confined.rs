//! A started sidecar has given up what it does not need, on every thread, and does all of its work without it.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::command::{self, Ended};
use crate::support::mesh::Mesh;
use crate::support::sidecar::{CALLER, Callee, SERVER, Sidecar, allow_all};
use crate::support::wait::{eventually, within};
use crate::support::{http, tls};

/// A change of files is in force within this time.
const IN_FORCE: Duration = Duration::from_secs(30);

#[test]
fn every_thread_has_given_up_capabilities_new_privileges_and_system_calls() {
    let mesh = Mesh::start("handover: {socket: {dir}/handover.sock}\nworkers: 2");
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);

    for sidecar in [&mesh.api, &mesh.web] {
        let threads = threads(sidecar.process.pid());
        assert!(threads.len() >= 4, "main, data and audit threads: {threads:?}");
        for status in threads {
            for (key, value) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("Seccomp_filters", "3")] {
                assert_eq!(field(&status, key), value, "{key} in {status}");
            }
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(field(&status, set), "0000000000000000", "{set} in {status}");
            }
        }
        let log = sidecar.process.log();
        assert!(log.contains("confined"), "{log}");
        assert_eq!(warning(sidecar, "confinement"), None);
    }
}

#[test]
fn a_low_port_keeps_the_right_to_listen_on_others_and_no_more() {
    let mut callee = Callee::http();
    let port = callee.inbound.port().to_string();
    callee.sidecar.process.terminate();
    callee.sidecar.edit(&port, "847");
    callee.sidecar.restart();

    for status in threads(callee.sidecar.process.pid()) {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(&status, set), NET_BIND_SERVICE, "{set} in {status}");
        }
    }
}

#[test]
fn without_that_right_a_low_port_waits_for_a_restart() {
    let mut mesh = Mesh::start("");
    let further = mesh.further_listener();
    let low = further.replace(&mesh.further.port().to_string(), "848");

    mesh.api.edit("inbound:\n", &low);
    let told = reload(&mesh.api).expect(2);
    let listening = std::net::TcpStream::connect("127.0.0.1:848").is_ok();

    assert!(told.stderr.contains("restart"), "{} {}", told.stdout, told.stderr);
    assert!(!listening);
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);
    mesh.api.process.terminate();
    mesh.api.restart();
    assert!(std::net::TcpStream::connect("127.0.0.1:848").is_ok());
}

#[test]
fn a_confined_sidecar_rotates_its_identity_its_policies_and_its_log_and_ends_in_order() {
    let mut callee = Callee::http();
    callee.sidecar.process.terminate();
    callee.sidecar.edit("audit.jsonl}", "audit.jsonl, rotate_size: 64KiB, keep: 1}");
    callee.sidecar.restart();
    let get = || tls::get(callee.inbound, &callee.caller, "/").unwrap().status;

    let updates = || callee.sidecar.metric("vouchsafe_proxy_identity_updates_total", &[]);
    let before = updates();
    callee.authority.svid(SERVER).write(&callee.pem(), &callee.authority);
    eventually("another identity is in use", || (updates() > before).then_some(()));
    assert_eq!((get(), warning(&callee.sidecar, "identity_update")), (200, None));
    let before = callee.sidecar.generation();
    let (to, from) = (callee.authority.id(SERVER), callee.authority.id(CALLER));
    callee.sidecar.policy("api.yaml", &allow_all("other", &to, &from, "http", callee.inbound.port()));
    within(IN_FORCE, "other policies are in force", || (callee.sidecar.generation() != before).then_some(()));
    let full = || {
        let files = std::fs::read_dir(callee.sidecar.directory()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("audit.jsonl.")).collect::<BTreeSet<_>>()
    };
    let mut oldest = None;
    within(IN_FORCE * 2, "full files are put aside and the oldest removed", || {
        (0..100).for_each(|_| assert_eq!(get(), 200));
        oldest = oldest.take().or_else(|| full().pop_first());
        oldest.as_ref().is_some_and(|oldest| !full().contains(oldest)).then_some(())
    });

    let told =
        command::run(&["proxy", "quit", "--admin", &callee.sidecar.admin_socket().display().to_string()]);
    told.expect(0);
    assert_eq!(callee.sidecar.process.exited(IN_FORCE).code(), Some(0));
    assert!(!callee.sidecar.admin_socket().exists(), "it could not remove its socket");
}

#[test]
fn a_confined_sidecar_follows_names() {
    let mut mesh = Mesh::start("");
    mesh.web.process.terminate();
    let endpoint = format!("endpoints: [\"{}\"]", mesh.http_in);
    mesh.web.edit(&endpoint, &format!("endpoints: [\"localhost:{}\"]", mesh.http_in.port()));
    mesh.web.restart();

    eventually("the name is known", || {
        http::get(mesh.http, "/").ok().filter(|answer| answer.status == 200).map(drop)
    });
}

#[test]
fn nothing_is_read_that_the_configuration_does_not_name() {
    let mut callee = Callee::http();
    let elsewhere = tempfile::tempdir().unwrap();
    let (to, from) = (callee.authority.id(SERVER), callee.authority.id(CALLER));
    let text = allow_all("further", &to, &from, "http", callee.inbound.port());
    std::fs::write(elsewhere.path().join("further.yaml"), text).unwrap();
    let before = callee.sidecar.generation();
    let link = callee.sidecar.directory().join("policies/further.yaml");

    symlink(elsewhere.path().join("further.yaml"), &link).unwrap();
    let refused = reload(&callee.sidecar);
    let kept = callee.sidecar.generation();
    // The wall is what keeps it out.
    callee.sidecar.process.terminate();
    callee.sidecar.edit("admin:", "hardening: {landlock: danger_off}\nadmin:");
    callee.sidecar.restart();

    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(refused.stderr.contains("ermission denied"), "{}", refused.stderr);
    assert_eq!(kept, before);
    assert_ne!(callee.sidecar.generation(), before);
    let log = callee.sidecar.process.log();
    assert!(log.contains("left out, as the configuration has it"), "{log}");
}

#[test]
fn a_directory_that_only_a_new_configuration_names_waits_for_a_restart() {
    let callee = Callee::http();
    let elsewhere = tempfile::tempdir().unwrap();
    let own = callee.sidecar.directory().join("policies").display().to_string();
    let before = callee.sidecar.generation();

    callee.sidecar.edit(&own, &elsewhere.path().display().to_string());
    reload(&callee.sidecar);

    let waits = warning(&callee.sidecar, "config_reload").unwrap();
    assert!(waits.contains("waits for a restart: policies"), "{waits}");
    assert_eq!(callee.sidecar.generation(), before);
    assert_eq!(tls::get(callee.inbound, &callee.caller, "/").unwrap().status, 200);
}

fn reload(sidecar: &Sidecar) -> Ended {
    command::run(&["proxy", "reload", "--admin", &sidecar.admin_socket().display().to_string()])
}

fn warning(sidecar: &Sidecar, part: &str) -> Option<String> {
    let document = sidecar.readiness().1;
    let warnings = document["warnings"].as_array()?;
    let about = warnings.iter().find(|warning| warning["part"] == part)?;
    about["reason"].as_str().map(str::to_owned)
}

/// The kernel's own account of each thread.
fn threads(pid: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok()).collect()
}

fn field<'a>(status: &'a str, key: &str) -> &'a str {
    let line = status.lines().find(|line| line.split(':').next() == Some(key));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_default()
}

/// The tenth capability.
const NET_BIND_SERVICE: &str = "0000000000000400";
