//! Reloads of a running sidecar: what a change costs those who are connected, no more and no less, and what cannot be
//! accepted costs nobody anything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::command::{self, Ended};
use crate::support::pki::{Authority, Identity};
use crate::support::port;
use crate::support::sidecar::{
    CALLER, Callee, SERVER, Setup, Sidecar, TRUST_DOMAIN, allow_all, write_policy,
};
use crate::support::tls;
use crate::support::wait::{eventually, throughout, within};

/// Connections in the short form; `tests/run.sh --long` sets more.
const CONNECTIONS: usize = 600;
/// A change of policy files is in force within this time.
const IN_FORCE: Duration = Duration::from_secs(30);
/// Who loses its right.
const LEAVER: &str = "/ns/shop/sa/leaver";

#[test]
fn a_narrowing_reload_cuts_exactly_the_connections_that_lost_their_right() {
    let count =
        std::env::var("VOUCHSAFE_RELOAD_CONNECTIONS").map_or(CONNECTIONS, |text| text.parse().unwrap());
    let crowd = Crowd::start();
    let mut stays: Vec<tls::Client> = (0..count / 2).map(|_| crowd.connect(&crowd.caller)).collect();
    let mut leaves: Vec<tls::Client> = (0..count / 2).map(|_| crowd.connect(&crowd.leaver)).collect();
    let draft = crowd.root.path().join("draft");
    write_policy(&draft, "api.yaml", &crowd.policy(&[CALLER]));
    let draft = draft.join("policies").display().to_string();

    let preview = reload(&crowd.sidecar, &["--dry-run", "--policies", &draft, "-o", "json"]).expect(3).json();
    stays.iter_mut().chain(&mut leaves).for_each(|stream| echo(stream).unwrap());
    crowd.sidecar.policy("api.yaml", &crowd.policy(&[CALLER]));
    within(IN_FORCE, "what was looked at is in force", || {
        (preview["generation"] == crowd.sidecar.generation()).then_some(())
    });

    let half = count as u64 / 2;
    assert_eq!((preview["cut"].as_u64(), preview["connections"].as_u64()), (Some(half), Some(2 * half)));
    assert_eq!(preview["by_peer"][0]["peer"], crowd.authority.id(LEAVER));
    assert_eq!(preview["by_peer"].as_array().unwrap().len(), 1, "{preview}");
    let lost = preview["lost"].as_array().unwrap();
    assert!(
        lost.len() <= 200 && lost.iter().all(|lost| lost["rule_lost"] == "api/callers (api.yaml:6)"),
        "{preview}"
    );
    leaves
        .iter_mut()
        .for_each(|stream| assert!(echo(stream).is_err(), "a connection without a right lives on"));
    stays.iter_mut().for_each(|stream| echo(stream).expect("a connection with a right was cut"));
    let change = eventually("the change is on record with what it cut", || changes(&crowd.sidecar).pop());
    assert_eq!(change["cut"].as_u64(), Some(half), "{change}");
    assert!(crowd.sidecar.process.log().contains(&format!("cut={half}")), "{}", crowd.sidecar.process.log());
    assert_eq!(crowd.sidecar.audit.denied(), half, "one denial for each connection that was cut");
}

#[test]
fn a_reload_that_is_asked_for_is_in_force_when_it_is_answered_and_says_what_it_cut() {
    let callee = Callee::tcp();
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut stream).unwrap();
    let (to, other) = (callee.authority.id(SERVER), callee.authority.id(LEAVER));
    let before = callee.sidecar.generation();

    callee.sidecar.policy("api.yaml", &allow_all("api", &to, &other, "tcp", callee.inbound.port()));
    let told = reload(&callee.sidecar, &["-o", "json"]).expect(0).json();

    assert_eq!((&told["accepted"], &told["dry_run"]), (&Value::Bool(true), &Value::Bool(false)), "{told}");
    assert_eq!(told["generation"], callee.sidecar.generation());
    assert_ne!(told["generation"], before);
    assert!(echo(&mut stream).is_err());
}

#[test]
fn a_dry_run_of_a_change_that_cuts_nobody_finds_nothing() {
    let callee = Callee::tcp();
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut stream).unwrap();

    let told = reload(&callee.sidecar, &["--dry-run"]).expect(0);

    assert!(told.stdout.contains("in force already"), "{}", told.stdout);
    assert!(told.stdout.contains("0 of 1 live connections would be cut"), "{}", told.stdout);
    echo(&mut stream).unwrap();
}

#[test]
fn a_dry_run_of_what_cannot_be_accepted_says_why_and_changes_nothing() {
    let callee = Callee::tcp();
    let draft = tempfile::tempdir().unwrap();
    std::fs::write(draft.path().join("api.yaml"), "vouchsafe: policy/v1\nname: api\nprotcts: x\n").unwrap();
    let draft = draft.path().display().to_string();

    let told = reload(&callee.sidecar, &["--dry-run", "--policies", &draft]).expect(2);
    let data = reload(&callee.sidecar, &["--dry-run", "--policies", &draft, "-o", "json"]).expect(2).json();

    assert!(told.stderr.contains("api.yaml:3:1") && told.stderr.contains("protects"), "{}", told.stderr);
    assert_eq!(data["accepted"], false, "{data}");
    assert_eq!(callee.sidecar.policy_problem(), None);
}

