//! Outage: the CA is gone for a while. What runs goes on, an agent that is restarted still serves, and when the
//! CA is back everything renews.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::cluster::{API, Pair, id};
use crate::support::command::{command, ended};
use crate::support::traffic::Traffic;
use crate::support::wait::{throughout, within};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn traffic_and_a_restarted_agent_survive_the_outage_of_the_ca_and_renew_after_it() {
    let mut pair = Pair::start("svid_ttl: 40s\n", "40s");
    let traffic = Traffic::new().calls(pair.http.outbound, "/steady").long_lived(pair.tcp.outbound);

    pair.ca.process.kill();
    let before = traffic.done();
    throughout(Duration::from_secs(2), "traffic during the outage", || traffic.failures().is_empty());
    assert!(traffic.done() > before + 20, "the traffic stood still");

    pair.agent.process.kill();
    pair.agent.restart();
    let serial = pair.serial();
    pair.api.process.signal(Signal::TERM);
    pair.api.process.exited(LIMIT);
    let paused = traffic.failures().len();
    assert!(paused < usize::MAX, "stopping the callee may fail calls; they are not what this test counts");
    drop(traffic);
    pair.api.restart();
    let traffic =
        Traffic::new().calls(pair.http.outbound, "/after-agent-restart").long_lived(pair.tcp.outbound);
    within(LIMIT, "a restarted sidecar got the kept SVID from a restarted agent", || {
        (pair.serial() == serial).then_some(())
    });
    throughout(Duration::from_secs(1), "traffic on the restarted agent's SVIDs", || {
        traffic.failures().is_empty()
    });

    pair.ca.restart();
    within(LIMIT, "the callee's SVID renews after the outage", || (pair.serial() != serial).then_some(()));
    within(LIMIT, "a new entry reaches the node after the outage", || {
        pair.ca.admin(&["entry", "list", "--id", &id(API)]);
        let whoami = ended(command(&["whoami", "--socket", &pair.agent.endpoint()]));
        (whoami.code != 5).then_some(())
    });
    traffic.stop_unharmed();
}

#[test]
fn what_the_agent_keeps_on_disk_is_sealed_and_only_its_own() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = Pair::start("", "1h");

    let kept = files(&pair.agent.dir().join("data"));

    assert!(!kept.is_empty(), "the agent keeps nothing for a restart during an outage");
    for path in kept {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(!holds(b"PRIVATE KEY"), "{} holds a key in the open", path.display());
        // The OID of ecPublicKey with prime256v1 stands in every PKCS#8 key of that curve.
        let sealed =
            !path.to_string_lossy().contains("svid") || !holds(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]);
        assert!(sealed, "{} holds a key in the open", path.display());
    }
}

fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}
