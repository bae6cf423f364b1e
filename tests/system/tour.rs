//! The first thing that a newcomer runs: `vouchsafe dev`.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::command::{command, run};
use crate::support::wait::{eventually, within};

#[test]
fn the_tour_ends_well_and_shows_every_step() {
    let told = run(&["dev", "--once", "-o", "json"]).expect(0);

    let steps = told.json_lines();
    let names: Vec<String> = steps.iter().map(|step| step.to_string().to_lowercase()).collect();
    let told_all = names.join("\n");
    for needle in ["ca", "agent", "allow", "denied", "rule", "spiffe://", "policy"] {
        assert!(told_all.contains(needle), "the tour does not mention {needle:?}:\n{told_all}");
    }
    assert!(steps.len() >= 6, "{} steps: {told_all}", steps.len());
}

#[test]
fn the_tour_leaves_its_files_where_it_is_told_and_nothing_running() {
    let root = tempfile::tempdir().unwrap();
    let keep = root.path().join("tour");
    let before = running_under(&keep.display().to_string());

    run(&["dev", "--once", "--keep", &keep.display().to_string()]).expect(0);

    let kept = walk(&keep);
    assert!(kept.iter().any(|path| path.contains("audit")), "no audit log among {kept:?}");
    assert!(kept.iter().any(|path| path.ends_with(".yaml")), "no configuration among {kept:?}");
    eventually("every process of the tour is gone", || {
        (running_under(&keep.display().to_string()) == before).then_some(())
    });
}

#[test]
fn the_tour_refuses_a_directory_that_holds_something() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("precious"), "data").unwrap();

    let told = run(&["dev", "--once", "--keep", &root.path().display().to_string()]);

    assert_eq!(told.code, 2, "{}", told.stderr);
    assert_eq!(walk(root.path()).len(), 1, "something was written");
}

#[test]
fn the_tour_refuses_an_address_that_is_not_loopback() {
    assert_eq!(run(&["dev", "--once", "--address", "0.0.0.0"]).code, 2);
}

#[test]
fn without_once_it_stays_up_until_it_is_interrupted_and_then_ends_well() {
    let root = tempfile::tempdir().unwrap();
    let keep = root.path().join("tour");
    let mut child = command(&["dev", "-o", "json", "--keep", &keep.display().to_string()])
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(root.path().join("out")).unwrap())
        .stderr(std::fs::File::create(root.path().join("err")).unwrap())
        .spawn()
        .unwrap();
    let told = || std::fs::read_to_string(root.path().join("out")).unwrap();
    within(std::time::Duration::from_secs(60), "it tells how to go on by hand", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {}", told());
        told().contains("SPIFFE_ENDPOINT_SOCKET").then_some(())
    });

    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::INT).unwrap();

    let ended = eventually("it ends", || child.try_wait().unwrap());
    assert!(matches!(ended.code(), Some(0 | 130)), "{ended:?}");
    eventually("nothing is left running", || {
        running_under(&keep.display().to_string()).is_empty().then_some(())
    });
}

/// Processes whose program or arguments lie under a directory.
fn running_under(dir: &str) -> BTreeSet<String> {
    let all = Command::new("ps").args(["-eo", "pid=,args="]).output().unwrap();
    let own = format!("{} ", std::process::id());
    let lines = String::from_utf8_lossy(&all.stdout).into_owned();
    lines
        .lines()
        .map(str::trim)
        .filter(|line| line.contains(dir) && !line.starts_with(&own))
        .map(str::to_owned)
        .collect()
}

fn walk(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found
}
