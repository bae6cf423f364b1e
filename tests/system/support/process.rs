//! Child processes: their output is kept in files, they end with the value that started them, and a
//! failing test shows how their logs end.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::wait::{DEADLINE, within};

/// A running daemon.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with standard output and error appended to `dir/name.log`.
    pub(crate) fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills without a chance to clean up, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _gone = kill_process(self.kernel_pid(), signal);
    }

    /// Asks to stop and returns how it ended.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exited(DEADLINE)
    }

    /// Waits until the process has ended by itself.
    pub(crate) fn exited(&mut self, limit: Duration) -> ExitStatus {
        within(limit, &format!("{} ends", self.name), || self.child.try_wait().unwrap())
    }

    /// Fails, with the end of the log, when the process is gone.
    #[track_caller]
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended with {:?} {:?}", self.name, status.code(), status.signal());
        }
    }

    fn kernel_pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = kill_process_group(self.kernel_pid(), Signal::KILL);
        let _gone = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            println!("---- the end of the log of {} ----\n{}\n", self.name, tail.join("\n"));
        }
    }
}

/// Lines of each log that a failing test shows.
const TAIL: usize = 25;
