//! `vouchsafe dev`, from the start of its process to "all ready".

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::daemon::{binary, command};
use crate::report::{Row, Times};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let (mut ready, mut whole) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let (first, last) = tour()?;
        ready.add(first);
        whole.add(last);
    }
    Ok(vec![
        Row::new("`vouchsafe dev`: start to \"all ready\"", "< 2 s", ready.told()),
        Row::new("`vouchsafe dev --once`: the whole tour, to the end of its process", "", whole.told()),
    ])
}

/// How long until everything was ready, and until the tour's process ended.
fn tour() -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    let mut command = command(binary(), &["dev", "--once", "-o", "jsonl"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut ready = None;
    for line in BufReader::new(child.stdout.take().context("standard output is piped")?).lines() {
        let step: serde_json::Value = serde_json::from_str(&line?)?;
        if step.get("name").is_some_and(|name| name == "ready") {
            ready = Some(began.elapsed());
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "the tour ended with {status}");
    Ok((ready.context("the tour tells no step named ready")?, began.elapsed()))
}

const ROUNDS: usize = 30;
