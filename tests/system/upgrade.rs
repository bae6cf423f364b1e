//! One process takes over from another under load: nobody is refused between them, and where the new one cannot serve,
//! nothing has happened.

use std::io::Read as _;
use std::time::Duration;

use serde_json::Value;

use crate::support::command;
use crate::support::mesh::Mesh;
use crate::support::process::Process;
use crate::support::sidecar::Sidecar;
use crate::support::traffic::Traffic;
use crate::support::wait::{eventually, polled, throughout};
use crate::support::{http, tls};

const SECTIONS: &str = "handover: {socket: {dir}/handover.sock, drain: 1h}\ndrain: 2s";

#[test]
fn an_upgrade_under_load_loses_no_connection_and_no_request() {
    let mut mesh = Mesh::start(SECTIONS);
    let traffic = mesh.traffic();
    goes_on(&traffic, "before");

    let mut api = mesh.api.successor();
    serves(&mesh.api, &mut api);
    goes_on(&traffic, "after the called one changed");
    let config = mesh.web.config().display().to_string();
    command::ended(detached(&["proxy", "upgrade", "--config", &config], &mesh)).expect(0);
    let web = pid(&mesh.web);
    goes_on(&traffic, "after both changed");
    let mut again = mesh.api.successor();
    serves(&mesh.api, &mut again);
    goes_on(&traffic, "after a second change");
    let connections = mesh.echo.connections();

    traffic.stop_unharmed();
    assert_eq!(connections, 2, "a long-lived connection was made anew");
    assert_ne!(web, Some(u64::from(mesh.web.process.pid())));
    // With their last connections the processes before end.
    for process in [&mut mesh.api.process, &mut mesh.web.process, &mut api] {
        assert_eq!(process.exited(Duration::from_secs(60)).code(), Some(0));
    }
    assert_eq!(mesh.api.audit.denied(), 0);
    let socket = mesh.web.admin_socket().display().to_string();
    command::run(&["proxy", "quit", "--admin", &socket]).expect(0);
    assert_eq!(again.terminate().code(), Some(0));
    assert!(!mesh.api.admin_socket().exists() && !mesh.api.directory().join("handover.sock").exists());
}

