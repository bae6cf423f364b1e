//! Coming, changing and going: a configuration is changed under load, a stop loses nobody who was let in, and a full table
//! of descriptors is survived.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::audit::code;
use crate::support::cluster::{self, API, Pair, WEB};
use crate::support::command::{self, Ended, binary};
use crate::support::mesh::Mesh;
use crate::support::sidecar::{Callee, Setup, Sidecar, allow_all};
use crate::support::traffic::Traffic;
use crate::support::wait::{eventually, polled, throughout};
use crate::support::{http, port, tls};

/// Rotations in the short form; `tests/run.sh --long` sets more.
const ROTATIONS: usize = 3;
/// Callers in the short form, each with up to 45 requests a second.
const CALLERS: usize = 8;

#[test]
fn listeners_come_go_and_change_under_load_and_no_request_fails() {
    let mesh = Mesh::start("");
    let traffic = mesh.traffic();

    mesh.api.edit("inbound:\n", &mesh.further_listener());
    let opened = reload(&mesh.api, &["-o", "json"]).expect(0).json();
    let mut kept = tls::connect(mesh.further, Some(&mesh.caller)).unwrap();
    assert_eq!(ask(&mut kept), 200);
    mesh.api.edit(&mesh.further_listener(), "inbound:\n");
    let closed = reload(&mesh.api, &["-o", "json"]).expect(0).json();
    let refused = TcpStream::connect(mesh.further).map_err(|error| error.kind());
    let still = ask(&mut kept);
    mesh.api.edit("audit:", "limits: {idle_timeout: 5m}\naudit:");
    let limited = reload(&mesh.api, &["-o", "json"]).expect(0).json();
    mesh.web.edit("admin:", "drain: 3s\nadmin:");
    reload(&mesh.web, &[]).expect(0);
    let before = traffic.done();
    polled(Duration::from_millis(50), Duration::from_secs(30), "traffic goes on", || {
        (traffic.done() > before + 200).then_some(())
    });

    traffic.stop_unharmed();
    assert_eq!(opened["configuration"]["added"][0], "inbound further", "{opened}");
    assert_eq!(closed["configuration"]["removed"][0], "inbound further", "{closed}");
    assert_eq!(limited["configuration"]["settings"][0], "limits", "{limited}");
    assert_eq!((refused.unwrap_err(), still), (ErrorKind::ConnectionRefused, 200));
    assert_eq!(mesh.echo.connections(), 2, "a long-lived connection was made anew");
    assert_eq!(mesh.api.audit.denied(), 0);
}

#[test]
fn a_listener_that_changes_serves_new_connections_anew_and_old_ones_as_before() {
    let callee = Callee::http();
    let other = crate::support::backend::Backend::http();
    let mut old = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    assert_eq!(ask(&mut old), 200);

    callee.sidecar.edit(&callee.backend.address().to_string(), &other.address().to_string());
    reload(&callee.sidecar, &[]).expect(0);
    callee.backend.forget();
    let new = tls::get(callee.inbound, &callee.caller, "/new").unwrap().status;
    let kept = ask(&mut old);

    assert_eq!((new, kept), (200, 200));
    assert!(other.seen_text().contains("GET /new"));
    assert!(callee.backend.seen_text().contains("GET /asked"), "an old connection moved");
}

#[test]
fn a_file_that_cannot_be_accepted_changes_nothing_and_says_where() {
    let callee = Callee::http();
    let mut kept = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    assert_eq!(ask(&mut kept), 200);
    let generation = callee.sidecar.readiness().1["config_generation"].clone();

    callee.sidecar.edit("admin:", "drian: 1s\nadmin:");
    let told = reload(&callee.sidecar, &[]).expect(2);
    callee.sidecar.process.signal(Signal::HUP);
    let warned = eventually("readiness warns", || warning(&callee.sidecar));
    callee.sidecar.edit("drian: 1s\n", "");
    let mended = reload(&callee.sidecar, &["-o", "json"]).expect(0).json();

    for text in [&told.stderr, &warned, &callee.sidecar.process.log()] {
        assert!(text.contains("proxy.yaml:") && text.contains("drian"), "{text}");
    }
    assert_eq!(ask(&mut kept), 200);
    assert_eq!(mended["configuration"]["generation"], generation, "{mended}");
    assert_eq!(warning(&callee.sidecar), None);
}

