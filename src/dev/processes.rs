//! The child processes of the tour: started, awaited, and ended by their ids.
//!
//! A child announces that it is ready as it would to systemd, over a socket of its own. It stops
//! when its standard input ends, so that none outlives this process however that one dies.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::{select_all, try_join_all};
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStdin, Command};

use super::plan::Invocation;

/// Why a child is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    /// It could not be started.
    #[error("{name} cannot be started as {}", program.display())]
    Start {
        name: String,
        program: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// The kernel does not run files from there.
    #[error("{} may not be run; where its file system is mounted noexec, name another directory with --keep", program.display())]
    NoExec { program: PathBuf },
    /// It ended by itself.
    #[error("{name} ended with {status}; its last words:\n{words}")]
    Ended { name: String, status: ExitStatus, words: String },
    /// It did not say that it was ready.
    #[error("{name} was not ready within {} s; its last words:\n{words}", READY_DEADLINE.as_secs())]
    Late { name: String, words: String },
    /// A command failed.
    #[error("`{command}` ended with {status}:\n{words}")]
    Command { command: String, status: ExitStatus, words: String },
    /// A command did not end.
    #[error("`{command}` did not end within {} s", COMMAND_DEADLINE.as_secs())]
    Endless { command: String },
    /// The child cannot be waited for.
    #[error("{name} cannot be watched")]
    Watch {
        name: String,
        #[source]
        cause: io::Error,
    },
}

/// The running children, in the order in which they were started.
pub(crate) struct Processes {
    dir: PathBuf,
    binary: Binary,
    running: Vec<Running>,
}

struct Running {
    name: String,
    child: Child,
    /// Held open; the child stops when it is dropped.
    stdin: Option<ChildStdin>,
    announcements: UnixDatagram,
    log: PathBuf,
}

/// The binary that commands are run with.
#[derive(Debug, Clone)]
pub(crate) struct Binary(pub(crate) PathBuf);

/// What a command that ended printed.
pub(crate) struct Printed {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Its standard output.
    pub(crate) text: String,
}

impl Processes {
    /// No children yet; their sockets and logs go below `dir`.
    pub(crate) fn new(dir: &Path, binary: Binary) -> Self {
        Self { dir: dir.to_owned(), binary, running: Vec::new() }
    }

    /// Starts a daemon that stops with our end of its standard input.
    pub(crate) fn start(&mut self, name: &str, command: &Invocation) -> Result<(), ProcessError> {
        let program = command.program.as_ref().unwrap_or(&self.binary.0);
        let running = self.spawn(name, program, &command.arguments);
        let running = running.map_err(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => ProcessError::NoExec { program: program.clone() },
            _ => ProcessError::Start { name: name.to_owned(), program: program.clone(), cause },
        })?;
        self.running.push(running);
        Ok(())
    }

    fn spawn(&self, name: &str, program: &Path, arguments: &[String]) -> io::Result<Running> {
        let socket = self.dir.join(format!("run/{name}.ready"));
        let announcements = UnixDatagram::bind(&socket)?;
        let log = self.dir.join(format!("log/{name}.log"));
        let lines = File::options().create(true).append(true).mode(0o600).open(&log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(SUPERVISED)
            .env("NOTIFY_SOCKET", &socket)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(lines.try_clone()?)
            .stderr(lines)
            // A Ctrl-C at the terminal is for the parent, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Running { name: name.to_owned(), stdin: child.stdin.take(), child, announcements, log })
    }

    /// Waits until each of the named children says that it is ready.
    pub(crate) async fn ready(&mut self, names: &[&str]) -> Result<(), ProcessError> {
        let named = self.running.iter_mut().filter(|running| names.contains(&running.name.as_str()));
        try_join_all(named.map(Running::ready)).await.map(drop)
    }

    /// Waits until any child ends, which none should do by itself.
    pub(crate) async fn any_end(&mut self) -> ProcessError {
        if self.running.is_empty() {
            return std::future::pending().await;
        }
        let ends = self.running.iter_mut().map(|running| Box::pin(running.end_by_itself()));
        select_all(ends).await.0
    }

    /// Ends the children, the last started first, and waits for each.
    pub(crate) async fn end(mut self) {
        while let Some(mut running) = self.running.pop() {
            running.stdin.take();
            let ended = tokio::time::timeout(END_DEADLINE, running.child.wait()).await;
            if ended.is_err() {
                tracing::warn!(name = running.name, "child does not end by itself and is killed");
                if let Err(cause) = running.child.kill().await {
                    tracing::warn!(name = running.name, %cause, "child cannot be killed");
                }
            }
        }
    }
}

impl Binary {
    /// Runs a command to its end, with standard output to be read and errors kept apart.
    pub(crate) async fn run(&self, command: &Invocation) -> Result<Printed, ProcessError> {
        let program = command.program.as_ref().unwrap_or(&self.0);
        let output = Command::new(program)
            .args(&command.arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(COMMAND_DEADLINE, output)
            .await
            .map_err(|_| ProcessError::Endless { command: command.shown() })?
            .map_err(|cause| ProcessError::Start {
                name: command.shown(),
                program: program.clone(),
                cause,
            })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0 | 3 | 4) => Ok(Printed { status: output.status, text }),
            Some(_) | None => Err(ProcessError::Command {
                command: command.shown(),
                status: output.status,
                words: text + &String::from_utf8_lossy(&output.stderr),
            }),
        }
    }
}

impl Running {
    async fn ready(&mut self) -> Result<(), ProcessError> {
        tokio::select! {
            announced = announced(&self.announcements) => announced.map_err(|cause| ProcessError::Watch {
                name: self.name.clone(),
                cause,
            }),
            ended = self.child.wait() => Err(self.ended(ended)),
            () = tokio::time::sleep(READY_DEADLINE) => Err(ProcessError::Late {
                name: self.name.clone(),
                words: last_words(&self.log),
            }),
        }
    }

    async fn end_by_itself(&mut self) -> ProcessError {
        let ended = self.child.wait().await;
        self.ended(ended)
    }

    fn ended(&self, ended: io::Result<ExitStatus>) -> ProcessError {
        match ended {
            Ok(status) => {
                ProcessError::Ended { name: self.name.clone(), status, words: last_words(&self.log) }
            }
            Err(cause) => ProcessError::Watch { name: self.name.clone(), cause },
        }
    }
}

/// Waits for the message of `sd_notify(3)` that says so.
async fn announced(socket: &UnixDatagram) -> io::Result<()> {
    let mut message = vec![0; LONGEST_MESSAGE];
    loop {
        let length = socket.recv(&mut message).await?;
        let text = message.get(..length).unwrap_or_default();
        if text.split(|&byte| byte == b'\n').any(|line| line == b"READY=1") {
            return Ok(());
        }
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    let last: Vec<String> = lines.iter().skip(from).map(|line| format!("    {line}")).collect();
    last.join("\n")
}

/// Has a child stop when its standard input ends.
const SUPERVISED: &str = "--exit-with-stdin";

/// A daemon that needs longer on loopback has failed.
const READY_DEADLINE: Duration = Duration::from_secs(20);

/// A command that needs longer on loopback has failed.
const COMMAND_DEADLINE: Duration = Duration::from_secs(20);

/// How long a child may take to shut down before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// How many lines of a child's log explain why it ended.
const LAST_LINES: usize = 12;

/// Longer messages than systemd itself accepts are not read whole.
const LONGEST_MESSAGE: usize = 4_096;

#[cfg(test)]
mod tests;
