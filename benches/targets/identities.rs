//! How fast identities get to workloads. This very program is the workload, and the `spiffe` crate its client.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use spiffe::{WorkloadApiClient, X509Context};
use tokio::process::Command;
use tokio::runtime::Runtime;

use crate::cluster::{Agent, Ca, id};
use crate::daemon::{binary, command, output};
use crate::report::{Row, Times};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = joining(&runtime)?;
    let root = tempfile::tempdir()?;
    let ca = registered(root.path())?;
    let agent = Agent::start(root.path(), "node", &ca)?;
    let mut fresh = Times::default();
    for _ in 0..CONNECTIONS {
        fresh.add(runtime.block_on(first(&agent))?);
    }
    rows.push(Row::new("first SVID, each on a new connection to a running agent", "< 100 ms", fresh.told()));
    let mut fetched = Times::default();
    for _ in 0..COMMANDS {
        fetched.add(fetch(&agent, root.path())?);
    }
    rows.push(Row::new("`vouchsafe svid fetch`, the whole process", "", fetched.told()));
    let reached = runtime.block_on(entries(&ca, &agent))?;
    let figure = "new entry at a connected workload, from the start of `ca entry create`";
    rows.push(Row::new(figure, "< 1 s", reached.told()));
    Ok(rows)
}

/// New agents, each asked for an SVID as soon as it is ready.
fn joining(runtime: &Runtime) -> anyhow::Result<Vec<Row>> {
    let (mut joined, mut at_once) = (Times::default(), Times::default());
    for _ in 0..CAS {
        let root = tempfile::tempdir()?;
        let ca = registered(root.path())?;
        for number in 0..AGENTS {
            let agent = Agent::start(root.path(), &format!("node-{number}"), &ca)?;
            joined.add(agent.took);
            at_once.add(runtime.block_on(first(&agent))?);
        }
    }
    Ok(vec![
        Row::new("agent: start, through joining, to ready", "", joined.told()),
        Row::new("first SVID, asked for as soon as a new agent is ready", "< 100 ms", at_once.told()),
    ])
}

/// A CA that knows this program and the binary.
fn registered(root: &Path) -> anyhow::Result<Ca> {
    let ca = Ca::start(root)?;
    for program in [std::env::current_exe()?.as_path(), binary()] {
        output(&ca.entry(&id("/bench"), program))?;
    }
    Ok(ca)
}

/// Connects and asks until there is an SVID.
async fn first(agent: &Agent) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let client = WorkloadApiClient::connect_to(agent.endpoint()).await?;
        match client.fetch_x509_svid().await {
            Ok(_) => return Ok(began.elapsed()),
            Err(_) if began.elapsed() < DEADLINE => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error).context("the agent has no identity for this program"),
        }
    }
}

fn fetch(agent: &Agent, root: &Path) -> anyhow::Result<Duration> {
    let (socket, into) = (agent.endpoint(), root.join("svid").display().to_string());
    let mut command = command(binary(), &["svid", "fetch", "--socket", &socket, "--out", &into]);
    let began = Instant::now();
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(began.elapsed())
}

/// Creates one entry after the other, each when the last has arrived.
async fn entries(ca: &Ca, agent: &Agent) -> anyhow::Result<Times> {
    let client = WorkloadApiClient::connect_to(agent.endpoint()).await?;
    let mut updates = std::pin::pin!(client.stream_x509_contexts().await?);
    updates.next().await.context("the stream ended")??;
    let own = std::env::current_exe()?;
    let mut times = Times::default();
    for number in 0..ENTRIES {
        let wanted = id(&format!("/bench/{number}"));
        let began = Instant::now();
        let mut create = Command::from(command(binary(), &ca.entry(&wanted, &own)));
        let create = create.stdout(std::process::Stdio::null()).kill_on_drop(true).status();
        let arrival = async {
            loop {
                let update = updates.next().await.context("the stream ended")??;
                if holds(&update, &wanted) {
                    return anyhow::Ok(began.elapsed());
                }
            }
        };
        let both = async { tokio::join!(create, arrival) };
        let (created, arrived) =
            tokio::time::timeout(DEADLINE, both).await.context("the entry does not arrive")?;
        anyhow::ensure!(created?.success(), "the entry is not created");
        times.add(arrived?);
    }
    Ok(times)
}

fn holds(update: &X509Context, wanted: &str) -> bool {
    update.svids().iter().any(|svid| svid.spiffe_id().to_string() == wanted)
}

const CAS: usize = 3;
/// As many as a CA lets join from one address before it slows them down.
const AGENTS: usize = 10;
const CONNECTIONS: usize = 200;
const COMMANDS: usize = 50;
const ENTRIES: usize = 50;
const DEADLINE: Duration = Duration::from_secs(30);
