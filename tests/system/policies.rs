//! Policy files while the sidecar runs: what they allow and deny takes effect at once, on live connections too,
//! and a file that cannot be accepted changes nothing but readiness.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::audit::reason;
use crate::support::backend::Backend;
use crate::support::http;
use crate::support::sidecar::{CALLER, Callee, SERVER, allow_all, allow_path};
use crate::support::tls;
use crate::support::wait::{eventually, throughout, within};

/// A change of policy files is in force within this time.
const IN_FORCE: Duration = Duration::from_secs(10);

#[test]
fn an_edited_file_allows_and_denies_without_a_restart() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| allow_path("api", to, from, port));
    let (to, from, port) = (callee.authority.id(SERVER), callee.authority.id(CALLER), callee.inbound.port());
    assert_eq!(status(&callee, "/other"), 403);

    callee.sidecar.policy("api.yaml", &allow_all("api", &to, &from, "http", port));
    within(IN_FORCE, "the new rule allows", || (status(&callee, "/other") == 200).then_some(()));

    callee.sidecar.policy("api.yaml", &allow_path("api", &to, &from, port));
    within(IN_FORCE, "the old rule denies again", || (status_or_cut(&callee, "/other") == 403).then_some(()));

    // The last file would keep the last good set: see `reload`.
    callee.sidecar.policy("other.yaml", &allow_path("other", &from, &to, port));
    callee.sidecar.remove_policy("api.yaml");
    within(IN_FORCE, "no policy denies all", || (status_or_cut(&callee, "/allowed/x") != 200).then_some(()));
}

#[test]
fn a_deny_rule_in_a_second_file_beats_the_allow_rule_of_the_first() {
    let callee = Callee::http();
    let to = callee.authority.id(SERVER);
    assert_eq!(status(&callee, "/secret/x"), 200);

    callee.sidecar.policy(
        "deny.yaml",
        &format!(
            "vouchsafe: policy/v1\nname: secrets\nprotects: {to}\nmode: enforce\ndeny:\n  - name: secret\n    from: [anyone]\n    http: {{port: {}, paths: [/secret/**]}}\n",
            callee.inbound.port()
        ),
    );

    within(IN_FORCE, "the deny rule holds", || (status_or_cut(&callee, "/secret/x") == 403).then_some(()));
    assert_eq!(status(&callee, "/other"), 200);
    // A request that the new rule met on its way is cut, with a record of its own.
    let record = callee.sidecar.audit.wait_for_denial(|record| record["class_uid"] == 4002);
    assert_eq!(reason(&record), "explicit_deny");
    assert_eq!(record["firewall_rule"]["uid"], "deny.yaml#secret", "{record}");
}

#[test]
fn a_first_load_that_cannot_be_accepted_denies_everything_and_says_so() {
    let callee = Callee::with_policy("vouchsafe: policy/v1\nname: api\nprotcts: spiffe://prod.test/x\n");

    let (ready, reasons) =
        eventually("the sidecar knows who it is and has tried to load its policies", || {
            let (status, document) = callee.sidecar.readiness();
            // Before the first load the problem is that there was none.
            let problem = callee.sidecar.policy_problem().unwrap_or_default();
            let settled = document["identity"].is_string() && problem.contains("api.yaml");
            settled.then_some((status, document))
        });
    let answer = tls::get(callee.inbound, &callee.caller, "/");

    assert_eq!(ready, 503, "{reasons}");
    assert!(!matches!(&answer, Ok(answer) if answer.status < 400), "{answer:?}");
    let record = callee.sidecar.audit.wait_for_denied(1);
    assert_eq!(reason(&record), "policy_unavailable", "{record}");
    assert_eq!(callee.backend.connections(), 0);
    let log = callee.sidecar.process.log();
    assert!(log.contains("api.yaml:3:1") && log.contains("protects"), "no place and cure in the log: {log}");
}

#[test]
fn a_reload_that_cannot_be_accepted_keeps_the_last_good_set_and_says_so() {
    let callee = Callee::http();
    let (to, from) = (callee.authority.id(SERVER), callee.authority.id(CALLER));
    let good = allow_all("api", &to, &from, "http", callee.inbound.port());
    assert_eq!(status(&callee, "/x"), 200);

    callee.sidecar.policy("api.yaml", &good.replace("mode: enforce", "mode: enforced"));
    let reason = within(IN_FORCE, "readiness tells of the broken reload", || callee.sidecar.policy_problem());
    throughout(Duration::from_secs(1), "the last good set is in force", || status(&callee, "/x") == 200);

    assert!(callee.sidecar.process.log().contains("api.yaml:4:7"), "{}", callee.sidecar.process.log());
    assert!(reason.contains("api.yaml"), "readiness does not name the file: {reason}");
    assert_eq!(callee.sidecar.metric("vouchsafe_proxy_policy_loads_total", &["refused"]), 1.0);
    callee.sidecar.policy("api.yaml", &good.replace("everything", "still-everything"));
    within(IN_FORCE, "a good reload clears the warning", || {
        callee.sidecar.policy_problem().is_none().then_some(())
    });
    assert_eq!(status(&callee, "/x"), 200);
}

