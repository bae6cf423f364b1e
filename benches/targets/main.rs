//! The figures of the whole, measured on the release build of the real binary and printed as a table.
//!
//! `cargo bench --bench targets` measures everything in about five minutes, `cargo bench --bench targets -- idle`
//! one group. Nothing is asserted on time: a figure is read by people, who know what else the machine was doing.
//! Every daemon ends with the value that started it, and by itself when this program is killed.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the figures are printed")]

mod application;
mod cluster;
mod connections;
mod daemon;
mod decisions;
mod identities;
mod idle;
mod reload;
mod report;
mod size;
mod tour;

use anyhow::{Context as _, bail};

use crate::report::Row;

/// A group of figures: its name on the command line and what measures it.
struct Group {
    name: &'static str,
    measure: fn() -> anyhow::Result<Vec<Row>>,
}

const GROUPS: [Group; 7] = [
    Group { name: "size", measure: size::measure },
    Group { name: "tour", measure: tour::measure },
    Group { name: "identities", measure: identities::measure },
    Group { name: "decisions", measure: decisions::measure },
    Group { name: "idle", measure: idle::measure },
    Group { name: "connections", measure: connections::measure },
    Group { name: "reload", measure: reload::measure },
];

fn main() -> anyhow::Result<()> {
    // Cargo adds switches that are meant for its own harness.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if let Some(word) = asked.iter().find(|word| GROUPS.iter().all(|group| group.name != **word)) {
        bail!("no figures are named {word:?}; there are {}", GROUPS.map(|group| group.name).join(", "));
    }
    identity::crypto::install_default();
    print!("{}", report::heading()?);
    for group in GROUPS {
        if asked.is_empty() || asked.iter().any(|word| word == group.name) {
            eprintln!("measuring: {}", group.name);
            for row in (group.measure)().with_context(|| format!("measuring {}", group.name))? {
                println!("{}", row.line(group.name));
            }
        }
    }
    Ok(())
}
