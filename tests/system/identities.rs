//! Where a sidecar's identity comes from, and what becomes of connections when identity or trust changes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use crate::support::backend::Backend;
use crate::support::cluster::{API, Agent, Ca, WEB, id};
use crate::support::command::binary_as;
use crate::support::http;
use crate::support::pki::{Authority, ago, leaf, replace};
use crate::support::port;
use crate::support::sidecar::{CALLER, Callee, SERVER, Setup, TRUST_DOMAIN, allow_all, write_policy};
use crate::support::tls;
use crate::support::wait::{eventually, throughout, within};

const NOTICED: Duration = Duration::from_secs(15);

#[test]
fn pem_files_are_read_again_when_they_change_and_live_connections_stay() {
    let callee = Callee::tcp();
    let mut live = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut live).unwrap();
    let before = tls::server_serial(callee.inbound);

    callee.authority.svid(SERVER).write(&callee.pem(), &callee.authority);

    within(NOTICED, "the new certificate is shown", || {
        (tls::server_serial(callee.inbound) != before).then_some(())
    });
    echo(&mut live).unwrap();
}

#[test]
fn pem_files_that_do_not_fit_together_keep_the_last_good_identity_and_say_so() {
    let callee = Callee::tcp();
    let before = tls::server_serial(callee.inbound);
    let mut expired = leaf(&callee.authority.id(SERVER));
    (expired.not_before, expired.not_after) =
        (ago(Duration::from_secs(7200)), ago(Duration::from_secs(3600)));

    let scratch = callee.pem().join("other");
    callee.authority.svid(SERVER).write(&scratch, &callee.authority);
    replace(&callee.pem().join("key.pem"), &std::fs::read_to_string(scratch.join("key.pem")).unwrap());
    eventually("readiness warns of a key that is not the certificate's", || warns(&callee).then_some(()));
    assert_eq!(tls::server_serial(callee.inbound), before);
    assert!(
        tls::connect(callee.inbound, Some(&callee.caller)).is_ok_and(|mut stream| echo(&mut stream).is_ok())
    );

    callee.authority.svid(SERVER).write(&callee.pem(), &callee.authority);
    within(NOTICED, "a sound set clears the warning", || (!warns(&callee)).then_some(()));
    let sound = tls::server_serial(callee.inbound);
    callee.authority.issue(expired).write(&callee.pem(), &callee.authority);
    eventually("readiness warns of an expired certificate", || warns(&callee).then_some(()));
    assert_eq!(
        tls::server_serial(callee.inbound),
        sound,
        "an expired certificate took the place of a good one"
    );
}

fn warns(callee: &Callee) -> bool {
    let document = callee.sidecar.readiness().1;
    let lists = [&document["reasons"], &document["warnings"]];
    let mut all = lists.into_iter().filter_map(serde_json::Value::as_array).flatten();
    all.any(|problem| problem["part"].as_str().is_some_and(|part| part.starts_with("identity")))
}

#[test]
fn a_connection_whose_trust_is_withdrawn_is_cut() {
    let callee = Callee::tcp();
    let mut live = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    echo(&mut live).unwrap();

    let successor = Authority::new(TRUST_DOMAIN);
    successor.svid(SERVER).write(&callee.pem(), &successor);

    within(NOTICED, "the connection of the withdrawn authority is cut", || echo(&mut live).err());
    let refused = tls::connect(callee.inbound, Some(&callee.caller)).and_then(|mut stream| echo(&mut stream));
    assert!(refused.is_err(), "a certificate of a withdrawn authority is accepted");
    let welcome = successor.svid(CALLER);
    assert!(tls::connect(callee.inbound, Some(&welcome)).is_ok_and(|mut stream| echo(&mut stream).is_ok()));
}

#[test]
fn no_session_can_be_resumed() {
    let callee = Callee::http();
    let mut stream = tls::connect(callee.inbound, Some(&callee.caller)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: svc.internal\r\n\r\n").unwrap();
    assert_eq!(http::read_answer(&mut stream).unwrap().status, 200);

    assert_eq!(stream.conn.tls13_tickets_received(), 0, "the sidecar hands out tickets");
}

#[test]
fn a_sidecar_with_several_identities_must_be_told_which() {
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::start(root.path(), "");
    let agent = Agent::start(root.path(), "node", &ca, "");
    let program = binary_as(&root.path().join("bin/two"));
    ca.entry(agent.alias(), &id(API), &program, "1h");
    ca.entry(agent.alias(), &id(WEB), &program, "1h");
    // A sidecar that starts between the two would have no doubt, and rightly so.
    eventually("the node offers both identities", || {
        let asked = Command::new(&program)
            .args(["svid", "fetch"])
            .env("SPIFFE_ENDPOINT_SOCKET", agent.endpoint())
            .output()
            .unwrap();
        let told = String::from_utf8([asked.stdout, asked.stderr].concat()).unwrap();
        (told.contains(&id(API)) && told.contains(&id(WEB))).then_some(())
    });
    let setup = |name: &str| {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port::free()));
        let setup = Setup::new(name).program(&program).workload_api(&agent.socket());
        (listen, setup.inbound("tcp", listen, Backend::echo().address()))
    };

    let (_, undecided) = setup("undecided");
    let undecided = undecided.spawn(root.path());
    let told = eventually("the sidecar says that it does not know who it is", || {
        let (status, document) = undecided.readiness();
        let text = document.to_string();
        (status == 503 && text.contains(&id(API)) && text.contains(&id(WEB))).then_some(text)
    });
    assert!(told.contains("identity"), "{told}");
    throughout(Duration::from_secs(1), "it stays closed", || undecided.readiness().0 == 503);

    let (listen, decided) = setup("decided");
    write_policy(
        &root.path().join("decided"),
        "a.yaml",
        &allow_all("a", &id(API), &id(WEB), "tcp", listen.port()),
    );
    let _decided = decided.identity(&id(API)).start(root.path());
    assert!(!tls::server_serial(listen).is_empty());
}

fn echo(stream: &mut tls::Client) -> std::io::Result<()> {
    stream.write_all(b"there and back")?;
    let mut answer = [0; 14];
    stream.read_exact(&mut answer)
}