#[test]
fn a_failing_test_inside_a_policy_file_stops_the_load() {
    let callee = Callee::http();
    let (to, from, port) = (callee.authority.id(SERVER), callee.authority.id(CALLER), callee.inbound.port());
    let broken_promise = format!(
        "{}tests:\n  - {{from: {from}, http: GET {port} /x, expect: deny}}\n",
        allow_all("api", &to, &from, "http", port)
    );

    callee.sidecar.policy("api.yaml", &broken_promise);

    within(IN_FORCE, "readiness tells of the failed test", || callee.sidecar.policy_problem());
    assert_eq!(status(&callee, "/x"), 200, "the last good set is in force");
}

#[test]
fn a_live_tcp_connection_that_a_new_policy_forbids_is_cut() {
    let callee = Callee::tcp();
    let to = callee.authority.id(SERVER);
    let mut forbidden = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    exchange(&mut forbidden, b"before").unwrap();

    let other = callee.authority.id("/ns/shop/sa/other");
    callee.sidecar.policy("api.yaml", &allow_all("api", &to, &other, "tcp", callee.inbound.port()));

    within(IN_FORCE, "the connection is cut", || exchange(&mut forbidden, b"after").err());
    let record = callee.sidecar.audit.wait_for_denied(1);
    assert_eq!(reason(&record), "no_allow_matched", "{record}");
}

#[test]
fn a_live_tcp_connection_that_the_new_policy_still_allows_lives_on() {
    let callee = Callee::tcp();
    let (to, from) = (callee.authority.id(SERVER), callee.authority.id(CALLER));
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    exchange(&mut stream, b"before").unwrap();
    let generation = callee.sidecar.generation();

    let text = allow_all("api", &to, &from, "tcp", callee.inbound.port()).replace("everything", "renamed");
    callee.sidecar.policy("api.yaml", &text);
    within(IN_FORCE, "the new set is loaded", || (callee.sidecar.generation() != generation).then_some(()));

    throughout(Duration::from_secs(1), "the connection works", || exchange(&mut stream, b"after").is_ok());
}

#[test]
fn a_keep_alive_connection_is_decided_anew_for_each_request_and_cut_when_idle() {
    let callee = Callee::http();
    let to = callee.authority.id(SERVER);
    let request = b"GET /x HTTP/1.1\r\nHost: svc.internal\r\n\r\n";
    let mut idle = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    idle.write_all(request).unwrap();
    assert_eq!(http::read_answer(&mut idle).unwrap().status, 200);

    let other = callee.authority.id("/ns/shop/sa/other");
    callee.sidecar.policy("api.yaml", &allow_all("api", &to, &other, "http", callee.inbound.port()));

    let mut rest = Vec::new();
    idle.sock.set_read_timeout(Some(IN_FORCE)).unwrap();
    let end = idle.read_to_end(&mut rest);
    let open = matches!(&end, Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
    assert!(!open, "the idle connection stays open after it was forbidden");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[test]
fn a_shadow_policy_records_what_it_would_deny_and_lets_it_pass() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| {
        allow_path("api", to, from, port).replace("mode: enforce", "mode: shadow\nuntil: 2099-01-01")
    });

    assert_eq!(status(&callee, "/forbidden"), 200);

    let record = eventually("the would-be denial is on record", || {
        callee.sidecar.audit.records().into_iter().find(|record| record["action_id"] == 3)
    });
    assert_eq!(record["disposition_id"], 17, "{record}");
    assert_eq!(callee.sidecar.audit.denied(), 0, "nothing was refused");
}

#[test]
fn the_denial_metric_counts_what_the_log_records() {
    let callee = Callee::start("http", Backend::http(), |to, from, port| allow_path("api", to, from, port));

    for number in 0..40 {
        let expected = if number % 2 == 0 { 403 } else { 200 };
        let path = if number % 2 == 0 { "/forbidden" } else { "/allowed/x" };
        assert_eq!(status(&callee, path), expected);
    }

    callee.sidecar.audit.wait_for_denied(20);
    let counted =
        callee.sidecar.metric("vouchsafe_proxy_audit_events_total", &["denied", "no_allow_matched"]);
    assert_eq!(counted, 20.0, "the metric and the log disagree");
}

#[test]
fn records_have_a_gap_free_sequence_and_survive_a_clean_stop() {
    let mut callee =
        Callee::start("http", Backend::http(), |to, from, port| allow_path("api", to, from, port));
    for _ in 0..30 {
        assert_eq!(status(&callee, "/forbidden"), 403);
    }

    let ended = callee.sidecar.process.terminate();

    assert_eq!(ended.code(), Some(0), "SIGTERM drains and ends well");
    let sequence: Vec<u64> = callee
        .sidecar
        .audit
        .records()
        .iter()
        .map(|record| record["metadata"]["sequence"].as_u64().unwrap())
        .collect();
    let first = sequence[0];
    let expected: Vec<u64> = (first..).take(sequence.len()).collect();
    assert_eq!(sequence, expected, "the sequence has a gap");
    assert_eq!(callee.sidecar.audit.denied(), 30);
}

fn exchange(stream: &mut tls::Client, message: &[u8]) -> std::io::Result<()> {
    stream.write_all(message)?;
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer)?;
    if answer == message { Ok(()) } else { Err(std::io::Error::other("wrong echo")) }
}

fn status(callee: &Callee, path: &str) -> u16 {
    tls::get(callee.inbound, &callee.caller, path).unwrap().status
}

/// Like `status`, for callers that may be turned away before a request is read, or cut while it is
/// answered because the policy changes under it.
fn status_or_cut(callee: &Callee, path: &str) -> u16 {
    tls::get(callee.inbound, &callee.caller, path).map_or(0, |answer| answer.status)
}