#[test]
fn each_process_has_a_file_of_the_audit_log_and_the_chain_goes_on() {
    let mut mesh = Mesh::start(SECTIONS);
    let mut long = tls::connect(mesh.tcp_in, Some(&mesh.caller)).unwrap();
    assert_eq!(http::get(mesh.http, "/before").unwrap().status, 200);

    let mut new = mesh.api.successor();
    serves(&mesh.api, &mut new);
    assert_eq!(http::get(mesh.http, "/after").unwrap().status, 200);
    long.sock.shutdown(std::net::Shutdown::Both).unwrap();
    let _ended = long.read(&mut [0; 1]);
    assert_eq!(mesh.api.process.exited(Duration::from_secs(60)).code(), Some(0));
    assert_eq!(new.terminate().code(), Some(0));

    let files: Vec<_> =
        std::fs::read_dir(mesh.api.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let beside: Vec<_> =
        files.iter().filter(|file| file.to_string_lossy().contains(".jsonl.handover-")).collect();
    assert_eq!(beside.len(), 1, "{files:?}");
    let (main, beside) = (records(&mesh.api.directory().join("audit.jsonl")), records(beside[0]));
    for records in [&main, &beside] {
        let ours = |record: &Value, key: &str| record["unmapped"]["vouchsafe"][key].clone();
        let chained = records.windows(2).all(|pair| ours(&pair[0], "hash") == ours(&pair[1], "prev"));
        assert!(chained, "a record of another process stands between: {records:#?}");
        assert_eq!(ours(records.last().unwrap(), "change")["what"], "log_closed");
    }
    assert!(
        beside.iter().any(|record| record["unmapped"]["vouchsafe"]["close_cause"].is_string()),
        "{beside:#?}"
    );
    let all = command::run(&[
        "audit",
        "query",
        &mesh.api.directory().join("audit.jsonl").display().to_string(),
        "-o",
        "jsonl",
    ]);
    assert!(all.expect(0).json_lines().len() >= beside.len());
}

#[test]
fn a_new_process_that_cannot_serve_leaves_the_old_one_as_it_was() {
    let mut mesh = Mesh::start(SECTIONS);
    let traffic = mesh.traffic();
    let old = pid(&mesh.api);
    let text = std::fs::read_to_string(mesh.api.config()).unwrap();

    // It cannot read its file.
    mesh.api.edit("admin:", "adnim: 1\nadmin:");
    assert_eq!(mesh.api.successor().exited(Duration::from_secs(30)).code(), Some(2));
    // It cannot open a listener.
    std::fs::write(mesh.api.config(), &text).unwrap();
    let taken = std::net::TcpListener::bind(mesh.further).unwrap();
    mesh.api.edit("inbound:\n", &mesh.further_listener());
    assert_eq!(mesh.api.successor().exited(Duration::from_secs(30)).code(), Some(1));
    drop(taken);
    // It gets no identity, and is killed while it waits.
    let nowhere = mesh.root().join("nowhere").display().to_string();
    let pem = mesh.root().join("pem/api").display().to_string();
    std::fs::write(mesh.api.config(), text.replace(&pem, &nowhere)).unwrap();
    let mut waits = mesh.api.successor();
    eventually("it asks", || mesh.api.process.log().contains("asks to take over").then_some(()));
    throughout(Duration::from_secs(1), "the old one serves", || pid(&mesh.api) == old && waits.is_running());
    waits.kill();
    goes_on(&traffic, "after three that failed");

    traffic.stop_unharmed();
    assert_eq!(pid(&mesh.api), old);
    mesh.api.process.must_run();
    let log = mesh.api.process.log();
    assert!(log.contains("nobody has taken over"), "{log}");
    assert_eq!(mesh.api.audit.denied(), 0);
    // And the one that can is let in.
    std::fs::write(mesh.api.config(), &text).unwrap();
    let mut new = mesh.api.successor();
    serves(&mesh.api, &mut new);
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);
}

#[test]
fn where_nobody_runs_every_socket_is_opened() {
    let mut mesh = Mesh::start(SECTIONS);
    assert_eq!(mesh.api.process.terminate().code(), Some(0));

    let mut new = mesh.api.successor();
    serves(&mesh.api, &mut new);
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);

    // Crashed, it leaves its sockets behind.
    new.kill();
    let mut newer = mesh.api.successor();
    serves(&mesh.api, &mut newer);
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);
}

#[test]
fn without_a_socket_for_it_nobody_takes_over() {
    let mesh = Mesh::start("");

    let mut refused = mesh.api.successor();

    assert_eq!(refused.exited(Duration::from_secs(30)).code(), Some(1));
    assert!(refused.log().contains("handover: {socket: PATH}"), "{}", refused.log());
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);
}

/// Waits until it is this process that answers.
fn serves(sidecar: &Sidecar, new: &mut Process) {
    eventually("the new process serves", || {
        new.must_run();
        (pid(sidecar) == Some(u64::from(new.pid())) && sidecar.readiness().0 == 200).then_some(())
    });
}

fn pid(sidecar: &Sidecar) -> Option<u64> {
    sidecar.readiness().1["pid"].as_u64()
}

fn goes_on(traffic: &Traffic, when: &str) {
    let before = traffic.done();
    polled(Duration::from_millis(20), Duration::from_secs(30), when, || {
        (traffic.done() > before + 300).then_some(())
    });
}

/// A command whose children keep none of our pipes.
fn detached(arguments: &[&str], mesh: &Mesh) -> std::process::Command {
    let words: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let log = mesh.root().join("upgrade.log");
    let line =
        format!("exec '{}' {} >'{}' 2>&1", command::binary().display(), words.join(" "), log.display());
    command::clean(std::process::Command::new("sh"), &["-c", &line])
}

fn records(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
