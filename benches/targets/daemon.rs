//! Child processes and what the kernel knows of them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// The binary that is measured.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_vouchsafe"))
}

/// A command without the environment that configures vouchsafe.
pub(crate) fn command<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("VOUCHSAFE_") || text == "SPIFFE_ENDPOINT_SOCKET" {
            command.env_remove(&name);
        }
    }
    command.env("NO_COLOR", "1").args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command to its end and returns its standard output.
pub(crate) fn output<S: AsRef<OsStr>>(arguments: &[S]) -> anyhow::Result<String> {
    let mut command = command(binary(), arguments);
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A running daemon. It is killed when this value goes, and stops by itself when the measuring program goes.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    announcements: UnixDatagram,
    started: Instant,
    log: PathBuf,
}

impl Daemon {
    /// Starts `program DAEMON run --config dir/NAME.yaml`.
    pub(crate) fn start(program: &Path, daemon: &str, dir: &Path, name: &str) -> anyhow::Result<Self> {
        let socket = dir.join(format!("{name}.ready"));
        let announcements = UnixDatagram::bind(&socket)?;
        announcements.set_read_timeout(Some(LOOK))?;
        let log = dir.join(format!("{name}.log"));
        let lines = File::create(&log)?;
        let config = dir.join(format!("{name}.yaml"));
        let arguments = [daemon.as_ref(), "run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let mut command = command(program, &arguments);
        command.arg("--exit-with-stdin").env("NOTIFY_SOCKET", &socket).stdin(Stdio::piped());
        command.stdout(lines.try_clone()?).stderr(lines);
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, announcements, started, log })
    }

    /// Waits until the daemon says that it is ready; returns how long that took from its start.
    pub(crate) fn ready(&mut self) -> anyhow::Result<Duration> {
        let mut message = [0; 4096];
        loop {
            if let Ok(length) = self.announcements.recv(&mut message) {
                let text = message.get(..length).unwrap_or_default();
                if text.split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
                    return Ok(self.started.elapsed());
                }
            }
            self.must_run()?;
        }
    }

    /// Calls `probe` until it finds something; returns how long that took from the daemon's start.
    pub(crate) fn until(&mut self, mut probe: impl FnMut() -> bool) -> anyhow::Result<Duration> {
        while !probe() {
            self.must_run()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(self.started.elapsed())
    }

    fn must_run(&mut self) -> anyhow::Result<()> {
        let log = || std::fs::read_to_string(&self.log).unwrap_or_default();
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended with {status}: {}", self.name, log()),
            None if self.started.elapsed() > DEADLINE => bail!("{} is not ready: {}", self.name, log()),
            None => Ok(()),
        }
    }

    /// Bytes in memory: all that is resident, and the part of it that is not pages of files.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kibibytes = |name| counted(&status, name).map(|count| count << 10);
        Ok(Memory { resident: kibibytes("VmRSS:")?, anonymous: kibibytes("RssAnon:")? })
    }

    /// The time that processors spent on its threads that are alive.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let mut spent = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ended since is gone with its numbers.
            let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            let nanoseconds = text.split_whitespace().next().context("the kernel tells no time")?;
            spent += nanoseconds.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(spent))
    }

    /// How often each of its threads was switched to since that thread began. Threads come and go.
    pub(crate) fn switches(&self) -> anyhow::Result<HashMap<OsString, u64>> {
        let mut switches = HashMap::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let thread = thread?;
            // A thread that ended since is gone with its numbers.
            let Ok(status) = std::fs::read_to_string(thread.path().join("status")) else { continue };
            let count = counted(&status, "voluntary_ctxt_switches:")?
                + counted(&status, "nonvoluntary_ctxt_switches:")?;
            switches.insert(thread.file_name(), count);
        }
        Ok(switches)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that has ended by itself cannot be killed, which is as well.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// What a process has in memory, in bytes.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) anonymous: u64,
}

fn counted(status: &str, name: &str) -> anyhow::Result<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let digits = value.and_then(|value| value.split_whitespace().next());
    Ok(digits.with_context(|| format!("the kernel does not tell {name}"))?.parse()?)
}

/// How often it is looked whether a daemon that says nothing still runs.
const LOOK: Duration = Duration::from_millis(100);
/// A daemon that needs longer on loopback has failed.
const DEADLINE: Duration = Duration::from_secs(30);
