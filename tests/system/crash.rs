//! Crash: the CA is killed in the middle of writing. What it acknowledged is there afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::cluster::{Ca, id};
use crate::support::command::{command, ended};
use crate::support::wait::within;

const WRITERS: usize = 4;
const ROUNDS: usize = 8;

#[test]
fn every_acknowledged_entry_survives_kill_9_in_a_burst_of_creations() {
    let root = tempfile::tempdir().unwrap();
    let mut ca = Ca::start(root.path(), "");
    let acknowledged: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let bundle = ca.admin(&["bundle", "show", "-o", "pem"]).expect(0).stdout;

    for round in 0..ROUNDS {
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| burst(&ca, round, writer, acknowledged.clone())).collect();
        let target = (round + 1) * 20;
        within(Duration::from_secs(60), "a burst is under way", || {
            (acknowledged.lock().unwrap().len() >= target).then_some(())
        });
        ca.process.kill();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        ca.restart();

        let stored = stored(&ca);
        let acknowledged = acknowledged.lock().unwrap();
        let lost: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(
            lost.is_empty(),
            "round {round}: {} of {} acknowledged entries are lost: {lost:?}",
            lost.len(),
            acknowledged.len()
        );
    }

    let after = ca.admin(&["bundle", "show", "-o", "pem"]).expect(0).stdout;
    assert_eq!(after, bundle, "a restart keeps the authority");
}

/// Creates entries until the CA is gone.
fn burst(
    ca: &Ca,
    round: usize,
    writer: usize,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
) -> std::thread::JoinHandle<()> {
    let socket = ca.admin_socket().display().to_string();
    std::thread::spawn(move || {
        for number in 0.. {
            let name = id(&format!("/burst/{round}/{writer}/{number}"));
            let parent = id("/node/none");
            let words =
                ["ca", "entry", "create", "--admin-socket", &socket, "--id", &name, "--parent", &parent];
            let all = [words.as_slice(), &["--selector", "unix:uid:1"]].concat();
            if ended(command(&all)).code != 0 {
                return;
            }
            acknowledged.lock().unwrap().insert(name);
        }
    })
}

fn stored(ca: &Ca) -> BTreeSet<String> {
    let listed = ca.admin(&["entry", "list", "-o", "jsonl"]).expect(0).json_lines();
    listed.iter().filter_map(|entry| entry["spiffe_id"].as_str()).map(str::to_owned).collect()
}
