//! Instructions a decision takes, counted by valgrind: the difference between a run that decides many times and one that decides
//! never.

use std::process::Command;

use crate::scenes;

/// Prints the instructions that decisions and the loading of a rule take.
pub(crate) fn print() {
    println!("{:<44} {:>10}", "instructions per decision", "");
    for count in [10, 10_000] {
        let none = counted(&format!("{}/{count}", DECISIONS[0]), 0);
        for name in DECISIONS {
            let name = format!("{name}/{count}");
            let each = counted(&name, TIMES).saturating_sub(none) / TIMES;
            println!("{name:<44} {each:>10}");
        }
    }
    let each = counted("load", FILES).saturating_sub(counted("load", 0)) / FILES / 100;
    println!("\n{:<44} {each:>10}", "instructions per rule loaded");
}

/// Decides as often as it is told, or loads as many files.
pub(crate) fn repeat(wanted: &str, times: &str) {
    let times: u64 = times.parse().unwrap_or_else(|_| panic!("{times} is no number"));
    if wanted == "load" {
        let files = scenes::files(usize::try_from(times).unwrap_or_default());
        if !files.is_empty() {
            drop(scenes::compiled(&files).for_workload(&scenes::id(scenes::WEB)));
        }
        return;
    }
    let count = wanted.rsplit('/').next().and_then(|count| count.parse().ok());
    let count = count.unwrap_or_else(|| panic!("{wanted} has no number of policies"));
    scenes::each(count, &mut |name, decide| {
        if name == wanted {
            (0..times).for_each(|_| decide());
        }
    });
}

fn counted(name: &str, times: u64) -> u64 {
    let this = std::env::current_exe().unwrap_or_else(|error| panic!("{error}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(this);
    let output = valgrind.args(["counted", name, &times.to_string()]).output();
    let output = output.unwrap_or_else(|error| panic!("valgrind must be installed: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    total.unwrap_or_else(|| panic!("valgrind counted nothing: {said}"))
}

const DECISIONS: [&str; 8] = [
    "tcp/miss",
    "tcp/all",
    "http-whole-allowed/miss",
    "http-whole-allowed/all",
    "http-request-allowed/all",
    "http-request-refused/all",
    "http-whole-header-refused/all",
    "http-whole-claim-refused/all",
];
const TIMES: u64 = 1_000;
const FILES: u64 = 20;