#[test]
fn where_one_listener_cannot_be_opened_none_is() {
    let mesh = Mesh::start("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holds_it = std::net::TcpListener::bind(taken).unwrap();
    let more =
        format!("  - {{name: taken, listen: \"{taken}\", protocol: tcp, application: \"127.0.0.1:9\"}}\n");

    mesh.api.edit("inbound:\n", &(mesh.further_listener() + &more));
    let told = reload(&mesh.api, &[]).expect(2);

    assert!(told.stderr.contains(&taken.to_string()), "{}", told.stderr);
    assert!(TcpStream::connect(mesh.further).is_err(), "half of a change is in force");
    assert_eq!(http::get(mesh.http, "/").unwrap().status, 200);
}

#[test]
fn what_needs_a_restart_is_named_and_a_dry_run_changes_nothing() {
    let mesh = Mesh::start("");
    mesh.api.edit("inbound:\n", &format!("workers: 2\ndrain: 9s\n{}", mesh.further_listener()));

    let dry = reload(&mesh.api, &["--dry-run", "-o", "json"]).expect(0).json();
    let untouched = TcpStream::connect(mesh.further).is_err();
    let told = reload(&mesh.api, &[]).expect(0);
    let config = mesh.api.admin("/config").unwrap().text();
    let warned = warning(&mesh.api).expect("what waits is a warning");

    assert_eq!(dry["configuration"]["needs_restart"][0], "workers", "{dry}");
    assert!(dry["configuration"]["dry_run"] == true && untouched);
    assert!(told.stdout.contains("needs a restart: workers"), "{}", told.stdout);
    assert!(config.contains("\"drain_ms\": 9000"), "{config}");
    assert!(warned.contains("workers"), "{warned}");
}

#[test]
fn a_command_waits_until_the_sidecar_is_ready_and_is_told_why_it_is_not() {
    let root = tempfile::tempdir().unwrap();
    let inbound = ([127, 0, 0, 1], port::free()).into();
    let none = root.path().join("no-agent.sock");
    let setup = Setup::new("api").workload_api(&none).inbound("tcp", inbound, ([127, 0, 0, 1], 9).into());
    let waiting = setup.spawn(root.path());
    let callee = Callee::tcp();
    let config = callee.sidecar.config().display().to_string();
    let address = callee.sidecar.admin_address().to_string();
    eventually("it answers", || (waiting.readiness().0 == 503).then_some(()));

    let socket = waiting.admin_socket().display().to_string();
    let not = command::run(&["proxy", "wait", "--admin", &socket, "--timeout", "1s"]).expect(5);
    let nobody = root.path().join("none").display().to_string();
    let gone = command::run(&["proxy", "wait", "--admin", &nobody, "--timeout", "1s"]).expect(5);
    command::run(&["proxy", "wait", "--admin", &address]).expect(0);
    let ran = command::run(&["proxy", "wait", "--config", &config, "--", "sh", "-c", "echo started; exit 7"]);

    assert!(not.stderr.contains("identity"), "{}", not.stderr);
    assert!(gone.stderr.contains("no sidecar can be reached"), "{}", gone.stderr);
    assert_eq!(ran.expect(7).stdout, "started\n");
}

#[test]
fn a_job_ends_its_sidecar() {
    let mut callee = Callee::tcp();
    let socket = callee.sidecar.admin_socket().display().to_string();

    command::run(&["proxy", "quit", "--admin", &socket]).expect(0);
    let status = callee.sidecar.process.exited(Duration::from_secs(30));

    assert_eq!(status.code(), Some(0));
    assert!(!callee.sidecar.admin_socket().exists());
}

#[test]
fn a_second_signal_cuts_what_is_left_and_the_end_is_on_record() {
    let mut callee = Callee::tcp();
    callee.sidecar.edit("admin:", "drain: 10m\nadmin:");
    reload(&callee.sidecar, &[]).expect(0);
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut stream).unwrap();

    callee.sidecar.process.signal(Signal::TERM);
    eventually("readiness is off", || (callee.sidecar.readiness().0 == 503).then_some(()));
    throughout(Duration::from_millis(500), "the connection lives", || echo(&mut stream).is_ok());
    callee.sidecar.process.signal(Signal::TERM);
    let status = callee.sidecar.process.exited(Duration::from_secs(30));

    assert_eq!(status.code(), Some(0));
    assert!(echo(&mut stream).is_err());
    let records = callee.sidecar.audit.records();
    let cut = records.iter().filter(|one| one["unmapped"]["vouchsafe"]["close_cause"] == "draining");
    assert_eq!(cut.count(), 1, "{records:#?}");
}

