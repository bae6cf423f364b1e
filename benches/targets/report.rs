//! The table: one line a figure, as Markdown, with the load of the machine at the time.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;

/// One figure.
pub(crate) struct Row {
    figure: String,
    target: &'static str,
    measured: String,
    load: String,
}

impl Row {
    /// A figure measured just now; `target` is empty where none is set.
    pub(crate) fn new(figure: impl Into<String>, target: &'static str, measured: impl Into<String>) -> Self {
        let load = load().unwrap_or_else(|_| "?".to_owned());
        Self { figure: figure.into(), target, measured: measured.into(), load }
    }

    /// The line of the table, with the command that prints it again.
    pub(crate) fn line(&self, group: &str) -> String {
        let Self { figure, target, measured, load } = self;
        format!("| {figure} | {target} | {measured} | {load} | `cargo bench --bench targets -- {group}` |")
    }
}

/// What the figures were taken on, and the head of the table.
pub(crate) fn heading() -> anyhow::Result<String> {
    let processors = std::fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = std::thread::available_parallelism()?;
    let mut text = String::new();
    writeln!(text, "{} x {}, Linux {}\n", cores, model.map_or("?", |(_, name)| name), kernel.trim())?;
    writeln!(text, "| figure | target | measured | load | command |")?;
    writeln!(text, "|---|---|---|---|---|")?;
    Ok(text)
}

/// Times of one thing done many times.
#[derive(Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The median and the worst.
    pub(crate) fn told(&self) -> String {
        let mut times = self.0.clone();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        let worst = times.last().copied().unwrap_or_default();
        format!("median {}, worst {} of {}", milliseconds(median), milliseconds(worst), times.len())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// A size in MiB.
#[expect(clippy::cast_precision_loss, reason = "sizes of processes are far below 2^52")]
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The load average of the last minute.
fn load() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or("?").to_owned())
}
