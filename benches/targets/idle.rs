//! Daemons that have nothing to do: what they hold in memory and how often they wake.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::application::{self, Application};
use crate::cluster::Pair;
use crate::daemon::Daemon;
use crate::report::{Row, mebibytes};

pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let runtime = application::runtime()?;
    let application = Application::start(&runtime)?;
    let pair = Pair::start(application.address())?;
    runtime.block_on(async {
        for outbound in [pair.tcp.outbound, pair.http.outbound] {
            application::call(&mut TcpStream::connect(outbound).await?).await?;
        }
        anyhow::Ok(())
    })?;
    std::thread::sleep(SETTLE);
    let daemons: [(&str, &str, &Daemon); 4] = [
        ("sidecar of the callee", "< 15 MiB", &pair.api),
        ("sidecar of the caller", "< 15 MiB", &pair.web),
        ("agent", "< 20 MiB", &pair.agent.daemon),
        ("CA", "", &pair.ca.daemon),
    ];
    let watched = daemons.iter().map(|(_, _, daemon)| Watch::begin(daemon));
    let mut watches = watched.collect::<anyhow::Result<Vec<_>>>()?;
    for _ in 0..SECONDS {
        std::thread::sleep(Duration::from_secs(1));
        for watch in &mut watches {
            watch.look()?;
        }
    }
    let mut rows = Vec::new();
    for (name, target, daemon) in daemons {
        let memory = daemon.memory()?;
        let (resident, anonymous) = (mebibytes(memory.resident), mebibytes(memory.anonymous));
        let told = format!("{resident} ({anonymous} of it heap and stacks, the rest pages of the binary)");
        rows.push(Row::new(format!("idle {name}: resident"), target, told));
    }
    for ((name, _, _), watch) in daemons.iter().zip(watches) {
        let told = format!("{} a minute", watch.sum);
        rows.push(Row::new(format!("idle {name}: context switches"), "", told));
    }
    Ok(rows)
}

/// Adds up the context switches of a daemon whose threads come and go.
struct Watch<'a> {
    daemon: &'a Daemon,
    last: HashMap<OsString, u64>,
    sum: u64,
}

impl<'a> Watch<'a> {
    fn begin(daemon: &'a Daemon) -> anyhow::Result<Self> {
        Ok(Self { daemon, last: daemon.switches()?, sum: 0 })
    }

    fn look(&mut self) -> anyhow::Result<()> {
        let current = self.daemon.switches()?;
        for (thread, count) in &current {
            self.sum += count.saturating_sub(self.last.get(thread).copied().unwrap_or(0));
        }
        self.last = current;
        Ok(())
    }
}

/// Longer than a sidecar keeps an idle connection to the next hop.
const SETTLE: Duration = Duration::from_secs(10);
const SECONDS: u32 = 60;