#[test]
fn load_balancers_get_time_to_notice_a_stop() {
    let mut callee = Callee::http();
    callee.sidecar.edit("admin:", "drain_delay: 3s\nadmin:");
    reload(&callee.sidecar, &[]).expect(0);
    let mut kept = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    assert_eq!(ask(&mut kept), 200);

    callee.sidecar.process.signal(Signal::TERM);
    eventually("readiness is off", || (callee.sidecar.readiness().0 == 503).then_some(()));
    let new = tls::get(callee.inbound, &callee.caller, "/late").unwrap().status;
    kept.write_all(b"GET /last HTTP/1.1\r\nHost: svc.internal\r\n\r\n").unwrap();
    let last = http::read_answer(&mut kept).unwrap();
    let status = callee.sidecar.process.exited(Duration::from_secs(30));

    assert_eq!((new, last.status, status.code()), (200, 200, Some(0)));
    assert_eq!(last.header("connection").as_deref(), Some("close"));
}

#[test]
fn whoever_waits_to_be_accepted_at_a_stop_is_served() {
    let mut callee = Callee::tcp();
    let (inbound, sidecar) = (callee.inbound, &callee.sidecar);
    echo(&mut tls::connect(inbound, Some(&callee.caller)).unwrap()).unwrap();

    sidecar.process.signal(Signal::STOP);
    // The kernel has made these connections; nobody has accepted them.
    let queued: Vec<TcpStream> = (0..50).map(|_| http::connect(inbound).unwrap()).collect();
    sidecar.process.signal(Signal::TERM);
    sidecar.process.signal(Signal::CONT);
    let served = queued.into_iter().map(|socket| {
        let mut stream = tls::connect_on(socket, Some(&callee.caller))?;
        echo(&mut stream)
    });
    let lost: Vec<_> = served.filter_map(Result::err).collect();
    let status = callee.sidecar.process.exited(Duration::from_secs(30));

    assert!(lost.is_empty(), "{} of 50 lost, first {:?}", lost.len(), lost.first());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_full_table_of_descriptors_costs_nobody_who_is_connected_and_passes() {
    let root = tempfile::tempdir().unwrap();
    let few = root.path().join("few");
    let mut script = String::new();
    let _infallible = write!(script, "#!/bin/sh\nulimit -n 90\nexec {} \"$@\"\n", binary().display());
    std::fs::write(&few, script).unwrap();
    std::fs::set_permissions(&few, std::fs::Permissions::from_mode(0o755)).unwrap();
    let callee = Callee::tcp_by(&few);
    let mut kept = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut kept).unwrap();

    let crowd: Vec<TcpStream> = (0..150).filter_map(|_| http::connect(callee.inbound).ok()).collect();
    let log = || callee.sidecar.process.log();
    eventually("the table is full", || log().contains("cannot accept connections").then_some(()));
    let spent = cpu(callee.sidecar.process.pid());
    throughout(Duration::from_secs(2), "the connection lives", || echo(&mut kept).is_ok());
    let spent = cpu(callee.sidecar.process.pid()) - spent;
    let mut turned = crowd.last().unwrap();
    turned.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let away = turned.read(&mut [0; 1]).map_err(|error| error.kind());
    drop(crowd);
    eventually("others are let in again", || {
        tls::connect(callee.inbound, Some(&callee.caller)).and_then(|mut stream| echo(&mut stream)).ok()
    });

    let said = log().matches("cannot accept connections").count();
    assert_eq!((away, said), (Err(ErrorKind::ConnectionReset), 1));
    assert!(spent < 100, "{spent} ticks of 10 ms in two seconds");
}