#[test]
fn a_sidecar_that_cannot_be_reached_is_no_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock").display().to_string();

    command::run(&["proxy", "reload", "--admin", &socket]).expect(5);
}

#[test]
fn a_directory_that_is_emptied_keeps_the_last_good_set_until_somebody_means_it() {
    let callee = Callee::tcp();
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut stream).unwrap();

    callee.sidecar.remove_policy("api.yaml");
    let problem = within(IN_FORCE, "readiness tells of it", || callee.sidecar.policy_problem());
    throughout(Duration::from_secs(1), "the connection lives", || echo(&mut stream).is_ok());
    reload(&callee.sidecar, &[]).expect(2);

    assert!(problem.contains("--accept-empty"), "{problem}");
    echo(&mut stream).unwrap();
    reload(&callee.sidecar, &["--accept-empty"]).expect(0);
    assert!(echo(&mut stream).is_err());
}

#[test]
fn a_reload_that_breaks_a_guarantee_is_refused_with_a_witness_and_disturbs_nobody() {
    let callee = Callee::start("tcp", Backend::echo(), guaranteed);
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut stream).unwrap();
    let generation = callee.sidecar.generation();

    let (to, port) = (callee.authority.id(SERVER), callee.inbound.port());
    let widened = guaranteed(&to, &callee.authority.id("/ns/*/sa/web"), port);
    callee.sidecar.policy("api.yaml", &widened);
    let problem = within(IN_FORCE, "readiness tells of the guarantee", || callee.sidecar.policy_problem());

    throughout(Duration::from_secs(1), "traffic goes on", || echo(&mut stream).is_ok());
    let log = callee.sidecar.process.log();
    let dev = callee.authority.id("/ns/dev/");
    for text in [&problem, &log] {
        assert!(text.contains("api.yaml:") && text.contains(&dev), "no place and witness in {text}");
    }
    assert_eq!(callee.sidecar.generation(), generation);
    assert_eq!(callee.sidecar.audit.denied(), 0);
    assert_eq!(callee.sidecar.metric("vouchsafe_proxy_policy_loads_total", &["refused"]), 1.0);
}

/// A policy that promises that nobody in the namespace `dev` gets in.
fn guaranteed(to: &str, from: &str, port: u16) -> String {
    let dev = format!("spiffe://{TRUST_DOMAIN}/ns/dev/**");
    format!("{}guarantees:\n  - never: {{from: [\"{dev}\"]}}\n", allow_all("api", to, from, "tcp", port))
}

/// A sidecar before an echo that many may call.
struct Crowd {
    authority: Authority,
    caller: Identity,
    leaver: Identity,
    sidecar: Sidecar,
    inbound: SocketAddr,
    /// The files, gone with the sidecar.
    root: tempfile::TempDir,
}

impl Crowd {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new(TRUST_DOMAIN);
        authority.svid(SERVER).write(&root.path().join("pem"), &authority);
        let inbound = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let setup =
            |root: &Path| Setup::new("api").pem(&root.join("pem")).inbound("tcp", inbound, many_echoes());
        write_policy(
            &root.path().join("api"),
            "api.yaml",
            &policy(&authority, &[CALLER, LEAVER], inbound.port()),
        );
        let sidecar = setup(root.path()).start(root.path());
        let (caller, leaver) = (authority.svid(CALLER), authority.svid(LEAVER));
        Self { authority, caller, leaver, sidecar, inbound, root }
    }

    fn policy(&self, from: &[&str]) -> String {
        policy(&self.authority, from, self.inbound.port())
    }

    fn connect(&self, identity: &Identity) -> tls::Client {
        let mut stream = tls::connect(self.inbound, Some(identity)).unwrap();
        echo(&mut stream).unwrap();
        stream
    }
}

fn policy(authority: &Authority, from: &[&str], port: u16) -> String {
    let from: Vec<String> = from.iter().map(|path| authority.id(path)).collect();
    allow_all("api", &authority.id(SERVER), &from.join(", "), "tcp", port).replace("everything", "callers")
}

/// An application that sends back what it reads, on as many connections as there may be descriptors.
fn many_echoes() -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    // A connection that is cut shows at the caller.
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
    });
    told.recv().unwrap()
}

fn echo(stream: &mut tls::Client) -> std::io::Result<()> {
    stream.write_all(b"echo")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer == *b"echo" { Ok(()) } else { Err(std::io::Error::other("wrong echo")) }
}

/// The records of policies that came into force after the first ones.
fn changes(sidecar: &Sidecar) -> Vec<Value> {
    let records = sidecar.audit.records().into_iter();
    let changes = records.map(|record| record["unmapped"]["vouchsafe"]["change"].clone());
    changes.filter(|change| change["what"] == "policy_changed").skip(1).collect()
}

fn reload(sidecar: &Sidecar, words: &[&str]) -> Ended {
    let socket = sidecar.admin_socket().display().to_string();
    command::run(&[["proxy", "reload", "--admin", &socket].as_slice(), words].concat())
}