#[test]
fn rotations_and_policy_reloads_under_load_fail_no_allowed_request() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (rotations, callers) =
        (number("VOUCHSAFE_ROTATIONS", ROTATIONS), number("VOUCHSAFE_ROTATION_CALLERS", CALLERS));
    let pair = Pair::start("ca_ttl: 60s\nsvid_ttl: 10s\n", "10s");
    let mut traffic = Traffic::new().long_lived(pair.tcp.outbound);
    for _ in 0..callers {
        traffic = traffic.keep_alive(pair.http.outbound, "/steady");
    }
    let (begun, mut reloads, mut seen) = (Instant::now(), 0, String::new());

    polled(Duration::from_secs(1), Duration::from_secs(600), "rotations and reloads", || {
        let rotated = pair
            .api
            .audit
            .records()
            .iter()
            .filter(|record| record["unmapped"]["vouchsafe"]["change"]["what"] == "identity_rotated")
            .count();
        if reloads < 5 && rotated * 5 >= reloads * rotations {
            let policy =
                allow_all("http", &cluster::id(API), &cluster::id(WEB), "http", pair.http.inbound.port());
            pair.api.policy("http.yaml", &format!("{policy}owner: turn-{reloads}\n"));
            reload(&pair.api, &[]).expect(0);
            assert_ne!(seen, pair.api.generation());
            seen = pair.api.generation();
            reloads += 1;
        }
        (rotated > rotations && reloads >= 5).then_some(())
    });

    let (exchanges, span) = (traffic.stop_unharmed(), begun.elapsed().as_secs().max(1));
    println!("{exchanges} exchanges in {span} s: {} a second", exchanges as u64 / span);
    assert_eq!(pair.tcp.backend.connections(), 1, "the long-lived connection was made anew");
    let others = pair.api.audit.denials().into_iter().filter(|record| code(record) != "no_certificate");
    assert_eq!(others.count(), 0, "{:#?}", pair.api.audit.denials());
}

fn reload(sidecar: &Sidecar, more: &[&str]) -> Ended {
    let socket = sidecar.admin_socket().display().to_string();
    command::run(&[&["proxy", "reload", "--admin", &socket], more].concat())
}

fn warning(sidecar: &Sidecar) -> Option<String> {
    let document = sidecar.readiness().1;
    let warnings = document["warnings"].as_array()?;
    let about = warnings.iter().find(|warning| warning["part"] == "config_reload")?;
    about["reason"].as_str().map(str::to_owned)
}

/// One request on a connection that stays.
fn ask(stream: &mut tls::Client) -> u16 {
    stream.write_all(b"GET /asked HTTP/1.1\r\nHost: svc.internal\r\n\r\n").unwrap();
    http::read_answer(stream).unwrap().status
}

fn echo(stream: &mut tls::Client) -> std::io::Result<()> {
    stream.write_all(b"echo")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer == *b"echo" { Ok(()) } else { Err(std::io::Error::other("wrong echo")) }
}

/// The time that a process has been running for, in ticks of 10 ms.
fn cpu(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
